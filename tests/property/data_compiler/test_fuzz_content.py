"""JSON made to do harm: nested without end, numbers without end, half characters, in every place of every
format. An import ends in a dataset or in an error of ours, soon, and in little memory.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from finemesh.core.spec.data import AnnotationFormat, DatasetManifest
from finemesh.data.readers import READERS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile_sources import ROWS, SLOW, SOUND, outcome, picture

# Texts of JSON values, each of which has brought some parser down.
HOSTILE: Final = {
    "nested lists": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested, open": b'[{"a":' * 100_000,
    "digits": b"9" * 5_000,
    "fewer digits": b"9" * 4_000,
    "beyond 64 bits": b"9223372036854775808",
    "below 64 bits": b"-9223372036854775809",
    "digits below one": b"0." + b"1" * 5_000,
    "exponent": b"1e999999",
    "long text": b'"' + b"x" * (8 << 20) + b'"',
    "long text, open": b'"' + b"x" * (1 << 20),
    "escapes": b'"' + b"\\u0000\\ud800" * 400 + b'"',
    "not a number": b"NaN",
    "infinite": b"-Infinity",
    "many zeros": b"[" + b"0," * 500_000 + b"0]",
    "not UTF-8": b'"\xff\xfe"',
    "same keys": b"{" + b'"a":1,' * 50_000 + b'"a":1}',
}  # fmt: skip


def planted(value: dict[str, Any], path: tuple[Any, ...], hostile: bytes) -> bytes:
    """The JSON of `value` with the text `hostile` at `path`."""
    copy = json.loads(json.dumps(value))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = "@here@"
    return json.dumps(copy).encode().replace(b'"@here@"', hostile)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [
        *([path] if path else []),
        *(deeper for key, item in items for deeper in paths(item, (*path, key))),
    ]


hostile_cases = st.sampled_from(list(HOSTILE))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_json_alone(case: str, suffix: str) -> None:
    assert isinstance(outcome({f"a{suffix}": HOSTILE[case]}, None), str)


@settings(max_examples=40, deadline=SLOW)
@given(st.data(), st.sampled_from(list(SOUND)), hostile_cases)
def test_hostile_value_in_annotations(data: st.DataObject, kind: AnnotationFormat, case: str) -> None:
    path = data.draw(st.sampled_from(paths(SOUND[kind])))
    outcome({"a.json": planted(SOUND[kind], path, HOSTILE[case])}, data.draw(st.sampled_from([kind, None])))


@settings(max_examples=40, deadline=SLOW)
@given(st.data(), st.sampled_from(ROWS), hostile_cases, st.booleans())
def test_hostile_value_in_a_row(data: st.DataObject, row: dict[str, Any], case: str, lines: bool) -> None:
    bad = planted(row, data.draw(st.sampled_from(paths(row))), HOSTILE[case])
    good = json.dumps(row).encode()
    files = {"a.jsonl": b"\n".join([good, bad, good])} if lines else {"a.json": b"[%b,%b]" % (good, bad)}
    outcome(files, None)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "metadata.jsonl"])
def test_hostile_json_in_every_format(kind: AnnotationFormat, name: str) -> None:
    for case in ("nested, open", "digits"):
        assert isinstance(outcome({name: HOSTILE[case]}, kind), str)


def test_what_is_varied_here_is_sound() -> None:
    for kind, value in SOUND.items():
        files = {"a.json": json.dumps(value).encode(), "a.png": picture(20, 10)}
        assert isinstance(outcome(files, kind), DatasetManifest)


@pytest.mark.parametrize("field", ["id", "file_name"])
def test_half_a_character_costs_its_row_only(field: str) -> None:
    coco = json.loads(json.dumps(SOUND[AnnotationFormat.COCO]))
    coco["images"].append(
        {"id": 2, "width": 20, "height": 10, "file_name": "b\ud83d.png"} | {field: "\ud83d"}
    )
    made = outcome({"a.json": json.dumps(coco).encode()}, None)
    assert isinstance(made, DatasetManifest)
    assert made.ledger.by_reason == {"TEXT_INVALID": 1}
