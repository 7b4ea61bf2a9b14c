"""The Python client of Finemesh: typed stubs behind one connection, transfers, waiting, events, and the
command line.

Imports generated code (`finemesh.v1`, `finemesh.events.v1`) and light libraries alone; it never imports a
service.

    with finemesh.client.connect() as mesh:
        job = mesh.training.GetTrainingJob(GetTrainingJobRequest(name="projects/demo/trainingJobs/tj-1"))
"""

from finemesh.client.connection import Connection, connect
from finemesh.client.errors import RpcError
from finemesh.client.events import Received, Subscriber
from finemesh.client.settings import Settings, load_settings
from finemesh.client.transfer import download_files, upload_source
from finemesh.client.watching import wait_for

__all__ = [
    "Connection",
    "Received",
    "RpcError",
    "Settings",
    "Subscriber",
    "connect",
    "download_files",
    "load_settings",
    "upload_source",
    "wait_for",
]
