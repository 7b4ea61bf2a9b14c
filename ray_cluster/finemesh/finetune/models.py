"""The model of a fine-tune: loaded from a local folder, adapted by the method, on its device, in its
precision.

Shape legend: B rows, T tokens, N tokens that carry loss, V vocabulary.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec import codec
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Full, Lora, Tower
from finemesh.finetune.adapters import fuse_adapters
from finemesh.finetune.attention import PACKED, register
from finemesh.finetune.batches import Batch
from finemesh.finetune.distributed import ALONE, Group
from finemesh.finetune.families import family_of
from finemesh.finetune.families.family import FROM_FOLDER, Family
from finemesh.finetune.heads import check_new, head_arguments, head_notes, new_layers, renew
from finemesh.finetune.numerics import (
    BatchNorm,
    autocast,
    check_unquantized,
    is_quantized,
    keep_quantized,
    loading_options,
    set_precision,
)
from finemesh.finetune.sharding import is_to_be_sharded, shard

ADAPTER_NAME = "default"


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready to train or to evaluate.

    Attributes:
        module: the transformers model, wrapped by peft for LoRA.
        processor: its processor (vision-language) or tokenizer.
        trainable: the parameters the optimiser moves, by name, in a fixed order.
        classes: those of the dataset, for tasks that tell classes apart.
        notes: what was changed in the base model, for people.
        is_sharded: this rank holds a share of every parameter.
    """

    spec: FineTuneSpec
    family: Family
    module: Any
    processor: Any
    device: torch.device
    trainable: dict[str, torch.nn.Parameter]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_sharded: bool = False

    @property
    def config(self) -> Any:
        return self.module.config

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def pad_id(self) -> int:
        """Any id serves where no pad token is defined: padded positions are masked."""
        pad_id = self.tokenizer.pad_token_id
        return 0 if pad_id is None else int(pad_id)

    @property
    def statistics(self) -> dict[str, torch.Tensor]:
        """What training moves beside parameters, by name: the running statistics of batch norms."""
        return {
            f"{name}.{key}": value
            for name, each in self.module.named_modules()
            if isinstance(each, BatchNorm)
            for key, value in each.named_buffers()
        }

    def train(self) -> None:
        """Put the module into training, but batch norms that are frozen: they keep their statistics."""
        self.module.train()
        for each in self.module.modules():
            if isinstance(each, BatchNorm) and not any(own.requires_grad for own in each.parameters()):
                each.eval()

    @contextlib.contextmanager
    def evaluating(self) -> Generator[None]:
        """Without gradients, dropout and batch statistics; afterwards it trains on if it did before."""
        was_training = self.module.training
        self.module.eval()
        try:
            # Not inference mode: a sharded model would keep the buffers made in it, and could not train on.
            with torch.no_grad():
                yield
        finally:
            if was_training:
                self.train()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Matrix products as the precision says: parameters that are trained stay fp32."""
        return autocast(self.spec.precision, self.device)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits (N, V) in fp32 at the positions that predict a token with loss; no others are computed."""
        with self.autocast():
            output = self.module(**batch.inputs, logits_to_keep=batch.predict_BT, use_cache=False)
        logits_NV = output.logits.float()
        if logits_NV.shape[0] != len(batch.targets_N) or logits_NV.ndim != 2:
            raise PreconditionError(
                f"{type(self.module).__name__} does not keep logits by mask: shape {tuple(logits_NV.shape)}",
                reason="FAMILY_UNSUPPORTED",
            )
        return logits_NV

    @contextlib.contextmanager
    def untrained(self, base_model: Path) -> Generator[Model]:
        """The base model as it was before training: adapters off, or loaded anew after full tuning."""
        if isinstance(self.spec.method, Lora):
            with self.module.disable_adapter():
                yield self
            return
        module, _ = _load_module(base_model, self.family, self.spec, self.classes, self.device)
        _place(module, self.family, self.spec, self.device, sharded=self.is_sharded)
        yield Model(self.spec, self.family, module.eval(), self.processor, self.device, {}, self.classes)


def load_model(
    spec: FineTuneSpec, base_model: Path, classes: tuple[str, ...] = (), group: Group = ALONE
) -> Model:
    """Load the base model of `spec` from a local folder and adapt it by the method.

    Its head is made for `classes`, if any are given and it names others. What does not fit whole onto every
    rank of `group` is shared by them.

    Raises:
        NotFoundError, InvalidError: what `family_of` raises; BASE_MODEL_UNREADABLE; BASE_MODEL_QUANTIZED;
            TARGETS_NOT_FOUND.
        PreconditionError: NO_ACCELERATOR, the spec claims a GPU and none is visible; NOT_INSTALLED.
    """
    device = _device(spec)
    family = family_of(base_model, spec.task)
    family.check_extra()
    check_unquantized(base_model)
    module, notes = _load_module(base_model, family, spec, classes, device)
    keep_quantized(module)
    processor = load_processor(base_model, family)
    # The adapters' first weights are drawn on the CPU, so that they are the same on any device.
    torch.manual_seed(spec.optimization.seed)
    if isinstance(spec.method, Lora):
        module = _add_adapter(module, family, spec, spec.method)
    else:
        _freeze(module, family, spec.method)
    set_precision(module, spec.precision)
    sharded = is_to_be_sharded(spec, module, group, device)
    _place(module, family, spec, device, sharded=sharded)
    trainable = {name: each for name, each in module.named_parameters() if each.requires_grad}
    return Model(spec, family, module, processor, device, trainable, classes, notes, sharded)


def _place(module: Any, family: Family, spec: FineTuneSpec, device: torch.device, *, sharded: bool) -> None:
    if sharded:
        shard(module, family, spec.precision, device)
    elif not is_quantized(spec):  # then it was loaded there
        module.to(device)


def _device(spec: FineTuneSpec) -> torch.device:
    if spec.resources.gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise PreconditionError(
            f"the spec claims {spec.resources.gpus:g} GPU and this machine shows none: set "
            "spec.resources.gpus to 0, or run where there is one",
            reason="NO_ACCELERATOR",
        )
    if spec.resources.gpus < 1:  # the rest is somebody else's
        torch.cuda.set_per_process_memory_fraction(spec.resources.gpus)
    return torch.device("cuda")


def _load_module(
    base_model: Path, family: Family, spec: FineTuneSpec, classes: Sequence[str], device: torch.device
) -> tuple[Any, tuple[str, ...]]:
    """The module, and what there is to say of its head. A new one is drawn by the seed, each time alike."""
    import transformers

    if isinstance(spec.method, Lora) and find_spec("bitsandbytes"):
        import_module("finemesh.finetune.quantiser")  # before peft is

    transformers.utils.logging.disable_progress_bar()
    register()
    reads = spec.task in TEXT_TOWERS  # what sees alone has the attention that transformers chooses
    attention = PACKED if reads and spec.sequence.packing else family.plain_attention if reads else None
    try:
        before = transformers.AutoConfig.from_pretrained(base_model, **FROM_FOLDER)
        head = head_arguments(before, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.optimization.seed)
            module, found = getattr(transformers, family.auto_class).from_pretrained(
                base_model,
                attn_implementation={"": family.plain_attention, family.text_config: attention}
                if family.text_config
                else attention,
                use_safetensors=True,
                output_loading_info=True,
                **FROM_FOLDER,
                **head,
                **(family.loading(before) if family.loading else {}),
                **loading_options(spec, family, device),
            )
            if head:
                renew(module, family.class_layers)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise InvalidError.of(
            "spec.base_model", f"{base_model} does not load: {error}", reason="BASE_MODEL_UNREADABLE"
        ) from error
    new = new_layers(head, found, family.class_layers)
    if not reads:
        check_new(spec, new, [name for name in new if tower_of(family, name) is Tower.VISION])
    return module, head_notes(head, before, new)


def load_processor(base_model: Path, family: Family) -> Any:
    """The processor or tokenizer of a base model. Raises NotFoundError, reason PROCESSOR_NOT_FOUND."""
    if family.load_processor is None:
        raise NotFoundError(f"family {family.name} has no processor", reason="PROCESSOR_NOT_FOUND")
    try:
        return family.load_processor(base_model)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and (name := _names_code(base_model)):
            raise NotFoundError(
                f"the tokenizer or processor of {base_model} needs code of its own (auto_map in its {name}), "
                "which Finemesh does not run: save it as one that transformers has, or choose another base",
                reason="PROCESSOR_NOT_FOUND",
            ) from error
        raise NotFoundError(
            f"{base_model} has no processor or tokenizer that loads ({error}): copy it into the folder",
            reason="PROCESSOR_NOT_FOUND",
        ) from error


def _names_code(base_model: Path) -> str:
    """The file of a tokenizer or processor that names code of its own; empty if none does."""
    files = (base_model / f"{part}_config.json" for part in ("tokenizer", "processor", "preprocessor"))
    return next((each.name for each in files if each.is_file() and b'"auto_map"' in each.read_bytes()), "")


def _add_adapter(module: Any, family: Family, spec: FineTuneSpec, method: Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    if family.detector and not family.detector.adapts:
        raise InvalidError.of(
            "spec.method.lora",
            f"peft cannot put adapters into {family.name}: choose method.full, of DECODER and HEAD alone "
            "if its backbone shall stay as it is",
            reason="METHOD_UNSUITABLE",
        )
    whole = [*family.towers.get(Tower.HEAD, ()), *([family.connector] if method.train_connector else [])]
    config = LoraConfig(
        r=method.rank,
        lora_alpha=cast("int", method.alpha),  # peft says int and computes with any number
        lora_dropout=method.dropout,
        target_modules=lora_target_pattern(module, family, method),
        modules_to_save=whole or None,
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
        bias="none",
    )
    with warnings.catch_warnings():  # peft asks transformers by a name that is being renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = get_peft_model(module, config, adapter_name=ADAPTER_NAME)
    fuse_adapters(adapted)
    # What is written with the adapter names the base as the user did, not a folder of this machine.
    config.base_model_name_or_path = spec.base_model
    config.revision = spec.base_model_revision or None
    return adapted


def lora_target_pattern(module: Any, family: Family, method: Lora) -> str:
    """A regular expression of the linear layers that get an adapter; peft matches it to whole module names.

    Raises:
        InvalidError: TARGETS_NOT_FOUND, a named target exists in none of the towers.
    """
    head = module.get_output_embeddings()
    modules = module.named_modules()
    linear = [name for name, each in modules if isinstance(each, torch.nn.Linear) and each is not head]
    arms: list[str] = []
    found: set[str] = set()
    for tower in method.towers:
        inside = [name for name in linear if tower_of(family, name) is tower]
        # Not those without any: what is called alike there is of another kind, as Qwen's patch embedding.
        places = [
            each for each in family.towers.get(tower, ()) if any(_within(name, (each,)) for name in inside)
        ]
        leaves = {name.rpartition(".")[2] for name in inside}
        wanted = set(method.target_modules or family.lora_targets.get(tower, ()) or leaves) & leaves
        found |= wanted
        prefixes = "|".join(re.escape(prefix) + r"\." if prefix else "" for prefix in places)
        if wanted:
            arms.append(rf"(?:{prefixes})(?:.*\.)?(?:{'|'.join(sorted(map(re.escape, wanted)))})")
    missing = sorted(set(method.target_modules) - found)
    if missing or not arms:
        leaves = sorted({name.rpartition(".")[2] for name in linear})
        named = ", ".join(f"{name}{codec.nearest(name, leaves)}" for name in missing)
        raise InvalidError.of(
            "spec.method.lora.target_modules",
            f"no linear layer called {named or 'anything'} in the chosen towers, {', '.join(method.towers)}; "
            f"the model has {', '.join(leaves)}",
            reason="TARGETS_NOT_FOUND",
        )
    return "|".join(arms)


def _freeze(module: Any, family: Family, method: Full) -> None:
    trained = {name for name, _ in module.named_parameters() if tower_of(family, name) in method.towers}
    if not trained:
        raise InvalidError.of(
            "spec.method.full.towers", "the model has none of these towers", reason="TARGETS_NOT_FOUND"
        )
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)


def tower_of(family: Family, name: str) -> Tower | None:
    """The tower of a parameter or module, also one that peft wraps."""
    inner = name.removeprefix("base_model.model.")
    return next((tower for tower, prefixes in family.towers.items() if _within(inner, prefixes)), None)


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(not prefix or f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)
