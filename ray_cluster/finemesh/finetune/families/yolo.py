"""YOLOv8 and YOLO11 (https://docs.ultralytics.com/models): convolutions that find objects at each point of
three grids. Their library, ultralytics, is under the AGPL-3.0 and stays in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto_images import load_image_processor
from finemesh.finetune.families.detector import Detector, MatchingLoss
from finemesh.finetune.families.family import Family

if TYPE_CHECKING:
    import torch

# What the library would run by name: nothing beyond the layers of these two.
_LAYERS: Final = {"Conv", "C2f", "C3k2", "SPPF", "C2PSA", "nn.Upsample", "Concat", "Detect"}
KEYS: Final = {"nc", "scales", "scale", "depth_multiple", "width_multiple", "backbone", "head"}
_GRIDS: Final = 3
# Of YOLO11; those of another model are counted in its config.json.
_BACKBONE_LAYERS: Final = 11
_NECK_LAYERS: Final = 12


class PerPicture(MatchingLoss):
    """The library divides by what its assigner says the pictures of a batch weigh together, which is not
    known beforehand: a step is the mean over its pictures.
    """

    def weights(self, config: Any, boxes: Sequence[int]) -> list[float]:
        del config
        return [float(len(boxes))]

    def sums(self, config: Any, output: Any, weights: torch.Tensor) -> torch.Tensor:
        del config
        return output.loss.reshape(1) * weights


def towers(backbone: int, neck: int) -> dict[Tower, tuple[str, ...]]:
    """The parts of a model by how many layers lie before its last one. Its `dfl` is fixed, and in none."""
    last = f"yolo.model.{backbone + neck}"
    return {
        Tower.HEAD: (f"{last}.cv2", f"{last}.cv3"),
        Tower.DECODER: tuple(f"yolo.model.{index}" for index in range(backbone, backbone + neck)),
        Tower.VISION: tuple(f"yolo.model.{index}" for index in range(backbone)),
    }


def class_layers(backbone: int, neck: int) -> tuple[str, ...]:
    return tuple(f"yolo.model.{backbone + neck}.cv3.{grid}.2" for grid in range(_GRIDS))


def counted(family: Family, config: Mapping[str, Any]) -> Family:
    """The family with the layers of one model."""
    architecture = config["architecture"]
    sizes = len(architecture["backbone"]), len(architecture["head"]) - 1
    return replace(family, towers=towers(*sizes), class_layers=class_layers(*sizes))


def refused(config: Mapping[str, Any]) -> str:
    """Why a model is not taken, if it is not. The library runs what an architecture says: of an unknown one
    nothing is.
    """
    given = config.get("architecture")
    if not isinstance(given, Mapping):
        return f"its config.json has no architecture: {_REMEDY}"
    architecture = cast("Mapping[str, Any]", given)
    if unknown := sorted(architecture.keys() - KEYS):
        return f"its architecture has {', '.join(unknown)}, which YOLOv8 and YOLO11 have not: {_REMEDY}"
    try:
        layers = [*architecture["backbone"], *architecture["head"]]
        kinds = [kind for _, _, kind, _ in layers]
        grids = len(layers[-1][0])
    except (KeyError, TypeError, ValueError, IndexError):
        return f"its architecture is no list of layers: {_REMEDY}"
    if unknown := sorted({str(kind) for kind in kinds} - _LAYERS):
        return f"its architecture has {', '.join(unknown)}, which YOLOv8 and YOLO11 have not: {_REMEDY}"
    if kinds[-1] != "Detect" or grids != _GRIDS:
        return f"its last layer is not Detect over {_GRIDS} grids: {_REMEDY}"
    return ""


_REMEDY: Final = "make the folder of yolov8n.yaml, yolo11n.pt or the like by python -m finemesh.finetune.yolo"

YOLO: Final = Family(
    name="yolo",
    task=Task.DETECTION,
    model_types=("yolo",),
    auto_class="AutoModelForObjectDetection",
    towers=towers(_BACKBONE_LAYERS, _NECK_LAYERS),
    class_layers=class_layers(_BACKBONE_LAYERS, _NECK_LAYERS),
    load_processor=load_image_processor,
    refuse=refused,
    fit=counted,
    apart="finemesh.finetune.yolo",
    detector=Detector(PerPicture(), masked=False, adapts=False),
    quirks=(
        "Its library, `pip install 'finemesh[yolo]'`, is under the AGPL-3.0: see if that suits you.",
        "Training runs in a process of its own, by the same loop; in one process, not in several ranks.",
        "`python -m finemesh.finetune.yolo yolo11n.yaml --out DIR` makes a base model with random weights.",
        "The same makes one of published weights, `yolo11n.pt`: a pickle, so only of a source you trust.",
        "It takes no adapters: train it in full, or DECODER and HEAD alone.",
        "Mosaics, other augmentations and averaged weights of its own trainer are not made.",
        "Batch norms and the assignment of boxes see a micro batch: how a step is cut matters a little.",
    ),
)
