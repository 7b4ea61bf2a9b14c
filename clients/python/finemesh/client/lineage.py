"""What this program is made of and runs on, for the lineage of its run."""

from __future__ import annotations

import functools
import os
import platform
import re
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from finemesh.client.machine import gpus_here, memory_bytes
from finemesh.v1.lineage_pb2 import Code, Environment, Hardware, Lineage

_GIT_SECONDS: Final = 5
_MAX_COMMAND: Final = 1000
_SECRET: Final = re.compile(r"(^|[-_])(token|secret|passw(or)?d|passphrase|credentials?|key)$", re.IGNORECASE)


def lineage_here(*, dataset: str = "", dataset_digest: str = "", seed: int | None = None) -> Lineage:
    """All that can be found out. Reads the installed libraries and asks git: some tens of milliseconds."""
    return Lineage(
        dataset=dataset,
        dataset_digest=dataset_digest,
        code=code_here(),
        environment=environment_here(),
        seed=seed,
        hardware=hardware_here(),
    )


@functools.cache
def environment_here() -> Environment:
    """Python, system, and every library that is installed."""
    found = ((each.name, each.version) for each in metadata.distributions())
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(terse=True) + f"-{platform.machine()}",
        libraries={name: version for name, version in found if name and version},
    )


def code_here(folder: Path | None = None) -> Code:
    """The program that runs, and the commit of the folder that it is in; empty where there is no git."""
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else None
    folder = folder or (script.parent if script and script.is_file() else Path.cwd())
    command = " ".join([script.name if script else "", *_without_secrets(sys.argv[1:])]).strip()
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return Code(command=command[:_MAX_COMMAND])
    return Code(
        repository=_without_credentials(_git(folder, "config", "--get", "remote.origin.url")),
        commit=commit,
        dirty=bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
        command=command[:_MAX_COMMAND],
    )


def code_of(file: Path) -> Code:
    """The commit of the repository that a module is in; nothing for one that was installed from a package."""
    if not _git(file.parent, "ls-files", "--error-unmatch", file.name):
        return Code()
    code = code_here(file.parent)
    code.command = ""
    return code


def hardware_here() -> Hardware:
    """The processor, the memory and the GPUs that CUDA may see here."""
    gpus = gpus_here()
    return Hardware(
        hostname=socket.gethostname(),
        cpu=_cpu(),
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_bytes=memory_bytes(),
        gpus=[gpu.kind for gpu in gpus],
        gpu_memory_bytes=[gpu.memory_bytes for gpu in gpus],
        gpu_driver=gpus[0].driver if gpus else "",
    )


def _git(folder: Path, *words: str) -> str:
    """What git says; empty where it is not installed, has nothing to say, or takes too long."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _without_secrets(arguments: list[str]) -> Iterator[str]:
    """The arguments of a command line, stars in place of the values of options like `--api-key`."""
    covered = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_secret = name.startswith("-") and bool(_SECRET.search(name))
        if equals and is_secret:
            yield f"{name}=***"
        else:
            yield "***" if covered and not argument.startswith("-") else argument
        covered = is_secret and not equals


def _without_credentials(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if not parts.username and not parts.password:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _cpu() -> str:
    """The processor's own name where the system tells it, its architecture elsewhere."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
