"""The graphs of a vision-language model.

    vision    pixel_values (N, C, H, W) -> image_features (N, K, D), by tower and connector; of InstructBLIP
              also qformer_input_ids and qformer_attention_mask (N, W), the words that its Q-Former reads
    embed     input_ids (B, T) -> inputs_embeds (B, T, D)
    model     the language model on embeddings, see `language`

The features take the places of the picture's tokens, in their order, before the language model sees them.

Shape legend: N pictures or tiles of them, C, H, W channels, height and width, K tokens of a picture, D width
of the language model, B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from finemesh.package.onnx_graphs.language import language_graph
from finemesh.package.onnx_graphs.pictures import sample_pixels
from finemesh.package.onnx_graphs.tracing import Graph, Traced

_WORDS: Final = ("qformer_input_ids", "qformer_attention_mask")
_SAMPLE_PX: Final = (64, 64)


class _Llava(Traced):
    """CLIP's chosen layer, with or without its class token, through the projector."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projector = model.model.vision_tower, model.model.multi_modal_projector
        self.layer = model.config.vision_feature_layer
        self.first = 1 if model.config.vision_feature_select_strategy == "default" else 0

    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        layers = self.tower(fed["pixel_values"], output_hidden_states=True).hidden_states
        chosen = self.layer if isinstance(self.layer, list) else [self.layer]
        features_NKD = torch.cat([layers[each][:, self.first :] for each in chosen], dim=-1)
        return (self.projector(features_NKD),)


class _Idefics(Traced):
    """SigLIP over tiles without padding, folded by the connector."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.connector = model.model.vision_model, model.model.connector
        self.patch_px = model.config.vision_config.patch_size

    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        pixels_NCHW = fed["pixel_values"]
        height, width = (side // self.patch_px for side in pixels_NCHW.shape[2:])
        whole = torch.ones(pixels_NCHW.shape[0], height, width, dtype=torch.bool)
        found = self.tower(pixel_values=pixels_NCHW, patch_attention_mask=whole)
        return (self.connector(found.last_hidden_state),)


class _InstructBlip(Traced):
    """The Q-Former's queries, which read picture and words, projected."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.qformer = model.vision_model, model.qformer
        self.queries, self.projection = model.query_tokens, model.language_projection

    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        seen_NSD = self.tower(pixel_values=fed["pixel_values"]).last_hidden_state
        queries_NKD = self.queries.expand(seen_NSD.shape[0], -1, -1)
        words_NW = fed["qformer_attention_mask"]
        asked_NK = torch.ones(queries_NKD.shape[:2], dtype=words_NW.dtype)
        found = self.qformer(
            input_ids=fed["qformer_input_ids"],
            attention_mask=torch.cat([asked_NK, words_NW], dim=1),
            query_embeds=queries_NKD,
            encoder_hidden_states=seen_NSD,
            encoder_attention_mask=torch.ones(seen_NSD.shape[:2], dtype=words_NW.dtype),
        )
        return (self.projection(found.last_hidden_state[:, : queries_NKD.shape[1]]),)


class _Embedding(Traced):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embedding = model.get_input_embeddings()

    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (self.embedding(fed["input_ids"]),)


TOWERS: Final[dict[str, type[Any]]] = {
    "llava": _Llava,
    "idefics3": _Idefics,
    "smolvlm": _Idefics,
    "instructblip": _InstructBlip,
}


def seeing_graphs(model: Any, family: str, pixels: Mapping[str, Any]) -> list[Graph]:
    """The three graphs of a family of `TOWERS`.

    Args:
        model: of transformers.
        family: its name.
        pixels: the config of its image processor.
    """
    values = torch.from_numpy(sample_pixels(pixels, _SAMPLE_PX)["pixel_values"]).to(model.dtype)
    fed = {"pixel_values": values.reshape(-1, *values.shape[-3:])[:1].repeat(2, 1, 1, 1)}
    axes = {"pixel_values": {0: "pictures"}}
    if family == "instructblip":
        fed |= {name: torch.ones(2, 3, dtype=torch.int64) for name in _WORDS}
        axes |= {name: {0: "pictures", 1: "words"} for name in _WORDS}
    vision = Graph("vision", TOWERS[family](model), fed, axes, ("image_features",))
    tokens = {"input_ids": torch.ones(2, 3, dtype=torch.int64)}
    among = {"input_ids": {0: "batch", 1: "sequence"}}
    embed = Graph("embed", _Embedding(model), tokens, among, ("inputs_embeds",))
    # InstructBLIP as a whole insists on a picture; its language model is whole by itself.
    speaker = model.language_model if family == "instructblip" else model
    return [vision, embed, language_graph(speaker, embedded=True)]
