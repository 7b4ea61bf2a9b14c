"""What families of detectors share: how their losses are weighed, and how their pictures are read.

A detector pairs its queries with the boxes of a picture and sums the losses of the pairs and of the queries
that stay alone. transformers divides these sums by the boxes of the batch, or by the weights of its queries;
to divide by those of a whole step they are undone (`sums`) and known beforehand (`weights`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # families are listed where torch is slow to load
    import torch


class MatchingLoss(ABC):
    """The loss of a detector as sums, which add up over the batches of a step."""

    @abstractmethod
    def weights(self, config: Any, boxes: Sequence[int]) -> list[float]:
        """What the sums of a batch are divided by, for pictures with so many boxes each."""

    @abstractmethod
    def sums(self, config: Any, output: Any, weights: torch.Tensor) -> torch.Tensor:
        """The sums of a batch, undivided, one for each of its `weights`."""


class PerBox(MatchingLoss):
    """All of it is divided by the boxes (RT-DETR, D-FINE, Conditional DETR)."""

    def weights(self, config: Any, boxes: Sequence[int]) -> list[float]:
        del config
        return [float(sum(boxes))]

    def sums(self, config: Any, output: Any, weights: torch.Tensor) -> torch.Tensor:
        del config
        return output.loss.reshape(1) * weights.clamp(min=1)


class PerQueryAndBox(MatchingLoss):
    """Classes are a mean over all queries, those without an object counting `eos_coefficient`; the rest is
    divided by the boxes (DETR, https://arxiv.org/abs/2005.12872, section 3.1, and YOLOS).
    """

    def weights(self, config: Any, boxes: Sequence[int]) -> list[float]:
        queries = queries_of(config)
        paired = sum(min(count, queries) for count in boxes)
        return [paired + (queries * len(boxes) - paired) * config.eos_coefficient, float(sum(boxes))]

    def sums(self, config: Any, output: Any, weights: torch.Tensor) -> torch.Tensor:
        import torch

        losses: dict[str, torch.Tensor] = output.loss_dict
        classes, boxes = torch.zeros_like(output.loss), torch.zeros_like(output.loss)
        for name, loss in losses.items():  # `loss_ce_0` and the like are those of earlier layers
            if name.startswith("loss_ce"):
                classes = classes + loss
            elif name.startswith("loss_bbox"):
                boxes = boxes + config.bbox_loss_coefficient * loss
            elif name.startswith("loss_giou"):
                boxes = boxes + config.giou_loss_coefficient * loss
        return torch.stack([classes * weights[0], boxes * weights[1].clamp(min=1)])


@dataclass(frozen=True, slots=True)
class Detector:
    """What the objective of detection needs to know of a family.

    Attributes:
        loss: how it adds up.
        masked: whether the model is told where a picture ends and its padding begins. Its boxes are relative
            to the picture then, otherwise to the padded canvas, which is all it sees.
        adapts: whether peft can put adapters into it.
    """

    loss: MatchingLoss
    masked: bool
    adapts: bool = True


def queries_of(config: Any) -> int:
    """The most objects that a model can find in one picture."""
    return int(getattr(config, "num_queries", 0) or config.num_detection_tokens)
