"""One optimiser step."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from finemesh.core.errors import PreconditionError
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import AnyObjective, Batch
from finemesh.finetune.optimizer import learning_rate, set_learning_rate
from finemesh.finetune.order import roll
from finemesh.finetune.run import Run


def take_step(run: Run) -> None:
    """One optimiser step over the next samples of the order.

    Raises:
        PreconditionError: NON_FINITE_LOSS, NON_FINITE_GRADIENT; no weight has moved then.
    """
    started = time.perf_counter()
    state, optimization = run.state, run.spec.optimization
    given = run.feed.at(state.position)
    loss = _backward(run.model, run.objective, given.batches)
    _check_finite(loss, "LOSS", state.step + 1)
    grad_norm = _clip(run.model, optimization.max_grad_norm)
    _check_finite(grad_norm, "GRADIENT", state.step + 1)
    rate = learning_rate(optimization, state.step, run.total_steps)
    set_learning_rate(run.optimizer, rate)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.position += len(given.row_ids)
    state.sample_hash = roll(state.sample_hash, given.row_ids)
    state.loss_digest = roll(state.loss_digest, [loss.hex()])
    units = sum(batch.units for batch in given.batches)
    run.log(
        {
            "train/loss": loss,
            "train/learning_rate": rate,
            "train/grad_norm": grad_norm,
            f"train/{run.objective.unit}_per_second": units / (time.perf_counter() - started),
        }
    )


def _backward(model: Model, objective: AnyObjective, batches: Sequence[Batch]) -> float:
    """Gradients of the loss of the whole step, however it is cut into micro batches. Returns that loss."""
    weight = sum(batch.weight for batch in batches)
    total = torch.zeros((), device=model.device)
    for batch in batches:
        loss = objective.loss(batch.to(model.device)) / weight
        loss.backward()
        total += loss.detach()
    return float(total)


def _clip(model: Model, max_norm: float) -> float:
    limit = max_norm if max_norm > 0 else math.inf
    return float(torch.nn.utils.clip_grad_norm_(list(model.trainable.values()), limit))


def _check_finite(value: float, what: str, step: int) -> None:
    if not math.isfinite(value):
        raise PreconditionError(
            f"the {what.lower()} of step {step} is {value}; the weights stand where they stood before it: "
            "lower the learning rate, clip gradients, or look for broken rows",
            reason=f"NON_FINITE_{what}",
            metadata={"step": str(step)},
        )
