"""`FineTuneSpec`: everything that a fine-tune is, as immutable values.

The proto `finemesh.v1.FineTuneSpec` mirrors it, and it is stored verbatim with the run. `validate()` refuses
contradictions with every field path at once; `fingerprint()` names the spec by its content; `flatten()` gives
scalars by dotted path for comparing configurations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.spec import codec
from finemesh.core.spec.optimization import Optimization, Optimizer


class Task(StrEnum):
    VISION_LANGUAGE = "VISION_LANGUAGE"
    LANGUAGE = "LANGUAGE"
    DETECTION = "DETECTION"
    SEMANTIC_SEGMENTATION = "SEMANTIC_SEGMENTATION"
    INSTANCE_SEGMENTATION = "INSTANCE_SEGMENTATION"
    IMAGE_CLASSIFICATION = "IMAGE_CLASSIFICATION"


class Tower(StrEnum):
    """A part of a model that is trained or frozen as one."""

    LANGUAGE = "LANGUAGE"
    VISION = "VISION"
    CONNECTOR = "CONNECTOR"
    DECODER = "DECODER"
    HEAD = "HEAD"


TEXT_TOWERS: Final = {
    Task.LANGUAGE: (Tower.LANGUAGE,),
    Task.VISION_LANGUAGE: (Tower.LANGUAGE, Tower.VISION, Tower.CONNECTOR),
}
PICTURE_TOWERS: Final = (Tower.VISION, Tower.HEAD)
DETECTOR_TOWERS: Final = (Tower.VISION, Tower.DECODER, Tower.HEAD)


def towers_of(task: Task) -> tuple[Tower, ...]:
    """The parts of a model for `task`: backbone and head, where it finds classes or boxes in pictures, and
    what turns features into objects between them.
    """
    return TEXT_TOWERS.get(task, DETECTOR_TOWERS if task is Task.DETECTION else PICTURE_TOWERS)


class Objective(StrEnum):
    """What a language or vision-language model learns from a row."""

    CONVERSATION = "CONVERSATION"
    TEXT = "TEXT"
    PREFERENCE = "PREFERENCE"


class OverLength(StrEnum):
    """What to do with a row longer than `sequence.max_tokens`."""

    RAISE = "RAISE"
    TRUNCATE = "TRUNCATE"
    DROP = "DROP"
    SPLIT = "SPLIT"


class Precision(StrEnum):
    FP32 = "FP32"
    BF16 = "BF16"
    FP16 = "FP16"


class Quantization(StrEnum):
    """How the frozen weights under adapters are held."""

    NONE = "NONE"
    NF4 = "NF4"
    INT8 = "INT8"


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters (https://arxiv.org/abs/2106.09685) on the linear layers of `towers`.

    The head of a model for classes or boxes is made anew for the dataset: it is trained in full beside them.

    Attributes:
        target_modules: names of linear layers within the towers; empty means the family's defaults.
        train_connector: also train the connector between vision and language in full, saved with the adapter.
        use_rslora: scale by alpha/sqrt(rank) (https://arxiv.org/abs/2312.03732).
        use_dora: decompose into magnitude and direction (https://arxiv.org/abs/2402.09353).
        loraplus_ratio: rate of the adapters' second matrix as a multiple of the first's
            (https://arxiv.org/abs/2402.12354).
        quantization: the base model is quantised as it is loaded, save its head (QLoRA,
            https://arxiv.org/abs/2305.14314). What is exported is merged into the unquantised one.
        double_quantization: also quantise the scales of NF4: half a bit less per weight.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    towers: tuple[Tower, ...] = (Tower.LANGUAGE,)
    target_modules: tuple[str, ...] = ()
    train_connector: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    loraplus_ratio: float = 1.0
    quantization: Quantization = Quantization.NONE
    double_quantization: bool = False


@dataclass(frozen=True, slots=True)
class Full:
    """Every weight of `towers` is trained; the others are frozen."""

    towers: tuple[Tower, ...] = (Tower.LANGUAGE,)


@dataclass(frozen=True, slots=True)
class Sequence:
    """How rows become token sequences.

    Attributes:
        max_tokens: longest row, image tokens included.
        packing: join the rows of a micro-batch into one row without padding; samples never see each other.
        length_grouping: without packing, let micro-batches have rows of about the same size, which saves
            padding; the order stays a function of the seed.
    """

    max_tokens: int = 2048
    packing: bool = True
    over_length: OverLength = OverLength.RAISE
    length_grouping: bool = False


@dataclass(frozen=True, slots=True)
class Preference:
    """Direct preference optimisation (https://arxiv.org/abs/2305.18290), against the untrained model.

    Attributes:
        beta: how strongly the model is held to what it was.
        label_smoothing: share of pairs taken to be labelled the wrong way round
            (https://ericmitchell.ai/cdpo.pdf).
        chosen_weight: weight of the chosen answer's cross entropy per token, added to the loss.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    chosen_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """When to score, and against what.

    Attributes:
        every_steps: evaluate on the validation split this often; 0 means only at the end.
        max_items: rows of the validation split during training; 0 means all. The test split is always whole.
        patience: stop after so many evaluations in a row that were no better than the best before; 0 means
            never.
        min_improvement: what counts as better, in the unit of what the best checkpoint is chosen by.
        holdout_fraction: share of the training rows, whole videos of them, to validate on where the dataset
            has no validation split; 0 means none.
        metrics: names of installed metrics (entry points `finemesh.metrics`) that also compare the answers of
            the final test.
        baselines: at the end also score the untrained model, the majority class and blanked images (vision
            tasks) on the test split.
        max_generated_tokens: longest answer that the model writes to each test item, where answers are open;
            0 means that it writes none.
    """

    every_steps: int = 0
    max_items: int = 0
    baselines: bool = False
    patience: int = 0
    min_improvement: float = 0.0
    holdout_fraction: float = 0.0
    metrics: tuple[str, ...] = ()
    max_generated_tokens: int = 128


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """When to save, and what stays.

    Attributes:
        every_steps: save this often; 0 means only at the end.
        keep_last: how many recent checkpoints stay.
        keep_best: also keep the one with the best validation result; the result names it.
    """

    every_steps: int = 50
    keep_last: int = 2
    keep_best: bool = True


class Strategy(StrEnum):
    """What each of several workers holds of the model: all of it (DDP), or a share (FSDP)."""

    AUTO = "AUTO"
    DDP = "DDP"
    FSDP = "FSDP"


@dataclass(frozen=True, slots=True)
class Resources:
    """What one attempt of the job leases, over all its workers. `memory_bytes` 0 means no claim.

    Attributes:
        gpus: a whole number, one for each worker, or less than one: a share of a GPU for one worker.
        workers: processes that train as one, with equal shares of the rest; 0 means one for each GPU, or one.
        strategy: AUTO shards what would not fit whole into the memory of one GPU.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0
    workers: int = 0
    strategy: Strategy = Strategy.AUTO

    @property
    def ranks(self) -> int:
        """How many processes train, at least one."""
        return self.workers or (max(1, math.ceil(self.gpus)) if math.isfinite(self.gpus) else 1)


class Background(StrEnum):
    """What pixels mean that no object covers, in semantic segmentation."""

    CLASS = "CLASS"
    IGNORED = "IGNORED"


@dataclass(frozen=True, slots=True)
class Segmentation:
    """How masks become the classes of pixels.

    Attributes:
        background: CLASS makes `background` the first class, or joins what none covers to the class of that
            name that the dataset has; IGNORED neither learns nor counts what is not covered.
    """

    background: Background = Background.CLASS


@dataclass(frozen=True, slots=True)
class Pictures:
    """How pictures are shown to a detector.

    Attributes:
        horizontal_flip: share of pictures that are mirrored, drawn anew for each in every epoch.
    """

    horizontal_flip: float = 0.0


class OutOfMemory(StrEnum):
    """What to do when memory runs out while a job trains."""

    FAIL = "FAIL"
    HALVE_MICRO_BATCH = "HALVE_MICRO_BATCH"


@dataclass(frozen=True, slots=True)
class FineTuneSpec:
    """One fine-tune.

    Attributes:
        base_model: hub id, local folder or `s3://bucket/prefix`; the caller resolves it to a local folder.
        dataset: resource name `projects/{project}/datasets/{dataset}`.
        validation_split: may be empty: then nothing is validated during training, unless
            `evaluation.holdout_fraction` says of what.
        test_split: may be empty: then nothing is tested at the end.
        max_quarantined_fraction: loss budget; the job refuses to start when more of the rows was lost.
        objective: what a language or vision-language model learns; the other tasks have but one.
        preference: for the objective PREFERENCE.
        pictures: for the task DETECTION.
        segmentation: for the task SEMANTIC_SEGMENTATION.
        on_out_of_memory: HALVE_MICRO_BATCH starts a job again from its last checkpoint, with half the rows
            in a forward pass and twice as many passes in a step, down to one row.
    """

    task: Task
    base_model: str
    dataset: str
    base_model_revision: str = ""
    train_split: str = "train"
    validation_split: str = "val"
    test_split: str = "test"
    method: Lora | Full = field(default_factory=Lora)
    optimization: Optimization = field(default_factory=Optimization)
    sequence: Sequence = field(default_factory=Sequence)
    precision: Precision = Precision.FP32
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    resources: Resources = field(default_factory=Resources)
    max_quarantined_fraction: float = 0.05
    objective: Objective = Objective.CONVERSATION
    preference: Preference = field(default_factory=Preference)
    pictures: Pictures = field(default_factory=Pictures)
    segmentation: Segmentation = field(default_factory=Segmentation)
    on_out_of_memory: OutOfMemory = OutOfMemory.FAIL

    def validate(self) -> None:
        """Raises InvalidError (reason INVALID_SPEC) with every violation, field paths starting at `spec`."""
        from finemesh.core.spec.finetune_rules import violations_of  # which knows this class

        violations = [FieldViolation(f"spec.{path}", what) for path, what in violations_of(self)]
        if violations:
            listed = "; ".join(f"{v.field}: {v.description}" for v in violations)
            raise InvalidError(listed, violations=violations, reason="INVALID_SPEC")

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the method as `{"lora": {...}}` or `{"full": {...}}`."""
        return codec.encode(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> FineTuneSpec:
        """The inverse of `to_dict`. Raises InvalidError (reason MALFORMED_SPEC) naming every wrong field."""
        return codec.decode(cls, value, "spec")

    def fingerprint(self) -> str:
        """SHA-256 in hex of the spec's canonical JSON."""
        return codec.digest(self.to_dict())

    def flatten(self) -> dict[str, codec.Scalar]:
        """`{"method": "lora", "method.lora.rank": 16, "optimization.learning_rate": 2e-4, ...}`.

        What nothing in this task reads is left out: the objective of a detector, the beta of a conversation.
        """
        said = {**codec.flatten(self.to_dict()), "method": type(self.method).__name__.lower()}
        return {path: value for path, value in said.items() if path.partition(".")[0] not in self._unread()}

    def _unread(self) -> set[str]:
        """The fields that this task, or objective, makes nothing of."""
        speaks = self.task in TEXT_TOWERS
        unread = {"segmentation"} if self.task is not Task.SEMANTIC_SEGMENTATION else set[str]()
        unread |= {"pictures"} if self.task is not Task.DETECTION else set()
        unread |= {"objective"} if not speaks else set()
        return unread | (
            {"preference"} if not speaks or self.objective is not Objective.PREFERENCE else set()
        )


def what_keeps_whole(spec: FineTuneSpec) -> str:
    """Why the model of `spec` cannot be shared by several workers in shards; empty if it can."""
    if isinstance(spec.method, Lora) and spec.method.quantization is not Quantization.NONE:
        return "quantised weights are not sharded"
    if spec.precision is Precision.FP16:
        return "the loss scale of FP16 is not agreed on between shards"
    if spec.optimization.optimizer not in {Optimizer.ADAMW, Optimizer.SGD}:
        return f"the moments of {spec.optimization.optimizer} are not sharded"
    return ""
