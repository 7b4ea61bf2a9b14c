"""`ExportSpec`: which checkpoint of a training job becomes which packages, and how far they may differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.names import parse_name
from finemesh.core.spec import codec


class ExportFormat(StrEnum):
    """The form of a package, as its name on the wire without the prefix.

    ADAPTER: LoRA weights in peft's layout, to be put on the base. MERGED, MERGED_BF16, MERGED_FP16: a whole
    transformers model in 32 or 16 bits; BNB_INT8, BNB_NF4: its linear layers in 8 or 4 bits. ONNX,
    ONNX_FP16: graphs for onnxruntime in 32 or 16 bits; ONNX_INT8, ONNX_INT8_STATIC: their matrices in 8 bits,
    scaled as they run or by items of the training split; ONNX_INT4: weights of matrices in 4 bits. GGUF_*: a
    file for llama.cpp and Ollama with weights in so many bits.
    """

    ADAPTER = "ADAPTER"
    MERGED = "MERGED"
    MERGED_BF16 = "MERGED_BF16"
    MERGED_FP16 = "MERGED_FP16"
    BNB_INT8 = "BNB_INT8"
    BNB_NF4 = "BNB_NF4"
    ONNX = "ONNX"
    ONNX_FP16 = "ONNX_FP16"
    ONNX_INT8 = "ONNX_INT8"
    ONNX_INT8_STATIC = "ONNX_INT8_STATIC"
    ONNX_INT4 = "ONNX_INT4"
    GGUF_F16 = "GGUF_F16"
    GGUF_Q8_0 = "GGUF_Q8_0"
    GGUF_Q6_K = "GGUF_Q6_K"
    GGUF_Q5_K_M = "GGUF_Q5_K_M"
    GGUF_Q4_K_M = "GGUF_Q4_K_M"
    GGUF_Q4_0 = "GGUF_Q4_0"


class CheckpointSelection(StrEnum):
    """BEST by validation loss (the last checkpoint when nothing was validated), LAST, or the one at STEP."""

    BEST = "BEST"
    LAST = "LAST"
    STEP = "STEP"


@dataclass(frozen=True, slots=True)
class ParityTolerance:
    """How far a package may lie from the trained model on the golden items before the export is rejected.

    Each format declares its own; the defaults are those of formats that hold the trained weights.

    Attributes:
        max_difference: largest absolute difference of any raw output (a logit, a coordinate of a box from 0
            to 1); None where it says little, as of quantised weights.
        max_relative_difference: largest norm of what the raw outputs of an item differ by, as a share of the
            norm of those of the trained model.
        min_agreement: smallest fraction of equal decisions (tokens, labels, pixels, objects), in [0, 1].
        max_metric_loss: by how much the task's metric (0 to 1) may fall.
        max_input_difference: largest absolute difference of anything that preprocessing makes of the same
            item; token ids must always be equal.
    """

    max_difference: float | None = 1e-3
    max_relative_difference: float = 1e-3
    min_agreement: float = 1.0
    max_metric_loss: float = 0.0
    max_input_difference: float = 1e-5


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """One export.

    Attributes:
        training_job: resource name `projects/{project}/trainingJobs/{training_job}`.
        step: the checkpoint's optimiser step, only with `CheckpointSelection.STEP`.
        tolerance: instead of what each format declares.
        golden_items: rows of the test split whose outputs the package must reproduce.
    """

    training_job: str
    formats: tuple[ExportFormat, ...]
    checkpoint: CheckpointSelection = CheckpointSelection.BEST
    step: int = 0
    tolerance: ParityTolerance | None = None
    golden_items: int = 16

    def validate(self) -> None:
        """Raises InvalidError (reason INVALID_SPEC) with every violation, field paths starting at `spec`."""
        violations = [FieldViolation(f"spec.{path}", description) for path, description in _violations(self)]
        if violations:
            listed = "; ".join(f"{v.field}: {v.description}" for v in violations)
            raise InvalidError(listed, violations=violations, reason="INVALID_SPEC")

    def to_dict(self) -> dict[str, Any]:
        return codec.encode(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> ExportSpec:
        """The inverse of `to_dict`. Raises InvalidError (reason MALFORMED_SPEC) naming every wrong field."""
        return codec.decode(cls, value, "spec")

    def fingerprint(self) -> str:
        """SHA-256 in hex of the spec's canonical JSON."""
        return codec.digest(self.to_dict())


def _violations(spec: ExportSpec) -> Iterator[tuple[str, str]]:
    try:
        parse_name(spec.training_job, "trainingJobs", "training_job")
    except InvalidError as error:
        yield "training_job", error.violations[0].description
    if not spec.formats:
        yield "formats", "name at least one format"
    if len(set(spec.formats)) != len(spec.formats):
        yield "formats", "names a format twice"
    if spec.checkpoint is CheckpointSelection.STEP and spec.step < 1:
        yield "step", "name the step of the checkpoint, 1 or more"
    if spec.checkpoint is not CheckpointSelection.STEP and spec.step != 0:
        yield "step", "is only read with checkpoint STEP: set that, or leave step 0"
    yield from _tolerance_violations(spec.tolerance or ParityTolerance())
    if spec.golden_items < 1:
        yield "golden_items", "must be at least 1: a package is not shipped unchecked"


def _tolerance_violations(tolerance: ParityTolerance) -> Iterator[tuple[str, str]]:
    for each in fields(tolerance):
        limit = getattr(tolerance, each.name)
        if limit is not None and not limit >= 0:  # which also catches NaN
            yield f"tolerance.{each.name}", "must not be negative"
    if tolerance.min_agreement > 1:
        yield "tolerance.min_agreement", "must lie in [0, 1]"
