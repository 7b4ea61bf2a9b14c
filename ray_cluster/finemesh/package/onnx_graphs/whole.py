"""The graphs of a trained model in full precision, which all forms of ONNX package start from.

onnx.json    opset, precision, graphs, and what a runtime must know: `shipped/runtime_onnx.py` reads it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch

from finemesh.core.spec.finetune import Task
from finemesh.finetune.families.family import FROM_FOLDER
from finemesh.finetune.generation import end_ids
from finemesh.package.golden_pictures import decision_facts
from finemesh.package.onnx_graphs.language import language_graph
from finemesh.package.onnx_graphs.pictures import picture_graph, sample_pixels
from finemesh.package.onnx_graphs.seeing import seeing_graphs
from finemesh.package.onnx_graphs.tracing import OPSET, Graph, write_graph
from finemesh.package.trained import Trained

FACTS: Final = "onnx.json"
CONFIGS: Final = ("config.json", "generation_config.json")
# By fused attention these fix the number of their windows.
_EAGER: Final = frozenset({"swin", "mask2former"})
# Its code asks a tensor for its `len`, a number that running it would fix.
_BY_BYTECODE: Final = frozenset({"d-fine"})
_SAMPLE_PX: Final = (64, 64)


def whole_graphs(trained: Trained) -> Path:
    """A folder with graphs and `onnx.json` in fp32: made at the first asking, shared by what asks again."""
    folder = trained.scratch / "onnx"
    if not folder.exists():
        if trained.shared is None:
            write_graphs(trained, folder, torch.float32)
        else:
            trained.shared.fill(folder, "onnx", lambda made: write_graphs(trained, made, torch.float32))
    return folder


def write_graphs(trained: Trained, folder: Path, dtype: torch.dtype) -> None:
    """Write graphs, `onnx.json` and the model's configs. Raises what `write_graph` raises."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = _graphs(trained, dtype)
    names = [graph.name for graph in graphs]
    while graphs:  # each is let go once it is written
        write_graph(graphs.pop(0), folder)
    facts = {"opset": OPSET, "precision": str(dtype).removeprefix("torch."), "graphs": names}
    facts |= _speaking_facts(trained) if trained.speaks else {}
    write_facts(folder, facts)
    for name in CONFIGS:
        if (trained.merged / name).is_file():
            shutil.copyfile(trained.merged / name, folder / name)


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    (folder / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    return content


def files_of(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _graphs(trained: Trained, dtype: torch.dtype) -> list[Graph]:
    model = _load(trained, dtype)
    processor = trained.model.processor
    if trained.spec.task is Task.LANGUAGE:
        return [language_graph(model)]
    pixels = getattr(processor, "image_processor", processor).to_dict()
    if trained.speaks:
        return seeing_graphs(model, trained.family.name, pixels)
    by_bytecode = trained.family.name in _BY_BYTECODE
    return [picture_graph(model, pixels, decision_facts(trained), by_bytecode=by_bytecode)]


def _load(trained: Trained, dtype: torch.dtype) -> Any:
    import transformers

    eager = trained.family.name in _EAGER
    attention = trained.family.plain_attention if trained.speaks else "eager" if eager else None
    return (
        getattr(transformers, trained.family.auto_class)
        .from_pretrained(
            trained.merged,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            **FROM_FOLDER,
        )
        .eval()
    )


def _speaking_facts(trained: Trained) -> dict[str, Any]:
    model = trained.model
    config = model.config.get_text_config()
    facts: dict[str, Any] = {
        "end_ids": end_ids(model),
        "context_tokens": int(getattr(config, "max_position_embeddings", 0) or 0),
    }
    if trained.spec.task is Task.LANGUAGE:
        return facts
    processor = model.processor
    seen = sample_pixels(processor.image_processor.to_dict(), _SAMPLE_PX)
    pixels = seen["pixel_values"].reshape(-1, *seen["pixel_values"].shape[-3:])[:1]
    one = {"pixel_values": pixels}
    count = trained.family.image_features
    assert count is not None  # it sees
    facts |= {
        "image_token": processor.image_token,
        "image_token_id": int(model.tokenizer.convert_tokens_to_ids(processor.image_token)),
        "features": count(model.config, one),
    }
    if "grid" in seen:
        facts |= {"around": processor.fake_image_token, "whole": processor.global_image_tag}
    if trained.family.extras:
        facts["asks"] = True
    return facts
