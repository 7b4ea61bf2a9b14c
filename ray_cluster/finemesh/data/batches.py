"""Rows on their way to a writer: as Python or as Arrow, whichever came in; the other is made when it is asked
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import pyarrow as pa

from finemesh.data.schema import ROW_SCHEMA, Row


class RowBatch:
    """Some canonical rows, at least one."""

    def __init__(self, rows: Sequence[Row] | None = None, arrow: pa.RecordBatch | None = None) -> None:
        assert (rows is None) != (arrow is None)
        self._rows, self._arrow = rows, arrow

    def __len__(self) -> int:
        if self._arrow is not None:
            return self._arrow.num_rows
        return len(self.rows)

    @cached_property
    def rows(self) -> Sequence[Row]:
        """With everything, the pictures too: costly for a batch that came as Arrow."""
        if self._rows is not None:
            return self._rows
        assert self._arrow is not None
        return cast("list[Row]", self._arrow.to_pylist())

    @cached_property
    def arrow(self) -> pa.RecordBatch:
        """Of ROW_SCHEMA."""
        if self._arrow is not None:
            return self._arrow
        return pa.RecordBatch.from_pylist(list(self.rows), schema=ROW_SCHEMA)

    def columns(self, names: Sequence[str]) -> Sequence[Any]:
        """The rows with these columns at least, without making the others."""
        if self._rows is not None:
            return self._rows
        assert self._arrow is not None
        return self._arrow.select(list(names)).to_pylist()

    @property
    def given_arrow(self) -> pa.RecordBatch | None:
        """The rows as Arrow, if they came so."""
        return self._arrow

    @property
    def media(self) -> list[str]:
        """Kind of every picture, in order, without touching the pictures."""
        if self._rows is not None:
            return [image["media"] for row in self._rows for image in row["images"]]
        assert self._arrow is not None
        images: Any = self._arrow.column("images").flatten()
        return images.field("media").to_pylist()
