"""Every kind of source, imported by the command line, and what its ledger answers."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config, S3ObjectStore

from tests.e2e.conftest import RunningMesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROWS: Final = [{"question": f"=1+{i}", "answer": f"a{i}"} for i in range(6)]
LINES: Final = b"".join(
    json.dumps({"prompt": row["question"], "completion": row["answer"]}).encode() + b"\n" for row in ROWS
)
COLUMNS: Final = ["--columns", "prompt=question", "--columns", "completion=answer"]

Finemesh = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def finemesh(running_mesh: RunningMesh) -> Finemesh:
    """The command line in the folder of the mesh."""

    def run(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "finemesh"), *arguments]
        environ = {"HOME": str(running_mesh.folder), "LC_ALL": "C.UTF-8", "COLUMNS": "240"}
        done = subprocess.run(
            command,
            cwd=running_mesh.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == expect, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        return done

    return run


def as_csv(folder: Path) -> Path:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    return folder / "rows.csv"


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    return folder / "rows.parquet"


def as_lines(folder: Path) -> Path:
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(LINES))
    return folder / "rows.jsonl.gz"


def as_folder(folder: Path) -> Path:
    (folder / "rows" / "deep").mkdir(parents=True)
    (folder / "rows/deep/rows.jsonl").write_bytes(LINES)
    return folder / "rows"


def as_tar(folder: Path) -> Path:
    with tarfile.open(folder / "rows.tgz", "w:gz") as archive:
        archive.add(as_folder(folder), ".")
    return folder / "rows.tgz"


@pytest.mark.parametrize(
    ("make", "options"),
    [(as_csv, COLUMNS), (as_parquet, COLUMNS), (as_lines, []), (as_folder, []), (as_tar, [])],
)
def test_a_source_becomes_a_dataset(
    finemesh: Finemesh, make: Callable[[Path], Path], options: list[str], tmp_path: Path
) -> None:
    name = make.__name__.replace("_", "-")
    finemesh("dataset", "import", str(make(tmp_path)), "--id", name, *options)
    shown = json.loads(finemesh("dataset", "show", name, "--json").stdout)
    assert shown["state"] == "STATE_SUCCEEDED"
    assert {key: shown["summary"]["ledger"][key] for key in ("inputs", "kept")} == {
        "inputs": "6",
        "kept": "6",
    }
    finemesh("dataset", "download", name, str(tmp_path / "out"))
    rows = pq.read_table(tmp_path / "out/shards").to_pylist()
    said = [[part["text"] for message in row["messages"] for part in message["content"]] for row in rows]
    assert said == [[row["question"], row["answer"]] for row in ROWS]  # formulas are text


def put(mesh: RunningMesh, bucket: str, objects: Mapping[str, bytes]) -> None:
    secrets = mesh.data / "secrets"
    config = S3Config(
        endpoint=f"http://127.0.0.1:{mesh.ports['s3']}",
        access_key=(secrets / "s3.access").read_text().strip(),
        secret_key=Secret((secrets / "s3.secret").read_text().strip()),
        bucket=bucket,
    )

    async def write() -> None:
        store = S3ObjectStore(config)
        await store.ensure_bucket()
        for key, data in objects.items():
            await store.put_bytes(key, data)
        store.close()

    asyncio.run(write())


def test_the_object_store_is_a_source_where_it_is_allowed(
    finemesh: Finemesh, running_mesh: RunningMesh
) -> None:
    put(running_mesh, "lake", {"open/chats/a.jsonl": LINES, "closed/a.jsonl": LINES})
    finemesh("dataset", "import", "s3://lake/open/chats", "--id", "from-lake")
    shown = json.loads(finemesh("dataset", "show", "from-lake", "--json").stdout)
    assert shown["importedFrom"]["sourceUri"] == "s3://lake/open/chats"
    assert shown["summary"]["rowCount"] == "6"
    for uri in ("s3://lake/closed/a.jsonl", "s3://finemesh/projects"):
        assert "SOURCE_FORBIDDEN" in finemesh("dataset", "import", uri, expect=4).stderr


def test_the_ledger_says_what_became_of_every_row(finemesh: Finemesh, tmp_path: Path) -> None:
    """By disposition, by reason, page by page, and as many as the sum says."""
    bad = [b"{}\n", b"[1]\n", b'{"prompt": "only"}\n']
    lines = [line + b"\n" for line in LINES.splitlines()] * 20
    (tmp_path / "rows.jsonl").write_bytes(b"".join([lines[0], *bad, *lines[1:]]))
    finemesh("dataset", "import", str(tmp_path / "rows.jsonl"), "--id", "faulty")
    summary = json.loads(finemesh("dataset", "show", "faulty", "--json").stdout)["summary"]["ledger"]
    assert (summary["inputs"], summary["kept"], summary["quarantined"]) == ("123", "120", "3")

    def ask(*arguments: str) -> list[dict[str, Any]]:
        said = finemesh("dataset", "ledger", "faulty", "--limit", "500", "--json", *arguments).stdout
        return json.loads(said)

    entries = ask()  # more than a page
    assert len(entries) == 123
    assert len({entry["rowId"] for entry in entries}) == 123
    assert sum(len(entry.get("children", [])) for entry in entries) == 120
    assert len(ask("--filter", 'disposition = "KEPT"')) == 120
    found = ask("--filter", 'disposition = "QUARANTINED"')
    assert [entry["disposition"] for entry in found] == ["DISPOSITION_QUARANTINED"] * 3
    for reason, count in summary["byReason"].items():
        assert len(ask("--filter", f'reason = "{reason}"')) == int(count)
        assert len(ask("--disposition", "quarantined", "--reason", reason)) == int(count)
    assert sum(map(int, summary["byReason"].values())) == 3
    assert not ask("--disposition", "kept", "--filter", 'disposition = "QUARANTINED"')
    table = finemesh("dataset", "ledger", "faulty", "--disposition", "quarantined").stdout
    assert all(reason in table.replace("\n", "") for reason in summary["byReason"])
