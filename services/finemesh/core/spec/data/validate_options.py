"""What is asked of a validation."""

from __future__ import annotations

from dataclasses import dataclass

from finemesh.core.spec.data.terms import ValidationLevel
from finemesh.core.spec.data.violations import refuse

_MOST_SIMILAR_BITS = 16  # of 64: unrelated pictures differ in about 32


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """How a dataset is examined.

    Attributes:
        level: BASIC looks at annotations and at what is stated of pictures, STRICT reads every picture.
        min_rows: a dataset with fewer gets a warning.
        min_class_examples: a class with fewer objects gets a warning.
        max_imbalance: largest class to smallest, above which a warning is given.
        min_tail_share: share of all objects that the rarer half of the classes has; less is a long tail.
        max_image_pixels: of one picture, more are not decoded.
        max_aspect_ratio: longer to shorter side of an image.
        min_box_iou: of the declared box with the box of its mask.
        max_box_overhang_px: pixels by which a box may reach out of its picture.
        max_similar_bits: two pictures look alike if at most so many of the 64 bits of their hashes differ;
            STRICT alone compares them.
        max_leakage: share of val and test rows whose video or image is also in train.
        max_quarantined_fraction: of the ledger, above which validation fails.
        tokenizer: folder of a tokenizer, or name of a model, to measure texts with; "" measures none.
        max_tokens: of a row, above which it would be cut; 0 is no limit.
        max_examples: rows named per kind of finding; all are counted.
    """

    level: ValidationLevel = ValidationLevel.BASIC
    min_rows: int = 10
    min_class_examples: int = 10
    max_imbalance: float = 10.0
    min_tail_share: float = 0.1
    max_image_pixels: int = 64_000_000
    max_aspect_ratio: float = 8.0
    min_box_iou: float = 0.5
    max_box_overhang_px: float = 1.0
    max_similar_bits: int = 4
    max_leakage: float = 0.0
    max_quarantined_fraction: float = 0.1
    tokenizer: str = ""
    max_tokens: int = 0
    max_examples: int = 20

    def __post_init__(self) -> None:
        fractions = {
            "min_tail_share": self.min_tail_share,
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
        counts = {
            "min_rows": self.min_rows,
            "min_class_examples": self.min_class_examples,
            "max_box_overhang_px": self.max_box_overhang_px,
            "max_tokens": self.max_tokens,
            "max_examples": self.max_examples,
        }
        wrong |= {
            name: f"{value} is negative: give 0 or more" for name, value in counts.items() if not value >= 0
        }
        if self.max_image_pixels < 1:
            wrong["max_image_pixels"] = f"{self.max_image_pixels} lets no picture through: give at least 1"
        if not 0 <= self.max_similar_bits <= _MOST_SIMILAR_BITS:
            wrong["max_similar_bits"] = (
                f"{self.max_similar_bits} of 64 is out of range: give 0 to {_MOST_SIMILAR_BITS}"
            )
        if self.max_tokens and not self.tokenizer:
            wrong["max_tokens"] = "needs a tokenizer to count with"
        refuse(wrong)
