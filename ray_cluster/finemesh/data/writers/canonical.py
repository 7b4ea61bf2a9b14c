"""The canonical form: see finemesh.data.schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from finemesh.core.spec.data import ShardInfo
from finemesh.data.faults import RowFault
from finemesh.data.schema import ROW_SCHEMA
from finemesh.data.storage import ParquetShards


class CanonicalWriter:
    folders: ClassVar[tuple[str, ...]] = ("shards",)

    def __init__(self, root: Path) -> None:
        self._shards = ParquetShards(root, "shards/part-", ROW_SCHEMA)

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        del row
        return None

    def write(self, batch: pa.RecordBatch) -> None:
        self._shards.write(batch)

    def close(self) -> list[ShardInfo]:
        return self._shards.close()
