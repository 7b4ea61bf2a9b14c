"""The pictures of one record: named beside its text, or within its turns. None is ever fetched."""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.images import STILL, Picture, check_picture
from finemesh.data.placeholders import PLACEHOLDER, split_placeholders
from finemesh.data.readers.conversations.fields import Fields, kind_of
from finemesh.data.readers.pictures import Pictures
from finemesh.data.rows import text_part
from finemesh.data.schema import ContentPart

PICTURE_FIELDS: Final = ("image", "images")
_MAX_NAME: Final = 4096  # characters; longer ones are something else, such as bare base64
_NAME_KEYS: Final = ("path", "url", "image", "file_name")


class Gallery:
    """Pictures in the order in which the turns show them.

    Attributes:
        shown: so far.
    """

    def __init__(self, library: Pictures, fields: Fields, *, placeholders: bool) -> None:
        """`placeholders` says that `<image>` means a picture even where the record names none."""
        self._library = library
        self._waiting = deque[tuple[Any, str]]()
        for name in PICTURE_FIELDS:
            value = fields.take(name) if fields.has(name) else None
            if isinstance(value, list):
                self._waiting += [(item, f"{name}[{index}]") for index, item in enumerate(value)]
            elif value is not None:
                self._waiting.append((value, name))
        self._placeholders = placeholders or bool(self._waiting)
        self.shown: list[Picture] = []

    def text(self, value: str, field: str) -> list[ContentPart]:
        """The parts of a text, in which each `<image>` shows the next of the record's pictures.

        Raises:
            RowFault: PLACEHOLDER_MISMATCH, there is none left; or see `show`.
        """
        if not self._placeholders or PLACEHOLDER not in value:
            return [text_part(value)] if value else []
        parts = split_placeholders(value)
        for part in parts:
            if part["type"] == "image":
                self.show_next(field)
        return parts

    def show_next(self, field: str) -> None:
        """Show the next of the record's pictures. Raises RowFault, as `text`."""
        if not self._waiting:
            message = f"{field} shows more pictures than the record names: name each, in their order"
            raise RowFault("PLACEHOLDER_MISMATCH", message, field)
        self.show(*self._waiting.popleft())

    def show(self, reference: Any, field: str) -> None:
        """Show a picture by its file name, data: URL or bytes.

        Raises:
            RowFault: IMAGE_REMOTE, IMAGE_MISSING, IMAGE_AMBIGUOUS, IMAGE_UNREADABLE, RECORD_INVALID, or as
                check_picture.
        """
        self.shown.append(self._load(reference, field))

    @property
    def waiting(self) -> int:
        """How many pictures the record names that no turn has shown yet."""
        return len(self._waiting)

    def show_rest(self, field: str) -> int:
        """Show all pictures that wait, if none is shown yet; how many. Raises RowFault (PLACEHOLDER_MISMATCH)
        if some are shown and some are not.
        """
        count = len(self._waiting)
        if self._waiting and self.shown:
            message = f"{len(self._waiting)} more pictures are named than shown: put {PLACEHOLDER} for each"
            raise RowFault("PLACEHOLDER_MISMATCH", message, field)
        for reference, where in self._waiting:
            self.show(reference, where)
        self._waiting.clear()
        return count

    def _load(self, reference: Any, field: str) -> Picture:
        name = ""
        if isinstance(reference, Mapping):
            names = [reference[key] for key in _NAME_KEYS if isinstance(reference.get(key), str)]
            name, reference = (names or [""])[0], reference.get("bytes")
            if reference is None:
                reference = name
        if isinstance(reference, str) and reference.startswith("data:"):
            reference, name = _decode(reference, field), ""
        if isinstance(reference, bytes):
            return check_picture(reference, STILL, self._library.max_pixels, name=name)
        if not isinstance(reference, str) or not 0 < len(reference) <= _MAX_NAME:
            message = f"{field} is {kind_of(reference)}, not the name of a picture"
            raise RowFault("RECORD_INVALID", message, field)
        if "://" in reference[:16]:
            message = f"{reference[:80]} lies elsewhere, and nothing is fetched: put it in the source"
            raise RowFault("IMAGE_REMOTE", message, field)
        return self._library.read(self._library.find(reference, field))


def _decode(url: str, field: str) -> bytes:
    """The bytes of a data: URL (RFC 2397). Raises RowFault (IMAGE_UNREADABLE)."""
    head, comma, data = url.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("it is not written in base64")
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error) as error:
        raise RowFault("IMAGE_UNREADABLE", f"the data: URL cannot be read: {error}", field) from error
