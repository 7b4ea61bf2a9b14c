"""A worker imports what lies on a real S3: a folder of objects, or one of them; and nothing it should not."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.objects import ObjectStat
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from finemesh.cluster.config import Site
from finemesh.cluster.worker import Job
from finemesh.cluster.workers.dataset import import_archive
from finemesh.cluster.workers.sources import relative_paths
from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.v1 import attempt_pb2, dataset_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.servers import S3Server

Import = Callable[..., dataset_pb2.DatasetSummary]
ROWS = b"".join(json.dumps({"prompt": f"q{i}", "completion": f"a{i}"}).encode() + b"\n" for i in range(5))


@pytest.fixture(scope="module")
def config(s3_server: S3Server) -> S3Config:
    return S3Config(
        endpoint=f"http://{s3_server.endpoint}",
        access_key=s3_server.access_key,
        secret_key=Secret(s3_server.secret_key),
        bucket=s3_server.bucket,
    )


@pytest.fixture(scope="module")
def lake(config: S3Config) -> str:
    """A bucket beside the mesh's own, with a folder of objects, one that is as long, and single files."""
    bucket = f"lake-{uuid.uuid4().hex[:8]}"
    objects = {
        "chat/train.jsonl": ROWS,
        "chat/deep/": b"",  # as consoles mark a folder
        "chat/deep/more.jsonl": ROWS.replace(b"q", b"p"),
        "chat-other/secret.jsonl": b"not json",
        "one.jsonl.gz": gzip.compress(ROWS),
    }

    async def fill() -> None:
        for name in (bucket, config.bucket):
            store = S3ObjectStore(replace(config, bucket=name))
            await store.ensure_bucket()
            if name == bucket:
                for key, data in objects.items():
                    await store.put_bytes(key, data)
            store.close()

    asyncio.run(fill())
    return bucket


@pytest.fixture
def run(config: S3Config, tmp_path: Path) -> Import:
    """Import a source as a worker does, without the actor around it."""

    def run(uri: str, **origin: Any) -> dataset_pb2.DatasetSummary:
        output = f"s3://{config.bucket}/projects/p/datasets/{uuid.uuid4().hex}"
        command = attempt_pb2.Command(
            import_work=attempt_pb2.ImportWork(
                source_uri=uri, origin=dataset_pb2.ImportOrigin(source_uri=uri, **origin), output_uri=output
            )
        )
        site = Site(cluster="c", data_dir=tmp_path, addresses={}, s3=config)
        job = Job(command, site, tmp_path / "scratch")
        job.scratch.mkdir()
        try:
            return import_archive(job).dataset
        finally:
            shutil.rmtree(job.scratch)

    return run


@pytest.mark.integration
def test_a_prefix_is_a_folder(run: Import, lake: str) -> None:
    """What only begins alike is not part of it."""
    for uri in (f"s3://{lake}/chat", f"s3://{lake}/chat/"):
        summary = run(uri)
        assert summary.row_count == summary.ledger.kept == summary.conversation_count == 10


@pytest.mark.integration
def test_an_object_is_a_file(run: Import, lake: str) -> None:
    assert run(f"s3://{lake}/one.jsonl.gz").row_count == 5


@pytest.mark.integration
@pytest.mark.parametrize(
    ("key", "limits", "reason"),
    [
        ("/nothing", {}, "SOURCE_NOT_FOUND"),
        ("/cha", {}, "SOURCE_NOT_FOUND"),
        ("/chat", {"max_files": 1}, "SOURCE_TOO_LARGE"),
        ("/chat", {"max_total_bytes": 300}, "SOURCE_TOO_LARGE"),
        ("/one.jsonl.gz", {"max_total_bytes": 10}, "SOURCE_TOO_LARGE"),
        ("-not-there/a", {}, "BUCKET_NOT_FOUND"),
    ],
)
def test_what_is_not_there_or_too_much_is_told(
    run: Import, lake: str, key: str, limits: dict[str, int], reason: str
) -> None:
    with pytest.raises(FinemeshError) as refusal:
        run(f"s3://{lake}{key}", **limits)
    assert refusal.value.reason == reason


def stats(*keys: str) -> list[ObjectStat]:
    return [ObjectStat(key, 1, "", datetime.now(UTC)) for key in keys]


@pytest.mark.parametrize(
    "key",
    ["p/../evil", "p/a/../../evil", "p//etc/passwd", "p/a//b", "p/./a", "p/a\nb", "p/a\0", "p/..\\evil"]
    + ["p/" + "n" * 300, "p/", "p/a/", "other/a", "../evil", "/p/a"],
)
def test_hostile_key_is_refused_before_anything_is_fetched(key: str) -> None:
    with pytest.raises(InvalidError, match="Nothing was fetched") as refusal:
        relative_paths(stats("p/good.json", key), "p/")
    assert refusal.value.reason == "SOURCE_NAME"


def test_key_that_is_file_and_folder_is_refused() -> None:
    with pytest.raises(InvalidError) as refusal:
        relative_paths(stats("p/a", "p/a/b"), "p/")
    assert refusal.value.reason == "SOURCE_NAME"


parts = st.sampled_from(["..", ".", "", "a", "b.json", "/", "\\", "C:", "\0", "é", "x" * 300, "~", "p"])


@settings(max_examples=300)
@given(st.lists(st.lists(parts, min_size=1, max_size=5).map("/".join), max_size=4, unique=True))
def test_accepted_keys_stay_inside(keys: list[str]) -> None:
    try:
        paths = relative_paths(stats(*(f"p/{key}" for key in keys)), "p/")
    except InvalidError as error:
        assert error.reason == "SOURCE_NAME"
        return
    inside = Path("/root/inside")
    targets = [(inside / path).resolve() for path in paths.values()]
    assert len(set(targets)) == len(keys)
    assert all(target.is_relative_to(inside) and target != inside for target in targets)
    assert all(PurePosixPath(path) == path for path in paths.values())
