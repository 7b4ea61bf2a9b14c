"""What `up` refuses, what it keeps secret, and what it hands to its components."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import typer
from finemesh.chassis.auth import Role, SigningKey, TokenVerifier
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.embedded import commands, serving
from finemesh.embedded.config import MeshConfig, check_exposure
from finemesh.embedded.credentials import NATS_USERS, make_credentials, s3_identities, s3_security
from finemesh.embedded.environment import inherited, ray_environment
from finemesh.embedded.nats_config import nats_config
from finemesh.events.v1 import event_pb2
from finemesh.gateway import Tls
from typer.testing import CliRunner

from tests.support.certificates import self_signed


@pytest.fixture
def own_key(tmp_path: Path) -> Path:
    SigningKey.load_or_create(tmp_path / "own.key")
    return tmp_path / "own.key"


class TestExposure:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
    def test_loopback_needs_nothing(self, host: str) -> None:
        check_exposure(MeshConfig(host=host))

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "mesh.example"])
    def test_elsewhere_needs_tls_and_a_key(self, host: str) -> None:
        with pytest.raises(PreconditionError) as raised:
            check_exposure(MeshConfig(host=host))
        assert raised.value.reason == "INSECURE_BIND"
        assert "--tls-certificate" in str(raised.value)
        assert "--jwt-key-file" in str(raised.value)

    def test_tls_alone_is_not_enough(self, tmp_path: Path) -> None:
        tls = Tls(*self_signed(tmp_path))
        with pytest.raises(PreconditionError, match="--jwt-key-file"):
            check_exposure(MeshConfig(host="192.0.2.7", tls=tls))

    def test_a_wildcard_needs_a_name(self, tmp_path: Path, own_key: Path) -> None:
        config = MeshConfig(host="0.0.0.0", tls=Tls(*self_signed(tmp_path)), jwt_key_file=own_key)
        with pytest.raises(PreconditionError, match="--public-host"):
            check_exposure(config)

    def test_with_everything_it_may(self, tmp_path: Path, own_key: Path) -> None:
        tls = Tls(*self_signed(tmp_path))
        check_exposure(MeshConfig(host="192.0.2.7", tls=tls, jwt_key_file=own_key))

    def test_a_certificate_of_another_key_is_refused(self, tmp_path: Path) -> None:
        certificate, _ = self_signed(tmp_path)
        (tmp_path / "other").mkdir()
        _, key = self_signed(tmp_path / "other")
        with pytest.raises(InvalidError) as raised:
            check_exposure(MeshConfig(tls=Tls(certificate, key)))
        assert raised.value.reason == "BAD_CERTIFICATE"

    def test_a_key_that_others_may_read_is_refused(self, own_key: Path) -> None:
        own_key.chmod(0o644)
        with pytest.raises(InvalidError, match="chmod 600"):
            check_exposure(MeshConfig(jwt_key_file=own_key))


class TestCredentials:
    def test_only_the_owner_can_read_them(self, tmp_path: Path) -> None:
        folder = make_credentials(tmp_path / "secrets", None).folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert len(modes) >= 7 + len(NATS_USERS)
        assert set(modes.values()) == {0o600}

    def test_they_stay_the_same(self, tmp_path: Path) -> None:
        folder = make_credentials(tmp_path, None).folder
        before = {path.name: path.read_text() for path in folder.iterdir()}
        make_credentials(tmp_path, None)
        after = {path.name: path.read_text() for path in folder.iterdir()}
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert changed <= {"admin.token"}

    def test_the_admin_token_verifies_with_the_published_key(self, tmp_path: Path) -> None:
        credentials = make_credentials(tmp_path, None)
        verifier = TokenVerifier(json.loads(credentials.jwks.read_text()))
        principal = verifier.verify(credentials.admin_token.read_text().strip())
        assert (principal.role, principal.all_projects) == (Role.ADMIN, True)

    def test_an_own_key_is_used(self, tmp_path: Path, own_key: Path) -> None:
        credentials = make_credentials(tmp_path / "secrets", own_key)
        assert json.loads(credentials.jwks.read_text()) == SigningKey.load(own_key).jwks()
        assert not (tmp_path / "secrets" / "jwt.key").exists()

    def test_two_meshes_share_nothing(self, tmp_path: Path) -> None:
        first, second = (make_credentials(tmp_path / name, None).folder for name in ("a", "b"))
        same = [p.name for p in first.iterdir() if p.read_text() == (second / p.name).read_text()]
        assert same == []

    def test_s3_lets_nobody_in_without_a_key(self, tmp_path: Path) -> None:
        credentials = make_credentials(tmp_path, None)
        identities = json.loads(s3_identities(credentials))["identities"]
        assert [identity["name"] for identity in identities] == ["finemesh"]
        assert s3_security(credentials).count("key = ") == 4


class TestNats:
    @pytest.fixture
    def permissions(self, tmp_path: Path) -> dict[str, list[str]]:
        credentials = make_credentials(tmp_path, None)
        users = json.loads(nats_config("127.0.0.1", 1, tmp_path, credentials))["authorization"]["users"]
        names = {credentials.nats_public_key(user): user for user in NATS_USERS}
        return {names[user["nkey"]]: user["permissions"]["publish"] for user in users}

    def test_everybody_has_an_identity(self, permissions: dict[str, list[str]]) -> None:
        assert set(permissions) == set(NATS_USERS)

    def test_every_fact_of_the_contract_may_be_published(self, permissions: dict[str, list[str]]) -> None:
        modules = Path(event_pb2.__file__).parent.glob("*_events_pb2.py")
        facts = {f"finemesh.v1.{path.stem.removesuffix('_events_pb2')}.>" for path in modules}
        published = [subject for subjects in permissions.values() for subject in subjects]
        assert {subject: published.count(subject) for subject in facts} == dict.fromkeys(facts, 1)

    def test_only_services_with_work_may_command(self, permissions: dict[str, list[str]]) -> None:
        commanders = {user for user, subjects in permissions.items() if "finemesh.v1.command.*" in subjects}
        assert commanders == {"dataprep", "training", "export"}

    def test_a_client_publishes_no_message(self, permissions: dict[str, list[str]]) -> None:
        assert not [subject for subject in permissions["client"] if subject.startswith("finemesh")]


class TestEnvironment:
    def test_settings_of_others_do_not_leak_in(self) -> None:
        environ = {
            "PATH": "/bin",
            "AWS_SECRET_ACCESS_KEY": "x",
            "RAY_ADDRESS": "auto",
            "FINEMESH_S3_BUCKET": "y",
            "FINEMESH_APART_PYTHON": "/venv/bin/python",
        }
        kept = inherited(environ, "mesh", "s3")
        assert (kept["PATH"], kept["FINEMESH_APART_PYTHON"]) == ("/bin", "/venv/bin/python")
        assert not kept.keys() & {"AWS_SECRET_ACCESS_KEY", "RAY_ADDRESS", "FINEMESH_S3_BUCKET"}
        assert (kept["FINEMESH_MESH_ID"], kept["FINEMESH_COMPONENT"]) == ("mesh", "s3")

    def test_ray_asks_for_a_token(self, tmp_path: Path) -> None:
        environment = ray_environment(tmp_path / "token")
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")


def test_options_that_are_for_one_of_the_services_or_the_agent_alone_reach_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from another folder; `up` takes over no settings from its environment."""
    started: list[MeshConfig] = []

    async def serve(config: MeshConfig, _: object) -> int:
        started.append(config)
        return 0

    monkeypatch.setattr(serving, "serve", serve)
    app = typer.Typer()
    commands.register(app)
    monkeypatch.chdir(tmp_path)
    missing = CliRunner().invoke(app, ["up", "--signing-key-file", "key.pem"])
    assert missing.exit_code == 2
    assert "does not exist" in missing.output
    Path("key.pem").touch()
    options = ["--signing-key-file", "key.pem", "--gpu-hour-price", "2.5", "--points-retention-days", "90"]
    assert CliRunner().invoke(app, ["up", *options]).exit_code == 0
    assert started[0].environment == {
        "FINEMESH_SIGNING_KEY_FILE": str(tmp_path / "key.pem"),
        "FINEMESH_GPU_HOUR_PRICE": "2.5",
        "FINEMESH_POINTS_RETENTION_DAYS": "90.0",
    }
