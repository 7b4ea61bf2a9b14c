"""Whether a dataset may be trained on: ready, canonical, with what its task needs, within the budget."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from finemesh.core.errors import ErrorRecord, NotFoundError
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Objective, Task
from finemesh.training.ports import DatasetFacts, Datasets

MAX_LINEAGE: Final = 64
READY: Final = "SUCCEEDED"


class Described:
    """Implements `ports.Datasets` for rounds of checks: many jobs train on the same dataset.

    What is complete stays as it is until it is deleted: it is not asked for again for `fresh_seconds`.
    Anything else is asked for once in each round.
    """

    def __init__(self, datasets: Datasets, fresh_seconds: float) -> None:
        self._datasets = datasets
        self._fresh_seconds = fresh_seconds
        self._asked: dict[str, tuple[float, asyncio.Future[DatasetFacts]]] = {}

    def begin_round(self) -> None:
        """Forget what may have changed."""
        oldest = time.monotonic() - self._fresh_seconds
        self._asked = {
            name: (at, answer)
            for name, (at, answer) in self._asked.items()
            if at > oldest and _complete(answer)
        }

    async def describe(self, name: str) -> DatasetFacts:
        """Raises what the first to ask got."""
        if name not in self._asked:
            self._asked[name] = (time.monotonic(), asyncio.ensure_future(self._datasets.describe(name)))
        return await asyncio.shield(self._asked[name][1])


def _complete(answer: asyncio.Future[DatasetFacts]) -> bool:
    if not answer.done() or answer.cancelled() or answer.exception() is not None:
        return False
    return answer.result().state == READY


async def examine(datasets: Datasets, spec: FineTuneSpec) -> ErrorRecord | None:
    """Why the job must not start, or None. Raises FinemeshError when DataPrep gives no answer."""
    try:
        dataset = await datasets.describe(spec.dataset)
    except NotFoundError:
        return _refusal(
            "DATASET_NOT_FOUND",
            f"spec.dataset: there is no {spec.dataset}: import it, or correct the name",
            spec,
            code="NOT_FOUND",
        )
    return _unfit(dataset, spec) or await _lineage_refusal(datasets, dataset, spec)


def _unfit(dataset: DatasetFacts, spec: FineTuneSpec) -> ErrorRecord | None:
    """What is wrong with the dataset itself."""
    if dataset.state != READY:
        return _refusal(
            "DATASET_NOT_READY",
            f"spec.dataset: {dataset.name} is {dataset.state}: submit the job once it has SUCCEEDED",
            spec,
        )
    if not dataset.canonical:
        return _refusal(
            "DATASET_NOT_CANONICAL",
            f"spec.dataset: {dataset.name} is not in canonical form: train on the one it was converted from",
            spec,
        )
    for field, split in _needed_splits(spec).items():
        if not dataset.split_rows.get(split):
            return _split_refusal(dataset, spec, field, split)
    classes = dataset.object_classes
    if spec.task is Task.IMAGE_CLASSIFICATION:
        classes += dataset.row_classes
    if spec.task not in TEXT_TOWERS and not classes:
        what = "rows or objects" if spec.task is Task.IMAGE_CLASSIFICATION else "objects"
        return _refusal(
            "NO_CLASSES",
            f"spec.dataset: {dataset.name} names no classes of {what}, which {spec.task.value} learns: "
            "import one that does, or choose another task",
            spec,
        )
    return None


def _needed_splits(spec: FineTuneSpec) -> dict[str, str]:
    """The splits that have to have rows, by their fields: without them the training would stop when it has a
    worker and a model.
    """
    wanted = {"train_split": spec.train_split, "test_split": spec.test_split}
    if not spec.evaluation.holdout_fraction:  # which stands in for a validation split
        wanted["validation_split"] = spec.validation_split
    return {field: split for field, split in wanted.items() if split or field == "train_split"}


def _split_refusal(dataset: DatasetFacts, spec: FineTuneSpec, field: str, split: str) -> ErrorRecord:
    has = ", ".join(f"{name or '(none)'}: {rows}" for name, rows in sorted(dataset.split_rows.items()))
    without = "" if field == "train_split" else f", or leave {field} empty to do without"
    return _refusal(
        "SPLIT_EMPTY",
        f"spec.{field}: {dataset.name} has no rows in split {split!r} (it has {has}):"
        f" split the dataset first, or name another split{without}",
        spec,
    )


async def _lineage_refusal(
    datasets: Datasets, dataset: DatasetFacts, spec: FineTuneSpec
) -> ErrorRecord | None:
    """Follow the dataset to its import: every stage on the way may have lost rows."""
    kept_fraction, conversations, stage = 1.0, False, dataset
    for _ in range(MAX_LINEAGE):
        if stage.inputs:
            kept_fraction *= 1.0 - stage.quarantined / stage.inputs
        conversations = conversations or stage.makes_conversations
        if not stage.parent:
            break
        try:
            stage = await datasets.describe(stage.parent)
        except NotFoundError:
            if spec.max_quarantined_fraction >= 1.0 and (conversations or not _speaks(spec)):
                return None
            return _refusal(
                "LINEAGE_INCOMPLETE",
                f"spec.dataset: {stage.parent}, which {dataset.name} was made of, is gone: nobody knows how"
                " many rows were lost: make the dataset anew, or waive the budget by"
                " max_quarantined_fraction = 1",
                spec,
            )
    if not conversations and _speaks(spec):
        return _refusal(
            "NO_CONVERSATIONS",
            f"spec.dataset: {dataset.name} has no conversations: convert it with an instruction task first",
            spec,
        )
    lost_fraction = 1.0 - kept_fraction
    if lost_fraction <= spec.max_quarantined_fraction + 1e-12:
        return None
    return _refusal(
        "LOSS_BUDGET_EXCEEDED",
        f"spec.max_quarantined_fraction: {lost_fraction:.2%} of the rows were quarantined on the way to"
        f" {dataset.name}, the budget is {spec.max_quarantined_fraction:.2%}: see why in its ledger,"
        " mend the source, or raise the budget",
        spec,
        lost_fraction=f"{lost_fraction:.6f}",
        max_quarantined_fraction=f"{spec.max_quarantined_fraction:g}",
    )


def _speaks(spec: FineTuneSpec) -> bool:
    """Whether conversations are what is learnt."""
    return spec.task in TEXT_TOWERS and spec.objective is not Objective.TEXT


def _refusal(
    reason: str, message: str, spec: FineTuneSpec, code: str = "FAILED_PRECONDITION", **metadata: str
) -> ErrorRecord:
    return ErrorRecord(code, reason, message, {"dataset": spec.dataset, **metadata})
