"""A minio client that signs by the object store's clock: a machine whose own is wrong can still work.

S3 refuses a request whose signature is more than 15 minutes old or ahead
(https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html). Every answer says what
time the store has (`Date`, RFC 9110, 6.6.1), a refusal too: the client learns from it and asks once more.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from minio import Minio
from minio.error import S3Error
from minio.time import to_amz_date

from finemesh.chassis.logs import get_logger

# Differences below this are no reason to refuse anything, nor worth correcting.
_TOLERATED: Final = timedelta(minutes=1)

_log = get_logger("finemesh.s3")


class ClockedMinio(Minio):
    """As `Minio`; `now` is the time that it signs with."""

    _ahead = timedelta(0)
    """How far the store's clock is ahead of ours, as far as is known."""

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def _build_headers(self, *arguments: Any, **options: Any) -> tuple[Any, datetime]:
        headers, _ = super()._build_headers(*arguments, **options)
        now = self.now()
        headers["x-amz-date"] = to_amz_date(now)
        return headers, now

    def _url_open(self, *arguments: Any, **options: Any) -> Any:
        given = dict(options.get("headers") or {})  # they are signed in place
        try:
            return super()._url_open(*arguments, **options)
        except S3Error as error:
            if not self._learns_from(error):
                raise
        return super()._url_open(*arguments, **{**options, "headers": given})

    def _learns_from(self, refusal: S3Error) -> bool:
        """Whether the refusal shows that our clock is another than we thought."""
        said = refusal.response.headers.get("Date") if refusal.response.status in {400, 401, 403} else None
        if not said:
            return False
        ahead = parsedate_to_datetime(said) - datetime.now(UTC)
        if abs(ahead - self._ahead) <= _TOLERATED:
            return False
        self._ahead = ahead
        _log.warning("clock_differs", store_ahead_seconds=round(ahead.total_seconds()))
        return True
