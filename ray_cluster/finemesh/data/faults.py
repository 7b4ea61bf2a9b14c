"""The fault of one row. It never leaves this package: whoever reads rows turns it into a ledger entry."""

from __future__ import annotations

from typing import Final

_MAX_MESSAGE_CHARS: Final = 1000


class RowFault(Exception):  # noqa: N818 - it is a verdict on a row, not an error of the program
    """A row that cannot be kept. Attributes as in LedgerEntry: `reason`, `message`, `field`. A message that
    quotes what it found stays readable, however large or broken that is.
    """

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        if len(message) > _MAX_MESSAGE_CHARS:
            message = f"{message[: _MAX_MESSAGE_CHARS - 1]}…"
        super().__init__(message)
        self.reason = reason
        self.message = as_text(message)
        self.field = as_text(field)


def as_text(value: str) -> str:
    """`value`, with halves of characters (lone surrogates), which JSON can hold and UTF-8 cannot, spelled."""
    return value.encode("utf-8", "backslashreplace").decode()
