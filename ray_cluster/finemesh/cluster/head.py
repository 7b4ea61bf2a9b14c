"""Ray's head as seen from outside, by plain gRPC: whether it is there, which cluster it is, and whether it
takes anybody.

The library of Ray cannot be asked this: a driver hangs or is ended when its head is gone. The head's own gRPC
service can. `NodeInfoGcsService/GetClusterId` (src/ray/protobuf/gcs_service.proto in Ray) answers with an id
that a head draws at random when it starts anew; its request is empty. With `RAY_AUTH_MODE=token` the head
answers UNAUTHENTICATED to a call without the token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from finemesh.core.errors import InvalidError, PreconditionError, UnavailableError

_GET_CLUSTER_ID: Final = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_TIMEOUT_SECONDS: Final = 3.0
_REFUSALS: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def ray_token(environ: Mapping[str, str]) -> str:
    """The token that Ray's library would use in this environment; empty if there is none.

    Raises InvalidError, reason NO_SECRET, when the file that is named cannot be read.
    """
    if environ.get("RAY_AUTH_TOKEN"):
        return environ["RAY_AUTH_TOKEN"].strip()
    path = environ.get("RAY_AUTH_TOKEN_PATH", "")
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidError(
            f"RAY_AUTH_TOKEN_PATH: cannot read {path}: {error.strerror}", reason="NO_SECRET"
        ) from error


class RayHead:
    """The head at `address` (host:port), asked with `token`."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self._token = token
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._get_cluster_id = self._channel.unary_unary(_GET_CLUSTER_ID)

    @classmethod
    def of_environment(cls, address: str) -> RayHead:
        return cls(address, ray_token(os.environ))

    async def close(self) -> None:
        await self._channel.close()

    async def cluster_id(self) -> bytes:
        """The id of the running cluster; another one means another head, which knows nothing of the old
        one's.

        Raises:
            UnavailableError: RAY_UNAVAILABLE, the head does not answer.
            PreconditionError: RAY_REFUSED, it does not take our token.
        """
        metadata = (("authorization", f"Bearer {self._token}"),) if self._token else ()
        try:
            return await self._get_cluster_id(b"", timeout=_TIMEOUT_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSALS:
                raise PreconditionError(
                    f"Ray's head at {self.address} refuses our token: give both the same one",
                    reason="RAY_REFUSED",
                ) from error
            raise UnavailableError(
                f"Ray's head at {self.address} does not answer ({error.code().name})",
                reason="RAY_UNAVAILABLE",
            ) from error

    async def require_token(self) -> None:
        """Check that a client without a token is turned away, by being one.

        Raises:
            PreconditionError: RAY_OPEN, it was let in: anybody who reaches the port could run code.
            UnavailableError: RAY_UNAVAILABLE.
        """
        try:
            await self._get_cluster_id(b"", timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSALS:
                return
            raise UnavailableError(
                f"Ray's head at {self.address} does not answer ({error.code().name})",
                reason="RAY_UNAVAILABLE",
            ) from error
        raise PreconditionError(
            f"Ray's head at {self.address} takes clients without a token, so whoever reaches the port can "
            "run code: start it with RAY_AUTH_MODE=token and a token, or set FINEMESH_ALLOW_OPEN_RAY=true",
            reason="RAY_OPEN",
        )
