"""Words to tokens and back, from the package's own `tokenizer.json` and chat template, by tokenizers and
jinja2 alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chat_template import asked, compiled  # pyright: ignore[reportMissingImports]  (beside this file)
from tokenizers import Tokenizer


class Words:
    """Tokenizer and chat template of a package."""

    def __init__(self, package: Path, *, template: bool = True) -> None:
        """Read a folder; without `template` it has none, and `ask` is not to be called."""
        self._tokenizer: Any = Tokenizer.from_file(str(package / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config: dict[str, Any] = json.loads((package / "tokenizer_config.json").read_bytes())
        self._special = {name: _text(value) for name, value in config.items() if name.endswith("_token")}
        self._template = compiled(_template(package, config) if template else "")

    def ask(self, messages: Sequence[Any], *, parts: bool) -> str:
        """A conversation that the assistant shall answer, as the template writes it.

        Args:
            messages: content in parts.
            parts: the template takes parts, else their text in one.
        """
        return str(asked(self._template, messages, self._special, parts=parts))

    def tokens(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text; `special`: with the tokens that begin and end one."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as words, special ones left out."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


def _text(value: Any) -> Any:
    return value["content"] if isinstance(value, dict) and "content" in value else value


def _template(package: Path, config: dict[str, Any]) -> str:
    beside = package / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    template = config.get("chat_template") or ""
    if isinstance(template, list):  # several, by name
        template = next(each["template"] for each in template if each["name"] == "default")
    if not template:
        raise FileNotFoundError(f"{package} has no chat template: put chat_template.jinja into it")
    return str(template)
