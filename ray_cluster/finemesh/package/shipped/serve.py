"""Serve the model of this package over HTTP: python serve.py [--host 127.0.0.1] [--port 8000] [--base DIR]

Models of language answer as OpenAI's API does, at /v1/chat/completions; models that see alone at /detect,
/classify or /segment. /healthz, /readyz and /metrics are for whoever runs it.
"""

from __future__ import annotations

from pathlib import Path

from decide import decide  # pyright: ignore[reportMissingImports]  (the files beside this one)
from runtime import Runner  # pyright: ignore[reportMissingImports]
from server.app import main  # pyright: ignore[reportMissingImports]

if __name__ == "__main__":
    main(Runner, decide, Path(__file__).parent)
