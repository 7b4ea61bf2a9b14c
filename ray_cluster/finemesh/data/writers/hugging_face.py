"""Hugging Face form: Parquet per split that `datasets.load_dataset(folder)` opens, pictures as its Image
feature.

Files are `data/<split>-00000.parquet` and on; README.md names them per split, as the Hub does. The features
are also written into the Parquet schema under the key `huggingface`, where `datasets` looks for them.
Source: datasets, arrow_writer.py and features/image.py (an Image is a struct of `bytes` and `path`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from finemesh.core.spec.data import ShardInfo, Split
from finemesh.data.arrow import places
from finemesh.data.batches import RowBatch
from finemesh.data.schema import ROW_SCHEMA
from finemesh.data.storage import ParquetShards, describe_file
from finemesh.data.writers.form import FormContext, FormWriter

_UNSPLIT: Final = "unsplit"  # not `all`, by which `datasets` means every split together
_SPLIT_NAMES: Final = {Split.NONE: _UNSPLIT, Split.VAL: "validation"}
_IMAGE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_COLUMNS: Final = (
    "row_id",
    "images",
    "width",
    "height",
    "objects",
    "class_name",
    "captions",
    "text",
    "messages",
    "rejected",
    "tools",
    "video_id",
    "frame_index",
    "attributes",
    "parents",
)


class HuggingFaceWriter(FormWriter):
    folders: ClassVar[tuple[str, ...]] = ("data", "README.md")
    judges: ClassVar[bool] = False
    divisible: ClassVar[bool] = True

    def __init__(self, context: FormContext) -> None:
        self._root, self._part = context.root, context.part_prefix
        self._splits: dict[str, ParquetShards] = {}
        self._schema = _schema()

    def write(self, batch: RowBatch) -> None:
        arrow = batch.arrow
        rows_of: defaultdict[str, list[int]] = defaultdict(list)
        for index, split in enumerate(arrow.column("split").to_pylist()):
            rows_of[_split_name(split)].append(index)
        for name, indices in rows_of.items():
            rows = arrow if len(rows_of) == 1 else arrow.take(places(np.array(indices)))
            if name not in self._splits:
                self._splits[name] = ParquetShards(self._root, f"data/{name}-{self._part}", self._schema)
            self._splits[name].write(_convert(rows, self._schema))

    def close(self) -> list[ShardInfo]:
        return [shard for _, shards in sorted(self._splits.items()) for shard in shards.close()]

    @classmethod
    def finish(cls, context: FormContext, splits: frozenset[str]) -> list[ShardInfo]:
        names = {name: name for name in sorted(map(_split_name, splits))}
        if [*names] == [_UNSPLIT]:
            context.warn("never split: `datasets` shows all rows as train")
            names = {"train": _UNSPLIT}
        card = context.root / "README.md"
        card.write_text(_card(names), encoding="utf-8")
        return [describe_file(context.root, card, 0)]


def _split_name(split: str) -> str:
    return _SPLIT_NAMES.get(Split(split), split)


def _schema() -> pa.Schema:
    own = {"images": pa.list_(_IMAGE), "width": pa.int32(), "height": pa.int32()}
    fields = [pa.field(name, own.get(name) or ROW_SCHEMA.field(name).type) for name in _COLUMNS]
    features = {field.name: _feature(field.type) for field in fields}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def _feature(kind: pa.DataType) -> Any:
    """The `datasets` feature of an Arrow type, in the JSON that its Features.to_dict gives."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {
        pa.float64(): "float64",
        pa.int64(): "int64",
        pa.int32(): "int32",
        pa.bool_(): "bool",
        pa.string(): "string",
    }
    return {"dtype": names[kind], "_type": "Value"}


def _convert(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    images: Any = batch.column("images")
    every = images.flatten()
    files = pa.StructArray.from_arrays([every.field("data"), every.field("name")], fields=list(_IMAGE))
    own = {"images": pa.ListArray.from_arrays(images.offsets, files)}
    for side in ("width", "height"):
        values, starts = every.field(side).to_pylist(), images.offsets.to_pylist()
        firsts = [values[start] if end > start else None for start, end in pairwise(starts)]
        own[side] = pa.array(firsts, pa.int32())
    columns = [own[name] if name in own else batch.column(name) for name in _COLUMNS]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _card(splits: Mapping[str, str]) -> str:
    """`splits`: how the files of each split begin."""
    files = "".join(
        f"  - split: {name}\n    path: data/{start}-*.parquet\n" for name, start in splits.items()
    )
    return f"""---
configs:
- config_name: default
  data_files:
{files}---

Open with `datasets.load_dataset("path/of/this/folder")`. Columns: the pictures (`images`), the `objects` of
the first (boxes in pixels as x, y, width, height; masks as COCO compressed run lengths of `height` x
`width`), and the conversation (`messages`).
"""
