"""A dataset on disk: its Parquet shards and its manifest, read row by row and verified byte by byte."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.data import DatasetFormat, DatasetManifest, ShardInfo, Split
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.data.jsonio import parse_json, sha256_file
from finemesh.data.schema import Row, leaf_columns

MANIFEST: Final = "manifest.json"
SHARD_BYTES: Final = 64 << 20
BATCH_ROWS: Final = 256
BATCH_BYTES: Final = 8 << 20
# Already dense: neither dictionary nor statistics help. `bytes` is what `datasets` calls a picture's data.
_DENSE: Final = ("data", "bytes", "sha256")


class ParquetShards:
    """Writes batches of one schema to `<prefix>00000.parquet` and on, each of about `shard_bytes`."""

    def __init__(self, root: Path, prefix: str, schema: pa.Schema, shard_bytes: int = SHARD_BYTES) -> None:
        self._root, self._prefix, self._schema, self._shard_bytes = root, prefix, schema, shard_bytes
        self._writer: pq.ParquetWriter | None = None
        self._bytes = self._rows = 0
        self._done: list[ShardInfo] = []
        (root / prefix).parent.mkdir(parents=True, exist_ok=True)

    def write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            sparse = [name for name in leaf_columns(self._schema) if name.rsplit(".", 1)[-1] not in _DENSE]
            self._writer = pq.ParquetWriter(
                self._path,
                self._schema,
                compression="zstd",
                use_dictionary=cast("bool", sparse),  # the stubs do not know of column lists
                write_statistics=cast("bool", sparse),
            )
        self._writer.write_batch(batch)
        self._bytes += batch.nbytes
        self._rows += batch.num_rows
        if self._bytes >= self._shard_bytes:
            self._finish_shard()

    def close(self) -> list[ShardInfo]:
        """Finish the last shard. Without any row there is still one, empty, that tells the schema."""
        if self._writer is None and not self._done:
            self.write(pa.RecordBatch.from_pylist([], schema=self._schema))
        self._finish_shard()
        return self._done

    @property
    def _path(self) -> Path:
        return self._root / f"{self._prefix}{len(self._done):05d}.parquet"

    def _finish_shard(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._done.append(describe_file(self._root, self._path, self._rows))
        self._writer, self._bytes, self._rows = None, 0, 0


def describe_file(root: Path, path: Path, rows: int) -> ShardInfo:
    """The file's entry in the manifest, after it has reached the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return ShardInfo(path.relative_to(root).as_posix(), sha256_file(path), path.stat().st_size, rows)


def load_manifest(dataset: Path) -> DatasetManifest:
    """The manifest of the dataset in a folder.

    Raises:
        NotFoundError: DATASET_NOT_FOUND, there is none: nothing was written, or it was not finished.
        InvalidError: MALFORMED_JSON or MALFORMED_MANIFEST.
    """
    path = dataset / MANIFEST
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        message = (
            f"{dataset} holds no finished dataset: it has no {MANIFEST}. Run the step that makes it again"
        )
        raise NotFoundError(message, reason="DATASET_NOT_FOUND") from error
    value = parse_json(raw, MANIFEST)
    if not isinstance(value, dict):
        raise InvalidError(f"{path} is not a dataset manifest", reason="MALFORMED_MANIFEST")
    return DatasetManifest.from_json(value)


def verify_dataset(dataset: Path) -> DatasetManifest:
    """Compare every file with the manifest. Raises PreconditionError (CHECKSUM_MISMATCH) naming the first
    that differs.
    """
    manifest = load_manifest(dataset)
    shards = (*manifest.shards, *manifest.ledger_shards)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = list(pool.map(lambda shard: _problem(dataset / shard.path, shard), shards))
    for shard, problem in zip(shards, problems, strict=True):
        if problem:
            message = f"{shard.path} of the dataset {problem}: fetch the dataset again"
            raise PreconditionError(message, reason="CHECKSUM_MISMATCH", metadata={"file": shard.path})
    return manifest


def _problem(path: Path, shard: ShardInfo) -> str:
    """How a file differs from its entry in the manifest; "" if it does not."""
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != shard.bytes:
        return f"has {path.stat().st_size} bytes instead of {shard.bytes}"
    return "" if sha256_file(path) == shard.sha256 else "has other content than was written"


def iter_batches(dataset: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a canonical dataset, in order, with all columns or some. Raises PreconditionError
    (NOT_CANONICAL).
    """
    manifest = load_manifest(dataset)
    if manifest.format is not DatasetFormat.CANONICAL:
        message = f"the dataset is in {manifest.format} form: read the canonical one it was made from"
        raise PreconditionError(message, reason="NOT_CANONICAL")
    for shard in manifest.shards:
        with pq.ParquetFile(dataset / shard.path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=list(columns) if columns is not None else None)


def iter_rows(dataset: Path, split: str | None = None, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of a canonical dataset, in order; of one split if it is given; with some columns only if they are
    named.
    """
    wanted = columns if columns is None or split is None else [*dict.fromkeys([*columns, "split"])]
    for batch in iter_batches(dataset, wanted):
        for row in batch.to_pylist():
            if split is None or row["split"] == Split(split):
                yield cast("Row", row)


def iter_ledger(dataset: Path) -> Iterator[LedgerEntry]:
    """The fate of every input of the stage that made the dataset."""
    for shard in load_manifest(dataset).ledger_shards:
        with pq.ParquetFile(dataset / shard.path) as file:
            for batch in file.iter_batches():
                yield from (_entry(row) for row in batch.to_pylist())


def _entry(row: Mapping[str, Any]) -> LedgerEntry:
    return LedgerEntry(
        row_id=row["row_id"],
        disposition=Disposition(row["disposition"]),
        reason=row["reason"],
        message=row["message"],
        field=row["field"],
        children=tuple(row["children"]),
    )


def options_json(options: Any) -> dict[str, Any]:
    """Options as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(options)))
