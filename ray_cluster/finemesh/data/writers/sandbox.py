"""A process that renders Jinja templates, and can do nothing else. Started as a script by rendering.py.

It imports Jinja alone, reads JSON lines (first the template, then a context each) and answers each with a
JSON line. What Jinja's sandbox does not bound is bounded by the system: processor time for an answer, memory,
no files written. Text that grows too long is cut off while it grows.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any, BinaryIO

from jinja2 import StrictUndefined, Template, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more. The first is `{"template", "names", "seconds", "characters"}`,
    the others are contexts; answers are `{"text"}` or `{"error", "reason"}`.
    """
    order = json.loads(requests.readline())
    seconds, characters = float(order["seconds"]), int(order["characters"])
    template: Template | None = None
    for number, line in enumerate(_lines(order, requests)):
        # Ends the process when it has used that much processor time for this answer.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            if number == 0:
                template = _compile(order["template"], frozenset(order["names"]))
                answer = {"text": ""}
            else:
                assert template is not None
                answer = _render(template, json.loads(line), characters)
        except MemoryError:
            answer = {"error": "it takes too much memory", "reason": "TEMPLATE_TOO_SLOW"}
        except Exception as error:
            answer = {"error": _told(error), "reason": "TEMPLATE_FAILED"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
        if number == 0 and "error" in answer:
            return


def _lines(order: Mapping[str, Any], requests: BinaryIO) -> Any:
    """The order itself, which is answered too, and what follows."""
    yield order
    yield from requests


def environment() -> ImmutableSandboxedEnvironment:
    """Without what differs from run to run; with the `tojson` of chat templates, not the one for HTML."""
    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
    )
    made.filters["tojson"] = _to_json
    del made.filters["random"], made.globals["lipsum"]
    return made


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _compile(source: str, names: frozenset[str]) -> Template:
    made = environment()
    tree = made.parse(source)
    if any(True for _ in meta.find_referenced_templates(tree)):
        raise ValueError("it includes another template, and there is no other")
    if unknown := sorted(meta.find_undeclared_variables(tree) - names - made.globals.keys()):
        raise ValueError(f"{unknown[0]!r} is nothing that a row has: use {', '.join(sorted(names))}")
    return made.from_string(source)


def _render(template: Template, context: Mapping[str, Any], characters: int) -> dict[str, str]:
    pieces: list[str] = []
    left = characters
    for piece in template.generate(context):
        left -= len(piece)
        if left < 0:
            return {"error": f"the text has more than {characters} characters", "reason": "TEMPLATE_TOO_LONG"}
        pieces.append(piece)
    return {"text": "".join(pieces)}


def _told(error: Exception) -> str:
    """What is wrong, with the line of the template where Jinja knows it."""
    frames = traceback.extract_tb(error.__traceback__)
    of_template = [frame.lineno for frame in frames if frame.filename == "<template>"]
    line = getattr(error, "lineno", None) or (of_template[-1] if of_template else None)
    words = str(error)[:500] or type(error).__name__
    return f"line {line}: {words}" if line else words


def confine(memory_bytes: int) -> None:
    """Take from this process what it does not need."""
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    confine(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)
