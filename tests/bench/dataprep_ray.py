"""Conversion in parts on Ray: two workers against one.

`python -m tests.bench.dataprep_ray ADDRESS DATASET OUT` is the driver, a process of its own because Ray reads
the settings of its token when it is imported.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from finemesh.core.spec.data import ConvertOptions, DatasetFormat, ImportOptions
from finemesh.data import import_source, parts

from tests.bench.dataprep_data import add_pictures, write_masks
from tests.bench.measuring import PAIRS, ROOT, SCRATCH, Board
from tests.support.ray_head import RayHeadProcess

IMAGES: Final = 2_048
GOAL: Final = 1.7
SPIN_ROUNDS: Final = 10_000_000
DRIVER_SECONDS: Final = 300


class Maker:
    """A worker that makes parts."""

    def __init__(self, dataset: Path, out: Path, conversion: parts.Conversion) -> None:
        self._told = dataset, out, conversion

    def make(self, part: parts.Part) -> int:
        parts.convert_part(*self._told, part, lambda *_: None)
        return part.number

    def spin(self, rounds: int) -> int:
        """Nothing but work for one core."""
        return sum(range(rounds))


def ray_bar(board: Board, folder: Path) -> None:
    """Both conversions take turns, by workers that have made a part before."""
    source, dataset = write_masks(folder / "source", IMAGES), folder / "dataset"
    add_pictures(source, IMAGES)
    import_source(source, dataset, ImportOptions(), lambda *_: None)
    head = RayHeadProcess(folder / "ray", cpus=2)
    head.start()
    try:
        with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir=SCRATCH) as scratch:
            done = _driven(head, dataset, Path(scratch) / "out")
    finally:
        head.remove()
    if done.returncode:
        sys.exit(f"the driver failed:\n{done.stderr[-4000:]}")
    both, alone, both_spinning, alone_spinning = json.loads(done.stdout.splitlines()[-1])
    bar = f"conversion of {IMAGES} rows in parts on Ray, 2 workers against 1"
    if not board.ratio(bar, both, alone, GOAL, "s"):
        gain = statistics.median(alone_spinning) / statistics.median(both_spinning)
        print(f"the machine let two workers that only count gain {gain:.2f} times", file=sys.stderr)


def _driven(head: RayHeadProcess, dataset: Path, out: Path) -> subprocess.CompletedProcess[str]:
    told = [head.address, str(dataset), str(out)]
    return subprocess.run(
        [sys.executable, "-m", "tests.bench.dataprep_ray", *told],
        cwd=ROOT,
        env={**os.environ, **head.environment},
        capture_output=True,
        text=True,
        timeout=DRIVER_SECONDS,
        check=False,
    )


def drive(address: str, dataset: Path, out: Path) -> tuple[list[float], ...]:
    """Seconds of PAIRS conversions by two workers, and by one; the same of work that is sure to scale."""
    parts.PART_BYTES = 1  # a part for every row group, so that no worker waits long for the other
    conversion = parts.plan_conversion(dataset, ConvertOptions(DatasetFormat.YOLO_SEGMENTATION))
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    maker: Any = ray.remote(num_cpus=1)(Maker)
    makers = [maker.remote(dataset, out, conversion) for _ in range(2)]
    _converted(makers, out, conversion)
    rounds: list[tuple[float, ...]] = []
    for _ in range(PAIRS):
        alone, both = (_converted(some, out, conversion) for some in (makers[:1], makers))
        alone_spinning, both_spinning = (_spun(some) for some in (makers[:1], makers))
        rounds.append((both, alone, both_spinning, alone_spinning))
    ray.shutdown()
    return tuple(list(each) for each in zip(*rounds, strict=True))


def _converted(makers: Sequence[Any], out: Path, conversion: parts.Conversion) -> float:
    """Seconds for all parts; each maker takes the next as soon as it is free."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return _wall(makers, lambda each, part: each.make.remote(part), list(conversion.parts))


def _spun(makers: Sequence[Any]) -> float:
    return _wall(makers, lambda each, rounds: each.spin.remote(rounds), [SPIN_ROUNDS] * 8)


def _wall(makers: Sequence[Any], give: Callable[[Any, Any], Any], items: list[Any]) -> float:
    began = time.perf_counter()
    made = list(ray.util.ActorPool(list(makers)).map_unordered(give, items))
    assert len(made) == len(items) > len(makers)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(drive(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
