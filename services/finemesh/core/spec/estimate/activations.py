"""What the backward pass needs of the forward pass, by family: values of a token, and of a picture.

Counted from what autograd keeps of models of two depths, and of pictures of two sizes, with a fused attention
and nothing recomputed (`tests/unit/test_estimate_activations.py` counts again). Left out is what hardly grows
with the model: a value or two for each norm, one for each head, and the rank for each adapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, cast

from finemesh.core.spec.estimate.base_model import BaseModel, Config, first


@dataclass(frozen=True, slots=True)
class TokenValues:
    """Values of a token in one layer of a language model, in vectors of each width, with adapters on every
    linear layer.
    """

    hidden: int = 7
    intermediate: int = 4
    key_value: int = 2

    def of(self, text: Config) -> float:
        heads = int(first(text, "num_attention_heads", "n_head", default=1))
        hidden = int(first(text, "hidden_size", "n_embd"))
        width = int(first(text, "head_dim", default=hidden // heads))
        key_value = int(first(text, "num_key_value_heads", default=heads)) * width
        inner = int(first(text, "intermediate_size", "n_inner", default=4 * hidden))
        return self.hidden * hidden + self.intermediate * inner + self.key_value * key_value


@dataclass(frozen=True, slots=True)
class PictureValues:
    """Values of a picture.

    Attributes:
        stage: for each position, channel and block of a backbone in stages.
        neck: for each pixel and channel of what joins the stages.
        encoder: for each token (of 32 by 32 pixels), channel and layer of an encoder behind the backbone.
        query: for each query, channel and layer of a decoder.
        class_map: for each pixel and class, of logits at the size of the picture.
    """

    stage: float = 0.0
    neck: float = 0.0
    encoder: float = 0.0
    query: float = 0.0
    class_map: float = 0.0

    def of(self, base: BaseModel, classes: int) -> float:
        """Of one picture at the largest size that the processor makes."""
        height, width = base.picture_px
        config, pixels = base.config, height * width
        channels = int(first(config, "d_model", "hidden_dim", default=256))
        decoder_layers = int(first(config, "decoder_layers", default=6))
        encoder_layers = int(first(config, "encoder_layers", default=6))
        queries = int(first(config, "num_queries", default=100))
        return (
            self.stage * stages(base.vision, pixels)
            + self.neck * channels * pixels
            + self.encoder * channels * encoder_layers * pixels / 32**2
            + self.query * channels * decoder_layers * queries
            + self.class_map * classes * pixels
        )


def transformer_picture(vision: Config, pixels: int) -> float:
    """Values of a picture in a vision transformer: 8 vectors of the model's width in each layer and 2 of the
    feed-forward's, for each patch.
    """
    width = int(first(vision, "embed_dim", "hidden_size", default=768))
    ratio = float(first(vision, "mlp_ratio", default=4))
    inner = int(first(vision, "intermediate_size", default=int(width * ratio)))
    depth = int(first(vision, "num_hidden_layers", "depth", default=12))
    patch = first(vision, "patch_size", default=16)
    tokens = pixels / int(patch) ** 2 + int(first(vision, "num_detection_tokens", default=0)) + 1
    return tokens * depth * (8 * width + 2 * inner)


def stages(vision: Config, pixels: int) -> float:
    """Positions times channels, over all blocks of a backbone whose stages halve the sides of a picture."""
    depths = cast("list[int]", first(vision, "stage_num_blocks", "depths", default=[2, 2, 6, 2]))
    widths: Any = first(vision, "stage_out_channels", "hidden_sizes", default=None)
    if widths is None:
        start = int(first(vision, "embed_dim", default=96))
        widths = [start * 2**index for index in range(len(depths))]
    stride = (
        int(first(vision, "patch_size", default=4)) if "depths" in vision and "embed_dim" in vision else 4
    )
    return sum(
        depth * width * pixels / (stride * 2**index) ** 2
        for index, (depth, width) in enumerate(zip(depths, widths, strict=False))
    )


TOKENS: Final = TokenValues()
TOKENS_OF: Final = {"qwen3-vl": TokenValues(hidden=8, intermediate=4, key_value=3)}

TRANSFORMERS: Final = ("vit", "yolos")
# Classifiers of no family here: a rule of thumb over those that were counted, within a factor of three.
_UNKNOWN: Final = 0.08
PICTURES_OF: Final = {
    "swin": PictureValues(stage=19.3),
    "convnext": PictureValues(stage=12.7),
    "convnextv2": PictureValues(stage=19.7),
    "segformer": PictureValues(stage=35.0, class_map=3.0),
    "detr": PictureValues(stage=1.5, encoder=50.0, query=25.0),
    "conditional-detr": PictureValues(stage=1.5, encoder=59.0, query=28.0),
    "rt-detr-v2": PictureValues(stage=1.5, neck=1.04, query=34.0),
    "d-fine": PictureValues(stage=8.2, neck=1.04, query=44.0),
    "mask2former": PictureValues(stage=19.3, neck=3.7, query=73.0),
}


def token_values(family: str, base: BaseModel) -> float:
    """Of a token in one layer of the language model of a family."""
    return TOKENS_OF.get(family, TOKENS).of(base.text)


def is_counted(family: str) -> bool:
    """Whether the values of a picture were counted for this family, or follow a rule of thumb."""
    return family in TRANSFORMERS or family in PICTURES_OF


def picture_values(family: str, base: BaseModel, classes: int) -> float:
    """Of a picture in a model that sees alone."""
    height, width = base.picture_px
    if family in PICTURES_OF:
        return PICTURES_OF[family].of(base, classes)
    if family in TRANSFORMERS:
        return transformer_picture(base.vision, height * width)
    parameters = sum(math.prod(shape) for shape in base.weights().values())
    return _UNKNOWN * height * width * math.sqrt(parameters)
