"""What only the S3 store promises: presigned URLs, clear errors, no leftovers of uploads that failed."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.presign import presign
from finemesh.chassis.s3 import PART_BYTES, S3Config, S3ObjectStore
from finemesh.core.errors import FinemeshError, InvalidError, PreconditionError, UnavailableError

from tests.support.servers import PATIENCE_SECONDS, S3Server, free_ports

pytestmark = pytest.mark.integration


def config_of(server: S3Server) -> S3Config:
    return S3Config(
        endpoint=f"http://{server.endpoint}",
        access_key=server.access_key,
        secret_key=Secret(server.secret_key),
        bucket=server.bucket,
    )


@pytest.fixture
async def store(s3_server: S3Server) -> AsyncIterator[S3ObjectStore]:
    store = S3ObjectStore(config_of(s3_server))
    await store.ensure_bucket()
    yield store
    store.close()


@pytest.fixture
def key() -> str:
    return f"test-{uuid.uuid4().hex}/a b+ü.bin"


def http(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes, str]:
    """Status, body and content-disposition of a plain HTTP request, as a browser or curl would make it."""
    request = urllib.request.Request(url, data=body, method=method)
    if body is not None:
        request.add_header("content-type", "application/octet-stream")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
            return response.status, response.read(), response.headers.get("content-disposition", "")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), ""


async def test_a_download_link_works_without_credentials(store: S3ObjectStore, key: str) -> None:
    await store.put_bytes(key, b"content")
    url = store.presign_get(key, expires_seconds=60, filename='model "ü".zip')
    status, body, disposition = http("GET", url)
    assert (status, body) == (200, b"content")
    assert disposition == "attachment; filename*=UTF-8''model%20%22%C3%BC%22.zip"


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_machine_whose_clock_is_wrong_reads_and_writes(
    s3_server: S3Server, store: S3ObjectStore, key: str, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr("finemesh.chassis.s3_clock.datetime", Wrong)
    wrong = S3ObjectStore(config_of(s3_server))
    await wrong.put_bytes(key, b"content")
    assert await wrong.get_bytes(key, max_bytes=100) == b"content"
    assert http("GET", wrong.presign_get(key, expires_seconds=60))[:2] == (200, b"content")
    wrong.close()


async def test_a_link_is_good_for_nothing_else(store: S3ObjectStore, key: str, s3_server: S3Server) -> None:
    await store.put_bytes(key, b"content")
    url = store.presign_get(key, expires_seconds=60)
    assert http("PUT", url, b"other")[0] == 403
    assert http("GET", url.replace("/a%20b", "/b%20b"))[0] == 403
    assert http("GET", url.split("?")[0])[0] == 403
    expired = presign(
        "GET",
        f"http://{s3_server.endpoint}",
        f"/{s3_server.bucket}/{key}",
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
        region="us-east-1",
        expires_seconds=60,
        now=datetime.now(UTC) - timedelta(seconds=62),
    )
    assert http("GET", expired)[0] == 403


async def test_an_upload_link_takes_the_stated_size_only(store: S3ObjectStore, key: str) -> None:
    url = store.presign_put(key, expires_seconds=60, content_length=5)
    assert http("PUT", url, b"123456")[0] == 403
    assert await store.list(key) == []
    assert http("PUT", url, b"12345")[0] == 200
    assert await store.get_bytes(key, max_bytes=9) == b"12345"


async def test_links_are_signed_for_the_public_endpoint(s3_server: S3Server) -> None:
    config = replace(config_of(s3_server), public_endpoint="https://mesh.example:8443")
    store = S3ObjectStore(config)
    url = store.presign_get("a/b", expires_seconds=60)
    assert url.startswith(f"https://mesh.example:8443/{s3_server.bucket}/a/b?")
    store.close()


async def test_failed_uploads_leave_no_parts_behind(
    store: S3ObjectStore, key: str, s3_server: S3Server
) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(PART_BYTES)
        raise InvalidError("the sender lied")

    with pytest.raises(InvalidError):
        await store.put_stream(key, breaks(), max_bytes=1 << 40)
    uploads = store._client._list_multipart_uploads(bucket_name=s3_server.bucket).uploads
    assert [upload.object_name for upload in uploads if upload.object_name == key] == []


async def test_parts_of_a_killed_upload_go_when_they_are_old(
    store: S3ObjectStore, s3_server: S3Server
) -> None:
    client, bucket, key = store._client, s3_server.bucket, f"killed-{uuid.uuid4().hex}"
    begun = client._create_multipart_upload(bucket, key, {})
    client._upload_part(bucket, key, bytes(PART_BYTES), {}, begun, 1)

    def left() -> list[str | None]:
        uploads = client._list_multipart_uploads(bucket_name=bucket).uploads
        return [upload.upload_id for upload in uploads if upload.upload_id == begun]

    await store.drop_parts(timedelta(hours=1))
    assert left() == [begun]
    await store.drop_parts(timedelta(seconds=-60))
    assert left() == []


async def test_a_store_that_is_away_is_said_so_quickly() -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    store = S3ObjectStore(S3Config(endpoint=endpoint, access_key="a", secret_key=Secret("b")))

    async def one() -> AsyncIterator[bytes]:
        yield b"x"

    started = time.monotonic()
    for call in (
        store.ensure_bucket(),
        store.put_bytes("a", b""),
        store.put_stream("a", one(), max_bytes=9),
        store.put_if_absent("a", b""),
        store.get_bytes("a", max_bytes=1),
        store.list("a"),
    ):
        with pytest.raises(UnavailableError) as caught:
            await call
        assert caught.value.reason == "OBJECT_STORE_UNAVAILABLE"
        assert endpoint in str(caught.value)
    assert time.monotonic() - started < 60  # each at once, on a busy machine too
    store.close()


async def test_an_answer_that_breaks_off_names_the_object() -> None:
    """As SeaweedFS does where the bytes of an object are damaged on its disk."""

    async def half(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    endpoint = "http://{}:{}".format(*server.sockets[0].getsockname())
    store = S3ObjectStore(S3Config(endpoint=endpoint, access_key="a", secret_key=Secret("b")))
    with pytest.raises(UnavailableError, match="broke off while it gave some/key"):
        await store.get_bytes("some/key", max_bytes=100)
    store.close()
    server.close()


async def test_wrong_credentials_and_a_missing_bucket_are_told_apart(s3_server: S3Server, key: str) -> None:
    wrong = S3ObjectStore(replace(config_of(s3_server), secret_key=Secret("wrong-wrong")))
    for call in (wrong.put_bytes(key, b""), wrong.put_if_absent(key, b""), wrong.ensure_bucket()):
        with pytest.raises(PreconditionError) as caught:
            await call
        assert caught.value.reason == "OBJECT_STORE_REFUSED"
    wrong.close()
    elsewhere = S3ObjectStore(replace(config_of(s3_server), bucket="no-such-bucket"))
    with pytest.raises(FinemeshError) as missing:
        await elsewhere.put_bytes(key, b"")
    assert missing.value.reason == "BUCKET_NOT_FOUND"
    elsewhere.close()


async def test_a_killed_store_comes_back_with_what_it_took(
    start_s3: Callable[[], S3Server], key: str
) -> None:
    server = start_s3()
    store = S3ObjectStore(config_of(server))
    await store.ensure_bucket()
    await store.put_bytes(key, b"acknowledged")
    server.kill()
    with pytest.raises(UnavailableError):
        await store.get_bytes(key, max_bytes=99)
    server.start()
    await store.ensure_bucket()
    assert await store.get_bytes(key, max_bytes=99) == b"acknowledged"
    store.close()


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://host", "http://host/path", "http://"])
def test_a_bad_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        S3Config(endpoint=endpoint, access_key="a", secret_key=Secret("b"))
    assert caught.value.reason == "BAD_ENDPOINT"
