"""A preflight of instructions that people wrote: what carries loss is what the file says is the answer."""

from __future__ import annotations

import json
from pathlib import Path

from finemesh.core.spec.data import ImportOptions, SplitOptions
from finemesh.core.spec.finetune import OverLength, Sequence, Task
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.data import import_source, split_dataset
from finemesh.finetune.preflight import preflight_dataset
from finemesh.finetune.tiny import build_tiny

from tests.support.conversations import spec


def test_the_answers_of_a_real_file_carry_loss_and_nothing_else_does(samples: Path, tmp_path: Path) -> None:
    source = samples / "alpaca" / "alpaca_en_demo.json"
    told = json.loads(source.read_text())
    import_source(source, tmp_path / "raw", ImportOptions(), lambda *_: None)
    split_dataset(tmp_path / "raw", tmp_path / "split", SplitOptions(), lambda *_: None)
    texts = [each["output"] for each in told]
    base = build_tiny("llama", tmp_path / "base", texts, seed=0)
    wanted = spec(
        Task.LANGUAGE,
        validation_split="val",
        test_split="test",
        sequence=Sequence(max_tokens=64, over_length=OverLength.DROP),
    )
    report = preflight_dataset(PreflightOptions(wanted, shown_rows=50), base, tmp_path / "split")
    assert sum(split.rows for split in report.splits) == len(told) == 999
    assert len(report.shown) == 50
    answers = {f"{each['output']}</s>" for each in told}
    for shown in report.shown:
        words = [(part.loss, text) for part in shown.segments for text in part.texts]
        if shown.figures.outcome == "TRAINED":
            assert "".join(text for loss, text in words if loss) in answers
    outcomes = {shown.figures.outcome for shown in report.shown}
    assert outcomes == {"TRAINED", "DROPPED"}
    assert all(row.tokens > 64 for row in report.over_length)
