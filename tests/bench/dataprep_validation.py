"""`python -m tests.bench.dataprep_validation`: validation against its peers, a JSON line per bar.

BASIC stands against Datumaro's import and validator, by turns; STRICT against cleanvision, on the same seeded
pictures. Start-up (the import of packages) is left out for all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from finemesh.core.spec.data import ImportOptions
from finemesh.data import import_source
from finemesh.data.similarity import similar_pairs
from PIL import Image

from tests.bench.measuring import FEW, Board, Entry, by_turns, show_profile, whole_process
from tests.bench.peers import peer_python

PEERS: Final = ("datumaro==1.13.12", "cleanvision==0.3.7")
CLASSES: Final = 10
IMAGES: Final = 2_000


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


def compile_dataset(source: Path, out: Path) -> Path:
    import_source(source, out, ImportOptions(), lambda fraction, message: None)
    return out


def speed_bars(board: Board, folder: Path, images: int) -> None:
    source = make_pictures(folder / "source", images, (640, 480))
    dataset = compile_dataset(source, folder / "dataset")
    python = peer_python("validation", PEERS)
    what = f"{images} pictures of 640 x 480"
    basic, strict = Entry("finemesh-validation", dataset), Entry("finemesh-validation-strict", dataset)
    ours, theirs = by_turns([basic, Entry("datumaro-validation", source, python)], FEW)
    walls = [[spent.wall for spent in each] for each in (ours, theirs)]
    cpus = [[spent.cpu for spent in each] for each in (ours, theirs)]
    bar = f"validation basic against Datumaro, {what}"
    met = board.ratio(bar, walls[0], walls[1], 5, "s")
    if not board.ratio(bar, cpus[0], cpus[1], 5, "CPU s") or not met:
        show_profile(basic)
    our, everything, duplicates = (
        whole_process(entry).cpu
        for entry in (
            strict,
            Entry("cleanvision", source / "images", python),
            Entry("cleanvision-duplicates", source / "images", python),
        )
    )
    bar = f"validation strict against cleanvision, {what}"
    met = board.ratio(bar, [our], [everything], 4, "CPU s")
    bar = f"validation strict, all of it, against cleanvision's duplicates alone, {what}"
    if not board.ratio(bar, [our], [duplicates], 4, "CPU s") or not met:
        show_profile(strict)


def memory_bar(board: Board, folder: Path) -> None:
    """Ten times the pictures, of a small size so that they are made in time."""
    peaks: list[float] = []
    for images in (IMAGES, 10 * IMAGES):
        source = make_pictures(folder / f"small-{images}", images, (160, 120))
        dataset = compile_dataset(source, folder / f"small-{images}-dataset")
        peaks.append(whole_process(Entry("finemesh-validation-strict", dataset)).peak)
    few, many = peaks
    board.growth(f"validation strict, peak memory, {10 * IMAGES} against {IMAGES} pictures", few, many)


def pairs_bar(board: Board) -> None:
    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 2**64, 20_000, dtype=np.uint64)
    began = time.perf_counter()
    similar_pairs(hashes, 4)
    board.show("similar pairs among 20,000 hashes", time.perf_counter() - began, 2.0, "s")


def validation_bars(board: Board, folder: Path, images: int) -> None:
    pairs_bar(board)
    speed_bars(board, folder / "speed", images)
    memory_bar(board, folder / "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        validation_bars(Board("python -m tests.bench.dataprep_validation"), Path(folder), images)


if __name__ == "__main__":
    main()
