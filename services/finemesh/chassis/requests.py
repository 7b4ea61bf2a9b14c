"""Idempotent creates: a second request with the same `request_id` gets the first one's resource (AIP-155)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from sqlalchemy import delete, select

from finemesh.chassis.sql import Tx
from finemesh.chassis.tables import ChassisTables
from finemesh.core.clock import Clock, SystemClock
from finemesh.core.errors import AlreadyExistsError, InvalidError
from finemesh.core.requests import RequestKey

MAX_REQUEST_ID_LENGTH = 128


def request_key(project: str, method: str, request: ProtoMessage) -> RequestKey | None:
    """The key of a create request, or None when its `request_id` is empty.

    Raises:
        InvalidError: `request_id` is longer than 128 characters or holds anything but visible ASCII.
    """
    request_id: str = getattr(request, "request_id", "")
    if not request_id:
        return None
    if len(request_id) > MAX_REQUEST_ID_LENGTH or not all("!" <= char <= "~" for char in request_id):
        raise InvalidError.of("request_id", "use 1 to 128 visible ASCII characters, for example a UUID")
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    return RequestKey(project, method, request_id, digest)


class Requests:
    """The create requests that a service has carried out."""

    def __init__(self, tables: ChassisTables, clock: Clock | None = None) -> None:
        self._table = tables.requests
        self._clock = clock or SystemClock()

    async def claim(self, tx: Tx, key: RequestKey | None, resource: str) -> str | None:
        """Note that `key` creates `resource`, when `tx` commits.

        Returns:
            None when the caller is to create it now; the name of the existing resource when an earlier
            request with the same key has. Of two at the same time, the second waits for the first.

        Raises:
            AlreadyExistsError: REQUEST_ID_REUSED, the earlier request asked for something else.
        """
        if key is None:
            return None
        if await tx.insert_new(self._table, **self.values(key, resource)):
            return None
        values = {"project": key.project, "method": key.method, "request_id": key.request_id}
        row = await tx.row(select(self._table).filter_by(**values))
        assert row is not None, "a request that could not be inserted exists"
        if row["fingerprint"] != key.fingerprint:
            raise AlreadyExistsError(
                f"request_id {key.request_id!r} was used for another {key.method} request, which made"
                f" {row['resource']}: use a new request_id for a different request",
                reason="REQUEST_ID_REUSED",
                metadata={"request_id": key.request_id, "resource": row["resource"]},
            )
        return row["resource"]

    def values(self, key: RequestKey, resource: str) -> dict[str, Any]:
        """The row that notes that `key` creates `resource`, now."""
        return {**asdict(key), "resource": resource, "create_time": self._clock.now()}

    async def prune(self, tx: Tx, older_than: timedelta) -> int:
        """Forget old requests. Returns how many."""
        limit = self._clock.now() - older_than
        return (await tx.execute(delete(self._table).where(self._table.c.create_time < limit))).rowcount
