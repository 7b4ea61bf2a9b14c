"""Where annotations and pictures come from: an archive, a folder, or one file. Read only, never followed
outside, and judged as a whole before anything of it is used.
"""

from finemesh.data.sources.opening import open_source
from finemesh.data.sources.source import Source

__all__ = ["Source", "open_source"]
