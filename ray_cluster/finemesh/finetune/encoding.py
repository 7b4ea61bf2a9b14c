"""Rows to token sequences: chat template, image placeholders, the tokens that carry loss, and the ledger of
it.

Shape legend: T tokens of one sequence; C, H, W channels, height and width of a picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import OverLength, Sequence
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.finetune.chat import Rendered, render
from finemesh.finetune.families.family import Family
from finemesh.finetune.objectives.objective import Split
from finemesh.finetune.rows import Location, Row, read_images, read_rows

MAX_IMAGE_PIXELS: Final = 64_000_000
PIXEL_CACHE_BYTES: Final = 1 << 30
_CHUNK_ROWS: Final = 32

Picture = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded row.

    Attributes:
        input_ids_T: token ids, image placeholders expanded.
        loss_T: True for the tokens the model shall learn to predict. Never the first one: nothing comes
        before it.
        location: where the picture lies; None for a row without one.
    """

    row_id: str
    group: str
    input_ids_T: npt.NDArray[np.int64]
    loss_T: npt.NDArray[np.bool_]
    location: Location | None

    @property
    def size(self) -> int:
        """Its tokens."""
        return len(self.input_ids_T)


@dataclass(slots=True)
class EncodedSplit(Split[Sample]):
    """A split with its pictures."""

    pictures: Pictures


@dataclass(slots=True)
class Pictures:
    """Processed pictures: in memory while they are few, otherwise made again from the dataset each time."""

    dataset: Path
    processor: Any
    cached: dict[Location, Picture] = field(default_factory=dict[Location, Picture])
    bytes_left: int = PIXEL_CACHE_BYTES

    def keep(self, location: Location, pixels_CHW: Picture) -> None:
        if pixels_CHW.nbytes <= self.bytes_left:
            self.cached[location] = pixels_CHW
            self.bytes_left -= pixels_CHW.nbytes

    def load(self, location: Location) -> Picture:
        """The tensor that the model's own processor makes of the picture."""
        cached = self.cached.get(location)
        if cached is not None:
            return cached
        picture = decode_image(read_images(self.dataset, location)[0])
        return np.asarray(self.processor.image_processor(picture)["pixel_values"][0], dtype=np.float32)


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

    def encode(self, dataset: Path, split: str, limit: int = 0) -> EncodedSplit:
        """Encode a split, or its first `limit` rows.

        Raises:
            PreconditionError: SPLIT_EMPTY.
            InvalidError: ROW_TOO_LONG under the policy RAISE; PLACEHOLDER_MISMATCH; what `render` raises.
        """
        rows = read_rows(dataset, split)
        encoded = self.encode_rows(dataset, islice(rows, limit) if limit else rows)
        if not encoded.entries:
            raise PreconditionError(
                f"the dataset has no rows in the split {split!r}: split it first, or name another split in "
                "the spec",
                reason="SPLIT_EMPTY",
            )
        return encoded

    def encode_rows(self, dataset: Path, rows: Iterable[Row]) -> EncodedSplit:
        """Encode rows of `dataset`. Raises what `encode` raises of them."""
        encoded = EncodedSplit([], [], 0, Pictures(dataset, self.processor))
        for chunk in chunks(rows):
            self._encode_chunk(chunk, encoded)
        return encoded

    def _encode_chunk(self, rows: list[Row], encoded: EncodedSplit) -> None:
        ready: list[tuple[Row, Rendered, Image.Image | None]] = []
        for row in rows:
            fault, prepared = self._prepare(row)
            if prepared:
                ready.append((row, *prepared))
            else:
                encoded.entries.append(fault)
        if not ready:
            return
        for (row, rendered, _), tokens in zip(ready, self._tokenize(ready), strict=True):
            encoded.entries.append(self._finish(row, rendered, tokens, encoded))

    def _prepare(self, row: Row) -> tuple[LedgerEntry, tuple[Rendered, Image.Image | None] | None]:
        """Render the conversation and decode the picture; the entry says what is wrong if that fails."""
        placeholders = sum(part["type"] == "image" for message in row.messages for part in message["content"])
        if placeholders > 1:
            return _lost(row, "SEVERAL_IMAGE_PARTS", "a row has one picture, its messages name more"), None
        if placeholders != len(row.images) and self.sees:
            message = f"its messages show {placeholders} pictures, the row has {len(row.images)}"
            return _lost(row, "PLACEHOLDER_MISMATCH", message), None
        if placeholders and not self.sees:
            return _lost(
                row, "IMAGE_FOR_LANGUAGE_MODEL", "a language model cannot see the row's picture"
            ), None
        rendered = render(self.processor, row.messages, parts=self.sees, train=row.train, tools=row.tools)
        if self.sees and rendered.text.count(self.processor.image_token) != placeholders:
            return _lost(
                row, "IMAGE_TOKEN_IN_TEXT", f"the text contains {self.processor.image_token!r}"
            ), None
        try:
            picture = decode_image(row.images[0]) if placeholders else None
        except InvalidError as error:
            return _lost(row, error.reason, error.message), None
        return LedgerEntry(row.row_id, Disposition.KEPT), (rendered, picture)

    def _tokenize(self, ready: list[tuple[Row, Rendered, Image.Image | None]]) -> Iterator[Tokens]:
        texts = [rendered.text for _, rendered, _ in ready]
        options = {"add_special_tokens": False, "return_offsets_mapping": True}
        if not self.sees:
            output = self.processor(texts, **options)
            for ids, offsets in zip(output["input_ids"], output["offset_mapping"], strict=True):
                yield Tokens(np.asarray(ids, np.int64), np.asarray(offsets, np.int64), [], None)
            return
        pictures = [picture for _, _, picture in ready if picture is not None]
        output = self.processor(
            text=texts, images=pictures or None, return_text_replacement_offsets=True, **options
        )
        pixels = iter(output["pixel_values"] if pictures else ())
        replacements = output["text_replacement_offsets"]
        for index, (_, _, picture) in enumerate(ready):
            yield Tokens(
                np.asarray(output["input_ids"][index], np.int64),
                np.asarray(output["offset_mapping"][index], np.int64),
                replacements[index] if replacements else [],
                None if picture is None else np.asarray(next(pixels), np.float32),
            )

    def _finish(self, row: Row, rendered: Rendered, tokens: Tokens, encoded: EncodedSplit) -> LedgerEntry:
        """Mark the tokens with loss, apply the length policy, and keep the sample."""
        ids_T, loss_T = tokens.ids_T, tokens.loss(rendered)
        self._check_placeholders(row, tokens)
        limit = self.sequence.max_tokens
        if len(ids_T) > limit:
            if self.sequence.over_length is OverLength.RAISE:
                raise InvalidError.of(
                    "spec.sequence.max_tokens",
                    f"row {row.row_id} has {len(ids_T)} tokens, the limit is {limit}: raise it, or set "
                    "over_length to TRUNCATE or DROP, which count what they touch",
                    reason="ROW_TOO_LONG",
                )
            if self.sequence.over_length is OverLength.DROP:
                message = f"{len(ids_T)} tokens, the limit is {limit}"
                return LedgerEntry(row.row_id, Disposition.DROPPED, "ROW_TOO_LONG", message)
            if tokens.pixels_CHW is not None and (ids_T[limit:] == self.processor.image_token_id).any():
                return LedgerEntry(
                    row.row_id,
                    Disposition.DROPPED,
                    "TRUNCATION_CUTS_IMAGE",
                    f"an image lies beyond token {limit}",
                )
            ids_T, loss_T = ids_T[:limit], loss_T[:limit]
            encoded.truncated += 1
        if not loss_T.any():
            return _lost(row, "NO_LOSS_TOKENS", "no token of the assistant is left to learn from")
        location = None
        if tokens.pixels_CHW is not None:
            location = row.location
            encoded.pictures.keep(location, tokens.pixels_CHW)
        encoded.samples.append(Sample(row.row_id, row.group, ids_T, loss_T, location))
        return LedgerEntry(row.row_id, Disposition.KEPT, children=(row.row_id,))

    def _check_placeholders(self, row: Row, tokens: Tokens) -> None:
        if tokens.pixels_CHW is None or self.family.image_features is None:
            return
        placeholders = int((tokens.ids_T == self.processor.image_token_id).sum())
        features = self.family.image_features(self.config, tokens.pixels_CHW)
        if placeholders != features:
            raise InvalidError.of(
                "spec.base_model",
                f"its processor writes {placeholders} placeholders for the picture of row {row.row_id}, its "
                f"vision tower gives {features} features: set patch_size and vision_feature_select_strategy "
                "of the processor right",
                reason="PLACEHOLDER_MISMATCH",
            )


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the processor made of one row. `replacements` says how placeholders moved the text after them."""

    ids_T: npt.NDArray[np.int64]
    offsets_T2: npt.NDArray[np.int64]
    replacements: list[dict[str, Any]]
    pixels_CHW: Picture | None

    def loss(self, rendered: Rendered) -> npt.NDArray[np.bool_]:
        """Tokens that overlap the assistant's words, the first token of the sequence excepted."""
        loss_T = np.zeros(len(self.ids_T), np.bool_)
        starts_T, ends_T = self.offsets_T2.reshape(-1, 2).T
        for start, end in rendered.spans:
            loss_T |= (starts_T < self.moved(end)) & (ends_T > self.moved(start)) & (ends_T > starts_T)
        loss_T[:1] = False
        return loss_T

    def moved(self, character: int) -> int:
        """Where a character of the rendered text lies once placeholders are expanded."""
        gained = 0
        for replacement in self.replacements:
            if replacement["span"][1] <= character:
                gained = replacement["new_span"][1] - replacement["span"][1]
        return character + gained


def decode_image(encoded: bytes) -> Image.Image:
    """Decode a picture to RGB, its size checked before its pixels are read.

    Raises:
        InvalidError: IMAGE_UNREADABLE, IMAGE_TOO_LARGE.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            width, height = picture.size
            if width * height > MAX_IMAGE_PIXELS:
                raise InvalidError.of(
                    "image",
                    f"{width} x {height} pixels, at most {MAX_IMAGE_PIXELS} are read",
                    reason="IMAGE_TOO_LARGE",
                )
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidError.of("image", f"cannot be decoded: {error}", reason="IMAGE_UNREADABLE") from error


def _lost(row: Row, reason: str, message: str) -> LedgerEntry:
    return LedgerEntry(row.row_id, Disposition.QUARANTINED, reason, message)


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in the portions that are encoded together."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK_ROWS)):
        yield chunk
