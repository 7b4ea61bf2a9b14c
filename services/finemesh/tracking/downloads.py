"""All points of a run as a file, one metric after the other, so that memory holds one metric at most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import pyarrow as pa
from pyarrow.csv import CSVWriter
from pyarrow.parquet import ParquetWriter

from finemesh.chassis.auth import Principal, Role
from finemesh.client.event_file import first_record, scalar_records
from finemesh.core.names import Name
from finemesh.tracking.domain import Curve, Run, resolve
from finemesh.tracking.ports import PointReader, RunStore
from finemesh.tracking.summarizer import Summarizer

MAX_CHUNK_BYTES: Final = 1 << 20
_SCHEMA: Final = pa.schema(
    [
        ("run", pa.string()),
        ("key", pa.string()),
        ("step", pa.int64()),
        ("time", pa.timestamp("us", "UTC")),
        ("value", pa.float64()),
        ("attempt", pa.int16()),
    ]
)


class Format(StrEnum):
    """A form of file, and its media type."""

    CSV = "text/csv"
    ARROW = "application/vnd.apache.arrow.stream"
    PARQUET = "application/vnd.apache.parquet"
    TENSORBOARD = "application/octet-stream"


class _Encoder(Protocol):
    """Writes curves into a file."""

    def add(self, run: str, key: str, curve: Curve) -> None: ...
    def close(self) -> None: ...


class Downloads:
    """For viewers."""

    def __init__(self, runs: RunStore, points: PointReader, summarizer: Summarizer) -> None:
        self._runs = runs
        self._points = points
        self._summarizer = summarizer

    async def metrics(
        self, principal: Principal, name: Name, form: Format, keys: Sequence[str], *, all_attempts: bool
    ) -> AsyncGenerator[bytes]:
        """The bytes of the file. Raises NotFoundError, UnavailableError."""
        principal.require_role(Role.VIEWER)
        principal.require_project(name.project)
        await self._summarizer.settle()  # the names of the metrics are those of the summaries
        [run] = await self._runs.get(principal, [name])
        sink = _Sink()
        encoder = _encoder(form, sink, run)
        for summary in run.summaries:
            if not keys or summary.key in keys:
                found = await asyncio.to_thread(self._points.read, str(name), [summary.key])
                for key, curve in found.curves.items():
                    chosen = curve if all_attempts else resolve(curve)
                    await asyncio.to_thread(encoder.add, str(name), key, chosen)
                for chunk in sink.take():
                    yield chunk
        encoder.close()
        for chunk in sink.take():
            yield chunk


class _Sink:
    """What an encoder writes into, emptied as it fills."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._parts.append(content)
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Nothing to do: what is written is there to take."""

    def close(self) -> None:
        """Nothing to do."""

    def take(self) -> Iterator[bytes]:
        """What was written since the last call, in parts of at most a MiB."""
        content, self._parts = b"".join(self._parts), []
        for start in range(0, len(content), MAX_CHUNK_BYTES):
            yield content[start : start + MAX_CHUNK_BYTES]


def _encoder(form: Format, sink: _Sink, run: Run) -> _Encoder:
    if form is Format.TENSORBOARD:
        return _EventEncoder(sink, run)
    target: Any = pa.PythonFile(sink, mode="w")
    if form is Format.ARROW:
        return _TableEncoder(pa.ipc.new_stream(target, _SCHEMA))
    if form is Format.PARQUET:
        return _TableEncoder(ParquetWriter(target, _SCHEMA, compression="zstd"))
    return _TableEncoder(CSVWriter(target, _SCHEMA))


class _TableEncoder:
    """Columns into a file of Arrow's."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def add(self, run: str, key: str, curve: Curve) -> None:
        length = len(curve)
        columns: list[Any] = [
            pa.array([run]).take(pa.array([0] * length, pa.int8())) if length else pa.array([], pa.string()),
            pa.array([key]).take(pa.array([0] * length, pa.int8())) if length else pa.array([], pa.string()),
            pa.array(curve.steps),
            pa.array(curve.times_us).cast(pa.timestamp("us", "UTC")),
            pa.array(curve.values),
            pa.array(curve.attempts),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))

    def close(self) -> None:
        self._writer.close()


class _EventEncoder:
    """A TensorBoard event file. Times there are seconds."""

    def __init__(self, sink: _Sink, run: Run) -> None:
        self._sink = sink
        sink.write(first_record((run.start_time or run.create_time).timestamp()))

    def add(self, run: str, key: str, curve: Curve) -> None:  # noqa: ARG002  the file is of one run
        times = (curve.times_us / 1e6).tolist()
        points = zip(curve.steps.tolist(), times, curve.values.tolist(), strict=True)
        self._sink.write(scalar_records(key, points))

    def close(self) -> None:
        """Nothing to do: the file ends with its last record."""
