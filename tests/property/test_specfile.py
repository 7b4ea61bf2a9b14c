"""Files that people write: read by us and by any YAML reader alike, and every field knows its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from finemesh.specfile import SpecFile, SpecFileError, dump, overridden, parse, read, short_path
from hypothesis import given, settings
from hypothesis import strategies as st

# What YAML can hold: no surrogates, and of the controls only those that it escapes.
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
tricky = st.sampled_from(
    ["no", "2e-4", "1_000", "010", "0o7", "~", "", "null", "1:30", "2001-01-01", "a: b", "# x"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
    | tricky
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(words | tricky, values, max_size=4)


@settings(database=None)
@given(documents)
def test_what_is_written_is_read_by_us_and_by_others(document: dict[str, Any]) -> None:
    text = dump(document, "A heading\nof two lines")
    assert parse(text, "f").values == document
    assert (yaml.safe_load(text) or {}) == document


@settings(database=None)
@given(documents)
def test_json_is_yaml(document: dict[str, Any]) -> None:
    assert parse(json.dumps(document, ensure_ascii=False, indent=1), "f").values == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1e5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("no", "no"),
        ("yes", "yes"),
        ("True", True),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("~", None),
        ("", None),
        ("'2e-4'", "2e-4"),
        ("[q_proj, 'no', 1.5]", ["q_proj", "no", 1.5]),
    ],
)
def test_words_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(f"x: {text}", "f").values["x"]
    assert found == value
    assert type(found) is type(value)


def test_every_field_knows_its_place() -> None:
    file = parse("a: 1\nlora:\n  rank: 8\n  towers:\n    - LANGUAGE\n", "s.yaml")
    assert file.places == {
        "a": "s.yaml:1",
        "lora": "s.yaml:2",
        "lora.rank": "s.yaml:3",
        "lora.towers": "s.yaml:4",
    }
    file = overridden(file, ["spec.method.lora.rank=[1, 2]", "b.c=x"])
    assert file.values == {"a": 1, "lora": {"rank": [1, 2], "towers": ["LANGUAGE"]}, "b": {"c": "x"}}
    assert file.place("lora.rank[1]") == "-o spec.method.lora.rank=[1, 2]"
    assert file.place("lora.towers[0]") == "s.yaml:4"
    assert file.place("lora.alpha") == "s.yaml:2"
    assert file.place("unheard.of") == ""


def test_a_field_is_emptied_or_left_to_its_default() -> None:
    file = parse("test_split: test\nlora: {rank: 8}", "f")
    assert overridden(file, ["test_split=", "lora.rank=null"]).values == {"test_split": "", "lora": {}}
    assert file.values == {"test_split": "test", "lora": {"rank": 8}}


@pytest.mark.parametrize(
    "path", ["training_job.spec.lora.rank", "spec.method.lora.rank", "training.lora.rank", "method.lora.rank"]
)
def test_paths_of_errors_and_parameters_are_understood(path: str) -> None:
    assert short_path(path) == "lora.rank"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "f:3 says a again"),
        ("a: [1", "f:1 is not YAML"),
        ("a: 1\n\tb: 2", "f:2 is not YAML"),
        ("- a", "f holds no fields"),
        ("a: *b", "undefined alias"),
        ("a: !!python/name:os.system x", "f:1 is not YAML"),
        ("[1]: 2", "f:1 has a name that is no text"),
        ("a: \x00", "f is not YAML"),
        ("[" * 3000, "f is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, said: str) -> None:
    with pytest.raises(SpecFileError) as refused:
        parse(text, "f")
    assert said in str(refused.value)


@pytest.mark.parametrize("assignment", ["lora", "=3", "a b=3", "lora.rank.x=1", "x=[1", "a..b=2"])
def test_an_assignment_that_is_none_is_refused(assignment: str) -> None:
    with pytest.raises(SpecFileError, match="-o "):
        overridden(SpecFile({"lora": {"rank": 8}}), [assignment])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecFileError, match="cannot be read"):
        read(tmp_path / "none.yaml")
    (tmp_path / "latin").write_bytes(b"a: \xff")
    with pytest.raises(SpecFileError, match="cannot be read"):
        read(tmp_path / "latin")
