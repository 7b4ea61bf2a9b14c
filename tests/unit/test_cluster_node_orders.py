"""What operators want of nodes outlives the agent, and says which nodes get nothing new."""

from __future__ import annotations

from pathlib import Path

from finemesh.cluster.node_orders import OrderBook
from finemesh.v1.attempt_service_pb2 import NodeCapacity, NodeOrders
from finemesh.v1.worker_pb2 import LocalPool


def test_orders_outlive_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "orders"
    orders = NodeOrders(draining=["a"], local_pool=LocalPool(wanted_nodes=1))
    book = OrderBook(path)
    assert book.take(orders)
    assert not book.take(orders)
    again = OrderBook(path)
    nodes = [
        NodeCapacity(node_id="a"),
        NodeCapacity(node_id="b"),
        *(NodeCapacity(pool_slot=n) for n in (1, 2)),
    ]
    assert [again.avoided(node) for node in nodes] == [True, False, False, True]


def test_without_orders_no_node_is_avoided(tmp_path: Path) -> None:
    book = OrderBook(tmp_path / "orders")
    assert not book.avoided(NodeCapacity(node_id="a", pool_slot=3))
