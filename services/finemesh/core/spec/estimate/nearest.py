"""The settings nearest to a spec that fit into a given memory, by the same closed form that refused it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, cast

from finemesh.core.spec.estimate.base_model import BaseModel, FamilyParts
from finemesh.core.spec.estimate.interval import Interval
from finemesh.core.spec.estimate.memory import Load, memory_of
from finemesh.core.spec.finetune import (
    TEXT_TOWERS,
    FineTuneSpec,
    Full,
    Lora,
    Precision,
    Quantization,
    Tower,
    what_keeps_whole,
)
from finemesh.core.spec.optimization import Optimizer


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A spec that fits, with what was changed by field, and the memory it needs."""

    spec: FineTuneSpec
    changes: dict[str, str]
    peak: Interval


def nearest_that_fits(
    spec: FineTuneSpec, base: BaseModel, family: FamilyParts, load: Load, room_bytes: float
) -> Suggestion | None:
    """The fewest and mildest changes by which `spec` fits even in the worst case; None if none do."""
    for changed, words in _variants(spec):
        share = changed.optimization.micro_batch_size / spec.optimization.micro_batch_size
        length = min(1.0, changed.sequence.max_tokens / spec.sequence.max_tokens)
        tokens = math.ceil(load.longest_batch_tokens * share * length)
        peak = memory_of(changed, base, family, replace(load, longest_batch_tokens=tokens)).peak
        if peak.high <= room_bytes and not changed_rules(changed):
            return Suggestion(changed, words, peak)
    return None


def changed_rules(spec: FineTuneSpec) -> bool:
    """Whether a changed spec contradicts itself."""
    from finemesh.core.spec.finetune_rules import violations_of  # which knows much more than this module

    return any(True for _ in violations_of(spec))


def _variants(spec: FineTuneSpec) -> Iterator[tuple[FineTuneSpec, dict[str, str]]]:
    """Changed specs, mildest first: what changes no result, then what hardly does, then another method."""
    options = list(
        product(_methods(spec), _lengths(spec), _precisions(spec), _checkpointing(spec), _cuts(spec))
    )
    ranked = sorted(enumerate(options), key=lambda each: (sum(rank for rank, _ in each[1]), each[0]))
    for _, chosen in ranked[1:]:
        changed, words = spec, dict[str, str]()
        for _, change in chosen:
            for path, value, said in change:
                changed = _put(changed, path, value)
                words[_in_document(path)] = said
        yield changed, words


# A change is (path, value, how it is written); a choice ranks its changes by what they alter.
Change = tuple[tuple[str, ...], object, str]
Choice = tuple[float, tuple[Change, ...]]
_NONE: Final = cast("Choice", (0.0, ()))


def _cuts(spec: FineTuneSpec) -> list[Choice]:
    """Smaller micro batches at equal global batch: the same steps, cut otherwise."""
    size, times = spec.optimization.micro_batch_size, spec.optimization.gradient_accumulation_steps
    smaller = [each for each in range(size - 1, 0, -1) if size % each == 0]
    choices = [_NONE]
    for index, each in enumerate(smaller):
        more = times * size // each
        cut: Change = (("optimization", "micro_batch_size"), each, str(each))
        repeated: Change = (("optimization", "gradient_accumulation_steps"), more, str(more))
        choices.append((0.1 + 0.1 * index, (cut, repeated)))
    return choices


def _checkpointing(spec: FineTuneSpec) -> list[Choice]:
    """The same bits, for a third more time."""
    if spec.optimization.activation_checkpointing:
        return [_NONE]
    return [_NONE, (0.45, ((("optimization", "activation_checkpointing"), True, "true"),))]


def _precisions(spec: FineTuneSpec) -> list[Choice]:
    if spec.precision is not Precision.FP32:
        return [_NONE]
    return [_NONE, (3.0, ((("precision",), Precision.BF16, "BF16"),))]


def _lengths(spec: FineTuneSpec) -> list[Choice]:
    if spec.task not in TEXT_TOWERS:
        return [_NONE]
    length = spec.sequence.max_tokens
    shorter = [length // 2**power for power in (1, 2, 3) if length // 2**power >= 256]
    choices = [_NONE]
    for index, each in enumerate(shorter):
        choices.append((30.0 * (index + 1), ((("sequence", "max_tokens"), each, str(each)),)))
    return choices


def _methods(spec: FineTuneSpec) -> list[Choice]:
    """Adapters in place of all weights, quantised ones in place of adapters."""
    choices = [_NONE]
    if isinstance(spec.method, Lora):
        adapters = spec.method
    elif Tower.LANGUAGE in spec.method.towers:
        adapters = Lora(towers=(Tower.LANGUAGE,), train_connector=Tower.CONNECTOR in spec.method.towers)
        choices.append((10.0, ((("method",), adapters, _said(adapters)),)))
    else:
        return choices
    sharded = spec.resources.ranks > 1 and not what_keeps_whole(spec)
    if spec.task in TEXT_TOWERS and adapters.quantization is not Quantization.NF4 and not sharded:
        quantized = replace(adapters, quantization=Quantization.NF4)
        choices.append((12.0, ((("method",), quantized, _said(quantized)),)))
    if spec.optimization.optimizer is Optimizer.ADAMW and isinstance(spec.method, Full):
        smaller = Optimizer.ADAMW_8BIT
        choices.append((5.0, ((("optimization", "optimizer"), smaller, smaller.value),)))
    return choices


def _said(method: Lora) -> str:
    quantized = method.quantization is not Quantization.NONE
    return f"{{rank: {method.rank}{', quantization: NF4' if quantized else ''}}}"


def _put(value: object, path: tuple[str, ...], new: object) -> FineTuneSpec:
    """`value` with the field at `path` replaced."""
    name, *rest = path
    inner = _put(getattr(value, name), tuple(rest), new) if rest else new
    return replace(value, **{name: inner})  # pyright: ignore[reportArgumentType, reportReturnType, reportUnknownVariableType, reportCallIssue]


def _in_document(path: tuple[str, ...]) -> str:
    return "lora" if path == ("method",) else ".".join(path)
