"""The runtime of transformers: answers that are written together are those that are written alone."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.finetune.families import family_named
from finemesh.package.formats.format import SHIPPED
from finemesh.package.shipped.server.seam import group_of
from PIL import Image

from tests.support.conversations import tiny_model

TOKENS = 6


def runner_of(folder: Path, family: str) -> Any:
    """The runner of a package that holds a tiny model."""
    kind = family_named(family)
    assert kind.load_processor
    kind.load_processor(folder).save_pretrained(folder)  # as the exporter does
    facts = {
        "format": "MERGED",
        "auto_class": kind.auto_class,
        "spec": {"task": kind.task.value},
        "decisions": {},
    }
    (folder / "manifest.json").write_text(json.dumps(facts))
    spec = importlib.util.spec_from_file_location("runtime", SHIPPED / "runtime_transformers.py")
    assert spec
    assert spec.loader
    runtime = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runtime)
    return runtime.Runner(folder)


@pytest.mark.parametrize("family", ["llama", "llava", "idefics3"])
def test_company_changes_no_answer(tmp_path: Path, family: str) -> None:
    runner = runner_of(tiny_model(tmp_path / "model", family), family)
    sees = runner.task == "VISION_LANGUAGE"
    rng = np.random.default_rng(0)
    items: list[Any] = []
    for words in ("say red", "say red green blue and the first? " * 3, "and"):
        image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)) if sees else None
        parts = [{"type": "image", "text": ""}] if sees else []
        said = [{"role": "user", "content": [*parts, {"type": "text", "text": words}]}]
        items.append(runner.prepare(said, image))
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(group_of(item), []).append(item)
    assert len(groups) == 1
    for group in groups.values():
        together: list[list[int]] = [[] for _ in group]

        def take(index: int, token: int, told: list[list[int]] = together) -> bool:
            told[index].append(token)
            return token not in runner.end_ids and len(told[index]) < TOKENS

        runner.answer(group, TOKENS, lambda _index, logits_V: int(logits_V.argmax()), take)
        assert together == [runner.write(item, TOKENS) for item in group]
