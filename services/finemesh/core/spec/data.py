"""What is asked of the data compiler (options) and what it says of its work (the manifest).

Options are checked when they are made: a wrong one raises InvalidError that names every wrong field as
`options.<field>`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.spec.ledger import LedgerSummary

GIB: Final = 1 << 30


class AnnotationFormat(StrEnum):
    """A form of annotations that can be imported."""

    SAV_JSON = "sav_json"
    """SA-V masklets, one JSON file per video (manual or automatic)."""
    SAM2_ARCHIVE = "sam2_archive"
    """The SAM 2 export layout of docs/reference/sam2-archive.md: manifest, class names, masklets, frames."""
    COCO_INSTANCES = "coco_instances"
    """COCO instances: polygons, compressed and uncompressed RLE, boxes."""


class DatasetFormat(StrEnum):
    """A form of a dataset version."""

    CANONICAL = "canonical"
    HUGGING_FACE = "hugging_face"
    LLAVA = "llava"


class DatasetOrigin(StrEnum):
    """Which stage made a dataset version."""

    IMPORT = "import"
    CONVERT = "convert"
    SPLIT = "split"


class SplitStrategy(StrEnum):
    AUTO = "auto"
    """TEMPORAL for a single video, GROUPED_BY_VIDEO otherwise."""
    GROUPED_BY_VIDEO = "grouped_by_video"
    """A video, and whatever shares an identical image with it, lies in one split."""
    TEMPORAL = "temporal"
    """Each video is cut in time: train first, then val, then test, with gaps between."""


class Split(StrEnum):
    """The split of a row. A dataset that was never split has rows of NONE."""

    NONE = ""
    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    GAP = "gap"
    """Kept in the dataset, used for nothing: it separates neighbours in time."""


class InstructionTask(StrEnum):
    """How conversations are made from objects."""

    CLASSIFY_REGION = "classify_region"
    """A crop around each visible object; the question is what it is, the answer its class name."""
    LOCATE_OBJECT = "locate_object"
    """The whole frame, one object outlined; the answer is one of nine cells, e.g. `top left`."""


class ValidationLevel(StrEnum):
    BASIC = "basic"
    STRICT = "strict"
    """Also decodes every image in full."""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ValidationStatus(StrEnum):
    PASSED = "passed"
    PASSED_WITH_WARNINGS = "passed_with_warnings"
    FAILED = "failed"


def _refuse(violations: Mapping[str, str]) -> None:
    """Raise InvalidError for the wrong fields, if there are any."""
    if violations:
        wrong = [FieldViolation(f"options.{name}", text) for name, text in violations.items()]
        raise InvalidError(
            "; ".join(f"{violation.field}: {violation.description}" for violation in wrong),
            violations=wrong,
            reason="INVALID_OPTIONS",
        )


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a source is read, and where its limits are.

    Attributes:
        format: None detects it.
        seed: of whatever is rendered.
        max_total_bytes: of the source after unpacking.
        max_files: in the source.
        max_ratio: unpacked to packed bytes of an archive, and of each larger entry.
        max_image_pixels: of one image, checked before it is decoded.
        max_quarantined_fraction: the import is refused when a larger share of the rows is faulty.
    """

    format: AnnotationFormat | None = None
    seed: int = 0
    max_total_bytes: int = 64 * GIB
    max_files: int = 1_000_000
    max_ratio: float = 200.0
    max_image_pixels: int = 64_000_000
    max_quarantined_fraction: float = 0.5

    def __post_init__(self) -> None:
        limits = {
            "max_total_bytes": self.max_total_bytes,
            "max_files": self.max_files,
            "max_image_pixels": self.max_image_pixels,
        }
        wrong = {
            name: f"{value} is not a limit: give at least 1" for name, value in limits.items() if value < 1
        }
        if not self.max_ratio >= 1:
            wrong["max_ratio"] = f"{self.max_ratio} is not a ratio: give at least 1"
        if not 0 <= self.max_quarantined_fraction <= 1:
            wrong["max_quarantined_fraction"] = (
                f"{self.max_quarantined_fraction} is not a fraction: give 0 to 1"
            )
        _refuse(wrong)


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How rows are divided. Between the splits of one video lie `gap_frames` annotated frames of none."""

    strategy: SplitStrategy = SplitStrategy.AUTO
    train: float = 0.7
    val: float = 0.1
    test: float = 0.2
    gap_frames: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        ratios = {"train": self.train, "val": self.val, "test": self.test}
        wrong = {
            name: f"{value} is not a ratio: give 0 to 1"
            for name, value in ratios.items()
            if not 0 <= value <= 1
        }
        if not wrong and abs(sum(ratios.values()) - 1) > 1e-6:
            wrong["train"] = f"train + val + test is {sum(ratios.values()):g}: make it 1"
        if self.gap_frames < 0:
            wrong["gap_frames"] = f"{self.gap_frames} is negative: give 0 or more"
        _refuse(wrong)

    @property
    def ratios(self) -> dict[Split, float]:
        """The splits that shall hold rows, with their share, in order of time."""
        shares = {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}
        return {split: share for split, share in shares.items() if share > 0}


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What a dataset is turned into.

    Attributes:
        target: the form that is written.
        instruction: makes conversations from objects; None keeps the rows as they are.
        image_size_px: side of the square pictures of an instruction.
        context_fraction: margin around an object, as a share of its longer side.
        min_object_px: objects with a smaller visible area (in pixels of the frame) are dropped.
        max_answer_ratio: of the most frequent answer of a split to the median one; 0 is no limit.
        max_items: at most so many conversations, taken evenly over splits and answers; 0 is no limit.
        seed: of the choice among equals.
    """

    target: DatasetFormat = DatasetFormat.CANONICAL
    instruction: InstructionTask | None = None
    image_size_px: int = 112
    context_fraction: float = 0.15
    min_object_px: int = 64
    max_answer_ratio: float = 4.0
    max_items: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        wrong: dict[str, str] = {}
        if not 16 <= self.image_size_px <= 2048:
            wrong["image_size_px"] = f"{self.image_size_px} is out of range: give 16 to 2048"
        if not 0 <= self.context_fraction <= 4:
            wrong["context_fraction"] = f"{self.context_fraction} is out of range: give 0 to 4"
        if self.max_answer_ratio != 0 and not self.max_answer_ratio >= 1:
            wrong["max_answer_ratio"] = (
                f"{self.max_answer_ratio} is out of range: give 0 (no limit) or at least 1"
            )
        for name, value in (("max_items", self.max_items), ("min_object_px", self.min_object_px)):
            if value < 0:
                wrong[name] = f"{value} is negative: give 0 or more"
        _refuse(wrong)


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """How a dataset is examined.

    Attributes:
        level: BASIC reads headers and annotations, STRICT decodes every image.
        min_class_examples: a class with fewer objects gets a warning.
        max_imbalance: largest class to smallest, above which a warning is given.
        max_aspect_ratio: longer to shorter side of an image.
        min_box_iou: of the declared box with the box of its mask.
        max_leakage: share of val and test rows whose video or image is also in train.
        max_quarantined_fraction: of the ledger, above which validation fails.
        max_examples: rows named per kind of finding; all are counted.
    """

    level: ValidationLevel = ValidationLevel.BASIC
    min_class_examples: int = 10
    max_imbalance: float = 10.0
    max_aspect_ratio: float = 8.0
    min_box_iou: float = 0.5
    max_leakage: float = 0.0
    max_quarantined_fraction: float = 0.1
    max_examples: int = 20

    def __post_init__(self) -> None:
        fractions = {
            "min_box_iou": self.min_box_iou,
            "max_leakage": self.max_leakage,
            "max_quarantined_fraction": self.max_quarantined_fraction,
        }
        wrong = {
            name: f"{value} is not a fraction: give 0 to 1"
            for name, value in fractions.items()
            if not 0 <= value <= 1
        }
        ratios = {"max_imbalance": self.max_imbalance, "max_aspect_ratio": self.max_aspect_ratio}
        wrong |= {
            name: f"{value} is not a ratio: give at least 1"
            for name, value in ratios.items()
            if not value >= 1
        }
        counts = {"min_class_examples": self.min_class_examples, "max_examples": self.max_examples}
        wrong |= {name: f"{value} is negative: give 0 or more" for name, value in counts.items() if value < 0}
        _refuse(wrong)


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
    """How many objects a class has, in all, visible, and per split."""

    class_name: str
    objects: int
    visible: int
    splits: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClassCount:
        return cls(
            str(value["class_name"]), int(value["objects"]), int(value["visible"]), dict(value["splits"])
        )


@dataclass(frozen=True, slots=True)
class Leakage:
    """Share of val and test rows whose video, exact image, or either (`score`) is also in train; 0 to 1."""

    score: float
    by_video: float
    by_image: float


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
    warnings: tuple[str, ...] = ()
    header: dict[str, Any] = field(default_factory=dict[str, Any])
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
                warnings=tuple(value["warnings"]),
                header=dict(value["header"]),
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
