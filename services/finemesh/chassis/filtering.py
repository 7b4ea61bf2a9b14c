"""The `filter` of list requests: a subset of AIP-160 (https://google.aip.dev/160) over documented fields.

    filter      = factor {"AND" factor}
    factor      = term {"OR" term}                        OR binds tighter than AND, as AIP-160 has it
    term        = ["NOT" | "-"] (comparison | "(" filter ")")
    comparison  = field ("=" | "!=" | "<" | "<=" | ">" | ">=" | ":") value
    value       = "quoted" | 'quoted' | bare text without blanks and parentheses | "*" after ":"

`:` means "has": text contains the value whatever the case, labels have the key (`labels:team`), and `field:*`
asks whether the field is set. Labels are compared as `labels.team = "vision"`. A key with blanks or a dot in
it is quoted: `metrics."val/loss".best < 1.2`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, not_, or_, true

from finemesh.core.errors import InvalidError

MAX_FILTER_LENGTH: Final = 2048
MAX_DEPTH: Final = 16

_PART: Final = r"""(?:"(?:[^"\\]|\\.)*"|[A-Za-z0-9_][A-Za-z0-9_/-]*)"""
# A field, of which keys may follow.
PATH: Final = rf"[A-Za-z_][A-Za-z0-9_]*(?:\.{_PART})*"
_PATH: Final = re.compile(PATH)
_OPERATOR: Final = re.compile(r"<=|>=|!=|<|>|=|:")
_VALUE: Final = re.compile(r"""[^\s()"']+""")
_QUOTED: Final = re.compile(r""""((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'""")
_COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITY: Final = ("=", "!=")
_ORDERED: Final = tuple(_COMPARE)


class Kind(StrEnum):
    """What a field holds, which decides how its values are written and which comparisons make sense."""

    TEXT = "text"
    NUMBER = "number"
    BOOL = "bool"
    TIME = "time"
    ENUM = "enum"
    LABELS = "labels"


_OPERATORS: Final = {
    Kind.TEXT: (*_ORDERED, ":"),
    Kind.NUMBER: (*_ORDERED, ":"),
    Kind.BOOL: (*_EQUALITY, ":"),
    Kind.TIME: (*_ORDERED, ":"),
    Kind.ENUM: (*_EQUALITY, ":"),
    Kind.LABELS: (*_EQUALITY, ":"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field that list requests may filter and order by.

    Attributes:
        column: the column that holds it; a JSON object of strings for LABELS.
        kind: what it holds.
        choices: the values of an ENUM.
        null_as: what a missing value counts as in an order; needed to order by a nullable column.
        is_set: whether it is there, where that is not whether the column is.
        null_is_nan: whether the column of something that is there is NULL for NaN.
    """

    column: ColumnElement[Any]
    kind: Kind = Kind.TEXT
    choices: tuple[str, ...] = ()
    null_as: Any = None
    is_set: ColumnElement[bool] | None = None
    null_is_nan: bool = False


@dataclass(frozen=True, slots=True)
class Keyed:
    """A field of fields by key, such as `params.rank` or `metrics."val/loss".best`.

    Attributes:
        resolve: the field of the parts behind the name, as it is compared with a number that is not quoted
            (True) or with text (False). Raises ValueError that says how it is written.
        orders: with what of the two `resolve` is asked for an order, one after the other. Rows without the
            field come last in either direction.
    """

    resolve: Callable[[Sequence[str], bool], Field]
    orders: tuple[bool, ...] = (False,)


Fields = Mapping[str, "Field | Keyed"]


def split_path(path: str) -> tuple[str, list[str]]:
    """The name of a field, and the parts behind it without their quotes."""
    name, _, rest = path.partition(".")
    return name, [_unquoted(part[1:-1]) if part[0] == '"' else part for part in re.findall(_PART, rest)]


def parse_filter(text: str, fields: Fields) -> ColumnElement[bool]:
    """The condition that `text` asks for; always true when it is empty.

    Raises:
        InvalidError: INVALID_FILTER, naming the place, the field and what is allowed.
    """
    if len(text) > MAX_FILTER_LENGTH:
        raise _invalid(f"longer than {MAX_FILTER_LENGTH} characters")
    return _Parser(text, fields).parse()


class _Parser:
    """Recursive descent over the text; one instance per filter."""

    def __init__(self, text: str, fields: Fields) -> None:
        self._text = text
        self._fields = fields
        self._at = 0
        self._before = 0  # where the last word that was taken begins

    def parse(self) -> ColumnElement[bool]:
        self._skip_blanks()
        if self._at == len(self._text):
            return true()
        condition = self._filter(0)
        if self._at != len(self._text):
            raise self._error("expected AND, OR or the end")
        return condition

    def _filter(self, depth: int) -> ColumnElement[bool]:
        if depth > MAX_DEPTH:
            raise self._error(f"parentheses are nested deeper than {MAX_DEPTH}")
        parts = [self._factor(depth)]
        while self._word("AND"):
            parts.append(self._factor(depth))
        return and_(*parts)

    def _factor(self, depth: int) -> ColumnElement[bool]:
        parts = [self._term(depth)]
        while self._word("OR"):
            parts.append(self._term(depth))
        return or_(*parts)

    def _term(self, depth: int) -> ColumnElement[bool]:
        negated = self._word("NOT") or self._symbol("-")
        if self._symbol("("):
            condition = self._filter(depth + 1)
            if not self._symbol(")"):
                raise self._error("a parenthesis is not closed")
        else:
            condition = self._comparison()
        return not_(condition) if negated else condition

    def _comparison(self) -> ColumnElement[bool]:
        name_match = self._take(_PATH)
        if name_match is None:
            raise self._error("expected a field")
        path = name_match.group()
        field = self._field(path, number=False)
        operator_match = self._take(_OPERATOR)
        if operator_match is None:
            raise self._error(f"expected a comparison after {path}: {' '.join(_OPERATORS[field.kind])}")
        sign = operator_match.group()
        if sign not in _OPERATORS[field.kind]:
            allowed = " ".join(_OPERATORS[field.kind])
            raise self._wrong(f"{path} holds {field.kind}, which {sign} does not compare: use {allowed}")
        value, quoted = self._value(path)
        if not quoted and _is_number(value):
            field = self._field(path, number=True)
        return self._condition(path, field, sign, value, is_star=value == "*" and not quoted)

    def _condition(
        self, path: str, field: Field, sign: str, value: str, *, is_star: bool
    ) -> ColumnElement[bool]:
        name, parts = split_path(path)
        key = ".".join(parts)
        if field.kind is Kind.LABELS:
            if not key and sign != ":":
                raise self._error(f'write {name}.key {sign} "value", or {name}:key to ask for the key')
            label = field.column[key or value].as_string()
            if not key or is_star:
                return label.is_not(None)
            return label.icontains(value, autoescape=True) if sign == ":" else _COMPARE[sign](label, value)
        is_set = field.column.is_not(None) if field.is_set is None else field.is_set
        if sign == ":" and is_star:
            return is_set
        if field.null_is_nan and value.lower() == "nan" and sign in (*_EQUALITY, ":"):
            return field.column.is_not(None) if sign == "!=" else and_(is_set, field.column.is_(None))
        if sign == ":" and field.kind is Kind.TEXT:
            return field.column.icontains(value, autoescape=True)
        return _COMPARE["=" if sign == ":" else sign](field.column, self._typed(path, field, value))

    def _field(self, path: str, *, number: bool) -> Field:
        try:
            return find_field(self._fields, path, number=number)
        except ValueError as error:
            raise self._wrong(str(error)) from error

    def _typed(self, path: str, field: Field, value: str) -> Any:
        try:
            return typed_value(field, value)
        except ValueError as error:
            raise self._wrong(f"{path}: {error}") from error

    def _value(self, path: str) -> tuple[str, bool]:
        quoted = self._take(_QUOTED)
        if quoted is not None:
            inner = quoted.group(1) if quoted.group(1) is not None else quoted.group(2)
            return _unquoted(inner), True
        bare = self._take(_VALUE)
        if bare is None:
            raise self._error(f"expected a value for {path}")
        return bare.group(), False

    def _word(self, word: str) -> bool:
        end = self._at + len(word)
        alone = end >= len(self._text) or self._text[end] in " \t\n("
        if not self._text.startswith(word, self._at) or not alone:
            return False
        self._at = end
        self._skip_blanks()
        return True

    def _symbol(self, symbol: str) -> bool:
        if not self._text.startswith(symbol, self._at):
            return False
        self._at += len(symbol)
        self._skip_blanks()
        return True

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._before, self._at = self._at, match.end()
            self._skip_blanks()
        return match

    def _skip_blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _error(self, problem: str) -> InvalidError:
        """Of what comes next."""
        return _invalid(f"at character {self._at + 1}: {problem}")

    def _wrong(self, problem: str) -> InvalidError:
        """Of the last word that was taken."""
        return _invalid(f"at character {self._before + 1}: {problem}")


def find_field(fields: Fields, path: str, *, number: bool) -> Field:
    """The field of a path; `number` as for `Keyed.resolve`. Raises ValueError."""
    name, parts = split_path(path)
    field = fields.get(name)
    if isinstance(field, Keyed):
        return field.resolve(parts, number)
    if field is None or (parts and field.kind is not Kind.LABELS):
        raise ValueError(f"there is no field {path}: use {', '.join(fields)}")
    return field


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(_number(text))
    except ValueError:
        return False


def typed_value(field: Field, text: str) -> Any:
    """The value of `text` for a field. Raises ValueError that says how it is written."""
    match field.kind:
        case Kind.TEXT | Kind.LABELS:
            return text
        case Kind.NUMBER:
            return _number(text)
        case Kind.BOOL:
            if text not in {"true", "false"}:
                raise ValueError(f"{text!r} is neither true nor false")
            return text == "true"
        case Kind.TIME:
            return _instant(text)
        case Kind.ENUM:
            if text not in field.choices:
                raise ValueError(f"{text!r} is not one of {', '.join(field.choices)}")
            return text


def _number(text: str) -> int | float:
    try:
        value = float(text)
        if math.isfinite(value):
            return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else value
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a finite number")


def _instant(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
        if value.tzinfo is not None:
            return value.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is not a time: write it as 2026-01-31T12:00:00Z")


def _invalid(problem: str) -> InvalidError:
    return InvalidError.of("filter", problem, reason="INVALID_FILTER")
