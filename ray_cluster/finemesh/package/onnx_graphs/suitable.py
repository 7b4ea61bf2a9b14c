"""Which models become graphs that behave alike. What was tried, and how far the graphs were off, is in
docs/reference/exports-onnx.md.
"""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task
from finemesh.finetune.families.family import FROM_FOLDER
from finemesh.finetune.models import load_processor
from finemesh.package.onnx_graphs.seeing import TOWERS
from finemesh.package.shipped.onnx_pixels import KNOWN
from finemesh.package.trained import Trained

_QUERIES: Final = (
    "its graphs come out wrong: they rank its queries otherwise than the trained model where scores are as "
    "good as equal, and boxes were off by a quarter of the picture, raw outputs by up to 3.8; export it as "
    "MERGED"
)
_LENGTHS_READ: Final = (
    "its vision tower cuts the patches of a picture by lengths that it reads while it computes, which "
    "torch's exporter does not take; export it as MERGED"
)
_TILES: Final = (
    "its tiles are put together by the shape of each picture, after its vision tower and in code that "
    "transformers alone has; export it as MERGED"
)
WRONG: Final = {
    "rt-detr-v2": _QUERIES,
    "qwen2-vl": _LENGTHS_READ,
    "qwen2.5-vl": _LENGTHS_READ,
    "qwen3-vl": _LENGTHS_READ,
    "llava-next": _TILES,
}
_LENGTHS: Final = ("dynamic", "longrope")


def refuse_onnx(trained: Trained) -> str:
    """Why no graph of such a model can be right, or nothing."""
    family = trained.family
    if why := WRONG.get(family.name):
        return why
    processor = load_processor(trained.base_model, family)
    if trained.spec.task is Task.VISION_LANGUAGE and family.name not in TOWERS:
        return f"nobody has yet measured graphs of {family.name}; export it as MERGED"
    if trained.spec.task is not Task.LANGUAGE:
        images = getattr(processor, "image_processor", processor)
        kind = str(images.to_dict().get("image_processor_type"))
        if kind not in KNOWN:
            return f"its pictures are prepared by {kind}, which only transformers has; export it as MERGED"
    if trained.speaks:
        return _refuse_speaker(processor, trained.base_model, plain=trained.plain)
    return ""


def _refuse_speaker(processor: Any, base_model: Any, *, plain: bool) -> str:
    from transformers import AutoConfig

    tokenizer = getattr(processor, "tokenizer", processor)
    if not getattr(tokenizer, "is_fast", False):
        return "its tokenizer has no tokenizer.json, which is what runs outside of Python's transformers"
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if not template and not plain:
        return "it has no chat template: put chat_template.jinja into the folder of the base model"
    config: Any = AutoConfig.from_pretrained(base_model, **FROM_FOLDER).get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, dict)}
    if found := kinds & set(_LENGTHS):
        return (
            f"its rotary positions change with the length of the text ({found.pop()}), which a graph would "
            "fix; export it as MERGED"
        )
    return ""
