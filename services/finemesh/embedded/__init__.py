"""The mesh on one machine: starts and watches the processes, and stops what it started.

`Mesh` is the whole of it for Python, `commands` for the command line. May import: finemesh.core,
finemesh.chassis (keys, names of events), finemesh.gateway. Imports no service, no Ray and no torch: these run
in processes of their own.
"""

from finemesh.embedded.config import MeshConfig
from finemesh.embedded.mesh import Mesh

__all__ = ["Mesh", "MeshConfig"]
