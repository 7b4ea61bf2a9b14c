"""Keys and tokens of one embedded mesh: made once, kept in `<data>/secrets`, readable by the owner alone."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nkeys

from finemesh.chassis.auth import ALL_PROJECTS, Role, SigningKey, read_private_file, write_private_file

NATS_USERS: Final = ("dataprep", "training", "tracking", "export", "agent", "client")
_ADMIN_TOKEN_SECONDS: Final = 366 * 24 * 3600
_S3_SIGNING_SECTIONS: Final = (
    "jwt.signing",
    "jwt.signing.read",
    "jwt.filer_signing",
    "jwt.filer_signing.read",
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files in `folder`. Nothing secret is held in memory, so nothing secret can be printed."""

    folder: Path
    jwt_key: Path
    """The key that signs bearer tokens."""

    @property
    def mesh_id(self) -> str:
        """Marks the processes of this mesh. Random, so that no other mesh has it; not a secret."""
        return read_private_file(self.folder / "mesh.id")

    @property
    def jwks(self) -> Path:
        return self.folder / "jwks.json"

    @property
    def admin_token(self) -> Path:
        return self.folder / "admin.token"

    @property
    def ray_token(self) -> Path:
        return self.folder / "ray.token"

    @property
    def s3_access_key(self) -> Path:
        return self.folder / "s3.access"

    @property
    def s3_secret_key(self) -> Path:
        return self.folder / "s3.secret"

    def nats_seed(self, user: str) -> Path:
        """The nkey seed of one of NATS_USERS."""
        return self.folder / f"nats.{user}.seed"

    def nats_public_key(self, user: str) -> str:
        pair = nkeys.from_seed(read_private_file(self.nats_seed(user)).encode())
        return bytes(pair.public_key).decode()


def make_credentials(folder: Path, jwt_key_file: Path | None) -> Credentials:
    """Make what is missing in `folder`; give the admin token a new year.

    Raises:
        InvalidError: a secret there, or `jwt_key_file`, cannot be read, is malformed, or others may read it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    credentials = Credentials(folder, jwt_key_file or folder / "jwt.key")
    key = SigningKey.load(jwt_key_file) if jwt_key_file else SigningKey.load_or_create(credentials.jwt_key)
    write_private_file(credentials.jwks, json.dumps(key.jwks()))
    token = key.mint("admin", Role.ADMIN, [ALL_PROJECTS], _ADMIN_TOKEN_SECONDS)
    write_private_file(credentials.admin_token, token)
    _make_once(folder / "mesh.id", secrets.token_hex(16))
    _make_once(credentials.ray_token, secrets.token_hex(32))
    _make_once(credentials.s3_access_key, secrets.token_hex(10))
    _make_once(credentials.s3_secret_key, secrets.token_hex(20))
    for user in NATS_USERS:
        seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
        _make_once(credentials.nats_seed(user), seed.decode())
    return credentials


def s3_identities(credentials: Credentials) -> str:
    """SeaweedFS `-s3.config`: one identity with all rights, and none for anonymous callers."""
    pair = {
        "accessKey": read_private_file(credentials.s3_access_key),
        "secretKey": read_private_file(credentials.s3_secret_key),
    }
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return json.dumps({"identities": [{"name": "finemesh", "credentials": [pair], "actions": actions}]})


def s3_security(credentials: Credentials) -> str:
    """SeaweedFS `security.toml`: without its keys filer and volume ports serve every object to anybody."""
    secret = read_private_file(credentials.s3_secret_key)
    return "".join(f'[{section}]\nkey = "{section}:{secret}"\n' for section in _S3_SIGNING_SECTIONS)


def _make_once(path: Path, text: str) -> None:
    if not path.exists():
        write_private_file(path, text, replace=False)
