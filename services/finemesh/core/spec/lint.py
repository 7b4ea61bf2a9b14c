"""What is wrong with a fine-tune, and what is likely to be.

Errors are what `FineTuneSpec.validate` refuses. Warnings are sound specs that are probably not what is meant:
each rule below looks at the whole spec and yields the field, what is wrong with it, and what to write. Fields
are named as in a spec file: `lora.rank`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, cast

from finemesh.core.errors import InvalidError
from finemesh.core.spec import codec, document
from finemesh.core.spec.finetune import (
    FineTuneSpec,
    Full,
    Lora,
    Objective,
    OverLength,
    Precision,
    Task,
    Tower,
)
from finemesh.core.spec.optimization import Optimizer


class Severity(StrEnum):
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing. `field` is a path in a spec file, `message` what is wrong and what to write instead."""

    severity: Severity
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class BaseModelFacts:
    """What can be known of a base model without its weights. Empty and zero mean: not known.

    Attributes:
        model_type: of its config.json.
        max_positions: `max_position_embeddings` of its language model.
        layers: names of the linear layers of its parts that its family knows.
    """

    model_type: str = ""
    max_positions: int = 0
    layers: Mapping[Tower, Sequence[str]] = field(default_factory=dict[Tower, "Sequence[str]"])


def model_type_of(config: Mapping[str, Any]) -> str:
    """The type of model that a config.json is of; empty if it tells none. Those of timm do not name it."""
    return str(config.get("model_type") or ("timm_wrapper" if "pretrained_cfg" in config else ""))


def facts_of(config: Mapping[str, Any]) -> BaseModelFacts:
    """What a config.json says."""
    language = config.get("text_config")
    found = cast("Mapping[str, Any]", language) if isinstance(language, Mapping) else config
    positions = found.get("max_position_embeddings")
    return BaseModelFacts(
        model_type=model_type_of(config),
        max_positions=positions if isinstance(positions, int) else 0,
    )


@dataclass(frozen=True, slots=True)
class Report:
    """Everything found, errors first. `spec` has its defaults written out; None if it is refused."""

    findings: tuple[Finding, ...]
    spec: FineTuneSpec | None = field(default=None)

    @property
    def refused(self) -> bool:
        return self.spec is None


def lint_document(given: document.Document, model: BaseModelFacts | None = None) -> Report:
    """Judges a spec as it is written in a file or said on the wire."""
    try:
        spec = document.read(given, path="")
    except InvalidError as error:
        errors = (Finding(Severity.ERROR, v.field, v.description) for v in error.violations)
        return Report(tuple(errors))
    facts = model or BaseModelFacts()
    found = tuple(warnings(spec, facts))
    if isinstance(spec.method, Lora) and facts.model_type in WITHOUT_ADAPTERS:
        message = f"a {facts.model_type} model takes no adapters: write full: {{}} in place of lora"
        return Report((Finding(Severity.ERROR, "lora", message), *found))
    return Report(found, spec)


def warnings(spec: FineTuneSpec, model: BaseModelFacts) -> Iterator[Finding]:
    """What is likely a mistake in a spec that is sound."""
    for rule in _RULES:
        for said in rule(spec, model):
            yield Finding(Severity.WARNING, said.field, said.message)


class Said(NamedTuple):
    """What a rule has to say of a field."""

    field: str
    message: str


Rule = Callable[[FineTuneSpec, BaseModelFacts], Iterator[Said]]
_SHORT_STEPS: Final = 100  # a run of so few is soon made again
# Of model types whose layers peft cannot put adapters into.
WITHOUT_ADAPTERS: Final = {"d_fine", "rt_detr_v2", "yolo"}
_CHATS: Final = {Task.LANGUAGE, Task.VISION_LANGUAGE}


class _Rates(NamedTuple):
    """Usual learning rates with Adam and its kin, and for what."""

    lowest: float
    highest: float
    trained: str


# Adapters start from nothing and bear ten times the rate of weights that already know something
# (https://arxiv.org/abs/2305.14314; https://arxiv.org/abs/2310.03744, table 9); so does a connector alone.
# Preferences pull at a model that is already good (https://arxiv.org/abs/2305.18290, appendix B: 1e-6).
_BEGINNERS: Final = _Rates(1e-5, 2e-3, "what this method trains")
_CHAT_WEIGHTS: Final = _Rates(1e-7, 1e-4, "all weights of a language model")
_PREFERRED_ADAPTERS: Final = _Rates(1e-7, 1e-4, "adapters that learn preferences")
_PREFERRED_WEIGHTS: Final = _Rates(1e-8, 5e-6, "all weights that learn preferences")


def _usual_rates(spec: FineTuneSpec) -> _Rates:
    whole = isinstance(spec.method, Full) and set(spec.method.towers) != {Tower.CONNECTOR}
    if spec.objective is Objective.PREFERENCE:
        return _PREFERRED_WEIGHTS if whole else _PREFERRED_ADAPTERS
    return _CHAT_WEIGHTS if whole and spec.task in _CHATS else _BEGINNERS


def _learning_rate(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    rate, usual = spec.optimization.learning_rate, _usual_rates(spec)
    if spec.optimization.optimizer is Optimizer.SGD or usual.lowest <= rate <= usual.highest:
        return
    far, why = (
        ("above", "the loss may diverge") if rate > usual.highest else ("below", "little will be learnt")
    )
    yield Said(
        "optimization.learning_rate",
        f"{rate:g} is far {far} the usual {usual.lowest:g} to {usual.highest:g} for {usual.trained}: {why}; "
        f"write {usual.highest / 5:g}",
    )


def _adapter(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    method = spec.method
    if isinstance(method, Full):
        return
    scale = method.alpha / (method.rank**0.5 if method.use_rslora else method.rank)
    if not 0.1 <= scale <= 16:
        remedy = 2 * (method.rank**0.5 if method.use_rslora else method.rank)
        yield Said(
            "lora.alpha",
            f"{method.alpha:g} scales an update of rank {method.rank} by {scale:.3g}, where 1 or 2 is usual: "
            f"write {remedy:g}, or change the learning rate instead",
        )
    if method.dropout > 0.3:
        yield Said("lora.dropout", f"{method.dropout:g} hides most of the adapter's input: 0 to 0.1 is usual")


def _targets(spec: FineTuneSpec, model: BaseModelFacts) -> Iterator[Said]:
    """Whether a name is a layer of these parts only the model itself can say: it is refused as that loads."""
    method = spec.method
    if isinstance(method, Full) or not all(map(model.layers.get, method.towers)):
        return
    known = [name for tower in method.towers for name in model.layers[tower]]
    for name in method.target_modules:
        if name in known:
            continue
        elsewhere = [tower for tower, names in model.layers.items() if name in names]
        remedy = (
            f"write {elsewhere[0]} in lora.towers too"
            if elsewhere
            else f"write names out of {', '.join(known)}{codec.nearest(name, known)}"
        )
        yield Said(
            "lora.target_modules",
            f"published {model.model_type} models have no layer {name!r} in {', '.join(method.towers)}: "
            f"{remedy}",
        )


def _batch(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    if spec.optimization.micro_batch_size * spec.optimization.gradient_accumulation_steps == 1:
        yield Said(
            "optimization.gradient_accumulation_steps",
            "every step follows the gradient of a single row, which is mostly noise: write 8 or more (it "
            "costs no memory), or raise optimization.micro_batch_size",
        )


def _run_length(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    optimization, steps = spec.optimization, spec.optimization.max_steps
    if optimization.warmup_ratio > 0.3:
        yield Said(
            "optimization.warmup_ratio",
            f"the rate is still rising over {optimization.warmup_ratio:.0%} of the run: 0.03 to 0.1 is usual",
        )
    for path, every in (
        ("evaluation.every_steps", spec.evaluation.every_steps),
        ("checkpoint.every_steps", spec.checkpoint.every_steps),
    ):
        saving = path.startswith("checkpoint")
        if (_SHORT_STEPS if saving else 0) < steps < every:
            what = "saved" if saving else "evaluated"
            yield Said(
                path,
                f"{every} is more than the {steps} steps of the run: nothing is {what} before its end; write "
                f"{_often(spec)}",
            )
    if spec.task in _CHATS and steps == 0 and optimization.epochs > 10:
        yield Said(
            "optimization.epochs",
            f"{optimization.epochs:g} passes teach most models their training rows by heart: write 1 to 3, "
            "or look at the validation loss",
        )


def _often(spec: FineTuneSpec) -> int:
    """After how many steps each to look at the run, or to save it: five times in a short one."""
    steps = spec.optimization.max_steps
    return min(50, max(steps // 5, 1)) if steps else 50


def _packing(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    padded = not (spec.sequence.packing or spec.sequence.length_grouping)
    if spec.task in _CHATS and padded and spec.optimization.micro_batch_size > 1:
        yield Said(
            "sequence.packing",
            "is off: rows are padded to the longest of their batch, and the padding is computed in vain; "
            "write true (packed rows never see each other), or set length_grouping",
        )


def _length(spec: FineTuneSpec, model: BaseModelFacts) -> Iterator[Said]:
    if spec.task in _CHATS and 0 < model.max_positions < spec.sequence.max_tokens:
        yield Said(
            "sequence.max_tokens",
            f"{spec.sequence.max_tokens} is more than the {model.max_positions} positions that the base "
            f"model tells apart: write {model.max_positions} or less",
        )
    if spec.task is Task.VISION_LANGUAGE and spec.sequence.over_length is OverLength.TRUNCATE:
        yield Said(
            "sequence.over_length",
            "TRUNCATE cuts answers off to make room for the tokens of pictures: raise sequence.max_tokens, "
            "or write DROP and see in the ledger what is lost",
        )


def _precision(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    if spec.resources.gpus and spec.precision is Precision.FP32:
        yield Said(
            "precision",
            "FP32 takes twice the memory and several times the time of BF16 on a GPU, and resources.gpus "
            "claims one: write BF16",
        )


def _evaluation(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    held_out = spec.evaluation.holdout_fraction
    validated = bool(spec.validation_split or held_out)
    if not validated and spec.checkpoint.keep_best:
        yield Said(
            "checkpoint.keep_best",
            "is on, but without validation no checkpoint is better than another: name a validation_split, "
            "set evaluation.holdout_fraction to 0.05, or write false",
        )
    if not validated and not spec.test_split:
        yield Said(
            "test_split",
            "there is neither a validation nor a test split: nothing will tell whether the model learnt or "
            "only remembers; set evaluation.holdout_fraction, or let `finemesh dataset split` make them",
        )
    if validated and spec.evaluation.every_steps == 0:
        yield Said(
            "evaluation.every_steps",
            "is 0: the validation loss is known at the end alone, too late to stop or to choose the best "
            f"checkpoint; write {_often(spec)}",
        )
    if held_out > 0.5:
        yield Said(
            "evaluation.holdout_fraction",
            f"{held_out:g} keeps most rows away from the training: 0.05 to 0.2 is usual",
        )


def _noise(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    chosen = spec.optimization
    if chosen.neftune_alpha > 20:  # the paper tries 5, 10 and 15
        yield Said(
            "optimization.neftune_alpha", f"{chosen.neftune_alpha:g} drowns the words in noise: 5 is usual"
        )
    if chosen.label_smoothing > 0.3:
        yield Said(
            "optimization.label_smoothing",
            f"{chosen.label_smoothing:g} teaches the model to be unsure of everything: 0.1 is usual",
        )


def _safety(spec: FineTuneSpec, _model: BaseModelFacts) -> Iterator[Said]:
    if spec.checkpoint.every_steps == 0:
        yield Said(
            "checkpoint.every_steps",
            f"is 0: whatever ends the job early costs the whole run; write {_often(spec)}",
        )
    if spec.optimization.max_grad_norm == 0:
        yield Said(
            "optimization.max_grad_norm",
            "is 0: gradients are never clipped, and one odd batch can undo the run; write 1",
        )
    if spec.max_quarantined_fraction >= 0.5:
        yield Said(
            "max_quarantined_fraction",
            f"a dataset that lost {spec.max_quarantined_fraction:.0%} of its rows would be trained on: write "
            "0.05, and look at `finemesh dataset ledger` first",
        )


_RULES: Final[tuple[Rule, ...]] = (
    _learning_rate,
    _adapter,
    _targets,
    _batch,
    _run_length,
    _packing,
    _length,
    _precision,
    _evaluation,
    _noise,
    _safety,
)
