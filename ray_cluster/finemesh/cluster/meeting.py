"""Where the ranks of a training meet: an address that is found when they do, on the node's own interface."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

import psutil
import ray.util

if TYPE_CHECKING:  # loads torch, which only training does
    from finemesh.finetune.distributed import Group

_BACKLOG: Final = 1024


def listen() -> socket.socket:
    """A socket on a free port of this node's address, at which others may knock before anybody answers."""
    listener = socket.socket()
    listener.bind((ray.util.get_node_ip_address(), 0))
    listener.listen(_BACKLOG)
    return listener


def address_of(listener: socket.socket) -> str:
    """`host:port`."""
    host, port = listener.getsockname()
    return f"{host}:{port}"


@contextlib.contextmanager
def met(address: str, rank: int, ranks: int, listener: socket.socket | None) -> Generator[Group]:
    """The group of all ranks, which meet at `address`; `listener` is rank 0's. Raises as `joined` does."""
    from torch.distributed import TCPStore

    from finemesh.finetune.distributed import TIMEOUT, Group, joined

    if interface := _interface(ray.util.get_node_ip_address()):
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface
    host, _, port = address.rpartition(":")
    with Group(rank, ranks).watched():
        store = TCPStore(
            host,
            int(port),
            ranks,
            is_master=listener is not None,
            timeout=TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=listener.detach() if listener else None,
        )
    with joined(rank, ranks, store=store) as group:
        yield group


def _interface(address: str) -> str:
    """The name of the network interface that has an address; empty if none is known to."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return ""
