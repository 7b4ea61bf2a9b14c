"""What is said: legal conversations give no finding, planted faults give theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.data import ValidateOptions, ValidationStatus
from finemesh.data import Progress, validate_dataset
from finemesh.data.rows import IMAGE_PART, make_message, make_row, text_part
from finemesh.data.schema import Message, Row
from finemesh.data.validation.conversations import check_conversation
from finemesh.data.validation.rules import RULES

from tests.support.sources import load

CALL = [{"name": "add", "arguments": {}}]


def turn(role: str, *words: str, calls: Any = None, train: bool | None = None) -> Message:
    """`[]` among the words is a picture."""
    parts = [IMAGE_PART if word == "[]" else text_part(word) for word in words]
    return make_message(role, parts, tool_calls=calls, train=train)


ASK, ANSWER = turn("user", "What?"), turn("assistant", "A plum.")
SYSTEM, RESULT = turn("system", "Be brief."), turn("tool", "3")
CALLING = turn("assistant", calls=CALL)


def found(images: int = 0, **content: Any) -> dict[str, str]:
    """Rule and field of each finding."""
    row: Row = make_row("r", source={"file": "f", "key": "k"}, **content)
    findings = list(check_conversation(row, images))
    assert all(evidence and kind in RULES for kind, _, evidence in findings)
    return {kind: field for kind, field, _ in findings}


@pytest.mark.parametrize(
    ("images", "content"),
    [
        (0, {"messages": [ASK, ANSWER]}),
        (0, {"messages": [SYSTEM, ASK, ANSWER, ASK, ANSWER]}),
        (0, {"messages": [ASK, CALLING, RESULT, RESULT, ANSWER, ASK, CALLING, RESULT, CALLING]}),
        (0, {"messages": [ASK, CALLING, turn("tool"), ANSWER]}),
        (2, {"messages": [turn("user", "[]", "and", "[]"), ANSWER]}),
        (1, {"messages": [turn("user", "[]"), ANSWER]}),
        (0, {"messages": [ASK, ANSWER], "rejected": [turn("assistant", "A pear.")]}),
        (0, {"messages": [ASK, ANSWER], "rejected": [CALLING, RESULT, turn("assistant", "A pear.")]}),
        (0, {"text": "Façade, naïve, «CAFÉ», « café\xa0», Âge, Ãlvaro, Đà Nẵng, 東京, 🙂 \u2018\u2019 5 €"}),
        (1, {"captions": ["a plum", "ein Kürbis"]}),
        (1, {}),
    ],
)
def test_what_is_legal_is_not_found_fault_with(images: int, content: dict[str, Any]) -> None:
    assert found(images, **content) == {}


@pytest.mark.parametrize(
    ("content", "kind", "field"),
    [
        ({"messages": [ANSWER, ASK]}, "ROLE_ORDER", "messages"),
        ({"messages": [ASK, ASK, ANSWER]}, "ROLE_ORDER", "messages"),
        ({"messages": [ASK, ANSWER, SYSTEM, ASK, ANSWER]}, "ROLE_ORDER", "messages"),
        ({"messages": [ASK, CALLING, ANSWER]}, "ROLE_ORDER", "messages"),
        ({"messages": [ASK, RESULT, ANSWER]}, "ROLE_ORDER", "messages"),
        ({"messages": [ASK, ANSWER, ASK]}, "ROLE_ORDER", "messages"),
        ({"messages": [ASK, ANSWER], "rejected": [ASK]}, "ROLE_ORDER", "rejected"),
        ({"rejected": [ANSWER]}, "ROLE_ORDER", "rejected"),
        ({"messages": [ASK, ANSWER], "rejected": [ANSWER]}, "SAME_ANSWERS", "rejected"),
        ({"messages": [ASK, ANSWER], "rejected": [turn("assistant", " ")]}, "EMPTY_TURN", "rejected[0]"),
        ({"messages": [turn("user", " \n"), ANSWER]}, "EMPTY_TURN", "messages[0]"),
        ({"messages": [turn("user", "[]", "What?"), ANSWER]}, "PLACEHOLDER_MISMATCH", "messages"),
        ({"messages": [ASK, turn("assistant", "A plum.", train=False)]}, "ALL_MASKED", "messages"),
        ({"messages": [ASK, turn("assistant", "caf\ufffd")]}, "SUSPICIOUS_ENCODING", "messages[1]"),
        ({"text": " \n"}, "EMPTY_TEXT", "text"),
        ({"captions": ["a plum", ""]}, "EMPTY_TEXT", "captions[1]"),
    ],
)
def test_planted_fault_is_found(content: dict[str, Any], kind: str, field: str) -> None:
    assert found(**content) == {kind: field}


@pytest.mark.parametrize("text", ["café", "Größe", "it\u2019s", "“so”", "Привет", "🙂", "東京", "한국"])
@pytest.mark.parametrize("wrong", ["windows-1252", "latin-1"])
def test_utf8_read_in_another_encoding_is_found(text: str, wrong: str) -> None:
    garbled = text.encode().decode(wrong, errors="replace")
    assert found(text=garbled) == {"SUSPICIOUS_ENCODING": "text"}
    assert found(text=text) == {}


def test_conversations_and_texts_need_no_classes(tmp_path: Path, silent: Progress) -> None:
    for name, content in (("talk", [{"input": "1", "output": "2"}]), ("text", [{"text": "Once"}])):
        loaded = load(tmp_path / name, {"a.json": content})
        assert not loaded.manifest.warnings
        report = validate_dataset(tmp_path / name / "out", ValidateOptions(min_rows=1), silent)
        assert report.status is ValidationStatus.PASSED, report.counts
