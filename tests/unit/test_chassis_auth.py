"""Tokens: what is minted verifies, everything else does not."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from finemesh.chassis.auth import (
    AUDIENCE,
    ISSUER,
    LEEWAY_SECONDS,
    Principal,
    Role,
    SigningKey,
    TokenVerifier,
    acting_as,
    current_principal,
    read_private_file,
    write_private_file,
)
from finemesh.core.errors import FencedError, InvalidError, PermissionDeniedError, UnauthenticatedError

KEY = SigningKey.generate()
VERIFIER = TokenVerifier.of(KEY)


def principal(role: Role, *projects: str) -> Principal:
    return Principal("ann", role, frozenset(projects), expires_at=0)


def test_a_token_says_who_calls() -> None:
    before = time.time()
    got = VERIFIER.verify(KEY.mint("ann", Role.OPERATOR, ["a", "b"], ttl_seconds=60))
    assert (got.subject, got.role, got.projects) == ("ann", Role.OPERATOR, {"a", "b"})
    assert before + 59 < got.expires_at < time.time() + 61


def test_an_attempt_s_token_is_bound_to_it() -> None:
    token = KEY.mint_attempt(
        resource="projects/a/trainingJobs/t", attempt=2, fence=7, project="a", ttl_seconds=20
    )
    got = VERIFIER.verify(token)
    assert (got.role, got.resource, got.attempt, got.fence) == (
        Role.ATTEMPT,
        "projects/a/trainingJobs/t",
        2,
        7,
    )
    got.require_attempt("projects/a/trainingJobs/t", 2)
    with pytest.raises(PermissionDeniedError):
        got.require_attempt("projects/a/trainingJobs/other", 2)
    with pytest.raises(FencedError):
        got.require_attempt("projects/a/trainingJobs/t", 3)
    with pytest.raises(PermissionDeniedError):
        got.require_project("b")
    with pytest.raises(PermissionDeniedError):
        principal(Role.SERVICE, "*").require_attempt("projects/a/trainingJobs/t", 2)


def _claims(**changes: Any) -> dict[str, Any]:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "role": "admin",
        "projects": ["*"],
        "exp": time.time() + 3600,  # made when the tests are collected, long before they may run
    }
    return {key: value for key, value in (claims | changes).items() if value is not None}


def _signed(claims: dict[str, Any], **header: Any) -> str:
    return jwt.encode(claims, KEY.secret, "HS256", headers={"kid": KEY.key_id} | header)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "é.e30.",
        "e30.e30.",  # a header that names no key, and one that is no object
        "W10.e30.",
        _signed(_claims(iss="other")),
        _signed(_claims(aud="other")),
        _signed(_claims(aud=None)),
        _signed(_claims(exp=None)),
        _signed(_claims(sub=None)),
        _signed(_claims(role="root")),
        _signed(_claims(role=None)),
        _signed(_claims(projects="*")),
        _signed(_claims(attempt="many")),
        _signed(_claims(), kid="other"),
        _signed(_claims())[:-3] + "abc",
        SigningKey.generate().mint("ann", Role.ADMIN, ["*"], 3600),
        jwt.encode(_claims(), "", "none", headers={"kid": KEY.key_id}),
    ],
)
def test_a_forged_or_broken_token_is_refused(token: str) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        VERIFIER.verify(token)
    assert caught.value.reason == "TOKEN_INVALID"


def test_a_token_expires_after_the_leeway() -> None:
    VERIFIER.verify(KEY.mint("ann", Role.VIEWER, ["a"], ttl_seconds=-LEEWAY_SECONDS / 2))
    with pytest.raises(UnauthenticatedError) as caught:
        VERIFIER.verify(KEY.mint("ann", Role.VIEWER, ["a"], ttl_seconds=-LEEWAY_SECONDS - 1))
    assert caught.value.reason == "TOKEN_EXPIRED"


def test_a_token_that_was_good_expires_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    token = KEY.mint("ann", Role.VIEWER, ["a"], ttl_seconds=600)
    assert VERIFIER.verify(token) == VERIFIER.verify(token)
    later = time.time() + 600 + LEEWAY_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(UnauthenticatedError) as caught:
        VERIFIER.verify(token)
    assert caught.value.reason == "TOKEN_EXPIRED"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "abc"])
def test_a_header_without_a_token_is_told_what_to_send(header: str | None) -> None:
    with pytest.raises(UnauthenticatedError, match="Bearer <token>") as caught:
        VERIFIER.verify_bearer(header)
    assert caught.value.reason == "TOKEN_MISSING"


def test_the_scheme_is_case_insensitive() -> None:
    assert (
        VERIFIER.verify_bearer(f"bearer {KEY.mint('ann', Role.VIEWER, ['a'], 60)}").subject == "ann"
    )  # RFC 7235, 2.1


def test_production_tokens_verify_by_a_public_jwks() -> None:
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    jwks = {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "idp", "x": x}]}
    token = jwt.encode(_claims(), private, "EdDSA", headers={"kid": "idp"})
    assert TokenVerifier(jwks).verify(token).role == Role.ADMIN
    confused = jwt.encode(_claims(), raw, "HS256", headers={"kid": "idp"})  # the public key as an HMAC secret
    with pytest.raises(UnauthenticatedError):
        TokenVerifier(jwks).verify(confused)


@pytest.mark.parametrize("jwks", [{}, {"keys": []}, {"keys": [{"kty": "oct"}]}])
def test_a_useless_jwks_is_refused_at_start(jwks: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as caught:
        TokenVerifier(jwks)
    assert caught.value.reason == "MALFORMED_JWKS"


def test_a_weak_shared_key_is_refused_at_start() -> None:
    with pytest.raises(InvalidError) as caught:
        TokenVerifier({"keys": [{"kty": "oct", "alg": "HS256", "kid": "x", "k": "c2hvcnQ"}]})
    assert caught.value.reason == "WEAK_KEY"


def test_roles_are_a_ladder_and_attempts_stand_beside_it() -> None:
    ladder = [Role.VIEWER, Role.OPERATOR, Role.ADMIN, Role.SERVICE]
    for has, own in enumerate(ladder):
        for needs, wanted in enumerate(ladder):
            if has >= needs:
                principal(own).require_role(wanted)
            else:
                with pytest.raises(PermissionDeniedError) as caught:
                    principal(own).require_role(wanted)
                assert caught.value.reason == "ROLE_DENIED"
        with pytest.raises(PermissionDeniedError):
            principal(Role.ATTEMPT).require_role(own)
        with pytest.raises(PermissionDeniedError):
            principal(own).require_role(Role.ATTEMPT)
    principal(Role.ATTEMPT).require_role(Role.OPERATOR, Role.ATTEMPT)


def test_projects_are_closed_unless_named() -> None:
    principal(Role.VIEWER, "a").require_project("a")
    principal(Role.VIEWER, "*").require_project("a")
    for closed in ("b", "*", ""):
        with pytest.raises(PermissionDeniedError) as caught:
            principal(Role.ADMIN, "a").require_project(closed)
        assert caught.value.reason == "PROJECT_DENIED"


def test_nobody_is_signed_in_outside_of_a_call() -> None:
    with acting_as(principal(Role.VIEWER)):
        assert current_principal().subject == "ann"
    with pytest.raises(UnauthenticatedError):
        current_principal()


def test_a_key_file_is_the_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "key"
    key = SigningKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path) == SigningKey.load_or_create(path) == key
    path.chmod(0o640)
    with pytest.raises(InvalidError, match="chmod 600") as caught:
        SigningKey.load(path)
    assert caught.value.reason == "OPEN_SECRET"


def test_processes_that_race_for_a_key_file_agree(tmp_path: Path) -> None:
    path, keys = tmp_path / "key", list[SigningKey]()
    start = threading.Barrier(8)

    def load() -> None:
        start.wait()
        keys.append(SigningKey.load_or_create(path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not base64!", "MALFORMED_KEY_FILE"),
        ("c2hvcnQ", "WEAK_KEY"),
        ("QUFB" * 20, "WEAK_KEY"),
        (None, "NO_SECRET"),
    ],
)
def test_a_bad_key_file_is_told_apart(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        write_private_file(tmp_path / "key", text)
    with pytest.raises(InvalidError) as caught:
        SigningKey.load(tmp_path / "key")
    assert caught.value.reason == reason


def test_a_private_file_is_written_whole_and_never_open(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        write_private_file(tmp_path / "token", "one")
        write_private_file(tmp_path / "token", "two")
        write_private_file(tmp_path / "token", "three", replace=False)
    finally:
        os.umask(previous)
    assert read_private_file(tmp_path / "token") == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_a_key_shows_in_no_repr_and_its_id_tells_nothing() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)
    assert KEY.key_id not in KEY.secret.hex()


def test_the_jwks_is_the_key_as_rfc_7517_writes_it() -> None:
    [key] = json.loads(json.dumps(KEY.jwks()))["keys"]
    assert (key["kty"], key["alg"], key["kid"]) == ("oct", "HS256", KEY.key_id)
    assert base64.urlsafe_b64decode(key["k"] + "=") == KEY.secret


def test_a_token_source_mints_again_before_the_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    source = KEY.token_source("training", ttl_seconds=100)
    first = source()
    now = 1049.0
    assert source() is first
    now = 1051.0
    second = source()
    assert second is not first
    assert VERIFIER.verify(second).role == Role.SERVICE
