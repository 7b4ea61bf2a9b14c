"""YOLO: `data.yaml`, `images/<split>/` and `labels/<split>/`, as the Ultralytics trainers read them. Source:
https://docs.ultralytics.com/datasets/detect/ and /segment/.

A label is a line: the class, and a box (centre and sides) or one polygon, in shares of the picture. A mask of
several parts, or with holes, becomes one polygon by bridges (see finemesh.data.outlines).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import yaml

from finemesh.core.spec.data import MaskProof, ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.boxes import BoxBatch, clip_boxes
from finemesh.data.faults import RowFault
from finemesh.data.outlines import QUARTERS, join, trace
from finemesh.data.rle import parse_many
from finemesh.data.storage import describe_file
from finemesh.data.writers.box_lines import box_lines
from finemesh.data.writers.classes import ClassTable
from finemesh.data.writers.files import FileTree, base_stem, by_row, picture_name, wanted_name
from finemesh.data.writers.form import FormContext, FormWriter, no_place, note_left_out
from finemesh.data.writers.proof import MaskProver

_FOLDERS: Final = ("images", "labels", "data.yaml")
_CROWDS: Final = "{} crowd regions left out: YOLO has no place for them"
_HIDDEN: Final = "{} hidden objects left out: nothing of them is seen"
_BOXES: Final = "{} objects without a mask written as their boxes"
_POINTS: Final = "key points of {} objects left out: detection and segmentation have no place for them"
_LEFT_OUT: Final = no_place("YOLO", "class_name", "captions", "text", "messages", "rejected", "tools")
_DECIMALS: Final = 5  # a twentieth of a quarter pixel, of a picture of 10,000


class YoloWriter(FormWriter):
    """What boxes and polygons have in common."""

    folders: ClassVar[tuple[str, ...]] = _FOLDERS
    divisible: ClassVar[bool] = True
    names_files: ClassVar[bool] = True

    def __init__(self, context: FormContext) -> None:
        self._context = context
        self._classes = ClassTable(context)
        self._files = FileTree(context.root)
        self._labels: dict[str, bytes] = {}

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        if len(row["images"]) != 1:
            message = f"the row has {len(row['images'])} pictures, and a file of labels belongs to one"
            return RowFault("NOT_ONE_IMAGE", message, "images")
        crowds = sum(item["iscrowd"] for item in row["objects"])
        shown = [item for item in row["objects"] if item["visible"] and not item["iscrowd"]]
        try:
            self._labels[row["row_id"]] = self._lines(row, shown)
        except RowFault as fault:
            return fault
        note_left_out(self._context, row, _LEFT_OUT)
        self._context.notes[_POINTS] += sum(item["keypoints"] is not None for item in shown)
        self._context.notes[_CROWDS] += crowds
        self._context.notes[_HIDDEN] += len(row["objects"]) - len(shown) - crowds
        return None

    @abstractmethod
    def _lines(self, row: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> bytes:
        """The labels of a row's visible objects. Raises RowFault."""

    def write(self, batch: RowBatch) -> None:
        for row in batch.rows:
            split = row["split"] or "all"
            image = row["images"][0]
            name = picture_name(
                wanted_name(row["row_id"], row["video_id"], image["name"]), image["format"], flat=True
            )
            name = self._write_labels(split, name, row["row_id"], self._labels.pop(row["row_id"]))
            if image["data"]:
                self._files.write(f"images/{split}/{name}", image["data"], image["sha256"])

    def _write_labels(self, split: str, name: str, row_id: str, text: bytes) -> str:
        """Write the labels of the picture `name`. Returns its name: another one where this one is taken."""
        if self._context.part is not None:
            if (split, base_stem(name)) in self._context.shared_names:
                name = by_row(name, row_id)
            self._files.write(_label_path(split, name), text)
        elif not self._files.write(_label_path(split, name), text, new=True):
            name = by_row(name, row_id)
            self._files.write(_label_path(split, name), text)
        return name

    def close(self) -> list[ShardInfo]:
        return self._files.written

    @classmethod
    def finish(cls, context: FormContext, splits: frozenset[str]) -> list[ShardInfo]:
        folders = {split: f"images/{split}" for split in ("train", "val", "test") if split in splits}
        if "" in splits:
            context.warn("never split: data.yaml names the same pictures for train and val")
            folders = {"train": "images/all", "val": "images/all", **folders}
        names = dict(enumerate(ClassTable(context).names))
        path = context.root / "data.yaml"
        text = yaml.safe_dump({**folders, "names": names}, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        return [describe_file(context.root, path, 0)]


class YoloDetectionWriter(YoloWriter):
    """Boxes."""

    def _lines(self, row: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> bytes:
        size = np.array([(row["images"][0]["width"], row["images"][0]["height"])], np.float64)
        boxes = np.array([item["bbox"] for item in objects], np.float64).reshape(-1, 4)
        near, far = clip_boxes(boxes, size)
        for item, outside in zip(objects, np.any(far <= near, axis=1), strict=True):
            if outside:
                message = f"object {item['object_id']} lies outside its picture"
                raise RowFault("BBOX_OUTSIDE", message, "objects")
        numbers = np.array([self._classes.index_of(item["class_name"]) for item in objects], np.int64)
        return box_lines(numbers, near / size, far / size)[0]

    def write_boxes(self, batch: BoxBatch) -> None:
        shown = batch.shown
        self._context.notes[_CROWDS] += int(batch.crowd.sum())
        self._context.notes[_HIDDEN] += int((~batch.visible & ~batch.crowd).sum())
        pictures, sizes = batch.pictures[shown], batch.sizes[batch.pictures[shown]]
        numbers = np.array([self._classes.index_of(name) for name in batch.class_names], np.int64)
        near, far = clip_boxes(batch.boxes[shown], sizes)
        text, ends = box_lines(numbers[batch.classes[shown]], near / sizes, far / sizes)
        lines = np.cumsum(np.bincount(pictures, minlength=len(batch.names)))
        start = 0
        for row_id, name, end in zip(batch.row_ids, batch.names, ends[lines].tolist(), strict=True):
            picture = picture_name(name, "", flat=True)
            self._write_labels(batch.split or "all", picture, row_id, text[start:end])
            start = end


class YoloSegmentationWriter(YoloWriter):
    """Polygons."""

    proves: ClassVar[bool] = True

    def __init__(self, context: FormContext) -> None:
        super().__init__(context)
        proved = context.options.prove_masks
        self._prover = MaskProver(context.options.min_mask_iou) if proved else None

    def _lines(self, row: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> bytes:
        size = row["images"][0]["width"], row["images"][0]["height"]
        shapes = self._shapes(objects, size)
        index_of = self._classes.index_of
        numbers = [index_of(item["class_name"]) for item in objects]
        lines = [b"%d %s\n" % labelled for labelled in zip(numbers, shapes, strict=True)]
        if self._prover is not None:
            proved = [index for index, item in enumerate(objects) if item["rle_counts"] is not None]
            fault = self._prover.compare(
                [[_read_back(lines[index], size)] for index in proved],
                [objects[index]["rle_counts"] for index in proved],
                size,
                [f"objects[{objects[index]['object_id']}].rle_counts" for index in proved],
            )
            if fault is not None:
                raise fault
        return b"".join(lines)

    def _shapes(self, objects: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> list[bytes]:
        """The polygon of each object."""
        shapes: dict[int, bytes] = {}
        masked: list[int] = []
        for index, item in enumerate(objects):
            polygons = item["polygons"]
            if polygons is not None and len(polygons) == 1:
                shapes[index] = _shares(polygons[0], size)
            elif item["rle_counts"] is not None:
                masked.append(index)
            else:
                self._context.notes[_BOXES] += 1
                shapes[index] = _shares(_corners(item["bbox"]), size)
        counts = [objects[index]["rle_counts"] for index in masked]
        masks = parse_many(counts, (size[1], size[0]), lambda at: f"objects[{masked[at]}].rle_counts")
        columns, rows = _share_texts(size[0]), _share_texts(size[1])
        for index, rings in zip(masked, trace(masks), strict=True):
            corners = join(rings)
            texts = np.stack((columns[corners[:, 0]], rows[corners[:, 1]]), axis=1)
            shapes[index] = texts.tobytes().rstrip()
        return [shapes[index] for index in range(len(objects))]

    def proof(self) -> MaskProof | None:
        return None if self._prover is None else self._prover.report()


def _label_path(split: str, picture: str) -> str:
    return f"labels/{split}/{picture.rpartition('.')[0]}.txt"


@lru_cache(maxsize=16)
def _share_texts(side: int) -> npt.NDArray[np.bytes_]:
    """The text of every quarter pixel as a share of `side` pixels, and a blank: all are of one length."""
    quarters = range(QUARTERS * side + 1)
    return np.array([b"%.*f " % (_DECIMALS, quarter / QUARTERS / side) for quarter in quarters])


def _shares(polygon: Sequence[float], size: tuple[int, int]) -> bytes:
    shares = np.clip(np.array(polygon, np.float64).reshape(-1, 2) / size, 0.0, 1.0)
    return b" ".join([b"%.*f" % (_DECIMALS, share) for share in shares.ravel().tolist()])


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _read_back(line: bytes, size: tuple[int, int]) -> list[float]:
    """The polygon of a label in pixels."""
    width, height = size
    numbers = json.loads(b"[" + line.replace(b" ", b",") + b"]")
    polygon = numbers[1:]
    polygon[0::2] = [x * width for x in polygon[0::2]]
    polygon[1::2] = [y * height for y in polygon[1::2]]
    return polygon
