"""Checkpoints that count, and which of them stay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from finemesh.core.errors import FieldViolation, InvalidError, PreconditionError
from finemesh.core.spec.finetune import Checkpointing

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved training state that counts.

    Attributes:
        step: optimiser steps taken.
        uri: prefix of its files, `s3://bucket/prefix`.
        manifest_sha256: digest of its manifest, which names every file with its own; hexadecimal.
        attempt: number of the attempt that wrote it.
        sample_hash: rolling hash over the identifiers of all samples consumed so far, hexadecimal.
        loss_digest: rolling hash over the exact losses of all steps so far, hexadecimal.
        weights_sha256: digest of the file with the trained weights, hexadecimal.
        best: whether it has the best validation result so far, as the attempt says: what is measured, and
            whether more of it is better, depends on what is learnt.
    """

    step: int
    uri: str
    manifest_sha256: str
    size_bytes: int
    attempt: int
    create_time: datetime
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    sample_hash: str = ""
    loss_digest: str = ""
    weights_sha256: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays after a commit, oldest first and with its `best` marks, and what no longer counts."""

    kept: tuple[Checkpoint, ...]
    expired: tuple[Checkpoint, ...]


def check(checkpoint: Checkpoint, output_uri: str) -> None:
    """Refuse what cannot be a checkpoint of the job with this output.

    Raises InvalidError, reason INVALID_CHECKPOINT, naming every wrong field.
    """
    prefix = f"{output_uri}/checkpoints/"
    inside = checkpoint.uri.removeprefix(prefix)
    is_inside = checkpoint.uri.startswith(prefix) and bool(inside) and ".." not in inside
    rules = (
        ("step", checkpoint.step >= 1, "must be at least 1"),
        ("uri", is_inside, f"must lie under {prefix}"),
        (
            "manifest_sha256",
            bool(_SHA256.fullmatch(checkpoint.manifest_sha256)),
            "must be 64 hexadecimal digits in lower case",
        ),
        ("size_bytes", checkpoint.size_bytes >= 1, "must be positive"),
    )
    violations = [FieldViolation(f"checkpoint.{field}", text) for field, holds, text in rules if not holds]
    if violations:
        listed = "; ".join(f"{v.field} {v.description}" for v in violations)
        raise InvalidError(listed, violations=violations, reason="INVALID_CHECKPOINT")


def find_repeat(committed: Iterable[Checkpoint], checkpoint: Checkpoint) -> Checkpoint | None:
    """The commit that `checkpoint` repeats, if it does.

    An attempt goes back behind commits of earlier ones only where these are damaged; behind its own never.

    Raises PreconditionError: STEP_COMMITTED, the attempt has committed the step with other content;
    STALE_CHECKPOINT, it is further than this.
    """
    same = next((each for each in committed if each.step == checkpoint.step), None)
    if same is not None and same.manifest_sha256 == checkpoint.manifest_sha256:
        return same
    own = [each for each in committed if each.attempt == checkpoint.attempt]
    if same in own:
        raise PreconditionError(
            f"step {checkpoint.step} was committed with another manifest: a step is committed once",
            reason="STEP_COMMITTED",
        )
    latest = max((each.step for each in own), default=0)
    if checkpoint.step < latest:
        raise PreconditionError(
            f"step {checkpoint.step} is behind the committed step {latest}: resume from there",
            reason="STALE_CHECKPOINT",
        )
    return None


def retain(committed: Sequence[Checkpoint], new: Checkpoint, policy: Checkpointing) -> Retention:
    """Add `new` and let go of what the policy does not keep: the last N stay, and the best if asked for.

    What earlier attempts have committed of later steps goes too: `new` is of one that could not use it. (The
    files of the same step go with the job.)
    """
    damaged = tuple(each for each in committed if each.step > new.step)
    ordered = [*sorted((each for each in committed if each.step < new.step), key=lambda each: each.step), new]
    best = max((each.step for each in ordered if each.best), default=None)
    marked = [replace(each, best=each.step == best) for each in ordered]
    latest = {each.step for each in marked[-policy.keep_last :]}

    def stays(checkpoint: Checkpoint) -> bool:
        return checkpoint.step in latest or (policy.keep_best and checkpoint.best)

    return Retention(
        tuple(each for each in marked if stays(each)),
        (*(each for each in marked if not stays(each)), *damaged),
    )
