"""What a form of a dataset must be able to do: take batches of canonical rows and say which files came of
them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from finemesh.core.spec.data import ConvertOptions, MaskProof, ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.boxes import BoxBatch
from finemesh.data.faults import RowFault


@dataclass(slots=True)
class FormContext:
    """One writing of a form.

    Attributes:
        root: the folder to write to.
        options: what was asked for.
        header: as DatasetManifest.header, of the parent.
        classes: names of all object classes of the parent, sorted; a form that numbers classes follows it,
            and adds what else comes.
        warnings: sentences for people.
        notes: sentences with a `{}` for their number: what a form could not hold of rows that it kept.
        part: of a dataset that is written in parts, which one this is; its number is in the names of files.
        shared_names: base names, without suffix, that several pictures have in one split; known before a
            dataset is written in parts.
    """

    root: Path
    options: ConvertOptions = field(default_factory=ConvertOptions)
    header: Mapping[str, Any] = field(default_factory=dict[str, Any])
    classes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    notes: Counter[str] = field(default_factory=Counter[str])
    part: int | None = None
    shared_names: frozenset[tuple[str, str]] = frozenset()

    @property
    def part_prefix(self) -> str:
        return "" if self.part is None else f"{self.part:05d}-"

    def warn(self, sentence: str) -> None:
        """Say it once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def no_place(form: str, *names: str) -> dict[str, str]:
    """For fields of a row that `form` has no place for, the note that says so."""
    return {name: f"{name} of {{}} rows left out: {form} has no place for it" for name in names}


def note_left_out(context: FormContext, row: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Count the fields that a row has of those in `notes`."""
    for name, note in notes.items():
        if row[name]:
            context.notes[note] += 1


@runtime_checkable
class BoxForm(Protocol):
    """A form of boxes, which can take them in columns too."""

    def write_boxes(self, batch: BoxBatch) -> None:
        """Write the pictures of a batch."""
        ...


class FormWriter(ABC):
    """One writing of a form. What is the same for most forms stands here."""

    folders: ClassVar[tuple[str, ...]]
    """Names, or patterns of names, that it writes in its folder."""
    judges: ClassVar[bool] = True
    """Whether it may refuse a row; if not, rows can be copied in batches."""
    divisible: ClassVar[bool] = False
    """Whether parts of a dataset can be written apart: no file holds rows of all of them."""
    names_files: ClassVar[bool] = False
    """Whether files are called as their pictures: then names are looked at before parts are made."""
    proves: ClassVar[bool] = False
    """Whether it writes masks in another way, and reads them back to prove that they came through."""

    @abstractmethod
    def __init__(self, context: FormContext) -> None: ...

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        """Why the form cannot hold a row; None if it can."""
        del row
        return None

    @abstractmethod
    def write(self, batch: RowBatch) -> None: ...

    def proof(self) -> MaskProof | None:
        """Of the masks that were written; None where none were read back."""
        return None

    @abstractmethod
    def close(self) -> list[ShardInfo]:
        """Finish the files with rows and describe them."""
        ...

    @classmethod
    def finish(cls, context: FormContext, splits: frozenset[str]) -> list[ShardInfo]:
        """Write the files that there is one of, however many parts: a card, a configuration. `splits` are
        those of all rows.
        """
        del context, splits
        return []
