"""Datasets and reports on them, and how they move: values, and pure functions over the state tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Generic, TypeAlias, TypeVar

from finemesh.core.attempts import RestartPolicy
from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.spec.data import (
    ConvertOptions,
    DatasetFormat,
    ImportOptions,
    MaskProof,
    SplitOptions,
    ValidateOptions,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.core.states import (
    DATASET,
    PREFLIGHT_REPORT,
    VALIDATION_REPORT,
    DatasetState,
    PreflightReportState,
    StateTable,
    ValidationReportState,
    facts_of,
)

RESTARTS: Final = RestartPolicy()
SUCCEEDED: Final = "SUCCEEDED"


@dataclass(frozen=True, slots=True)
class ImportOrigin:
    """Made from a user's annotations: an upload, or what is on the object store already. One is set."""

    upload: str = ""
    source_uri: str = ""
    options: ImportOptions = field(default_factory=ImportOptions)
    case = "import"


@dataclass(frozen=True, slots=True)
class SplitOrigin:
    """Made by dividing another dataset."""

    dataset: str
    options: SplitOptions = field(default_factory=SplitOptions)
    case = "split"


@dataclass(frozen=True, slots=True)
class ConvertOrigin:
    """Made of another dataset, in another form."""

    dataset: str
    options: ConvertOptions = field(default_factory=ConvertOptions)
    case = "convert"


Origin: TypeAlias = ImportOrigin | SplitOrigin | ConvertOrigin


@dataclass(frozen=True, slots=True)
class ClassSplitCount:
    """Objects and rows of one class in one split."""

    class_name: str
    split: str
    objects: int
    rows: int


@dataclass(frozen=True, slots=True)
class LeakageShares:
    """What the leakage is made of; `by_similar` is None if pictures were not compared."""

    by_video: float
    by_image: float
    by_similar: float | None = None


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What is in a complete dataset; the fields are those of the contract."""

    digest: str
    row_count: int
    size_bytes: int
    video_count: int = 0
    conversation_count: int = 0
    splits: tuple[tuple[str, int], ...] = ()
    classes: tuple[tuple[str, int], ...] = ()
    has_class_names: bool = False
    media: tuple[str, ...] = ()
    ledger: LedgerSummary = field(default_factory=LedgerSummary)
    leakage: float = 0.0
    warnings: tuple[str, ...] = ()
    parent_digests: tuple[str, ...] = ()
    class_splits: tuple[ClassSplitCount, ...] = ()
    leakage_shares: LeakageShares | None = None
    mask_proof: MaskProof | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a validation found; `severity` is a name of the contract without its prefix."""

    id: str
    severity: str
    row_id: str = ""
    field: str = ""
    evidence: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What a validation came to; `verdict` is a name of the contract without its prefix, `measures` the
    contract's message as JSON, which nothing here looks into.
    """

    verdict: str
    row_count: int
    finding_counts: Mapping[str, int] = field(default_factory=dict[str, int])
    findings: tuple[Finding, ...] = ()
    measures: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What a preflight saw; `content` is the contract's message as JSON, which nothing here looks into."""

    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Upload:
    """A promised file. Its bytes are at `key` of the object store, once they have come."""

    name: Name
    filename: str
    size_bytes: int
    sha256: str
    create_time: datetime
    expire_time: datetime

    @property
    def key(self) -> str:
        return f"{self.name}/source"


S = TypeVar("S", DatasetState, ValidationReportState, PreflightReportState)


@dataclass(frozen=True, slots=True)
class Life(Generic[S]):
    """What a dataset and a report have in common: a state, and the attempts that work towards its end. Times
    are UTC.

    Attributes:
        fraction: share of the work that is done, 0 to 1; `message` says what is being done.
        attempt: number of the last attempt, 0 before the first.
        error: why it failed; in other states the cause of the last loss.
        revision: counts every change.
    """

    state: S
    create_time: datetime
    update_time: datetime
    fraction: float = 0.0
    message: str = ""
    report_time: datetime | None = None
    attempt: int = 0
    error: ErrorRecord | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Dataset:
    """An immutable version of a dataset, or one that is being made."""

    name: Name
    origin: Origin
    life: Life[DatasetState]
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    summary: DatasetSummary | None = None

    @property
    def format(self) -> DatasetFormat:
        """The form in which it is stored, which follows from how it is made."""
        return (
            self.origin.options.target if isinstance(self.origin, ConvertOrigin) else DatasetFormat.CANONICAL
        )

    @property
    def parent(self) -> str:
        """Name of the dataset it is made of; empty for an import."""
        return "" if isinstance(self.origin, ImportOrigin) else self.origin.dataset


@dataclass(frozen=True, slots=True)
class Report:
    """A validation of a dataset."""

    name: Name
    options: ValidateOptions
    life: Life[ValidationReportState]
    result: ValidationResult | None = None


@dataclass(frozen=True, slots=True)
class Preflight:
    """A look at what a fine-tune would be trained on."""

    name: Name
    options: PreflightOptions
    life: Life[PreflightReportState]
    result: PreflightResult | None = None


Work: TypeAlias = Dataset | Report | Preflight
"""What attempts work on."""
Result: TypeAlias = DatasetSummary | ValidationResult | PreflightResult
"""What they bring back."""

Item = TypeVar("Item", bound=Work)


@dataclass(frozen=True, slots=True)
class Step:
    """An item after a change, and the facts to publish with it."""

    item: Work
    facts: tuple[str, ...] = ()


def table_of(item: Work) -> StateTable[Any]:
    match item:
        case Dataset():
            return DATASET
        case Report():
            return VALIDATION_REPORT
        case Preflight():
            return PREFLIGHT_REPORT


def is_terminal(item: Work) -> bool:
    return item.life.state in table_of(item).terminal


def new_life(table: StateTable[S], now: datetime) -> Life[S]:
    return Life(table.initial, create_time=now, update_time=now)


def changed(item: Item, now: datetime, **changes: Any) -> Item:
    """`item` with another life. Its state stays as it is: see `move`."""
    return replace(item, life=replace(item.life, update_time=now, **changes))


def move(item: Work, target: str, now: datetime, **changes: Any) -> Step:
    """Bring `item` to the state named `target`. Raises PreconditionError, reason ILLEGAL_TRANSITION."""
    table = table_of(item)
    state = table.states(target)
    facts = facts_of(table, item.life.state, state, item.origin.case if isinstance(item, Dataset) else "")
    if state in table.terminal:
        changes["end_time"] = now
    if target == "RUNNING" and item.life.start_time is None:
        changes["start_time"] = now
    return Step(changed(item, now, state=state, **changes), facts)


def after_loss(item: Work, error: ErrorRecord, now: datetime) -> Step:
    """The attempt is gone and another one will follow."""
    if item.life.state == "RUNNING":
        return move(item, "QUEUED", now, error=error, message="starting again after a loss")
    return Step(changed(item, now, error=error))
