"""What readers share: the source, the options, what they find out on the way, and looks into JSON files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.faults import RowFault
from finemesh.data.jsonio import malformed_annotations, parse_json
from finemesh.data.readers.survey import Survey
from finemesh.data.sources import Source


@dataclass(frozen=True, slots=True)
class Needs:
    """What of a source will be used. A reader may leave out the rest where that saves work.

    Attributes:
        masks: of objects that have a box.
        pictures: where the source has none, to be rendered; without, they are ABSENT.
    """

    masks: bool = True
    pictures: bool = True


@dataclass(slots=True)
class ReadContext:
    """One reading of a source. Readers set `total` (rows to expect) and `header` (see DatasetManifest), and
    add `warnings`, for people.
    """

    source: Source
    options: ImportOptions
    needs: Needs = field(default_factory=Needs)
    total: int = 0
    warnings: list[str] = field(default_factory=list[str])
    header: dict[str, Any] = field(default_factory=dict[str, Any])
    survey: Survey = field(init=False)

    def __post_init__(self) -> None:
        self.survey = Survey(self.source)

    def warn(self, sentence: str) -> None:
        """Say it once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def load_json(source: Source, name: str) -> Any:
    """The value of a JSON file that the import cannot do without. Raises InvalidError (MALFORMED_JSON,
    FILE_UNREADABLE).
    """
    return parse_json(read_needed(source, name), name)


def read_needed(source: Source, name: str) -> bytes:
    try:
        return source.read(name)
    except RowFault as fault:
        raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


def load_object(source: Source, name: str) -> dict[str, Any]:
    """As load_json, for a file that must hold an object. Raises InvalidError (MALFORMED_ANNOTATIONS) if it
    does not.
    """
    value = load_json(source, name)
    if not isinstance(value, dict):
        raise malformed_annotations(name, "the top", f"is {type(value).__name__}, not an object")
    return value


def stem(name: str) -> str:
    """`videos/dog.json` -> `dog`."""
    return PurePosixPath(name).stem
