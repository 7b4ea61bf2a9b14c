"""Models and data of the training benchmarks: random weights, lengths as conversations have them, seeded."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.support.conversations import message, row, write_dataset
from tests.support.shapes import shape_rows

WORDS: Final = 4000
TEXTS: Final = 488
HELD_OUT: Final = 64
SHORTEST, LONGEST, MEAN_LOG, SPREAD_LOG = 20, 512, 4.5, 0.8
SCENES: Final = 480
SIDE_PX: Final = 112
SHAPES: Final = 240


def write_language(folder: Path) -> Path:
    """A Llama of 5.3 M parameters (`model`), and texts of 20 to 512 tokens as `write_texts` makes them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    limits = (SHORTEST, LONGEST)
    size = write_texts(folder, {"train": TEXTS, "held_out": HELD_OUT}, MEAN_LOG, SPREAD_LOG, limits)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        initializer_range=0.05,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder


def write_texts(
    folder: Path, counts: dict[str, int], mean_log: float, spread_log: float, limits: tuple[int, int]
) -> int:
    """Texts (`<name>.jsonl`), those of `train` as a canonical dataset (`dataset`), and a tokenizer (`model`)
    to which every word is one token; returns the size of its vocabulary. Lengths are log-normal within
    `limits`, the end token included.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{n}": n + 3 for n in range(WORDS)}}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    texts = {name: [*_texts(rng, count, mean_log, spread_log, limits)] for name, count in counts.items()}
    for name, each in texts.items():
        lines = [json.dumps({"text": text}) for text in each]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [{**row(f"text-{n}", "train", []), "text": text} for n, text in enumerate(texts["train"])]
    write_dataset(folder / "dataset", rows)
    return len(vocabulary)


def write_scenes(folder: Path) -> Path:
    """A LLaVA of two layers, and 480 questions about pictures of 112 px."""
    from finemesh.finetune.tiny import build_tiny

    colours = ("red", "green", "blue", "yellow", "white", "black")
    question = "Which colour does the object in the middle of the picture have?"
    build_tiny("llava", folder / "model", [question, *colours * 3], 0)
    rng = np.random.default_rng(0)
    rows = [
        row(
            f"scene-{number}",
            "train",
            [message("user", "<picture>", question), message("assistant", colours[number % 6])],
            _picture(rng),
        )
        for number in range(SCENES)
    ]
    write_dataset(folder / "dataset", rows)
    return folder


def write_shapes(folder: Path) -> Path:
    """A YOLOS of two layers, and 240 pictures of 160 px with one to three shapes each."""
    from finemesh.finetune.tiny import build_tiny

    build_tiny("yolos", folder / "model", ["shapes"], 0)
    write_dataset(folder / "dataset", list(shape_rows({"train": SHAPES}, side_px=160)))
    return folder


def _texts(
    rng: np.random.Generator, count: int, mean_log: float, spread_log: float, limits: tuple[int, int]
) -> Iterator[str]:
    """Runs of numbers: each word mostly follows from the one before, so that there is something to learn."""
    lengths = np.exp(rng.normal(mean_log, spread_log, count)).clip(*limits).astype(int)
    for length in lengths:
        steps = rng.choice([1, 2, 7], size=length - 1, p=[0.7, 0.2, 0.1])
        words = (rng.integers(0, WORDS) + np.cumsum(steps)) % WORDS
        yield " ".join(f"w{word}" for word in words)


def _picture(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    pixels = rng.integers(0, 255, (SIDE_PX * 2, SIDE_PX * 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((320, 240)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
