"""An Ollama Modelfile (https://docs.ollama.com/modelfile): the template in Go's language, where answers stop.

A chat template of transformers can be any program, and Ollama's are of Go's text/template. What both can say
is a text around each message, which depends on its role alone. So the text is found by asking the template,
and it is used only if it writes other conversations as the template does.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import TemplateError

Messages = Sequence[Mapping[str, str]]
Ask = Callable[[Messages, bool], str]
"""(conversation, whether the assistant is to answer) -> its text."""

_ROLES: Final = ("system", "user", "assistant")
_MARK: Final = "\u2402{}\u2403"  # what no template writes by itself


@dataclass(frozen=True, slots=True)
class Frame:
    """What is written around messages: `start`, each between its role's two texts, and `answer`."""

    start: str
    around: Mapping[str, tuple[str, str]]
    answer: str

    def text(self, messages: Messages, *, answered: bool) -> str:
        parts = [self.around[m["role"]][0] + m["content"] + self.around[m["role"]][1] for m in messages]
        return self.start + "".join(parts) + ("" if answered else self.answer)


def frame_of(ask: Ask) -> Frame | None:
    """What a template writes around messages, or nothing where that depends on more than the role."""
    try:
        frame = _found(ask)
        tried = [
            (conversation, answered)
            for length in (1, 2, 3, 4, 5)
            for conversation in _conversations(length)
            for answered in (False, True)
        ]
        same = all(frame.text(each, answered=answered) == ask(each, not answered) for each, answered in tried)
    except ValueError:
        return None
    return frame if same else None


def modelfile(frame: Frame | None, stops: Sequence[str], context_tokens: int) -> str:
    """The Modelfile of a package whose weights are in model.gguf.

    Args:
        frame: of its chat template; None goes on with what it is told.
        stops: texts of the tokens that end an answer.
        context_tokens: the most that it was made for.
    """
    template = _template(frame) if frame else "{{ .Prompt }}"
    lines = ["FROM ./model.gguf", f'TEMPLATE """{template}"""']
    lines += [f"PARAMETER stop {_go(stop)}" for stop in dict.fromkeys(stops)]
    # Answers as they were checked: the likeliest token each time.
    lines += [f"PARAMETER num_ctx {context_tokens}", "PARAMETER temperature 0"]
    return "\n".join(lines) + "\n"


def _template(frame: Frame) -> str:
    """A frame in Go's language."""
    template = [f"{{{{- {_go(frame.start)} -}}}}", "{{- range .Messages -}}"]
    for word, role in zip(("if", "else if", "else if"), _ROLES, strict=True):
        before, after = frame.around[role]
        template.append(f'{{{{- {word} eq .Role "{role}" -}}}}')
        template.append(f"{{{{- {_go(before)} -}}}}{{{{- .Content -}}}}{{{{- {_go(after)} -}}}}")
    return "".join([*template, "{{- end -}}", "{{- end -}}", f"{{{{- {_go(frame.answer)} -}}}}"])


def write_modelfile(out: Path, ask: Ask | None, stops: Sequence[str], context_tokens: int) -> bool:
    """Write `Modelfile` into a package; one without `ask` knows no turns. False: its template says more than
    Ollama's language can.
    """
    frame = frame_of(ask) if ask else None
    if ask and not frame:
        return False
    (out / "Modelfile").write_text(modelfile(frame, stops, context_tokens), encoding="utf-8")
    return True


def _found(ask: Ask) -> Frame:
    """From single answers of the template. Raises ValueError: a content does not come back as it was."""
    marks = {role: _MARK.format(role) for role in _ROLES}
    one = ask([{"role": "user", "content": marks["user"]}], False)
    asking = ask([{"role": "user", "content": marks["user"]}], True)
    twice = ask([{"role": "user", "content": marks["user"]}] * 2, False)
    if not asking.startswith(one) or twice.count(marks["user"]) != 2:
        raise ValueError("the template is no frame")
    head, _, tail = one.partition(marks["user"])
    between = twice.split(marks["user"])[1]
    if not between.startswith(tail):
        raise ValueError("the template is no frame")
    before_user = between.removeprefix(tail)
    if not head.endswith(before_user):
        raise ValueError("the template is no frame")
    start = head.removesuffix(before_user)
    around = {"user": (before_user, tail)}
    for role in ("system", "assistant"):
        text = ask(
            [{"role": "user", "content": marks["user"]}, {"role": role, "content": marks[role]}]
            if role == "assistant"
            else [{"role": role, "content": marks[role]}, {"role": "user", "content": marks["user"]}],
            False,
        )
        around[role] = _around(text, marks, role, start, around["user"])
    return Frame(start, around, asking.removeprefix(one))


def _around(
    text: str, marks: Mapping[str, str], role: str, start: str, user: tuple[str, str]
) -> tuple[str, str]:
    said = user[0] + marks["user"] + user[1]
    rest = text.removeprefix(start)
    rest = rest.removeprefix(said) if role == "assistant" else rest.removesuffix(said)
    before, mark, after = rest.partition(marks[role])
    if not mark:
        raise ValueError(f"the template leaves out what the {role} says")
    return before, after


def _conversations(length: int) -> list[Messages]:
    """Of user and assistant in turn, with and without a system message before them."""
    turns = list(itertools.islice(itertools.cycle(("user", "assistant")), length))
    made = [{"role": role, "content": f"{role} {index}: why?"} for index, role in enumerate(turns)]
    return [made, [{"role": "system", "content": "Be brief."}, *made]]


def _go(text: str) -> str:
    """A text as Go writes a string, which is as JSON does for all that templates hold."""
    return json.dumps(text, ensure_ascii=False)


def ask_with(template: Any, special: Mapping[str, str]) -> Ask:
    """The asking of a compiled template of jinja2. A conversation it refuses raises ValueError."""

    def ask(messages: Messages, answering: bool) -> str:
        try:
            return str(template.render(messages=messages, add_generation_prompt=answering, **special))
        except TemplateError as error:
            raise ValueError(str(error)) from error

    return ask
