"""What a form of a dataset must be able to do: take batches of canonical rows and say which files came of
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from finemesh.core.spec.data import ShardInfo
from finemesh.data.faults import RowFault


class FormWriter(Protocol):
    """Made with the folder it writes to."""

    folders: ClassVar[tuple[str, ...]]
    """Names it writes in that folder."""

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        """Why the form cannot hold a row; None if it can."""
        ...

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> list[ShardInfo]:
        """Finish all files and describe them."""
        ...
