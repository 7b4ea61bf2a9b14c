"""The merge of a fine-tune into its base against peft's, and the memory it takes.

100m     100 million parameters, by turns with peft
1b       1,000 million by ours alone, for its memory

`--only` names some of them. Each run is a process of its own. Ours reads files and writes files; peft's clock
starts when its model is in memory. By then transformers has built its table of renamed weights, a thousand
expressions, so ours has it built before its clock starts too. Anonymous memory is `RssAnon` of
/proc/self/status, which leaves mapped files out, looked at every two milliseconds, above what it was after
the imports.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tests.bench.measuring import ENVIRONMENT, PAIRS, ROOT, SCRATCH, Board

SHARD_BYTES: Final = 64_000_000
RANK: Final = 16
_STATUS: Final = Path("/proc/self/status")
_SMALL: Final = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8}
_LARGE: Final = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 17}


def small_bars(board: Board, folder: Path) -> None:
    """100 million parameters by turns with peft, in memory where the system has some: see `measuring`."""
    count = _make(folder, "float32", **_SMALL)
    made = [[_run(who, folder) for who in ("finemesh", "peft")] for _ in range(PAIRS)]
    ours, theirs = ([run[side]["wall"] for run in made] for side in (0, 1))
    what = f"merge and save of {count / 1e6:.0f} M parameters, shards of 64 MB"
    board.ratio(f"{what}, against peft", ours, theirs, 1.5, "s")
    peak, peer = (max(run[side]["peak"] for run in made) for side in (0, 1))
    board.show(f"{what}, anonymous memory above the imports", peak, 200, "MB", peer)


def large_bars(board: Board, folder: Path) -> None:
    """1,000 million, which are read in 16 bits and written in 32."""
    count = _make(folder, "bfloat16", **_LARGE)
    peak = _run("finemesh", folder)["peak"]
    what = f"merge and save of {count / 1e6:.0f} M parameters, anonymous memory above the imports"
    board.show(what, peak, 1024, "MB")


def _make(folder: Path, dtype: str, **sizes: int) -> int:
    """A Llama of random weights with an adapter on every linear layer, written a portion at a time."""
    import torch
    from finemesh.package.safetensor_shards import Planned, write_shards
    from transformers import AutoModelForCausalLM, LlamaConfig

    make: Any = LlamaConfig  # its fields are not all known to type checkers
    config = make(vocab_size=32000, num_attention_heads=16, num_key_value_heads=16, **sizes)
    config.dtype = dtype
    with torch.device("meta"):
        module: Any = AutoModelForCausalLM.from_config(config)
    base, adapter = folder / "base", folder / "checkpoint" / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir(parents=True)
    kind = getattr(torch, dtype)
    tensors = {
        name: Planned(tuple(each.shape), kind, partial(_random, tuple(each.shape), kind))
        for name, each in module.state_dict().items()
    }
    write_shards(base, tensors, 1_000_000_000)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(base)
    _write_adapter(module, adapter)
    return sum(each.numel() for each in module.state_dict().values())


def _random(shape: Sequence[int], dtype: Any) -> Iterator[Any]:
    import torch

    rows = 1024 if len(shape) > 1 else shape[0]
    for start in range(0, shape[0], rows):
        count = min(rows, shape[0] - start)
        yield (0.02 * torch.randn(count, *shape[1:])).to(dtype)


def _write_adapter(module: Any, folder: Path) -> None:
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for name, each in module.named_modules():
        if isinstance(each, torch.nn.Linear) and name != "lm_head":
            tensors[f"base_model.model.{name}.lora_A.weight"] = 0.02 * torch.randn(RANK, each.in_features)
            tensors[f"base_model.model.{name}.lora_B.weight"] = 0.02 * torch.randn(each.out_features, RANK)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    config.save_pretrained(str(folder))


def _run(who: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.export_merge", "--once", who, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{who} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", _STATUS.read_text())
    assert found
    return int(found[1]) / 1024


@contextmanager
def _watched() -> Generator[dict[str, float]]:
    """Seconds on the wall, and the peak of anonymous memory above what it is now, in MB."""
    before, ended = _anonymous_mb(), threading.Event()
    seen = {"wall": 0.0, "peak": 0.0}

    def look() -> None:
        while not ended.wait(0.002):
            seen["peak"] = max(seen["peak"], _anonymous_mb() - before)

    thread = threading.Thread(target=look)
    thread.start()
    began = time.perf_counter()
    try:
        yield seen
    finally:
        seen["wall"] = time.perf_counter() - began
        ended.set()
        thread.join()


def _finemesh(folder: Path, out: Path) -> dict[str, float]:
    import torch
    from finemesh.core.spec.finetune import FineTuneSpec, Lora, Task
    from finemesh.finetune.families import family_of
    from finemesh.package.merging import stream_merge
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import_module("transformers.models.llama.modeling_llama")
    get_checkpoint_conversion_mapping("llama")
    base = folder / "base"
    spec = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d", method=Lora(rank=RANK))
    family = family_of(base, Task.LANGUAGE)
    with _watched() as seen:
        stream_merge(
            spec, family, base, folder / "checkpoint", (), out, torch.float32, shard_bytes=SHARD_BYTES
        )
    return seen


def _peft(folder: Path, out: Path) -> dict[str, float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    before = _anonymous_mb()
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(base, str(folder / "checkpoint" / "adapter"))
    loaded = _anonymous_mb() - before
    with _watched() as seen, torch.inference_mode():
        model.merge_and_unload().save_pretrained(out, max_shard_size=SHARD_BYTES)
    return {**seen, "peak": seen["peak"] + loaded}


# The larger one goes to the disk: it would fill the memory of a small machine.
GROUPS: Final = {"100m": (small_bars, SCRATCH), "1b": (large_bars, None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--once", nargs=2, metavar=("WHO", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        who, folder = given.once
        with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir=folder) as out:
            made = (_finemesh if who == "finemesh" else _peft)(Path(folder), Path(out))
        print(json.dumps(made))
        return
    for name in given.only:
        measure, place = GROUPS[name]
        with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir=place) as folder:
            measure(Board("make bench-export"), Path(folder))


if __name__ == "__main__":
    main()
