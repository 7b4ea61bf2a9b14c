"""Rendering the template of a request, which is trusted with nothing: in a process of its own that is ended
when it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.data.faults import RowFault

MAX_CHARACTERS: Final = 4 << 20
"""Of one text."""
MAX_SECONDS: Final = 2.0
"""Of processor time for one row."""
MAX_MEMORY: Final = 1 << 30
MAX_ENDED: Final = 8
"""Rows that end the process before the template is given up."""
_PATIENCE_SECONDS: Final = 120  # of waiting, on a machine that is busy with other things
_SCRIPT: Final = Path(__file__).with_name("sandbox.py")


class TemplateRenderer:
    """Close it, or let go of it, to end its process.

    Raises:
        InvalidError: TEMPLATE_INVALID, from the constructor: the template is no Jinja, or names what no row
            has. TEMPLATE_TOO_SLOW, from `render`: too many rows took too long.
    """

    def __init__(
        self,
        template: str,
        names: Sequence[str],
        seconds: float = MAX_SECONDS,
        characters: int = MAX_CHARACTERS,
    ) -> None:
        self._order = {
            "template": template,
            "names": list(names),
            "seconds": seconds,
            "characters": characters,
        }
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._end = weakref.finalize(self, lambda: None)
        self._ended = 0
        try:
            self._start()
        except RowFault as fault:
            raise InvalidError(
                f"options.template: {fault.message}: mend the template",
                reason="TEMPLATE_INVALID",
                violations=[FieldViolation("options.template", fault.message)],
            ) from fault

    def render(self, context: Mapping[str, Any]) -> str:
        """The text for one row. Raises RowFault (TEMPLATE_FAILED, TEMPLATE_TOO_LONG, TEMPLATE_TOO_SLOW)."""
        if self._process is None:
            if self._ended >= MAX_ENDED:
                message = f"the template took too long for {self._ended} rows: make it simpler"
                raise InvalidError(message, reason="TEMPLATE_TOO_SLOW")
            self._start()
        return self._ask(context)

    def close(self) -> None:
        self._end()
        self._process = None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), str(MAX_MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._ask(self._order)

    def _ask(self, question: Mapping[str, Any]) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], _PATIENCE_SECONDS)[0]:
                line = process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line.endswith(b"\n"):
            raise self._died(process)
        answer = json.loads(line)
        if "error" in answer:
            raise RowFault(answer["reason"], f"the template cannot be used: {answer['error']}", "template")
        return answer["text"]

    def _died(self, process: subprocess.Popen[bytes]) -> RowFault:
        self._ended += 1
        code = process.poll()
        self.close()
        if code in (None, -signal.SIGPROF):
            message = f"the template takes more than {self._seconds:g} seconds"
        else:
            message = "the template takes too much memory"
        return RowFault("TEMPLATE_TOO_SLOW", f"{message}: make it simpler", "template")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):  # it held a question that nobody reads any more
            if pipe is not None:
                pipe.close()
