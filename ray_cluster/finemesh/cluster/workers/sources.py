"""What is imported, brought to this machine: an upload, or what lies on the object store already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from finemesh.chassis.objects import ObjectStat, check_key
from finemesh.cluster.worker import Job
from finemesh.cluster.workers.store import Store
from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError, PreconditionError
from finemesh.core.s3_uri import S3Uri, parse_s3_uri
from finemesh.core.spec.data import ImportOptions
from finemesh.v1.attempt_pb2 import ImportWork

_MAX_PART_BYTES: Final = 200  # of a name on disk, which has room for 255 with what a download adds
_PLAIN_NAME: Final = re.compile(r"\w[\w .-]*")
_ONE_FILE: Final = PurePosixPath("file")  # folder, in the scratch space, of a source that is one file


def fetch_source(job: Job, options: ImportOptions) -> Path:
    """A file or a folder in the job's scratch space.

    Raises:
        PreconditionError: UPLOAD_INCOMPLETE, UPLOAD_CORRUPT.
        NotFoundError: SOURCE_NOT_FOUND.
        InvalidError: SOURCE_NAME, SOURCE_TOO_LARGE, before anything is fetched.
    """
    work = job.command.import_work
    if work.HasField("upload"):
        with Store(job.site) as store:
            return _fetch_upload(job, store, work)
    uri = parse_s3_uri(work.source_uri, "source_uri")
    with Store(job.site, bucket=uri.bucket) as store:
        return _fetch_objects(job, store, uri, options)


def _fetch_upload(job: Job, store: Store, work: ImportWork) -> Path:
    job.progress(0.0, "fetching the upload")
    size_bytes = store.size(work.source_uri)
    if size_bytes != work.upload.size_bytes:
        raise PreconditionError(
            f"{work.upload.name} has {size_bytes} bytes of {work.upload.size_bytes}: upload it again",
            reason="UPLOAD_INCOMPLETE",
        )
    source = job.scratch / _ONE_FILE / plain_name(work.upload.filename)
    source.parent.mkdir()
    try:
        store.fetch_file(work.source_uri, source, sha256=work.upload.sha256)
    except FinemeshError as error:
        if error.reason != "OBJECT_CORRUPT":
            raise
        raise PreconditionError(  # fetching it again would bring the same bytes
            f"{work.upload.name} does not have the SHA-256 that was announced: upload it again",
            reason="UPLOAD_CORRUPT",
        ) from error
    return source


def _fetch_objects(job: Job, store: Store, uri: S3Uri, options: ImportOptions) -> Path:
    """One object under the name of `uri`, or else the folder of those below it."""
    job.progress(0.0, f"listing {uri}")
    if uri.key and (one := store.find(str(uri))) is not None:
        paths = {one.key: _ONE_FILE / plain_name(one.key)}
        _check_sizes(uri, [one], options)
        target = job.scratch / paths[one.key]
    else:
        prefix = f"{uri.key}/" if uri.key else ""
        found = store.list(f"s3://{uri.bucket}/{prefix}", limit=options.max_files + 1)
        # Consoles of object stores mark a folder by an empty object whose key ends in a slash.
        objects = [each for each in found if each.size_bytes or not each.key.endswith("/")]
        if not objects:
            raise NotFoundError(
                f"there is no object {uri}, and none below it: check the address", reason="SOURCE_NOT_FOUND"
            )
        _check_sizes(uri, objects, options)
        target = job.scratch / "source"
        paths = {key: "source" / path for key, path in relative_paths(objects, prefix).items()}
    targets = {f"s3://{uri.bucket}/{key}": job.scratch / path for key, path in paths.items()}
    store.fetch_files(targets, job.progress)
    return target


def _check_sizes(uri: S3Uri, objects: Sequence[ObjectStat], options: ImportOptions) -> None:
    """Raises InvalidError, reason SOURCE_TOO_LARGE."""
    limits = (
        (len(objects), options.max_files, "files", "max_files"),
        (sum(each.size_bytes for each in objects), options.max_total_bytes, "bytes", "max_total_bytes"),
    )
    for found, allowed, unit, option in limits:
        if found > allowed:
            raise InvalidError(
                f"{uri} holds more than {allowed} {unit}: import a part of it, or raise {option}",
                reason="SOURCE_TOO_LARGE",
            )


def relative_paths(objects: Sequence[ObjectStat], prefix: str) -> dict[str, PurePosixPath]:
    """Where each object goes below a folder, by key.

    Raises:
        InvalidError: SOURCE_NAME for a key that could lead out of the folder or be no file there.
    """
    paths = {each.key: _safe_path(each.key, prefix) for each in objects}
    taken = set(paths.values())
    for key, path in paths.items():
        if not taken.isdisjoint(path.parents):
            raise _refusal(key, "a part of it is the name of another object: rename one of the two")
    return paths


def _safe_path(key: str, prefix: str) -> PurePosixPath:
    try:
        check_key(key)
    except InvalidError as error:
        raise _refusal(key, "it has empty parts, '.', '..' or control characters: rename it") from error
    relative = key.removeprefix(prefix)
    too_long = any(len(part.encode()) > _MAX_PART_BYTES for part in relative.split("/"))
    if not key.startswith(prefix) or not relative or relative.endswith("/") or too_long:
        raise _refusal(key, f"a part of it is empty or longer than {_MAX_PART_BYTES} bytes: rename it")
    return PurePosixPath(relative)


def _refusal(key: str, problem: str) -> InvalidError:
    return InvalidError(
        f"the object {key[:200]!r} is refused: {problem}. Nothing was fetched",
        reason="SOURCE_NAME",
        metadata={"key": key[:200]},
    )


def plain_name(name: str) -> str:
    """The base name, which row ids, splits and errors show, if it is letters, digits, and `_`, `.`, `-` and
    blanks behind the first; else a name of our own with the user's suffix.
    """
    base = PurePosixPath(name).name
    if _PLAIN_NAME.fullmatch(base) and len(base.encode()) <= _MAX_PART_BYTES:
        return base
    suffix = "".join(PurePosixPath(name).suffixes[-2:])[:16]
    return f"source{suffix if suffix.replace('.', '').isalnum() else ''}"
