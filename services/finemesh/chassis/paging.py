"""Pages of list requests: AIP-158 tokens by key (not by offset), AIP-132 `order_by`, AIP-160 `filter`.

A page token holds the order values of the last row of a page, so that rows which come or go in between are
neither repeated nor skipped. It is good only for the same parent, filter and order.

    JOBS = Listing({"name": Field(jobs.c.name), "state": Field(jobs.c.state, Kind.ENUM, STATES), ...})
    page = JOBS.page(PageRequest.of(request), scope=request.parent)
    rows = await tx.rows(page.apply(select(jobs).where(jobs.c.project == project)))
    rows, next_page_token = page.split(rows)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Select, and_, case, func, literal, or_, true

from finemesh.chassis.filtering import (
    MAX_FILTER_LENGTH,
    PATH,
    Field,
    Fields,
    Keyed,
    Kind,
    find_field,
    parse_filter,
    split_path,
    typed_value,
)
from finemesh.core.errors import InvalidError
from finemesh.core.requests import PageRequest

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 500
MAX_TOKEN_LENGTH: Final = 4096
_ORDER_ITEM: Final = re.compile(rf"\s*({PATH})(?:\s+(asc|desc))?\s*")
_COMMA: Final = re.compile(r""",(?=(?:[^"]*"[^"]*")*[^"]*$)""")  # not within quotes


@dataclass(frozen=True, slots=True)
class _Order:
    field: Field
    descending: bool
    label: str = ""

    @property
    def expression(self) -> ColumnElement[Any]:
        column = self.field.column
        if self.field.null_as is None:
            return column
        return func.coalesce(column, literal(self.field.null_as, column.type), type_=column.type)

    def after(self, value: Any) -> ColumnElement[bool]:
        bound = literal(value, self.field.column.type)
        return self.expression < bound if self.descending else self.expression > bound

    def equal(self, value: Any) -> ColumnElement[bool]:
        return self.expression == literal(value, self.field.column.type)

    @property
    def selected(self) -> ColumnElement[Any] | None:
        """What a query must select in addition, to tell the value: nothing for a column that it selects."""
        return self.field.column.label(self.label) if self.label else None

    def value_of(self, row: RowMapping) -> Any:
        value = row[self.label or self.field.column]
        return self.field.null_as if value is None else value


class Listing:
    """How one kind of resource is listed.

    Args:
        fields: what `filter` and `order_by` may name, as documented in the proto.
        key: the field that is unique among the rows of one list; it ends every order.
        default_order: in the syntax of `order_by`.
    """

    def __init__(
        self,
        fields: Fields,
        *,
        key: str = "name",
        default_order: str = "create_time desc",
        default_page_size: int = DEFAULT_PAGE_SIZE,
        max_page_size: int = MAX_PAGE_SIZE,
    ) -> None:
        self._fields = fields
        self._key = key
        self._default_order = default_order
        self._default_page_size = default_page_size
        self._max_page_size = max_page_size
        self._orderable = [name for name, field in fields.items() if _is_orderable(field)]
        self._orders(default_order)  # a mistake here should fail at import, not at the first request

    def page(self, request: PageRequest, *, scope: str = "") -> Page:
        """The page that is asked for; `scope` names what is listed, e.g. the parent.

        Raises:
            InvalidError: naming `page_size`, `page_token`, `filter` or `order_by` and what is allowed.
        """
        if request.page_size < 0:
            raise InvalidError.of("page_size", f"{request.page_size} is negative: use 0 for the default")
        size = min(request.page_size or self._default_page_size, self._max_page_size)
        condition = parse_filter(request.filter, self._fields)
        orders = self._orders(request.order_by or self._default_order)
        binding = _binding(scope, request.filter, request.order_by)
        after = _decode(request.page_token, binding, orders) if request.page_token else None
        return Page(size, condition, orders, binding, after)

    def _orders(self, text: str) -> list[_Order]:
        orders: dict[str, list[_Order]] = {}
        last_descends = False
        if len(text) > MAX_FILTER_LENGTH:
            raise _invalid_order(f"longer than {MAX_FILTER_LENGTH} characters")
        for item in _COMMA.split(text):
            match = _ORDER_ITEM.fullmatch(item)
            name = match.group(1) if match else item.strip()
            if match is None or split_path(name)[0] not in self._orderable:
                allowed = ", ".join(self._orderable)
                raise _invalid_order(
                    f"cannot order by {name!r}: write a list of {allowed}, each with asc or desc if you like"
                )
            if name in orders:
                raise _invalid_order(f"{name} is there twice")
            last_descends = match.group(2) == "desc"
            orders[name] = self._order(name, last_descends)
        orders.setdefault(self._key, self._order(self._key, last_descends))
        return [order for each in orders.values() for order in each]

    def _order(self, path: str, descending: bool) -> list[_Order]:
        keyed = self._fields[split_path(path)[0]]
        try:
            if not isinstance(keyed, Keyed):
                return [_Order(find_field(self._fields, path, number=False), descending)]
            found = [find_field(self._fields, path, number=number) for number in keyed.orders]
        except ValueError as error:
            raise _invalid_order(str(error)) from error
        return [order for field in found for order in _missing_last(field, path, descending)]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: apply it to a query, then split what the query returned."""

    size: int
    condition: ColumnElement[bool]
    orders: Sequence[_Order]
    binding: str
    after: Sequence[Any] | None

    @property
    def columns(self) -> list[ColumnElement[Any]]:
        """The columns that it is ordered by, which a query must select; `apply` adds what is not a column."""
        return [order.field.column for order in self.orders if order.selected is None]

    def apply(self, query: Select[Any]) -> Select[Any]:
        """`query` with condition, order and limit. It must select the columns that it is ordered by."""
        selected = (order.selected for order in self.orders)
        query = query.add_columns(*(each for each in selected if each is not None))
        ordered = query.where(self.condition, self._beyond()).order_by(
            *(
                order.expression.desc() if order.descending else order.expression.asc()
                for order in self.orders
            )
        )
        return ordered.limit(self.size + 1)  # one more tells whether there is a next page

    def split(self, rows: Sequence[RowMapping]) -> tuple[Sequence[RowMapping], str]:
        """The rows of this page, and the token of the next one (empty if this is the last)."""
        if len(rows) <= self.size:
            return rows, ""
        kept = rows[: self.size]
        return kept, _encode(self.binding, [order.value_of(kept[-1]) for order in self.orders])

    def _beyond(self) -> ColumnElement[bool]:
        """Rows behind the last one of the page before: (a > x) OR (a = x AND b > y) OR …"""
        if self.after is None:
            return true()
        alternatives: list[ColumnElement[bool]] = []
        equals: list[ColumnElement[bool]] = []
        for order, value in zip(self.orders, self.after, strict=True):
            alternatives.append(and_(*equals, order.after(value)))
            equals.append(order.equal(value))
        return or_(*alternatives)


def _missing_last(field: Field, path: str, descending: bool) -> list[_Order]:
    """Rows that have the field, in the order of its values; then those that have not."""
    missing = case((field.column.is_(None), 1), else_=0)
    value = replace(field, null_as=0 if field.kind is Kind.NUMBER else "")
    return [
        _Order(Field(missing, Kind.NUMBER), descending=False, label=f"missing {field.kind} {path}"),
        _Order(value, descending, label=f"{field.kind} {path}"),
    ]


def _invalid_order(problem: str) -> InvalidError:
    return InvalidError.of("order_by", problem, reason="INVALID_ORDER")


def _is_orderable(field: Field | Keyed) -> bool:
    if isinstance(field, Keyed):
        return True
    nullable = getattr(field.column, "nullable", True)
    return field.kind is not Kind.LABELS and (not nullable or field.null_as is not None)


def _binding(scope: str, filter_text: str, order_by: str) -> str:
    text = json.dumps([scope, filter_text, order_by])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _encode(binding: str, values: Sequence[Any]) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([binding, plain]).encode()).decode().rstrip("=")


def _decode(token: str, binding: str, orders: Sequence[_Order]) -> list[Any]:
    """The order values in a token. Raises InvalidError for one that is made up or from another list."""
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise ValueError("too long")
        found, plain = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
        values = (
            [_plain_value(order.field, value) for order, value in zip(orders, plain, strict=True)]
            if found == binding
            else None
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidError.of(
            "page_token",
            "not a token of ours: pass the next_page_token of the page before, unchanged",
            reason="MALFORMED_PAGE_TOKEN",
        ) from error
    if values is None:
        raise InvalidError.of(
            "page_token",
            "belongs to a list with another parent, filter or order_by: repeat those, or leave it out",
            reason="PAGE_TOKEN_MISMATCH",
        )
    return values


def _plain_value(field: Field, value: object) -> Any:
    """A JSON value as the field's own type. Raises ValueError or TypeError."""
    if field.kind in {Kind.NUMBER, Kind.BOOL}:
        if not isinstance(value, bool if field.kind is Kind.BOOL else int | float) or abs(value) >= 2**63:
            raise ValueError(f"{value!r} is not a {field.kind}")
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return typed_value(field, value)
