"""Which picture of the source a task of Label Studio means. Nothing is fetched: of an address, the path
counts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from finemesh.data.faults import RowFault
from finemesh.data.readers.pictures import Pictures, is_picture

_USUAL_KEYS: Final = ("image", "img", "image_url", "url", "photo", "picture")
# Label Studio puts eight hex digits before the name of an uploaded file.
_UPLOADED: Final = re.compile(r"^[0-9a-f]{8}-(?=.)")


def picture_key(data: Mapping[str, Any]) -> str:
    """Under which key of a task's data its picture stands. Raises RowFault (NO_IMAGE, MULTIPLE_IMAGES)."""
    texts = [key for key, value in data.items() if isinstance(value, str) and value]
    found = [key for key in texts if is_picture(path_of(data[key]))]
    found = found or [key for key in _USUAL_KEYS if key in texts]
    if not found:
        raise RowFault("NO_IMAGE", "the task has no picture: tasks on pictures alone are read", "data")
    if len(found) > 1:
        message = f"the task has several pictures, under {', '.join(found[:4])}: give each a task of its own"
        raise RowFault("MULTIPLE_IMAGES", message, "data")
    return found[0]


def path_of(place: str) -> str:
    """The path that an upload, a local file, a file of a bucket or any address stands for.

    >>> path_of("/data/local-files/?d=cats/1.jpg"), path_of("s3://bucket/cats/1%20b.jpg?v=2")
    ('cats/1.jpg', 'bucket/cats/1 b.jpg')
    """
    try:
        parts = urlsplit(place)
        query = parse_qs(parts.query)
    except ValueError:
        return place
    if "d" in query and parts.path.rstrip("/").endswith("local-files"):
        return query["d"][0].lstrip("/")
    if "fileuri" in query:
        try:
            inner = base64.urlsafe_b64decode(query["fileuri"][0] + "==").decode()
        except (binascii.Error, ValueError):
            return place
        return path_of(inner) if "fileuri" not in inner else inner
    return unquote(f"{parts.netloc}{parts.path}").lstrip("/")


def find_picture(pictures: Pictures, place: str, field: str) -> str:
    """The path in the source of the picture at `place`, also without the digits of an upload, or by the end
    of its path. Raises RowFault (IMAGE_MISSING, IMAGE_AMBIGUOUS).
    """
    path = path_of(place)
    base = path.rpartition("/")[2]
    try:
        return pictures.find(path, field)
    except RowFault as fault:
        plain = _UPLOADED.sub("", base)
        if fault.reason != "IMAGE_MISSING" or plain == base:
            raise
        return pictures.find(plain, field)
