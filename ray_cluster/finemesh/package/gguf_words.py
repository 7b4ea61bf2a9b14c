"""A tokenizer of transformers as the vocabulary of a GGUF file.

llama.cpp knows two that fine-tuned models of language have: byte-level BPE, whose words are cut by one of the
rules it has a name for, and the BPE of SentencePiece, which starts from characters and falls back to bytes.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md says what the keys mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
from tokenizers import Tokenizer

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# What llama.cpp calls the rules by which text is cut before BPE.
_CUTS: Final = {
    rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
    rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}": "qwen2",
}
_SPACE: Final = "\u2581"  # what SentencePiece writes for a space


class UnknownWordsError(Exception):
    """llama.cpp has no such tokenizer; says what it is that it does not know."""


@dataclass(frozen=True, slots=True)
class Words:
    """The keys `tokenizer.ggml.*` of a file.

    Attributes:
        model: `gpt2` is byte-level BPE, `llama` that of SentencePiece.
        cut: `tokenizer.ggml.pre`, how text is cut into words; empty for SentencePiece.
        tokens: by id; unused ids have made-up names.
        kinds: of each token, `gguf.TokenType`.
        merges: pairs, the first to be merged first; empty for SentencePiece, which goes by `scores`.
        scores: of each token, the highest is merged first; empty for byte-level BPE.
        leading_space: text starts with a space that is not there.
    """

    model: str
    cut: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    scores: Sequence[float]
    leading_space: bool = False

    def write(self, writer: gguf.GGUFWriter, *, begins: bool) -> None:
        """`begins`: llama.cpp puts the token that begins a text before it; a template writes it itself."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.cut or "default")
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.kinds))
        if self.model == "gpt2":
            writer.add_token_merges(list(self.merges))
        else:
            writer.add_token_scores(list(self.scores))
            writer.add_add_space_prefix(self.leading_space)
        writer.add_add_bos_token(begins)
        writer.add_add_eos_token(False)


def words_of(folder: Path, size: int) -> Words:
    """The vocabulary in `tokenizer.json` of a folder.

    Args:
        folder: of a model.
        size: rows of its embedding.

    Raises:
        UnknownWordsError: llama.cpp would read text differently.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UnknownWordsError("it has no tokenizer.json")
    content = json.loads(path.read_bytes())
    model: dict[str, Any] = content["model"]
    if model.get("type") != "BPE":
        raise UnknownWordsError(f"its tokenizer is {model.get('type')}, and llama.cpp would need BPE")
    tokens, kinds = _tokens(content, size)
    if len(tokens) > size:
        raise UnknownWordsError(f"its tokenizer has {len(tokens)} tokens, and its embedding {size} rows")
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    if not model.get("byte_fallback"):
        return Words("gpt2", _cut(content), tokens, kinds, merges, ())
    scores = _scores(model["vocab"], merges, size)
    return Words("llama", "", tokens, kinds, (), scores, _leading_space(content))


def begins_texts(folder: Path) -> bool:
    """Whether the tokenizer of a folder puts the token that begins a text before it.

    Raises:
        UnknownWordsError: it puts something else there, or something behind.
    """
    around = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("").tokens
    begin = json.loads((folder / "tokenizer_config.json").read_bytes()).get("bos_token")
    known = begin["content"] if isinstance(begin, dict) else begin
    if around not in ([], [known]):
        raise UnknownWordsError(f"its tokenizer puts {' '.join(around)} around a text")
    return bool(around)


def _tokens(content: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    added = content["added_tokens"]
    highest = max([*content["model"]["vocab"].values(), *(each["id"] for each in added)])
    count = max(size, highest + 1)
    tokens = [f"[PAD{index}]" for index in range(count)]
    kinds = [int(gguf.TokenType.UNUSED)] * count
    bytes_are_tokens = content["model"].get("byte_fallback")
    for token, index in content["model"]["vocab"].items():
        is_byte = bytes_are_tokens and len(token) == 6 and token.startswith("<0x")
        tokens[index] = token
        kinds[index] = int(gguf.TokenType.BYTE if is_byte else gguf.TokenType.NORMAL)
    for each in added:
        tokens[each["id"]] = each["content"]
        special = each["special"]
        kinds[each["id"]] = int(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
    return tokens, kinds


def _cut(content: Mapping[str, Any]) -> str:
    """The rule's name. Raises UnknownWordsError."""
    if content.get("normalizer") not in (None, {"type": "NFC"}):  # llama.cpp takes text as it comes
        raise UnknownWordsError(f"its tokenizer changes text first ({content['normalizer']['type']})")
    before: dict[str, Any] = content.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    kinds = [each.get("type") for each in steps]
    if kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        raise UnknownWordsError(f"its tokenizer cuts text in a way of its own ({', '.join(map(str, kinds))})")
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and steps[0]["behavior"] == "Isolated":
        rule = steps[0]["pattern"].get("Regex", "")
        if rule in _CUTS:
            return _CUTS[rule]
    raise UnknownWordsError("its tokenizer cuts text by a rule that llama.cpp has no name for")


def _scores(vocabulary: Mapping[str, int], merges: Sequence[str], size: int) -> list[float]:
    """What makes SentencePiece's search, which joins the pair whose token scores highest, join the pair that
    comes first in `merges`.
    """
    scores = [0.0] * size
    for rank in range(len(merges) - 1, -1, -1):
        left, _, right = merges[rank].partition(" ")
        scores[vocabulary[left + right]] = float(-rank - 1)
    return scores


def _leading_space(content: Mapping[str, Any]) -> bool:
    """Whether text gets a space in front. Raises UnknownWordsError."""
    steps: list[dict[str, Any]] = [content.get("normalizer") or {}, content.get("pre_tokenizer") or {}]
    flat = [
        each
        for step in steps
        for each in step.get("normalizers", step.get("pretokenizers", [step]))
        if each.get("type")
    ]
    known = {"Prepend", "Replace", "Metaspace", "Split"}
    if unknown := {each["type"] for each in flat} - known:
        raise UnknownWordsError(f"its tokenizer changes text first ({', '.join(sorted(unknown))})")
    return any(
        each["type"] == "Prepend" or each.get("prepend_scheme") in ("first", "always") for each in flat
    )
