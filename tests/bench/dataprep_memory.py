"""Peak memory of the data compiler: it does not grow with the number of images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.bench.dataprep_data import write_boxes, write_large, write_masks, write_pictures
from tests.bench.measuring import Board, Entry, whole_process

FEW_IMAGES: Final = 2_000
MANY_IMAGES: Final = 20_000
LARGE_BYTES: Final = 2_000_000_000

_Write = Callable[[Path, int], Path]
_JOBS: Final[tuple[tuple[_Write, dict[str, str]], ...]] = (
    (write_boxes, {"finemesh-boxes": "COCO to YOLO boxes"}),
    (
        write_masks,
        {
            "finemesh-masks": "COCO run lengths to YOLO segmentation",
            "finemesh-coco": "COCO run lengths to COCO",
        },
    ),
    (write_pictures, {"finemesh-import": "import of COCO with pictures"}),
)


def memory_bars(board: Board, folder: Path, *, large: bool) -> None:
    """Each job with FEW_IMAGES and MANY_IMAGES; two of them with a JSON of LARGE_BYTES too."""
    for write, jobs in _JOBS:
        _compare(board, folder / "source", write, jobs)
    if large:
        jobs = {
            "finemesh-boxes": "COCO to YOLO boxes, polygons in a JSON of 2 GB",
            "finemesh-masks": "COCO to YOLO segmentation, polygons in a JSON of 2 GB",
        }
        bytes_each = LARGE_BYTES // MANY_IMAGES
        _compare(
            board, folder / "source", lambda at, images: write_large(at, bytes_each * images, images), jobs
        )


def _compare(board: Board, source: Path, write: _Write, jobs: dict[str, str]) -> None:
    few, many = (_peaks(list(jobs), write(source, images)) for images in (FEW_IMAGES, MANY_IMAGES))
    for name, what in jobs.items():
        bar = f"{what}, peak memory, {MANY_IMAGES} against {FEW_IMAGES} images"
        board.growth(bar, few[name], many[name])


def _peaks(names: Sequence[str], source: Path) -> dict[str, float]:
    """Peak of each contender, in MB; the source is removed."""
    found = {name: whole_process(Entry(name, source)).peak for name in names}
    shutil.rmtree(source)
    return found
