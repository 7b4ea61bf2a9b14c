"""Rows to token sequences: chat template, image placeholders, the tokens that carry loss, and the ledger of
it.

Shape legend: T tokens of one sequence, I pictures of one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import OverLength, Sequence
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.finetune.chat import Rendered, render
from finemesh.finetune.families.family import Family, Picture, Seen
from finemesh.finetune.objectives.objective import Split
from finemesh.finetune.rows import Row, no_rows, read_rows
from finemesh.finetune.sight import ImageAt, Pictures, decode_image

_CHUNK_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded row.

    Attributes:
        input_ids_T: token ids, image placeholders expanded.
        loss_T: True for the tokens the model shall learn to predict. Never the first one: nothing comes
        before it.
        images: where its pictures lie, in the order of their placeholders.
        extras: what the family's hook made of its words, I rows each.
    """

    row_id: str
    group: str
    input_ids_T: npt.NDArray[np.int64]
    loss_T: npt.NDArray[np.bool_]
    images: tuple[ImageAt, ...] = ()
    extras: Picture = field(default_factory=dict[str, npt.NDArray[Any]])

    @property
    def size(self) -> int:
        """Its tokens."""
        return len(self.input_ids_T)


@dataclass(slots=True)
class EncodedSplit(Split[Sample]):
    """A split with its pictures. `cut` has the ids of what was truncated."""

    pictures: Pictures
    cut: list[str] = field(default_factory=list[str])


class Prepared(NamedTuple):
    """A row as text, with what the processor made of its pictures."""

    row: Row
    rendered: Rendered
    seen: list[Seen]


class Encoder:
    """Encodes rows with one model's processor.

    Args:
        family: of the model.
        processor: the model's processor or tokenizer.
        config: the model's config, which says how many features an image has.
        sequence: limits and policy.
    """

    def __init__(self, family: Family, processor: Any, config: Any, sequence: Sequence) -> None:
        self.family = family
        self.processor = processor
        self.tokenizer: Any = getattr(processor, "tokenizer", processor)
        self.sequence = sequence
        self.config = config
        self.sees = family.image_features is not None
        self.image_token = str(processor.image_token) if self.sees else ""
        self.image_token_id = int(self.tokenizer.convert_tokens_to_ids(self.image_token)) if self.sees else 0

    def encode(self, dataset: Path, split: str, limit: int = 0) -> EncodedSplit:
        """Encode a split, or its first `limit` rows.

        Raises:
            PreconditionError: SPLIT_EMPTY.
            InvalidError: ROW_TOO_LONG under the policy RAISE; PLACEHOLDER_MISMATCH; what `render` raises.
        """
        rows = read_rows(dataset, split)
        encoded = self.encode_rows(dataset, islice(rows, limit) if limit else rows)
        if not encoded.entries:
            raise no_rows(dataset, split)
        return encoded

    def encode_rows(self, dataset: Path, rows: Iterable[Row]) -> EncodedSplit:
        """Encode rows of `dataset`. Raises what `encode` raises of them."""
        encoded = EncodedSplit([], [], 0, self.pictures_of(dataset))
        for chunk in chunks(rows):
            self._encode_chunk(chunk, encoded)
        return encoded

    def pictures_of(self, dataset: Path) -> Pictures:
        return Pictures(dataset, self.family, self.processor, self.config)

    def _encode_chunk(self, rows: list[Row], encoded: EncodedSplit) -> None:
        ready: list[Prepared] = []
        # Decoding and resizing leave the interpreter to others; templates are rendered here, one at a time.
        with ThreadPoolExecutor(torch.get_num_threads(), "see") as threads:
            looks = [[threads.submit(self._see, each) for each in row.images if self.sees] for row in rows]
            for row, seen in zip(rows, looks, strict=True):
                prepared = self._prepare(row, seen)
                if isinstance(prepared, Prepared):
                    ready.append(prepared)
                else:
                    encoded.entries.append(prepared)
        if not ready:
            return
        for prepared, tokens in zip(ready, self._tokenize(ready), strict=True):
            encoded.entries.append(self._finish(prepared, tokens, encoded))

    def _prepare(self, row: Row, seen: Iterable[Future[Seen]]) -> Prepared | LedgerEntry:
        """Render the conversation and wait for its pictures; an entry says what is wrong if that fails."""
        shown = sum(part["type"] == "image" for message in row.messages for part in message["content"])
        if shown != len(row.images) and self.sees:
            message = f"its messages show {shown} pictures, the row has {len(row.images)}"
            return _lost(row, "PLACEHOLDER_MISMATCH", message)
        if shown and not self.sees:
            return _lost(row, "IMAGE_FOR_LANGUAGE_MODEL", "a language model cannot see the row's picture")
        rendered = render(self.processor, row.messages, parts=self.sees, train=row.train, tools=row.tools)
        if not self.sees:
            return Prepared(row, rendered, [])
        if rendered.text.count(self.image_token) != shown:
            return _lost(row, "IMAGE_TOKEN_IN_TEXT", f"the text contains {self.image_token!r}")
        try:
            return Prepared(row, rendered, [each.result() for each in seen])
        except InvalidError as error:
            return _lost(row, error.reason, error.message)

    def _see(self, encoded: bytes) -> Seen:
        image = decode_image(encoded)
        try:
            return self.family.see(self.processor, image)
        except ValueError as error:  # such as a strip a hundred times as long as wide
            message = f"the model's processor refuses it ({error}): crop it, or leave the row out"
            raise InvalidError.of("image", message, reason="IMAGE_REFUSED") from error

    def _tokenize(self, ready: list[Prepared]) -> Iterator[Tokens]:
        texts: list[str] = []
        replaced: list[tuple[Replacement, ...]] = []
        for prepared in ready:
            replacements = tuple(self._replacements(prepared))
            texts.append(expanded(prepared.rendered.text, replacements))
            replaced.append(replacements)
        output = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        parts = zip(output["input_ids"], output["offset_mapping"], replaced, strict=True)
        for prepared, (ids, offsets, replacements) in zip(ready, parts, strict=True):
            offsets_T2 = np.asarray(offsets, np.int64).reshape(-1, 2)
            pictures = [seen.tensors for seen in prepared.seen]
            yield Tokens(np.asarray(ids, np.int64), offsets_T2, replacements, pictures)

    def _replacements(self, prepared: Prepared) -> Iterator[Replacement]:
        end = 0
        for seen in prepared.seen:
            start = prepared.rendered.text.index(self.image_token, end)
            end = start + len(self.image_token)
            yield Replacement(start, end, seen.text)

    def _finish(self, prepared: Prepared, tokens: Tokens, encoded: EncodedSplit) -> LedgerEntry:
        """Mark the tokens with loss, apply the length policy, and keep the sample."""
        row, rendered, _ = prepared
        self._check_placeholders(row, tokens)
        size, limit = len(tokens.ids_T), self.sequence.max_tokens
        end = self.trained_tokens(rendered, tokens)
        if size > limit:
            if self.sequence.over_length is OverLength.RAISE:
                raise InvalidError.of(
                    "spec.sequence.max_tokens",
                    f"row {row.row_id} has {size} tokens, the limit is {limit}: raise it, or set "
                    "over_length to TRUNCATE or DROP, which count what they touch",
                    reason="ROW_TOO_LONG",
                )
            if not end:
                cutting = self.sequence.over_length is OverLength.TRUNCATE
                reason = "NO_TURN_FITS" if cutting else "ROW_TOO_LONG"
                message = f"{size} tokens, the limit is {limit}"
                message += ", and no turn with loss ends before it" if cutting else ""
                return LedgerEntry(row.row_id, Disposition.DROPPED, reason, message)
        loss_T = tokens.loss(rendered)[:end]
        if not loss_T.any():
            said = "no token of the assistant is left to learn from"
            said += "" if row.messages else ": it has no turns; spec.objective TEXT learns from plain text"
            return _lost(row, "NO_LOSS_TOKENS", said)
        if end < size:
            encoded.truncated += 1
            encoded.cut.append(row.row_id)
        shown = tokens.pictures_before(end)
        images = tuple(ImageAt(row.location, number) for number in range(shown))
        for place, picture in zip(images, tokens.pictures, strict=False):
            encoded.pictures.keep(place, picture)
        extras = self.family.extras(self.processor, row.messages) if images and self.family.extras else {}
        extras = {name: tensor[:shown] for name, tensor in extras.items()}
        encoded.samples.append(Sample(row.row_id, row.group, tokens.ids_T[:end], loss_T, images, extras))
        return LedgerEntry(row.row_id, Disposition.KEPT, children=(row.row_id,))

    def trained_tokens(self, rendered: Rendered, tokens: Tokens) -> int:
        """How many tokens of a row are trained on: all that fit; of a row that is too long none, or under
        TRUNCATE those up to the end of its last learnt turn that fits, so that no turn is broken.
        """
        size, limit = len(tokens.ids_T), self.sequence.max_tokens
        if size <= limit:
            return size
        if self.sequence.over_length is not OverLength.TRUNCATE:
            return 0
        ends = (tokens.before(end) for _, end in rendered.spans)
        return max((end for end in ends if end <= limit), default=0)

    def _check_placeholders(self, row: Row, tokens: Tokens) -> None:
        placeholders, features = self.count_placeholders(tokens)
        if placeholders != features:
            raise InvalidError.of(
                "spec.base_model",
                f"its processor writes {placeholders} placeholders for the pictures of row {row.row_id}, its "
                f"vision tower gives {features} features: set the sizes in the processor's config to those "
                "of the model's",
                reason="PLACEHOLDER_MISMATCH",
            )

    def count_placeholders(self, tokens: Tokens) -> tuple[int, int]:
        """Placeholders among the tokens, and the features that the vision tower makes of the pictures."""
        count = self.family.image_features
        if count is None:
            return 0, 0
        placeholders = int((tokens.ids_T == self.image_token_id).sum())
        return placeholders, sum(count(self.config, picture) for picture in tokens.pictures)


class Replacement(NamedTuple):
    """What stands in the place of a picture's mark: first character of the mark, one after its last, text."""

    start: int
    end: int
    text: str


def expanded(text: str, replacements: Iterable[Replacement]) -> str:
    """The text with the marks of pictures replaced."""
    pieces: list[str] = []
    read = 0
    for start, end, instead in replacements:
        pieces += [text[read:start], instead]
        read = end
    return "".join([*pieces, text[read:]])


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the processor made of one row. `offsets_T2` are characters of the expanded text."""

    ids_T: npt.NDArray[np.int64]
    offsets_T2: npt.NDArray[np.int64]
    replacements: tuple[Replacement, ...]
    pictures: list[Picture]

    def loss(self, rendered: Rendered) -> npt.NDArray[np.bool_]:
        """Tokens that overlap the assistant's words, the first token of the sequence excepted."""
        loss_T = np.zeros(len(self.ids_T), np.bool_)
        starts_T, ends_T = self.offsets_T2.T
        for start, end in rendered.spans:
            loss_T |= (starts_T < self.moved(end)) & (ends_T > self.moved(start)) & (ends_T > starts_T)
        loss_T[:1] = False
        return loss_T

    def moved(self, character: int) -> int:
        """Where a character of the rendered text lies once placeholders are expanded."""
        before = [each for each in self.replacements if each.end <= character]
        return character + sum(len(each.text) - (each.end - each.start) for each in before)

    def before(self, character: int) -> int:
        """Tokens that begin before a character of the rendered text."""
        return int((self.offsets_T2[:, 0] < self.moved(character)).sum())

    def pictures_before(self, token: int) -> int:
        """Pictures whose placeholders lie before a token."""
        return sum(self.before(each.end) <= token for each in self.replacements)


def _lost(row: Row, reason: str, message: str) -> LedgerEntry:
    return LedgerEntry(row.row_id, Disposition.QUARANTINED, reason, message)


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in the portions that are encoded together."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK_ROWS)):
        yield chunk
