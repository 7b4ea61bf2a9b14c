"""Small sources for the fuzz tests of the data compiler, and what becomes of them."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import FinemeshError
from finemesh.core.spec.data import AnnotationFormat, DatasetManifest, ImportOptions
from finemesh.data import import_source, verify_dataset
from PIL import Image

MAX_TOTAL_BYTES: Final = 64 << 20
SLOW: Final = timedelta(seconds=60)  # of one example, on a machine that does much else

MASK: Final = {"size": [10, 20], "counts": [50, 100, 50]}
SOUND: Final[dict[AnnotationFormat, dict[str, Any]]] = {
    AnnotationFormat.COCO: {
        "images": [{"id": 1, "width": 20, "height": 10, "file_name": "a.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "segmentation": MASK}
        ],
        "categories": [{"id": 1, "name": "cat"}],
    },
    AnnotationFormat.SAV: {
        "video_id": "v",
        "video_width": 20.0,
        "video_height": 10,
        "video_frame_count": 4,
        "masklet_id": [0],
        "masklet": [[MASK]],
    },
}
ROWS: Final = (
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "image": "a.png"},
    {"instruction": "a", "input": "b", "output": "c"},
    {"prompt": "a", "completion": "b"},
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"text": "a"},
)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it is so large, whatever follows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def outcome(files: Mapping[str, bytes], kind: AnnotationFormat | None) -> DatasetManifest | str:
    """The dataset that files in a folder become, which must be whole; or the reason why not."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        for name, data in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        options = ImportOptions(kind, max_total_bytes=MAX_TOTAL_BYTES, max_quarantined_fraction=1)
        try:
            manifest = import_source(source, out, options, lambda _fraction, _message: None)
        except FinemeshError as error:
            assert not out.exists()
            return error.reason
        verify_dataset(out)
        manifest.ledger.check()
        return manifest
