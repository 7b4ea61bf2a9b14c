"""Plain language modelling: every token of a text is learnt from those before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import OverLength
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.finetune.encoding import EncodedSplit, Sample, chunks
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.objectives.conversation import Conversation, encoded_of
from finemesh.finetune.objectives.objective import Split
from finemesh.finetune.rows import TEXT_COLUMNS, Row, no_rows, read_rows
from finemesh.finetune.scoring import Score, score
from finemesh.finetune.sight import Pictures
from finemesh.finetune.statistics import clustered_mean

Tokens = npt.NDArray[np.int64]


class PlainText(Conversation):
    """A text is what its tokenizer makes of it, with its special tokens and the one that ends a text.

    A text longer than `max_tokens` may be split: each piece begins with the last token of the one before, so
    that every token but the first is predicted exactly once.
    """

    def encode(self, split: str, limit: int = 0) -> EncodedSplit:
        model = self.model
        encoded = EncodedSplit([], [], 0, Pictures(self.dataset, model.family, model.processor, model.config))
        rows = read_rows(self.dataset, split, TEXT_COLUMNS)
        for chunk in chunks(islice(rows, limit) if limit else rows):
            for row, ids_T in zip(chunk, self._tokenize(chunk), strict=True):
                encoded.entries.append(self._add(row, ids_T, encoded))
        if not encoded.entries:
            raise no_rows(self.dataset, split)
        return encoded

    def begin(self, splits: Mapping[str, Split[Sample]]) -> None:
        """No text is an answer out of few."""

    def validate(self, split: Split[Sample], folder: Path) -> dict[str, float]:
        scores = self._score(split)
        _write_items(folder / "val.jsonl", scores)
        return _averages(scores, "val")

    def test(self, split: Split[Sample], base_model: Path, folder: Path) -> dict[str, float]:
        scores = self._score(split)
        _write_items(folder / "test.jsonl", scores)
        metrics = {**_averages(scores, "test"), **self._intervals(scores, "")}
        if self.spec.evaluation.baselines:
            with self.model.untrained(base_model) as untrained:
                scores = score(untrained, split.samples, encoded_of(split).pictures, None)
            _write_items(folder / "test_untrained.jsonl", scores)
            metrics |= self._intervals(scores, "untrained_")
        return metrics

    def _tokenize(self, rows: Sequence[Row]) -> Iterator[Tokens]:
        tokenizer = self.model.tokenizer
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        for ids in tokenizer([row.text for row in rows])["input_ids"]:
            yield np.asarray(ids if ids[-1:] == end else [*ids, *end], np.int64)

    def _add(self, row: Row, ids_T: Tokens, encoded: EncodedSplit) -> LedgerEntry:
        """Keep what the length policy leaves of a text as samples."""
        sequence, tokens = self.spec.sequence, len(ids_T)
        if not row.text.strip():
            return LedgerEntry(row.row_id, Disposition.QUARANTINED, "NO_TEXT", "the row has no text")
        pieces = [ids_T]
        if tokens > sequence.max_tokens:
            match sequence.over_length:
                case OverLength.RAISE:
                    raise InvalidError.of(
                        "spec.sequence.max_tokens",
                        f"row {row.row_id} has {tokens} tokens, the limit is {sequence.max_tokens}: raise "
                        "it, or set over_length to SPLIT, TRUNCATE or DROP",
                        reason="ROW_TOO_LONG",
                    )
                case OverLength.DROP:
                    message = f"{tokens} tokens, the limit is {sequence.max_tokens}"
                    return LedgerEntry(row.row_id, Disposition.DROPPED, "ROW_TOO_LONG", message)
                case OverLength.TRUNCATE:
                    pieces = [ids_T[: sequence.max_tokens]]
                    encoded.truncated += 1
                case OverLength.SPLIT:
                    pieces = _split(ids_T, sequence.max_tokens)
        names = [row.row_id] if len(pieces) == 1 else [f"{row.row_id}#{n}" for n in range(len(pieces))]
        for name, piece_T in zip(names, pieces, strict=True):
            loss_T = np.arange(len(piece_T)) > 0
            sample = Sample(row_id=name, group=row.group, input_ids_T=piece_T, loss_T=loss_T)
            encoded.samples.append(sample)
        return LedgerEntry(row.row_id, Disposition.KEPT, children=tuple(names))

    def _score(self, split: Split[Sample]) -> list[Score]:
        return score(self.model, split.samples, encoded_of(split).pictures, None)

    def _intervals(self, scores: Sequence[Score], prefix: str) -> dict[str, float]:
        losses = [each.loss_sum / each.loss_tokens for each in scores]
        weights = [float(each.loss_tokens) for each in scores]
        seed, groups = self.spec.optimization.seed, [each.group for each in scores]
        interval = clustered_mean(losses, groups, seed, weights)
        ends = interval.named(f"test/{prefix}perplexity")
        return {name: _perplexity(loss) for name, loss in ends.items()}


def _split(ids_T: Tokens, size: int) -> list[Tokens]:
    return [ids_T[start : start + size] for start in range(0, len(ids_T) - 1, size - 1)]


def _averages(scores: Sequence[Score], split: str) -> dict[str, float]:
    tokens = sum(each.loss_tokens for each in scores)
    loss = sum(each.loss_sum for each in scores) / tokens
    return {
        f"{split}/loss": loss,
        f"{split}/perplexity": _perplexity(loss),
        f"{split}/token_accuracy": sum(each.correct_tokens for each in scores) / tokens,
    }


def _perplexity(loss: float) -> float:
    """Exp of the loss per token in nats; infinite where that is beyond floats."""
    return math.exp(loss) if loss < 700 else math.inf


def _write_items(path: Path, scores: Sequence[Score]) -> None:
    write_lines(
        path,
        (
            {
                "row_id": each.row_id,
                "group": each.group,
                "loss": each.loss_sum / each.loss_tokens,
                "tokens": each.loss_tokens,
                "correct_tokens": each.correct_tokens,
            }
            for each in scores
        ),
    )
