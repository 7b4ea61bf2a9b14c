"""The object store on S3 (MinIO, SeaweedFS, AWS): the minio client in threads of its own."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from finemesh.chassis.config import Secret
from finemesh.chassis.objects import CHUNK_BYTES, ObjectStat, check_key, sha256_of_file
from finemesh.chassis.presign import presign
from finemesh.chassis.s3_clock import ClockedMinio
from finemesh.chassis.stream_reader import StreamReader
from finemesh.core.errors import (
    FinemeshError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    ResourceExhaustedError,
    UnavailableError,
)

PART_BYTES: Final = 16 << 20
_SHA256_HEADER: Final = "x-amz-meta-sha256"
_THREADS: Final = 8

_AWAY: Final = {
    "InternalError",
    "ServiceUnavailable",
    "SlowDown",
    "RequestTimeout",
    "XMinioServerNotInitialized",
}
_REFUSED: Final = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed"}
_MISSING: Final = {"NoSuchKey", "NoSuchUpload", "NoSuchObject", "ResourceNotFound"}
_BUCKET_EXISTS: Final = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """Where the objects are. Endpoints are `http(s)://host:port`; URLs are signed for the public one."""

    endpoint: str = "http://127.0.0.1:8333"
    access_key: str
    secret_key: Secret
    bucket: str = "finemesh"
    region: str = "us-east-1"
    public_endpoint: str | None = None
    connect_timeout_seconds: float = 2.0
    read_timeout_seconds: float = 60.0

    def __post_init__(self) -> None:
        for endpoint in filter(None, (self.endpoint, self.public_endpoint)):
            url = urlsplit(endpoint)
            if url.scheme not in {"http", "https"} or not url.netloc or url.path.strip("/"):
                raise InvalidError(
                    f"S3 endpoint {endpoint!r}: write http(s)://host:port", reason="BAD_ENDPOINT"
                )


class S3ObjectStore:
    """An `ObjectStore` on S3. Cancelling a call frees the caller; the thread behind it ends on its own."""

    def __init__(self, config: S3Config) -> None:
        self._config = config
        self._bucket = config.bucket
        url = urlsplit(config.endpoint)
        timeout = urllib3.Timeout(connect=config.connect_timeout_seconds, read=config.read_timeout_seconds)
        # A store that refuses connections is away, and callers should know soon. One that answers 5xx is
        # starting: SeaweedFS does so for seconds after a restart, until its volumes have registered.
        retries = urllib3.Retry(
            total=None, connect=2, read=2, status=7, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]
        )
        self._http = urllib3.PoolManager(maxsize=2 * _THREADS, timeout=timeout, retries=retries)
        self._client = ClockedMinio(
            endpoint=url.netloc,
            access_key=config.access_key,
            secret_key=config.secret_key.reveal(),
            secure=url.scheme == "https",
            region=config.region,
            http_client=self._http,
        )
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")

    def close(self) -> None:
        """Let the threads go. Calls after this fail."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    async def ensure_bucket(self) -> None:
        def ensure() -> None:
            if not self._client.bucket_exists(bucket_name=self._bucket):
                try:
                    self._client.make_bucket(bucket_name=self._bucket)
                except S3Error as error:
                    if error.code not in _BUCKET_EXISTS:
                        raise

        await self._call(self._bucket, ensure)

    async def put_bytes(
        self, key: str, data: bytes, *, content_type: str = "application/octet-stream"
    ) -> ObjectStat:
        digest = hashlib.sha256(data).hexdigest()
        return await self._call(
            key, self._put, check_key(key), io.BytesIO(data), len(data), digest, content_type
        )

    async def put_file(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        content_type: str = "application/octet-stream",
    ) -> ObjectStat:
        def put() -> ObjectStat:
            digest = sha256 or sha256_of_file(path)
            with path.open("rb") as file:
                return self._put(check_key(key), file, path.stat().st_size, digest, content_type)

        return await self._call(key, put)

    async def put_stream(
        self, key: str, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> ObjectStat:
        reader = StreamReader(chunks, max_bytes, sha256)
        try:
            return await self._call(
                key, self._put, check_key(key), reader, -1, sha256, "application/octet-stream"
            )
        finally:
            reader.stop()

    def _put(self, key: str, data: Any, size_bytes: int, digest: str | None, content_type: str) -> ObjectStat:
        result = self._client.put_object(
            bucket_name=self._bucket,
            object_name=key,
            data=data,
            length=size_bytes,
            part_size=PART_BYTES,
            num_parallel_uploads=1,  # the client queues parts without bound otherwise
            content_type=content_type,
            metadata={_SHA256_HEADER: digest} if digest else None,
        )
        if isinstance(data, StreamReader):
            size_bytes, digest = data.size_bytes, data.hexdigest()
        return ObjectStat(key, size_bytes, result.etag or "", datetime.now(UTC), digest)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        headers = {"if-none-match": "*", _SHA256_HEADER: hashlib.sha256(data).hexdigest()}
        url = self._presign("PUT", self._config.endpoint, key, 300, headers=headers)

        def put() -> bool:
            response = self._http.request("PUT", url, body=data, headers=headers, retries=False)
            if response.status == 412:  # https://www.rfc-editor.org/rfc/rfc9110#name-if-none-match
                return False
            if response.status in {409, 500, 502, 503, 504}:  # 409: another conditional write is under way
                raise UnavailableError(
                    f"the object store answered {response.status} for {key}",
                    reason="OBJECT_STORE_UNAVAILABLE",
                )
            if response.status != 200:
                raise PreconditionError(
                    f"the object store refused {key} with {response.status}: {response.data[:300]!r}",
                    reason="OBJECT_STORE_REFUSED",
                )
            return True

        return await self._call(key, put)

    async def get_bytes(self, key: str, *, max_bytes: int) -> bytes:
        def get() -> bytes:
            with self._open(key) as response:
                data = response.read(max_bytes + 1)
            if len(data) > max_bytes:
                raise ResourceExhaustedError(
                    f"{key} is larger than the {max_bytes} bytes allowed here", reason="OBJECT_TOO_LARGE"
                )
            return data

        return await self._call(key, get)

    async def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        def get() -> None:
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            digest = hashlib.sha256()
            try:
                with self._open(key) as response, draft.open("wb") as file:
                    for chunk in response.stream(CHUNK_BYTES):
                        digest.update(chunk)
                        file.write(chunk)
                if sha256 is not None and digest.hexdigest() != sha256:
                    raise FinemeshError(
                        f"{key} has the SHA-256 {digest.hexdigest()}, not {sha256}: it was damaged or "
                        "overwritten in the store; put back what was there, or make it anew",
                        reason="OBJECT_CORRUPT",
                    )
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)

        await self._call(key, get)

    async def stream(
        self, key: str, *, offset: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> AsyncIterator[bytes]:
        if length == 0:
            return
        response = await self._call(key, self._get, check_key(key), offset, length or 0)
        try:
            while chunk := await self._call(key, response.read, chunk_bytes):
                yield chunk
        finally:
            _release(response)

    async def stat(self, key: str) -> ObjectStat:
        found = await self._call(
            key, self._client.stat_object, bucket_name=self._bucket, object_name=check_key(key)
        )
        metadata = {name.lower(): value for name, value in (found.metadata or {}).items()}
        return _stat(found, metadata.get(_SHA256_HEADER))

    async def list(self, prefix: str, *, limit: int | None = None) -> list[ObjectStat]:
        def listed() -> list[ObjectStat]:
            objects = self._client.list_objects(bucket_name=self._bucket, prefix=prefix, recursive=True)
            found = (_stat(each, None) for each in objects if not each.is_dir)
            return sorted(islice(found, limit), key=lambda each: each.key)

        return await self._call(prefix, listed)

    async def delete(self, key: str) -> None:
        await self._call(
            key, self._client.remove_object, bucket_name=self._bucket, object_name=check_key(key)
        )

    async def delete_prefix(self, prefix: str) -> int:
        if not check_key(prefix).endswith("/"):
            raise InvalidError(
                f"{prefix!r} would also match its neighbours: end it with '/'", reason="MALFORMED_KEY"
            )
        doomed = [DeleteObject(each.key) for each in await self.list(prefix)]

        def delete() -> None:
            for failure in self._client.remove_objects(bucket_name=self._bucket, delete_object_list=doomed):
                raise FinemeshError(
                    f"could not delete {failure.name}: {failure.message}", reason="OBJECT_STORE_ERROR"
                )

        await self._call(prefix, delete)
        return len(doomed)

    async def drop_parts(self, older_than: timedelta) -> None:
        """Drop the parts of uploads that began so long ago and never ended. A process that is killed cannot
        clean up behind itself, and no listing of objects shows them.
        """

        def drop() -> None:
            client, latest = self._client, self._client.now() - older_than
            for upload in client._list_multipart_uploads(self._bucket).uploads:  # noqa: SLF001  # not public
                if upload.initiated_time and upload.initiated_time <= latest:
                    client._abort_multipart_upload(  # noqa: SLF001
                        self._bucket, upload.object_name, upload.upload_id or ""
                    )

        await self._call(self._bucket, drop)

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        query = {}
        if filename:
            # RFC 6266 with the RFC 5987 form, so that any name survives.
            disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
            query = {"response-content-disposition": disposition}
        return self._presign("GET", self._public, key, expires_seconds, query=query)

    def presign_put(self, key: str, *, expires_seconds: int, content_length: int | None = None) -> str:
        headers = {} if content_length is None else {"content-length": str(content_length)}
        return self._presign("PUT", self._public, key, expires_seconds, headers=headers)

    @property
    def _public(self) -> str:
        return self._config.public_endpoint or self._config.endpoint

    def _presign(
        self,
        method: str,
        endpoint: str,
        key: str,
        expires_seconds: int,
        *,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> str:
        return presign(
            method,
            endpoint,
            f"/{self._bucket}/{check_key(key)}",
            access_key=self._config.access_key,
            secret_key=self._config.secret_key.reveal(),
            region=self._config.region,
            expires_seconds=expires_seconds,
            headers=headers,
            query=query,
            now=self._client.now(),
        )

    def _get(self, key: str, offset: int = 0, length: int = 0) -> Any:
        return self._client.get_object(
            bucket_name=self._bucket, object_name=key, offset=offset, length=length
        )

    @contextmanager
    def _open(self, key: str) -> Generator[Any]:
        response = self._get(check_key(key))
        try:
            yield response
        finally:
            _release(response)

    async def _call(self, key: str, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Run `function` in a thread of the store, its errors translated."""

        def guarded() -> _T:
            with _translated(key, self._config.endpoint):
                return function(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._pool, guarded)


def _stat(found: Any, sha256: str | None) -> ObjectStat:
    etag = (found.etag or "").strip('"')
    return ObjectStat(
        found.object_name, found.size or 0, etag, found.last_modified or datetime.now(UTC), sha256
    )


def _release(response: Any) -> None:
    response.close()
    response.release_conn()


@contextmanager
def _translated(key: str, endpoint: str) -> Generator[None]:
    """Errors of minio and urllib3 as ours."""
    try:
        yield
    except S3Error as error:
        if error.code in _MISSING:
            raise NotFoundError(
                f"there is no object {key}: put it there, or name another",
                reason="OBJECT_NOT_FOUND",
                metadata={"key": key},
            ) from error
        if error.code == "NoSuchBucket":
            raise PreconditionError(
                f"there is no bucket {error.bucket_name}", reason="BUCKET_NOT_FOUND"
            ) from error
        if error.code in _REFUSED:
            raise PreconditionError(
                f"the object store at {endpoint} refuses our credentials ({error.code}): check its keys",
                reason="OBJECT_STORE_REFUSED",
            ) from error
        if error.code in _AWAY:
            raise _unavailable(endpoint, error) from error
        raise FinemeshError(f"{key}: {error.code}: {error.message}", reason="OBJECT_STORE_ERROR") from error
    except urllib3.exceptions.ProtocolError as error:  # it answered, and broke off
        raise UnavailableError(
            f"the object store at {endpoint} broke off while it gave {key}: try again; if it does so again, "
            "the object is damaged there: put back what was there, or make it anew",
            reason="OBJECT_STORE_UNAVAILABLE",
            metadata={"endpoint": endpoint, "key": key},
        ) from error
    except (urllib3.exceptions.HTTPError, MinioException, ConnectionError) as error:
        raise _unavailable(endpoint, error) from error


def _unavailable(endpoint: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"the object store at {endpoint} does not answer ({type(error).__name__}): try again",
        reason="OBJECT_STORE_UNAVAILABLE",
        metadata={"endpoint": endpoint},
    )
