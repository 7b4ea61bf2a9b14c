"""Licences under which a fine-tuned model may not be handed on."""

from __future__ import annotations

import re
from typing import Final

from finemesh.core.errors import PreconditionError

# "No derivatives" as a part of an id of the hub or of SPDX: cc-by-nd-4.0, CC-BY-NC-ND-3.0.
_NO_DERIVATIVES: Final = re.compile(r"(^|[^a-z])nd([^a-z]|$)|no-?deriv", re.IGNORECASE)


def check_derivatives(licence: str, override: str) -> None:
    """Refuse a base whose licence forbids derivatives, unless an admin has said why it may be exported.

    Raises:
        PreconditionError: LICENCE_FORBIDS_DERIVATIVES.
    """
    if _NO_DERIVATIVES.search(licence) and not override:
        raise PreconditionError(
            f"the base model is under {licence}, which forbids to hand on what was made of it: choose "
            "another base, or let an admin who has a permission say so in export.licence_override",
            reason="LICENCE_FORBIDS_DERIVATIVES",
            metadata={"licence": licence},
        )
