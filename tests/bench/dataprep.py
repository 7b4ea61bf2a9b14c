"""`make bench-dataprep`: the data compiler against its peers, a JSON line per bar.

`ratio` says how many times ours goes into the peer's; `goal` is the least ratio, or, where there is no peer,
the largest ours. Contenders take turns, each in a process of its own that has done the job once before,
unless whole processes are compared. Time on the wall is in s, CPU time in CPU s, memory in MB. Where a bar is
missed, the profile on stderr shows why. `--full` goes on with 20,000 pictures and takes far longer; `--large`
adds a JSON of 2 GB; `--only` names some of the groups.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from finemesh.core.spec.data import ImportOptions
from finemesh.data import import_source

from tests.bench.dataprep_data import add_pictures, write_boxes, write_masks, write_pictures
from tests.bench.dataprep_memory import memory_bars
from tests.bench.dataprep_ray import ray_bar
from tests.bench.dataprep_validation import validation_bars
from tests.bench.measuring import FEW, PAIRS, Board, Entry, by_turns, show_profile, whole_process
from tests.bench.peers import peer_python

PEERS: Final = (
    "torch==2.13.0",
    "torchvision==0.28.0",
    "ultralytics==8.4.190",
    "faster-coco-eval==1.8.0",
    "supervision==0.31.2",
    "datumaro==1.13.12",
    "datasets==5.2.0",
    "pycocotools==2.0.11",
)
SUPERVISION_IMAGES: Final = 200  # it holds a raster of the picture's size for every object


def box_bars(board: Board, folder: Path, images: int) -> None:
    source = write_boxes(folder / "boxes", images)
    what = f"COCO to YOLO boxes, {images} images"
    ours, peers = Entry("finemesh-boxes", source), peer_python("dataprep", PEERS)
    datumaro, ultralytics = Entry("datumaro-boxes", source, peers), Entry("ultralytics-boxes", source, peers)
    our, plain, theirs = by_turns([ours, Entry("plain-boxes", source), datumaro], PAIRS)
    walls = [spent.wall for spent in our]
    met = board.ratio(f"{what}, against a plain loop", walls, [spent.wall for spent in plain], 1, "s")
    met &= board.ratio(f"{what}, against Datumaro", walls, [spent.wall for spent in theirs], 4, "s")
    pairs = [(whole_process(ours).wall, whole_process(ultralytics).wall) for _ in range(FEW)]
    our_walls, their_walls = zip(*pairs, strict=True)
    met &= board.ratio(f"{what}, whole process, against ultralytics", our_walls, their_walls, 5, "s")
    if not met:
        show_profile(ours)


def mask_bars(board: Board, folder: Path, images: int) -> None:
    source = write_masks(folder / "masks", images)
    what = f"COCO run lengths to YOLO segmentation, {images} images"
    peers = peer_python("dataprep", PEERS)
    ours, proved = Entry("finemesh-masks", source), Entry("finemesh-masks-proved", source)
    spent = by_turns([ours, proved, Entry("pycocotools-decoding", source, peers)], PAIRS)
    our, with_proof, decoding = ([each.cpu for each in runs] for runs in spent)
    goal = board.ratio(f"{what}, against mere decoding", our, decoding, 1, "CPU s")
    proof = board.ratio(f"{what}, proved, against mere decoding", with_proof, decoding, 1 / 3, "CPU s")
    our_cpu, their_cpu = cpu_by_turns(ours, Entry("ultralytics-masks", source, peers))
    goal &= board.ratio(f"{what}, against ultralytics", our_cpu, their_cpu, 5, "CPU s")
    few = write_masks(folder / "few-masks", SUPERVISION_IMAGES)
    add_pictures(few, SUPERVISION_IMAGES)
    what = f"COCO run lengths to YOLO segmentation, {SUPERVISION_IMAGES} images"
    our_cpu, their_cpu = cpu_by_turns(Entry(ours.name, few), Entry("supervision-masks", few, peers))
    goal &= board.ratio(f"{what}, against supervision", our_cpu, their_cpu, 30, "CPU s")
    for met, entry in ((goal, ours), (proof, proved)):
        if not met:
            show_profile(entry)


def cpu_by_turns(ours: Entry, peer: Entry) -> list[list[float]]:
    """CPU seconds of both in FEW rounds."""
    return [[each.cpu for each in runs] for runs in by_turns([ours, peer], FEW)]


def parquet_bars(board: Board, folder: Path, images: int) -> None:
    """From a canonical dataset, and from the source: ours then opens and decodes every picture besides."""
    source, dataset = write_pictures(folder / "pictures", images), folder / "dataset"
    import_source(source, dataset, ImportOptions(), lambda *_: None)
    python = peer_python("dataprep", PEERS)
    for whence, ours, peer in (
        ("a canonical dataset", Entry("finemesh-conversion", dataset), "datasets-conversion"),
        ("COCO with pictures", Entry("finemesh-parquet", source), "datasets-parquet"),
    ):
        runs = by_turns([ours, Entry(peer, ours.source, python)], FEW)
        our, theirs = ([spent.wall for spent in each] for each in runs)
        bar = f"Hugging Face Parquet from {whence}, {images} pictures, against datasets"
        if not board.ratio(bar, our, theirs, 2, "s"):
            show_profile(ours)


def run(board: Board, groups: list[str], sizes: list[int], *, large: bool) -> None:
    by_size: dict[str, Callable[[Board, Path, int], None]] = {
        "boxes": box_bars,
        "masks": mask_bars,
        "parquet": parquet_bars,
    }
    for images in sizes:
        for name, bars in by_size.items():
            if name in groups:
                with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
                    bars(board, Path(folder), images)
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        if "memory" in groups:
            memory_bars(board, Path(folder), large=large)
        if "ray" in groups:
            ray_bar(board, Path(folder))
        if "validation" in groups:
            validation_bars(board, Path(folder), sizes[0])


GROUPS: Final = ("boxes", "masks", "parquet", "memory", "ray", "validation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="20,000 pictures after the 2,000")
    parser.add_argument("--large", action="store_true", help="a JSON of 2 GB")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    asked = parser.parse_args()
    given = sys.argv[1:]
    command = " ".join(["python -m tests.bench.dataprep", *given]) if given else "make bench-dataprep"
    run(Board(command), asked.only, [2_000, 20_000] if asked.full else [2_000], large=asked.large)


if __name__ == "__main__":
    main()
