"""TLS files for servers and channels. With a `client_ca` both sides prove who they are (mTLS)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from finemesh.core.errors import InvalidError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """PEM files of a server.

    Attributes:
        certificate_file: the chain that the server shows.
        key_file: its private key.
        client_ca_file: with it, clients must show a certificate that it signed.
    """

    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Raises InvalidError when a file cannot be read."""
        pair = (_read(self.key_file), _read(self.certificate_file))
        roots = _read(self.client_ca_file) if self.client_ca_file else None
        return grpc.ssl_server_credentials(
            [pair], root_certificates=roots, require_client_auth=roots is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """PEM files of a client.

    Attributes:
        ca_file: authority to trust; the system's roots without it.
        certificate_file: the chain that the client shows, for mTLS.
        key_file: its private key.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises InvalidError when a file cannot be read."""
        roots, key, certificate = (
            _read(path) if path else None for path in (self.ca_file, self.key_file, self.certificate_file)
        )
        return grpc.ssl_channel_credentials(roots, private_key=key, certificate_chain=certificate)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidError(
            f"{path}: cannot read this TLS file: {error.strerror}", reason="NO_TLS_FILE"
        ) from error
