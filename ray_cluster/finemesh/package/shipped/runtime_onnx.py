"""How this package is run: by onnxruntime, with numpy, pillow, tokenizers and jinja2, without torch.

Every `runtime.py` has a class `Runner` with these methods; `verify.py`, `predict.py` and the server know no
other. Arrays are numpy's. Items of models that speak are conversations, with at most one picture; for the
others an item is a picture.

Shape legend: B items, T tokens, G generated tokens, V vocabulary, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnx_pixels  # pyright: ignore[reportMissingImports]  (the files beside this one)
import onnxruntime
import tokenizers
from onnx_words import Words  # pyright: ignore[reportMissingImports]
from PIL import Image

Arrays = dict[str, Any]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
_SPEAKS = ("LANGUAGE", "VISION_LANGUAGE")


class Graph:
    """One graph of the package."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {each.name: each for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, fed: Arrays) -> Arrays:
        """Outputs by name. Inputs become the types that the graph takes; those it does not are left out."""
        taken = {name: fed[name].astype(_TYPES[each.type], copy=False) for name, each in self.inputs.items()}
        return dict(zip(self._outputs, self._session.run(None, taken), strict=True))


class Runner:
    """A loaded package.

    Attributes:
        task: of the model, as `spec.task` of the manifest.
        versions: what ran it.
        graphs: of the package, by name.
        context_tokens: the most tokens of prompt and answer together; 0 where nothing says.
        end_ids: tokens that end an answer.
        most_at_once: prompts that `answer` takes.
    """

    most_at_once = 16

    def __init__(self, package: Path, base: str | None = None) -> None:
        """Load the package in a folder; it needs no `base`."""
        del base
        self._manifest: dict[str, Any] = json.loads((package / "manifest.json").read_bytes())
        self._facts: dict[str, Any] = json.loads((package / "onnx.json").read_bytes())
        self.task = str(self._manifest["spec"]["task"])
        # It goes on with a text, and knows no turns.
        self._plain = self._manifest["spec"].get("objective") == "TEXT"
        self.versions = {
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "tokenizers": tokenizers.__version__,
            "jinja2": jinja2.__version__,
        }
        self.graphs = {name: Graph(package / f"{name}.onnx") for name in self._facts["graphs"]}
        inputs = self.graphs["model"].inputs
        self._cache = {name: each for name, each in inputs.items() if name.startswith("past_key_values.")}
        if self.task != "LANGUAGE":
            self._pixels = onnx_pixels.read_config(package)
        if self.task in _SPEAKS:
            self._words = Words(package, template=not self._plain)
            self.end_ids = frozenset(self._facts["end_ids"])
            self.context_tokens = int(self._facts["context_tokens"])
        if self._facts.get("asks"):
            self._asker = Words(package / "qformer_tokenizer", template=False)

    def prepare(self, messages: Sequence[Any], image: Image.Image | None) -> Arrays:
        """What the model is fed, by name, one item with an axis for the batch: preprocessing and template.

        Args:
            messages: a conversation that the assistant shall answer, content in parts; empty for models that
                do not speak.
            image: the picture, if there is one.
        """
        seen = onnx_pixels.prepare(image, self._pixels) if image else {}
        if self.task not in _SPEAKS:
            if "pixel_mask" in self._manifest["decisions"]["inputs"]:
                seen["pixel_mask"] = np.ones((1, *seen["pixel_values"].shape[2:]), np.int64)
            return seen
        if self._plain:
            text = "".join(part["text"] for part in messages[-1]["content"])
            return {"input_ids": np.array([self._words.tokens(text, special=True)], np.int64)}
        text = self._words.ask(messages, parts=self.task == "VISION_LANGUAGE")
        if seen:
            text = text.replace(self._facts["image_token"], self._stand_in(seen), 1)
            if self._facts.get("asks"):
                seen |= self._asked(messages)
        grid_free = {name: value for name, value in seen.items() if name != "grid"}
        return {"input_ids": np.array([self._words.tokens(text)], np.int64), **grid_free}

    def _stand_in(self, seen: Arrays) -> str:
        """The text that stands for a picture: a placeholder for each of its features."""
        places: str = self._facts["image_token"] * self._facts["features"]
        if "grid" not in seen:
            return places
        around, whole = self._facts["around"], self._facts["whole"]
        rows, columns = seen["grid"].tolist()
        tiles = "".join(
            "".join(f"{around}<row_{row}_col_{column}>{places}" for column in range(1, columns + 1)) + "\n"
            for row in range(1, rows + 1)
        )
        return f"{tiles}\n{around}{whole}{places}{around}" if rows else f"{around}{whole}{places}{around}"

    def _asked(self, messages: Sequence[Any]) -> Arrays:
        """What a Q-Former reads: the words of the message that shows the picture."""
        words = ""
        for message in messages:
            if any(part["type"] == "image" for part in message["content"]):
                words = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        ids = np.array([self._asker.tokens(words, special=True)], np.int64)
        return {"qformer_input_ids": ids, "qformer_attention_mask": np.ones_like(ids)}

    def outputs(self, inputs: Arrays, tokens_G: Any = None) -> Arrays:
        """Raw outputs in 32 bits, without the axis of the batch.

        Of models that speak `logits` (G, V), from which each of the given tokens would be chosen after the
        prompt and those before it: one after the other, as they are written.
        """
        if tokens_G is None:
            return self.together([inputs])[0]
        given = [int(token) for token in tokens_G]
        logits_GV: list[Any] = []

        def choose(_index: int, logits_V: Any) -> int:
            logits_GV.append(logits_V)
            return given[len(logits_GV) - 1]

        self.answer([inputs], len(given), choose, lambda _index, _token: True)
        return {"logits": np.stack(logits_GV)}

    def together(self, items: Sequence[Arrays]) -> list[Arrays]:
        """`outputs` of items that have the same shapes."""
        names = items[0]
        found = self.graphs["model"]({name: np.concatenate([each[name] for each in items]) for name in names})
        wanted = self._manifest["decisions"]["outputs"]
        return [
            {name: found[name][index].astype(np.float32) for name in wanted} for index in range(len(items))
        ]

    def write(self, inputs: Arrays, most_tokens: int) -> list[int]:
        """The likeliest tokens after a prompt, one after the other, up to the end token or so many."""
        written: list[int] = []

        def take(_index: int, token: int) -> bool:
            written.append(token)
            return token not in self.end_ids

        self.answer([inputs], most_tokens, lambda _index, logits_V: int(logits_V.argmax()), take)
        return written

    def answer(
        self,
        items: Sequence[Arrays],
        most_tokens: int,
        choose: Callable[[int, Any], int],
        take: Callable[[int, int], bool],
    ) -> None:
        """Continue prompts until none wants more, or has so many tokens.

        Args:
            items: made by `prepare`; shorter prompts are padded on the left.
            most_tokens: for each.
            choose: (index of the item, its logits (V,)) -> the next token.
            take: told (index of the item, token) in turn: whether it wants another.
        """
        ids_BT, mask_BT = _padded([each["input_ids"][0] for each in items])
        positions_BT = np.maximum(mask_BT.cumsum(1) - 1, 0)
        fed: Arrays = self._embedded(ids_BT, mask_BT, items)
        past = self._nothing_before(len(items))
        wanting = [True] * len(items)
        for _ in range(most_tokens):
            fed |= {"attention_mask": mask_BT, "position_ids": positions_BT}
            found = self.graphs["model"](fed | past)
            past = {_past_name(name): value for name, value in found.items() if name != "logits"}
            logits_BV = found["logits"][:, -1].astype(np.float32)
            next_B1 = np.zeros((len(items), 1), np.int64)
            for index in [each for each, wants in enumerate(wanting) if wants]:
                next_B1[index] = token = choose(index, logits_BV[index])
                wanting[index] = take(index, token)
            if not any(wanting):
                return
            fed = self._embedded(next_B1)
            mask_BT = np.concatenate([mask_BT, np.ones((len(items), 1), np.int64)], axis=1)
            positions_BT = positions_BT[:, -1:] + 1

    def _embedded(self, ids_BT: Any, mask_BT: Any = None, items: Sequence[Arrays] = ()) -> Arrays:
        """Tokens as the language model takes them; pictures of the items in the places of their tokens."""
        if "embed" not in self.graphs:
            return {"input_ids": ids_BT}
        embeds_BTD = self.graphs["embed"]({"input_ids": ids_BT})["inputs_embeds"]
        for index, item in enumerate(items):
            if "pixel_values" in item:
                seen = {name: value for name, value in item.items() if name != "input_ids"}
                pixels = item["pixel_values"]
                seen["pixel_values"] = pixels.reshape(-1, *pixels.shape[-3:])
                features_NKD = self.graphs["vision"](seen)["image_features"]
                places_T = (ids_BT[index] == self._facts["image_token_id"]) & (mask_BT[index] > 0)
                embeds_BTD[index, places_T] = features_NKD.reshape(-1, features_NKD.shape[-1])
        return {"inputs_embeds": embeds_BTD}

    def _nothing_before(self, rows: int) -> Arrays:
        """Keys and values of no token."""
        return {
            name: np.zeros((rows, each.shape[1], 0, each.shape[3]), _TYPES[each.type])
            for name, each in self._cache.items()
        }

    def text(self, tokens: list[int]) -> str:
        """Tokens as words, special ones left out."""
        return self._words.text(tokens)


def _past_name(present: str) -> str:
    return "past_key_values." + present.removeprefix("present.")


def _padded(prompts: Sequence[Any]) -> tuple[Any, Any]:
    """Prompts (B, T), the shorter ones after padding, and a mask of what is none."""
    longest = max(len(each) for each in prompts)
    room = [longest - len(each) for each in prompts]
    ids = [np.pad(each, (before, 0)) for each, before in zip(prompts, room, strict=True)]
    masks = [np.pad(np.ones_like(each), (before, 0)) for each, before in zip(prompts, room, strict=True)]
    return np.stack(ids), np.stack(masks)
