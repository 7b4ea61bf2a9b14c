"""Forecasts of memory beside what a probe measures, on a CPU: `python -m tests.bench.estimate`.

One JSON line for each case: what was forecast, what was measured, and whether it lies inside. Each case is a
process of its own, for peaks only grow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.measuring import ROOT
from tests.bench.training_data import write_texts
from tests.support.conversations import colour_rows, write_dataset
from tests.support.shapes import shape_rows

# Width, feed-forward width, layers: 5 and 65 million parameters.
_LLAMAS: Final = {"small": (256, 688, 4), "middle": (768, 2048, 8)}
_METHODS: Final[dict[str, dict[str, Any]]] = {
    "full": {"full": {}},
    "lora": {"lora": {"rank": 16}},
    "nf4": {"lora": {"rank": 16, "quantization": "NF4"}},
}


@dataclass(frozen=True, slots=True)
class Case:
    """`spec` is a document, of a model and a dataset in folders."""

    name: str
    model: Path
    dataset: Path
    spec: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    only = parser.parse_args().only
    outside = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in _cases(Path(folder)):
            if only in case.name:
                line = _measured(case, Path(folder))
                outside += not line["inside"]
                print(json.dumps(line), flush=True)
    return int(outside > 0)


def _cases(folder: Path) -> Iterator[Case]:
    for size in _LLAMAS:
        yield from _language(folder / size, size)
    pictures = folder / "shapes"
    write_dataset(pictures, list(shape_rows({"train": 32})))
    for family, task in (
        ("yolos", "DETECTION"),
        ("detr", "DETECTION"),
        ("segformer", "SEMANTIC_SEGMENTATION"),
    ):
        yield Case(f"tiny-{family}-full", _tiny(folder, family), pictures, _picture(task))
    colours = folder / "colours"
    write_dataset(colours, list(colour_rows({"train": 32})))
    spec = {"task": "VISION_LANGUAGE", "lora": {"rank": 8}, "optimization": {"micro_batch_size": 8}}
    yield Case("tiny-llava-lora", _tiny(folder, "llava"), colours, spec)


def _language(folder: Path, size: str) -> Iterator[Case]:
    _write_llama(folder, *_LLAMAS[size])
    common: dict[str, Any] = {"task": "LANGUAGE", "objective": "TEXT", "sequence": {"max_tokens": 1024}}
    for name, method in _METHODS.items():
        for rows, twice in ((4, False), (16, False), (16, True)):
            optimization = {"micro_batch_size": rows, "activation_checkpointing": twice}
            label = f"{size}-{name}-{rows}{'-checkpointed' * twice}"
            yield Case(
                label, folder / "model", folder / "dataset", common | method | {"optimization": optimization}
            )


def _picture(task: str) -> dict[str, Any]:
    return {"task": task, "full": {}, "optimization": {"micro_batch_size": 8}}


def _tiny(folder: Path, family: str) -> Path:
    from finemesh.finetune.tiny import build_tiny

    return build_tiny(family, folder / f"tiny-{family}", ["some words"], seed=0)


def _write_llama(folder: Path, width: int, inner: int, layers: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir()
    words = write_texts(folder, {"train": 120, "held_out": 8}, 4.8, 0.8, (20, 512))
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    config = LlamaConfig(
        vocab_size=words, num_attention_heads=8, max_position_embeddings=1024, pad_token_id=0, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")


def _measured(case: Case, folder: Path) -> dict[str, Any]:
    spec = folder / f"{case.name}.json"
    document = {"base_model": str(case.model), "test_split": "", "validation_split": "", **case.spec}
    spec.write_text(json.dumps(document))
    command = [sys.executable, "-m", "finemesh.finetune", "probe", str(spec), "--dataset", str(case.dataset)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ})
    if ended.returncode:
        raise SystemExit(f"{case.name}: {ended.stderr[-2000:]}")
    told = json.loads(ended.stdout.splitlines()[-1])
    step = told["time"]["step_seconds"]
    return {
        "case": case.name,
        "forecast_mb": {end: round(told["peak"][end] / 1e6) for end in ("low", "likely", "high")},
        "measured_mb": round(told["peak_memory_bytes"] / 1e6),
        "inside": told["inside"],
        "step_forecast_s": {end: round(value, 4) for end, value in step.items()},
        "step_measured_s": round(told["step_seconds"], 4),
        "command": f"python -m tests.bench.estimate --only {case.name}",
    }


if __name__ == "__main__":
    sys.exit(main())
