"""The canonical form: see finemesh.data.schema."""

from __future__ import annotations

from typing import ClassVar

from finemesh.core.spec.data import ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.schema import ROW_SCHEMA
from finemesh.data.storage import ParquetShards
from finemesh.data.writers.form import FormContext, FormWriter


class CanonicalWriter(FormWriter):
    folders: ClassVar[tuple[str, ...]] = ("shards",)
    judges: ClassVar[bool] = False
    divisible: ClassVar[bool] = True

    def __init__(self, context: FormContext) -> None:
        self._shards = ParquetShards(context.root, f"shards/part-{context.part_prefix}", ROW_SCHEMA)

    def write(self, batch: RowBatch) -> None:
        self._shards.write(batch.arrow)

    def close(self) -> list[ShardInfo]:
        return self._shards.close()
