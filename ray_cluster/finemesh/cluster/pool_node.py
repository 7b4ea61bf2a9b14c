"""`ray start` of a further node on loopback: `python -m finemesh.cluster.pool_node start --address …`.

With RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 no port of Ray's leaves loopback, and its command refuses to start a
second node. On one machine both are wanted: the variable stays 0 for all that is started; the command alone
takes it for 1, and loopback for the address of this machine all the same.
"""

from __future__ import annotations

from typing import Any, cast

from ray._private import ray_constants, services
from ray.scripts import scripts


def main() -> None:
    ray_constants.ENABLE_RAY_CLUSTER = True
    loopback: Any = services.get_localhost_ip()
    cast("Any", services).get_node_ip_address = lambda _address=None: loopback
    scripts.cli(prog_name="ray")


if __name__ == "__main__":
    main()
