"""What the loop needs to know of a kind of model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.detector import Detector

if TYPE_CHECKING:
    from PIL import Image

FROM_FOLDER: Final[Mapping[str, Any]] = {"local_files_only": True, "trust_remote_code": False}
"""How transformers reads a base model: it asks nothing of the hub, runs no code that lies in the folder, and
asks nobody at a terminal whether it may."""

Picture = Mapping[str, npt.NDArray[Any]]
"""What a processor makes of one picture, by the names that the model's forward gives its inputs."""


class Seen(NamedTuple):
    """One picture: its tensors, and the text that stands for it, its placeholders among it."""

    tensors: Picture
    text: str


def see(processor: Any, image: Image.Image) -> Seen:
    """A picture as `pixel_values` (1, channels, height, width), by a processor that writes placeholders."""
    output = processor.image_processor(image, return_tensors="np")
    return Seen({"pixel_values": output["pixel_values"]}, processor.replace_image_token(output, image_idx=0))


def join(config: Any, pictures: Sequence[Picture], extras: Sequence[Picture]) -> dict[str, npt.NDArray[Any]]:
    """The pictures of a batch, one after the other."""
    del config, extras
    names = pictures[0] if pictures else ()
    return {name: np.concatenate([picture[name] for picture in pictures]) for name in names}


@dataclass(frozen=True, slots=True)
class TinyTokens:
    """The vocabulary of a tiny model: its size, the ids that a config names, and those of `tiny_tokens`."""

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    image_id: int
    special: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model, as data and hooks.

    Attributes:
        name: how people call it.
        task: what it is trained for here.
        model_types: `model_type` values of config.json; empty takes any.
        auto_class: the transformers class that loads it.
        towers: module name prefixes of each tower, for freezing and for LoRA; the first that fits decides.
        lora_targets: names of the linear layers within a tower that LoRA adapts by default; empty adapts them
            all.
        class_layers: module names of the layers that speak of classes, drawn anew for others.
        connector: module name of the part between vision and language.
        text_config: name of the language model's sub-config, where it has one.
        image_features: (config, one picture) -> number of placeholder tokens the model will fill; None for
            models that see nothing.
        see: (processor, image) -> its tensors and the text that stands for it.
        join: (config, pictures of a batch, what `extras` made of each row with any) -> inputs of the model.
            Without pictures, what the model needs even then.
        extras: (processor, messages) -> what the model must know of the words beside its tokens, a row of
            each tensor for each picture.
        positions: (config, tokens T, their pictures) -> positions (axes, T) of the tokens, which start anew
            with every sample; None where they count from 0.
        load_processor: folder -> (processor or tokenizer); the PIL image processors, since torchvision may be
            absent.
        tiny_config: a small config for tests and the demo, over a vocabulary.
        tiny_processor: (config, tokenizer) -> what is saved beside the tiny model.
        tiny_tokens: special tokens of the tiny model beyond those of all.
        tiny_image: what its chat template writes for a picture.
        refuse: content of config.json -> why a model of a fitting `model_type` is not taken after all, or
            nothing.
        fit: (itself, content of config.json) -> the family of that model, if its modules have own names.
        loading: (config) -> what `from_pretrained` must be told to load this model.
        extra: the extra of this distribution, and the package, that it needs beside transformers.
        apart: the module that makes its models known to transformers, by a library that no other process may
            import; empty where transformers knows them.
        box_convention: how its texts write boxes, where it was taught any.
        plain_attention: transformers' name of its attention over padded rows.
        detector: how its boxes and their losses are read, for detection.
        quirks: what surprises people in its processor or its weights, a sentence each.
    """

    name: str
    task: Task
    model_types: tuple[str, ...]
    auto_class: str
    towers: Mapping[Tower, tuple[str, ...]]
    lora_targets: Mapping[Tower, tuple[str, ...]] = field(default_factory=dict[Tower, tuple[str, ...]])
    class_layers: tuple[str, ...] = ()
    connector: str = ""
    text_config: str = ""
    image_features: Callable[[Any, Picture], int] | None = None
    see: Callable[[Any, Image.Image], Seen] = see
    join: Callable[[Any, Sequence[Picture], Sequence[Picture]], dict[str, npt.NDArray[Any]]] = join
    extras: Callable[[Any, Sequence[Any]], Picture] | None = None
    positions: Callable[[Any, npt.NDArray[np.int64], Sequence[Picture]], npt.NDArray[np.int64]] | None = None
    load_processor: Callable[[Path], Any] | None = None
    tiny_config: Callable[[TinyTokens], Any] | None = None
    tiny_processor: Callable[[Any, Any], Any] | None = None
    tiny_tokens: tuple[str, ...] = ()
    tiny_image: str = "<image>"
    refuse: Callable[[Mapping[str, Any]], str] | None = None
    fit: Callable[[Family, Mapping[str, Any]], Family] | None = None
    loading: Callable[[Any], dict[str, Any]] | None = None
    extra: str = ""
    apart: str = ""
    box_convention: BoxConvention | None = None
    plain_attention: str = "sdpa"
    detector: Detector | None = None
    quirks: tuple[str, ...] = ()

    def takes(self, model_type: str) -> bool:
        return not self.model_types or model_type in self.model_types

    def check_extra(self) -> None:
        """Raises PreconditionError, NOT_INSTALLED: what it needs beside transformers cannot be imported;
        FAMILY_UNSUPPORTED: it trains apart, and this is another process.
        """
        if self.apart and self.apart not in sys.modules:
            raise PreconditionError(
                f"models of {self.name} are loaded only by the process that trains them, since their library "
                "stays out of all others: they can be trained and tested, nothing else",
                reason="FAMILY_UNSUPPORTED",
            )
        try:
            if self.extra:
                import_module(self.extra)
        except (ImportError, OSError, RuntimeError) as error:  # the last two: a torchvision of another torch
            raise PreconditionError(
                f"models of {self.name} need the package {self.extra}, which cannot be imported here "
                f"({error}): pip install 'finemesh[{self.extra}]' where training runs, beside a torchvision "
                "that was made for its torch",
                reason="NOT_INSTALLED",
            ) from error
