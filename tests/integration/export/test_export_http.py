"""Archives over HTTP, through the gateway: status, length, ranges, and what curl makes of a broken one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from finemesh.chassis.s3 import S3ObjectStore

from tests.support.export_client import ExportClient
from tests.support.export_gateway import HttpDoor
from tests.support.packages import release
from tests.support.scripted_cluster import ScriptedCluster

pytestmark = pytest.mark.integration


def headers_of(answer: subprocess.CompletedProcess[bytes]) -> tuple[dict[str, str], bytes]:
    """Of an answer that came with `--include`."""
    head, _, body = answer.stdout.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().splitlines()[1:]]
    return {name.lower(): value for name, _, value in lines}, body


async def test_curl_takes_archives_in_parts_and_continues_them(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    door: HttpDoor,
    tmp_path: Path,
) -> None:
    export = await client.create(job, export_id="pkg")
    await release(objects, await cluster.next_attempt(), tmp_path / "package")
    path, project = f"/v1/{export.name}:download", client.project
    packed = await client.download(export.name)

    def fetch(*options: str, query: str = "") -> tuple[bytes, dict[str, str], bytes]:
        answer = door.curl(path + query, "--include", *options, project=project)
        return answer.stderr, *headers_of(answer)

    status, headers, body = fetch()
    assert (status, body) == (b"200", packed)
    assert headers["content-length"] == str(len(packed))
    assert headers["content-type"] == "application/zip"
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-disposition"] == 'attachment; filename="pkg.zip"'

    status, part, body = fetch("--range", "1000-1999", "--header", f"If-Range: {headers['etag']}")
    assert (status, body) == (b"206", packed[1000:2000])
    assert part["content-range"] == f"bytes 1000-1999/{len(packed)}"
    assert part["etag"] == headers["etag"]
    status, _, body = fetch("--range", "1000-1999", "--header", 'If-Range: "of another package"')
    assert (status, body) == (b"200", packed)
    status, refused, _ = fetch("--range", f"{len(packed)}-")
    assert (status, refused["content-range"]) == (b"416", f"bytes */{len(packed)}")

    status, told, body = fetch("--head")
    assert (status, told["content-length"], body) == (b"200", str(len(packed)), b"")
    assert (told["etag"], told["content-type"]) == (headers["etag"], "application/zip")
    assert fetch("--head", "--range", "1000-1999")[1]["content-length"] == "1000"
    for same in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
        status, _, body = fetch("--header", f"If-None-Match: {same}", "--range", "0-9")
        assert (status, body) == (b"304", b"")
    assert fetch("--header", 'If-None-Match: "other"')[0] == b"200"
    assert (await client.get(export.name)).download_count == 4  # those that were delivered to their end

    kept = tmp_path / "kept.tar"
    whole = await client.download(export.name, "TAR")
    kept.write_bytes(whole[:777_777])
    continued = ("--continue-at", "-", "--output", str(kept))
    door.curl(path + "?format=ARCHIVE_FORMAT_TAR", *continued, project=project)
    assert kept.read_bytes() == whole
    again = door.curl(path + "?format=ARCHIVE_FORMAT_TAR", *continued, project=project)
    assert (again.returncode, again.stderr) == (0, b"416")  # curl knows that it has everything
    assert kept.read_bytes() == whole


async def test_a_download_that_breaks_off_is_seen_to_be_too_short(
    client: ExportClient,
    cluster: ScriptedCluster,
    job: str,
    objects: S3ObjectStore,
    door: HttpDoor,
    tmp_path: Path,
) -> None:
    export = await client.create(job)
    place = await release(objects, await cluster.next_attempt(), tmp_path)
    await objects.delete(f"{place}/golden/item-0.json")
    await objects.delete(f"{place}/adapter/weights.safetensors")
    answer = door.curl(f"/v1/{export.name}:download", project=client.project)
    assert answer.returncode != 0
