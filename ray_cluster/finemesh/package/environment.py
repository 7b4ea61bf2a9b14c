"""The environment of a package: what the gate ran it with, pinned, and an image that holds it.

Only what the package needs: the distributions of its runtime and of its server, and whatever those ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

SERVER_NEEDS: Final = (
    "fastapi",
    "uvicorn",
    "prometheus-client",
    "python-multipart",
    "numpy",
    "pillow",
    "safetensors",
    "cryptography",  # of verify.py --key
)
REQUIREMENTS: Final = "requirements.txt"
DOCKERFILE: Final = "Dockerfile"
_PYTHON: Final = "3.11"  # what the gate runs on


def closure(names: Iterable[str]) -> dict[str, str]:
    """These distributions and all that they ask for, as installed here: versions by name.

    Raises:
        PackageNotFoundError: one of `names` is not installed.
    """
    found: dict[str, str] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = canonical(wanted.name)
        if name in found and not wanted.extras:
            continue
        held = distribution(wanted.name)
        found[name] = held.version
        for line in held.requires or ():
            needed = Requirement(line)
            extras = wanted.extras or {""}
            asked_for = not needed.marker or any(needed.marker.evaluate({"extra": each}) for each in extras)
            if asked_for and canonical(needed.name) not in found:
                waiting.append(needed)
    return dict(sorted(found.items()))


def canonical(name: str) -> str:
    """The name of a distribution as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def write_environment(
    out: Path, runtime: str, needs: Sequence[str], command: Sequence[str] = ()
) -> dict[str, str]:
    """requirements.txt and Dockerfile. Returns the versions by name.

    Args:
        out: folder of the package.
        runtime: its name, for people.
        needs: distributions of the runtime.
        command: arguments of serve.py beside those of the image.
    """
    pinned = closure((*needs, *SERVER_NEEDS))
    # A local part, as in 2.13.0+cpu, is of another index: without it every build of the version fits.
    lines = [f"{name}=={version.partition('+')[0]}" for name, version in pinned.items()]
    built = [f"{name} {version}" for name, version in pinned.items() if "+" in version]
    told = f"# The gate ran with {', '.join(built)}.\n" if built else ""
    head = f"# What this package was checked with: {runtime}, and the server. Python {_PYTHON}.\n{told}"
    (out / REQUIREMENTS).write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    (out / DOCKERFILE).write_text(_dockerfile(command), encoding="utf-8")
    return pinned


def _dockerfile(command: Sequence[str]) -> str:
    arguments = ", ".join(f'"{each}"' for each in ("python", "serve.py", "--host", "0.0.0.0", *command))  # noqa: S104  inside a container
    return f"""\
# The model of this folder as a server:
#   docker build --tag model . && docker run --publish 127.0.0.1:8000:8000 model
# On a machine without a GPU, the smaller torch: --build-arg INDEX=https://download.pytorch.org/whl/cpu
FROM python:{_PYTHON}-slim-bookworm
ARG INDEX=https://pypi.org/simple
WORKDIR /package
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check \\
      --extra-index-url "$INDEX" --requirement requirements.txt
COPY . .
USER 65534:65534
ENV PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    HOME=/tmp \\
    HF_HUB_OFFLINE=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \\
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT [{arguments}]
"""
