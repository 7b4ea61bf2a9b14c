"""A JSON text read in pieces is the text that the standard library reads whole."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.data import jsonstream
from finemesh.data.jsonstream import iter_pieces
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(st.sampled_from('ab"\\[]{},: \n\u00e9\U0001f600'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=24,
)


def joined(raw: bytes, chunk: int, **options: Any) -> Any:
    """The pieces of a text, put together again."""
    value: Any = None
    for piece in iter_pieces(_Trickle(raw, chunk), "x.json", **options):
        if piece.key == "" and value is None:
            value = [] if piece.first >= 0 else piece.values[0]
        if piece.first >= 0:
            target = value if isinstance(value, list) else None
            if target is None:
                value = value or {}
                target = value.setdefault(piece.key, [])
            assert piece.first == len(target)
            target.extend(piece.values)
        elif piece.key or isinstance(value, dict):
            value = value if isinstance(value, dict) else {}
            value[piece.key] = piece.values[0]
    return value


class _Trickle(io.BytesIO):
    """Gives no more than so many bytes at a time."""

    def __init__(self, raw: bytes, chunk: int) -> None:
        super().__init__(raw)
        self._chunk = chunk

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._chunk)


@given(st.dictionaries(TEXTS.filter(bool), VALUES, max_size=5), st.integers(1, 40), st.booleans())
def test_object_in_pieces_is_the_object(value: dict[str, Any], chunk: int, indented: bool) -> None:
    raw = json.dumps(value, indent=1 if indented else None).encode()
    assert (joined(raw, chunk) or {}) == value


@given(st.lists(VALUES, max_size=6), st.integers(1, 40), st.booleans())
def test_list_in_pieces_is_the_list(value: list[Any], chunk: int, ascii_only: bool) -> None:
    assert joined(json.dumps(value, ensure_ascii=ascii_only).encode(), chunk) == value


@given(st.lists(VALUES, min_size=1, max_size=4), st.data(), st.integers(1, 40))
def test_damage_is_a_typed_error_or_reads_as_the_library_reads_it(
    value: list[Any], data: st.DataObject, chunk: int
) -> None:
    raw = bytearray(json.dumps({"rows": value, "more": 1}).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        expected = json.loads(raw.decode("utf-8-sig"))
    except ValueError:
        with pytest.raises(FinemeshError):
            joined(bytes(raw), chunk)
        return
    if isinstance(expected, dict) and len(expected) == 2:
        assert joined(bytes(raw), chunk) == expected


def test_large_list_comes_in_pieces_of_whole_elements() -> None:
    rows = [{"id": index, "counts": 'a\\"]}', "size": [1, 2]} for index in range(20_000)]
    pieces = list(iter_pieces(io.BytesIO(json.dumps({"rows": rows, "end": 3}).encode()), "x.json"))
    assert len(pieces) > 2
    assert [row for piece in pieces if piece.key == "rows" for row in piece.values] == rows
    assert pieces[-1].values == [3]


def test_skipped_lists_are_passed_over() -> None:
    raw = b'{"a": [{"x": 1}, {"x": 2}], "b": [{"y": 1}]}'
    assert joined(raw, 7, skip=frozenset({"a"})) == {"a": [], "b": [{"y": 1}]}


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b'{"a"', b'{"a": ', b'{"a": [1, 2', b"[" * 100_000, b'{"a":' * 100_000, b"[1] x", b"\xff"],
)
def test_malformed_texts_are_refused_with_the_byte(raw: bytes) -> None:
    with pytest.raises(InvalidError) as error:
        joined(raw, 1000)
    assert error.value.reason == "MALFORMED_JSON"
    assert int(error.value.metadata["byte"]) <= len(raw)


def test_value_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "MAX_VALUE_BYTES", 1000)
    with pytest.raises(InvalidError) as error:
        joined(b'[{"a": "' + b"x" * 9000 + b'"}]', 100)
    assert error.value.reason == "JSON_TOO_LARGE"
