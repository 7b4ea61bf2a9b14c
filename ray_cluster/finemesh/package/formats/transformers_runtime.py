"""transformers, which runs adapters, whole models and quantised ones."""

from __future__ import annotations

from typing import Final

from finemesh.package.formats.format import Runtime

TRANSFORMERS: Final = Runtime(
    name="transformers",
    script="runtime_transformers.py",
    needs=("torch", "transformers", "safetensors", "tokenizers", "pillow"),
)
