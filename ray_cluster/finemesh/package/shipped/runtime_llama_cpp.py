"""How this package is run: by llama.cpp, from `model.gguf` alone: its weights, its tokenizer, its template.

Every `runtime.py` has a class `Runner` with these methods; `verify.py`, `predict.py` and the server know no
other. Arrays are numpy's; items are conversations.

Shape legend: T tokens of the prompt, G generated tokens, V vocabulary.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from chat_template import asked, compiled  # pyright: ignore[reportMissingImports]  (beside this file)
from cyllama.llama import llama_cpp
from PIL import Image

_BATCH = 512  # tokens that are read at once
_SMALL_BYTES = 64 << 20  # in a smaller model threads wait for one another longer than they work


class _Model(llama_cpp.LlamaModel):
    @property
    def n_vocab(self) -> int:
        """Which the context asks of its model for the size of the logits, and some releases do not have."""
        return int(self.get_vocab().n_vocab)


class Runner:
    """A loaded package.

    Attributes:
        task: of the model, as `spec.task` of the manifest.
        versions: what ran it.
        context_tokens: the most tokens of prompt and answer together.
        end_ids: tokens that end an answer.
        most_at_once: prompts that `answer` takes; they follow one another.
    """

    most_at_once = 1

    def __init__(self, package: Path, base: str | None = None) -> None:
        """Load the package in a folder; it needs no `base`."""
        del base
        spec: dict[str, Any] = json.loads((package / "manifest.json").read_bytes())["spec"]
        self.task = str(spec["task"])
        self._plain = spec.get("objective") == "TEXT"  # it goes on with a text, and knows no turns
        self.versions = {
            "cyllama": version("cyllama"),
            "llama.cpp's ggml": str(llama_cpp.ggml_version()),
            "numpy": np.__version__,
        }
        llama_cpp.disable_logging()
        parameters = llama_cpp.LlamaModelParams()
        parameters.n_gpu_layers = 0
        self._model = _Model(str(package / "model.gguf"), parameters, verbose=False)
        self._vocabulary = self._model.get_vocab()
        self.context_tokens = int(self._model.n_ctx_train)
        ids = range(self._model.n_vocab)
        self.end_ids = frozenset(token for token in ids if self._vocabulary.is_eog(token))
        template = "" if self._plain else self._model.meta_val_str("tokenizer.chat_template")
        self._template = compiled(template)
        self._special = {
            name: self._vocabulary.get_text(token) if token >= 0 else ""
            for name, token in (
                ("bos_token", self._vocabulary.token_bos()),
                ("eos_token", self._vocabulary.token_eos()),
                ("pad_token", self._vocabulary.token_pad()),
            )
        }

    def prepare(self, messages: list[dict[str, Any]], image: Image.Image | None) -> dict[str, Any]:
        """What the model is fed: `input_ids` (1, T), by the template and the tokenizer of the file."""
        if image is not None:
            raise ValueError("this package reads text alone: send no picture")
        if self._plain:
            text = "".join(part["text"] for part in messages[-1]["content"])
        else:
            text = asked(self._template, messages, self._special, parts=False)
        tokens = self._vocabulary.tokenize(text, self._plain, True)
        return {"input_ids": np.array([tokens], np.int64)}

    def outputs(self, inputs: dict[str, Any], tokens_G: Any = None) -> dict[str, Any]:
        """`logits` (G, V), from which each of the given tokens would be chosen after the prompt and those
        before it.
        """
        given = iter([int(token) for token in tokens_G][:-1])
        steps = self._steps(inputs, len(tokens_G), lambda _logits: next(given, None))
        return {"logits": np.stack(list(steps))}

    def write(self, inputs: dict[str, Any], most_tokens: int) -> list[int]:
        """The likeliest tokens after a prompt, one after the other, up to the end token or so many."""
        written: list[int] = []

        def choose(logits_V: Any) -> int | None:
            written.append(int(logits_V.argmax()))
            return None if written[-1] in self.end_ids else written[-1]

        for _ in self._steps(inputs, most_tokens, choose):
            pass
        return written

    def answer(
        self,
        items: Sequence[dict[str, Any]],
        most_tokens: int,
        choose: Callable[[int, Any], int],
        take: Callable[[int, int], bool],
    ) -> None:
        """Continue prompts until none wants more tokens.

        Args:
            items: of `prepare`.
            most_tokens: of an answer.
            choose: (index of the prompt, its logits (V,)) -> the next token.
            take: told (index, token) in turn; whether that prompt wants another.
        """
        for index, inputs in enumerate(items):

            def follow(logits_V: Any, index: int = index) -> int | None:
                token = choose(index, logits_V)
                return token if take(index, token) else None

            for _ in self._steps(inputs, most_tokens, follow):
                pass

    def text(self, tokens: list[int]) -> str:
        """Tokens as words, special ones left out."""
        return str(self._vocabulary.detokenize(list(tokens), len(tokens) * 64 + 64, True, False)).strip()

    def _steps(self, inputs: dict[str, Any], most: int, choose: Callable[[Any], int | None]) -> Iterator[Any]:
        """The logits (V,) of each next token, `most` at most; `choose` is told them and gives the token that
        follows, or none.
        """
        prompt = [int(token) for token in inputs["input_ids"][0]]
        parameters = llama_cpp.LlamaContextParams()
        parameters.n_ctx = len(prompt) + most
        parameters.n_batch = parameters.n_ubatch = _BATCH
        threads = 1 if self._model.size < _SMALL_BYTES else os.cpu_count() or 1
        parameters.n_threads = parameters.n_threads_batch = threads
        context = llama_cpp.LlamaContext(self._model, parameters, verbose=False)
        try:
            place, fed = 0, prompt
            for _ in range(most):
                place = _read(context, fed, place)
                logits_V = np.array(context.get_logits(), np.float32)
                yield logits_V
                token = choose(logits_V)
                if token is None:
                    return
                fed = [token]
        finally:
            context.close()


def _read(context: Any, tokens: list[int], place: int) -> int:
    """Have the model read tokens from a place on; logits are those of the last. Returns the next place."""
    for start in range(0, len(tokens), _BATCH):
        part = tokens[start : start + _BATCH]
        batch = llama_cpp.LlamaBatch(n_tokens=len(part), embd=0, n_seq_max=1)
        for index, token in enumerate(part):
            batch.add(token, place + index, [0], index == len(part) - 1)
        context.decode(batch)
        place += len(part)
    return place
