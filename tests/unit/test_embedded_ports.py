"""Reserved ports: free for their server, closed to everybody else, the same again next time."""

from __future__ import annotations

import socket

import pytest
from finemesh.core.errors import PreconditionError
from finemesh.embedded.ports import PortReservations


@pytest.fixture
def first() -> PortReservations:
    return PortReservations({})


def test_a_server_can_listen_beside_the_reservation(first: PortReservations) -> None:
    port = first.take("nats")
    with socket.create_server(("127.0.0.1", port)) as server:  # sets SO_REUSEADDR
        assert server.getsockname()[1] == port
    first.release()


def test_another_mesh_cannot_take_a_reserved_port(first: PortReservations) -> None:
    port = first.take("nats")
    second = PortReservations({"nats": port})
    assert second.take("nats") != port
    with pytest.raises(PreconditionError, match=f"port {port} .* is in use"):
        second.take("gateway", fixed=port)
    first.release()
    second.release()


def test_the_next_start_takes_the_same_port(first: PortReservations) -> None:
    port = first.take("nats")
    first.release()
    second = PortReservations({"nats": port})
    assert second.take("nats") == port
    second.release()


def test_a_port_that_somebody_listens_on_is_refused(first: PortReservations) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(PreconditionError) as raised:
        first.take("gateway", fixed=server.getsockname()[1])
    assert raised.value.reason == "PORT_TAKEN"
    assert "--port" in str(raised.value)


@pytest.mark.parametrize("fixed", [False, True])
def test_connections_of_the_last_start_do_not_hold_a_port(first: PortReservations, fixed: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # who closes first keeps the connection for a minute
            assert client.recv(1) == b""
    with pytest.raises(OSError, match="in use"), socket.socket() as anybody:
        anybody.bind(("127.0.0.1", port))
    again = PortReservations({} if fixed else {"gateway": port})
    assert again.take("gateway", fixed=port if fixed else 0) == port
    with socket.create_server(("127.0.0.1", port)):
        pass
    again.release()


def test_released_ports_are_free_for_anybody(first: PortReservations) -> None:
    port = first.take("nats")
    first.release()
    with socket.socket() as anybody:
        anybody.bind(("127.0.0.1", port))
