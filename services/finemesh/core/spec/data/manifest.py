"""What a dataset version says of itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data.terms import DatasetFormat, DatasetOrigin
from finemesh.core.spec.ledger import LedgerSummary


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One file of a dataset. `path` is relative to the dataset, with `/`; `rows` is 0 for a picture."""

    path: str
    sha256: str
    bytes: int
    rows: int

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShardInfo:
        return cls(str(value["path"]), str(value["sha256"]), int(value["bytes"]), int(value["rows"]))


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many objects a class has: in all, visible, and visible per split; and per split the rows with
    one.
    """

    class_name: str
    objects: int
    visible: int
    splits: dict[str, int] = field(default_factory=dict[str, int])
    rows: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClassCount:
        return cls(
            str(value["class_name"]),
            int(value["objects"]),
            int(value["visible"]),
            dict(value["splits"]),
            dict(value.get("rows", {})),
        )


@dataclass(frozen=True, slots=True)
class Leakage:
    """What of val and test is also in train: shares of their rows, 0 to 1.

    Attributes:
        score: rows that leak in any of the ways below.
        by_video: whose video is in train.
        by_image: with a picture that is in train, byte for byte; of rows without pictures those whose words
            are.
        by_similar: with a picture that another one in train resembles; None if pictures were not compared.
    """

    score: float
    by_video: float
    by_image: float
    by_similar: float | None = None


@dataclass(frozen=True, slots=True)
class MaskProof:
    """How masks came back from the form they were written in.

    Attributes:
        masks: that were read back, drawn again and compared.
        mean_iou, min_iou: intersection over union of each with what it was, 0 to 1.
        below_floor: masks whose rows were quarantined for it.
        cpu_seconds: what comparing them took.
    """

    masks: int
    mean_iou: float
    min_iou: float
    below_floor: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """What a dataset version is. Written last, as `manifest.json`: a folder without it is not a dataset.

    Attributes:
        digest: `sha256:` and 64 hex digits over the format, the options and the SHA-256 of every file.
        format: form of the files.
        origin: the stage that made it.
        rows: in all shards.
        splits: rows per split; "" counts rows that were never split.
        classes: table of object classes, by name; objects without a class name are not in it.
        row_classes: rows per class of a whole row and split.
        conversations: rows with messages.
        answers: answers per split, of a dataset of conversations with one short answer each.
        media: rows per kind of picture: `frame`, `image` or `rendered`.
        has_class_names: whether every object has one, and there are objects.
        videos: number of videos.
        shards: files with the rows (and, for LLaVA, the pictures).
        ledger_shards: files with the ledger.
        ledger: its sums.
        parents: digests of the dataset versions this one was made from.
        options: what was asked for, as JSON values.
        leakage: after a split.
        proof: of its masks, where the form holds masks and the proof was not switched off.
        warnings: sentences for people.
        header: what the source says of itself as a whole, as JSON values: COCO's `info`, `licenses` and
            `categories`, so that they can be written again. Inherited by conversions and splits.
    """

    digest: str
    format: DatasetFormat
    origin: DatasetOrigin
    rows: int
    splits: dict[str, int]
    classes: tuple[ClassCount, ...]
    answers: dict[str, dict[str, int]]
    media: dict[str, int]
    has_class_names: bool
    videos: int
    shards: tuple[ShardInfo, ...]
    ledger_shards: tuple[ShardInfo, ...]
    ledger: LedgerSummary
    parents: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    leakage: Leakage | None = None
    proof: MaskProof | None = None
    warnings: tuple[str, ...] = ()
    header: dict[str, Any] = field(default_factory=dict[str, Any])
    row_classes: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    conversations: int = 0
    version: int = 2

    @property
    def total_bytes(self) -> int:
        """Size of all files but the manifest itself."""
        return sum(shard.bytes for shard in (*self.shards, *self.ledger_shards))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatasetManifest:
        """The manifest out of its JSON. Raises InvalidError (MALFORMED_MANIFEST) naming what is wrong."""
        try:
            return cls(
                digest=str(value["digest"]),
                format=DatasetFormat(value["format"]),
                origin=DatasetOrigin(value["origin"]),
                rows=int(value["rows"]),
                splits=dict(value["splits"]),
                classes=tuple(ClassCount.from_json(item) for item in value["classes"]),
                answers={split: dict(answers) for split, answers in value["answers"].items()},
                media=dict(value["media"]),
                has_class_names=bool(value["has_class_names"]),
                videos=int(value["videos"]),
                shards=tuple(ShardInfo.from_json(item) for item in value["shards"]),
                ledger_shards=tuple(ShardInfo.from_json(item) for item in value["ledger_shards"]),
                ledger=LedgerSummary.from_json(value["ledger"]),
                parents=tuple(value["parents"]),
                options=dict(value["options"]),
                leakage=Leakage(**value["leakage"]) if value["leakage"] else None,
                proof=MaskProof(**value["proof"]) if value.get("proof") else None,
                warnings=tuple(value["warnings"]),
                header=dict(value["header"]),
                row_classes={name: dict(rows) for name, rows in value.get("row_classes", {}).items()},
                conversations=int(value.get("conversations", 0)),
                version=int(value["version"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidError(
                f"manifest.json is not a dataset manifest ({type(error).__name__}: {error}): make it again",
                reason="MALFORMED_MANIFEST",
            ) from error


def content_digest(
    dataset_format: DatasetFormat,
    options: Mapping[str, Any],
    shards: tuple[ShardInfo, ...],
    parents: tuple[str, ...],
) -> str:
    """The name of a content: equal if and only if the files, the options and the parents are."""
    content = {
        "format": dataset_format,
        "options": options,
        "shards": [[shard.path, shard.sha256] for shard in shards],
        "parents": parents,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
