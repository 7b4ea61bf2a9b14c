"""The facts of an export as events."""

from __future__ import annotations

from typing import Any, Final

from finemesh.chassis.events import Event
from finemesh.core.states import EXPORT
from finemesh.events.v1 import export_events_pb2 as pb
from finemesh.export.convert import export_to_proto
from finemesh.export.domain import Export

SOURCE: Final = "finemesh/export"

_PAYLOADS: Final[dict[str, Any]] = {
    "started": pb.ExportStarted,
    "verified": pb.ExportVerified,
    "succeeded": pb.ExportSucceeded,
    "rejected": pb.ExportRejected,
    "failed": pb.ExportFailed,
    "cancelled": pb.ExportCancelled,
}


def event_of(export: Export, fact: str) -> Event:
    """The event that tells `fact` about `export` as it is now."""
    payload = _PAYLOADS[fact](export=export_to_proto(export))
    noun = EXPORT.event_noun
    return Event.of(noun, fact, str(export.name), payload, source=SOURCE, time=export.update_time)
