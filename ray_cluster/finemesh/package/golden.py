"""The golden set: items of the dataset with what the trained model makes of them.

    golden/inputs.jsonl            per line row_id, messages (the prompt), image, generated, expected
    golden/images/000.png          the pictures, byte for byte those of the dataset
    golden/outputs.safetensors     per item `<index>/input_ids` (T), `<index>/tokens` (G), `<index>/logits`
    (G, V)

Shape legend: T tokens of the prompt, G generated tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file

from finemesh.core.errors import PreconditionError
from finemesh.finetune.attention import attention
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.models import Model
from finemesh.finetune.order import epoch_order
from finemesh.finetune.rows import Row, read_rows

MAX_GENERATED_TOKENS: Final = 8


def write_golden(model: Model, encoder: Encoder, dataset: Path, split: str, items: int, folder: Path) -> int:
    """Write `items` items of a split, chosen by the hash of their ids, and their outputs. Returns their
    number.

    Raises:
        PreconditionError: SPLIT_EMPTY, no row of the split can be used.
    """
    row_ids = [row.row_id for row in read_rows(dataset, split, columns=("row_id",))]
    order = epoch_order(row_ids, seed=0, epoch=0)
    # Twice as many as needed: a few may turn out unusable.
    ranks = {row_ids[index]: rank for rank, index in enumerate(order[: 2 * items])}
    rows = {row.row_id: row for row in read_rows(dataset, split) if row.row_id in ranks}
    encoded = encoder.encode_rows(dataset, rows.values())
    if not encoded.samples:
        raise PreconditionError(f"no row of the split {split!r} can be used", reason="SPLIT_EMPTY")
    usable = sorted(encoded.samples, key=lambda sample: ranks[sample.row_id])
    chosen = {sample.row_id: sample for sample in usable[:items]}
    (folder / "images").mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    with (folder / "inputs.jsonl").open("w", encoding="utf-8") as stream:
        for index, (row_id, sample) in enumerate(chosen.items()):
            prompt_T = _prompt(sample)
            tokens_G, logits_GV = _generate(model, prompt_T, sample, encoded)
            tensors |= {
                f"{index}/input_ids": prompt_T,
                f"{index}/tokens": tokens_G,
                f"{index}/logits": logits_GV,
            }
            item = _item(rows[row_id], index, sample, folder)
            item["generated"] = model.tokenizer.decode(tokens_G, skip_special_tokens=True).strip()
            stream.write(json.dumps(item, ensure_ascii=False) + "\n")
    save_file(tensors, folder / "outputs.safetensors")
    return len(chosen)


def _item(row: Row, index: int, sample: Sample, folder: Path) -> dict[str, Any]:
    last = max(turn for turn, message in enumerate(row.messages) if message["role"] == "assistant")
    image = ""
    if sample.location:
        image = f"golden/images/{index:03d}{_suffix(row.images[0])}"
        (folder.parent / image).write_bytes(row.images[0])
    return {
        "row_id": row.row_id,
        "messages": row.messages[:last],
        "image": image,
        "expected": "".join(part["text"] for part in row.messages[last]["content"]),
    }


def _suffix(image: bytes) -> str:
    return ".png" if image.startswith(b"\x89PNG") else ".webp" if image[8:12] == b"WEBP" else ".jpg"


def _prompt(sample: Sample) -> torch.Tensor:
    """The tokens before the last run of tokens with loss, as training saw them."""
    last_T = np.flatnonzero(sample.loss_T & ~np.append(False, sample.loss_T[:-1]))
    return torch.from_numpy(sample.input_ids_T[: last_T[-1]].copy())


@torch.inference_mode()
def _generate(
    model: Model, prompt_T: torch.Tensor, sample: Sample, encoded: EncodedSplit
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy tokens (G) up to the end token, and the logits (G, V) each was chosen from."""
    ends = set(_end_ids(model))
    inputs: dict[str, Any] = {"input_ids": prompt_T.unsqueeze(0)}
    if sample.location:
        inputs["pixel_values"] = torch.from_numpy(encoded.pictures.load(sample.location)).unsqueeze(0)
    tokens: list[int] = []
    logits: list[torch.Tensor] = []
    with attention(model.module, model.family, model.family.plain_attention):
        while len(tokens) < MAX_GENERATED_TOKENS and not (tokens and tokens[-1] in ends):
            output = model.module(**inputs, use_cache=True)
            logits.append(output.logits[0, -1].float())
            tokens.append(int(logits[-1].argmax()))
            inputs = {"input_ids": torch.tensor([[tokens[-1]]]), "past_key_values": output.past_key_values}
    return torch.tensor(tokens), torch.stack(logits)


def _end_ids(model: Model) -> Iterator[int]:
    configured = model.module.generation_config.eos_token_id
    yield from configured if isinstance(configured, list) else [configured]
    yield model.tokenizer.eos_token_id
