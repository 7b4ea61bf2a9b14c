"""The facts of datasets and reports as events."""

from __future__ import annotations

from typing import Any, Final

from finemesh.chassis.events import Event
from finemesh.dataprep.convert import dataset_to_proto, preflight_to_proto, report_to_proto
from finemesh.dataprep.domain import Dataset, Preflight, Report, Work, table_of
from finemesh.events.v1 import dataset_events_pb2 as pb

SOURCE: Final = "finemesh/dataprep"

_PAYLOADS: Final[dict[str, Any]] = {
    "imported": pb.DatasetImported,
    "converted": pb.DatasetConverted,
    "split": pb.DatasetSplit,
    "validated": pb.DatasetValidated,
    "preflighted": pb.DatasetPreflighted,
    "failed": pb.DatasetFailed,
    "cancelled": pb.DatasetCancelled,
}


def event_of(item: Work, fact: str) -> Event:
    """The event that tells `fact` about `item` as it is now."""
    match item:
        case Dataset():
            payload = _PAYLOADS[fact](dataset=dataset_to_proto(item, tables=False))
        case Report():
            payload = _PAYLOADS[fact](validation_report=report_to_proto(item, findings=False))
        case Preflight():
            payload = _PAYLOADS[fact](preflight_report=preflight_to_proto(item, rows=False))
    noun = table_of(item).event_noun
    return Event.of(noun, fact, str(item.name), payload, source=SOURCE, time=item.life.update_time)
