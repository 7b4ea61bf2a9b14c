"""Configuration of nats-server: JetStream, and one identity per process with its own subjects.

A command runs code on a cluster, so only the services that send commands may publish them; a subscriber from
outside may read facts and publish none.
https://docs.nats.io/running-a-nats-service/configuration/securing_nats/authorization
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from finemesh.chassis.events import COMMAND_SUBJECTS, EVENTS_STREAM, SUBJECT_ROOT
from finemesh.embedded.credentials import Credentials

_NOUNS: Final = {
    "dataprep": ("dataset",),
    "training": ("training_job", "sweep", "gpu"),
    "tracking": ("run", "alert"),
    "export": ("export",),
}
_COMMANDERS: Final = ("dataprep", "training", "export")
_HEARTBEATS: Final = f"{SUBJECT_ROOT}.heartbeat.*"
_REPLIES: Final = ["_INBOX.>"]
_JETSTREAM: Final = ["$JS.API.>", "$JS.ACK.>"]


def nats_config(host: str, port: int, store: Path, credentials: Credentials) -> str:
    """The text of the configuration file: JSON, which nats-server reads as well as its own format."""
    users = [
        {"nkey": credentials.nats_public_key(user), "permissions": permissions}
        for user, permissions in _permissions().items()
    ]
    config = {
        "listen": f"{host}:{port}",
        "server_name": "finemesh",
        "max_payload": 1024 * 1024,
        "jetstream": {"store_dir": str(store), "max_memory_store": 64 * 1024 * 1024},
        "authorization": {"users": users},
    }
    return json.dumps(config, indent=1)


def _permissions() -> dict[str, dict[str, Any]]:
    permissions: dict[str, dict[str, Any]] = {}
    for service, nouns in _NOUNS.items():
        publish = [f"{SUBJECT_ROOT}.{noun}.>" for noun in nouns] + [_HEARTBEATS, *_JETSTREAM]
        if service in _COMMANDERS:
            publish.append(COMMAND_SUBJECTS)
        permissions[service] = {"publish": publish, "subscribe": [*_REPLIES, f"{SUBJECT_ROOT}.>"]}
    agent_reads = [*_REPLIES, _HEARTBEATS]
    permissions["agent"] = {"publish": [_HEARTBEATS, *_JETSTREAM], "subscribe": agent_reads}
    permissions["client"] = {"publish": _reading(EVENTS_STREAM), "subscribe": _REPLIES}
    return permissions


def _reading(stream: str) -> list[str]:
    """What a consumer of one stream publishes: requests to JetStream and acknowledgements, no messages."""
    verbs = ("CREATE", "DURABLE.CREATE", "INFO", "MSG.NEXT", "DELETE")
    requests = [f"CONSUMER.{verb}.{stream}.>" for verb in verbs]
    more = ["INFO", "STREAM.NAMES", f"STREAM.INFO.{stream}", f"CONSUMER.CREATE.{stream}"]
    listing = [f"CONSUMER.NAMES.{stream}", f"CONSUMER.LIST.{stream}", f"STREAM.MSG.GET.{stream}"]
    api = [f"$JS.API.{request}" for request in (*requests, *more, *listing)]
    return [*api, f"$JS.ACK.{stream}.>", "$JS.FC.>"]
