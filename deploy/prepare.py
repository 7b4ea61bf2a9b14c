"""Makes what the containers need and git must not have: keys, certificates, configuration files.

    python deploy/prepare.py --public-host mesh.example.org [--certificate PEM --key PEM]

Writes one folder per container below `deploy/site`, which holds just what that container may know, and
`deploy/.env`, which compose.yaml reads. Run it again whenever you like: keys, passwords and the authority
stay, configuration and certificates are written anew. Needs `finemesh` installed (`make setup`).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from finemesh.chassis.auth import read_private_file, write_private_file
from finemesh.core.errors import FinemeshError
from finemesh.embedded.credentials import Credentials, make_credentials
from finemesh.embedded.nats_config import nats_config
from finemesh.gateway.__main__ import main as write_gateway_configuration
from finemesh.gateway.config import packaged_descriptor_set

SERVICES: Final = ("dataprep", "training", "tracking", "export")
PROCESSES: Final = (*SERVICES, "agent")
SERVICE_PORT: Final = 50051
INSIDE: Final = Path("/site")
"""Where a container sees its own folder."""
VALID_DAYS: Final = 825


class Authority:
    """A certificate authority of this deployment alone: what its containers trust."""

    def __init__(self, folder: Path) -> None:
        self.path, self._key_path = folder / "ca.pem", folder / "ca.key"
        if not self._key_path.exists():
            self._make()
        self._key = _load_key(self._key_path)
        self._certificate = x509.load_pem_x509_certificate(self.path.read_bytes())

    def issue(self, folder: Path, *hosts: str) -> None:
        """Write `certificate.pem` and `key.pem` for `hosts` into `folder`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(host) for host in hosts]
        usages = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(hosts[0], key)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_private_file(folder / "key.pem", _pem(key))

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder("finemesh", key)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "finemesh")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = (
            builder.issuer_name(name).add_extension(constraints, critical=True).sign(key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_private_file(self._key_path, _pem(key))


def prepare(given: argparse.Namespace) -> None:
    """Write everything. Raises FinemeshError or OSError."""
    site: Path = given.output.resolve()
    site.mkdir(parents=True, exist_ok=True, mode=0o700)
    credentials = make_credentials(_folder(site, "secrets"), None)
    authority = Authority(credentials.folder)
    password = _once(credentials.folder / "postgres.password")
    for process in PROCESSES:
        _prepare_process(_folder(site, process), process, credentials, authority, password)
    _prepare_servers(site, credentials, authority, password)
    _prepare_gateway(_folder(site, "gateway"), given, credentials, authority)
    _prepare_client(_folder(site, "client"), given, credentials, authority)
    for name in ("postgres", "minio", "nats", "tracking", "agent"):
        _folder(site, "data", name)
    environment = {
        "FINEMESH_SITE": site,
        "FINEMESH_UID": os.getuid(),
        "FINEMESH_GID": os.getgid(),
        "FINEMESH_PUBLIC_HOST": given.public_host,
        "FINEMESH_PORT": given.port,
    }
    env_file: Path = given.env_file
    env_file.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))


def _prepare_process(
    folder: Path, process: str, credentials: Credentials, authority: Authority, password: str
) -> None:
    """A service or the agent: its certificate, its identity on NATS, the keys to S3 and to its database."""
    authority.issue(folder, process, "localhost")
    shutil.copy(authority.path, folder / "ca.pem")
    _hand_over(credentials.jwt_key, folder / "jwt.key")
    _hand_over(credentials.nats_seed(process), folder / "nats.seed")
    _hand_over(credentials.s3_access_key, folder / "s3.access")
    _hand_over(credentials.s3_secret_key, folder / "s3.secret")
    if process == "agent":
        _hand_over(credentials.ray_token, folder / "ray.token")
    else:
        url = f"postgresql+asyncpg://finemesh:{password}@postgres:5432/{process}"
        write_private_file(folder / "database.url", url)


def _prepare_servers(site: Path, credentials: Credentials, authority: Authority, password: str) -> None:
    """What NATS, PostgreSQL and MinIO read."""
    nats = _folder(site, "nats")
    authority.issue(nats, "nats", "localhost")
    config = json.loads(nats_config("0.0.0.0", 4222, Path("/data"), credentials))  # noqa: S104
    config["tls"] = {
        "cert_file": str(INSIDE / "certificate.pem"),
        "key_file": str(INSIDE / "key.pem"),
    }
    config["http"] = "127.0.0.1:8222"  # for the health check
    write_private_file(nats / "nats.json", json.dumps(config, indent=1))
    postgres = _folder(site, "postgres")
    write_private_file(postgres / "password", password)
    databases = "".join(f"CREATE DATABASE {service};\n" for service in SERVICES)
    write_private_file(postgres / "databases.sql", databases)
    minio = _folder(site, "minio")
    _hand_over(credentials.s3_access_key, minio / "s3.access")
    _hand_over(credentials.s3_secret_key, minio / "s3.secret")


def _prepare_gateway(
    folder: Path, given: argparse.Namespace, credentials: Credentials, authority: Authority
) -> None:
    """Envoy: its configuration, the certificate it shows to the world, the one it shows to the services."""
    public = _folder(folder, "public")
    if given.certificate:
        shutil.copy(given.certificate, public / "certificate.pem")
        _hand_over(given.key, public / "key.pem")
    else:
        authority.issue(public, given.public_host, "localhost", "127.0.0.1")
    authority.issue(folder, "gateway")
    shutil.copy(authority.path, folder / "ca.pem")
    _hand_over(credentials.jwks, folder / "jwks.json")
    shutil.copy(packaged_descriptor_set(), folder / "finemesh.binpb")
    # The generator reads the descriptor set where it is now; Envoy finds it in its own folder.
    descriptor_set, written = folder / "finemesh.binpb", folder / "envoy.json"
    arguments = {
        "output": written,
        "host": "0.0.0.0",  # noqa: S104
        "port": 8443,
        **{service: f"{service}:{SERVICE_PORT}" for service in SERVICES},
        "s3": "minio:9000",
        "jwks": INSIDE / "jwks.json",
        "descriptor-set": descriptor_set,
        "tls-certificate": INSIDE / "public" / "certificate.pem",
        "tls-key": INSIDE / "public" / "key.pem",
        "upstream-ca": INSIDE / "ca.pem",
        "upstream-certificate": INSIDE / "certificate.pem",
        "upstream-key": INSIDE / "key.pem",
    }
    if write_gateway_configuration([f"--{name}={value}" for name, value in arguments.items()]) != 0:
        raise OSError(f"the gateway's configuration was not written to {folder}")
    inside = str(INSIDE / descriptor_set.name)
    written.write_text(written.read_text().replace(str(descriptor_set), inside))


def _prepare_client(
    folder: Path, given: argparse.Namespace, credentials: Credentials, authority: Authority
) -> None:
    """What a person's command line needs: `FINEMESH_…` in a file to be sourced."""
    _hand_over(credentials.admin_token, folder / "admin.token")
    _hand_over(credentials.nats_seed("client"), folder / "nats.seed")
    shutil.copy(authority.path, folder / "ca.pem")
    variables = {
        "FINEMESH_SERVER": f"{given.public_host}:{given.port}",
        "FINEMESH_TOKEN_FILE": folder / "admin.token",
        **({} if given.certificate else {"FINEMESH_CA_FILE": folder / "ca.pem"}),
    }
    (folder / "env.sh").write_text("".join(f"export {name}='{value}'\n" for name, value in variables.items()))


def _folder(*parts: Path | str) -> Path:
    path = Path(*parts)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def _once(path: Path) -> str:
    """A random password, made when it is first asked for."""
    if not path.exists():
        write_private_file(path, secrets.token_urlsafe(24), replace=False)
    return read_private_file(path)


def _hand_over(source: Path, target: Path) -> None:
    write_private_file(target, read_private_file(source))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(common_name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(read_private_file(path).encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise OSError(f"{path} is not a key of ours: remove it to have a new authority made")
    return key


def _parser() -> argparse.ArgumentParser:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Make keys, certificates and configuration.")
    parser.add_argument("--public-host", default="localhost", help="name by which clients reach the gateway")
    parser.add_argument("--port", type=int, default=8443, help="port on this machine; default: 8443")
    parser.add_argument("--certificate", type=Path, help="PEM of the gateway; default: of our own authority")
    parser.add_argument("--key", type=Path, help="PEM of its key")
    parser.add_argument("--output", type=Path, default=here / "site", help="default: deploy/site")
    parser.add_argument("--env-file", type=Path, default=here / ".env", help="default: deploy/.env")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse, prepare, say what is next. The exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if bool(given.certificate) != bool(given.key):
        parser.error("--certificate and --key belong together")
    try:
        prepare(given)
    except (FinemeshError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(
        f"Ready. Start: docker compose --file deploy/compose.yaml up --build --detach\n"
        f"Then:         . {given.output / 'client' / 'env.sh'} && finemesh dataset list\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
