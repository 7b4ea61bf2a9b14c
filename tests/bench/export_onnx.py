"""`python -m tests.bench.export_onnx`, part of `make bench-export`: ONNX packages, a JSON line per bar.

speed    a Llama of 20 M parameters to a graph with its cache, against optimum, which runs under its own
         transformers: it installs beside none of the release that is used here
exact    each family of the catalogue through the gate: how far its graph is from the trained model
drift    small models that have learnt their task: packages of fewer bits, within their tolerance

`--only` names some of them. Memory is what is above the imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import Checkpointing, Full, Optimization
from finemesh.finetune.families import FAMILIES
from finemesh.package.formats import FORMATS
from finemesh.package.parity import verify_package
from finemesh.package.trained import Trained

from tests.bench.measuring import ENVIRONMENT, FEW, ROOT, SCRATCH, Board
from tests.bench.peers import peer_python
from tests.support.onnx_models import export_tiny, train_tiny

# The newest optimum that exports; it asks for transformers below 4.58.
PEERS: Final = ("torch==2.13.0", "optimum-onnx==0.1.0", "onnxruntime==1.31.1")
_SHRUNK: Final = (
    ExportFormat.ONNX_FP16,
    ExportFormat.ONNX_INT8,
    ExportFormat.ONNX_INT8_STATIC,
    ExportFormat.ONNX_INT4,
)
_STEPS: Final = {"llama": 600, "vit": 150}


def speed_bars(board: Board, folder: Path) -> None:
    """Whole processes by turns; what counts is the time between weights and graph."""
    model = _llama(folder / "llama")
    ours, theirs = list[dict[str, float]](), list[dict[str, float]]()
    for turn in range(FEW):
        ours.append(_spent("finemesh", sys.executable, model, folder / f"ours-{turn}"))
        theirs.append(_spent("optimum", peer_python("export-onnx", PEERS), model, folder / f"theirs-{turn}"))
    what = "ONNX of a Llama of 20 M parameters, against optimum"
    for name, unit in (("wall", "s"), ("cpu", "CPU s"), ("peak", "MB")):
        # FEW runs: the median of their ratios is what is compared, whatever the goal.
        ratios = sorted(b[name] / a[name] for a, b in zip(ours, theirs, strict=True))
        middle = FEW // 2
        mine, peer = (
            sorted(each[name] for each in ours)[middle],
            sorted(each[name] for each in theirs)[middle],
        )
        board.show(f"{what}, {name}", mine, 1.0, unit, peer, ratios[middle])


def _spent(name: str, python: Path | str, model: Path, out: Path) -> dict[str, float]:
    command = [str(python), "-m", "tests.bench.export_onnx_contenders", name, str(model), str(out)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-4000:]}")
    spent: dict[str, float] = json.loads(done.stdout)
    return spent


def _llama(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    make: Any = LlamaConfig
    config = make(
        vocab_size=8000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=6,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    content = json.loads((folder / "config.json").read_bytes())  # older releases read these names
    (folder / "config.json").write_text(
        json.dumps(content | {"rope_theta": 10000.0, "torch_dtype": "float32"})
    )
    return folder


def exact_bars(board: Board, folder: Path) -> None:
    """Every family that has a tiny model, as trained for two steps."""
    for family in FAMILIES:
        if family.tiny_config is None or family.extra:
            continue
        try:
            trained = train_tiny(folder / family.name, family.name, steps=2)
            limit = FORMATS[ExportFormat.ONNX].tolerance.max_difference or 0.0
            _gate(board, trained, ExportFormat.ONNX, family.name, "largest difference of any output", limit)
        except InvalidError as error:
            print(json.dumps({"bar": f"ONNX of {family.name}", "refused": error.message}), flush=True)


def drift_bars(board: Board, folder: Path) -> None:
    """Sizes, and how far each is off as a share of the outputs' norm."""
    counts = {"train": 512, "test": 32}
    learning = {  # from random weights: all of them, and more of each step
        "method": Full(),
        "optimization": Optimization(learning_rate=2e-3, micro_batch_size=16, seed=3),
        "checkpoint": Checkpointing(every_steps=_STEPS["llama"]),
    }
    for trained in (
        train_tiny(folder / "llama", "llama", steps=_STEPS["llama"], counts=counts, **learning),
        train_tiny(folder / "vit", "vit", steps=_STEPS["vit"], counts=counts),
    ):
        for form in (ExportFormat.ONNX, *_SHRUNK):
            limit = FORMATS[form].tolerance.max_relative_difference
            name = trained.family.name
            try:
                _gate(board, trained, form, name, "largest difference as a share", limit)
            except InvalidError as error:
                print(json.dumps({"bar": f"{form} of {name}", "refused": error.message}), flush=True)


def _gate(board: Board, trained: Trained, form: ExportFormat, family: str, what: str, limit: float) -> None:
    """The gate's own number; the bar is missed too where it rejects for another reason."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as place:
        out = Path(place) / "package"
        export_tiny(trained, out, form, items=16)
        report = verify_package(out)
        size = sum(path.stat().st_size for path in out.glob("*.onnx*"))
    value = next((each.value for each in report.checks if each.what.startswith(what)), float("inf"))
    agreement = next((each.value for each in report.checks if each.kind == "decisions"), 0.0)
    line = {
        "bar": f"{form} of {family}, {what}",
        "ours": value,
        "goal": limit,
        "unit": "",
        "met": report.passed,
    }
    line |= {"agreement": agreement, "bytes": size, "reasons": list(report.reasons), "command": board.command}
    print(json.dumps(line), flush=True)


GROUPS: Final[dict[str, Callable[[Board, Path], None]]] = {
    "speed": speed_bars,
    "exact": exact_bars,
    "drift": drift_bars,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir=SCRATCH) as folder:
        for name in asked.only:
            GROUPS[name](Board("make bench-export"), Path(folder) / name)


if __name__ == "__main__":
    main()
