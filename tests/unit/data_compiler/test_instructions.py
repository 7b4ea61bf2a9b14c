"""Generated questions: true of the annotations they name, balanced, seeded, in the words asked for."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.boxes import BoxConvention, read_box
from finemesh.core.spec.data import ConvertOptions, InstructionTask
from finemesh.data import Progress, convert_dataset, iter_ledger, iter_rows
from finemesh.data.instructions.wording import counted, listed, plural
from finemesh.data.rows import picture_size
from finemesh.data.schema import Row
from PIL import Image

Convert = Callable[..., list[Row]]


@pytest.fixture
def convert(divided: Path, tmp_path: Path, silent: Progress) -> Convert:
    """Rows made of the divided dataset by a task; the ledger accounts for every parent."""

    def run(task: InstructionTask, **options: Any) -> list[Row]:
        out = tmp_path / "out"
        settings = ConvertOptions(instruction=task, **options)
        manifest = convert_dataset(divided, out, settings, silent)
        rows = list(iter_rows(out))
        children = [child for entry in iter_ledger(out) for child in entry.children]
        assert children == [row["row_id"] for row in rows]
        assert manifest.ledger.check().inputs > 0
        return rows

    return run


@pytest.fixture
def parents(divided: Path) -> dict[str, Row]:
    return {row["row_id"]: row for row in iter_rows(divided)}


def _said(row: Row) -> list[tuple[str, str]]:
    """Questions and answers of a conversation."""
    texts = ["".join(part["text"] for part in message["content"]) for message in row["messages"]]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _visible(row: Row) -> Counter[str]:
    return Counter(item["class_name"] or "" for item in row["objects"] if item["visible"])


def test_counts_are_true_and_name_what_was_counted(convert: Convert, parents: dict[str, Row]) -> None:
    rows = convert(InstructionTask.COUNT, max_answer_ratio=0.0)
    assert {row["row_id"].split("#")[0] for row in rows} == {i for i, row in parents.items() if _visible(row)}
    for row in rows:
        parent = parents[row["row_id"].split("#")[0]]
        name = row["row_id"].rpartition("#count-")[2]
        [(question, answer)] = _said(row)
        assert plural(name) in question
        assert int(answer) == _visible(parent)[name] == len(row["parents"])


def test_what_is_said_to_be_absent_is_not_there(convert: Convert, parents: dict[str, Row]) -> None:
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in convert(InstructionTask.PRESENCE, max_answer_ratio=0.0):
        parent = parents[row["row_id"].split("#")[0]]
        name = row["row_id"].rpartition("#presence-")[2]
        [(question, answer)] = _said(row)
        assert name in question
        known = {item["class_name"] for item in parent["objects"]}
        assert (answer == "yes") == (_visible(parent)[name] > 0)
        assert answer == "yes" or name not in known, "a hidden object is not absent"
        answers[parent["row_id"]][answer] += 1
    assert all(0 < count["no"] <= count["yes"] for count in answers.values())


@pytest.mark.parametrize("convention", BoxConvention)
def test_a_referred_box_is_that_of_the_only_one_of_its_class(
    convert: Convert, parents: dict[str, Row], convention: BoxConvention
) -> None:
    rows = convert(InstructionTask.REFER_OBJECT, box_convention=convention, image_size_px=150)
    assert rows
    for row in rows:
        [origin] = row["parents"]
        parent = parents[origin.rpartition("#")[0]]
        item = next(each for each in parent["objects"] if origin.endswith(f"#{each['object_id']}"))
        assert sum(each["class_name"] == item["class_name"] for each in parent["objects"]) == 1
        width, height = picture_size(row)
        with Image.open(io.BytesIO(row["images"][0]["data"])) as image:
            assert image.size == (width, height)
        assert max(width, height) <= 154
        if convention is BoxConvention.PIXELS:
            assert width % 28 == height % 28 == 0
        box = read_box(_said(row)[0][1], width, height, convention)
        assert box is not None
        across, down = width / picture_size(parent)[0], height / picture_size(parent)[1]
        x, y, wide, high = item["bbox"]
        expected = (x * across, y * down, (x + wide) * across, (y + high) * down)
        assert box == pytest.approx(expected, abs=1.6)


def test_a_picture_that_fits_is_shown_byte_for_byte(convert: Convert, parents: dict[str, Row]) -> None:
    for row in convert(InstructionTask.DESCRIBE_REGION, max_items=6):
        parent = parents[row["row_id"].rpartition("#")[0]]
        assert row["images"] == parent["images"]
        [(_, answer)] = _said(row)
        assert str(row["objects"][0]["class_name"]) in answer


def test_captions_list_what_is_there(convert: Convert, parents: dict[str, Row]) -> None:
    for row in convert(InstructionTask.CAPTION):
        parent = parents[row["row_id"].split("#")[0]]
        [(_, answer)] = _said(row)
        for name, number in _visible(parent).items():
            assert counted(name, number) in answer


def test_questions_about_one_picture_share_a_conversation(convert: Convert, parents: dict[str, Row]) -> None:
    rows = convert(InstructionTask.COUNT, max_turns=3, max_answer_ratio=0.0)
    asked = Counter(row["row_id"].split("#")[0] for row in rows for _ in _said(row))
    assert asked == Counter({i: len(_visible(row)) for i, row in parents.items() if _visible(row)})
    for row in rows:
        assert 1 <= len(_said(row)) <= 3
        parts = [part["type"] for message in row["messages"] for part in message["content"]]
        assert parts.index("image") == 0
        assert parts.count("image") == 1


def test_the_seed_decides_the_wording_and_nothing_else(
    divided: Path, tmp_path: Path, silent: Progress
) -> None:
    said: list[list[tuple[str, str]]] = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ConvertOptions(instruction=InstructionTask.CAPTION, seed=seed)
        convert_dataset(divided, tmp_path / name, options, silent)
        said.append([turn for row in iter_rows(tmp_path / name) for turn in _said(row)])
    assert said[0] == said[1] != said[2]
    assert [answer for _, answer in said[0]] == [answer for _, answer in said[2]]
    assert len({question for question, _ in said[0]}) > 1


def test_templates_of_the_user_are_filled_and_reach_nothing_else(convert: Convert) -> None:
    templates = {"questions": ("{class.__class__} {0} what?",), "answers": ("It is a {class}.",)}
    for row in convert(InstructionTask.CLASSIFY_REGION, max_items=4, **templates):
        [(question, answer)] = _said(row)
        assert question == "{class.__class__} {0} what?"
        assert answer == f"It is a {row['objects'][0]['class_name']}."


def test_a_field_that_a_task_lacks_is_named(convert: Convert) -> None:
    with pytest.raises(InvalidError) as error:
        convert(InstructionTask.COUNT, questions=("How many {classes}?", "And {box}?"))
    assert error.value.reason == "UNKNOWN_TEMPLATE_FIELD"
    assert error.value.violations[0].field == "options.questions[1]"


def test_words() -> None:
    assert plural("traffic light") == "traffic lights"
    assert plural("bus") == "buses"
    assert plural("person") == "people"
    assert listed(Counter({"dog": 2, "cat": 1, "sofa": 1})) == "two dogs, one cat and one sofa"
    assert listed(Counter({"berry": 12})) == "12 berries"
