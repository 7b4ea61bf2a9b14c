"""The Python client of Finemesh: typed stubs behind one connection, runs of other programs, transfers,
waiting, events, and the command line.

Imports generated code (`finemesh.v1`, `finemesh.events.v1`) and light libraries alone; it never imports a
service.

    with finemesh.client.connect() as mesh:
        job = mesh.training.GetTrainingJob(GetTrainingJobRequest(name="projects/demo/trainingJobs/tj-1"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from finemesh.client.connection import Connection, connect
    from finemesh.client.errors import RpcError
    from finemesh.client.events import Received, Subscriber
    from finemesh.client.run import Run
    from finemesh.client.settings import Settings, load_settings
    from finemesh.client.transfer import download_files, upload_source
    from finemesh.client.watching import wait_for

__all__ = [
    "Connection",
    "Received",
    "RpcError",
    "Run",
    "Settings",
    "Subscriber",
    "connect",
    "download_files",
    "load_settings",
    "upload_source",
    "wait_for",
]

_HOMES: Final = {
    "Connection": "connection",
    "connect": "connection",
    "RpcError": "errors",
    "Run": "run",
    "Received": "events",
    "Subscriber": "events",
    "Settings": "settings",
    "load_settings": "settings",
    "download_files": "transfer",
    "upload_source": "transfer",
    "wait_for": "watching",
}


def __getattr__(name: str) -> Any:
    """Names are loaded when they are used: a program that only logs needs neither NATS nor every stub."""
    if name not in _HOMES:
        raise AttributeError(f"finemesh.client has no {name}")
    return getattr(import_module(f"finemesh.client.{_HOMES[name]}"), name)
