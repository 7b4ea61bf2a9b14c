"""`finemesh demo`, interrupted: it ends at once, says so, and leaves no process and no folder behind."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import pytest
from finemesh.embedded.processes import find
from finemesh.embedded.site import executable

from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.mark.parametrize("moment", ["starting the mesh", "import:"])
def test_ctrl_c_leaves_nothing(moment: str, tmp_path: Path) -> None:
    """Interrupted as soon as `moment` is on the screen."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(scratch), "COLUMNS": "200"}
    demo = subprocess.Popen(
        [executable("finemesh"), "demo"],
        cwd=tmp_path,
        env=environ | {"FORCE_COLOR": "1"},  # bars are drawn on a terminal only
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr
    said = ""
    try:
        while moment not in said:
            read = demo.stderr.read(1)
            assert read, f"the demo ended before {moment!r}: {said[-2000:]}"
            said += read
        mesh_id = _mesh_id(scratch)
        rest = threading.Thread(target=demo.stderr.read)
        rest.start()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(PATIENCE_SECONDS) == 130
        rest.join()
    finally:
        demo.kill()
        demo.wait()
        demo.stderr.close()
    assert not mesh_id or find(mesh_id) == []
    assert list(scratch.iterdir()) == []


def _mesh_id(scratch: Path) -> str:
    """What marks the processes of the demo's mesh; empty before it has one."""
    found = list(scratch.glob("finemesh-demo-*/mesh/secrets/mesh.id"))
    return found[0].read_text().strip() if found else ""
