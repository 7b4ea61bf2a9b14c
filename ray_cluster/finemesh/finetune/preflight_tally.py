"""What training makes of every row, watched: the encoder itself, and the sums over a split."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from finemesh.core.errors import InvalidError
from finemesh.core.spec.ledger import Disposition, LedgerEntry, LedgerSummary
from finemesh.finetune.array_file import ArrayFile
from finemesh.finetune.chat import Rendered
from finemesh.finetune.encoding import EncodedSplit, Encoder, Prepared, Tokens, chunks, expanded
from finemesh.finetune.families.family import Seen
from finemesh.finetune.preflight_report import Outcome, RowFigures, ShownRow, SplitFigures
from finemesh.finetune.preflight_tokens import show, token_texts
from finemesh.finetune.rows import Row, read_rows

EXAMPLES: Final = 20
_MAX_SHOWN_TOKENS: Final = 40_000
_CUT_TEXT_CHARACTERS: Final = 160
_MESSAGE_CHARACTERS: Final = 600

_OUTCOMES: Final = {
    Disposition.KEPT: Outcome.TRAINED,
    Disposition.DROPPED: Outcome.DROPPED,
    Disposition.QUARANTINED: Outcome.QUARANTINED,
}


class Kept(NamedTuple):
    """A sample without its content; `size` in tokens, as it is trained on."""

    row_id: str
    size: int


@dataclass(slots=True)
class Tally:
    """The sums over one split, examples of what is worth a look, and the first rows token by token.

    Attributes:
        tokens, loss_tokens: of every row that came to tokens, before anything is cut.
        unmasked: rows in which all tokens but the first carry loss, the prompt's too.
        spoken: rows with at least one message.
        first_message: the message of the first row that was not kept, by reason.
    """

    split: str
    shown_rows: int = 0
    rows: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter[Outcome])
    reasons: dict[Outcome, Counter[str]] = field(default_factory=dict[Outcome, Counter[str]])
    first_message: dict[str, str] = field(default_factory=dict[str, str])
    tokens: array[int] = field(default_factory=lambda: array("q"))
    loss_tokens: array[int] = field(default_factory=lambda: array("q"))
    images: int = 0
    placeholders: int = 0
    features: int = 0
    spoken: int = 0
    unmasked: int = 0
    cut_loss_tokens: int = 0
    samples: list[Kept] = field(default_factory=list[Kept])
    longest: list[tuple[int, int, RowFigures]] = field(default_factory=list[tuple[int, int, RowFigures]])
    counted: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, list[RowFigures]] = field(default_factory=dict[str, list[RowFigures]])
    shown: list[ShownRow] = field(default_factory=list[ShownRow])
    shown_tokens: int = 0

    def add(self, row: RowFigures) -> None:
        self.rows += 1
        self.outcomes[row.outcome] += 1
        if row.reason:
            self.reasons.setdefault(row.outcome, Counter())[row.reason] += 1
            self.first_message.setdefault(row.reason, f"{row.row_id}: {row.message}"[:_MESSAGE_CHARACTERS])
        if row.outcome not in {Outcome.TRAINED, Outcome.TRUNCATED}:
            self._note("not_trained", row)
        if not row.tokens:
            return
        self.tokens.append(row.tokens)
        self.loss_tokens.append(row.loss_tokens)
        self.images += row.images
        self.placeholders += row.placeholders
        self.features += row.features
        self.unmasked += row.loss_tokens >= row.tokens - 1
        if row.outcome is Outcome.TRUNCATED:
            self.cut_loss_tokens += row.cut_loss_tokens
        if row.placeholders != row.features:
            self._note("mismatched", row)
        if row.cut_tokens:
            self._note("over_length", row)
        if row.loss_tokens == 0 or row.reason == "NO_LOSS_TOKENS":
            self._note("all_masked", row)
        # The count breaks ties, so that rows are never compared.
        heapq.heappush(self.longest, (row.tokens, -self.rows, row))
        if len(self.longest) > EXAMPLES:
            heapq.heappop(self.longest)

    def _note(self, kind: str, row: RowFigures) -> None:
        self.counted[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(row)

    def wants_to_show(self, tokens: int) -> bool:
        """Whether a row of so many tokens is shown: the first ones, as far as a page can hold them."""
        return len(self.shown) < self.shown_rows and self.shown_tokens + tokens <= _MAX_SHOWN_TOKENS

    def ledger(self) -> LedgerSummary:
        """As training would sum it up, if no row made it refuse the run."""
        reasons: Counter[str] = Counter()
        for outcome in (Outcome.QUARANTINED, Outcome.DROPPED):
            reasons += self.reasons.get(outcome, Counter())
        quarantined, dropped = self.outcomes[Outcome.QUARANTINED], self.outcomes[Outcome.DROPPED]
        kept = self.rows - quarantined - dropped
        return LedgerSummary(self.rows, kept, quarantined, dropped, dict(sorted(reasons.items()))).check()

    def figures(self) -> SplitFigures:
        outcomes = self.outcomes
        reasons = sum(self.reasons.values(), Counter[str]())
        return SplitFigures(
            split=self.split,
            rows=self.rows,
            kept=outcomes[Outcome.TRAINED] + outcomes[Outcome.TRUNCATED],
            quarantined=outcomes[Outcome.QUARANTINED],
            dropped=outcomes[Outcome.DROPPED],
            refused=outcomes[Outcome.REFUSED],
            truncated=outcomes[Outcome.TRUNCATED],
            tokens=sum(self.tokens),
            loss_tokens=sum(self.loss_tokens),
            images=self.images,
            placeholders=self.placeholders,
            features=self.features,
            mismatched=self.counted["mismatched"],
            over_length=self.counted["over_length"],
            all_masked=self.counted["all_masked"],
            by_reason=dict(sorted(reasons.items())),
        )


class Watcher(Encoder):
    """The encoder of the training. What would make the training refuse a row here only counts as that."""

    _tally: Tally

    def examine(
        self,
        dataset: Path,
        split: str,
        *,
        limit: int = 0,
        shown_rows: int = 0,
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> Tally:
        """Encode a split, or its first `limit` rows, in bounded memory, and sum up what was made of each.

        Raises:
            InvalidError: TEMPLATE_MISSING.
        """
        tally = self._tally = Tally(split, shown_rows)
        rows = read_rows(dataset, split)
        for chunk in chunks(islice(rows, limit) if limit else rows):
            encoded = EncodedSplit([], [], 0, replace(self.pictures_of(dataset), kept=ArrayFile(0)))
            self._encode_chunk(chunk, encoded)
            tally.samples += [Kept(sample.row_id, sample.size) for sample in encoded.samples]
            tally.spoken += sum(bool(row.messages) for row in chunk)
            on_rows(tally.rows)
        return tally

    def _prepare(self, row: Row, seen: Iterable[Future[Seen]]) -> Prepared | LedgerEntry:
        outcome = Outcome.QUARANTINED
        try:
            prepared = super()._prepare(row, seen)
        except InvalidError as error:
            if error.reason == "TEMPLATE_MISSING":
                raise
            prepared, outcome = _refused(row, error), Outcome.REFUSED
        if isinstance(prepared, LedgerEntry):
            reason, message = prepared.reason, prepared.message
            self._tally.add(RowFigures(row.row_id, self._tally.split, outcome, reason, message))
        return prepared

    def _finish(self, prepared: Prepared, tokens: Tokens, encoded: EncodedSplit) -> LedgerEntry:
        row, rendered, _ = prepared
        truncated = encoded.truncated
        try:
            entry = super()._finish(prepared, tokens, encoded)
            outcome = _OUTCOMES[entry.disposition]
            if outcome is Outcome.TRAINED and encoded.truncated > truncated:
                outcome = Outcome.TRUNCATED
        except InvalidError as error:
            entry, outcome = _refused(row, error), Outcome.REFUSED
        figures = self._measure(row, rendered, tokens, entry, outcome)
        if self._tally.wants_to_show(figures.tokens):
            self._tally.shown.append(show(row, figures, rendered, tokens, self))
            self._tally.shown_tokens += figures.tokens
        self._tally.add(figures)
        return entry

    def _measure(
        self, row: Row, rendered: Rendered, tokens: Tokens, entry: LedgerEntry, outcome: Outcome
    ) -> RowFigures:
        loss_T = tokens.loss(rendered)
        end = self.trained_tokens(rendered, tokens) or self.sequence.max_tokens
        cut_tokens = max(0, len(loss_T) - end)
        text = expanded(rendered.text, tokens.replacements)
        rest = "".join(token_texts(tokens, text)[end:]) if cut_tokens else ""
        placeholders, features = self.count_placeholders(tokens)
        return RowFigures(
            row_id=row.row_id,
            split=self._tally.split,
            outcome=outcome,
            reason=entry.reason,
            message=entry.message,
            tokens=len(loss_T),
            loss_tokens=int(loss_T.sum()),
            placeholders=placeholders,
            features=features,
            images=len(tokens.pictures),
            cut_tokens=cut_tokens,
            cut_loss_tokens=int(loss_T[end:].sum()),
            cut_text=rest[:_CUT_TEXT_CHARACTERS],
        )


def _refused(row: Row, error: InvalidError) -> LedgerEntry:
    return LedgerEntry(row.row_id, Disposition.QUARANTINED, error.reason, error.message)
