"""JSON in and out: typed errors with the byte position on the way in, atomic files on the way out."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import orjson

from finemesh.core.errors import InvalidError


def parse_json(raw: bytes, name: str, base: int = 0) -> Any:
    """The value of a JSON text that begins at byte `base` of a file. Raises InvalidError (MALFORMED_JSON)
    with the file and the byte where it goes wrong.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed_json(
            name, base + error.start, f"byte 0x{raw[error.start]:02x} is not UTF-8"
        ) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        position = len(text[: error.pos].encode()) + (len(raw) - len(text.encode()))
        ending = " (the file ends too early)" if error.pos >= len(text.rstrip()) else ""
        raise malformed_json(name, base + position, f"{error.msg}{ending}") from error
    except RecursionError as error:
        raise malformed_json(name, base, "values are nested too deeply") from error
    except ValueError as error:  # a number of more than 4300 digits
        raise malformed_json(name, base, str(error)) from error


def malformed_json(name: str, position: int, problem: str) -> InvalidError:
    return InvalidError(
        f"{name} is not valid JSON at byte {position}: {problem}. Export or copy it again",
        reason="MALFORMED_JSON",
        metadata={"file": name, "byte": str(position)},
    )


def malformed_annotations(name: str, where: str, problem: str) -> InvalidError:
    """JSON that is well formed, but not of the shape its format asks for: a fault of the container, not of a
    row.
    """
    return InvalidError(
        f"{name}: {where} {problem}",
        reason="MALFORMED_ANNOTATIONS",
        metadata={"file": name, "field": where},
    )


def write_json_atomically(path: Path, value: Any) -> None:
    """Write `value`, of plain values, enums and dataclasses, so that `path` is either absent or whole, also
    after a loss of power.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
