"""The graph of a language model: the prompt and each next token by one graph, which takes the keys and values
of what came before and gives them back longer.

    inputs     input_ids (B, T) or inputs_embeds (B, T, D), attention_mask (B, P + T), position_ids (B, T),
               past_key_values.<layer>.key and .value (B, A, P, E)
    outputs    logits (B, T, V), present.<layer>.key and .value (B, A, P + T, E)

The names are those that runtimes of ONNX language models expect.

Shape legend: B rows, T tokens, P tokens before them, D width, A heads of keys, E width of a head,
V vocabulary.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from finemesh.core.errors import InvalidError
from finemesh.package.onnx_graphs.tracing import Graph, Traced

_ROWS: Final = 2
_TOKENS: Final = 3
_BEFORE: Final = 5


class _Speaking(Traced):
    def __init__(self, model: Any, layers: int) -> None:
        super().__init__()
        self.model = model
        self.layers = layers

    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        from transformers import DynamicCache

        fed = dict(fed)
        past = [
            (fed.pop(f"past_key_values.{layer}.key"), fed.pop(f"past_key_values.{layer}.value"))
            for layer in range(self.layers)
        ]
        cache: Any = DynamicCache(past)
        logits_BTV = self.model(**fed, past_key_values=cache, use_cache=True).logits
        present = [each for layer in cache.layers for each in (layer.keys, layer.values)]
        return logits_BTV, *present


def language_graph(model: Any, *, name: str = "model", embedded: bool = False) -> Graph:
    """The graph of a causal language model.

    Args:
        model: of transformers.
        name: of the file.
        embedded: it takes embeddings instead of tokens.

    Raises:
        InvalidError: FORMAT_UNSUITABLE, it keeps something else than keys and values.
    """
    heads = _heads(model)
    seen = torch.ones(_ROWS, _BEFORE + _TOKENS, dtype=torch.int64)
    positions_BT = torch.arange(_BEFORE, _BEFORE + _TOKENS).repeat(_ROWS, 1)
    tokens_BT = torch.ones(_ROWS, _TOKENS, dtype=torch.int64)
    fed = {"attention_mask": seen, "position_ids": positions_BT}
    if embedded:
        fed = {"inputs_embeds": model.get_input_embeddings()(tokens_BT).detach(), **fed}
    else:
        fed = {"input_ids": tokens_BT, **fed}
    axes = {
        next(iter(fed)): {0: "batch", 1: "sequence"},
        "attention_mask": {0: "batch", 1: "past+sequence"},
        "position_ids": {0: "batch", 1: "sequence"},
    }
    for layer, pair in enumerate(heads):
        for kind, (count, width) in zip(("key", "value"), pair, strict=True):
            each = f"past_key_values.{layer}.{kind}"
            fed[each] = torch.zeros(_ROWS, count, _BEFORE, width, dtype=model.dtype)
            axes[each] = {0: "batch", 2: "past"}
    present = [f"present.{layer}.{kind}" for layer in range(len(heads)) for kind in ("key", "value")]
    return Graph(name, _Speaking(model, len(heads)), fed, axes, ("logits", *present))


@torch.inference_mode()
def _heads(model: Any) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of each layer, count and width of the heads of its keys, and of its values."""
    embedded = model.get_input_embeddings()(torch.ones(1, 2, dtype=torch.int64))
    cache = model(inputs_embeds=embedded, use_cache=True).past_key_values
    shapes = [
        (_head(layer.keys), _head(layer.values))
        for layer in getattr(cache, "layers", ())
        if getattr(layer, "keys", None) is not None and layer.keys.ndim == 4
    ]
    if not shapes or len(shapes) != model.config.get_text_config().num_hidden_layers:
        raise InvalidError.of(
            "export.format",
            "no ONNX of this model: it keeps something else than keys and values of its layers; export it "
            "as MERGED",
            reason="FORMAT_UNSUITABLE",
        )
    return shapes


def _head(states_BAPE: torch.Tensor) -> tuple[int, int]:
    return states_BAPE.shape[1], states_BAPE.shape[3]
