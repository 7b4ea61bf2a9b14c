"""Small random models with a tokenizer trained on the spot: real architectures, no download.

`python -m finemesh.finetune.tiny --family llava --out DIR --texts FILE.jsonl|--dataset DIR --seed 0`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.finetune.families import FAMILIES, family_named
from finemesh.finetune.families.family import Family, TinyTokens

VOCAB_SIZE: Final = 512
PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
ROLES: Final = ("system", "user", "assistant", "tool")

# `{% generation %}` marks what the assistant says, its end token included: those tokens carry loss.
CHAT_TEMPLATE: Final = (
    "{%- macro say(content) -%}"
    "{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content -%}"
    "{%- if part.type == 'image' -%}<image>{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- macro calls(message) -%}"
    "{%- for call in message.tool_calls or [] -%}"
    "{{ '<call>' + call.function | tojson + '</call>' }}"
    "{%- endfor -%}"
    "{%- endmacro -%}"
    "{{- bos_token -}}"
    "{%- if tools -%}{{- '<|system|>' + tools | tojson -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|' + message.role + '|>' -}}"
    "{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{- say(message.content) + calls(message) + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- say(message.content) -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def build_tiny(family: str, out: Path, texts: Iterable[str], seed: int) -> Path:
    """Write a small random model of a family with a byte-level BPE tokenizer trained on `texts` into `out`.

    The same arguments give the same weights. Returns `out`, a folder that `from_pretrained` takes.

    Raises:
        NotFoundError: FAMILY_NOT_FOUND.
        InvalidError: NO_TINY_MODEL, the family has no small configuration.
        PreconditionError: NOT_INSTALLED, it needs a package that is not there.
    """
    import torch
    import transformers

    kind = family_named(family)
    if kind.tiny_config is None:
        able = ", ".join(each.name for each in FAMILIES if each.tiny_config)
        raise InvalidError.of(
            "family", f"{family!r} has no small configuration: take {able}", reason="NO_TINY_MODEL"
        )
    kind.check_extra()
    tokenizer = _train_tokenizer(texts, kind)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (BOS, EOS, PAD, IMAGE)}
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in kind.tiny_tokens}
    config = kind.tiny_config(TinyTokens(len(tokenizer), ids[BOS], ids[EOS], ids[PAD], ids[IMAGE], special))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, kind.auto_class).from_config(config)
    model.save_pretrained(out)
    processor = kind.tiny_processor(config, tokenizer) if kind.tiny_processor else tokenizer
    processor.save_pretrained(out)
    return out


def _train_tokenizer(texts: Iterable[str], kind: Family) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    added = [IMAGE, *(f"<|{role}|>" for role in ROLES), *kind.tiny_tokens]
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, BOS, EOS, *added],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)
    fast.add_special_tokens({"additional_special_tokens": added})
    fast.chat_template = CHAT_TEMPLATE.replace(IMAGE, kind.tiny_image)
    return fast


def _texts_of_jsonl(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        yield value if isinstance(value, str) else str(value["text"])


def _texts_of_dataset(folder: Path) -> Iterator[str]:
    from finemesh.finetune.rows import read_rows

    for row in read_rows(folder, columns=("messages",)):
        for message in row.messages:
            yield from (part["text"] for part in message["content"] if part["text"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m finemesh.finetune.tiny", description=__doc__)
    able = [family.name for family in FAMILIES if family.tiny_config]
    parser.add_argument("--family", required=True, choices=able)
    parser.add_argument("--out", required=True, type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--texts", type=Path, help="JSON lines: strings, or objects with `text`")
    source.add_argument("--dataset", type=Path, help="a canonical dataset folder")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    texts = _texts_of_jsonl(given.texts) if given.texts else _texts_of_dataset(given.dataset)
    try:
        print(build_tiny(given.family, given.out, texts, given.seed))  # noqa: T201
    except FinemeshError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
