"""A wrong clock for the Python processes that find this folder on their path: WRONG_CLOCK_SECONDS ahead.

The time of day alone is wrong, as it is on a machine that nobody set; monotonic clocks are right. It is so
for what is written in Python; what is not, such as gRPC's core, sees the machine's.
"""

import builtins
import datetime as dt
import os
import sys
import time
from types import ModuleType
from typing import Any

_AHEAD = float(os.environ.get("WRONG_CLOCK_SECONDS", "0"))
_import, _time = builtins.__import__, time.time


def _wrong_time() -> float:
    # gRPC compares it with the time of its core.
    asking = sys._getframe(1).f_globals.get("__name__", "")
    return _time() + (0 if asking.startswith("grpc") else _AHEAD)


class _WrongDatetime(dt.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return dt.datetime.fromtimestamp(_time() + _AHEAD, tz)


_wrong_module = ModuleType("datetime")
vars(_wrong_module).update(vars(dt) | {"datetime": _WrongDatetime})


def _import_wrong(name: str, *rest: Any, **options: Any) -> Any:
    found = _import(name, *rest, **options)
    importer = rest[0] if rest else options.get("globals")
    ours = str((importer or {}).get("__name__", "")).startswith("finemesh.")
    return _wrong_module if ours and name == "datetime" else found


time.time = _wrong_time
time.time_ns = lambda: int((_time() + _AHEAD) * 1e9)
builtins.__import__ = _import_wrong
