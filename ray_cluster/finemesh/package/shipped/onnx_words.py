"""Words to tokens and back, from the package's own `tokenizer.json` and chat template, by tokenizers and
jinja2 alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
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
        self._template = _environment().from_string(_template(package, config) if template else "")

    def ask(self, messages: Sequence[Any], *, parts: bool) -> str:
        """A conversation that the assistant shall answer, as the template writes it.

        Args:
            messages: content in parts.
            parts: the template takes parts, else their text in one.
        """
        told = [
            message if parts else {**message, "content": "".join(part["text"] for part in message["content"])}
            for message in messages
        ]
        text: str = self._template.render(messages=told, add_generation_prompt=True, **self._special)
        return text

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


class _Generation(Extension):
    """`{% generation %}`, which marks what the assistant says and adds nothing to it."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 has it

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller: Any) -> str:
        return str(caller())


def _environment() -> ImmutableSandboxedEnvironment:
    """As chat templates are written for: see `apply_chat_template` of transformers."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    known: dict[str, Any] = {"raise_exception": _refuse, "strftime_now": _now}
    environment.globals.update(known)
    return environment


def _json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Without the escapes for HTML that jinja2's own has."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005  the day where the user is


def _refuse(message: str) -> None:
    raise TemplateError(message)
