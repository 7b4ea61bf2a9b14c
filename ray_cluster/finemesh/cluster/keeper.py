"""Keepers: actors that hold a GPU so that Ray gives it to nobody.

Ray lets nobody choose a GPU by its number: free ones of the node are taken until the wanted one is among
them, and the others are given back.
"""

from __future__ import annotations

from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finemesh.chassis.logs import get_logger
from finemesh.cluster.devices import Device
from finemesh.cluster.reaper import Holding

_GIVEN_SECONDS: Final = 10.0

_log = get_logger("finemesh.keeper")


class Keeper:
    """Does nothing, with a GPU."""

    def gpu(self) -> str:
        """Which one, as Ray counts them."""
        return str(ray.get_gpu_ids()[0])


class Keepers:
    """Of one driver: they end with it, and are taken anew by the next. Methods block."""

    def __init__(self) -> None:
        self._actors: dict[tuple[str, str], Any] = {}

    def has(self, node: str, device: Device) -> bool:
        """Whether a GPU is kept."""
        return (node, device.id) in self._actors

    def take(self, holding: Holding) -> None:
        """Keep the GPUs of a holding from others, as far as Ray has not given them away again."""
        for device in holding.devices:
            if device.share >= 1 and not self.has(holding.node, device):
                self._take(holding.node, device.id)

    def let_go(self, holding: Holding) -> None:
        """Give the GPUs of a holding back."""
        for device in holding.devices:
            keeper = self._actors.pop((holding.node, device.id), None)
            if keeper is not None:
                ray.kill(keeper)

    def _take(self, node: str, gpu: str) -> None:
        others: list[Any] = []
        try:
            while True:
                keeper = _keeper(node)
                others.append(keeper)
                got: Any = ray.get(keeper.gpu.remote(), timeout=_GIVEN_SECONDS)
                if got == gpu:
                    self._actors[node, gpu] = others.pop()
                    return
        except (GetTimeoutError, RayError) as error:
            _log.warning("gpu_not_kept", node=node, gpu=gpu, error=type(error).__name__)
        finally:
            for other in others:
                ray.kill(other)


def _keeper(node: str) -> Any:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(Keeper).options(num_cpus=0, num_gpus=1, scheduling_strategy=where).remote()
