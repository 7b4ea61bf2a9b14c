"""How long the texts of the rows are in tokens of a chosen tokenizer, and what would be cut off.

Texts alone are counted: what a picture takes depends on the model's processor, and the token preflight of a
model shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ValidateOptions
from finemesh.data.validation.columns import Batch, Ints
from finemesh.data.validation.findings import Findings, Told
from finemesh.data.validation.measures import TokenLengths, whole_numbers

_SHOWN: Final = 60  # characters of what is cut off


def load_tokenizer(name: str) -> Any:
    """The tokenizer in a folder, or of a model by its name. Raises InvalidError (TOKENIZER_UNAVAILABLE)."""
    from tokenizers import Tokenizer

    file = Path(name) / "tokenizer.json"
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:
            tokenizer = _from_transformers(name)
    except Exception as error:  # the libraries raise whatever they meet: there is one answer to all of it
        reason = str(error).partition("\n")[0]
        message = (
            f"{name!r} has no tokenizer that can be loaded here ({reason}): give a folder with a"
            " tokenizer.json, or the name of a model that this machine can reach"
        )
        raise InvalidError.of("options.tokenizer", message, reason="TOKENIZER_UNAVAILABLE") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_transformers(name: str) -> Any:
    """Also of an older kind, which is brought into the present form."""
    if Path(name).is_absolute() and not Path(name).is_dir():  # would be taken for the name of a model
        raise FileNotFoundError("there is no such folder")
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)
    return loaded.backend_tokenizer


@dataclass(slots=True)
class TokenCounter:
    """Counts the tokens of all rows with texts, as they go by."""

    options: ValidateOptions
    tokenizer: Any
    _lengths: list[Ints] = field(default_factory=list[Ints])

    def observe(self, batch: Batch, findings: Findings) -> None:
        rows, texts = _texts(batch)
        if not texts:
            return
        encodings: list[Any] = self.tokenizer.encode_batch_fast(texts, add_special_tokens=True)
        lengths = np.array([len(encoding) for encoding in encodings], np.int64)
        self._lengths.append(lengths)
        limit = self.options.max_tokens

        def tell(at: int) -> Told:
            cut = self.tokenizer.decode(encodings[at].ids[limit:])[:_SHOWN]
            words = f"{lengths[at]} tokens; the last {lengths[at] - limit} would be cut, from {cut!r} on"
            return batch.place(rows[at]), "messages" if batch.talks[rows[at]] else "text", words

        over = np.flatnonzero(lengths > limit) if limit else np.zeros(0, np.int64)
        findings.add_all("TOKENS_TRUNCATED", over, tell)

    def finish(self) -> TokenLengths:
        lengths = np.concatenate([np.zeros(0, np.int64), *self._lengths])
        limit = self.options.max_tokens
        over = lengths[lengths > limit] if limit else lengths[:0]
        longest = int(lengths.max(initial=0))
        return TokenLengths(
            tokenizer=self.options.tokenizer,
            max_tokens=limit,
            rows=len(lengths),
            median=int(np.median(lengths)) if len(lengths) else 0,
            longest=longest,
            rows_cut=len(over),
            tokens_cut=int((over - limit).sum()),
            lengths=whole_numbers(np.bincount(lengths, minlength=1)),
        )


def _texts(batch: Batch) -> tuple[list[int], list[str]]:
    """Rows with a text, and all they say: the text, or the turns one after the other."""
    plain: Sequence[str | None] = batch.table.column("text").to_pylist()
    messages: Sequence[Any] = (
        batch.table.column("messages").to_pylist() if batch.talks.any() else [[]] * len(batch)
    )
    rows: list[int] = []
    texts: list[str] = []
    for row, (text, turns) in enumerate(zip(plain, messages, strict=True)):
        said = [f"{turn['role']}\n" + "".join(part["text"] for part in turn["content"]) for turn in turns]
        if text is not None:
            said.append(text)
        if said:
            rows.append(row)
            texts.append("\n".join(said))
    return rows, texts
