"""What the exporter and the gate need to know of a form of package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from finemesh.core.spec.export import ExportFormat, ParityTolerance
from finemesh.package.trained import Trained

SHIPPED: Final = Path(__file__).parent.parent / "shipped"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs a package: for the gate in a fresh process, and for whoever receives it.

    Attributes:
        name: how people call it.
        script: the file in `shipped/` that travels as `runtime.py`, with a class `Runner` as
            `shipped/runtime_transformers.py` has it. It imports nothing of Finemesh.
        needs: distributions it cannot run without; their versions are written down.
        unavailable: why it cannot run on this machine though they are installed, or nothing.
        beside: other files of `shipped/` that its script imports.
    """

    name: str
    script: str
    needs: tuple[str, ...]
    unavailable: Callable[[], str] = lambda: ""
    beside: tuple[str, ...] = ()

    @property
    def script_path(self) -> Path:
        return SHIPPED / self.script

    def versions(self) -> dict[str, str]:
        """Of what it needs, as installed here."""
        return {name: version(name) for name in self.needs}

    def missing(self) -> str:
        """Why no package can be checked here, which refuses every format that this runs; or nothing."""
        for name in self.needs:
            try:
                version(name)
            except PackageNotFoundError:
                return f"{name} is not installed where packages are checked"
        return self.unavailable()


@dataclass(frozen=True, slots=True)
class Format:
    """One form of a package, as data and hooks.

    Attributes:
        format: its name on the wire.
        about: what it is, in words that follow "This is" on the model card.
        library: what loads it, by the name that the hub has for it (`library_name` of a model card).
        runtime: by which the gate runs it, and `runtime.py` of the package.
        write: (what was trained, the package's folder) -> its files, streamed: no more of the weights in
            memory than it must be. Processor and template, golden set, scripts, card and manifest are written
            by the exporter.
        refuse: (what was trained) -> why this can never be right for such a model, or nothing. Asked before
            anything is loaded.
        tolerance: how far it may lie from the trained model.
        needs_base: it runs only with the folder of the base model beside it.
    """

    format: ExportFormat
    about: str
    library: str
    runtime: Runtime
    write: Callable[[Trained, Path], None]
    refuse: Callable[[Trained], str] = lambda _trained: ""
    tolerance: ParityTolerance = ParityTolerance()  # noqa: RUF009  which is frozen
    needs_base: bool = False


def within(difference: float, agreement: float, metric_loss: float) -> ParityTolerance:
    """The tolerance of weights in fewer bits, of which no single output says much: by shares alone."""
    return ParityTolerance(
        max_difference=None,
        max_relative_difference=difference,
        min_agreement=agreement,
        max_metric_loss=metric_loss,
    )


def scripts_of(runtime: Runtime) -> list[tuple[Path, str]]:
    """The scripts of `shipped/` that travel with what a runtime runs, and their names in the package."""
    own = [(SHIPPED / name, name) for name in ("decide.py", "predict.py", "verify.py", *runtime.beside)]
    return [*own, (runtime.script_path, "runtime.py")]
