"""Supervised fine-tuning on conversations, about pictures or not: the assistant's words are learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional

from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.batches import Batch, collate
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.evaluation import evaluate, evaluate_test
from finemesh.finetune.metrics import installed_metrics
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import Objective, Split
from finemesh.finetune.scoring import AnswerSet, closed_answers


class Conversation(Objective[Sample, Batch]):
    """The loss is the cross entropy, in nats, over the tokens that the assistant says."""

    unit = "tokens"

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        installed_metrics(spec.evaluation.metrics)  # one that is missing is told before anything is trained
        self._encoder = Encoder(model.family, model.processor, model.config, spec.sequence)
        self._answers: AnswerSet | None = None

    def encode(self, split: str, limit: int = 0) -> EncodedSplit:
        return self._encoder.encode(self.dataset, split, limit)

    def restore(self, samples: list[Sample], entries: list[LedgerEntry], truncated: int) -> EncodedSplit:
        return EncodedSplit(samples, entries, truncated, self._encoder.pictures_of(self.dataset))

    def begin(self, splits: Mapping[str, Split[Sample]]) -> None:
        self._answers = closed_answers(splits["train"].samples)

    def collate(self, split: Split[Sample], samples: Sequence[Sample]) -> Batch:
        packing, pad_id = self.spec.sequence.packing, self.model.pad_id
        return collate(samples, encoded_of(split).pictures, packing=packing, pad_id=pad_id)

    def loss(self, batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(
            self.model.logits(batch),
            batch.targets_N,
            reduction="sum",
            label_smoothing=self.spec.optimization.label_smoothing,
        )

    def validate(self, split: Split[Sample], folder: Path) -> dict[str, float]:
        return evaluate(self.model, encoded_of(split), self._answers, folder, "val")

    def test(self, split: Split[Sample], base_model: Path, folder: Path) -> dict[str, float]:
        return evaluate_test(self.model, encoded_of(split), self._answers, base_model, folder)


def encoded_of(split: Split[Sample]) -> EncodedSplit:
    """A split of samples, which is always one with its pictures."""
    assert isinstance(split, EncodedSplit)  # `encode` makes no other
    return split
