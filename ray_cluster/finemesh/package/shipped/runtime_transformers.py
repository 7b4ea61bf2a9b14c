"""How this package is run: by transformers, on the CPU, in 32 bits or in the precision of its weights.

Every `runtime.py` has a class `Runner` with these methods; `verify.py`, `predict.py` and the server know no
other. Arrays are numpy's. Items of models that speak are conversations, with at most one picture; for the
others an item is a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

_DTYPES = {"MERGED_BF16": torch.bfloat16, "MERGED_FP16": torch.float16}


class Runner:
    """A loaded package.

    Attributes:
        task: of the model, as `spec.task` of the manifest.
        versions: what ran it.
        context_tokens: the most tokens of prompt and answer together; 0 where nothing says.
        end_ids: tokens that end an answer.
        most_at_once: prompts that are answered together.
    """

    context_tokens = 0
    end_ids: frozenset[int] = frozenset()
    most_at_once = 64

    def __init__(self, package: Path, base: str | None = None) -> None:
        """Load the package in a folder.

        Args:
            package: folder of the package.
            base: folder or hub id of the base model of an adapter; by default the one it was trained on.
        """
        self._manifest: dict[str, Any] = json.loads((package / "manifest.json").read_bytes())
        self.task = str(self._manifest["spec"]["task"])
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        self.model = self._load(package, base).eval()
        self.processor = self._load_processor(package)
        if self.task in ("LANGUAGE", "VISION_LANGUAGE"):
            self.context_tokens = _context_tokens(self.model.config)
            self.end_ids = _end_ids(self.model, self.processor)

    def _load(self, package: Path, base: str | None) -> Any:
        manifest = self._manifest
        auto_class = getattr(transformers, manifest["auto_class"])
        if manifest["format"] != "ADAPTER":
            if manifest["format"].startswith("BNB"):
                self.versions["bitsandbytes"] = version("bitsandbytes")
            dtype = _DTYPES.get(manifest["format"], torch.float32)
            return auto_class.from_pretrained(package, dtype=dtype, use_safetensors=True)
        import peft

        self.versions["peft"] = peft.__version__
        source = base or manifest["base_model"]["name"]
        revision = None if base else manifest["base_model"]["revision"] or None
        head = {}
        if labels := manifest["decisions"].get("labels"):
            head = {
                "num_labels": len(labels),
                "id2label": dict(enumerate(labels)),
                "label2id": {label: index for index, label in enumerate(labels)},
                "ignore_mismatched_sizes": True,
            }
        model = auto_class.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True, **head
        )
        return peft.PeftModel.from_pretrained(model, str(package))

    def _load_processor(self, package: Path) -> Any:
        if self.task not in ("LANGUAGE", "VISION_LANGUAGE"):
            return transformers.AutoImageProcessor.from_pretrained(package, backend="pil")
        if (package / "processor_config.json").exists():
            processor = transformers.AutoProcessor.from_pretrained(package, backend="pil")
            # Some processors leave the template with their tokenizer.
            processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
            return processor
        return transformers.AutoTokenizer.from_pretrained(package)

    def prepare(self, messages: list[dict[str, Any]], image: Image.Image | None) -> dict[str, Any]:
        """What the model is fed, by name, one item with an axis for the batch: preprocessing and template.

        Args:
            messages: a conversation that the assistant shall answer, content in parts; empty for models that
                do not speak.
            image: the picture, if there is one.
        """
        picture = image.convert("RGB") if image else None
        made = self._prepare_picture(picture) if not messages else self._prepare_text(messages, picture)
        return {name: np.asarray(value) for name, value in made.items()}

    def _prepare_picture(self, picture: Any) -> dict[str, Any]:
        padding = {"do_pad": False} if self.task == "DETECTION" else {}
        pixels_CHW = self.processor([picture], **padding)["pixel_values"][0]
        pixels_BCHW = np.asarray(pixels_CHW, np.float32)[None]
        inputs: dict[str, Any] = {"pixel_values": pixels_BCHW}
        if "pixel_mask" in self._manifest["decisions"]["inputs"]:
            inputs["pixel_mask"] = np.ones((1, *pixels_BCHW.shape[2:]), np.int64)
        return inputs

    def _prepare_text(self, messages: list[dict[str, Any]], picture: Any) -> dict[str, Any]:
        if self._manifest["spec"].get("objective") == "TEXT":  # it goes on with a text, and knows no turns
            text = "".join(part["text"] for part in messages[-1]["content"])
            return dict(self.processor(text=[text], return_tensors="pt"))
        if not hasattr(self.processor, "image_processor"):
            messages = [
                {"role": message["role"], "content": "".join(part["text"] for part in message["content"])}
                for message in messages
            ]
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if hasattr(self.processor, "qformer_tokenizer"):
            return self._prepare_queries(messages, text, picture)
        pictures = {"images": [picture]} if picture else {}
        return dict(self.processor(text=[text], add_special_tokens=False, return_tensors="pt", **pictures))

    def _prepare_queries(self, messages: list[dict[str, Any]], text: str, picture: Any) -> dict[str, Any]:
        """InstructBLIP as it was trained: what its queries found stands where the template shows the picture,
        and they read the words of that message. Its own processor would put it before everything, and have
        them read the whole text. Without a picture the model is fed a blank one, which finds no place.
        """
        processor = self.processor
        place = str(processor.image_token)
        made = dict(
            processor.tokenizer(
                [text.replace(place, place * processor.num_query_tokens, 1)],
                add_special_tokens=False,
                return_tensors="pt",
            )
        )
        shown = picture or Image.new("RGB", (1, 1))
        made["pixel_values"] = processor.image_processor([shown], return_tensors="pt")["pixel_values"]
        parts = [part for message in messages for part in message["content"] if _shows(message)]
        words = "".join(part["text"] for part in parts if part["type"] == "text")
        read = processor.qformer_tokenizer([words], truncation=True, return_tensors="pt")
        return made | {f"qformer_{name}": read[name] for name in ("input_ids", "attention_mask")}

    @torch.inference_mode()
    def outputs(self, inputs: dict[str, Any], tokens_G: Any = None) -> dict[str, Any]:
        """Raw outputs in 32 bits, without the axis of the batch.

        Of models that speak `logits` (G, V), from which each of the given tokens would be chosen after the
        prompt and those before it.
        """
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        if tokens_G is not None:
            before_BT = torch.from_numpy(np.asarray(tokens_G)[None, :-1])
            ids = torch.cat([tensors["input_ids"], before_BT], dim=1)
            tensors |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            for name in ("token_type_ids", "mm_token_type_ids"):  # what follows the prompt is text
                if name in tensors:
                    tensors[name] = torch.nn.functional.pad(tensors[name], (0, before_BT.shape[1]))
            logits_GV = self.model(**tensors, use_cache=False).logits[0, -len(tokens_G) :]
            return {"logits": logits_GV.float().numpy()}
        output = self.model(**tensors)
        names = self._manifest["decisions"]["outputs"]
        return {name: output[name][0].float().numpy() for name in names}

    @torch.inference_mode()
    def write(self, inputs: dict[str, Any], most_tokens: int) -> list[int]:
        """The likeliest tokens after a prompt, one after the other, up to the end token or so many."""
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        output = self.model.generate(**tensors, do_sample=False, max_new_tokens=most_tokens)
        return output[0, inputs["input_ids"].shape[1] :].tolist()

    @torch.inference_mode()
    def together(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """`outputs` of several pictures that have the same shapes."""
        joined = {name: np.concatenate([item[name] for item in items]) for name in items[0]}
        output = self.model(**{name: torch.from_numpy(array) for name, array in joined.items()})
        names = self._manifest["decisions"]["outputs"]
        return [{name: output[name][index].float().numpy() for name in names} for index in range(len(items))]

    @torch.inference_mode()
    def answer(
        self,
        items: Sequence[dict[str, Any]],
        most_tokens: int,
        choose: Callable[[int, Any], int],
        take: Callable[[int, int], bool],
    ) -> None:
        """Continue several prompts at once, padded on their left, until none wants more tokens.

        Args:
            items: of `prepare`, alike but for the number of their tokens.
            most_tokens: of an answer.
            choose: (index of the prompt, its logits (V,)) -> the next token.
            take: told (index, token) in turn; whether that prompt wants another.
        """
        steps = _Steps(choose, take, len(items))
        self.model.generate(
            **_padded(items),
            do_sample=False,
            max_new_tokens=most_tokens,
            pad_token_id=min(self.end_ids, default=0),
            logits_processor=transformers.LogitsProcessorList([steps]),
            stopping_criteria=transformers.StoppingCriteriaList([steps.take]),
        )

    def text(self, tokens: list[int]) -> str:
        """Tokens as words, special ones left out."""
        return str(self.processor.decode(tokens, skip_special_tokens=True)).strip()


class _Steps:
    """The two places at which `generate` lets others have a say, for each prompt by itself.

    It is called for a choice itself: `generate` reads the signature of what it calls at each token, which for
    a method takes longer than all that the method does.
    """

    def __init__(
        self, choose: Callable[[int, Any], int], take: Callable[[int, int], bool], prompts: int
    ) -> None:
        self._choose = choose
        self._take = take
        self._wants = [True] * prompts

    def __call__(self, _ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """Leave the chosen token of each prompt as the only likely one."""
        chosen_BV = torch.full_like(scores_BV, -torch.inf)
        for index, wants in enumerate(self._wants):
            token = self._choose(index, scores_BV[index].float().numpy()) if wants else 0
            chosen_BV[index, token] = 0
        return chosen_BV

    def take(self, ids_BT: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        """Whether each prompt has all that it wants."""
        for index, token in enumerate(ids_BT[:, -1].tolist()):
            self._wants[index] = self._wants[index] and self._take(index, token)
        return torch.tensor([not wants for wants in self._wants], device=ids_BT.device)


def _padded(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Prompts as one batch. What goes with each token is padded on its left, unseen by the mask; pictures
    follow one another.
    """
    longest = max(item["input_ids"].shape[1] for item in items)
    made: dict[str, torch.Tensor] = {}
    for name in items[0]:
        parts = [item[name] for item in items]
        if all(part.shape == item["input_ids"].shape for part, item in zip(parts, items, strict=True)):
            parts = [np.pad(part, ((0, 0), (longest - part.shape[1], 0))) for part in parts]
        made[name] = torch.from_numpy(np.concatenate(parts))
    return made


def _shows(message: dict[str, Any]) -> bool:
    return any(part["type"] == "image" for part in message["content"])


def _context_tokens(config: Any) -> int:
    """The most tokens that the model has positions for; 0 where its config does not say."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 0)


def _end_ids(model: Any, processor: Any) -> frozenset[int]:
    """Tokens that end an answer: those of the generation config, and the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    own = getattr(processor, "tokenizer", processor).eos_token_id
    return frozenset(each for each in (*ends, own) if each is not None)
