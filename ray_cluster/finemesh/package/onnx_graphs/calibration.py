"""What graphs are fed when they run items of the training split: by this their scales are chosen."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any, Final

from PIL import Image

from finemesh.core.errors import PreconditionError
from finemesh.finetune.manifests import MANIFEST
from finemesh.finetune.order import epoch_order
from finemesh.finetune.rows import ROW_COLUMNS, TEXT_COLUMNS, Row, read_rows
from finemesh.package.formats.format import SHIPPED
from finemesh.package.golden import Arrays
from finemesh.package.golden_pictures import decision_facts
from finemesh.package.golden_text import said
from finemesh.package.onnx_graphs.whole import files_of, whole_graphs
from finemesh.package.trained import Trained

ITEMS: Final = 32
_TOKENS: Final = 4  # of each answer: the first follows a prompt, the others a cache

Item = tuple[list[Any], Image.Image | None]


@contextlib.contextmanager
def running(trained: Trained) -> Generator[Any]:
    """The `Runner` of packages over the graphs in fp32, in this process."""
    folder = trained.scratch / "onnx-running"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in files_of(whole_graphs(trained)):
        shutil.copyfile(path, folder / path.name)  # a link: onnx reads no weights that two names lead to
    trained.model.processor.save_pretrained(folder)
    facts = {} if trained.speaks else decision_facts(trained)
    spec = {"task": trained.spec.task.value, "objective": trained.spec.objective.value}
    manifest = {"spec": spec, "decisions": facts}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    sys.path.insert(0, str(SHIPPED))  # its script imports the files beside it by their own names
    try:
        runner = import_module("runtime_onnx").Runner(folder)
    finally:
        sys.path.remove(str(SHIPPED))
    yield runner
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Feeds:
    """Feeds of every graph, made again for each reader so that those of one item are held at a time."""

    runner: Any
    chosen: list[Item]

    @property
    def items(self) -> int:
        return len(self.chosen)

    @classmethod
    @contextlib.contextmanager
    def of(cls, trained: Trained) -> Generator[Feeds]:
        """By graphs in fp32. Raises PreconditionError, SPLIT_EMPTY."""
        with running(trained) as runner:
            chosen = list(islice(_items(trained), ITEMS))
            if not chosen:
                split = trained.spec.train_split
                raise PreconditionError(f"no row of the split {split!r} can be used", reason="SPLIT_EMPTY")
            yield cls(runner, chosen)

    def reader(self, graph: str) -> Any:
        """For onnxruntime: the feeds of one graph, one after the other."""
        from onnxruntime.quantization import CalibrationDataReader

        feeds = self._feeds(graph)

        class Reader(CalibrationDataReader):
            def get_next(self) -> Any:
                return next(feeds, None)

        return Reader()

    def _feeds(self, name: str) -> Iterator[Arrays]:
        graph, fed = self.runner.graphs[name], list[Arrays]()

        def record(inputs: Arrays) -> Arrays:
            fed.append({each: inputs[each] for each in graph.inputs})
            return graph(inputs)

        for messages, image in self.chosen:
            self.runner.graphs[name] = record
            try:
                inputs = self.runner.prepare(messages, image)
                if messages:
                    self.runner.write(inputs, _TOKENS)
                else:
                    self.runner.outputs(inputs)
            finally:
                self.runner.graphs[name] = graph
            yield from fed
            fed.clear()


def _items(trained: Trained) -> Iterator[Item]:
    """Rows of the training split that can be asked, in an order that follows from their ids."""
    split = trained.spec.train_split
    row_ids = [row.row_id for row in read_rows(trained.dataset, split, columns=("row_id",))]
    chosen = {row_ids[index] for index in epoch_order(row_ids, seed=1, epoch=0)[: 2 * ITEMS]}
    for row in read_rows(trained.dataset, split, TEXT_COLUMNS if trained.plain else ROW_COLUMNS):
        if row.row_id in chosen and len(row.images) <= 1:
            item = _asked(row) if trained.speaks else ([], _picture(row))
            if item[0] or item[1]:
                yield item


def _asked(row: Row) -> Item:
    if row.text:
        return [said(row.text)], None
    answers = [turn for turn, message in enumerate(row.messages) if message["role"] == "assistant"]
    return ([*row.messages[: answers[-1]]], _picture(row)) if answers else ([], None)


def _picture(row: Row) -> Image.Image | None:
    return Image.open(io.BytesIO(row.images[0])).convert("RGB") if row.images and row.images[0] else None
