"""From a source to candidates: its JSON files, their records, and the row of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat
from finemesh.data.faults import RowFault
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.conversations.draft import Draft
from finemesh.data.readers.conversations.fields import Fields, refuse
from finemesh.data.readers.conversations.forms import FORMS, Form, fits, form_of
from finemesh.data.readers.conversations.gallery import Gallery
from finemesh.data.readers.conversations.records import Record, iter_records
from finemesh.data.readers.pictures import Pictures
from finemesh.data.readers.short_names import short_names
from finemesh.data.readers.splits import split_of_file
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate
from finemesh.data.schema import Row, SourceRef


@dataclass(frozen=True, slots=True)
class JsonForm:
    """One form of instruction data in JSON lists and JSON Lines."""

    name: AnnotationFormat

    def detect(self, survey: Survey) -> str | None:
        return next(iter(self.files(survey)), None)

    def files(self, survey: Survey) -> list[str]:
        """Names of the files whose first record is of this form."""
        firsts = ((name, survey.first_record(name)) for name in json_files(survey))
        return [name for name, record in firsts if record is not None and form_of(record) is self.name]

    def read(self, context: ReadContext) -> Iterator[Candidate]:
        """A candidate for each record of the files of this form. If none is, of those that could be read so.

        Raises:
            InvalidError: NO_SUCH_RECORDS, or a file is broken (see iter_records).
        """
        survey = context.survey
        names = self.files(survey) or [
            name for name in json_files(survey) if fits(FORMS[self.name], survey.first_record(name) or {})
        ]
        if not names:
            keys = " and ".join(FORMS[self.name].keys)
            message = f"no JSON file begins with a record that has {keys}: name the format that it is in"
            raise InvalidError(message, reason="NO_SUCH_RECORDS")
        for name in json_files(survey):
            if name not in names:
                context.warn(f"{name} was not read: its records are of another form")
        builder = Builder(context, FORMS[self.name], placeholders=self.name is AnnotationFormat.LLAVA)
        for name, prefix in short_names(names).items():
            for record in iter_records(context, name):
                yield builder.candidate(name, prefix, record)


def json_files(survey: Survey) -> list[str]:
    """JSON files that hold a list of records, or one a line."""
    names = [*survey.json_files, *survey.json_lines_files]
    return [name for name in names if survey.json_head(name).kind == "list"]


@dataclass(slots=True)
class Builder:
    """Makes rows of the records of one form. `placeholders`: see Gallery."""

    context: ReadContext
    form: Form
    placeholders: bool = False
    library: Pictures = field(init=False)

    def __post_init__(self) -> None:
        self.library = Pictures(self.context)

    def candidate(self, file: str, prefix: str, record: Record) -> Candidate:
        row_id = f"{prefix}/{record.index}"
        return Candidate(row_id, partial(self._row, row_id, {"file": file, "key": record.key}, record))

    def _row(self, row_id: str, source: SourceRef, record: Record) -> Row:
        if record.fault is not None:
            raise record.fault
        if not isinstance(record.value, Mapping):
            refuse(record.key, record.value, "an object")
        try:
            row, notes = self._build(row_id, source, record.value)
        except RecursionError as error:
            raise RowFault("RECORD_INVALID", "values are nested too deeply", record.key) from error
        for note in notes:
            self.context.warn(note)
        return row

    def _build(self, row_id: str, source: SourceRef, record: Mapping[str, Any]) -> tuple[Row, list[str]]:
        fields = Fields(record)
        draft = Draft(fields, Gallery(self.library, fields, placeholders=self.placeholders))
        self.form.build(draft)
        return draft.finish(row_id, source, split_of_file(source["file"])), draft.notes
