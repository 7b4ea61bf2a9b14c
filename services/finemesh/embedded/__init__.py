"""The mesh on one machine: starts and watches the processes, and stops what it started.

`Mesh` is the whole of it for Python, `commands` for the command line. May import: finemesh.core,
finemesh.chassis (keys, names of events), finemesh.gateway. Imports no service, no Ray and no torch: these run
in processes of their own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from finemesh.embedded.config import MeshConfig
    from finemesh.embedded.mesh import Mesh

__all__ = ["Mesh", "MeshConfig"]

_HOMES: Final = {"Mesh": "mesh", "MeshConfig": "config"}


def __getattr__(name: str) -> Any:
    """Names are loaded when they are used: every command of `finemesh` passes by here."""
    if name not in _HOMES:
        raise AttributeError(f"finemesh.embedded has no {name}")
    return getattr(import_module(f"finemesh.embedded.{_HOMES[name]}"), name)
