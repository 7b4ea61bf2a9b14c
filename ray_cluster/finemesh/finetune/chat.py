"""Conversations to text by the model's own chat template, and where in it the assistant speaks."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, cast

from jinja2 import TemplateError

from finemesh.core.errors import InvalidError
from finemesh.finetune.lines import TOOL_FIELDS
from finemesh.finetune.rows import Message

_GENERATION_MARK: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")

Span = tuple[int, int]
"""First character and the one after the last."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text; `spans` is what is learnt: words, with the token that ends their turn."""

    text: str
    spans: tuple[Span, ...]


def render(
    template_owner: Any,
    messages: Sequence[Message],
    *,
    parts: bool,
    train: Sequence[bool | None] = (),
    tools: Sequence[Any] = (),
) -> Rendered:
    """Render with the chat template of a processor or tokenizer.

    A template with `{% generation %}` marks the assistant's words itself. With any other, an assistant turn
    is what the text gains when that turn is added to the conversation before it, generation prompt included.

    Args:
        template_owner: has `apply_chat_template`.
        messages: the conversation.
        parts: whether the template takes content as parts (vision-language) or as one string.
        train: of each message, whether it carries loss; None leaves it to its role, as leaving all out does.
        tools: functions that may be called, each an object with a name, or wrapped as OpenAI does.

    Raises:
        InvalidError: TEMPLATE_MISSING; TEMPLATE_NOT_INCREMENTAL, turns cannot be told apart in the text;
            TEMPLATE_REFUSED, the template knows no such conversation; TEMPLATE_WITHOUT_TOOLS, it leaves out
            tools or calls of them.
    """
    template = template_owner.chat_template
    if not template:
        raise InvalidError.of(
            "spec.base_model",
            "its tokenizer has no chat template, so nothing says where a turn begins: choose an instruct "
            "model, or put a chat_template.jinja into its folder",
            reason="TEMPLATE_MISSING",
        )
    chat = [_turn(message, parts=parts) for message in messages]
    functions = [_function(tool) for tool in tools]
    by_role = [message["role"] == "assistant" for message in messages]
    flags = train or [None] * len(messages)
    learnt = [own if flag is None else flag for own, flag in zip(by_role, flags, strict=True)]
    try:
        rendered = None
        if is_marked(template):
            rendered = _chosen(_render_marked(template_owner, template, chat, functions), by_role, learnt)
        rendered = rendered or _render_by_turns(template_owner, chat, functions, learnt)
    except TemplateError as error:
        raise InvalidError.of(
            "spec.base_model",
            f"its chat template refuses a conversation of {len(chat)} turns ({error}): mend the rows, or the "
            "template",
            reason="TEMPLATE_REFUSED",
        ) from error
    _check_tools(rendered.text, functions, messages)
    return rendered


def is_marked(template: Any) -> bool:
    """Whether a chat template says itself, by `{% generation %}`, which words are the assistant's."""
    return isinstance(template, str) and bool(_GENERATION_MARK.search(template))


def _turn(message: Message, *, parts: bool) -> dict[str, Any]:
    """A message as templates know it: calls wrapped as OpenAI does, and named only where there are any; of
    what a tool returns, the call that it answers.
    """
    content = message["content"] if parts else "".join(part["text"] for part in message["content"])
    answers = {key: value for key, value in message.items() if key in TOOL_FIELDS}
    turn: dict[str, Any] = {"role": message["role"], "content": content, **answers}
    if message["tool_calls"]:
        turn["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    return turn


def _call(described: Any) -> dict[str, Any]:
    """A call, its id beside its function, where templates look for it, and its arguments as an object."""
    call = _function(described)
    if not isinstance(call["function"], dict):
        return call
    function = dict(cast("dict[str, Any]", call["function"]))
    identity = {"id": function.pop("id")} if "id" in function else {}
    if isinstance(arguments := function.get("arguments"), str):
        with contextlib.suppress(ValueError):  # words that are no JSON stay what they are
            function["arguments"] = json.loads(arguments)
    return {**call, **identity, "function": function}


def _function(described: Any) -> dict[str, Any]:
    """https://huggingface.co/docs/transformers/chat_extras: `{"type": "function", "function": {...}}`."""
    wrapped = isinstance(described, dict) and "function" in described
    return cast("dict[str, Any]", described) if wrapped else {"type": "function", "function": described}


def _name(function: dict[str, Any]) -> str:
    described = function["function"]
    return str(cast("dict[str, Any]", described).get("name", "")) if isinstance(described, dict) else ""


def _check_tools(text: str, functions: list[dict[str, Any]], messages: Sequence[Message]) -> None:
    """A template that knows no tools leaves them out without a word: the model would never be told."""
    calls = [_function(call) for message in messages for call in message["tool_calls"]]
    for what, named in (("tools", functions), ("calls of tools", calls)):
        missing = [name for each in named if (name := _name(each)) not in text]
        if missing:
            raise InvalidError.of(
                "spec.base_model",
                f"its chat template leaves out {what} ({', '.join(missing[:3])}): choose a model whose "
                "template knows them, or put one that does into its folder as chat_template.jinja",
                reason="TEMPLATE_WITHOUT_TOOLS",
            )


def _chosen(rendered: Rendered, by_role: list[bool], learnt: list[bool]) -> Rendered | None:
    """Those spans of a marked text whose turns are learnt; None if the marks do not tell them."""
    if learnt == by_role:
        return rendered
    kept = [flag for flag, own in zip(learnt, by_role, strict=True) if own]
    if sum(kept) == sum(learnt) and len(kept) == len(rendered.spans):
        return Rendered(rendered.text, tuple(compress(rendered.spans, kept)))
    return None


def _render_marked(
    template_owner: Any, template: str, chat: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> Rendered:
    from transformers.utils.chat_template_utils import render_jinja_template

    special_tokens = getattr(template_owner, "tokenizer", template_owner).special_tokens_map
    texts, spans = render_jinja_template(
        conversations=[chat],
        chat_template=template,
        tools=cast("list[Any]", tools) or None,
        return_assistant_tokens_mask=True,
        **special_tokens,
    )
    return Rendered(texts[0], tuple((int(start), int(end)) for start, end in spans[0]))


def _render_by_turns(
    template_owner: Any, chat: list[dict[str, Any]], tools: list[dict[str, Any]], learnt: Sequence[bool]
) -> Rendered:
    def text_of(turns: list[dict[str, Any]], *, prompt: bool) -> str:
        return template_owner.apply_chat_template(
            turns, tools=tools or None, tokenize=False, add_generation_prompt=prompt
        )

    whole = text_of(chat, prompt=False)
    spans: list[Span] = []
    for index in compress(range(len(chat)), learnt):
        by_assistant = chat[index]["role"] == "assistant"
        after = text_of(chat[: index + 1], prompt=False)
        if index:
            before = text_of(chat[:index], prompt=by_assistant)
        else:  # templates do not render nothing
            header = text_of(chat[:1], prompt=True).removeprefix(after) if by_assistant else ""
            before = after[: after.find(header) + len(header)] if header in after else ""
        if not (after.startswith(before) and whole.startswith(after)):
            raise InvalidError.of(
                "spec.base_model",
                f"its chat template rewrites earlier turns, so the words of turn {index} cannot be found: "
                "mark them in "
                "the template with {% generation %}",
                reason="TEMPLATE_NOT_INCREMENTAL",
            )
        spans.append((len(before), len(after)))
    return Rendered(whole, tuple(spans))
