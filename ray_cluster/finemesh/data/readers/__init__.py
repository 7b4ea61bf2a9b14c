"""Annotation formats in: one module per format, and this registry.

A reader gets the whole source and yields candidates one by one; a fault of a row is the candidate's, a fault
of the container ends the import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat
from finemesh.data.boxes import BoxBatch
from finemesh.data.readers import (
    coco,
    cvat,
    image_folder,
    label_studio,
    mask_stream,
    parquet,
    sa1b,
    sam2_archive,
    sav,
    tables,
    voc,
    yolo,
)
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.conversations import JsonForm, paragraphs
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate
from finemesh.data.storage import MANIFEST


@dataclass(frozen=True, slots=True)
class Reader:
    """One format.

    Attributes:
        title: for people.
        detect: the name of a file that tells the format, or None. It sees the start of files alone.
        read: its candidates.
        weak: whether what it detects may also be part of another format, which then comes first: a folder of
            pictures, a table.
        read_boxes: the same for a form of boxes alone, in columns where it can.
    """

    title: str
    detect: Callable[[Survey], str | None]
    read: Callable[[ReadContext], Iterator[Candidate]]
    weak: bool = False
    read_boxes: Callable[[ReadContext], Iterator[Candidate | BoxBatch]] | None = None


def _json_form(name: AnnotationFormat, title: str) -> Reader:
    form = JsonForm(name)
    return Reader(title, form.detect, form.read)


READERS: Final[dict[AnnotationFormat, Reader]] = {
    AnnotationFormat.SAM2: Reader("SAM 2 export archive", sam2_archive.detect, sam2_archive.read),
    AnnotationFormat.SAV: Reader("SA-V JSON", sav.detect, sav.read),
    AnnotationFormat.COCO: Reader("COCO JSON", coco.detect, coco.read, read_boxes=coco.read_boxes),
    AnnotationFormat.COCO_RESULTS: Reader("COCO results", coco.detect_results, coco.read_results),
    AnnotationFormat.SA1B: Reader("SA-1B JSON", sa1b.detect, sa1b.read),
    AnnotationFormat.MASK_STREAM: Reader("SAM 2 mask stream", mask_stream.detect, mask_stream.read),
    AnnotationFormat.YOLO: Reader("YOLO with data.yaml", yolo.detect, yolo.read),
    AnnotationFormat.VOC: Reader("Pascal VOC XML", voc.detect, voc.read),
    AnnotationFormat.CVAT: Reader("CVAT XML", cvat.detect, cvat.read),
    AnnotationFormat.LABEL_STUDIO: Reader("Label Studio JSON", label_studio.detect, label_studio.read),
    AnnotationFormat.IMAGE_FOLDER: Reader(
        "Hugging Face imagefolder", image_folder.detect, image_folder.read, weak=True
    ),
    AnnotationFormat.LLAVA: _json_form(AnnotationFormat.LLAVA, "LLaVA conversations"),
    AnnotationFormat.SHAREGPT: _json_form(AnnotationFormat.SHAREGPT, "ShareGPT conversations"),
    AnnotationFormat.OPENAI: _json_form(AnnotationFormat.OPENAI, "OpenAI messages"),
    AnnotationFormat.ALPACA: _json_form(AnnotationFormat.ALPACA, "Alpaca instructions"),
    AnnotationFormat.PROMPT_COMPLETION: _json_form(
        AnnotationFormat.PROMPT_COMPLETION, "prompts and completions"
    ),
    AnnotationFormat.INPUT_OUTPUT: _json_form(AnnotationFormat.INPUT_OUTPUT, "inputs and outputs"),
    AnnotationFormat.PREFERENCE: _json_form(AnnotationFormat.PREFERENCE, "preferences"),
    AnnotationFormat.TEXT: Reader("plain text", paragraphs.detect, paragraphs.read, weak=True),
    AnnotationFormat.TABLE: Reader("CSV or TSV", tables.detect, tables.read, weak=True),
    AnnotationFormat.PARQUET: Reader("Parquet", parquet.detect, parquet.read, weak=True),
}


def detect_format(survey: Survey) -> AnnotationFormat:
    """The format of a source. Raises InvalidError (UNKNOWN_FORMAT, AMBIGUOUS_FORMAT, UNSUPPORTED_SOURCE,
    MALFORMED_JSON).
    """
    _refuse_own(survey)
    for weak in (False, True):
        found = {
            name: told
            for name, reader in READERS.items()
            if reader.weak is weak and (told := reader.detect(survey)) is not None
        }
        if found:
            return _only(found)
    known = ", ".join(reader.title for reader in READERS.values())
    count = len(survey.source.names)
    raise InvalidError(
        f"no known annotations among {count} files. Known: {known}. If it is one of these, name it",
        reason="UNKNOWN_FORMAT",
    )


def _refuse_own(survey: Survey) -> None:
    """Canonical datasets have columns of every form; which of them a row fills, no reader can tell."""
    for name in survey.named(MANIFEST):
        shards = f"{name.removesuffix(MANIFEST)}shards/"
        if "ledger_shards" in survey.json_head(name).keys and any(
            each.startswith(shards) for each in survey.source.names
        ):
            raise InvalidError(
                f"the source is a dataset in canonical form ({name}): use it by its id, or convert it to"
                " coco, messages or llava and import that",
                reason="UNSUPPORTED_SOURCE",
            )


def _only(found: Mapping[AnnotationFormat, str]) -> AnnotationFormat:
    # What a SAM 2 export holds would also be detected by itself; results lie beside a COCO file; captions of
    # pictures are records with a text.
    wholes = (
        AnnotationFormat.SAM2,
        AnnotationFormat.COCO_RESULTS,
        AnnotationFormat.IMAGE_FOLDER,
    )
    for whole in wholes:
        if whole in found:
            return whole
    if len(found) > 1:
        listed = " and ".join(f"{kind} ({name})" for kind, name in found.items())
        raise InvalidError(
            f"the source holds {listed}: name the format that is meant, or import them apart",
            reason="AMBIGUOUS_FORMAT",
        )
    return next(iter(found))
