"""Number formats: of the arithmetic, of what is frozen and of what is trained.

    precision   frozen weights   trained weights   matrix products
    FP32        32 bits          32 bits           32 bits
    BF16        bfloat16         32 bits           bfloat16
    FP16        float16          32 bits           float16, the loss scaled

What is quantised is frozen: the linear layers of the base model, in 4 bits (NF4,
https://arxiv.org/abs/2305.14314) or 8 (https://arxiv.org/abs/2208.07339), save the head and what is trained.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final

import torch

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import FineTuneSpec, Lora, Precision, Quantization, Tower
from finemesh.finetune.families.family import Family

BatchNorm: Final = torch.nn.modules.batchnorm._BatchNorm  # noqa: SLF001, what all of them are
_DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
_HEAD: Final = "lm_head"  # what transformers leaves as it is when it is told of nothing else


def is_quantized(spec: FineTuneSpec) -> bool:
    return isinstance(spec.method, Lora) and spec.method.quantization is not Quantization.NONE


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in 16 bits, if the precision says so: parameters that are trained stay fp32."""
    if precision is Precision.FP32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def loss_scaler(precision: Precision, device: torch.device, state: dict[str, float]) -> torch.amp.GradScaler:
    """Keeps small gradients from vanishing in float16; does nothing for other precisions.

    Args:
        precision: of the run.
        device: where the gradients are.
        state: what `state_dict` of another one said, to go on from there; may be empty.
    """
    scaler = torch.amp.GradScaler(device.type, enabled=precision is Precision.FP16)
    if state:
        scaler.load_state_dict(state)
    return scaler


def loading_options(spec: FineTuneSpec, family: Family, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told of number formats. Full tuning starts from 32 bits."""
    method = spec.method
    dtype = _DTYPES[spec.precision] if isinstance(method, Lora) else torch.float32
    if not isinstance(method, Lora) or method.quantization is Quantization.NONE:
        return {"dtype": dtype}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=method.quantization is Quantization.NF4,
        load_in_8bit=method.quantization is Quantization.INT8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=method.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[_HEAD, *family.towers[Tower.CONNECTOR]] if method.train_connector else None,
    )
    return {"dtype": dtype, "quantization_config": config, "device_map": {"": device}}


def keep_quantized(module: Any) -> None:
    """Let NF4 weights stay as they are: where a processor multiplies in bfloat16, bitsandbytes packs them
    anew at the first evaluation, with rounded scales, for products that no gradient goes through.
    """
    for each in module.modules():
        if hasattr(each, "support_avx512bf16_for_cpu"):
            each.support_avx512bf16_for_cpu = False


def check_unquantized(base_model: Path) -> None:
    """Refuse a base model whose weights are quantised already: nothing could be merged into it.

    Raises:
        InvalidError: BASE_MODEL_QUANTIZED.
    """
    found = json.loads((base_model / "config.json").read_bytes()).get("quantization_config")
    if found:
        raise InvalidError.of(
            "spec.base_model",
            f"{base_model} is quantised already ({found.get('quant_method', 'in its own way')}): give the "
            "folder of the unquantised model, which spec.method.lora.quantization quantises as it is loaded",
            reason="BASE_MODEL_QUANTIZED",
        )


def set_precision(module: torch.nn.Module, precision: Precision) -> None:
    """Hold what is trained in fp32, lest updates be rounded away, and what is frozen as it says."""
    if precision is Precision.FP32:
        return
    for parameter in module.parameters():
        if parameter.is_floating_point():  # quantised weights are integers
            dtype = torch.float32 if parameter.requires_grad else _DTYPES[precision]
            parameter.data = parameter.data.to(dtype)
    for each in module.modules():
        if isinstance(each, BatchNorm):  # its statistics are sums over many, and mix with nothing else
            each.float()
