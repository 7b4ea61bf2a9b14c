"""`python -m tests.bench.dataprep_validation`: validation against its peers, a JSON line per bar.

BASIC stands against Datumaro's import and validator, STRICT against cleanvision, on the same seeded pictures.
Start-up (the import of packages) is left out for all; of several runs, each in a process of its own, the best
counts. The peers live in an environment below `FINEMESH_BENCH_CACHE`, by default ~/.cache/finemesh-bench,
which is made when it is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any, Final

import numpy as np
from finemesh.core.spec.data import ImportOptions
from finemesh.data import import_source
from finemesh.data.similarity import similar_pairs
from PIL import Image

COMMAND: Final = "python -m tests.bench.dataprep_validation"
PEERS: Final = ("datumaro==1.13.12", "cleanvision==0.3.7")
CLASSES: Final = 10
RUNS: Final = 3

OURS: Final = """
import json, re, sys, time
from pathlib import Path
from finemesh.core.spec.data import ValidateOptions, ValidationLevel
from finemesh.data import validate_dataset
options = ValidateOptions(level=ValidationLevel(sys.argv[2]))
wall, cpu = time.perf_counter(), time.process_time()
report = validate_dataset(Path(sys.argv[1]), options, lambda fraction, message: None)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
# Not ru_maxrss, which a process inherits from the one that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000
print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, "rows": report.rows}))
"""
DATUMARO: Final = """
import json, sys, time
from datumaro.components.dataset import Dataset
from datumaro.plugins.validators import DetectionValidator
wall, cpu = time.perf_counter(), time.process_time()
dataset = Dataset.import_from(sys.argv[1], "coco_instances")
limits = {"few_samples_thr": 10, "imbalance_ratio_thr": 10, "far_from_mean_thr": 5}
DetectionValidator(**limits, dominance_ratio_thr=0.8, topk_bins=0.1).validate(dataset)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"wall": wall, "cpu": cpu, "rows": len(dataset)}))
"""
CLEANVISION: Final = """
import json, resource, sys, time
from cleanvision import Imagelab
def spent():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)
if __name__ == "__main__":
    issues = {"exact_duplicates": {}, "near_duplicates": {}} if sys.argv[2] == "duplicates" else None
    wall, cpu = time.perf_counter(), spent()
    lab = Imagelab(data_path=sys.argv[1])
    lab.find_issues(issues, verbose=False)
    wall, cpu = time.perf_counter() - wall, spent() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, "rows": len(lab.issues)}))
"""


def report(bar: str, ours: float, peer: float | None, goal: float, unit: str) -> None:
    """Print one bar. `goal` is the largest ratio of ours to the peer's; without a peer, the largest ours."""
    ratio = ours / peer if peer else None
    line = {
        "bar": bar,
        "ours": round(ours, 3),
        "peer": round(peer, 3) if peer else None,
        "ratio": round(ratio, 3) if ratio else None,
        "goal": goal,
        "unit": unit,
        "met": (ours if ratio is None else ratio) <= goal,
        "command": COMMAND,
    }
    print(json.dumps(line), flush=True)


def make_pictures(folder: Path, images: int, size: tuple[int, int], seed: int = 0) -> Path:
    """COCO instances in Datumaro's layout: soft grounds with some grain, 4 to 12 tinted boxes on each."""
    pictures, (width, height) = folder / "images/train", size
    pictures.mkdir(parents=True)
    (folder / "annotations").mkdir()
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(images):
        draw = np.random.default_rng([seed, index])
        ground = Image.fromarray(draw.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(ground.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = pixels + draw.normal(0, 6, (height, width, 1)).astype(np.int16)
        for _ in range(int(draw.integers(4, 13))):
            w, h = int(draw.integers(8, width // 3)), int(draw.integers(8, height // 3))
            x, y = int(draw.integers(0, width - w)), int(draw.integers(0, height - h))
            part = pixels[y : y + h, x : x + w]
            part[:] = (part + draw.integers(0, 255, 3)) // 2
            annotations.append(_annotation(len(annotations) + 1, index + 1, [x, y, w, h], draw))
        name = f"{index:06d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(pictures / name, quality=88)
        listed.append({"id": index + 1, "file_name": name, "width": width, "height": height})
    categories = [{"id": number + 1, "name": f"class {number}"} for number in range(CLASSES)]
    value = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "annotations/instances_train.json").write_text(json.dumps(value))
    return folder


def _annotation(number: int, image: int, box: list[int], draw: np.random.Generator) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": int(draw.integers(1, CLASSES + 1)),
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": [],
    }


def peers() -> Path:
    """The Python of the peers' environment, which is made if need be."""
    cache = Path(os.environ.get("FINEMESH_BENCH_CACHE", Path.home() / ".cache/finemesh-bench"))
    folder = cache / "validation"
    python = folder / "bin/python"
    wanted = "\n".join(PEERS)
    mark = folder / "peers.txt"
    if not mark.is_file() or mark.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)
        mark.write_text(wanted)
    return python


def measure(python: Path | str, script: str, *arguments: object, runs: int = RUNS) -> dict[str, float]:
    """The least of several runs, for each figure that the script prints."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.py"
        file.write_text(script)
        for _ in range(runs):
            command = [str(python), str(file), *map(str, arguments)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{command} failed:\n{done.stderr[-4000:]}")
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: min(each[name] for each in found) for name in found[0]}


def compile_dataset(source: Path, out: Path) -> Path:
    import_source(source, out, ImportOptions(), lambda fraction, message: None)
    return out


def speed_bars(folder: Path, images: int) -> None:
    source = make_pictures(folder / "source", images, (640, 480))
    dataset = compile_dataset(source, folder / "dataset")
    python = peers()
    what = f"{images} pictures of 640 x 480"
    ours = measure(sys.executable, OURS, dataset, "basic")
    theirs = measure(python, DATUMARO, source)
    report(f"validation basic against Datumaro, {what}", ours["wall"], theirs["wall"], 1 / 5, "s")
    report(f"the same, CPU time, {what}", ours["cpu"], theirs["cpu"], 1 / 5, "CPU s")
    ours = measure(sys.executable, OURS, dataset, "strict")
    theirs = measure(python, CLEANVISION, source / "images", "all", runs=1)
    report(f"validation strict against cleanvision, {what}", ours["cpu"], theirs["cpu"], 1 / 4, "CPU s")
    theirs = measure(python, CLEANVISION, source / "images", "duplicates", runs=1)
    bar = f"validation strict, all of it, against cleanvision's duplicates alone, {what}"
    report(bar, ours["cpu"], theirs["cpu"], 1 / 4, "CPU s")


def memory_bar(folder: Path) -> None:
    """Ten times the pictures, of a small size so that they are made in time."""
    peaks: list[float] = []
    for images in (2_000, 20_000):
        source = make_pictures(folder / f"small-{images}", images, (160, 120))
        dataset = compile_dataset(source, folder / f"small-{images}-dataset")
        peaks.append(measure(sys.executable, OURS, dataset, "strict", runs=1)["peak"])
    small, large = peaks
    report("validation strict, peak memory, 20,000 against 2,000 pictures", large, small, 1.2, "MB")
    report("the same, growth", large - small, None, 30, "MB")


def pairs_bar() -> None:
    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 2**64, 20_000, dtype=np.uint64)
    began = time.perf_counter()
    similar_pairs(hashes, 4)
    report("similar pairs among 20,000 hashes", time.perf_counter() - began, None, 2.0, "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2_000)
    images = parser.parse_args().images
    pairs_bar()
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        speed_bars(Path(folder), images)
        memory_bar(Path(folder))


if __name__ == "__main__":
    main()
