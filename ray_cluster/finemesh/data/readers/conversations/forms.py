"""The forms of instruction data: which fields tell them, and how a record becomes a row.

A record is of the first form, in the order of `FORMS`, whose fields it has. Conversations under the key
`conversations` are LLaVA's if the record has a picture or says `<image>`, and ShareGPT's otherwise; both are
read alike, so that texts among pictures do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from finemesh.core.spec.data import AnnotationFormat
from finemesh.data.faults import RowFault
from finemesh.data.placeholders import PLACEHOLDER
from finemesh.data.readers.conversations.draft import Draft
from finemesh.data.readers.conversations.fields import refuse
from finemesh.data.readers.conversations.gallery import PICTURE_FIELDS
from finemesh.data.readers.conversations.preferences import read_preference
from finemesh.data.readers.conversations.turns import ASSISTANT, USER, as_turns, turn_text


def _conversations(draft: Draft) -> None:
    draft.system()
    draft.turns(draft.fields.sequence("conversations"), "conversations")


def _messages(draft: Draft) -> None:
    """OpenAI's; with `rejected` beside `messages`, as our own forms write preferences."""
    turns = draft.fields.sequence("messages")
    if draft.fields.has("chosen", "rejected"):
        read_preference(draft)
        return
    draft.turns(turns, "messages")
    if rejected := draft.fields.take("rejected"):
        draft.reject(as_turns(rejected, "rejected"), "rejected")


def _alpaca(draft: Draft) -> None:
    """Source: tatsu-lab/stanford_alpaca for the fields; LLaMA-Factory, data/README.md, for `system`,
    `history`, and the line break between instruction and input.
    """
    fields = draft.fields
    draft.system()
    history = fields.take("history") or []
    for index, pair in enumerate(history if isinstance(history, list) else [history]):
        where = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            refuse(where, pair, "a list of a question and its answer")
        draft.say(USER, pair[0], f"{where}[0]")
        draft.say(ASSISTANT, pair[1], f"{where}[1]")
    instruction, given = fields.text("instruction"), fields.optional_text("input")
    if given:
        draft.more["input"] = given  # or nobody could tell it from the instruction again
    draft.say(USER, "\n".join(filter(None, (instruction, given))), "instruction")
    draft.say(ASSISTANT, fields.text("output"), "output")


def _prompt_completion(draft: Draft) -> None:
    draft.system()
    draft.turns(as_turns(draft.fields.take("prompt"), "prompt", USER), "prompt", context=True)
    draft.turns(as_turns(draft.fields.take("completion"), "completion", ASSISTANT), "completion")


def _input_output(draft: Draft) -> None:
    draft.system()
    draft.turns(as_turns(draft.fields.take("input"), "input", USER), "input", context=True)
    draft.turns(as_turns(draft.fields.take("output"), "output", ASSISTANT), "output")


def _text(draft: Draft) -> None:
    """Plain text; beside a picture, its caption."""
    text = draft.fields.text("text")
    if not text.strip():
        raise RowFault("EMPTY_TEXT", "the text is empty: fill it, or remove the record", "text")
    if draft.gallery.waiting:
        draft.captions = [text]
    else:
        draft.text = text


@dataclass(frozen=True, slots=True)
class Form:
    """`keys` are those a record must have, `never` those it must not; `lists` says that the first of them
    holds a list.
    """

    keys: tuple[str, ...]
    build: Callable[[Draft], None]
    lists: bool = False
    never: frozenset[str] = frozenset()


FORMS: Final[dict[AnnotationFormat, Form]] = {
    AnnotationFormat.PREFERENCE: Form(("chosen", "rejected"), read_preference),
    AnnotationFormat.LLAVA: Form(("conversations",), _conversations, lists=True),
    AnnotationFormat.SHAREGPT: Form(("conversations",), _conversations, lists=True),
    AnnotationFormat.OPENAI: Form(("messages",), _messages, lists=True),
    AnnotationFormat.ALPACA: Form(("instruction", "output"), _alpaca),
    AnnotationFormat.PROMPT_COMPLETION: Form(("prompt", "completion"), _prompt_completion),
    AnnotationFormat.INPUT_OUTPUT: Form(("input", "output"), _input_output),
    AnnotationFormat.TEXT: Form(("text",), _text, never=frozenset({"file_name"})),
}


def form_of(record: Mapping[str, Any]) -> AnnotationFormat | None:
    """The form of a record; None for what is no instruction data."""
    for name, form in FORMS.items():
        if fits(form, record) and (name is not AnnotationFormat.LLAVA or _shows_pictures(record)):
            return name
    return None


def fits(form: Form, record: Mapping[str, Any]) -> bool:
    """Whether a record has what the form needs."""
    there = all(key in record for key in form.keys) and form.never.isdisjoint(record)
    return there and (not form.lists or isinstance(record[form.keys[0]], list))


def _shows_pictures(record: Mapping[str, Any]) -> bool:
    turns = record["conversations"]
    said = (turn_text(turn) for turn in turns)
    return any(name in record for name in PICTURE_FIELDS) or any(
        isinstance(words, str) and PLACEHOLDER in words for words in said
    )
