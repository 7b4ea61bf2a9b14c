"""Dataset forms out: one module per form, and this registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from finemesh.core.spec.data import DatasetFormat
from finemesh.data.writers.canonical import CanonicalWriter
from finemesh.data.writers.form import FormWriter
from finemesh.data.writers.hugging_face import HuggingFaceWriter
from finemesh.data.writers.llava import LlavaWriter

WRITERS: Final[dict[DatasetFormat, Callable[[Path], FormWriter]]] = {
    DatasetFormat.CANONICAL: CanonicalWriter,
    DatasetFormat.HUGGING_FACE: HuggingFaceWriter,
    DatasetFormat.LLAVA: LlavaWriter,
}
