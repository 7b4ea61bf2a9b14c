"""One optimiser step.

In FP16 the loss is scaled up before its gradients are taken, and they are scaled down again. Where that
overflows the step is skipped and the scale halved: that is how the scale finds its height, and no fault
unless it goes on.
"""

from __future__ import annotations

import math
import time
from typing import Final

import torch

from finemesh.core.errors import PreconditionError
from finemesh.finetune.feed import StepInput
from finemesh.finetune.optimizer import learning_rate, set_learning_rate
from finemesh.finetune.order import roll
from finemesh.finetune.run import Run
from finemesh.finetune.sharding import anchor, whole

# The scale starts at 2^16 and is halved each time: after so many it is 2^-4, and not what overflows.
MAX_SKIPPED_IN_A_ROW: Final = 20


def take_step(run: Run) -> None:
    """One optimiser step over the next samples of the order, of which each rank computes a share.

    Raises:
        PreconditionError: NON_FINITE_LOSS, NON_FINITE_GRADIENT; no weight has moved then.
    """
    started = time.perf_counter()
    state, optimization = run.state, run.spec.optimization
    given = run.feed.at(state.position)
    run.group.seed_step(optimization.seed, state.step)
    loss = _backward(run, given)
    run.scaler.unscale_(run.optimizer)
    grad_norm = _clip(run)
    rate = learning_rate(optimization, state.step, run.total_steps)
    set_learning_rate(run.optimizer, rate)
    values = {"train/learning_rate": rate} | _move(run, loss, grad_norm)
    state.step += 1
    state.position += len(given.row_ids)
    state.sample_hash = roll(state.sample_hash, given.row_ids)
    state.loss_digest = roll(state.loss_digest, [loss.hex()])
    units = run.group.sum(torch.tensor(sum(batch.units for batch in given.batches)))
    values[f"train/{run.objective.unit}_per_second"] = float(units) / (time.perf_counter() - started)
    run.log(values)


def _backward(run: Run, given: StepInput) -> float:
    """Gradients of the loss of the whole step, however it is cut and shared. Returns that loss."""
    device = run.model.device
    weights = [batch.weight for batch in given.batches] + [0 * batch.weight for batch in given.idle]
    weight = run.group.sum(torch.as_tensor(sum(weights))).to(device)
    weight = weight.where(weight > 0, 1)  # pictures without a box have no part of a loss per box
    total = torch.zeros((), device=device)
    for batch in given.batches:
        loss = (run.objective.loss(batch.to(device)) / weight).sum()
        _differentiate(run, loss)
        total += loss.detach()
    for batch in given.idle:
        _differentiate(run, 0.0 * run.objective.loss(batch.to(device)).sum())
    run.group.sum_gradients(run.model.trainable.values())
    return float(run.group.sum(total.cpu()))


def _differentiate(run: Run, loss: torch.Tensor) -> None:
    if run.model.is_sharded:
        loss = loss + anchor(run.model.module.parameters())
    run.scaler.scale(loss).backward()


def _clip(run: Run) -> float:
    limit = run.spec.optimization.max_grad_norm or math.inf
    return float(whole(torch.nn.utils.clip_grad_norm_(list(run.model.trainable.values()), limit)))


def _move(run: Run, loss: float, grad_norm: float) -> dict[str, float]:
    """Let the optimiser step, unless a number is not finite. Returns what there is to say of it."""
    state, values = run.state, {"train/loss": loss, "train/grad_norm": grad_norm}
    if all(map(math.isfinite, values.values())):
        run.scaler.step(run.optimizer)
        state.skipped_in_a_row = 0
    else:
        state.skipped_steps += 1
        state.skipped_in_a_row += 1
        if not run.scaler.is_enabled() or state.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise _not_finite(state.step + 1, loss, grad_norm)
        values = {}
    run.optimizer.zero_grad(set_to_none=True)
    if run.scaler.is_enabled():
        run.scaler.update()
        state.scaler = run.scaler.state_dict()
        values |= {
            "train/loss_scale": state.scaler["scale"],
            "train/skipped_steps": float(state.skipped_steps),
        }
    return values


def _not_finite(step: int, loss: float, grad_norm: float) -> PreconditionError:
    what, value = ("gradient", grad_norm) if math.isfinite(loss) else ("loss", loss)
    return PreconditionError(
        f"the {what} of step {step} is {value}; the weights stand where they stood before it: "
        "lower the learning rate, clip gradients, or look for broken rows",
        reason=f"NON_FINITE_{what.upper()}",
        metadata={"step": str(step)},
    )
