"""What a form of a dataset must be able to do: take batches of canonical rows and say which files came of
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from finemesh.core.spec.data import ConvertOptions, MaskProof, ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault


@dataclass(slots=True)
class FormContext:
    """One writing of a form.

    Attributes:
        root: the folder to write to.
        options: what was asked for.
        header: as DatasetManifest.header, of the parent.
        classes: names of all object classes of the parent, sorted; a form that numbers classes follows it.
        warnings: sentences for people; a form adds what it could not hold of rows that it kept.
    """

    root: Path
    options: ConvertOptions = field(default_factory=ConvertOptions)
    header: Mapping[str, Any] = field(default_factory=dict[str, Any])
    classes: Sequence[str] = ()
    warnings: list[str] = field(default_factory=list[str])

    def warn(self, sentence: str) -> None:
        """Say it once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


class FormWriter(Protocol):
    """Made with its FormContext."""

    folders: ClassVar[tuple[str, ...]]
    """Names, or patterns of names, that it writes in its folder."""
    judges: ClassVar[bool]
    """Whether it may refuse a row; if not, rows can be copied in batches."""

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        """Why the form cannot hold a row; None if it can."""
        ...

    def write(self, batch: RowBatch) -> None: ...

    def close(self) -> list[ShardInfo]:
        """Finish all files and describe them."""
        ...

    def proof(self) -> MaskProof | None:
        """Of the masks that were written; None where none were read back."""
        ...
