"""Packages compared on a dataset, so that a person can choose: size, memory, latency and metrics of each.

Every package runs in a process of its own with its own runtime, one after the other, on the same items. What
it decides is judged by `judging`, which is the training loop's own code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.finetune import Objective, Task
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.heads import BACKGROUND
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.pictures import sound_pictures
from finemesh.finetune.rows import TEXT_COLUMNS, no_rows, read_images, read_rows
from finemesh.package.contents import copy_scripts
from finemesh.package.formats import FORMATS
from finemesh.package.golden_pictures import expected_of
from finemesh.package.golden_text import halves, said
from finemesh.package.judging import SPEAKS, Judged, judge
from finemesh.package.manifest import PackageManifest, load_package_manifest

_SHOWN_CHARACTERS: Final = 500
DEFAULT_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one package came to.

    Attributes:
        package: its folder.
        size_bytes: of all its files.
        load_seconds: until it could be asked.
        seconds: of the median item, and of the slowest but one in twenty, from picture and words to decision.
        peak_memory_bytes: of its process.
        items: that it was asked; left_out: that it cannot be asked or judged.
        metrics: by name, with intervals.
    """

    package: Path
    manifest: PackageManifest
    size_bytes: int
    load_seconds: float
    seconds: tuple[float, float]
    peak_memory_bytes: int
    items: int
    left_out: int
    metrics: dict[str, float]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a dataset, to be asked and judged."""

    row_id: str
    group: str
    messages: list[Any]
    image: bytes
    expected: Any


def evaluate_packages(
    packages: Sequence[Path],
    dataset: Path,
    split: str,
    *,
    limit: int = 0,
    base_model: Path | None = None,
    max_tokens: int = DEFAULT_TOKENS,
) -> list[Evaluation]:
    """Run packages of one task on the rows of a split, or its first `limit`.

    Args:
        packages: their folders.
        dataset: local folder of a canonical dataset.
        split: of it.
        limit: 0 takes all rows.
        base_model: local folder of the base, for adapters.
        max_tokens: of an answer.

    Raises:
        NotFoundError: PACKAGE_NOT_FOUND, BASE_MODEL_NOT_FOUND.
        InvalidError: MALFORMED_PACKAGE; PACKAGES_OF_TWO_TASKS.
        PreconditionError: SPLIT_EMPTY, no row of it can be asked; PACKAGE_DOES_NOT_RUN.
    """
    manifests = [load_package_manifest(package) for package in packages]
    tasks = {str(manifest.spec["task"]) for manifest in manifests}
    if len(tasks) != 1:
        raise InvalidError(
            f"the packages are of several tasks ({', '.join(sorted(tasks))}), which no metric compares: "
            "evaluate those of one task together",
            reason="PACKAGES_OF_TWO_TASKS",
        )
    if base_model is None and any(FORMATS[each.format].needs_base for each in manifests):
        raise NotFoundError("an adapter runs on its base model: give --base", reason="BASE_MODEL_NOT_FOUND")
    [task] = tasks
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        questions, left_out = _questions(Task(task), manifests[0], dataset, split, limit)
        _write_questions(questions, folder)
        return [
            _evaluate(package, manifest, questions, left_out, folder, base_model, max_tokens)
            for package, manifest in zip(packages, manifests, strict=True)
        ]


def _questions(
    task: Task, manifest: PackageManifest, dataset: Path, split: str, limit: int
) -> tuple[list[Question], int]:
    """The rows that can be asked, and how many cannot: a picture too many, nothing to compare with."""
    plain = manifest.spec.get("objective") == Objective.TEXT
    speaks = _begun if plain else _spoken
    rows = speaks(dataset, split) if task in SPEAKS else _pictured(task, dataset, split)
    found = [*islice(rows, limit or None)]
    labels = set(manifest.decisions.get("labels", ()))
    sound = [each for each in found if each is not None and _is_known(task, each.expected, labels)]
    if not found:
        raise no_rows(dataset, split)
    if not sound:
        raise PreconditionError(
            f"none of the {len(found)} rows of {split!r} can be asked and judged: they have several "
            "pictures, no answer, or other classes than the model",
            reason="SPLIT_EMPTY",
        )
    return sound, len(found) - len(sound)


def _spoken(dataset: Path, split: str) -> Iterator[Question | None]:
    for row in read_rows(dataset, split):
        turns = [turn for turn, message in enumerate(row.messages) if message["role"] == "assistant"]
        if not turns or len(row.images) > 1:
            yield None
            continue
        asked, answer = [*row.messages[: turns[-1]]], row.messages[turns[-1]]
        shows = any(part["type"] == "image" for message in asked for part in message["content"])
        image = row.images[0] if row.images and shows else b""
        expected = "".join(part["text"] for part in answer["content"])
        yield Question(row.row_id, row.group, asked, image, expected)


def _begun(dataset: Path, split: str) -> Iterator[Question | None]:
    """Of models of plain text: how they go on with the first half of each."""
    for row in read_rows(dataset, split, TEXT_COLUMNS):
        text, rest = halves(row.text)
        yield Question(row.row_id, row.group, [said(text)], b"", rest) if text else None


def _pictured(task: Task, dataset: Path, split: str) -> Iterator[Question | None]:
    for row, picture in sound_pictures(dataset, split):
        if isinstance(picture, LedgerEntry):
            yield None
            continue
        [image] = read_images(dataset, row.location)
        yield Question(row.row_id, row.group, [], image, expected_of(task, row))


def _is_known(task: Task, expected: Any, labels: set[str]) -> bool:
    """Whether what is expected can be judged: of classes that the model has, with masks where it has any."""
    if task in SPEAKS:
        return True
    if task is Task.IMAGE_CLASSIFICATION:
        return expected in labels
    masked = task is not Task.DETECTION
    return all(each["label"] in labels and (each["mask"] or not masked) for each in expected)


def _write_questions(questions: Sequence[Question], folder: Path) -> None:
    (folder / "images").mkdir()
    lines: list[dict[str, Any]] = []
    for index, each in enumerate(questions):
        image = f"images/{index}" if each.image else ""
        if image:
            (folder / image).write_bytes(each.image)
        lines.append({"messages": each.messages, "image": image})
    write_lines(folder / "items.jsonl", lines)


def _evaluate(
    package: Path,
    manifest: PackageManifest,
    questions: Sequence[Question],
    left_out: int,
    folder: Path,
    base_model: Path | None,
    max_tokens: int,
) -> Evaluation:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        facts = _run(package, manifest, folder / "items.jsonl", Path(place), base_model, max_tokens)
        answers = [json.loads(line) for line in (Path(place) / "out/answers.jsonl").read_text().splitlines()]
        decisions = defaultdict[int, dict[str, Any]](dict)
        for key, each in load_file(Path(place) / "out/decisions.safetensors").items():
            number, _, name = key.partition("/")
            decisions[int(number)][name] = each
    judged: list[Judged] = []
    for index, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        size_px = _size_px(folder / f"images/{index}") if question.image else (0, 0)
        said = answer.get("said", "")
        judged.append(
            Judged(question.row_id, question.group, question.expected, size_px, decisions[index], said)
        )
    task = str(manifest.spec["task"])
    labels = manifest.decisions.get("labels", [])
    covered = manifest.spec["segmentation"]["background"] == "CLASS"
    # The first item also fills caches.
    seconds = np.array([answer["seconds"] for answer in answers][1 if len(answers) > 1 else 0 :])
    return Evaluation(
        package=package,
        manifest=manifest,
        size_bytes=sum(path.stat().st_size for path in package.rglob("*") if path.is_file()),
        load_seconds=facts["load_seconds"],
        seconds=(float(np.median(seconds)), float(np.quantile(seconds, 0.95))),
        peak_memory_bytes=facts["peak_memory_bytes"],
        items=len(questions),
        left_out=left_out,
        metrics=judge(
            task,
            labels,
            judged,
            background=BACKGROUND if covered else "",
            seed=manifest.spec["optimization"]["seed"],
        ),
        versions=facts["versions"],
    )


def _size_px(image: Path) -> tuple[int, int]:
    with Image.open(image) as picture:
        return picture.height, picture.width


def _run(
    package: Path,
    manifest: PackageManifest,
    items: Path,
    place: Path,
    base_model: Path | None,
    max_tokens: int,
) -> dict[str, Any]:
    """What predict.py tells of its process, in which nothing of Finemesh is imported."""
    form = FORMATS[manifest.format]
    copy_scripts(form.runtime, place)
    command = [sys.executable, "-s", "predict.py", f"--package={package.resolve()}", f"--items={items}"]
    command += [f"--out={place / 'out'}", f"--max-new-tokens={max_tokens}"]
    command += [f"--base={base_model.resolve()}"] if base_model and form.needs_base else []
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=place, env={**os.environ, **offline}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PreconditionError(
            f"{package} does not run with {form.runtime.name} (exit code {done.returncode}): check it by its "
            f"verify.py. It said: {done.stderr.strip()[-_SHOWN_CHARACTERS:]}",
            reason="PACKAGE_DOES_NOT_RUN",
        )
    return json.loads(done.stdout.strip().splitlines()[-1])
