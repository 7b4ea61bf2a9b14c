"""What of a spool is to be sent next, and what may be removed from it, whoever sends it and how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from finemesh.client.spool import PartsReader, merged
from finemesh.v1.metric_pb2 import MetricBatch

MAX_POINTS_TOGETHER: Final = 10_000


class Carrier:
    """One reading of a spool, from the first batch that is not durable on. After a failure make a new one.

    Batches that wait travel together. Those that Tracking had acknowledged and does not know any more, since
    its points had to be rebuilt without the last of them, are sent again; what has been removed by then is
    marked as left out, so that the curve goes on.
    """

    def __init__(self, path: Path, durable: int = 0) -> None:
        self._reader = PartsReader(path)
        self.durable = durable
        self._sent = 0

    @property
    def is_done(self) -> bool:
        """Whether all that was read so far is durable."""
        return self.durable >= self._sent

    def waiting(self) -> list[MetricBatch]:
        """What was written since the last call; empty when nothing was."""
        while batches := self._reader.read():
            if found := list(self._new(batches)):
                return found
        return []

    def acknowledge(self, durable: int) -> None:
        """All batches up to this number are durable; files that hold no others go."""
        self.durable = max(self.durable, durable)
        while self._reader.finished and self._reader.finished[0][1] <= self.durable:
            path, _ = self._reader.finished.pop(0)
            path.unlink(missing_ok=True)

    def _new(self, batches: Sequence[MetricBatch]) -> Iterator[MetricBatch]:
        for batch in _together([each for each in batches if each.sequence > self.durable]):
            first = batch.sequence - max(len(batch.lengths) - 1, 0)
            expected = max(self._sent, self.durable) + 1
            if first > expected:
                yield _left_out(batch, expected, first - 1)
            self._sent = batch.sequence
            yield batch


def _together(batches: Sequence[MetricBatch]) -> Iterator[MetricBatch]:
    """Batches as few that carry as many."""
    group: list[MetricBatch] = []
    points = 0
    for batch in batches:
        if group and points + len(batch.steps) > MAX_POINTS_TOGETHER:
            yield merged(group) if len(group) > 1 else group[0]
            group, points = [], 0
        group.append(batch)
        points += len(batch.steps)
    if group:
        yield merged(group) if len(group) > 1 else group[0]


def _left_out(following: MetricBatch, first: int, last: int) -> MetricBatch:
    """In place of batches that are nowhere any more: at least one point each."""
    count = last - first + 1
    return MetricBatch(
        run=following.run,
        attempt=following.attempt,
        sequence=last,
        lengths=[0] * count,
        thinned_points=count,
    )
