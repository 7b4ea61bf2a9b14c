"""From an async stream of chunks to the blocking `read` that an upload in a thread wants."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable
from concurrent.futures import Future

from finemesh.core.errors import InvalidError, ResourceExhaustedError


class StreamReader:
    """A blocking `read` for the upload thread over chunks that the event loop produces."""

    def __init__(self, chunks: AsyncIterable[bytes], max_bytes: int, sha256: str | None) -> None:
        self.size_bytes = 0
        self._chunks = aiter(chunks)
        self._loop = asyncio.get_running_loop()
        self._max_bytes = max_bytes
        self._expected = sha256
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._ended = False
        self._stopped = False
        self._pending: Future[bytes | None] | None = None

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def stop(self) -> None:
        """Wake a thread that waits for more. It then gives the upload up; after the end this does nothing."""
        self._stopped = True
        if self._pending:
            self._pending.cancel()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and not self._ended:
            self._fill()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)

    def _fill(self) -> None:
        if self._stopped:
            raise InterruptedError("the upload was given up")
        self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        chunk = self._pending.result()
        if chunk is None:
            self._ended = True
            if self._expected is not None and self.hexdigest() != self._expected:
                raise InvalidError(
                    f"the content has the SHA-256 {self.hexdigest()}, not {self._expected}",
                    reason="DIGEST_MISMATCH",
                )
            return
        self.size_bytes += len(chunk)
        if self.size_bytes > self._max_bytes:
            raise ResourceExhaustedError(
                f"the upload is larger than the {self._max_bytes} bytes allowed", reason="OBJECT_TOO_LARGE"
            )
        self._digest.update(chunk)
        self._buffer += chunk
