"""What a source can say and a row cannot hold."""

from __future__ import annotations

import json
from typing import Any, Final

from finemesh.data.faults import RowFault

_MARGIN: Final = 64
"""Levels around the value where it is written again, and calls around that."""


def check_storable(value: Any, field: str) -> None:
    """Raises RowFault: TEXT_INVALID for half a surrogate pair, RECORD_INVALID for values that are nested too
    deeply to be written again.
    """
    _text(value, field)


def storable(value: Any, field: str) -> Any:
    """The value as JSON holds it: bytes and dates, which Parquet has, as texts. Raises RowFault as
    check_storable.
    """
    return json.loads(_text(value, field))


def _text(value: Any, field: str) -> str:
    deeper = value
    for _ in range(_MARGIN):
        deeper = [deeper]
    try:
        text = json.dumps(deeper, ensure_ascii=False, default=str)
        text.encode()
        return text[_MARGIN:-_MARGIN]
    except UnicodeEncodeError as error:
        message = "a text holds half a surrogate pair, which is no character: mend it in the source"
        raise RowFault("TEXT_INVALID", message, field) from error
    except (RecursionError, ValueError, TypeError) as error:
        raise RowFault(
            "RECORD_INVALID", f"the value cannot be written as JSON: {error}"[:200], field
        ) from error
