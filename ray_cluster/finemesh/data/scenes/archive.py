"""The films as a SAM 2 export archive (docs/reference/sam2-archive.md). Equal options give an equal archive,
byte for byte.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from finemesh.core.errors import InvalidError
from finemesh.data.images import FRAME, encode_jpeg
from finemesh.data.readers.sam2_archive import FORMAT, MANIFEST, VERSION
from finemesh.data.render import seeded
from finemesh.data.rle import Mask
from finemesh.data.scenes.film import HEIGHT_PX, WIDTH_PX, film
from finemesh.data.scenes.fruit import KINDS

_EPOCH: Final = (2026, 1, 1, 0, 0, 0)
_CAST_SIZES: Final = (4, 5, 5, 4, 5, 3)


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """How many videos of how many annotated frames are made, of which seed."""

    videos: int = 60
    frames: int = 4
    seed: int = 7

    def __post_init__(self) -> None:
        for name, value in (("videos", self.videos), ("frames", self.frames)):
            if value < 1:
                raise InvalidError.of(
                    f"options.{name}", f"{value} is too few: give at least 1", reason="INVALID_OPTIONS"
                )


def write_scene_archive(path: Path, options: SceneOptions) -> None:
    """Write the ZIP to `path`, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            videos = [
                _write_video(archive, options, number, cast) for number, cast in enumerate(_casts(options))
            ]
            manifest = {"format": FORMAT, "version": VERSION, "classes": list(KINDS), "videos": videos}
            _add(archive, MANIFEST, json.dumps(manifest, indent=1).encode(), compress=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _casts(options: SceneOptions) -> list[list[str]]:
    """Class names per video, dealt from shuffled decks so that every class occurs as often as any other."""
    random = seeded("casts", options.seed)
    deck: list[str] = []
    casts: list[list[str]] = []
    for number in range(options.videos):
        size = _CAST_SIZES[number % len(_CAST_SIZES)]
        while len(deck) < size:
            names = list(KINDS)
            random.shuffle(names)
            deck.extend(names)
        casts.append(deck[:size])
        del deck[:size]
    return casts


def _write_video(
    archive: zipfile.ZipFile, options: SceneOptions, number: int, cast: list[str]
) -> dict[str, Any]:
    """Add the frames and masklets of one video; its entry in the manifest."""
    video_id = f"scene_{number:04d}"
    masks: list[tuple[Mask, ...]] = []
    for index, frame in enumerate(film(options.seed, number, options.frames, cast)):
        _add(archive, f"frames/{video_id}/{index:05d}.jpg", encode_jpeg(frame.picture, FRAME).data)
        masks.append(frame.masks)
    masklets = f"annotations/{video_id}.json"
    _add(archive, masklets, json.dumps(_masklets(video_id, masks)).encode(), compress=True)
    return {
        "video_id": video_id,
        "width": WIDTH_PX,
        "height": HEIGHT_PX,
        "frame_count": options.frames,
        "frames": f"frames/{video_id}",
        "masklets": masklets,
        "objects": {str(object_id): name for object_id, name in enumerate(cast)},
    }


def _masklets(video_id: str, masks: list[tuple[Mask, ...]]) -> dict[str, Any]:
    """Masklets in SA-V's form."""
    areas = np.array([[mask.area for mask in frame] for frame in masks])  # [frame, object]
    visible = areas > 0
    return {
        "video_id": video_id,
        "video_width": WIDTH_PX,
        "video_height": HEIGHT_PX,
        "video_frame_count": len(masks),
        "masklet_id": list(range(areas.shape[1])),
        "masklet_num": areas.shape[1],
        "masklet_size_abs": (areas.sum(axis=0) / np.maximum(visible.sum(axis=0), 1)).tolist(),
        "masklet_frame_count": [len(masks)] * areas.shape[1],
        "masklet_type": ["manual"] * areas.shape[1],
        "masklet": [
            [{"size": [mask.height, mask.width], "counts": mask.counts()} for mask in frame]
            for frame in masks
        ],
    }


def _add(archive: zipfile.ZipFile, name: str, data: bytes, *, compress: bool = False) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o100644 << 16
    archive.writestr(
        entry, io.BytesIO(data).getvalue(), zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    )
