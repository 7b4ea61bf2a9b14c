"""A run that pauses at a step is measured and saved there, and goes on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

from finemesh.core.spec.finetune import Checkpointing, FineTuneSpec, Task
from finemesh.finetune.hooks import Outcome, TrainResult
from finemesh.finetune.loop import train

from tests.support.conversations import write_dataset
from tests.support.picture_runs import ADAPTED, picture_spec, tiny_picture_model, weights
from tests.support.shapes import shape_rows


def test_a_pause_is_measured_and_changes_nothing(tmp_path: Path) -> None:
    base = tiny_picture_model(tmp_path / "model", "segformer")
    rows = write_dataset(tmp_path / "shapes", list(shape_rows({"train": 12, "val": 4}, side_px=32)))
    spec = picture_spec(
        Task.SEMANTIC_SEGMENTATION,
        method=ADAPTED,
        validation_split="val",
        checkpoint=Checkpointing(every_steps=4, keep_last=100, keep_best=False),
    )

    def trained(
        work: str, of: FineTuneSpec, pause_at_step: int = 0, after: TrainResult | None = None
    ) -> TrainResult:
        resume_from = after.checkpoint.path if after else None
        return train(
            of,
            base_model=base,
            dataset=rows,
            work=tmp_path / work,
            resume_from=resume_from,
            pause_at_step=pause_at_step,
        )

    straight = trained("straight", spec)
    first = trained("first", spec, 2)
    again = trained("again", spec, 2, first)  # told to pause where it is
    second = trained("second", spec, 4, again)
    end = trained("end", spec, 6, second)  # which is its end
    assert [each.outcome for each in (first, again, second)] == [Outcome.PAUSED] * 3
    assert [each.step for each in (first, again, second)] == [2, 2, 4]
    assert "val/loss" in first.checkpoint.metrics
    assert first.checkpoint.metrics["val/loss"] != second.checkpoint.metrics["val/loss"]
    assert end.outcome is straight.outcome is Outcome.COMPLETED
    assert end.certificate == straight.certificate
    assert weights(end.checkpoint.path) == weights(straight.checkpoint.path)
