"""What is asked of an import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from finemesh.core.spec.data.terms import AnnotationFormat
from finemesh.core.spec.data.violations import refuse

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a source is read, and where its limits are.

    Attributes:
        format: None detects it.
        seed: of whatever is rendered.
        max_total_bytes: of the source after unpacking.
        max_files: in the source.
        max_ratio: unpacked to packed bytes of an archive, and of each larger entry.
        max_image_pixels: of one image, checked before it is decoded.
        max_quarantined_fraction: the import is refused when a larger share of the rows is faulty.
        columns: of a table or a Parquet file: what stands in which column, e.g. `{"prompt": "question"}`.
    """

    format: AnnotationFormat | None = None
    seed: int = 0
    max_total_bytes: int = 64 * GIB
    max_files: int = 1_000_000
    max_ratio: float = 200.0
    max_image_pixels: int = 64_000_000
    max_quarantined_fraction: float = 0.5
    columns: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        limits = {
            "max_total_bytes": self.max_total_bytes,
            "max_files": self.max_files,
            "max_image_pixels": self.max_image_pixels,
        }
        wrong = {
            name: f"{value} is not a limit: give at least 1" for name, value in limits.items() if value < 1
        }
        if not self.max_ratio >= 1:
            wrong["max_ratio"] = f"{self.max_ratio} is not a ratio: give at least 1"
        if not 0 <= self.max_quarantined_fraction <= 1:
            wrong["max_quarantined_fraction"] = (
                f"{self.max_quarantined_fraction} is not a fraction: give 0 to 1"
            )
        refuse(wrong)
