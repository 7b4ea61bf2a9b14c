"""The whole model of a fine-tune, from the shards of its base and what was trained, a portion at a time.

No module is filled and no tensor is in memory whole: shards of the base are mapped, portions of their
tensors are changed and written. A LoRA weight becomes W + s B A (https://arxiv.org/abs/2106.09685), s being
alpha / r, or alpha / sqrt(r) for rsLoRA; with DoRA each row of that is brought to the length that was trained
(https://arxiv.org/abs/2402.09353). The arithmetic is peft's, in the same order. Tensors are written under
the names that they have in the base.

Where transformers makes several tensors of a base into one as it loads it, or draws weights that the base
lacks, what is on disk does not say what the model is: then it has to be loaded whole (NotStreamable).

Shape legend: O outputs, I inputs of a linear layer, R rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import FineTuneSpec, Lora
from finemesh.finetune.base_weights import corrupt_base, weight_files
from finemesh.finetune.checkpoint import ADAPTER_WEIGHTS, FULL_WEIGHTS
from finemesh.finetune.families.family import FROM_FOLDER, Family
from finemesh.finetune.heads import head_arguments
from finemesh.package.safetensor_shards import Planned, rows_at_once, write_shards

SHARD_BYTES: Final = 4_000_000_000
_WRAPPED: Final = "base_model.model."


@dataclass(frozen=True, slots=True)
class Update:
    """What training did to one tensor: `whole` replaces it, or a low-rank update is added.

    Attributes:
        magnitude_O: lengths of the rows, with DoRA.
    """

    whole: torch.Tensor | None = None
    a_RI: torch.Tensor | None = None
    b_OR: torch.Tensor | None = None
    magnitude_O: torch.Tensor | None = None
    scale: float = 1.0


class NotStreamable(Exception):  # noqa: N818  not an error: the model is loaded whole instead
    """What is on disk does not say what the model is."""


def stream_merge(
    spec: FineTuneSpec,
    family: Family,
    base_model: Path,
    checkpoint: Path,
    classes: tuple[str, ...],
    out: Path,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write weights and configs of the whole model into `out`, a folder.

    Args:
        spec: of the training job.
        family: of the base model.
        base_model: its local folder, unquantised.
        checkpoint: a checkpoint folder of the job, verified.
        classes: what the model tells apart; empty for those that speak.
        out: takes the files.
        dtype: of what is a real number; computed at least in fp32.
        shard_bytes: the most in one file, but for a tensor that is larger.

    Raises:
        NotStreamable: see above; nothing was written.
        InvalidError: ADAPTER_OF_OTHER_BASE, what was trained does not fit the base.
        PreconditionError: BASE_MODEL_CORRUPT, a shard is missing or does not read.
        ResourceExhaustedError: DISK_FULL.
    """
    module = _skeleton(family, base_model, classes)
    with ExitStack() as files:
        base = _open_base(base_model, files)
        updates = _updates(spec, checkpoint, files)
        planned = _plan(module, base, updates, dtype, base_model)
        write_shards(out, planned, shard_bytes)
    _write_configs(module, base_model, out, dtype)


def _skeleton(family: Family, base_model: Path, classes: tuple[str, ...]) -> Any:
    """The module without weights, its head as training made it."""
    import transformers

    before = transformers.AutoConfig.from_pretrained(base_model, **FROM_FOLDER)
    head = head_arguments(before, classes)
    head.pop("ignore_mismatched_sizes", None)
    loading = family.loading(before) if family.loading else {}
    config = transformers.AutoConfig.from_pretrained(base_model, **FROM_FOLDER, **head, **loading)
    with torch.device("meta"):
        return getattr(transformers, family.auto_class).from_config(config)


def _open_base(base_model: Path, files: ExitStack) -> dict[str, torch.Tensor]:
    """The tensors of the base by the names on disk, mapped: nothing is read before it is used."""
    try:
        tensors: dict[str, torch.Tensor] = {}
        for path in weight_files(base_model):
            opened = files.enter_context(safe_open(path, "pt"))
            tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  no dict
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise corrupt_base(base_model, error) from error
    return tensors


def _updates(spec: FineTuneSpec, checkpoint: Path, files: ExitStack) -> dict[str, Update]:
    """What was trained, by the parameters' names in the module."""
    is_lora = isinstance(spec.method, Lora)
    opened = files.enter_context(safe_open(checkpoint / (ADAPTER_WEIGHTS if is_lora else FULL_WEIGHTS), "pt"))
    tensors = {key.removeprefix(_WRAPPED): opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    if not is_lora:
        return {name: Update(whole=tensor) for name, tensor in tensors.items()}
    config = json.loads((checkpoint / "adapter" / "adapter_config.json").read_bytes())
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
    updates = {name: Update(whole=each) for name, each in tensors.items() if ".lora_" not in name}
    for name, a_RI in tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            magnitude = f"{layer}.lora_magnitude_vector"
            updates[f"{layer}.weight"] = Update(
                a_RI=a_RI,
                b_OR=tensors[f"{layer}.lora_B.weight"],
                magnitude_O=tensors.get(magnitude, tensors.get(f"{magnitude}.weight")),
                scale=scale,
            )
    return updates


def _plan(
    module: Any,
    base: Mapping[str, torch.Tensor],
    updates: Mapping[str, Update],
    dtype: torch.dtype,
    base_model: Path,
) -> dict[str, Planned]:
    """Every tensor of the merged model by its name on disk."""
    state: dict[str, torch.Tensor] = module.state_dict()
    on_disk = _names_on_disk(module, state, base)
    on_disk |= {name: name for name in updates if name in state and name not in on_disk}
    tied: dict[str, str] = module.all_tied_weights_keys
    if lacking := sorted(state.keys() - on_disk.keys() - tied.keys()):
        raise NotStreamable(f"the base lacks {lacking[0]}")
    if unknown := sorted(updates.keys() - state.keys()):
        raise other_base(base_model, f"it has no {unknown[0]}")
    planned: dict[str, Planned] = {}
    for name, key in on_disk.items():
        kept, update = base.get(key), updates.get(name)
        if _is_double(name, tied, on_disk, base):
            continue
        shape = tuple(state[name].shape)
        _check_shapes(name, shape, kept, update, base_model)
        source = update.whole if update and update.whole is not None else kept
        assert source is not None  # what has a low-rank update is in the base
        end = dtype if source.is_floating_point() else source.dtype
        planned[key] = Planned(shape, end, partial(_portions, source, update, end))
    return planned


def _names_on_disk(
    module: Any, state: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    """Names on disk by those in the module, as transformers reads them; without what it would not read."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = get_model_conversion_mapping(module)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    names: dict[str, str] = {}
    for key in base:
        name, converter = rename_source_key(key, renamings, converters, module.base_model_prefix, dict(state))
        if name not in state and key in state:
            name, converter = key, None
        if converter is not None:
            raise NotStreamable(f"{key} of the base becomes part of another tensor")
        if name in state:
            names[name] = key
    return names


def _is_double(
    name: str, tied: Mapping[str, str], on_disk: Mapping[str, str], base: Mapping[str, torch.Tensor]
) -> bool:
    """Whether a tensor is a second copy of one that it is tied to. transformers leaves those that differ."""
    source = tied.get(name)
    if source is None or source not in on_disk:
        return False
    one, other = base.get(on_disk[name]), base.get(on_disk[source])
    return one is not None and other is not None and torch.equal(one, other)


def _check_shapes(
    name: str, shape: tuple[int, ...], kept: torch.Tensor | None, update: Update | None, base_model: Path
) -> None:
    """Raises InvalidError, ADAPTER_OF_OTHER_BASE; NotStreamable."""
    found = tuple(kept.shape) if kept is not None else ()
    if update is None:
        if found != shape:  # a constant that follows from the number of classes
            raise NotStreamable(f"{name} of the base is {found}, and {shape} with other classes")
        return
    if update.whole is not None:
        found = tuple(update.whole.shape)
    elif update.a_RI is not None and update.b_OR is not None:
        found = (update.b_OR.shape[0], update.a_RI.shape[1])
    if found != shape:
        raise other_base(base_model, f"its {name} is {shape}, what was trained is {found}")


def other_base(base_model: Path, what: str) -> InvalidError:
    return InvalidError.of(
        "export.training_job",
        f"the checkpoint was not trained on the base model in {base_model}: {what}; give the base that the "
        "job names",
        reason="ADAPTER_OF_OTHER_BASE",
    )


def _portions(source: torch.Tensor, update: Update | None, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Rows after rows of a tensor with its update, in `dtype`."""
    rows = rows_at_once(source.shape, max(source.dtype.itemsize, dtype.itemsize)) if source.ndim else 1
    computing = torch.promote_types(torch.float32, dtype) if dtype.is_floating_point else dtype
    low_rank = update if update and update.a_RI is not None else None
    for start in range(0, len(source), rows) if source.ndim else (0,):
        part = source[start : start + rows] if source.ndim else source
        if low_rank:
            part = _updated(part.to(computing), low_rank, slice(start, start + rows))
        yield part.to(dtype)


def _updated(weight_OI: torch.Tensor, update: Update, rows: slice) -> torch.Tensor:
    assert update.a_RI is not None  # whoever calls has looked
    assert update.b_OR is not None
    merged_OI = update.b_OR[rows].to(weight_OI.dtype) @ update.a_RI.to(weight_OI.dtype)
    merged_OI *= update.scale
    merged_OI += weight_OI
    if update.magnitude_O is not None:
        lengths_O = torch.linalg.norm(merged_OI, dim=1)
        merged_OI *= (update.magnitude_O[rows].to(weight_OI.dtype) / lengths_O).view(-1, 1)
    return merged_OI


def _write_configs(module: Any, base_model: Path, out: Path, dtype: torch.dtype) -> None:
    """As `save_pretrained` writes them. The generation config is the base's, where it has one."""
    from transformers import GenerationConfig

    module.config.dtype = str(dtype).removeprefix("torch.")
    module.config.architectures = [type(module).__name__]
    if hasattr(module.config, "auto_map"):  # of code that is not in the package
        del module.config.auto_map
    module.config.save_pretrained(out)
    if module.can_generate():
        own = (base_model / "generation_config.json").is_file()
        config = GenerationConfig.from_pretrained(base_model) if own else module.generation_config
        config.save_pretrained(out)
