"""What is asked of a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.data.terms import DatasetFormat, InstructionTask, MaskForm
from finemesh.core.spec.data.violations import refuse


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What a dataset is turned into.

    Attributes:
        target: the form that is written.
        instruction: makes conversations from objects; None keeps the rows as they are.
        image_size_px: of the pictures of an instruction: side of a crop or an outlined square (0 is 112),
            limit of the longer side of a whole picture (0 leaves it as it is).
        context_fraction: margin around an object, as a share of its longer side.
        min_object_px: objects with a smaller visible area (in pixels of the frame) are dropped.
        max_answer_ratio: of the most frequent answer of a split to the median one; 0 is no limit.
        max_items: at most so many conversations, taken evenly over splits and answers; 0 is no limit.
        box_convention: how boxes are written in questions and answers.
        questions, answers: templates instead of the task's own, with fields in braces such as `{class}`.
        max_turns: at most so many questions about a whole picture in one conversation.
        template: of the form TEMPLATE, in Jinja; it sees the row's `messages`, `objects`, `text` and so on.
        mask_form: how masks are written in COCO form.
        prove_masks: whether masks are read back, drawn again and compared (forms with masks alone).
        min_mask_iou: of a mask with what it came back as; a row with a worse one is quarantined.
        seed: of the choice among equals, and of the wording.
    """

    target: DatasetFormat = DatasetFormat.CANONICAL
    instruction: InstructionTask | None = None
    image_size_px: int = 0
    context_fraction: float = 0.15
    min_object_px: int = 64
    max_answer_ratio: float = 4.0
    max_items: int = 0
    box_convention: BoxConvention = BoxConvention.UNIT
    questions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    max_turns: int = 1
    template: str = ""
    mask_form: MaskForm = MaskForm.AS_SOURCE
    prove_masks: bool = True
    min_mask_iou: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        wrong: dict[str, str] = {}
        if self.image_size_px and not 16 <= self.image_size_px <= 4096:
            wrong["image_size_px"] = f"{self.image_size_px} is out of range: give 16 to 4096, or 0"
        if not 1 <= self.max_turns <= 64:
            wrong["max_turns"] = f"{self.max_turns} is out of range: give 1 to 64"
        if not 0 <= self.context_fraction <= 4:
            wrong["context_fraction"] = f"{self.context_fraction} is out of range: give 0 to 4"
        if self.max_answer_ratio != 0 and not self.max_answer_ratio >= 1:
            wrong["max_answer_ratio"] = (
                f"{self.max_answer_ratio} is out of range: give 0 (no limit) or at least 1"
            )
        for name, value in (("max_items", self.max_items), ("min_object_px", self.min_object_px)):
            if value < 0:
                wrong[name] = f"{value} is negative: give 0 or more"
        if not 0 <= self.min_mask_iou <= 1:
            wrong["min_mask_iou"] = f"{self.min_mask_iou} is not a fraction: give 0 to 1"
        if self.target is DatasetFormat.TEMPLATE and not self.template:
            wrong["template"] = "is empty: give the Jinja template of a row, which the form TEMPLATE fills in"
        elif self.template and self.target is not DatasetFormat.TEMPLATE:
            wrong["template"] = f"is for the form TEMPLATE, not for {self.target.name}: leave it out"
        refuse(wrong)
