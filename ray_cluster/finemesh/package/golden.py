"""The golden set: items of the dataset with what the trained model makes of them.

    golden/inputs.jsonl            per line row_id, messages (the prompt), image, generated, expected
    golden/images/000.png          the pictures, byte for byte those of the dataset
    golden/outputs.safetensors     per item `<index>/input_ids` (T), `<index>/tokens` (G), `<index>/logits`
    (G, V)

Shape legend: T tokens of the prompt, G generated tokens, V vocabulary.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from finemesh.core.errors import PreconditionError
from finemesh.finetune.attention import attention
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.generation import decode, end_ids, prompt_of
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
    # An item of a package shows one picture at most.
    usable = [sample for sample in encoded.samples if len(sample.images) <= 1]
    usable.sort(key=lambda sample: ranks[sample.row_id])
    if not usable:
        raise PreconditionError(f"no row of the split {split!r} can be used", reason="SPLIT_EMPTY")
    chosen = {sample.row_id: sample for sample in usable[:items]}
    (folder / "images").mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    with (folder / "inputs.jsonl").open("w", encoding="utf-8") as stream:
        for index, (row_id, sample) in enumerate(chosen.items()):
            prompt = prompt_of(sample)
            tokens_G, logits_GV = _generate(model, prompt, encoded)
            tensors |= {
                f"{index}/input_ids": torch.from_numpy(prompt.input_ids_T.copy()),
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
    if sample.images:
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


@torch.inference_mode()
def _generate(model: Model, prompt: Sample, encoded: EncodedSplit) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy tokens (G) up to the end token, and the logits (G, V) each was chosen from."""
    ends = set(end_ids(model))
    tokens: list[int] = []
    logits: list[torch.Tensor] = []
    with attention(model.module, model.family, model.family.plain_attention):
        for logits_BV in islice(decode(model, [prompt], encoded.pictures), MAX_GENERATED_TOKENS):
            logits.append(logits_BV[0])
            tokens.append(int(logits[-1].argmax()))
            if tokens[-1] in ends:
                break
    return torch.tensor(tokens), torch.stack(logits)
