"""The files of datasets on the object store, and questions to their ledgers: the port `Files`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import Integer, String, column, func, select, table
from sqlalchemy.dialects import postgresql

from finemesh.chassis.filtering import Field, Kind
from finemesh.chassis.objects import ObjectStore, delete_directory, read_manifest
from finemesh.chassis.paging import Listing
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.core.errors import FinemeshError, NotFoundError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.dataprep.ports import FileFacts

# No upload lasts so long: that of the largest source at 10 MB/s takes 15 hours.
_ABANDONED: Final = timedelta(days=2)
_ROUND_SECONDS: Final = 6 * 3600
LEDGER_FOLDER: Final = "ledger/"
_POSITION: Final = column("position", Integer)
_LEDGER: Final = table(
    "ledger",
    _POSITION,
    *(column(name, String) for name in ("row_id", "disposition", "reason", "message", "field")),
    column("children"),
)
log: Final = structlog.get_logger(__name__)
_LISTING: Final = Listing(
    {
        "position": Field(_POSITION, Kind.NUMBER, null_as=0),
        "row_id": Field(_LEDGER.c.row_id),
        "disposition": Field(
            func.upper(_LEDGER.c.disposition), Kind.ENUM, ("KEPT", "QUARANTINED", "DROPPED")
        ),
        "reason": Field(_LEDGER.c.reason),
    },
    key="position",
    default_order="position",
)


async def drop_parts(objects: S3ObjectStore) -> None:
    """Drop, from time to time, what killed uploads of any process have left in the bucket of the mesh."""
    while True:
        try:
            await objects.drop_parts(_ABANDONED)
        except (FinemeshError, ValueError) as error:  # they are in nobody's way until the next round
            log.warning("abandoned_parts_kept", error=str(error))
        await asyncio.sleep(_ROUND_SECONDS)


class ObjectFiles:
    """Implements `ports.Files` over the chassis' object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def size(self, key: str) -> int | None:
        try:
            return (await self._objects.stat(key)).size_bytes
        except NotFoundError:
            return None

    async def files(self, dataset: Name) -> Sequence[FileFacts]:
        manifest = await read_manifest(self._objects, str(dataset))
        return [FileFacts(file.path, file.size_bytes, file.sha256) for file in manifest.files]

    async def delete(self, name: Name) -> None:
        await delete_directory(self._objects, str(name))

    async def ledger(self, dataset: Name, query: PageRequest) -> tuple[list[dict[str, Any]], str]:
        page = _LISTING.page(query, scope=str(dataset))
        with tempfile.TemporaryDirectory(prefix="finemesh-ledger-") as folder:
            paths: list[Path] = []
            for number, file in enumerate(await self.files(dataset)):
                if file.path.startswith(LEDGER_FOLDER):
                    paths.append(Path(folder) / f"{number:05d}.parquet")
                    await self._objects.get_file(f"{dataset}/{file.path}", paths[-1], sha256=file.sha256)
            statement = page.apply(select(_LEDGER))
            rows = await asyncio.to_thread(_query, statement, paths)
        kept, token = page.split(rows)
        return [dict(row) for row in kept], token


def _query(statement: Any, paths: list[Path]) -> list[Any]:
    """Rows of a statement over the ledger's Parquet files, as mappings by column."""
    import duckdb

    # Of the ways to mark parameters this one leaves "%" in texts alone.
    dialect = postgresql.dialect(paramstyle="named")
    compiled = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "256MB"}) as database:
        if not paths:
            return []
        source = database.read_parquet([str(path) for path in paths])
        database.register("parts", source)
        database.execute("CREATE VIEW ledger AS SELECT *, row_number() OVER () AS position FROM parts")
        result = database.execute(compiled)
        names = [each[0] for each in result.description or ()]
        return [_Row(zip(names, values, strict=True)) for values in result.fetchall()]


class _Row(dict[str, Any]):
    """A row that also answers to column objects, as SQLAlchemy's do."""

    def __missing__(self, key: Any) -> Any:
        return self[key.name]
