"""Hugging Face's imagefolder: pictures with a metadata.jsonl, .csv or .parquet, or in a folder per class.
Source: https://huggingface.co/docs/datasets/image_dataset, and datasets, folder_based_builder.py.

A record of metadata names its pictures by `file_name`, from the folder of the metadata file on, `file_names`,
or keys that end so. Without metadata the folder of a picture is its class, if there are several, all equally
deep.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.conversations.records import Record
from finemesh.data.readers.image_folder_objects import make_objects, name_of_class
from finemesh.data.readers.image_folder_records import metadata_records
from finemesh.data.readers.pictures import Pictures, is_picture
from finemesh.data.readers.splits import split_named, split_of_path
from finemesh.data.readers.storable import storable
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate, make_row
from finemesh.data.schema import Row

_METADATA: Final = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_CAPTIONS: Final = ("text", "caption", "captions")
_CLASSES: Final = ("label", "class_name")
# What may lie beside pictures without saying anything of them.
_BESIDE: Final = (".md", ".gitattributes", ".gitignore", ".ds_store")
_ABOUT: Final = ("readme", "license", "licence", "notice")


def detect(survey: Survey) -> str | None:
    """A metadata file; or the first picture of a source that holds nothing else."""
    if metadata := [name for name in survey.named(*_METADATA) if _names_pictures(survey, name)]:
        return metadata[0]
    names = [name for name in survey.source.names if not _is_beside(name)]
    return names[0] if names and all(is_picture(name) for name in names) else None


def _is_beside(name: str) -> bool:
    path = PurePosixPath(name.lower())
    return path.name.endswith(_BESIDE) or path.stem in _ABOUT


def _names_pictures(survey: Survey, name: str) -> bool:
    if name.endswith(".parquet"):
        return any(is_picture(each) for each in survey.source.names)
    if name.endswith(".csv"):
        head = survey.head(name).split(b"\n", 1)[0]
        return any(
            _is_file_key(cell.strip().strip('"')) for cell in head.decode("utf-8-sig", "replace").split(",")
        )
    record = survey.first_record(name)
    return record is not None and any(_is_file_key(key) for key in record)


def _is_file_key(key: str) -> bool:
    return key in {"file_name", "file_names"} or key.endswith(("_file_name", "_file_names"))


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all records of metadata files, or else of all pictures. Raises InvalidError (see
    metadata_records).
    """
    pictures = Pictures(context)
    metadata = context.survey.named(*_METADATA)
    if not metadata:
        yield from _classified(context, pictures)
        return
    used: set[str] = set()
    for name in metadata:
        prefix = name.rpartition(".")[0]
        for record in metadata_records(context, name):
            row_id = f"{prefix}/{record.index}"
            yield Candidate(row_id, partial(_row, context, pictures, name, row_id, record, used))
    if left := [name for name in pictures.names if name not in used]:
        context.warn(f"{len(left)} pictures, such as {left[0]}, are in no metadata file: left out")


def _classified(context: ReadContext, pictures: Pictures) -> Iterator[Candidate]:
    """Every picture is a row, of the class that its folder is called."""
    context.total = len(pictures.names)
    folders = {name: PurePosixPath(name).parent for name in pictures.names}
    labels = {folder.name for folder in folders.values() if folder.name and not split_named(folder.name)}
    depths = {len(folder.parts) for folder in folders.values()}
    telling = len(labels) > 1 and len(depths) == 1
    if not telling:
        context.warn("the pictures' folders name no classes: several are needed, all equally deep")
    for name in pictures.names:
        folder = folders[name].name
        class_name = folder if telling and folder in labels else None
        yield Candidate(name, partial(_picture_row, pictures, name, class_name))


def _picture_row(pictures: Pictures, name: str, class_name: str | None) -> Row:
    return make_row(
        name,
        source={"file": name, "key": ""},
        pictures=[pictures.read(name)],
        class_name=class_name,
        split=split_of_path(name),
    )


def _row(
    context: ReadContext, pictures: Pictures, name: str, row_id: str, record: Record, used: set[str]
) -> Row:
    if record.fault is not None:
        raise record.fault
    if not isinstance(record.value, dict):
        raise RowFault("RECORD_INVALID", "the record is not an object", record.key)
    value: dict[str, Any] = storable(record.value, record.key)
    paths = _paths(pictures, name, value, record.key)
    used.update(paths)
    captions = [text for key in _CAPTIONS for text in _texts(value.get(key))]
    objects = make_objects(value.get("objects"), f"{record.key}.objects")
    if any(isinstance(said, int) for said in (value.get("label"), *_numbers(value.get("objects")))):
        context.warn("classes are numbers without names: the numbers are kept as names")
    label = next((value[key] for key in _CLASSES if value.get(key) is not None), None)
    taken = {"file_name", "file_names", "objects", *_CAPTIONS, *_CLASSES}
    return make_row(
        row_id,
        source={"file": name, "key": record.key},
        pictures=[pictures.read(path) for path in paths],
        objects=objects,
        class_name=None if label is None else name_of_class(label, f"{record.key}.label"),
        captions=captions,
        attributes={key: said for key, said in value.items() if key not in taken and said is not None},
        parents=[f"{name}#{record.key}.objects[{index}]" for index in range(len(objects))],
        split=split_of_path(paths[0]),
    )


def _numbers(objects: Any) -> list[Any]:
    categories = objects.get("categories") if isinstance(objects, dict) else None
    return categories if isinstance(categories, list) else []


def _paths(pictures: Pictures, name: str, value: Mapping[str, Any], key: str) -> list[str]:
    """The pictures that a record names. Raises RowFault (NO_IMAGE, IMAGE_MISSING, IMAGE_AMBIGUOUS)."""
    said: list[Any] = []
    for field, each in value.items():
        if _is_file_key(field) and each is not None:
            said += each if isinstance(each, list) else [each]
    if not said or not all(isinstance(each, str) and each for each in said):
        raise RowFault("NO_IMAGE", "the record has no file_name, no file_names, or one that is no text", key)
    folder = posixpath.dirname(name)
    paths: list[str] = []
    for each in said:
        path = posixpath.normpath(posixpath.join(folder, each))
        paths.append(path if path in pictures.files and is_picture(path) else pictures.find(each, key))
    return paths


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]
