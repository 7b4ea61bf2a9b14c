"""What it changes that an adapter trained on a quantised base goes onto the unquantised one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load_file

from finemesh.core.spec.finetune import Lora, Quantization
from finemesh.package.golden_text import text_items
from finemesh.package.trained import Trained

UNQUANTISED: Final = "unquantised/"
_DIFFERENCE: Final = f"{UNQUANTISED}first_token_difference"
_AGREEMENT: Final = f"{UNQUANTISED}token_agreement"


def base_change(trained: Trained, split: str, golden: Path) -> dict[str, float]:
    """Figures over the golden items, for the card; empty where the base was not quantised in training.

    `first_token_difference` is the norm of what the logits of each first token differ by,
    as a share of the norm of those on the quantised base; `token_agreement` the share of greedy
    tokens that are the same.

    Args:
        trained: what was trained.
        split: of its dataset, from which the items are.
        golden: the golden set, which the model on the unquantised base has written.
    """
    method = trained.spec.method
    if not isinstance(method, Lora) or method.quantization is Quantization.NONE:
        return {}
    lines = (golden / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
    row_ids = [str(json.loads(line)["row_id"]) for line in lines]
    arrays = load_file(golden / "outputs.safetensors")
    apart = norm = agreeing = tokens = 0.0
    for index, item in enumerate(text_items(replace(trained, as_trained=True), split, row_ids)):
        before_V, after_V = item.outputs["logits"][0], arrays[f"{index}/outputs/logits"][0]
        apart += float(np.square(after_V - before_V, dtype=np.float64).sum())
        norm += float(np.square(before_V, dtype=np.float64).sum())
        ours, theirs = arrays[f"{index}/decision/tokens"], item.decision["tokens"]
        shared = min(len(ours), len(theirs))
        agreeing += float((ours[:shared] == theirs[:shared]).sum())
        tokens += max(len(ours), len(theirs))
    return {
        _DIFFERENCE: (apart / max(norm, 1e-30)) ** 0.5,
        _AGREEMENT: agreeing / max(tokens, 1.0),
    }


def said_of(metrics: Mapping[str, float]) -> list[str]:
    """A sentence for the card on what `base_change` found; none where it found nothing."""
    if _DIFFERENCE not in metrics:
        return []
    changed = (
        "The adapter was trained on a quantised base and goes here onto the unquantised one. Over the golden "
        f"items that changes the logits of the first tokens by {metrics[_DIFFERENCE]:.2%} of their norm; "
        f"{metrics[_AGREEMENT]:.1%} of the tokens generated greedily are the same."
    )
    return [changed]
