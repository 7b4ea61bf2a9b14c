"""Preferences: one prompt, a chosen and a rejected answer.

Sources: TRL, docs/source/dataset_formats.md (prompts explicit and implicit, texts and lists of turns);
LLaMA-Factory, data/README.md (answers as one turn); anthropics/hh-rlhf (dialogues as texts).
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.readers.conversations.draft import Draft
from finemesh.data.readers.conversations.turns import ASSISTANT, USER, as_turns, turn_text

_PROMPTS: Final = ("prompt", "messages", "conversations", "instruction", "question", "input")
_SPEAKER: Final = re.compile(r"\n\n(Human|Assistant): ?")
_SPEAKERS: Final = {"Human": USER, "Assistant": ASSISTANT}


def read_preference(draft: Draft) -> None:
    """What `chosen` and `rejected` begin with alike is the prompt, or belongs to it.

    Raises:
        RowFault: PROMPT_MISSING; PREFERENCE_INVALID, the two do not part at the last turn of `chosen`; or a
            fault of a turn.
    """
    draft.system()
    prompt = _prompt(draft)
    answers = [draft.fields.take(name) for name in ("chosen", "rejected")]
    if all(isinstance(answer, str) for answer in answers):
        shared, chosen, rejected = ([], *answers) if prompt else _divide_texts(answers[0], answers[1])
        prompt = [*prompt, *shared]
        chosen, rejected = as_turns(chosen, "chosen"), as_turns(rejected, "rejected")
    else:
        chosen, rejected = as_turns(answers[0], "chosen"), as_turns(answers[1], "rejected")
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    alike = sum(1 for _ in pairs)
    prompt = _joined(prompt, chosen[:alike])
    chosen, rejected = chosen[alike:], rejected[alike:]
    if chosen and prompt[-len(chosen) :] == chosen:  # `messages` with the chosen turn at their end
        prompt = prompt[: -len(chosen)]
    if len(chosen) != 1 or not rejected:
        message = "chosen and rejected must part at the last turn of chosen: both need an answer of their own"
        raise RowFault("PREFERENCE_INVALID", message, "chosen")
    if not prompt:
        message = "chosen and rejected have no beginning in common, and there is no prompt: give one"
        raise RowFault("PROMPT_MISSING", message, "prompt")
    draft.turns(prompt, "prompt", context=True)
    draft.turns(chosen, "chosen")
    draft.reject(rejected, "rejected")


def _prompt(draft: Draft) -> list[Any]:
    """What was said before the two answers, under whatever name."""
    name = next((name for name in _PROMPTS if draft.fields.has(name)), None)
    if name is None:
        return []
    value = draft.fields.take(name)
    if name == "instruction" and isinstance(value, str) and draft.fields.has("input"):
        draft.more["input"] = given = draft.fields.text("input")
        value += "\n" + given
    return as_turns(value, name, USER)


def _divide_texts(chosen: str, rejected: str) -> tuple[list[Any], Any, Any]:
    """The turns that two texts begin with, and what follows in each: of dialogues turns, of other texts what
    comes behind the last blank that they have in common.
    """
    if _SPEAKER.match(chosen) and _SPEAKER.match(rejected):
        return [], _dialogue(chosen), _dialogue(rejected)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    shared = "".join(letter for letter, _ in same)
    end = max(shared.rfind(blank) for blank in " \n\t") + 1
    turns = [{"role": USER, "content": chosen[:end]}] if chosen[:end].strip() else []
    return turns, chosen[end:], rejected[end:]


def _dialogue(text: str) -> list[dict[str, str]]:
    _, *pieces = _SPEAKER.split(text)
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    return [{"role": _SPEAKERS[speaker], "content": words} for speaker, words in pairs]


def _joined(prompt: list[Any], shared: list[Any]) -> list[Any]:
    """The prompt, and what both answers begin with: often the same once more."""
    repeated = [turn_text(turn) for turn in prompt]
    if repeated == [turn_text(turn) for turn in shared][-len(repeated) :]:
        return shared
    return [*prompt, *shared]
