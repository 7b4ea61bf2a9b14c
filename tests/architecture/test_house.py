"""The rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.states import markdown
from finemesh.v1 import (
    attempt_service_pb2,
    dataprep_service_pb2,
    export_service_pb2,
    sweep_service_pb2,
    tracking_service_pb2,
    training_service_pb2,
)
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("services", "ray_cluster", "gateway", "clients/python")
HEAVY = {"torch", "transformers", "ray", "datasets", "pycocotools", "PIL", "av"}
PUBLIC = (
    dataprep_service_pb2,
    training_service_pb2,
    sweep_service_pb2,
    tracking_service_pb2,
    export_service_pb2,
)


def methods() -> list[MethodDescriptor]:
    services = [each for module in PUBLIC for each in module.DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


def has_http(method: MethodDescriptor) -> bool:
    http: Any = annotations_pb2.http
    return method.GetOptions().HasExtension(http)


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_the_namespace_has_no_init(root: str) -> None:
    """One `finemesh/__init__.py` would hide the other three source roots."""
    assert not (ROOT / root / "finemesh/__init__.py").exists()


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_every_rpc_can_be_called_over_http(method: MethodDescriptor) -> None:
    """All but bidirectional streams, which HTTP cannot carry: those have a unary twin."""
    bound = has_http(method)
    bidirectional = method.client_streaming and method.server_streaming
    assert bound != bidirectional


def test_what_clusters_call_is_not_public() -> None:
    service = attempt_service_pb2.DESCRIPTOR.services_by_name["AttemptService"]
    assert not any(has_http(method) for method in service.methods)


@pytest.mark.parametrize("service", ["dataprep", "training", "tracking", "export"])
def test_a_service_loads_nothing_heavy(service: str) -> None:
    code = f"import finemesh.{service}.__main__, sys; print(*{HEAVY!r} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_generated_files_are_those_of_the_protos() -> None:
    """Generation needs no network and gives the same bytes again."""
    for _ in range(2):
        subprocess.run([sys.executable, str(ROOT / "protos/generate.py"), "--check"], check=True, timeout=120)


def test_the_page_of_states_is_current() -> None:
    assert (ROOT / "docs/reference/states.md").read_text().endswith(markdown())


def test_the_client_pulls_nothing_heavy() -> None:
    text = (ROOT / "clients/python/pyproject.toml").read_text()
    assert not [name for name in (*HEAVY, "numpy", "pyarrow", "sqlalchemy", "duckdb") if f'"{name}' in text]


def documented_reasons() -> list[str]:
    """The reasons of the table in docs/reference/errors.md: its third column."""
    lines = (ROOT / "docs/reference/errors.md").read_text().splitlines()
    rows = [line.split("|") for line in lines if line.startswith("| ")]
    return sorted({reason for row in rows[1:] for reason in re.findall(r"[A-Z][A-Z_]+[A-Z]", row[3])})


@pytest.fixture(scope="module")
def words_of_tests() -> set[str]:
    files = (file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__).resolve())
    return {word for file in files for word in re.findall(r"\w+", file.read_text())}


@pytest.mark.parametrize("reason", documented_reasons())
def test_every_documented_reason_occurs_in_a_test(reason: str, words_of_tests: set[str]) -> None:
    assert reason in words_of_tests


def test_no_source_file_is_long() -> None:
    """400 lines is the aim; 450 is where a file is split. Generated stubs are not source."""
    roots = [*SOURCE_ROOTS, "protos", "tests"]
    files = [file for root in roots for file in (ROOT / root).rglob("*.py") if "_pb2" not in file.stem]
    assert not [str(file) for file in files if len(file.read_text().splitlines()) > 450]
