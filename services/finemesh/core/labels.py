"""Labels and display names: what people write on resources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from finemesh.core.errors import FieldViolation

MAX_LABELS: Final = 64
MAX_LABEL_VALUE_LENGTH: Final = 256
MAX_DISPLAY_NAME_LENGTH: Final = 200
_KEY: Final = re.compile(r"[a-z][a-z0-9_./-]{0,62}")


def describe_violations(display_name: str, labels: Mapping[str, str], path: str) -> Iterator[FieldViolation]:
    """What is wrong with the descriptive fields of the resource at `path`, e.g. `training_job`."""
    if len(display_name) > MAX_DISPLAY_NAME_LENGTH or not display_name.isprintable():
        yield FieldViolation(
            f"{path}.display_name", f"use at most {MAX_DISPLAY_NAME_LENGTH} printable characters"
        )
    if len(labels) > MAX_LABELS:
        yield FieldViolation(f"{path}.labels", f"has {len(labels)} labels: at most {MAX_LABELS} fit")
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            yield FieldViolation(
                f"{path}.labels",
                f"{key[:80]!r} is not a key: 1 to 63 of a-z 0-9 _ . / -, starting with a letter",
            )
        if len(value) > MAX_LABEL_VALUE_LENGTH:
            yield FieldViolation(
                f"{path}.labels.{key[:80]}", f"is longer than {MAX_LABEL_VALUE_LENGTH} characters"
            )
