"""Signature Version 4 against the worked example that AWS publishes."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from urllib.parse import parse_qs, urlsplit

from finemesh.chassis.presign import MAX_EXPIRES_SECONDS, presign

sign = partial(
    presign,
    access_key="AKIAIOSFODNN7EXAMPLE",
    secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    region="us-east-1",
    now=datetime(2013, 5, 24, tzinfo=UTC),
)


def test_the_signature_is_the_published_one() -> None:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    url = sign("GET", "https://examplebucket.s3.amazonaws.com", "/test.txt", expires_seconds=86400)
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_headers_and_their_values_are_part_of_the_signature() -> None:
    def query(length: str) -> dict[str, list[str]]:
        headers = {"content-length": length, "if-none-match": "*"}
        url = sign("PUT", "http://h:1", "/b/k", expires_seconds=9, headers=headers)
        return parse_qs(urlsplit(url).query)

    assert query("5")["X-Amz-SignedHeaders"] == ["content-length;host;if-none-match"]
    assert query("5") == query("5")
    assert query("5")["X-Amz-Signature"] != query("6")["X-Amz-Signature"]


def test_expiry_stays_within_what_s3_allows() -> None:
    for asked, given in ((0, 1), (10**9, MAX_EXPIRES_SECONDS)):
        url = sign("GET", "http://h", "/b/k", expires_seconds=asked)
        assert f"X-Amz-Expires={given}&" in url
