"""Replay the golden items of a package and compare with the trained model: python verify.py [PACKAGE] [--base
DIR]

Prints a report as JSON. Exits with 0 if the package is intact and within tolerance, with 1 otherwise.
Needs what predict.py needs; it loads the package as anyone would, with the package's own processor and
template.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from predict import HERE, encode, load  # pyright: ignore[reportMissingImports]  (the file beside this one)
from safetensors.torch import load_file


def broken_files(package: Path) -> list[str]:
    """Files that are missing or have other bytes than the manifest says."""
    manifest = json.loads((package / "manifest.json").read_bytes())
    broken: list[str] = []
    for each in manifest["files"]:
        path = package / each["path"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != each["sha256"]:
            broken.append(each["path"])
    return broken


def replay(package: Path, base: str | None) -> dict[str, Any]:
    """Run every golden item. Logits are compared along the tokens that the trained model gave."""
    model, processor = load(package, base)
    golden = load_file(package / "golden" / "outputs.safetensors")
    lines = (package / "golden" / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
    equal_inputs = agreeing = tokens = 0
    difference = 0.0
    for index, line in enumerate(lines):
        item = json.loads(line)
        image = Image.open(package / item["image"]) if item["image"] else None
        inputs = encode(processor, item["messages"], image)
        equal_inputs += torch.equal(inputs["input_ids"][0], golden[f"{index}/input_ids"])
        expected_GV, tokens_G = golden[f"{index}/logits"], golden[f"{index}/tokens"]
        logits_GV = logits_along(model, inputs, tokens_G)
        difference = max(difference, float((logits_GV - expected_GV).abs().max()))
        agreeing += int((logits_GV.argmax(-1) == tokens_G).sum())
        tokens += len(tokens_G)
    return {
        "items": len(lines),
        "inputs_equal": equal_inputs / len(lines),
        "max_logit_difference": difference,
        "token_agreement": agreeing / tokens,
    }


@torch.inference_mode()
def logits_along(model: Any, inputs: dict[str, Any], tokens_G: torch.Tensor) -> torch.Tensor:
    """Logits (G, V) from which each of the G tokens would be chosen, given the prompt and those before it."""
    ids = torch.cat([inputs["input_ids"], tokens_G[None, :-1]], dim=1)
    extended = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model(**extended, use_cache=False).logits[0, -len(tokens_G) :].float()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="?", type=Path, default=HERE)
    parser.add_argument("--base", help="folder or hub id of the base model of an adapter")
    parser.add_argument("--max-logit-difference", type=float, default=1e-3)
    parser.add_argument("--min-token-agreement", type=float, default=1.0)
    given = parser.parse_args()
    report: dict[str, Any] = {}
    reasons = [f"{name} is not as the manifest says" for name in broken_files(given.package)]
    if not reasons:
        report = replay(given.package, given.base)
        if not report["max_logit_difference"] <= given.max_logit_difference:
            reasons.append(f"logits differ by {report['max_logit_difference']:.3g}")
        if not report["token_agreement"] >= given.min_token_agreement:
            reasons.append(f"only {report['token_agreement']:.1%} of the tokens agree")
        if report["inputs_equal"] < 1:
            reasons.append("processor or chat template make other tokens than in training")
    report |= {
        "passed": not reasons,
        "reasons": reasons,
        "tolerance": {
            "max_logit_difference": given.max_logit_difference,
            "min_token_agreement": given.min_token_agreement,
        },
        "runtime": {
            "name": "transformers",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    print(json.dumps(report))  # noqa: T201
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
