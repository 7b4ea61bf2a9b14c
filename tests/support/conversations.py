"""Small canonical datasets of conversations about coloured pictures, and small models: quick to learn, quick
to write.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from finemesh.core.spec.data import ClassCount, DatasetFormat, DatasetManifest, DatasetOrigin, ShardInfo
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Lora,
    Optimization,
    Task,
)
from finemesh.core.spec.finetune import (
    Sequence as SequenceOptions,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.data.images import Picture
from finemesh.data.rows import make_row
from finemesh.data.schema import ROW_SCHEMA
from finemesh.finetune.manifests import file_digest
from finemesh.finetune.tiny import build_tiny
from PIL import Image

COLOURS: Final = {
    "red": (210, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 60, 220),
    "yellow": (230, 220, 40),
}
QUESTION: Final = "Which colour is it?"
DATASET: Final = "projects/test/datasets/colours"


def picture(colour: str, rng: np.random.Generator, width_px: int = 32, height_px: int = 32) -> bytes:
    """A noisy PNG of one colour."""
    pixels = np.asarray(COLOURS[colour]) + rng.normal(0, 20, (height_px, width_px, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def message(role: str, *parts: str, train: bool | None = None, tool_calls: str = "") -> dict[str, Any]:
    """A message of text parts; the part `<picture>` stands for the row's picture."""
    content = [
        {"type": "image", "text": ""} if part == "<picture>" else {"type": "text", "text": part}
        for part in parts
    ]
    return {"role": role, "content": content, "tool_calls": tool_calls, "train": train}


def row(
    row_id: str, split: str, messages: Sequence[dict[str, Any]], *images: bytes, video_id: str = ""
) -> dict[str, Any]:
    """A canonical row with the columns that training reads; the others are empty."""
    pictures = [Picture(image, "PNG", 32, 32, "image") for image in images]
    made = make_row(
        row_id,
        source={"file": "made up", "key": row_id},
        pictures=pictures,
        video_id=video_id or None,
        messages=cast("Any", list(messages)),
        split=split,
    )
    return dict(made)


def colour_rows(counts: dict[str, int], seed: int = 0) -> Iterator[dict[str, Any]]:
    """Questions about pictures, so many per split; the colours take turns, four rows make a video."""
    rng = np.random.default_rng(seed)
    names = list(COLOURS)
    for split, count in counts.items():
        for index in range(count):
            answer = names[index % len(names)]
            turns = [message("user", "<picture>", QUESTION), message("assistant", answer)]
            yield row(
                f"{split}-{index}", split, turns, picture(answer, rng), video_id=f"{split}-video-{index // 4}"
            )


def text_rows(counts: dict[str, int], seed: int = 0) -> Iterator[dict[str, Any]]:
    """Conversations of two turns and uneven length without pictures."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for index in range(count):
            words = [list(COLOURS)[i] for i in rng.integers(0, len(COLOURS), rng.integers(1, 12))]
            yield row(
                f"{split}-{index}",
                split,
                [
                    message("user", "say " + " ".join(words)),
                    message("assistant", " ".join(words)),
                    message("user", "and the first?"),
                    message("assistant", words[0]),
                ],
            )


def write_dataset(
    folder: Path, rows: Sequence[dict[str, Any]], ledger: LedgerSummary | None = None, shards: int = 2
) -> Path:
    """A canonical dataset of `rows` in `folder`, in several shards of several row groups."""
    (folder / "shards").mkdir(parents=True)
    infos: list[ShardInfo] = []
    for index in range(shards):
        path = folder / "shards" / f"part-{index:05d}.parquet"
        part = list(rows[index::shards])
        pq.write_table(pa.Table.from_pylist(part, schema=ROW_SCHEMA), path, row_group_size=16)
        infos.append(
            ShardInfo(path.relative_to(folder).as_posix(), file_digest(path), path.stat().st_size, len(part))
        )
    objects = Counter(
        thing["class_name"] for each in rows for thing in each["objects"] if thing["class_name"]
    )
    row_classes: dict[str, dict[str, int]] = {}
    for each in rows:
        if each["class_name"]:
            counts = row_classes.setdefault(each["class_name"], {})
            counts[each["split"]] = counts.get(each["split"], 0) + 1
    manifest = DatasetManifest(
        digest="sha256:" + "0" * 64,
        format=DatasetFormat.CANONICAL,
        origin=DatasetOrigin.CONVERT,
        rows=len(rows),
        splits=dict(Counter(each["split"] for each in rows)),
        classes=tuple(ClassCount(name, count, count) for name, count in sorted(objects.items())),
        answers={},
        media={},
        has_class_names=bool(objects),
        videos=0,
        shards=tuple(infos),
        ledger_shards=(),
        ledger=ledger or LedgerSummary(inputs=len(rows), kept=len(rows)),
        row_classes=row_classes,
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()), encoding="utf-8")
    return folder


def tiny_model(folder: Path, family: str, seed: int = 0) -> Path:
    """A small random model whose tokenizer knows the colours."""
    return build_tiny(family, folder, [QUESTION, "say and the first?", *list(COLOURS) * 3], seed)


def spec(task: Task = Task.VISION_LANGUAGE, **changes: Any) -> FineTuneSpec:
    """A short LoRA run with dropout, accumulation, and nothing held out; `changes` replace fields."""
    base = FineTuneSpec(
        task=task,
        base_model="tiny",
        dataset=DATASET,
        validation_split="",
        test_split="",
        method=Lora(rank=4, alpha=8, dropout=0.1, train_connector=task is Task.VISION_LANGUAGE),
        optimization=Optimization(
            learning_rate=4e-3, max_steps=6, micro_batch_size=4, gradient_accumulation_steps=2, seed=3
        ),
        sequence=SequenceOptions(max_tokens=256),
        evaluation=Evaluation(),
        checkpoint=Checkpointing(every_steps=1, keep_last=100),
    )
    return replace(base, **changes)
