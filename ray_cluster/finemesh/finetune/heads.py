"""The classes of a dataset, and the head of a model that tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import TEXT_TOWERS, Background, FineTuneSpec, Full, Task, Tower
from finemesh.finetune.rows import read_manifest

BACKGROUND: Final = "background"  # the class of what no object covers
_UNUSED: Final = "N/A"  # how models of COCO name the gaps in its category ids


def classes_of(spec: FineTuneSpec, dataset: Path) -> tuple[str, ...]:
    """The classes that a model tells apart in a dataset, in the order of its manifest; the background first.

    Empty for tasks without classes. Whole pictures are of the classes of rows; where no row has one, of those
    of their objects.

    Raises:
        InvalidError: NO_CLASSES, nothing in the dataset is named.
    """
    if spec.task in TEXT_TOWERS:
        return ()
    manifest = read_manifest(dataset)
    names = tuple(each.class_name for each in manifest.classes)
    if spec.task is Task.IMAGE_CLASSIFICATION:
        names = tuple(sorted(manifest.row_classes)) or names
    if not names:
        raise InvalidError.of(
            "spec.dataset",
            "nothing in the dataset has a class, so there is nothing to tell apart: import it with classes",
            reason="NO_CLASSES",
        )
    if spec.task is Task.SEMANTIC_SEGMENTATION and spec.segmentation.background is Background.CLASS:
        return names if BACKGROUND in names else (BACKGROUND, *names)
    return names


def head_arguments(config: Any, classes: Sequence[str]) -> dict[str, Any]:
    """What `from_pretrained` is told so that the model tells `classes` apart.

    A model that names the same classes, in whatever order, keeps its head as it is.
    """
    if not classes or set(classes) == set(config.id2label.values()) - {_UNUSED}:
        return {}
    arguments: dict[str, Any] = {
        "num_labels": len(classes),
        "id2label": dict(enumerate(classes)),
        "label2id": {name: index for index, name in enumerate(classes)},
        "ignore_mismatched_sizes": True,
    }
    if hasattr(config, "label_names"):  # timm's name of the same, which a saved config is read by
        arguments["label_names"] = list(classes)
    return arguments


def new_layers(
    arguments: Mapping[str, Any], found: Mapping[str, Any], class_layers: Sequence[str]
) -> tuple[str, ...]:
    """The names of the layers that start from random numbers.

    Args:
        arguments: of `head_arguments`.
        found: what `from_pretrained` told of loading.
        class_layers: drawn anew for other classes, also for as many as the base model has.
    """
    absent = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    return tuple(sorted({key.rpartition(".")[0] for key in absent} | set(class_layers if arguments else ())))


def renew(module: Any, class_layers: Sequence[str]) -> None:
    """Draw the layers that speak of classes anew.

    Raises:
        InvalidError: BASE_MODEL_UNSUITABLE, the model has no layer of that name.
    """
    layers = dict(module.named_modules())
    for name in class_layers:
        if name not in layers:
            raise InvalidError.of(
                "spec.base_model",
                f"{type(module).__name__} has no layer {name!r} to tell classes apart by: give a model of "
                "another architecture",
                reason="BASE_MODEL_UNSUITABLE",
            )
        for layer in layers[name].modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()


def check_new(spec: FineTuneSpec, new: Sequence[str], inside: Sequence[str]) -> None:
    """Refuse a model of which too much would be random.

    Args:
        spec: says what is trained.
        new: the layers that start from random numbers.
        inside: those of them that are not in the head.

    Raises:
        InvalidError: BASE_MODEL_UNSUITABLE.
    """
    if inside:
        raise InvalidError.of(
            "spec.base_model",
            f"it lacks weights of its backbone ({', '.join(inside[:3])}): give a model that is whole",
            reason="BASE_MODEL_UNSUITABLE",
        )
    if new and isinstance(spec.method, Full) and Tower.HEAD not in spec.method.towers:
        raise InvalidError.of(
            "spec.method.full.towers",
            f"{', '.join(new)} would stay random, which the dataset's classes need anew: train HEAD too",
            reason="BASE_MODEL_UNSUITABLE",
        )


def head_notes(arguments: Mapping[str, Any], before: Any, new: Sequence[str]) -> tuple[str, ...]:
    """What people must know of the head, where it was not kept as it was.

    Args:
        arguments: of `head_arguments`.
        before: the config of the base model.
        new: of `new_layers`.
    """
    if not arguments:
        return ()
    count = len(arguments["id2label"])
    if not new:
        return (f"the head of the base model starts as it is for {count} classes that it names otherwise",)
    told = (
        f"the head is new, for {count} classes of the dataset instead of the base model's {before.num_labels}"
    )
    start = "start" if len(new) > 1 else "starts"
    return (f"{told}: {', '.join(new)} {start} from random numbers",)
