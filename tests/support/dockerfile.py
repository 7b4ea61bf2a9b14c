"""The Dockerfile of a package, carried out in a folder where no container engine is: each instruction does to
the folder and to an environment what it would do to an image.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.package_server import environ


@dataclass
class Image:
    """What would be the image.

    Attributes:
        folder: its working directory.
        variables: of its processes.
        entrypoint: its command; what is given to `docker run` follows it.
        healthcheck: the command that says whether it is ready.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])
    entrypoint: list[str] = field(default_factory=list[str])
    healthcheck: list[str] = field(default_factory=list[str])


def build(package: Path, folder: Path, python: Path | str, *, install: bool) -> Image:
    """Carry a package's Dockerfile out, with the `python` and `pip` beside `python`; `install`: RUN, too.

    Raises AssertionError for an instruction that no package has.
    """
    image = Image(folder)
    arguments = {"PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    folder.mkdir()
    lines = (package / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    for line in [each for each in lines if each and not each.startswith("#")]:
        name, _, rest = line.partition(" ")
        if name == "FROM":
            assert rest.startswith(f"python:{sys.version_info.major}.{sys.version_info.minor}-")
        elif name == "ARG":
            arguments |= dict([rest.split("=", 1)])
        elif name == "COPY":
            source, target = rest.split()
            _copy(package, source, target, folder)
        elif name == "RUN":
            if install:
                subprocess.run(["sh", "-euc", rest], cwd=folder, env=environ() | arguments, check=True)
        elif name == "ENV":
            image.variables |= dict(each.split("=", 1) for each in rest.split())
        elif name == "HEALTHCHECK":
            image.healthcheck = json.loads(rest.partition(" CMD ")[2])
        elif name == "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        else:
            assert name in ("WORKDIR", "USER", "EXPOSE"), line
    for path in folder.rglob("*"):  # whoever runs it is nobody
        assert path.stat().st_mode & 0o004, path
    return image


def _copy(package: Path, source: str, target: str, folder: Path) -> None:
    assert target == "."
    if source == ".":
        shutil.copytree(package, folder, dirs_exist_ok=True)
    else:
        shutil.copy(package / source, folder)
