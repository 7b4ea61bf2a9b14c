"""`make bench-gpu`: the training loop on an accelerator against a plain loop of transformers and peft.

Models have random weights in the shapes that people train; texts are log-normal in length, up to 4096 tokens,
in bfloat16. Ours packs them; the plain loop pads each batch to its longest text, as loops commonly do. The
bar is the ratio of real tokens per second; with it model FLOP utilisation is printed: operations of the
model, not of recomputation, over the peak of the device. `--trace` writes what bounds ours as a trace for
perfetto, and prints its most costly operations. `--shape tiny --device cpu` tries the code without an
accelerator.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from finemesh.core.spec.finetune import (
    FineTuneSpec,
    Full,
    Lora,
    Objective,
    Optimization,
    Precision,
    Resources,
    Sequence,
    Task,
    Tower,
)
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train
from finemesh.finetune.order import epoch_order

from tests.bench.measuring import Board
from tests.bench.training_common import LINEAR, RANK, Clock
from tests.bench.training_data import write_texts

GOAL: Final = 1.8
ROWS: Final = 8
# Dense bfloat16, operations per second, by NVIDIA's data sheets.
PEAKS: Final = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama. `longest` and `mean` are tokens of its texts."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    longest: int = 4096
    mean: int = 900

    @property
    def weights(self) -> int:
        """Weights that tokens are multiplied with: the linear layers and the head."""
        head = self.hidden // self.heads
        attention = 2 * self.hidden * (self.hidden + head * self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + self.hidden * self.vocabulary

    def operations(self, lengths: list[int], *, whole: bool) -> float:
        """Of forward and backward over texts (https://arxiv.org/abs/2204.02311, appendix B): for each weight
        and token two forward, two for the gradient of what goes in, two for that of the weight if it is
        trained; and those of causal attention.
        """
        tokens, pairs = sum(lengths), sum(length * (length + 1) / 2 for length in lengths)
        per_weight = 6 if whole else 4
        return per_weight * self.weights * tokens + 12 * self.layers * self.hidden * pairs


SHAPES: Final = {
    "tiny": Shape(64, 128, 2, 4, 2, 4003, longest=96, mean=24),
    "llama-1b": Shape(2048, 8192, 16, 32, 8, 128_256),
    "llama-3b": Shape(3072, 8192, 28, 24, 8, 128_256),
    "llama-8b": Shape(4096, 14_336, 32, 32, 8, 128_256),
}


def write_model(shape: Shape, folder: Path) -> None:
    """Random weights in bfloat16 into `folder`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=8192,
        dtype="bfloat16",
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)


def spec_of(device: str, *, whole: bool, checkpointing: bool, longest: int) -> FineTuneSpec:
    lora = Lora(RANK, 2.0 * RANK, target_modules=tuple(LINEAR))
    return FineTuneSpec(
        task=Task.LANGUAGE,
        objective=Objective.TEXT,
        base_model="benchmark",
        dataset="projects/benchmark/datasets/benchmark",
        validation_split="",
        test_split="",
        method=Full((Tower.LANGUAGE,)) if whole else lora,
        optimization=Optimization(micro_batch_size=ROWS, activation_checkpointing=checkpointing),
        sequence=Sequence(max_tokens=longest),
        precision=Precision.BF16,
        resources=Resources(cpus=8, gpus=int(device == "cuda")),
    )


def ours(folder: Path, spec: FineTuneSpec) -> Clock:
    clock = Clock()

    class Hooks(NoHooks):
        def on_metrics(self, step: int, values: dict[str, float]) -> None:
            if "train/loss" in values:  # it has been read from the device, so the step is done
                clock.step_ended()

    with tempfile.TemporaryDirectory() as work:
        dataset = folder / "dataset"
        train(spec, base_model=folder / "model", dataset=dataset, work=Path(work), hooks=Hooks())
    return clock


def plain(folder: Path, spec: FineTuneSpec, device: str) -> Clock:
    """A loop as tutorials show it: batches padded on the right, autocast, AdamW, clipping."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    whole, clock = isinstance(spec.method, Full), Clock()
    dtype = torch.float32 if whole else torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    if spec.optimization.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if not whole:
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    model.to(device).train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=spec.optimization.learning_rate, fused=True)
    for part in batches(folder):
        width = max(len(ids) for ids in part)
        ids = torch.tensor([[*each, *[0] * (width - len(each))] for each in part], device=device)
        mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in part], device=device)
        with torch.autocast(device, torch.bfloat16):
            labels = ids.masked_fill(mask == 0, -100)
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        clock.step_ended()
    return clock


def batches(folder: Path) -> list[list[list[int]]]:
    """The texts in the order of ours, encoded."""
    from transformers import AutoTokenizer

    lines = (folder / "train.jsonl").read_text().splitlines()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
    ids = [[*tokenizer(json.loads(line)["text"])["input_ids"], tokenizer.eos_token_id] for line in lines]
    order = epoch_order([f"text-{number}" for number in range(len(ids))], 0, 0)
    return [[ids[index] for index in order[at : at + ROWS]] for at in range(0, len(order), ROWS)]


@contextmanager
def traced(path: Path | None) -> Generator[None]:
    """Everything inside is profiled, if a path is given."""
    if path is None:
        yield
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        yield
    profile.export_chrome_trace(str(path))
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=order, row_limit=15))


def compare(board: Board, name: str, folder: Path, asked: argparse.Namespace) -> None:
    """One bar: LoRA or full tuning of one shape."""
    shape, device = SHAPES[name], asked.device
    lengths = [[len(ids) for ids in part] for part in batches(folder)]
    whole = asked.method == "full"
    spec = spec_of(device, whole=whole, checkpointing=asked.checkpointing, longest=shape.longest)
    done = [length for part in lengths[1:] for length in part]  # the clock leaves the first step out
    operations, tokens = shape.operations(done, whole=whole), sum(done)
    runs: list[Callable[[], Clock]] = [lambda: ours(folder, spec), lambda: plain(folder, spec, device)]
    rates: list[float] = []
    for who, run in zip(("ours", "plain loop"), runs, strict=True):
        with traced(asked.trace if who == "ours" else None):
            clock = run()
        rates.append(tokens / clock.wall)
        peak = next((each for part, each in PEAKS.items() if part in device_name(device)), None)
        share = f", {operations / clock.wall / peak:.1%} of the peak" if peak else ""
        print(f"{who}: {rates[-1]:,.0f} tokens/s, {operations / clock.wall / 1e12:.2f} TFLOP/s{share}")
        if device == "cuda":
            print(f"{who}: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most")
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    mine, theirs = (1000 / rate for rate in rates)
    what = f"{asked.method} of {name} on {device_name(device)}, against a plain loop"
    board.show(what, mine, GOAL, "s per 1000 tokens", theirs, theirs / mine)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-1b")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--texts", type=int, default=160)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in both")
    parser.add_argument("--trace", type=Path, help="write a trace of ours to this file")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "there is no accelerator here: try --shape tiny --device cpu\n")
    shape = SHAPES[asked.shape]
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as place:
        folder = Path(place)
        mean_log = float(np.log(shape.mean))
        write_texts(folder, {"train": asked.texts}, mean_log, 0.8, (shape.mean // 8, shape.longest))
        write_model(shape, folder / "model")
        compare(Board(f"python -m tests.bench.gpu --shape {asked.shape}"), asked.shape, folder, asked)


if __name__ == "__main__":
    main()
