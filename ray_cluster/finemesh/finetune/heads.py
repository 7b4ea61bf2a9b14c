"""The classes of a dataset, and the head of a model that tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import TEXT_TOWERS, Task
from finemesh.finetune.rows import read_manifest

_UNUSED: Final = "N/A"  # how models of COCO name the gaps in its category ids


def classes_of(task: Task, dataset: Path) -> tuple[str, ...]:
    """The classes that a model for `task` tells apart in a dataset, in the order of its manifest.

    Empty for tasks without classes.

    Raises:
        InvalidError: NO_CLASSES, nothing in the dataset is named.
    """
    if task in TEXT_TOWERS:
        return ()
    manifest = read_manifest(dataset)
    if task is Task.IMAGE_CLASSIFICATION:
        names, what = tuple(sorted(manifest.row_classes)), "picture"
    else:
        names, what = tuple(each.class_name for each in manifest.classes), "object"
    if not names:
        raise InvalidError.of(
            "spec.dataset",
            f"no {what} of the dataset has a class, so there is nothing to tell apart: import it with class "
            "names",
            reason="NO_CLASSES",
        )
    return names


def head_arguments(config: Any, classes: Sequence[str]) -> dict[str, Any]:
    """What `from_pretrained` is told so that the model tells `classes` apart.

    A model that names the same classes, in whatever order, keeps its head as it is.
    """
    if not classes or set(classes) == set(config.id2label.values()) - {_UNUSED}:
        return {}
    return {
        "id2label": dict(enumerate(classes)),
        "label2id": {name: index for index, name in enumerate(classes)},
        "ignore_mismatched_sizes": True,
    }


def head_notes(arguments: Mapping[str, Any], before: Any, found: Mapping[str, Any]) -> tuple[str, ...]:
    """What people must know of the head, where it was not kept as it was.

    Args:
        arguments: of `head_arguments`.
        before: the config of the base model.
        found: what `from_pretrained` told of loading.
    """
    if not arguments:
        return ()
    anew = sorted({key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]})
    count = len(arguments["id2label"])
    if not anew:
        return (f"the head of the base model starts as it is for {count} classes that it names otherwise",)
    told = (
        f"the head is new, for {count} classes of the dataset instead of the base model's {before.num_labels}"
    )
    return (f"{told}: {', '.join(anew)} start from random numbers",)
