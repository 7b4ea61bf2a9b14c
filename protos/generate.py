"""Generates everything that follows from the protos: `python protos/generate.py [--check]`.

Python stubs go to clients/python, the descriptor set that Envoy transcodes by goes to the gateway. Needs no
network: the imports of google/api and google/rpc come from the googleapis-common-protos wheel. With `--check`
nothing is written; the exit code is 1 if a file differs from what would be generated.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.api import http_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "clients/python"
DESCRIPTOR_SET = ROOT / "gateway/finemesh/gateway/finemesh.binpb"
GENERATED = ("finemesh/v1", "finemesh/events/v1")
# Beside the imports of our own protos: without error_details in Envoy's descriptor set, the details of errors
# are dropped from JSON.
GOOGLEAPIS = (
    "google/api/annotations.proto",
    "google/api/client.proto",
    "google/api/field_behavior.proto",
    "google/api/http.proto",
    "google/api/httpbody.proto",
    "google/api/launch_stage.proto",
    "google/api/resource.proto",
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)


def googleapis() -> Path:
    """The include path that holds google/api, from the installed wheel."""
    return Path(http_pb2.__file__).parents[2]


def copy_googleapis(target: Path) -> None:
    """Puts the imported googleapis protos where buf.yaml looks for them; buf reads no paths outside its
    workspace.
    """
    for name in GOOGLEAPIS:
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(googleapis() / name, destination)


def run_protoc(stubs: Path, descriptor_set: Path) -> None:
    """Runs protoc once over all protos. Raises SystemExit with its exit code."""
    well_known = Path(str(resources.files("grpc_tools"))) / "_proto"
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    stubs.mkdir(parents=True, exist_ok=True)
    descriptor_set.parent.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{PROTOS}", f"-I{googleapis()}", f"-I{well_known}"]
    plugins = [f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}"]
    messages = [f"--{kind}={stubs}" for kind in ("python_out", "pyi_out")]
    services = [f"--{kind}={stubs}" for kind in ("grpc_python_out", "mypy_grpc_out")]
    with_services = [source for source in sources if source.endswith("_service.proto")]
    code = protoc.main(["protoc", *includes, *messages, *sources])
    code = code or protoc.main(["protoc", *includes, *plugins, *services, *with_services])
    described = [f"--descriptor_set_out={descriptor_set}", "--include_imports"]
    code = code or protoc.main(["protoc", *includes, *described, *sources, "google/rpc/error_details.proto"])
    if code:
        raise SystemExit(code)


def generated_files(stubs: Path, descriptor_set: Path) -> dict[str, bytes]:
    """Content by name of everything that was generated."""
    files = {
        str(path.relative_to(stubs)): path.read_bytes()
        for folder in GENERATED
        for path in sorted((stubs / folder).rglob("*_pb2*.py*"))
        if path.suffix in {".py", ".pyi"}
    }
    if descriptor_set.exists():
        files[descriptor_set.name] = descriptor_set.read_bytes()
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check: bool = parser.parse_args().check
    copy_googleapis(ROOT / ".venv/googleapis")
    with tempfile.TemporaryDirectory() as scratch:
        stubs, descriptor_set = Path(scratch) / "stubs", Path(scratch) / DESCRIPTOR_SET.name
        run_protoc(stubs, descriptor_set)
        new, old = generated_files(stubs, descriptor_set), generated_files(STUBS, DESCRIPTOR_SET)
        stale = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
        if check:
            for name in stale:
                sys.stderr.write(f"out of date: {name}; run `make proto`\n")
            return 1 if stale else 0
        for name in stale:
            target = DESCRIPTOR_SET if name == DESCRIPTOR_SET.name else STUBS / name
            if name not in new:
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(new[name])
    sys.stdout.write(f"{len(new)} files, {len(stale)} changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
