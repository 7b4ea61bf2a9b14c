"""The loss budget counts every stage from the import on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from finemesh.core.errors import NotFoundError
from finemesh.core.spec.finetune import Evaluation, FineTuneSpec, Objective, Task
from finemesh.training.admission import Described, examine
from finemesh.training.datasets import facts_of
from finemesh.training.ports import DatasetFacts
from finemesh.v1 import dataset_pb2

IMPORT, CHAT, SPLIT = (f"projects/p/datasets/{name}" for name in ("import", "chat", "split"))


class Lineage:
    """An import, converted to conversations, then split."""

    def __init__(self, **quarantined: int) -> None:
        self.facts = {
            name: DatasetFacts(
                name=name,
                state="SUCCEEDED",
                canonical=True,
                split_rows={"train": 60, "val": 10, "test": 30},
                inputs=100,
                quarantined=quarantined.get(name.rpartition("/")[2], 0),
                makes_conversations=name == CHAT,
                parent=parent,
            )
            for name, parent in ((IMPORT, ""), (CHAT, IMPORT), (SPLIT, CHAT))
        }

    async def describe(self, name: str) -> DatasetFacts:
        if name not in self.facts:
            raise NotFoundError(f"there is no {name}")
        return self.facts[name]


def spec(budget: float = 0.05) -> FineTuneSpec:
    return FineTuneSpec(Task.VISION_LANGUAGE, "base", SPLIT, max_quarantined_fraction=budget)


@pytest.mark.parametrize(
    ("quarantined", "budget", "admitted"),
    [
        ({}, 0.05, True),
        ({"import": 5}, 0.05, True),
        ({"import": 6}, 0.05, False),
        ({"import": 3, "chat": 3}, 0.05, False),  # each stage within the budget, both together not
        ({"import": 3, "chat": 3}, 0.0591, True),
        ({"import": 50, "split": 50}, 0.75, True),
        ({"import": 51, "split": 50}, 0.75, False),
    ],
)
async def test_losses_add_up_over_the_stages(
    quarantined: dict[str, int], budget: float, admitted: bool
) -> None:
    refusal = await examine(Lineage(**quarantined), spec(budget))
    if admitted:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.reason == "LOSS_BUDGET_EXCEEDED"


async def test_a_lineage_with_a_gap_proves_nothing() -> None:
    lineage = Lineage()
    del lineage.facts[IMPORT]
    refusal = await examine(lineage, spec())
    assert refusal is not None
    assert refusal.reason == "LINEAGE_INCOMPLETE"
    assert await examine(lineage, spec(budget=1.0)) is None  # waived by the user


async def test_an_import_of_conversations_needs_no_instruction() -> None:
    """Prompts and answers that the source holds are trained on as they are; annotations are not."""
    for count, reason in ((100, ""), (0, "NO_CONVERSATIONS")):
        summary = dataset_pb2.DatasetSummary(
            splits=[dataset_pb2.SplitCount(split="train", rows=100)], conversation_count=count
        )
        dataset = dataset_pb2.Dataset(
            name=SPLIT, state="STATE_SUCCEEDED", format="DATASET_FORMAT_CANONICAL", summary=summary
        )
        lineage = Lineage()
        lineage.facts = {SPLIT: facts_of(dataset)}
        refusal = await examine(lineage, replace(spec(), validation_split="", test_split=""))
        assert (refusal.reason if refusal else "") == reason


async def test_a_split_without_rows_cannot_be_trained_on() -> None:
    lineage = Lineage()
    lineage.facts[SPLIT] = replace(lineage.facts[SPLIT], split_rows={"": 100})
    refusal = await examine(lineage, spec())
    assert refusal is not None
    assert refusal.reason == "SPLIT_EMPTY"
    assert "split the dataset first" in refusal.message


async def test_the_splits_that_scores_are_made_of_have_rows_too() -> None:
    lineage = Lineage()
    lineage.facts[SPLIT] = replace(lineage.facts[SPLIT], split_rows={"train": 100, "test": 10})
    refusal = await examine(lineage, spec())
    assert refusal is not None
    assert refusal.reason == "SPLIT_EMPTY"
    assert refusal.message.startswith(f"spec.validation_split: {SPLIT} has no rows in split 'val'")
    for enough in (
        replace(spec(), validation_split=""),
        replace(spec(), evaluation=Evaluation(holdout_fraction=0.1)),
    ):
        assert await examine(lineage, enough) is None


@pytest.mark.parametrize(
    ("task", "objects", "rows", "admitted"),
    [
        (Task.DETECTION, 2, 0, True),
        (Task.DETECTION, 0, 2, False),
        (Task.INSTANCE_SEGMENTATION, 0, 0, False),
        (Task.IMAGE_CLASSIFICATION, 0, 2, True),
        (Task.IMAGE_CLASSIFICATION, 2, 0, True),
        (Task.IMAGE_CLASSIFICATION, 0, 0, False),
    ],
)
async def test_pictures_need_classes_and_no_conversations(
    task: Task, objects: int, rows: int, *, admitted: bool
) -> None:
    lineage = Lineage()
    lineage.facts[SPLIT] = replace(
        lineage.facts[SPLIT], object_classes=objects, row_classes=rows, parent="", makes_conversations=False
    )
    refusal = await examine(lineage, replace(spec(), task=task))
    assert (refusal is None) == admitted
    assert refusal is None or refusal.reason == "NO_CLASSES"


async def test_plain_texts_need_no_conversations() -> None:
    lineage = Lineage()
    lineage.facts[SPLIT] = replace(lineage.facts[SPLIT], parent="", makes_conversations=False)
    text = replace(spec(), task=Task.LANGUAGE, objective=Objective.TEXT)
    assert await examine(lineage, text) is None
    refusal = await examine(lineage, replace(text, objective=Objective.PREFERENCE))
    assert refusal is not None
    assert refusal.reason == "NO_CONVERSATIONS"


def test_classes_are_told_apart_from_those_of_whole_rows() -> None:
    summary = dataset_pb2.DatasetSummary(
        classes=[dataset_pb2.ClassCount(class_name="cat")],
        class_splits=[
            dataset_pb2.ClassSplitCount(class_name="cat", split="train", objects=3, rows=2),
            dataset_pb2.ClassSplitCount(class_name="sunny", split="train", rows=4),
        ],
    )
    facts = facts_of(dataset_pb2.Dataset(name=IMPORT, summary=summary))
    assert (facts.object_classes, facts.row_classes) == (1, 1)


class Counting(Lineage):
    """Says how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def describe(self, name: str) -> DatasetFacts:
        self.asked.append(name)
        return await super().describe(name)


async def test_many_jobs_of_a_complete_dataset_ask_for_it_once() -> None:
    datasets = Counting()
    described = Described(datasets, fresh_seconds=60.0)
    for _ in range(3):
        described.begin_round()
        assert await asyncio.gather(*(examine(described, spec()) for _ in range(10))) == [None] * 10
    assert sorted(datasets.asked) == sorted([IMPORT, CHAT, SPLIT])


@pytest.mark.parametrize(
    "state", ["RUNNING", "FAILED", "", None], ids=["running", "failed", "unknown", "gone"]
)
async def test_what_is_not_complete_is_asked_for_in_each_round(state: str | None) -> None:
    datasets = Counting()
    if state is None:
        del datasets.facts[SPLIT]
    else:
        datasets.facts[SPLIT] = replace(datasets.facts[SPLIT], state=state)
    described = Described(datasets, fresh_seconds=60.0)
    for _ in range(2):
        described.begin_round()
        assert all(await asyncio.gather(*(examine(described, spec()) for _ in range(10))))
    assert datasets.asked == [SPLIT, SPLIT]
    datasets.facts[SPLIT] = Lineage().facts[SPLIT]
    described.begin_round()
    assert await examine(described, spec()) is None


async def test_what_was_said_is_asked_for_again_after_a_while() -> None:
    datasets = Counting()
    described = Described(datasets, fresh_seconds=0.0)
    for _ in range(2):
        described.begin_round()
        await examine(described, spec())
    assert datasets.asked == [SPLIT, CHAT, IMPORT] * 2
