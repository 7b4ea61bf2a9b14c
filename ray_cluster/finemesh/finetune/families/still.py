"""Processors of families that also see videos, loaded without their video processor, which wants torchvision.

Rows here have pictures only, and the PIL image processors make the same pixels on every machine.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from finemesh.finetune.families.family import FROM_FOLDER


@cache
def without_video(processor_class: type[Any]) -> type[Any]:
    """The processor class of a transformers model as one of pictures and texts; it is saved as itself."""
    from transformers import ProcessorMixin

    # Parameters have their names here: those are what is saved of a processor, and read again.
    def init(
        self: Any,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: Any = None,
        image_seq_len: int | None = None,
    ) -> None:
        options = {} if image_seq_len is None else {"image_seq_len": image_seq_len}
        processor_class.__init__(
            self, image_processor, tokenizer, video_processor=None, chat_template=chat_template, **options
        )

    members = {"__init__": init, "apply_chat_template": ProcessorMixin.apply_chat_template}
    return type(processor_class.__name__, (processor_class,), members)


def load_still(processor_class: type[Any], folder: Path) -> Any:
    """The processor of a local folder, with the PIL image processor and none for videos."""
    return without_video(processor_class).from_pretrained(folder, **FROM_FOLDER, backend="pil")
