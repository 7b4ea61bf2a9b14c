"""The fault of one row. It never leaves this package: whoever reads rows turns it into a ledger entry."""

from __future__ import annotations


class RowFault(Exception):  # noqa: N818 - it is a verdict on a row, not an error of the program
    """A row that cannot be kept. Attributes as in LedgerEntry: `reason`, `message`, `field`."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
