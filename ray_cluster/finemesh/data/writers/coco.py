"""COCO: `annotations/instances_<split>.json` and `images/<split>/`. Source: https://cocodataset.org/#format-data.

What came from COCO is written as it was, field by field (see finemesh.data.readers.coco); the rest gets ids
of its own. Masks are written as polygons where they came as polygons, else as run lengths, or as the request
says; in polygons a hole is bridged to the part around it. Crowds stay run lengths, as COCO has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import orjson

from finemesh.core.spec.data import MaskForm, MaskProof, ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault
from finemesh.data.outlines import QUARTERS, parts, trace
from finemesh.data.rle import parse_many
from finemesh.data.storage import describe_file
from finemesh.data.writers.classes import ClassTable, coco_names
from finemesh.data.writers.files import FileTree, by_row, picture_name
from finemesh.data.writers.form import FormContext, FormWriter, no_place, note_left_out
from finemesh.data.writers.proof import MaskProver

_NOTES: Final = "coco"
_LEFT_OUT: Final = no_place("COCO", "class_name", "text", "messages", "rejected", "tools")
_OF_VIDEO: Final = ("video_id", "frame_index")


class CocoWriter(FormWriter):
    folders: ClassVar[tuple[str, ...]] = ("annotations", "images")
    proves: ClassVar[bool] = True

    def __init__(self, context: FormContext) -> None:
        self._context = context
        self._files = FileTree(context.root)
        self._splits: dict[str, _SplitFile] = {}
        self._ready: dict[str, list[dict[str, Any]]] = {}
        options = context.options
        self._prover = MaskProver(options.min_mask_iou) if options.prove_masks else None
        self._numbers: _Numbers | None = None

    @property
    def _given(self) -> _Numbers:
        if self._numbers is None:  # late: a header that is still being read is complete with its first row
            self._numbers = _Numbers(self._context)
        return self._numbers

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        if len(row["images"]) != 1:
            message = f"the row has {len(row['images'])} pictures, and an entry of COCO is about one"
            return RowFault("NOT_ONE_IMAGE", message, "images")
        try:
            self._ready[row["row_id"]] = self._annotations(row)
        except RowFault as fault:
            return fault
        return None

    def _annotations(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        size = row["images"][0]["width"], row["images"][0]["height"]
        objects = row["objects"]
        written = self._segmentations(objects, size)
        if self._prover is not None:
            masked = [index for index in range(len(objects)) if objects[index]["rle_counts"] is not None]
            fault = self._prover.compare(
                [orjson.loads(orjson.dumps(written[index])) for index in masked],
                [objects[index]["rle_counts"] for index in masked],
                size,
                [f"objects[{objects[index]['object_id']}].rle_counts" for index in masked],
            )
            if fault is not None:
                raise fault
        made = [self._annotation(item, shape) for item, shape in zip(objects, written, strict=True)]
        notes = _notes(row).get("captions", [])
        for index, caption in enumerate(row["captions"]):
            known = notes[index] if index < len(notes) else {}
            made.append({"id": known.get("id"), "caption": caption, **known})
        return made

    def _segmentations(self, objects: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> list[Any]:
        """What stands under `segmentation` for each object: polygons, an RLE, or nothing."""
        width, height = size
        form = self._context.options.mask_form
        shapes: list[Any] = [None] * len(objects)
        outlined: list[int] = []
        for index, item in enumerate(objects):
            if item["rle_counts"] is None:
                shapes[index] = item["polygons"] or []
            elif form is not MaskForm.RLE and item["polygons"]:
                shapes[index] = item["polygons"]
            elif form is MaskForm.POLYGON and not item["iscrowd"]:
                outlined.append(index)
            else:
                shapes[index] = {"size": [height, width], "counts": item["rle_counts"]}
                if _notes(item).get("counts") == "list" and form is MaskForm.AS_SOURCE:
                    mask = parse_many([item["rle_counts"]], (height, width), "objects[{}]".format)[0]
                    shapes[index]["counts"] = mask.runs.tolist()
        counts = [objects[index]["rle_counts"] for index in outlined]
        masks = parse_many(counts, (height, width), lambda at: f"objects[{outlined[at]}].rle_counts")
        for index, rings in zip(outlined, trace(masks), strict=True):
            shapes[index] = [(part / QUARTERS).reshape(-1).tolist() for part in parts(rings)]
        return shapes

    def _annotation(self, item: Mapping[str, Any], segmentation: Any) -> dict[str, Any]:
        """Without the ids of its image and its own, which are given when it is written."""
        attributes = json.loads(item["attributes"]) if item["attributes"] else {}
        notes = attributes.pop(_NOTES, {})
        made: dict[str, Any] = {
            "id": notes.get("id", item["object_id"]),
            "category_id": notes.get("category_id", self._given.category(item["class_name"])),
            "bbox": item["bbox"],
            "area": notes.get("area", item["area"]),
            "iscrowd": int(item["iscrowd"]),
            "segmentation": segmentation or notes.get("segmentation", []),
        }
        for name in ("keypoints", "score"):
            if item[name] is not None:
                made[name] = item[name]
        return {**made, **attributes}

    def write(self, batch: RowBatch) -> None:
        for row in batch.rows:
            split = row["split"] or "all"
            if split not in self._splits:
                self._splits[split] = _SplitFile(self._context.root, split)
            file = self._splits[split]
            attributes = json.loads(row["attributes"]) if row["attributes"] else {}
            notes = attributes.pop(_NOTES, {})
            note_left_out(self._context, row, _LEFT_OUT)
            image = row["images"][0]
            wanted = str(notes.get("file_name") or image["name"] or row["row_id"])
            told = wanted
            if image["data"]:
                told = picture_name(wanted, image["format"], flat=False)
                if self._files.is_taken(f"images/{split}/{told}"):
                    told = by_row(told, row["row_id"])
                self._files.write(f"images/{split}/{told}", image["data"], image["sha256"])
            image_id = self._given.image_id(notes, file)
            sides = {"width": image["width"], "height": image["height"]}
            video = {name: row[name] for name in _OF_VIDEO if row[name] is not None}
            file.add_image({"id": image_id, "file_name": told, **sides, **video, **attributes})
            for annotation in self._ready.pop(row["row_id"]):
                own = self._given.annotation_id(annotation["id"], file)
                file.add_annotation({**annotation, "id": own, "image_id": image_id})

    def close(self) -> list[ShardInfo]:
        written: list[ShardInfo] = []
        for split, file in sorted(self._splits.items()):
            path = file.close({**self._given.header, "categories": self._given.categories})
            written.append(describe_file(self._context.root, path, file.images))
            del split
        return [*written, *self._files.written]

    def proof(self) -> MaskProof | None:
        return None if self._prover is None else self._prover.report()


def _notes(value: Mapping[str, Any]) -> dict[str, Any]:
    """What COCO said otherwise of a row or an object."""
    return json.loads(value["attributes"]).get(_NOTES, {}) if value["attributes"] else {}


class _Numbers:
    """Ids: those of the source where all comes from one COCO file, else new ones, from 1.

    Attributes:
        header: what stands at the top of the file beside images, annotations and categories.
    """

    def __init__(self, context: FormContext) -> None:
        files = context.header.get("coco", {})
        self._kept = len(files) == 1
        only = next(iter(files.values())) if self._kept else {}
        self.header = {key: value for key, value in only.items() if key != "categories"}
        self._listed: list[dict[str, Any]] = list(only.get("categories", []))
        self._ids: dict[str, Any] = {
            item["name"].strip(): item["id"]
            for item in reversed(self._listed)
            if isinstance(item.get("name"), str)
        }
        if len(files) > 1:
            context.warn(f"{len(files)} COCO files became one: ids are numbered anew")
        names = coco_names(context.header)
        self._classes = ClassTable(context)
        for name in dict.fromkeys([*names, *context.classes]):
            self.category(name)

    @property
    def categories(self) -> list[dict[str, Any]]:
        return self._listed

    def category(self, class_name: str | None) -> Any:
        """The id of a class; a new one, above all others, for a class that has none yet."""
        if class_name is None or class_name not in self._ids:
            number = self._classes.index_of(class_name)
            class_name = class_name or self._classes.names[number]
            if class_name not in self._ids:
                used = [identity for identity in self._ids.values() if isinstance(identity, int)]
                self._ids[class_name] = max(used, default=0) + 1
                self._listed.append({"id": self._ids[class_name], "name": class_name})
        return self._ids[class_name]

    def image_id(self, notes: Mapping[str, Any], file: _SplitFile) -> Any:
        return notes["id"] if self._kept and "id" in notes else file.images + 1

    def annotation_id(self, identity: Any, file: _SplitFile) -> Any:
        if self._kept and identity is not None:
            return int(identity) if isinstance(identity, str) and identity.isdigit() else identity
        return file.annotations + 1


class _SplitFile:
    """One JSON file. The annotations wait in a file beside it until all images are written.

    Attributes:
        images, annotations: how many are written.
    """

    def __init__(self, root: Path, split: str) -> None:
        self._path = root / "annotations" / f"instances_{split}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._waiting = self._path.with_suffix(".partial")
        self._file: BinaryIO = self._path.open("wb")
        self._later: BinaryIO = self._waiting.open("w+b")
        self._file.write(b'{"images": [')
        self.images = self.annotations = 0

    def add_image(self, image: dict[str, Any]) -> None:
        self._file.write(b",\n" * (self.images > 0) + orjson.dumps(image))
        self.images += 1

    def add_annotation(self, annotation: dict[str, Any]) -> None:
        self._later.write(b",\n" * (self.annotations > 0) + orjson.dumps(annotation))
        self.annotations += 1

    def close(self, rest: Mapping[str, Any]) -> Path:
        self._file.write(b'],\n"annotations": [')
        self._later.seek(0)
        while chunk := self._later.read(1 << 20):
            self._file.write(chunk)
        self._file.write(b"]")
        for key, value in rest.items():
            self._file.write(b",\n" + orjson.dumps(key) + b": " + orjson.dumps(value))
        self._file.write(b"}\n")
        self._file.close()
        self._later.close()
        self._waiting.unlink()
        return self._path
