"""Who holds a data directory, and what is written down about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from finemesh.core.errors import PreconditionError
from finemesh.embedded.state import (
    ComponentRecord,
    DataDirLock,
    Holder,
    MeshRecord,
    State,
    is_held,
    read_record,
)

_HOLD = """
import sys
from pathlib import Path
from finemesh.embedded.state import DataDirLock
DataDirLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    since = lock.acquire()
    lock.describe(Holder(os.getpid(), since, "127.0.0.1:8080"))
    with pytest.raises(PreconditionError) as raised:
        DataDirLock(tmp_path).acquire()
    lock.release()
    assert raised.value.reason == "MESH_RUNNING"
    assert raised.value.metadata == {"pid": str(os.getpid()), "since": since, "address": "127.0.0.1:8080"}
    for fact in (str(tmp_path), str(os.getpid()), since, "127.0.0.1:8080", "Ctrl-C"):
        assert fact in str(raised.value)


def test_the_kernel_lets_go_when_the_holder_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        assert is_held(tmp_path)
        holder.kill()
    lock = DataDirLock(tmp_path)
    lock.acquire()
    lock.release()
    assert not is_held(tmp_path)


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    code = "print('running', flush=True); import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout
        assert child.stdout.readline() == b"running\n"
        lock.release()
        assert not is_held(tmp_path)
        child.kill()


def test_record_round_trip(tmp_path: Path) -> None:
    component = ComponentRecord(State.READY, 7, 1.5, 2, "", {"client": 4222})
    record = MeshRecord(
        1, 2.5, "2026-01-01T00:00:00+00:00", "http://127.0.0.1:1", components={"nats": component}
    )
    record.write(tmp_path)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("content", ["", "{", "[]", '{"components": 3}', '{"components": {}, "new": 1}'])
def test_unreadable_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "mesh.json").write_text(content)
    assert read_record(tmp_path) is None


def test_the_command_line_loads_no_mesh_before_a_command_needs_it() -> None:
    code = (
        "import sys, finemesh.embedded.commands;"
        "sys.exit(bool({'finemesh.embedded.config', 'finemesh.embedded.mesh', 'jwt'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
