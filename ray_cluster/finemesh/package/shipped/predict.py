"""Ask the model of this package a question: python predict.py "What is this?" --image picture.jpg [--base
DIR]

Needs torch, transformers, pillow, safetensors and, for an adapter, peft.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

HERE = Path(__file__).parent


def load(package: Path, base: str | None = None) -> tuple[Any, Any]:
    """The model and its processor (or tokenizer), in fp32 on the CPU.

    Args:
        package: folder of the package.
        base: folder or hub id of the base model of an adapter; by default the one it was trained on.
    """
    manifest = json.loads((package / "manifest.json").read_bytes())
    auto_class = getattr(transformers, manifest["auto_class"])
    if manifest["format"] == "ADAPTER":
        from peft import PeftModel

        source = base or manifest["base_model"]["name"]
        revision = None if base else manifest["base_model"]["revision"] or None
        model = auto_class.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True
        )
        model = PeftModel.from_pretrained(model, str(package))
    else:
        model = auto_class.from_pretrained(package, dtype=torch.float32, use_safetensors=True)
    if (package / "processor_config.json").exists():
        processor = transformers.AutoProcessor.from_pretrained(package, backend="pil")
    else:
        processor = transformers.AutoTokenizer.from_pretrained(package)
    return model.eval(), processor


def encode(processor: Any, messages: list[dict[str, Any]], image: Image.Image | None) -> dict[str, Any]:
    """Model inputs for a conversation that the assistant shall answer; content in parts."""
    if not hasattr(processor, "image_processor"):
        messages = [
            {"role": message["role"], "content": "".join(part["text"] for part in message["content"])}
            for message in messages
        ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures = {"images": [image.convert("RGB")]} if image else {}
    return dict(processor(text=[text], add_special_tokens=False, return_tensors="pt", **pictures))


def answer(model: Any, processor: Any, inputs: dict[str, Any], max_new_tokens: int) -> str:
    """The most likely continuation, token by token."""
    with torch.inference_mode():
        output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    tokens = output[0, inputs["input_ids"].shape[1] :]
    return str(processor.decode(tokens, skip_special_tokens=True)).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--base", help="folder or hub id of the base model of an adapter")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    given = parser.parse_args()
    model, processor = load(HERE, given.base)
    parts = [{"type": "image", "text": ""}] if given.image else []
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": given.question}]}]
    inputs = encode(processor, messages, Image.open(given.image) if given.image else None)
    print(answer(model, processor, inputs, given.max_new_tokens))  # noqa: T201


if __name__ == "__main__":
    main()
