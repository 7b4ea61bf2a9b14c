"""What models made of items: one immutable evaluation per split, variant, step and attempt of a run.

An evaluation is one Parquet file, a row per item and a column per metric (`value/<metric>`, and
`weight/<metric>` where items weigh differently), with what it is in the file's metadata. Its name carries the
digest of its content, so that writing it twice writes the same file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.core.errors import FieldViolation, FinemeshError, InvalidError
from finemesh.core.names import Name, check_id
from finemesh.tracking.domain import MAX_ATTEMPT, MAX_KEY_LENGTH, MAX_STEP, Floats

MAX_ITEMS: Final = 200_000
MAX_METRICS: Final = 100
MAX_ITEM_ID_LENGTH: Final = 512
MAX_ITEM_DIGEST_LENGTH: Final = 64
# So that an id with the largest step and attempt has at most 63 characters.
MAX_SPLIT_LENGTH: Final = 20
MAX_VARIANT_LENGTH: Final = 12
_SCHEMA: Final = b"finemesh.evaluation/1"
_VALUE, _WEIGHT = "value/", "weight/"


@dataclass(frozen=True, slots=True, eq=False)
class ItemMetric:
    """One metric of every item: `values`, NaN where it says nothing; `weights` in the mean, None if equal."""

    values: Floats
    weights: Floats | None = None

    def mean(self) -> float:
        """Of the items that have a finite value; NaN if none has, or all weigh nothing."""
        finite = np.isfinite(self.values)
        weights = (np.ones(len(self.values)) if self.weights is None else self.weights)[finite]
        total = float(weights.sum())
        return float(self.values[finite] @ weights) / total if total else math.nan


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """The items of an evaluation as columns. `digests` and `groups` are empty where nothing was said."""

    ids: tuple[str, ...]
    digests: tuple[str, ...]
    groups: tuple[str, ...]
    metrics: Mapping[str, ItemMetric]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> str:
        """Over ids and digests, in the order of the ids: the same for the same items."""
        digests = self.digests or ("",) * len(self)
        return _digest(sorted(zip(self.ids, digests, strict=True)))

    def part(self, start: int, end: int) -> Items:
        """The items from `start` to before `end`."""
        metrics = {
            key: ItemMetric(each.values[start:end], None if each.weights is None else each.weights[start:end])
            for key, each in self.metrics.items()
        }
        return Items(self.ids[start:end], self.digests[start:end], self.groups[start:end], metrics)

    def check(self) -> None:
        """Raises InvalidError, reason MALFORMED_EVALUATION, naming every wrong field."""
        _raise([FieldViolation(f"items.{path}", text) for path, text in self._violations()])

    def _violations(self) -> list[tuple[str, str]]:
        if not self.ids:
            return [("ids", "is empty: an evaluation has at least one item")]
        if len(self) > MAX_ITEMS:
            remedy = "log a sample, the same items for every run, or parts of them as splits of their own"
            return [("ids", f"has {len(self)} entries, above the limit of {MAX_ITEMS}: {remedy}")]
        found: list[tuple[str, str]] = []
        if len(set(self.ids)) < len(self):
            found.append(("ids", "names an item twice: join what is known of it"))
        for path, texts, limit in (
            ("ids", self.ids, MAX_ITEM_ID_LENGTH),
            ("digests", self.digests, MAX_ITEM_DIGEST_LENGTH),
            ("groups", self.groups, MAX_ITEM_ID_LENGTH),
        ):
            if texts and len(texts) != len(self):
                found.append((path, f"has {len(texts)} entries for {len(self)} items: one each, or none"))
            if any(len(text) > limit for text in texts):
                found.append((path, f"has a text of over {limit} characters"))
        if not 1 <= len(self.metrics) <= MAX_METRICS:
            found.append(("metrics", f"name 1 to {MAX_METRICS} of them, each once"))
        for key, metric in self.metrics.items():
            found += [(f"metrics[{key!r}]", text) for text in self._metric_violations(key, metric)]
        return found

    def _metric_violations(self, key: str, metric: ItemMetric) -> list[str]:
        found: list[str] = []
        if not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable():
            found.append(f"a metric's name has 1 to {MAX_KEY_LENGTH} printable characters")
        if len(metric.values) != len(self):
            found.append(f"has {len(metric.values)} values for {len(self)} items")
        weights = metric.weights
        if weights is None:
            return found
        if len(weights) != len(self):
            found.append(f"has {len(weights)} weights for {len(self)} items: one each, or none")
        elif not (np.isfinite(weights).all() and (weights >= 0).all()):
            found.append("has a weight that is negative or not finite")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was evaluated, and what is known of its items. See `finemesh.v1.Evaluation`.

    Attributes:
        object_key: of its Parquet file in the bucket.
    """

    run: Name
    split: str
    variant: str = ""
    step: int
    attempt: int
    dataset: str = ""
    dataset_digest: str = ""
    metrics: tuple[str, ...] = ()
    item_count: int = 0
    items_sha256: str = ""
    sha256: str = ""
    object_key: str = ""
    create_time: datetime | None = field(default=None, compare=False)

    @property
    def name(self) -> Name:
        parts = [self.split, self.variant, f"s{self.step}", f"a{self.attempt}"]
        return replace(
            self.run, child_collection="evaluations", child_id="-".join(part for part in parts if part)
        )

    def check(self) -> None:
        """Raises InvalidError, reason MALFORMED_EVALUATION or MALFORMED_ID."""
        found: list[FieldViolation] = []
        for path, text, limit in (
            ("split", self.split, MAX_SPLIT_LENGTH),
            ("variant", self.variant, MAX_VARIANT_LENGTH),
        ):
            if len(text) > limit:
                found.append(FieldViolation(f"evaluation.{path}", f"has more than {limit} characters"))
            elif text or path == "split":
                check_id(text, f"evaluation.{path}")
        if not 0 <= self.step <= MAX_STEP:
            found.append(FieldViolation("evaluation.step", "use a step from 0 to 2^53"))
        if not 1 <= self.attempt <= MAX_ATTEMPT:
            found.append(FieldViolation("evaluation.attempt", f"count attempts from 1 to {MAX_ATTEMPT}"))
        for path, text in (("dataset", self.dataset), ("dataset_digest", self.dataset_digest)):
            if len(text) > MAX_ITEM_ID_LENGTH:
                found.append(
                    FieldViolation(f"evaluation.{path}", f"has over {MAX_ITEM_ID_LENGTH} characters")
                )
        _raise(found)

    def of(self, items: Items, create_time: datetime) -> Evaluation:
        """With what follows from its items."""
        sha256 = self.digest_with(items)
        folder = objects_of(self.run)
        return replace(
            self,
            metrics=tuple(items.metrics),
            item_count=len(items),
            items_sha256=items.sha256,
            sha256=sha256,
            object_key=f"{folder}{self.name.child_id}-{sha256[:16]}.parquet",
            create_time=create_time,
        )

    def digest_with(self, items: Items) -> str:
        """SHA-256, hexadecimal, of all that was said of this evaluation and its items."""
        columns = [
            (key, _digest_of(each.values), "" if each.weights is None else _digest_of(each.weights))
            for key, each in items.metrics.items()
        ]
        about = [str(self.name), self.dataset, self.dataset_digest]
        return _digest([about, items.ids, items.digests, items.groups, columns])


def objects_of(run: Name) -> str:
    """Where the files of a run's evaluations are: a prefix of keys."""
    return f"tracking/{run.project}/{run.id}/evaluations/"


def to_parquet(evaluation: Evaluation, items: Items) -> bytes:
    """The file of an evaluation."""
    columns: dict[str, Any] = {"item_id": pa.array(items.ids, pa.string())}
    if items.digests:
        columns["item_digest"] = pa.array(items.digests, pa.string())
    if items.groups:
        columns["group"] = pa.array(items.groups, pa.string())
    for key, metric in items.metrics.items():
        columns[_VALUE + key] = pa.array(metric.values)
        if metric.weights is not None:
            columns[_WEIGHT + key] = pa.array(metric.weights)
    about = {
        "name": str(evaluation.name),
        **{each: getattr(evaluation, each) for each in ("split", "variant", "step", "attempt")},
        **{each: getattr(evaluation, each) for each in ("dataset", "dataset_digest", "sha256")},
    }
    metadata = {b"schema": _SCHEMA, b"evaluation": json.dumps(about).encode()}
    file = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file, compression="zstd")
    return file.getvalue()


def from_parquet(evaluation: Evaluation, content: bytes) -> Items:
    """The items in a file. Raises FinemeshError, reason OBJECT_CORRUPT: it is not what was written."""
    try:
        table = pq.read_table(io.BytesIO(content))
        found = _items(table)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise _corrupt(evaluation, str(error)) from error
    if evaluation.digest_with(found) != evaluation.sha256:
        raise _corrupt(evaluation, "its content has another digest")
    return found


def _items(table: pa.Table) -> Items:
    def texts(name: str) -> tuple[str, ...]:
        return tuple(table[name].to_pylist()) if name in table.column_names else ()

    def numbers(name: str) -> Floats | None:
        return table[name].to_numpy() if name in table.column_names else None

    metrics: dict[str, ItemMetric] = {}
    for name in table.column_names:
        if name.startswith(_VALUE):
            key = name.removeprefix(_VALUE)
            metrics[key] = ItemMetric(table[name].to_numpy(), numbers(_WEIGHT + key))
    return Items(texts("item_id"), texts("item_digest"), texts("group"), metrics)


def _corrupt(evaluation: Evaluation, why: str) -> FinemeshError:
    return FinemeshError(
        f"the file of {evaluation.name} ({evaluation.object_key}) is damaged: {why}; restore it from a backup"
        " of the object store",
        reason="OBJECT_CORRUPT",
    )


def _digest_of(values: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _raise(violations: list[FieldViolation]) -> None:
    if violations:
        listed = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidError(listed, violations=violations, reason="MALFORMED_EVALUATION")
