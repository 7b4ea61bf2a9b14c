"""`finemesh tracking rebuild`: the points of a mesh of one machine, from its object store."""

from __future__ import annotations

import asyncio

from finemesh.core.errors import NotFoundError
from finemesh.embedded.components import service
from finemesh.embedded.config import MeshConfig
from finemesh.embedded.mesh import Mesh


async def rebuild_points(config: MeshConfig) -> int:
    """Start the servers of the mesh without its services, and Tracking's rebuilding beside them.

    Returns its exit code; it prints what it has to say.

    Raises:
        NotFoundError: no mesh was ever started in the folder, so that there is nothing to make points from.
        FinemeshError: what `Mesh.start` raises.
    """
    if not (config.data_dir / "secrets").is_dir():
        raise NotFoundError(
            f"{config.data_dir} is no folder of a mesh; give that of `finemesh up` by --data-dir",
            reason="MESH_NOT_FOUND",
        )
    async with Mesh(config) as mesh:
        tracking = service(mesh.site, "tracking")
        tracking.prepare()
        process = await asyncio.create_subprocess_exec(
            *tracking.command, "rebuild", env=dict(tracking.environment)
        )
        return await process.wait()
