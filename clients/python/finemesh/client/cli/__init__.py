"""The command line, `finemesh`: one file per noun over one connection.

The full distribution adds its commands (`up`, `demo`, `doctor`) through the entry point group
`finemesh.commands`.
"""

from finemesh.client.cli.app import main

__all__ = ["main"]
