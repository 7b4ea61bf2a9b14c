"""What Training wants of the nodes, as the agent last heard it: in a file, so that it outlives the agent."""

from __future__ import annotations

import os
from pathlib import Path

from finemesh.v1.attempt_service_pb2 import NodeCapacity, NodeOrders


class OrderBook:
    """The newest orders. Used from one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.orders = NodeOrders.FromString(path.read_bytes())
        except FileNotFoundError:
            self.orders = NodeOrders()

    def take(self, orders: NodeOrders) -> bool:
        """Follow these orders from now on. Returns whether they are other ones than before."""
        if orders == self.orders:
            return False
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(orders.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self.orders = orders
        return True

    def avoided(self, node: NodeCapacity) -> bool:
        """Whether the node gets nothing new: it is drained, or its pool is to be smaller."""
        surplus = self.orders.HasField("local_pool") and node.pool_slot > self.orders.local_pool.wanted_nodes
        return surplus or node.node_id in self.orders.draining
