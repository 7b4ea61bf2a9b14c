"""Conversations to text by the model's own chat template, and where in it the assistant speaks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

from jinja2 import TemplateError

from finemesh.core.errors import InvalidError
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
    template_owner: Any, messages: list[Message], *, parts: bool, train: Sequence[bool | None] = ()
) -> Rendered:
    """Render with the chat template of a processor or tokenizer.

    A template with `{% generation %}` marks the assistant's words itself. With any other, an assistant turn
    is what the text gains when that turn is added to the conversation before it, generation prompt included.

    Args:
        template_owner: has `apply_chat_template`.
        messages: the conversation.
        parts: whether the template takes content as parts (vision-language) or as one string.
        train: of each message, whether it carries loss; None leaves it to its role, as leaving all out does.

    Raises:
        InvalidError: TEMPLATE_MISSING; TEMPLATE_NOT_INCREMENTAL, turns cannot be told apart in the text;
            TEMPLATE_REFUSED, the template knows no such conversation.
    """
    template = template_owner.chat_template
    if not template:
        raise InvalidError.of(
            "spec.base_model",
            "its tokenizer has no chat template, so nothing says where a turn begins: choose an instruct "
            "model, or put a chat_template.jinja into its folder",
            reason="TEMPLATE_MISSING",
        )
    chat = [dict(message) if parts else _flat(message) for message in messages]
    by_role = [message["role"] == "assistant" for message in messages]
    flags = train or [None] * len(messages)
    learnt = [own if flag is None else flag for own, flag in zip(by_role, flags, strict=True)]
    try:
        if is_marked(template):
            rendered = _render_marked(template_owner, template, chat)
            if learnt == by_role:
                return rendered
            kept = [flag for flag, own in zip(learnt, by_role, strict=True) if own]
            if sum(kept) == sum(learnt) and len(kept) == len(rendered.spans):
                return Rendered(rendered.text, tuple(compress(rendered.spans, kept)))
        return _render_by_turns(template_owner, chat, learnt)
    except TemplateError as error:
        raise InvalidError.of(
            "spec.base_model",
            f"its chat template refuses a conversation of {len(chat)} turns ({error}): mend the rows, or the "
            "template",
            reason="TEMPLATE_REFUSED",
        ) from error


def is_marked(template: Any) -> bool:
    """Whether a chat template says itself, by `{% generation %}`, which words are the assistant's."""
    return isinstance(template, str) and bool(_GENERATION_MARK.search(template))


def _flat(message: Message) -> dict[str, Any]:
    return {"role": message["role"], "content": "".join(part["text"] for part in message["content"])}


def _render_marked(template_owner: Any, template: str, chat: list[dict[str, Any]]) -> Rendered:
    from transformers.utils.chat_template_utils import render_jinja_template

    special_tokens = getattr(template_owner, "tokenizer", template_owner).special_tokens_map
    texts, spans = render_jinja_template(
        conversations=[chat], chat_template=template, return_assistant_tokens_mask=True, **special_tokens
    )
    return Rendered(texts[0], tuple((int(start), int(end)) for start, end in spans[0]))


def _render_by_turns(template_owner: Any, chat: list[dict[str, Any]], learnt: Sequence[bool]) -> Rendered:
    def text_of(turns: list[dict[str, Any]], *, prompt: bool) -> str:
        return template_owner.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)

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
