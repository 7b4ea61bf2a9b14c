"""Peak memory of the data compiler: it does not grow with the number of images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.bench.dataprep_data import write_boxes, write_large, write_masks, write_pictures
from tests.bench.measuring import Board, Entry, whole_process

FEW_IMAGES: Final = 2_000
MANY_IMAGES: Final = 20_000
LARGE_BYTES: Final = 2_000_000_000
GROWTH: Final = 1.2
GROWTH_MB: Final = 30.0

_JOBS: Final[tuple[tuple[str, str, Callable[[Path, int], Path]], ...]] = (
    ("COCO to YOLO boxes", "finemesh-boxes", write_boxes),
    ("COCO run lengths to YOLO segmentation", "finemesh-masks", write_masks),
    ("COCO run lengths to COCO", "finemesh-coco", write_masks),
    ("import of COCO with pictures", "finemesh-import", write_pictures),
)


def memory_bars(board: Board, folder: Path, *, large: bool) -> None:
    """Each job with FEW_IMAGES and MANY_IMAGES; one of them with a JSON of LARGE_BYTES besides."""
    for what, name, write in _JOBS:
        few = _peak(name, folder, lambda place, write=write: write(place, FEW_IMAGES))
        many = _peak(name, folder, lambda place, write=write: write(place, MANY_IMAGES))
        _compare(board, f"{what}, peak memory, {MANY_IMAGES} against {FEW_IMAGES} images", few, many)
        if large and name == "finemesh-masks":
            vast = _peak(name, folder, lambda place: write_large(place, LARGE_BYTES, MANY_IMAGES))
            _compare(board, "COCO polygons to YOLO segmentation, peak memory, a JSON of 2 GB", few, vast)


def _peak(name: str, folder: Path, write: Callable[[Path], Path]) -> float:
    source = write(folder / "source")
    peak = whole_process(Entry(name, source)).peak
    shutil.rmtree(source)
    return peak


def _compare(board: Board, bar: str, few: float, many: float) -> None:
    board.show(bar, many, 1 / GROWTH, "MB", few, few / many)
    board.show(f"{bar}, growth", max(many - few, 0), GROWTH_MB, "MB")
