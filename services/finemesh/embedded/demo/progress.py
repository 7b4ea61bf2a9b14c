"""What the demo shows while it works: a bar for what is under way, a line for what is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from finemesh.embedded.demo.facts import Stage

Update = Callable[[float, str], None]
_SAMPLE_SECONDS: Final = 1.0


class Display:
    """Bars and lines on stderr. Safe to use from several threads."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self._progress.console.print(escape(text), style=style or None, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, description: str) -> Generator[Update]:
        """A bar for as long as something is under way; call what it gives with a fraction and a few words."""
        task = self._progress.add_task(escape(description), total=1.0, note="")

        def update(fraction: float, note: str) -> None:
            self._progress.update(task, completed=fraction, note=escape(note))

        try:
            yield update
        finally:
            self._progress.remove_task(task)


class Stopwatch:
    """Time and peak memory of each stage; memory is sampled once a second by a thread."""

    def __init__(self, memory_bytes: Callable[[], int]) -> None:
        self.stages: list[Stage] = []
        self._memory_bytes = memory_bytes
        self._peak = 0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._sampler.join()

    def add(self, name: str, seconds: float) -> None:
        """A stage that was measured elsewhere, just over."""
        self.stages.append(Stage(name, seconds, self._memory_bytes()))

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Measure what is inside; a stage that fails counts too."""
        began, self._peak = time.monotonic(), 0
        try:
            yield
        finally:
            self._peak = max(self._peak, self._memory_bytes())
            self.stages.append(Stage(name, time.monotonic() - began, self._peak))

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, self._memory_bytes())
