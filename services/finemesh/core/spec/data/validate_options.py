"""What is asked of a validation."""

from __future__ import annotations

from dataclasses import dataclass

from finemesh.core.spec.data.terms import ValidationLevel
from finemesh.core.spec.data.violations import refuse


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """How a dataset is examined.

    Attributes:
        level: BASIC reads headers and annotations, STRICT decodes every image.
        min_class_examples: a class with fewer objects gets a warning.
        max_imbalance: largest class to smallest, above which a warning is given.
        max_aspect_ratio: longer to shorter side of an image.
        min_box_iou: of the declared box with the box of its mask.
        max_leakage: share of val and test rows whose video or image is also in train.
        max_quarantined_fraction: of the ledger, above which validation fails.
        max_examples: rows named per kind of finding; all are counted.
    """

    level: ValidationLevel = ValidationLevel.BASIC
    min_class_examples: int = 10
    max_imbalance: float = 10.0
    max_aspect_ratio: float = 8.0
    min_box_iou: float = 0.5
    max_leakage: float = 0.0
    max_quarantined_fraction: float = 0.1
    max_examples: int = 20

    def __post_init__(self) -> None:
        fractions = {
            "min_box_iou": self.min_box_iou,
            "max_leakage": self.max_leakage,
            "max_quarantined_fraction": self.max_quarantined_fraction,
        }
        wrong = {
            name: f"{value} is not a fraction: give 0 to 1"
            for name, value in fractions.items()
            if not 0 <= value <= 1
        }
        ratios = {"max_imbalance": self.max_imbalance, "max_aspect_ratio": self.max_aspect_ratio}
        wrong |= {
            name: f"{value} is not a ratio: give at least 1"
            for name, value in ratios.items()
            if not value >= 1
        }
        counts = {"min_class_examples": self.min_class_examples, "max_examples": self.max_examples}
        wrong |= {name: f"{value} is negative: give 0 or more" for name, value in counts.items() if value < 0}
        refuse(wrong)
