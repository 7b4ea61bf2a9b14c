"""Packages of a few small files, as an attempt of the test uploads them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from pathlib import Path

from finemesh.chassis.objects import ObjectStore, scan_directory, upload_directory, upload_files
from finemesh.v1 import attempt_pb2, export_pb2

from tests.support.scripted_cluster import ScriptedAttempt

CONTENT: Mapping[str, bytes] = {
    "README.md": b"# a card",
    "adapter/adapter_config.json": b"{}",
    "adapter/weights.safetensors": bytes(range(256)) * 12_000,
    "golden/item-0.json": b"",
}


def result(*, passed: bool = True, difference: float = 0.0) -> attempt_pb2.AttemptResult:
    """The end of an attempt, without a word about files."""
    parity = export_pb2.ParityReport(
        items=16,
        max_logit_difference=difference,
        logit_tolerance=1e-3,
        token_agreement=1.0,
        passed=passed,
        runtime="transformers",
    )
    made = attempt_pb2.ExportResult(parity=parity, size_bytes=1234, manifest_sha256="ab" * 32)
    return attempt_pb2.AttemptResult(export=made)


def place_of(attempt: ScriptedAttempt) -> str:
    """The prefix of the bucket that an attempt writes to."""
    return attempt.command.export_work.output_uri.removeprefix("s3://finemesh-test/")


def write_content(folder: Path, content: Mapping[str, bytes] = CONTENT) -> Path:
    """`content` below `folder`."""
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


async def upload_half(objects: ObjectStore, attempt: ScriptedAttempt, folder: Path) -> None:
    """What an attempt that is killed while it uploads leaves behind."""
    files = scan_directory(write_content(folder)).files
    await upload_files(objects, folder, place_of(attempt), files[:2])


async def release(
    objects: ObjectStore,
    attempt: ScriptedAttempt,
    folder: Path,
    *,
    told: bool = True,
    content: Mapping[str, bytes] = CONTENT,
) -> str:
    """Upload `content` and end the attempt, with the files `told` or, as earlier releases did, without.

    Returns where the package is.
    """
    async with attempt.kept_alive():
        await asyncio.to_thread(write_content, folder, content)
        manifest = await upload_directory(objects, folder, place_of(attempt))
    await attempt.renew("VERIFYING")
    made = result()
    for file in manifest.files if told else ():
        crc = zlib.crc32(content[file.path])
        made.export.files.add(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256, crc32=crc)
    await attempt.complete(made)
    return place_of(attempt)
