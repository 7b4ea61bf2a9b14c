"""The files of runs: pictures, tables, anything.

A content lies in the object store once per project, under its SHA-256, and is checked against it while it
comes in: nothing is under a name that it has not earned. It goes when the last run that has it goes.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from finemesh.chassis.auth import Principal, Role
from finemesh.chassis.objects import ObjectStore, check_key
from finemesh.core.clock import Clock
from finemesh.core.errors import (
    FieldViolation,
    InvalidError,
    PermissionDeniedError,
    PreconditionError,
    ResourceExhaustedError,
)
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.tracking.access import job_of
from finemesh.tracking.artifact_rows import Artifact, ArtifactRows
from finemesh.tracking.domain import MAX_STEP
from finemesh.tracking.ports import RunStore

MAX_BYTES: Final = 64 << 30
MAX_PATH_LENGTH: Final = 512
URL_SECONDS: Final = 3600
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Artifacts:
    """Viewers list and fetch; operators and the attempts of a run's job add."""

    def __init__(self, rows: ArtifactRows, runs: RunStore, objects: ObjectStore, clock: Clock) -> None:
        self._rows = rows
        self._runs = runs
        self._objects = objects
        self._clock = clock
        # Contents that are being written: nobody else may clear them away meanwhile.
        self._arriving: Counter[str] = Counter()
        self._clearing = asyncio.Lock()

    async def upload(
        self, principal: Principal, run: Name, artifact: Artifact, chunks: AsyncIterator[bytes]
    ) -> Artifact:
        """Store a file of a run. Without any bytes, only if the project has the content.

        Raises:
            PreconditionError: ARTIFACT_CONTENT_MISSING, ARTIFACT_CORRUPT.
            InvalidError: INVALID_ARTIFACT.
        """
        _check_writer(principal, run)
        _check(artifact)
        await self._runs.get(principal, [run])
        key = _key(run.project, artifact.sha256)
        stored = replace(artifact, create_time=self._clock.now())
        self._arriving[key] += 1
        try:
            async with self._clearing:  # let who is clearing finish
                known = bool(await self._rows.used(run.project, [artifact.sha256]))
            await self._receive(key, artifact, chunks, known=known)
            before = await self._rows.put(run, stored)
        finally:
            self._arriving[key] -= 1
        if before not in {"", artifact.sha256}:
            await self._clear(run.project, {before})
        return stored

    async def list(
        self, principal: Principal, run: Name, request: PageRequest
    ) -> tuple[list[tuple[Artifact, str]], str]:
        """One page of files, each with a URL, and the token of the next page."""
        principal.require_role(Role.VIEWER)
        principal.require_project(run.project)
        await self._runs.get(principal, [run])
        found, token = await self._rows.list(run, request)
        return [(each, self._url(run.project, each)) for each in found], token

    async def delete(self, run: Name) -> None:
        """Forget the files of a run. Raises UnavailableError: the object store is away, try again."""
        if contents := await self._rows.delete(run):
            await self._clear(run.project, contents)

    async def _receive(
        self, key: str, artifact: Artifact, chunks: AsyncIterator[bytes], *, known: bool
    ) -> None:
        first = await anext(chunks, b"")
        if known or (not first and artifact.size_bytes):
            if not known:
                raise PreconditionError(
                    f"the content of {artifact.path} is not here yet: send its bytes",
                    reason="ARTIFACT_CONTENT_MISSING",
                )
            return

        async def content() -> AsyncIterator[bytes]:
            yield first
            async for chunk in chunks:
                yield chunk

        await self._objects.ensure_bucket()
        try:
            await self._objects.put_stream(
                key, content(), max_bytes=artifact.size_bytes, sha256=artifact.sha256
            )
        except (InvalidError, ResourceExhaustedError) as error:
            raise PreconditionError(
                f"what came as {artifact.path} is not what was announced, {artifact.size_bytes} bytes with"
                f" SHA-256 {artifact.sha256}: {error}; send it again",
                reason="ARTIFACT_CORRUPT",
            ) from error

    async def _clear(self, project: str, contents: set[str]) -> None:
        """Delete contents that no run has any more."""
        async with self._clearing:
            for sha256 in sorted(contents - await self._rows.used(project, contents)):
                if not self._arriving[_key(project, sha256)]:
                    await self._objects.delete(_key(project, sha256))

    def _url(self, project: str, artifact: Artifact) -> str:
        filename = artifact.path.rpartition("/")[2]
        key = _key(project, artifact.sha256)
        return self._objects.presign_get(key, expires_seconds=URL_SECONDS, filename=filename)


def _check_writer(principal: Principal, run: Name) -> None:
    principal.require_project(run.project)
    if principal.role is not Role.ATTEMPT:
        principal.require_role(Role.OPERATOR)
    elif principal.resource != job_of(run):
        raise PermissionDeniedError(
            f"the token is for {principal.resource}, which does not make {run}", reason="RESOURCE_DENIED"
        )


def _check(artifact: Artifact) -> None:
    """Raises InvalidError, reason INVALID_ARTIFACT, naming every wrong field."""
    found: list[FieldViolation] = []
    try:
        check_key(artifact.path)
        ends_well = len(artifact.path) <= MAX_PATH_LENGTH and not artifact.path.endswith("/")
    except InvalidError:
        ends_well = False
    if not ends_well:
        shape = f"write a/b/c without '.' and '..', at most {MAX_PATH_LENGTH} characters"
        found.append(FieldViolation("artifact.path", f"{artifact.path[:80]!r} is not a path: {shape}"))
    if not _DIGEST.fullmatch(artifact.sha256):
        found.append(FieldViolation("artifact.sha256", "is not 64 hexadecimal digits in lower case"))
    if not 0 <= artifact.size_bytes <= MAX_BYTES:
        found.append(FieldViolation("artifact.size_bytes", f"is not between 0 and {MAX_BYTES}"))
    if len(artifact.media_type) > 256 or not artifact.media_type.isprintable():
        found.append(FieldViolation("artifact.media_type", "use at most 256 printable characters"))
    if artifact.step is not None and not 0 <= artifact.step <= MAX_STEP:
        found.append(FieldViolation("artifact.step", "is not a step from 0 to 2^53"))
    if found:
        listed = "; ".join(f"{each.field}: {each.description}" for each in found)
        raise InvalidError(listed, violations=found, reason="INVALID_ARTIFACT")


def _key(project: str, sha256: str) -> str:
    return f"projects/{project}/artifacts/{sha256}"
