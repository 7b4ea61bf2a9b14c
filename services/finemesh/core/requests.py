"""What every list and create request says, whatever it lists or creates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list is asked for; the fields are those of the request message."""

    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: str = ""

    @classmethod
    def of(cls, request: Any) -> PageRequest:
        """From any List… request message; fields that it lacks are empty."""
        return cls(
            page_size=request.page_size,
            page_token=request.page_token,
            filter=getattr(request, "filter", ""),
            order_by=getattr(request, "order_by", ""),
        )


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What makes create requests the same: the caller's id within a project and method, and what is asked."""

    project: str
    method: str
    request_id: str
    fingerprint: str
