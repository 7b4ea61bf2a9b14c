"""The loop on an accelerator: the losses of the CPU within tolerance, in fp32 and bf16, resumed too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.spec.finetune import FineTuneSpec, Lora, Precision, Resources, Task
from finemesh.finetune.attention import packed_attention
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train

from tests.support.conversations import colour_rows, spec, tiny_model, write_dataset

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator on this machine"),
]


class Losses(NoHooks):
    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.by_step[step] = values["train/loss"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("gpu")
    rows = list(colour_rows({"train": 24, "test": 8}))
    return tiny_model(root / "base", "llava"), write_dataset(root / "dataset", rows)


def run(
    place: tuple[Path, Path], work: Path, chosen: FineTuneSpec, resume_from: Path | None = None
) -> dict[int, float]:
    losses = Losses()
    train(chosen, base_model=place[0], dataset=place[1], work=work, hooks=losses, resume_from=resume_from)
    return losses.by_step


def on_gpu(precision: Precision) -> FineTuneSpec:
    method = Lora(rank=4, train_connector=True)
    return spec(
        Task.VISION_LANGUAGE,
        method=method,
        test_split="test",
        precision=precision,
        resources=Resources(gpus=1),
    )


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_all_sequences_at_once_are_each_by_itself(dtype: torch.dtype, window: int | None) -> None:
    """The kernel of a GPU against the sequences one by one in fp32, forwards and backwards."""
    torch.manual_seed(0)
    lengths = [3, 40, 40, 1, 129]
    shapes = ((1, 8, sum(lengths), 64), (1, 2, sum(lengths), 64), (1, 2, sum(lengths), 64))
    states = [torch.randn(shape, device="cuda", requires_grad=True) for shape in shapes]
    halves = [each.detach().to(dtype).requires_grad_() for each in states]

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"sequence_lengths": lengths, "sliding_window": window}
        return packed_attention(torch.nn.Module(), query, key, value, None, scaling=0.2, **options)[0]

    exact, fused = attend(*states), attend(*halves)
    assert fused.dtype is dtype
    torch.testing.assert_close(fused.float(), exact, rtol=0, atol=2e-2)
    weight = torch.randn_like(exact)
    (exact * weight).sum().backward()
    (fused.float() * weight).sum().backward()
    for half, state in zip(halves, states, strict=True):
        assert half.grad is not None
        assert state.grad is not None
        torch.testing.assert_close(half.grad.float(), state.grad, rtol=0, atol=8e-2)


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FP32, 1e-3), (Precision.BF16, 5e-2)])
def test_losses_are_those_of_the_cpu(
    place: tuple[Path, Path], tmp_path: Path, precision: Precision, tolerance: float
) -> None:
    chosen = on_gpu(precision)
    on_cpu = replace(chosen, precision=Precision.FP32, resources=Resources())
    assert run(place, tmp_path / "gpu", chosen) == pytest.approx(
        run(place, tmp_path / "cpu", on_cpu), rel=tolerance
    )


def test_a_resumed_run_goes_on_alike(place: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = on_gpu(Precision.FP32)
    straight = run(place, tmp_path / "straight", chosen)
    checkpoint = list_checkpoints(tmp_path / "straight" / "checkpoints")[2][1]
    resumed = run(place, tmp_path / "resumed", chosen, checkpoint)
    assert resumed == pytest.approx({step: loss for step, loss in straight.items() if step > 3}, rel=1e-5)
