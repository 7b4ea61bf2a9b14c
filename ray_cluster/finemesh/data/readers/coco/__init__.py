"""COCO: instances, keypoints and captions, and predictions in the form of its results. Source:
https://cocodataset.org/#format-data and #format-results, and cocoapi for what its tools accept.

Nothing of a file is lost: what canonical rows have no place for lies in the attributes of the row (the
image's fields) and of its objects (the annotations'), and in the header (`info`, `licenses`, `categories`,
whatever else stands at the top), from where the COCO form writes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from finemesh.core.errors import InvalidError
from finemesh.data.boxes import BoxBatch
from finemesh.data.faults import RowFault
from finemesh.data.readers.coco.boxes import BoxMaker
from finemesh.data.readers.coco.join import CocoFile, FilePart
from finemesh.data.readers.coco.rows import RowMaker
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.short_names import short_names
from finemesh.data.readers.splits import split_of_file
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate
from finemesh.data.schema import Row

_MARKS = ("images", "annotations", "categories")
_RESULT = ("image_id", "category_id", "score")


def detect(survey: Survey) -> str | None:
    return next(iter(_files(survey)), None)


def _files(survey: Survey) -> list[str]:
    """Files that are COCO, and not SA-1B, which has annotations too, but one `image`."""
    names = survey.json_with_keys(*_MARKS)
    return [name for name in names if "image" not in survey.json_head(name).keys]


def detect_results(survey: Survey) -> str | None:
    """A list of predictions. Their pictures' COCO file beside it is part of the source."""
    return next(iter(_results_files(survey)), None)


def _results_files(survey: Survey) -> list[str]:
    heads = {name: survey.json_head(name).record for name in survey.json_files}
    return [name for name, record in heads.items() if record and {*_RESULT} <= {*record}]


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all COCO files of a source: its images, and annotations whose image is not listed."""
    for name, prefix in short_names(_files(context.survey)).items():
        yield from _read_file(context, name, name, prefix)


def read_results(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of the images of the one COCO file, with the predictions of each results file as objects."""
    files = _files(context.survey)
    if len(files) != 1:
        message = (
            f"the source has {len(files)} COCO files beside the results: put the one of their pictures there"
        )
        raise InvalidError(message, reason="MALFORMED_ANNOTATIONS")
    for name, prefix in short_names(_results_files(context.survey)).items():
        yield from _read_file(context, files[0], name, prefix)


def read_boxes(context: ReadContext) -> Iterator[Candidate | BoxBatch]:
    """As read, for a form that wants nothing but boxes: in columns where pictures have no files and all is
    sound.
    """
    for name, prefix in short_names(_files(context.survey)).items():
        yield from _read_file(context, name, name, prefix, as_boxes=not context.needs.pictures)


def _read_file(
    context: ReadContext, name: str, annotations: str, prefix: str, *, as_boxes: bool = False
) -> Iterator[Any]:
    with CocoFile(context, name, annotations) as file:
        context.header.setdefault("coco", {})[annotations] = file.header
        context.total += file.images + file.orphans
        maker = RowMaker(context, file)
        boxes = BoxMaker(file.categories, prefix, split_of_file(name), context.options.max_image_pixels)
        for part in file.parts():
            long_way = partial(_candidates, part, prefix, maker)
            batch = boxes.batch(part, long_way) if as_boxes and not maker.has_pictures else None
            if batch is not None:
                context.warn("images missing: annotations alone")
                yield batch
            else:
                yield from long_way()
        for position, annotation in file.lost():
            identity = annotation.get("id", f"annotations[{position}]")
            yield Candidate(f"{prefix}/annotation/{identity}", partial(_orphan, identity, annotation))


def _candidates(part: FilePart, prefix: str, maker: RowMaker) -> list[Candidate]:
    made: list[Candidate] = []
    for index, image, found in part.rows():
        identity = image.get("id") if isinstance(image, dict) else None
        row_id = f"{prefix}/{f'images[{index}]' if identity is None else identity}"
        made.append(Candidate(row_id, partial(maker.row, row_id, index, image, found)))
    return made


def _orphan(identity: object, annotation: dict[str, object]) -> Row:
    message = f"annotation {identity} belongs to image {annotation.get('image_id')!r}, which is not listed"
    raise RowFault("UNKNOWN_IMAGE", message, "image_id")
