"""Direct preference optimisation: of two answers to the same prompt, the chosen one is to become the likelier
(https://arxiv.org/abs/2305.18290).

The model is held to what it was before training. What that says of every pair is computed once, while it is
still so, which needs no second model in memory and no second pass in every step.

Shape legend: P pairs, S sequences (the chosen ones, then the rejected ones), N tokens of answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, cast

import torch
from torch.nn import functional

from finemesh.core.spec.finetune import FineTuneSpec, Preference
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.finetune.batches import Batch, collate
from finemesh.finetune.encoding import Encoder, Sample
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import Objective, Split
from finemesh.finetune.rows import PREFERENCE_COLUMNS, Row, no_rows, read_rows
from finemesh.finetune.sight import Pictures
from finemesh.finetune.statistics import clustered_mean

_SCORED_PAIRS: Final = 8


@dataclass(frozen=True, slots=True)
class Pair:
    """The same prompt with the answer that was chosen and with the one that was rejected."""

    row_id: str
    group: str
    chosen: Sample
    rejected: Sample

    @property
    def size(self) -> int:
        """Its tokens, the prompt counted twice."""
        return self.chosen.size + self.rejected.size


@dataclass(slots=True)
class PairSplit(Split[Pair]):
    """Pairs, their pictures, and by row id how much likelier the untrained model finds the chosen answer, in
    nats.
    """

    pictures: Pictures
    reference: dict[str, float]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """One forward pass over the chosen answers of some pairs, then over their rejected ones."""

    sequences: Batch
    reference_P: torch.Tensor

    @property
    def weight(self) -> float:
        return len(self.reference_P)

    @property
    def units(self) -> int:
        return self.sequences.units

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(self.sequences.to(device), self.reference_P.to(device, non_blocking=True))


@dataclass(frozen=True, slots=True)
class _Scored:
    """A pair's loss in nats, and how much more the training moved the chosen answer than the rejected, scaled
    by beta.
    """

    loss: float
    margin: float


class PreferencePairs(Objective[Pair, PairBatch]):
    """The loss is a sum over pairs. An answer's reward is beta times its log-ratio to the untrained model."""

    unit = "tokens"

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        self._encoder = Encoder(model.family, model.processor, model.config, spec.sequence)

    def encode(self, split: str, limit: int = 0) -> PairSplit:
        rows = read_rows(self.dataset, split, PREFERENCE_COLUMNS)
        entries: dict[str, LedgerEntry] = {}
        encoded = self._encoder.encode_rows(
            self.dataset, _sides(islice(rows, limit) if limit else rows, entries)
        )
        if not entries:
            raise no_rows(self.dataset, split)
        for entry in encoded.entries:
            row_id, _, side = entry.row_id.rpartition("/")
            if entry.disposition is not Disposition.KEPT:
                message = f"its {side} answer: {entry.message}"
                entries[row_id] = replace(entry, row_id=row_id, message=message)
        sides = {sample.row_id: sample for sample in encoded.samples}
        pairs = [
            Pair(row_id, chosen.group, chosen, sides[f"{row_id}/rejected"])
            for row_id, entry in entries.items()
            if entry.disposition is Disposition.KEPT and (chosen := sides[f"{row_id}/chosen"])
        ]
        cut = {row_id.rpartition("/")[0] for row_id in encoded.cut}
        truncated = sum(pair.row_id in cut for pair in pairs)
        return PairSplit(pairs, [*entries.values()], truncated, encoded.pictures, {})

    def restore(self, samples: list[Pair], entries: list[LedgerEntry], truncated: int) -> PairSplit:
        return PairSplit(samples, entries, truncated, self._encoder.pictures_of(self.dataset), {})

    def begin(self, splits: Mapping[str, Split[Pair]]) -> None:
        for split in splits.values():
            pairs = cast("PairSplit", split)
            pairs.reference |= dict.fromkeys((pair.row_id for pair in pairs.samples), 0.0)
            with self.model.evaluating():
                for batch, part in self._scoring(pairs):
                    ratios_P, _ = self._ratios(batch)
                    pairs.reference |= dict(zip((p.row_id for p in part), ratios_P.tolist(), strict=True))

    def collate(self, split: Split[Pair], samples: Sequence[Pair]) -> PairBatch:
        pairs = cast("PairSplit", split)
        sequences = [pair.chosen for pair in samples] + [pair.rejected for pair in samples]
        batch = collate(
            sequences,
            pairs.pictures,
            packing=self.spec.sequence.packing,
            pad_id=self.model.pad_id,
        )
        return PairBatch(batch, torch.tensor([pairs.reference[pair.row_id] for pair in samples]))

    def loss(self, batch: PairBatch) -> torch.Tensor:
        ratios_P, chosen_P = self._ratios(batch)
        losses_P = preference_loss(ratios_P - batch.reference_P, self.spec.preference)
        return (losses_P - self.spec.preference.chosen_weight * chosen_P).sum()

    def validate(self, split: Split[Pair], folder: Path) -> dict[str, float]:
        scored = self._score(cast("PairSplit", split))
        _write_items(folder / "val.jsonl", split.samples, scored)
        return {
            "val/loss": sum(each.loss for each in scored) / len(scored),
            "val/accuracy": sum(each.margin > 0 for each in scored) / len(scored),
            "val/margin": sum(each.margin for each in scored) / len(scored),
        }

    def test(self, split: Split[Pair], base_model: Path, folder: Path) -> dict[str, float]:  # noqa: ARG002
        scored = self._score(cast("PairSplit", split))
        _write_items(folder / "test.jsonl", split.samples, scored)
        groups = [pair.group for pair in split.samples]
        right = clustered_mean([float(e.margin > 0) for e in scored], groups, self.spec.optimization.seed)
        return {
            "test/items": float(len(scored)),
            "test/loss": sum(each.loss for each in scored) / len(scored),
            "test/margin": sum(each.margin for each in scored) / len(scored),
            **right.named("test/accuracy"),
        }

    def _score(self, split: PairSplit) -> list[_Scored]:
        scored: list[_Scored] = []
        preference = self.spec.preference
        with self.model.evaluating():
            for batch, _ in self._scoring(split):
                ratios_P, chosen_P = self._ratios(batch)
                moved_P = ratios_P - batch.reference_P
                losses_P = preference_loss(moved_P, preference) - preference.chosen_weight * chosen_P
                margins = (preference.beta * moved_P).tolist()
                scored += [_Scored(*each) for each in zip(losses_P.tolist(), margins, strict=True)]
        return scored

    def _scoring(self, split: PairSplit) -> Iterator[tuple[PairBatch, list[Pair]]]:
        """The batches of a split in its order."""
        for start in range(0, len(split.samples), _SCORED_PAIRS):
            part = split.samples[start : start + _SCORED_PAIRS]
            yield self.collate(split, part).to(self.model.device), part

    def _ratios(self, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each pair log p(chosen) - log p(rejected) over all tokens, and log p(chosen) per token; (P)."""
        sequences = batch.sequences
        losses_N = functional.cross_entropy(
            self.model.logits(sequences), sequences.targets_N, reduction="none"
        )
        lengths = sequences.targets_per_sample
        logprobs_S = torch.stack([-losses.sum() for losses in losses_N.split(lengths)])
        chosen_P, rejected_P = logprobs_S.chunk(2)
        lengths_P = torch.tensor(lengths[: len(chosen_P)], device=logprobs_S.device)
        return chosen_P - rejected_P, chosen_P / lengths_P


def _write_items(path: Path, pairs: Sequence[Pair], scored: Sequence[_Scored]) -> None:
    items = (
        {
            "row_id": pair.row_id,
            "group": pair.group,
            "loss": each.loss,
            "margin": each.margin,
            "correct": each.margin > 0,
        }
        for pair, each in zip(pairs, scored, strict=True)
    )
    write_lines(path, items)


def preference_loss(moved_P: torch.Tensor, preference: Preference) -> torch.Tensor:
    """Equation 7 of https://arxiv.org/abs/2305.18290, labels smoothed as in https://ericmitchell.ai/cdpo.pdf.

    Args:
        moved_P: how much more the log-ratio of chosen to rejected is than the untrained model's, in nats.
        preference: beta and label smoothing.
    """
    logits_P = preference.beta * moved_P
    smoothing = preference.label_smoothing
    right_P, wrong_P = functional.logsigmoid(logits_P), functional.logsigmoid(-logits_P)
    return -(1 - smoothing) * right_P - smoothing * wrong_P


def _sides(rows: Iterator[Row], entries: dict[str, LedgerEntry]) -> Iterator[Row]:
    """Both conversations of each row, as rows of their own; only the answers carry loss. Fills `entries`."""
    for row in rows:
        entries[row.row_id] = LedgerEntry(row.row_id, Disposition.KEPT, children=(row.row_id,))
        if not row.rejected or not row.messages or row.messages[-1]["role"] != "assistant":
            message = "it needs a conversation that ends with the assistant's answer, and a rejected one"
            entries[row.row_id] = LedgerEntry(row.row_id, Disposition.QUARANTINED, "NO_PREFERENCE", message)
            continue
        prompt = row.messages[:-1]
        for side, answer in (("chosen", row.messages[-1:]), ("rejected", list(row.rejected))):
            learnt = (*[False] * len(prompt), *(turn["role"] == "assistant" for turn in answer))
            yield replace(row, row_id=f"{row.row_id}/{side}", messages=[*prompt, *answer], train=learnt)
