"""Ports that stay ours: chosen once, kept over restarts of a component and, where possible, of the mesh."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from finemesh.core.errors import PreconditionError

# Below the ports that the kernel gives to outgoing connections, or one of those could sit on the port of a
# server that is just being restarted.
_LOWEST: Final = 15_000
_EPHEMERAL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES: Final = 200


class PortReservations:
    """Holds a bound, not listening socket on each port.

    A server that sets SO_REUSEADDR, as all of ours do, can listen beside it; another mesh that looks for a
    free port cannot take it, nor can an outgoing connection.
    """

    def __init__(self, previous: Mapping[str, int]) -> None:
        """`previous` are the ports of the last start, by name: taken again where they are free."""
        self._previous = dict(previous)
        self._sockets: dict[str, socket.socket] = {}

    def take(self, name: str, *, host: str = "127.0.0.1", fixed: int = 0) -> int:
        """Reserve a port for `name`: `fixed` if given, else the one of the last start, else any.

        Raises:
            PreconditionError: reason PORT_TAKEN, if `fixed` is in use or no port is free.
        """
        if fixed:
            taken = self._try(name, host, fixed)
            if not taken:
                raise PreconditionError(
                    f"port {fixed} of {host} is in use: choose another with --port, or leave it out for any",
                    reason="PORT_TAKEN",
                    metadata={"port": str(fixed)},
                )
            return fixed
        for port in self._candidates(name):
            if self._try(name, host, port):
                return port
        raise PreconditionError(f"no free port on {host} for {name}", reason="PORT_TAKEN")

    def release(self) -> None:
        """Let go of all ports."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()

    def _candidates(self, name: str) -> Iterator[int]:
        if name in self._previous:
            yield self._previous[name]
        highest = _first_ephemeral_port() - 1
        for _ in range(_TRIES):
            yield random.randint(_LOWEST, highest)  # noqa: S311  # not a secret

    def _try(self, name: str, host: str, port: int) -> bool:
        # Without SO_REUSEADDR first: it tells whether anybody else, listening or reserving, has the port.
        with contextlib.ExitStack() as undo:
            probe = undo.enter_context(socket.socket(_family(host)))
            try:
                probe.bind((host, port))
            except OSError:
                if not _only_lingers(port):
                    return False
            probe.close()
            reserved = socket.socket(_family(host))
            undo.callback(reserved.close)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                reserved.bind((host, port))
            except OSError:
                return False
            undo.pop_all()
        self._sockets[name] = reserved
        return True


def _only_lingers(port: int) -> bool:
    """Whether nothing has the port but connections of a server that has ended, as they are for a minute."""
    try:
        found = [
            each.status for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port == port
        ]
    except psutil.Error:  # not told to everybody on every system
        return False
    return bool(found) and psutil.CONN_LISTEN not in found


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _first_ephemeral_port() -> int:
    try:
        first = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    return first if first > _LOWEST + 1000 else 65_536
