"""The canonical form: see finemesh.data.schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from finemesh.core.spec.data import MaskProof, ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault
from finemesh.data.schema import ROW_SCHEMA
from finemesh.data.storage import ParquetShards
from finemesh.data.writers.form import FormContext


class CanonicalWriter:
    folders: ClassVar[tuple[str, ...]] = ("shards",)
    judges: ClassVar[bool] = False
    divisible: ClassVar[bool] = True
    proves: ClassVar[bool] = False

    def __init__(self, context: FormContext) -> None:
        self._shards = ParquetShards(context.root, f"shards/part-{context.part_prefix}", ROW_SCHEMA)

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        del row
        return None

    def write(self, batch: RowBatch) -> None:
        self._shards.write(batch.arrow)

    @classmethod
    def finish(cls, context: FormContext, splits: frozenset[str]) -> list[ShardInfo]:
        del context, splits
        return []

    def proof(self) -> MaskProof | None:
        return None

    def close(self) -> list[ShardInfo]:
        return self._shards.close()
