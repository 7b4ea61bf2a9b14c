"""Plain text: files of paragraphs, and JSON records that hold a `text`.

A row of a text file is a paragraph, the lines between two blank ones, with the line breaks within it. A whole
file would be too long a row for most, a line too short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Final, TextIO

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat
from finemesh.data.faults import RowFault
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.conversations.files import Builder, JsonForm
from finemesh.data.readers.conversations.forms import FORMS
from finemesh.data.readers.conversations.records import Record
from finemesh.data.readers.encodings import open_text
from finemesh.data.readers.short_names import short_names
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate

MAX_PARAGRAPH: Final = 16 << 20
"""Characters."""
_RECORDS: Final = JsonForm(AnnotationFormat.TEXT)
_ABOUT: Final = ("readme", "license", "licence", "notice")
_WORD: Final = re.compile(rb"[A-Za-z\x80-\xff]{2}")


def detect(survey: Survey) -> str | None:
    """JSON records with a text; or a source of nothing but text files, one of which holds words."""
    return _RECORDS.detect(survey) or next(iter(_text_files(survey)), None)


def read(context: ReadContext) -> Iterator[Candidate]:
    """A candidate for each paragraph of the text files, or for each record.

    Raises:
        InvalidError: NO_SUCH_RECORDS, TEXT_ENCODING, FILE_UNREADABLE, or a JSON file is broken.
    """
    if _RECORDS.detect(context.survey):
        yield from _RECORDS.read(context)
        return
    names = [name for name in context.survey.with_suffix(".txt") if not _is_about(name)]
    if not names:
        message = "there is no text file, and no JSON file whose records have a text: name another format"
        raise InvalidError(message, reason="NO_SUCH_RECORDS")
    builder = Builder(context, FORMS[AnnotationFormat.TEXT])
    for name, prefix in short_names(names).items():
        try:
            with open_text(context, name) as file:
                for record in _paragraphs(file):
                    context.total = max(context.total, record.index + 1)
                    yield builder.candidate(name, prefix, record)
        except RowFault as fault:
            raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


def _text_files(survey: Survey) -> list[str]:
    names = [name for name in survey.source.names if not _is_about(name)]
    if not all(name.lower().endswith(".txt") for name in names):
        return []
    return [name for name in names if _WORD.search(survey.head(name))]


def _is_about(name: str) -> bool:
    """Whether a file tells about the source instead of being part of it."""
    return PurePosixPath(name).name.lower().startswith(_ABOUT)


@dataclass(slots=True)
class _Paragraph:
    """Begins in `line`; `lines` are kept until there are more than MAX_PARAGRAPH characters."""

    index: int
    line: int
    lines: list[str] = field(default_factory=list[str])
    length: int = 0

    def add(self, line: str) -> None:
        self.length += len(line)
        if self.length <= MAX_PARAGRAPH:
            self.lines.append(line)

    def record(self) -> Record:
        key = f"line {self.line}"
        if self.length > MAX_PARAGRAPH:
            message = f"the paragraph is longer than {MAX_PARAGRAPH} characters: divide it by blank lines"
            return Record(self.index, key, fault=RowFault("RECORD_TOO_LARGE", message, key))
        return Record(self.index, key, {"text": "\n".join(self.lines)})


def _paragraphs(file: TextIO) -> Iterator[Record]:
    paragraph: _Paragraph | None = None
    index, number, begins = 0, 1, True  # `begins`: the piece that is read next begins a line
    for piece in iter(partial(file.readline, MAX_PARAGRAPH), ""):
        if piece.strip():
            paragraph = paragraph or _Paragraph(index, number)
            paragraph.add(piece.rstrip("\r\n"))
        elif paragraph is not None and begins:
            yield paragraph.record()
            paragraph, index = None, index + 1
        begins = piece.endswith(("\n", "\r"))
        number += begins
    if paragraph is not None:
        yield paragraph.record()
