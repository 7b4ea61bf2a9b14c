"""`python -m tests.bench.export_onnx_contenders NAME MODEL OUT`: one way to make an ONNX graph of a Llama.

Prints JSON: the wall and CPU seconds from the weights on disk to the graph on disk, imports left out, and the
peak of the memory in MB, with what the imports took. optimum runs under a Python of its own, which has no
finemesh: so everything is imported where it is needed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

Job = Callable[[Path, Path], object]


def _peak_mb(name: str = "VmHWM") -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1000


def finemesh() -> Job:
    """As `formats/onnx.py` does it."""
    import torch
    import transformers
    from finemesh.package.onnx_graphs.language import language_graph
    from finemesh.package.onnx_graphs.tracing import write_graph

    def job(model: Path, out: Path) -> object:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        out.mkdir(parents=True)
        return write_graph(language_graph(loaded.eval()), out)

    return job


def optimum() -> Job:
    """Without its validation: ours comes later too."""
    exporters: Any = import_module("optimum.exporters.onnx")

    def job(model: Path, out: Path) -> object:
        return exporters.main_export(
            str(model), out, task="text-generation-with-past", do_validation=False, local_files_only=True
        )

    return job


def main() -> None:
    name, model, out = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # exporters print what they like
    job = {"finemesh": finemesh, "optimum": optimum}[name]()
    before, wall, cpu = _peak_mb("VmRSS"), time.perf_counter(), time.process_time()
    job(Path(model), Path(out))
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    graphs = [path for path in Path(out).iterdir() if ".onnx" in path.name]
    size = sum(path.stat().st_size for path in graphs) / 1e6
    print(json.dumps({**spent, "peak": _peak_mb() - before, "graph": size}), file=answers)


if __name__ == "__main__":
    main()
