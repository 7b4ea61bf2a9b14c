"""The forms of a package, which checkpoint becomes one, and how far it may differ."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Full, Task


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


def refusal_of(form: ExportFormat, spec: FineTuneSpec) -> str:
    """Why nothing that was trained so can be right in a format, as far as the spec tells; or nothing."""
    if form is ExportFormat.ADAPTER and isinstance(spec.method, Full):
        return "a full fine-tune has no adapter: export it as MERGED"
    if form.startswith("GGUF") and spec.task is not Task.LANGUAGE:
        return "llama.cpp was proven here with models of language alone: export it as MERGED"
    if form.startswith("BNB") and spec.task not in TEXT_TOWERS:
        return (
            "bitsandbytes quantises the linear layers of language models, which hold nearly all of their "
            "weights; those of models that see alone are convolutions and small heads: export it as "
            "MERGED_FP16"
        )
    if form is ExportFormat.ONNX_INT4 and spec.task not in TEXT_TOWERS:
        return "4 bits are for the matrices of language models: take ONNX_INT8 or ONNX_INT8_STATIC"
    return ""


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
