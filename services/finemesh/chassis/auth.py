"""Bearer tokens: minting, verifying, and the principal of the current call.

A token is a JWT (RFC 7519) with iss = aud = "finemesh", `role`, `projects` (["*"] or ids) and, for an attempt
of a job, `resource`, `attempt` and `fence`. The mesh signs with HS256; production may verify by any RSA, EC
or Ed25519 key of a JWKS.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import jwt

from finemesh.core.errors import FencedError, InvalidError, PermissionDeniedError, UnauthenticatedError

ISSUER: Final = "finemesh"
AUDIENCE: Final = "finemesh"
ALL_PROJECTS: Final = "*"

# Clocks of one mesh may differ by this much. It is far below the lease of an attempt (20 s).
LEEWAY_SECONDS: Final = 2.0
VERIFIED_TOKENS: Final = 1024  # of them a verifier remembers
MIN_KEY_BYTES: Final = 32  # RFC 7518, 3.2: a key at least as long as the hash

TokenSource = Callable[[], str]


class Role(StrEnum):
    """What a token may do. The first four are a ladder, each above the one before; `attempt` stands apart."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SERVICE = "service"
    ATTEMPT = "attempt"


_RANKS: Final = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3, Role.SERVICE: 4}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. Times are Unix seconds; the last three are set for the role `attempt` alone."""

    subject: str
    role: Role
    projects: frozenset[str]
    expires_at: float
    resource: str = ""
    attempt: int = 0
    fence: int = 0

    @property
    def all_projects(self) -> bool:
        """Whether no project is closed to this principal."""
        return ALL_PROJECTS in self.projects

    def may_see(self, project: str) -> bool:
        return self.all_projects or project in self.projects

    def require_project(self, project: str) -> None:
        """Raises PermissionDeniedError, reason PROJECT_DENIED, unless the token covers `project` (an id)."""
        if not self.may_see(project):
            raise PermissionDeniedError(
                f"the token of {self.subject!r} does not cover project {project!r}: ask for one that does",
                reason="PROJECT_DENIED",
                metadata={"project": project, "subject": self.subject},
            )

    def require_role(self, *roles: Role) -> None:
        """Raises PermissionDeniedError (ROLE_DENIED) unless the role is, or is above, one of `roles`."""
        own_rank = _RANKS.get(self.role, 0)
        if self.role in roles or any(own_rank >= _RANKS.get(role, 9) for role in roles):
            return
        wanted = " or ".join(roles)
        raise PermissionDeniedError(
            f"this call needs the role {wanted}, and the token of {self.subject!r} has {self.role}",
            reason="ROLE_DENIED",
            metadata={"role": self.role, "required": wanted},
        )

    def require_attempt(self, resource: str, attempt: int) -> None:
        """Raises PermissionDeniedError for another resource's token, FencedError for another attempt's."""
        self.require_role(Role.ATTEMPT)
        if self.resource != resource:
            raise PermissionDeniedError(
                f"the token is for {self.resource}, not for {resource}", reason="RESOURCE_DENIED"
            )
        if self.attempt != attempt:
            raise FencedError(
                f"the token is for attempt {self.attempt} of {resource}, not for {attempt}: stop"
            )


_principal: ContextVar[Principal | None] = ContextVar("finemesh_principal", default=None)


def current_principal() -> Principal:
    """The caller of the RPC this task serves. Raises UnauthenticatedError outside of one."""
    principal = _principal.get()
    if principal is None:
        raise UnauthenticatedError("nobody is signed in here: send a bearer token", reason="TOKEN_MISSING")
    return principal


def authorised(project: str, role: Role) -> str:
    """`project`, if the caller of this RPC may act in it with `role`.

    Raises: PermissionDeniedError, UnauthenticatedError.
    """
    principal = current_principal()
    principal.require_project(project)
    principal.require_role(role)
    return project


@contextlib.contextmanager
def acting_as(principal: Principal) -> Generator[None]:
    """Run as `principal`: the server does this per call; background work and tests may too."""
    token = _principal.set(principal)
    try:
        yield
    finally:
        _principal.reset(token)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A symmetric HS256 key of at least 32 bytes."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_KEY_BYTES or len(set(self.secret)) < MIN_KEY_BYTES // 4:
            raise InvalidError(
                f"the signing key is too weak: use {MIN_KEY_BYTES} random bytes or more", reason="WEAK_KEY"
            )

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(secrets.token_bytes(MIN_KEY_BYTES))

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a key file (base64url). Raises InvalidError if it is bad or others may read it."""
        try:
            text = read_private_file(path)
            return cls(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except ValueError as error:
            raise InvalidError(f"{path}: not a base64url key", reason="MALFORMED_KEY_FILE") from error

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """Read the key file, or make one of mode 0600. Processes that race for it get the same key."""
        if not path.exists():
            write_private_file(path, _base64url(cls.generate().secret), replace=False)
        return cls.load(path)

    @property
    def key_id(self) -> str:
        """The key's id in token headers and JWKS: part of a digest, so it tells nothing about the key."""
        return hashlib.sha256(b"finemesh-kid:" + self.secret).hexdigest()[:16]

    def jwks(self) -> dict[str, Any]:
        """The key as a JWKS (RFC 7517), for Envoy's jwt_authn. It is a secret: whoever reads it can mint."""
        key = {"kty": "oct", "use": "sig", "alg": "HS256", "kid": self.key_id, "k": _base64url(self.secret)}
        return {"keys": [key]}

    def mint(
        self, subject: str, role: Role, projects: Iterable[str], ttl_seconds: float, **claims: str | int
    ) -> str:
        """A signed token for `subject`. Attempts add `resource`, `attempt` and `fence` as further claims."""
        now = time.time()
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "role": str(role),
            "projects": sorted(projects),
            "iat": int(now),
            "exp": now + ttl_seconds,
            **claims,
        }
        return jwt.encode(payload, self.secret, algorithm="HS256", headers={"kid": self.key_id})

    def mint_attempt(
        self, *, resource: str, attempt: int, fence: int, project: str, ttl_seconds: float
    ) -> str:
        """The short-lived token of one attempt of a job: good for its own resource and project only."""
        subject = f"{resource}/attempts/{attempt}"
        claims: dict[str, str | int] = {"resource": resource, "attempt": attempt, "fence": fence}
        return self.mint(subject, Role.ATTEMPT, [project], ttl_seconds, **claims)

    def token_source(self, subject: str, role: Role = Role.SERVICE, ttl_seconds: float = 300) -> TokenSource:
        """Tokens for all projects, for calls inside the mesh; minted anew when half their life is over."""
        token, renew_at = "", 0.0

        def source() -> str:
            nonlocal token, renew_at
            if time.monotonic() >= renew_at:
                token = self.mint(subject, role, [ALL_PROJECTS], ttl_seconds)
                renew_at = time.monotonic() + ttl_seconds / 2
            return token

        return source


class TokenVerifier:
    """Verifies tokens by the keys of a JWKS. The algorithm is the key's own: a token cannot choose it."""

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        try:
            keys = jwt.PyJWKSet.from_dict(dict(jwks)).keys
        except (jwt.PyJWTError, KeyError, ValueError) as error:
            raise InvalidError(f"the JWKS cannot be used: {error}", reason="MALFORMED_JWKS") from error
        for key in keys:
            if key.key_type == "oct":
                SigningKey(key.key)  # refuses weak ones
        self._keys = {key.key_id: key for key in keys}
        # The signature of a token stays right: a caller who uses it for many calls is looked at once.
        self._principal = functools.lru_cache(VERIFIED_TOKENS)(self._verified)

    @classmethod
    def of(cls, key: SigningKey) -> TokenVerifier:
        return cls(key.jwks())

    def verify(self, token: str) -> Principal:
        """The principal of `token`. Raises UnauthenticatedError: TOKEN_INVALID or TOKEN_EXPIRED."""
        principal = self._principal(token)
        if int(principal.expires_at) <= time.time() - LEEWAY_SECONDS:
            raise UnauthenticatedError("the token has expired: get a new one", reason="TOKEN_EXPIRED")
        return principal

    def _verified(self, token: str) -> Principal:
        try:
            key = self._keys.get(_key_id(token))
            if key is None:
                raise UnauthenticatedError("the token is signed by an unknown key", reason="TOKEN_INVALID")
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "role", "projects"]},
            )
            return _principal_of(claims)
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError(
                "the token has expired: get a new one", reason="TOKEN_EXPIRED"
            ) from error
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            raise UnauthenticatedError(
                f"the token does not verify: {error}", reason="TOKEN_INVALID"
            ) from error

    def verify_bearer(self, authorization: str | None) -> Principal:
        """The principal of an `authorization` header. Raises UnauthenticatedError: TOKEN_MISSING as well."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError(
                "the call has no bearer token: send metadata `authorization: Bearer <token>`",
                reason="TOKEN_MISSING",
            )
        return self.verify(token.strip())


def read_private_file(path: Path) -> str:
    """The stripped text of a secret. Raises InvalidError when it is missing or others may read it."""
    try:
        with path.open() as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise InvalidError(f"{path}: others may read this secret: chmod 600 it", reason="OPEN_SECRET")
            return file.read().strip()
    except OSError as error:
        raise InvalidError(
            f"{path}: cannot read this secret: {error.strerror}", reason="NO_SECRET"
        ) from error


def write_private_file(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a secret with mode 0600, whole or not at all. With `replace=False` an existing file stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def _principal_of(claims: Mapping[str, Any]) -> Principal:
    projects = claims["projects"]
    if not isinstance(projects, list):
        raise TypeError("claim `projects` is not a list")
    return Principal(
        subject=str(claims["sub"]),
        role=Role(claims["role"]),
        projects=frozenset(str(project) for project in projects),
        expires_at=float(claims["exp"]),
        resource=str(claims.get("resource", "")),
        attempt=int(claims.get("attempt", 0)),
        fence=int(claims.get("fence", 0)),
    )


def _key_id(token: str) -> str:
    """The key that the header names. PyJWT would read all of the token for it, and once more to verify it."""
    return str(json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"])


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
