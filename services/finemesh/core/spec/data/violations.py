"""Refusing options, all wrong ones at once."""

from __future__ import annotations

from collections.abc import Mapping

from finemesh.core.errors import FieldViolation, InvalidError


def refuse(violations: Mapping[str, str]) -> None:
    """Raise InvalidError for the wrong fields, if there are any."""
    if violations:
        wrong = [FieldViolation(f"options.{name}", text) for name, text in violations.items()]
        raise InvalidError(
            "; ".join(f"{violation.field}: {violation.description}" for violation in wrong),
            violations=wrong,
            reason="INVALID_OPTIONS",
        )
