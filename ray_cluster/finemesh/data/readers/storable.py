"""What JSON can say and a row cannot hold."""

from __future__ import annotations

import json
from typing import Any

from finemesh.data.faults import RowFault


def check_storable(value: Any, field: str) -> None:
    """Raises RowFault: TEXT_INVALID for half a surrogate pair, RECORD_INVALID for values that are nested too
    deeply to be written again.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        message = "a text holds half a surrogate pair, which is no character: mend it in the source"
        raise RowFault("TEXT_INVALID", message, field) from error
    except RecursionError as error:
        raise RowFault("RECORD_INVALID", "values are nested too deeply", field) from error
