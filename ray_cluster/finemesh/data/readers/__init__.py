"""Annotation formats in: one module per format, and this registry.

A reader gets the whole source and yields candidates one by one; a fault of a row is the candidate's, a fault
of the container ends the import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat
from finemesh.data.readers import coco, sam2_archive, sav
from finemesh.data.readers.context import ReadContext, json_files, top_level_key
from finemesh.data.rows import Candidate
from finemesh.data.sources import Source


@dataclass(frozen=True, slots=True)
class Reader:
    """One format. `marks` are keys that, first seen at the top of a JSON file, tell the format."""

    title: str
    marks: frozenset[str]
    read: Callable[[ReadContext], Iterator[Candidate]]


READERS: Final[dict[AnnotationFormat, Reader]] = {
    AnnotationFormat.SAM2: Reader("SAM 2 export archive (manifest.json)", frozenset(), sam2_archive.read),
    AnnotationFormat.SAV: Reader("SA-V JSON", sav.MARKS, sav.read),
    AnnotationFormat.COCO: Reader("COCO instances JSON", coco.MARKS, coco.read),
}


def detect_format(source: Source) -> AnnotationFormat:
    """The format of a source. Raises InvalidError (UNKNOWN_FORMAT, AMBIGUOUS_FORMAT, MALFORMED_JSON)."""
    if sam2_archive.find_manifest(source) is not None:
        return AnnotationFormat.SAM2
    marks = {mark: name for name, reader in READERS.items() for mark in reader.marks}
    found: dict[AnnotationFormat, str] = {}
    for name in json_files(source):
        key = top_level_key(source, name, frozenset(marks))
        if key is not None:
            found.setdefault(marks[key], name)
    if len(found) > 1:
        listed = " and ".join(f"{kind} ({name})" for kind, name in found.items())
        raise InvalidError(
            f"the source holds {listed}: name the format that is meant, or import them apart",
            reason="AMBIGUOUS_FORMAT",
        )
    if not found:
        known = ", ".join(reader.title for reader in READERS.values())
        raise InvalidError(
            f"no known annotations among {len(source.names)} files. Known: {known}; name it if it is one",
            reason="UNKNOWN_FORMAT",
        )
    return next(iter(found))
