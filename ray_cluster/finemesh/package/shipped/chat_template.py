"""Chat templates, as the tokenizers of transformers have them, by jinja2 alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


def asked(template: Any, messages: Sequence[Any], special: dict[str, Any], *, parts: bool) -> str:
    """A conversation that the assistant shall answer, as a compiled template writes it.

    Args:
        template: of `compiled`.
        messages: content in parts.
        special: special tokens by name, e.g. `bos_token`.
        parts: the template takes parts, else their text in one.
    """
    told = [
        message if parts else {**message, "content": "".join(part["text"] for part in message["content"])}
        for message in messages
    ]
    return str(template.render(messages=told, add_generation_prompt=True, **special))


def compiled(template: str) -> Any:
    """A template, to be rendered as `apply_chat_template` of transformers does it."""
    environment: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005
    return environment.from_string(template)


class _Generation(Extension):
    """`{% generation %}`, which marks what the assistant says and adds nothing to it."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 has it

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller: Any) -> str:
        return str(caller())


def _json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Without the escapes for HTML that jinja2's own has."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _refuse(message: str) -> None:
    raise TemplateError(message)
