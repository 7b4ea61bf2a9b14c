"""docs/reference/configuration.md, from the configuration classes.

What a variable means stands in the `Attributes:` of its class's docstring.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from finemesh.chassis.config import PREFIX, Secret
from finemesh.chassis.service import ServiceConfig
from finemesh.cluster.config import AgentConfig
from finemesh.dataprep.config import DataPrepConfig
from finemesh.export.config import ExportConfig
from finemesh.tracking.config import TrackingConfig
from finemesh.training.config import TrainingConfig

SERVICES: Final = {
    "DataPrep": DataPrepConfig,
    "Training": TrainingConfig,
    "Tracking": TrackingConfig,
    "Export": ExportConfig,
}
HEAD: Final = """# Configuration

Every process reads its configuration from the environment, once, at its start. What is missing or malformed
is named, all of it at once, and the process does not start. A secret may also come from a file:
`FINEMESH_S3_SECRET_KEY_FILE` names one that only its owner may read. `finemesh up` sets all of this by
itself; [`deploy/`](../../deploy/README.md) sets it for containers. How the command line finds a mesh is told
[with the command line](cli.md).

This page is generated from the configuration classes by `make docs`.
"""


@dataclasses.dataclass(frozen=True)
class Variable:
    """A row of the page."""

    name: str
    kind: str
    default: str
    meaning: str


def variables(cls: Any, prefix: str = PREFIX, *, needed: str = "required") -> Iterator[Variable]:
    """Every variable that a configuration class reads, in the order of its fields.

    `needed` is said of one without a default.
    """
    hints, meanings = typing.get_type_hints(cls), _meanings(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        optional = isinstance(kind, types.UnionType)
        if optional:  # the section is there once one of its variables is
            kind = next(arm for arm in typing.get_args(kind) if arm is not types.NoneType)
        name = prefix + field.name.upper()
        if kind is not Secret and dataclasses.is_dataclass(kind):
            yield from variables(kind, name + "_", needed=f"if any {name}_…" if optional else needed)
        else:
            shown = f"{name}, or {name}_FILE" if kind is Secret else name
            yield Variable(shown, _kind(kind), _default(field, needed), meanings.get(field.name, ""))


def _meanings(cls: Any) -> dict[str, str]:
    """The `Attributes:` of a class and those it derives from. One entry may describe several fields."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for names, text in re.findall(r"^    ([\w, ]+): ((?:.|\n {8})+)", section, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()).removesuffix("."))
    return found


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "list"
    names = {int: "whole number", float: "number", bool: "true or false", Path: "path", str: "text"}
    return names.get(kind, "secret")


def _default(field: dataclasses.Field[Any], needed: str) -> str:
    if field.default is dataclasses.MISSING:
        return needed
    default: Any = field.default
    if isinstance(default, tuple):
        default = ",".join(str(part) for part in typing.cast("tuple[object, ...]", default))
    return f"`{default}`" if default not in ("", None) else ""


def table(rows: list[Variable]) -> str:
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.kind} | {row.default} | {row.meaning} |" for row in rows]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    common = list(variables(ServiceConfig))
    parts = [HEAD, "\n## Every service\n\n", table(common)]
    for title, cls in SERVICES.items():
        own = [row for row in variables(cls) if row not in common]
        parts += [f"\n## {title}\n\n`python -m finemesh.{title.lower()}`\n\n", table(own)]
    parts += ["\n## The cluster agent\n\n`python -m finemesh.cluster`, beside Ray's head\n\n"]
    parts += [table(list(variables(AgentConfig)))]
    return "".join(parts)


def silent() -> list[str]:
    """The variables that no docstring describes."""
    every = [*SERVICES.values(), AgentConfig]
    return sorted({row.name for cls in every for row in variables(cls) if not row.meaning})
