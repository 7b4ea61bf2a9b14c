"""Text files of unknown encoding: by their byte order mark, else UTF-8, else Windows-1252, which is said."""

from __future__ import annotations

import codecs
import io
from typing import Final, TextIO

from finemesh.core.errors import InvalidError
from finemesh.data.readers.context import ReadContext

_CHUNK_BYTES: Final = 1 << 20
_LEGACY: Final = "windows-1252"
# UTF-32 first: its mark begins like that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def open_text(context: ReadContext, name: str) -> TextIO:
    """The file as text, its line ends as they are. What its encoding does not know reads as U+FFFD.

    Raises:
        InvalidError: TEXT_ENCODING, it holds zero bytes and no mark: UTF-16 without one, or no text at all.
        RowFault: FILE_UNREADABLE; so may the reading.
    """
    head = context.survey.head(name)
    encoding = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "")
    if not encoding:
        if b"\0" in head:
            raise InvalidError(
                f"{name} holds zero bytes, so it is no text in UTF-8: save it as UTF-8",
                reason="TEXT_ENCODING",
                metadata={"file": name},
            )
        encoding = "utf-8" if _is_utf8(context, name) else _LEGACY
    if encoding == _LEGACY:
        context.warn(f"{name} is not UTF-8 and was read as Windows-1252: save it as UTF-8 to be sure")
    return io.TextIOWrapper(context.source.open(name), encoding, errors="replace", newline="")


def _is_utf8(context: ReadContext, name: str) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with context.source.open(name) as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True
