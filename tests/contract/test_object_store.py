"""One suite for the object store in memory and the real one on SeaweedFS."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.objects import (
    ObjectStore,
    delete_directory,
    download_directory,
    read_manifest,
    upload_directory,
)
from finemesh.chassis.s3 import PART_BYTES, S3Config, S3ObjectStore
from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError, ResourceExhaustedError

from tests.support.memory_object_store import MemoryObjectStore
from tests.support.servers import S3Server

BIG = os.urandom(1 << 20) * (2 * PART_BYTES // (1 << 20)) + b"and a part that is not full"


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.integration)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryObjectStore()
        return
    server: S3Server = request.getfixturevalue("s3_server")
    real = S3ObjectStore(s3_config(server))
    await real.ensure_bucket()
    yield real
    real.close()


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex}"


def s3_config(server: S3Server) -> S3Config:
    return S3Config(
        endpoint=f"http://{server.endpoint}",
        access_key=server.access_key,
        secret_key=Secret(server.secret_key),
        bucket=server.bucket,
    )


async def chunks(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_what_is_put_is_got(store: ObjectStore, prefix: str) -> None:
    key = f"{prefix}/a b/ü+%.bin"
    put = await store.put_bytes(key, b"hello")
    stat = await store.stat(key)
    assert await store.get_bytes(key, max_bytes=5) == b"hello"
    assert (stat.size_bytes, stat.sha256, stat.key) == (5, sha256(b"hello"), key)
    assert put.sha256 == stat.sha256


async def test_an_empty_object_is_an_object(store: ObjectStore, prefix: str) -> None:
    await store.put_bytes(f"{prefix}/empty", b"")
    assert await store.get_bytes(f"{prefix}/empty", max_bytes=0) == b""
    assert [chunk async for chunk in store.stream(f"{prefix}/empty")] == []


async def test_what_is_missing_is_not_found(store: ObjectStore, prefix: str, tmp_path: Path) -> None:
    for reading in (
        store.get_bytes(f"{prefix}/no", max_bytes=1),
        store.stat(f"{prefix}/no"),
        store.get_file(f"{prefix}/no", tmp_path / "no"),
        anext(store.stream(f"{prefix}/no")),
    ):
        with pytest.raises(NotFoundError) as caught:
            await reading
        assert caught.value.reason == "OBJECT_NOT_FOUND"
    assert list(tmp_path.iterdir()) == []
    await store.delete(f"{prefix}/no")


async def test_reading_is_bounded(store: ObjectStore, prefix: str) -> None:
    await store.put_bytes(f"{prefix}/x", b"123456")
    with pytest.raises(ResourceExhaustedError, match="5 bytes"):
        await store.get_bytes(f"{prefix}/x", max_bytes=5)


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/./b", "a\\b", "a\nb", "x" * 1025])
async def test_unsafe_keys_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidError) as caught:
        await store.put_bytes(key, b"")
    assert caught.value.reason == "MALFORMED_KEY"


async def test_files_of_several_parts_come_back_equal(
    store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BIG)
    put = await store.put_file(f"{prefix}/big", source)
    await store.get_file(f"{prefix}/big", target, sha256=put.sha256)
    assert put.sha256 == sha256(BIG) == sha256(target.read_bytes())


async def test_a_file_that_is_not_what_it_should_be_never_appears(
    store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    await store.put_bytes(f"{prefix}/x", b"123456")
    with pytest.raises(FinemeshError) as caught:
        await store.get_file(f"{prefix}/x", tmp_path / "x", sha256=sha256(b"other"))
    assert caught.value.reason == "OBJECT_CORRUPT"
    assert list(tmp_path.iterdir()) == []


async def test_ranges_are_streamed_in_chunks(store: ObjectStore, prefix: str) -> None:
    data = os.urandom(100_000)
    await store.put_bytes(f"{prefix}/x", data)
    parts = [part async for part in store.stream(f"{prefix}/x", offset=1000, length=70_000, chunk_bytes=4096)]
    assert b"".join(parts) == data[1000:71_000]
    assert max(map(len, parts)) <= 4096
    assert b"".join([part async for part in store.stream(f"{prefix}/x", offset=99_990)]) == data[-10:]
    assert [part async for part in store.stream(f"{prefix}/x", length=0)] == []


@pytest.mark.parametrize("size", [0, 10, PART_BYTES, len(BIG)])
async def test_streams_are_stored_whole(store: ObjectStore, prefix: str, size: int) -> None:
    data = BIG[:size]
    put = await store.put_stream(f"{prefix}/s", chunks(data), max_bytes=size, sha256=sha256(data))
    assert (put.size_bytes, put.sha256) == (size, sha256(data))
    assert (await store.stat(f"{prefix}/s")).sha256 == sha256(data)
    assert b"".join([part async for part in store.stream(f"{prefix}/s")]) == data


async def test_a_bad_stream_leaves_nothing(store: ObjectStore, prefix: str) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield BIG
        raise InvalidError("the sender lied", reason="LIE")

    with pytest.raises(ResourceExhaustedError):
        await store.put_stream(f"{prefix}/s", chunks(BIG), max_bytes=len(BIG) - 1)
    with pytest.raises(InvalidError) as caught:
        await store.put_stream(f"{prefix}/s", chunks(BIG), max_bytes=len(BIG), sha256=sha256(b""))
    assert caught.value.reason == "DIGEST_MISMATCH"
    with pytest.raises(InvalidError) as caught:
        await store.put_stream(f"{prefix}/s", breaks(), max_bytes=1 << 40)
    assert caught.value.reason == "LIE"
    assert await store.list(prefix) == []


async def test_a_cancelled_stream_leaves_nothing(store: ObjectStore, prefix: str) -> None:
    stalled = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield b"first"
        stalled.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put_stream(f"{prefix}/s", stalls(), max_bytes=100))
    await stalled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.put_bytes(f"{prefix}/other", b"")  # the thread is free again, the store still works
    assert [each.key for each in await store.list(prefix)] == [f"{prefix}/other"]


async def test_only_one_of_many_writers_gets_a_free_key(store: ObjectStore, prefix: str) -> None:
    writers = (store.put_if_absent(f"{prefix}/lock", str(number).encode()) for number in range(6))
    won = await asyncio.gather(*writers)
    assert sum(won) == 1
    assert await store.get_bytes(f"{prefix}/lock", max_bytes=9) == str(won.index(True)).encode()
    assert await store.put_if_absent(f"{prefix}/lock", b"late") is False


async def test_listing_and_deleting_keep_to_the_prefix(store: ObjectStore, prefix: str) -> None:
    for name in ("a/1", "a/b/2", "a0", "b"):
        await store.put_bytes(f"{prefix}/{name}", name.encode())
    listed = await store.list(f"{prefix}/a/")
    assert [(each.key, each.size_bytes) for each in listed] == [(f"{prefix}/a/1", 3), (f"{prefix}/a/b/2", 5)]
    with pytest.raises(InvalidError):
        await store.delete_prefix(f"{prefix}/a")
    assert await store.delete_prefix(f"{prefix}/a/") == 2
    await store.delete(f"{prefix}/b")
    assert [each.key for each in await store.list(prefix)] == [f"{prefix}/a0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "one.bin").write_bytes(b"1" * 1000)
    (source / "deep" / "er" / "two").write_bytes(b"22")
    (source / "empty").touch()
    return source


async def test_a_directory_comes_back_equal(
    store: ObjectStore, prefix: str, folder: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    put = await upload_directory(
        store, folder, prefix, on_bytes=lambda done, total: seen.append((done, total))
    )
    got = await download_directory(store, prefix, tmp_path / "target")
    assert put == got == await read_manifest(store, prefix)
    assert seen[-1] == (1002, 1002)
    assert (tmp_path / "target/deep/er/two").read_bytes() == b"22"
    assert (tmp_path / "target/one.bin").read_bytes() == b"1" * 1000
    assert (tmp_path / "target/empty").read_bytes() == b""
    again = await download_directory(store, prefix, tmp_path / "some", select=lambda path: path == "one.bin")
    assert again.digest == put.digest
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["one.bin"]


async def test_a_directory_without_its_manifest_does_not_exist(
    store: ObjectStore, prefix: str, folder: Path, tmp_path: Path
) -> None:
    await upload_directory(store, folder, prefix)
    await store.delete(f"{prefix}/files.json")
    with pytest.raises(NotFoundError) as caught:
        await download_directory(store, prefix, tmp_path / "target")
    assert caught.value.reason == "DIRECTORY_NOT_FOUND"


async def test_damage_below_a_manifest_is_found(
    store: ObjectStore, prefix: str, folder: Path, tmp_path: Path
) -> None:
    await upload_directory(store, folder, prefix)
    await store.put_bytes(f"{prefix}/one.bin", b"9" * 1000)
    with pytest.raises(FinemeshError) as caught:
        await download_directory(store, prefix, tmp_path / "target")
    assert caught.value.reason == "OBJECT_CORRUPT"
    assert not (tmp_path / "target" / "one.bin").exists()


async def test_a_manifest_cannot_lead_out_of_the_folder(
    store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    evil = b'{"files": [{"path": "../evil", "size_bytes": 1, "sha256": "x"}]}'
    await store.put_bytes(f"{prefix}/files.json", evil)
    with pytest.raises(FinemeshError) as caught:
        await download_directory(store, prefix, tmp_path / "target")
    assert caught.value.reason == "OBJECT_CORRUPT"


async def test_links_are_not_uploaded(store: ObjectStore, prefix: str, folder: Path) -> None:
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(InvalidError) as caught:
        await upload_directory(store, folder, prefix)
    assert caught.value.reason == "LINK_REFUSED"
    assert await store.list(prefix) == []


async def test_deleting_a_directory_takes_all_of_it(store: ObjectStore, prefix: str, folder: Path) -> None:
    await upload_directory(store, folder, f"{prefix}/d")
    await store.put_bytes(f"{prefix}/d2", b"")
    assert await delete_directory(store, f"{prefix}/d") == 3
    assert [each.key for each in await store.list(prefix)] == [f"{prefix}/d2"]
