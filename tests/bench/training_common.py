"""What the ways to train of the benchmarks share: the clock, texts, adapters, and what they answer."""

from __future__ import annotations

import importlib
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RANK: Final = 16
RATE: Final = 2e-3
ROWS: Final = 8
LINEAR: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EPOCHS: Final = 3  # of the pictures with shapes


@dataclass(slots=True)
class Clock:
    """What happened between the end of the first step and that of the last."""

    wall: float = 0.0
    cpu: float = 0.0
    steps: int = 0
    units: list[int] = field(default_factory=list[int])
    _began: tuple[float, float] = (0.0, 0.0)

    def step_ended(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self.steps == 0:
            self._began = now
        self.wall, self.cpu = (here - then for here, then in zip(now, self._began, strict=True))
        self.steps += 1


@dataclass(frozen=True, slots=True)
class Trained:
    """Of one training; `loss` is that on held-out texts, in nats per token."""

    wall: float
    cpu: float
    units: int
    steps: int
    peak: float
    loss: float | None = None


Train = Callable[[Path, int], Trained]


def texts_of(folder: Path, name: str) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def encoded(folder: Path, name: str = "train") -> list[list[int]]:
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(folder / "model")
    return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts_of(folder, name)]


def with_lora(model: Any) -> Any:
    peft = importlib.import_module("peft")
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def with_adapter(folder: Path, adapter: Path) -> Any:
    if not (folder / "held_out.jsonl").is_file():
        return None
    peft, transformers = importlib.import_module("peft"), importlib.import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    return peft.PeftModel.from_pretrained(model, adapter)


def held_out_loss(model: Any, folder: Path) -> float | None:
    """Nats per token, one text at a time."""
    if model is None or not (folder / "held_out.jsonl").is_file():
        return None
    import torch

    model.eval()
    base = model.get_base_model()
    base.set_attn_implementation("sdpa")
    total = count = 0.0
    with torch.inference_mode():
        for ids in encoded(folder, "held_out"):
            row = torch.tensor([ids])
            total += float(model(input_ids=row, labels=row).loss) * (len(ids) - 1)
            count += len(ids) - 1
    return total / count


def trained_in(clock: Clock, units: int, loss: float | None = None) -> Trained:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Trained(clock.wall, clock.cpu, units, clock.steps, peak, loss)
