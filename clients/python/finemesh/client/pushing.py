"""A package, carried on to where models are served: a running Ollama, the Hugging Face hub, an S3 bucket.

ollama://localhost:11434/NAME       its GGUF file and Modelfile, https://docs.ollama.com/api/create
hub://OWNER/NAME                    all files, with the token in HF_TOKEN
s3://BUCKET/PREFIX                  all files, with AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_TIMEOUT_SECONDS: Final = 600.0  # Ollama reads all of a model before it answers
_OLLAMA_PORT: Final = 11434
_MANIFEST: Final = "manifest.json"
_SIGNATURE: Final = f"{_MANIFEST}.sig"
# A line of a Modelfile that says one thing; values in quotes are as in JSON.
_PARAMETER: Final = re.compile(r"^PARAMETER (\w+) (.+)$", re.MULTILINE)
_TEMPLATE: Final = re.compile(r'^TEMPLATE """(.*?)"""$', re.MULTILINE | re.DOTALL)

OnFile = Callable[[str], None]
"""Told the path of a file before it is sent."""


class PushError(Exception):
    """Nothing, or not all, was pushed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a package goes, as the caller wrote it, taken apart."""

    scheme: str
    host: str
    path: str

    @classmethod
    def of(cls, text: str) -> Target:
        """Raises PushError."""
        parts = urllib.parse.urlsplit(text)
        path = parts.path.strip("/")
        if (
            parts.scheme not in ("ollama", "hub", "s3")
            or not parts.netloc
            or (parts.scheme != "s3" and not path)
        ):
            raise PushError(
                f"{text!r} is no place: write ollama://HOST[:PORT]/NAME, hub://OWNER/NAME or s3://BUCKET/PREFIX"
            )
        return cls(parts.scheme, parts.netloc, path)


def files_of(package: Path, target: Target) -> list[str]:
    """What would be sent, as paths in the package. Raises PushError: it is no package, or not for there."""
    try:
        named = {str(each["path"]) for each in json.loads((package / _MANIFEST).read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PushError(
            f"{package} has no {_MANIFEST} that reads: give a folder that `finemesh export download` made"
        ) from error
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    if missing := sorted(named - there):
        raise PushError(f"{package} lacks {missing[0]}, which its {_MANIFEST} names: download it again")
    # Whatever else lies in the folder is nobody's business.
    return wanted_there(there & {*named, _MANIFEST, _SIGNATURE}, target)


def wanted_there(files: Collection[str], target: Target) -> list[str]:
    """Of the files of a package those that go to a target. Raises PushError: it is not for there."""
    if target.scheme != "ollama":
        return sorted(files)
    if missing := [name for name in ("model.gguf", "Modelfile") if name not in files]:
        raise PushError(
            f"Ollama wants {' and '.join(missing)}, which this package has not: export it as GGUF"
        )
    return ["model.gguf", "Modelfile"]


def check(target: Target) -> None:
    """Raises PushError if the library or the secret that pushing there needs is missing."""
    if target.scheme == "hub":
        _hub()
    elif target.scheme == "s3":
        _s3_client(os.environ)


def push(package: Path, target: Target, on_file: OnFile = lambda _path: None) -> str:
    """Send a package. What is there already is not sent again.

    Returns: where it is now.

    Raises:
        PushError: it could not be sent; once more sends what is missing.
    """
    files = files_of(package, target)
    ways = {"ollama": _to_ollama, "hub": _to_hub, "s3": _to_s3}
    return ways[target.scheme](package, target, files, on_file)


# ---- Ollama


def _to_ollama(package: Path, target: Target, files: list[str], on_file: OnFile) -> str:
    weights = package / files[0]
    with weights.open("rb") as stream:
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    if _ask_ollama(target, "HEAD", f"/api/blobs/{digest}", None, accepted=(200, 404)) == 404:
        on_file(files[0])
        _ask_ollama(target, "POST", f"/api/blobs/{digest}", weights, accepted=(200, 201))
    told = {
        "model": target.path,
        "files": {files[0]: digest},
        "stream": False,
        **modelfile_facts((package / files[1]).read_text(encoding="utf-8")),
    }
    on_file(files[1])
    _ask_ollama(target, "POST", "/api/create", json.dumps(told).encode(), accepted=(200,))
    return f"{target.path}: ollama run {target.path}"


def modelfile_facts(text: str) -> dict[str, Any]:
    """The template and the parameters of a Modelfile, as `/api/create` takes them."""
    template = _TEMPLATE.search(text)
    parameters: dict[str, Any] = {}
    for name, written in _PARAMETER.findall(text):
        value = json.loads(written)
        parameters[name] = [*parameters.get(name, []), value] if name == "stop" else value
    return {"parameters": parameters} | ({"template": template[1]} if template else {})


def _ask_ollama(
    target: Target, method: str, path: str, body: bytes | Path | None, accepted: tuple[int, ...]
) -> int:
    host = target.host if ":" in target.host else f"{target.host}:{_OLLAMA_PORT}"
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_SECONDS)
    try:
        if isinstance(body, Path):
            with body.open("rb") as stream:
                length = {"Content-Length": str(body.stat().st_size)}
                connection.request(method, path, stream, length)
        else:
            connection.request(method, path, body)
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise PushError(
            f"Ollama at {host} gives no answer ({error}): start it, or name its host and port"
        ) from error
    finally:
        connection.close()
    if answer.status not in accepted:
        raise PushError(f"Ollama at {host} refused {method} {path} ({answer.status}): {said[:500]}")
    return answer.status


# ---- the hub


def _to_hub(package: Path, target: Target, files: list[str], on_file: OnFile) -> str:
    api, repository = _hub(), f"{target.host}/{target.path}"
    import huggingface_hub

    on_file(f"{len(files)} files")
    try:
        api.create_repo(repository, exist_ok=True, private=True)
        added = [
            huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=package / name)
            for name in files
        ]
        done = api.create_commit(repository, added, commit_message="Upload a package")
    except huggingface_hub.errors.HfHubHTTPError as error:
        said = error.server_message or str(error).partition("\n")[0]
        raise PushError(
            f"the hub did not take {repository} ({error.response.status_code}): {said} See whether the token "
            "in HF_TOKEN may write there"
        ) from error
    except (huggingface_hub.errors.HTTPError, OSError, ValueError) as error:  # of HTTP: no answer came
        raise PushError(f"the hub did not take {repository}: {error}") from error
    return str(done.commit_url)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise PushError("pushing to the hub needs a library: pip install huggingface_hub") from error
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise PushError(
            "HF_TOKEN is not set: make a token that may write, at https://huggingface.co/settings/tokens"
        )
    return huggingface_hub.HfApi(token=token)


# ---- S3


def _to_s3(package: Path, target: Target, files: list[str], on_file: OnFile) -> str:
    client = _s3_client(os.environ)
    from minio.error import S3Error
    from urllib3.exceptions import HTTPError

    prefix, name = (f"{target.path}/" if target.path else ""), ""
    try:
        for name in sorted(files, key=lambda each: each == _MANIFEST):  # last: whoever sees it sees all
            on_file(name)
            client.fput_object(
                bucket_name=target.host, object_name=prefix + name, file_path=str(package / name)
            )
    except (S3Error, HTTPError, OSError, ValueError) as error:
        raise PushError(f"s3://{target.host}/{prefix} did not take {name}: {error}") from error
    return f"s3://{target.host}/{prefix}"


def _s3_client(environment: Mapping[str, str]) -> Any:
    try:
        from minio import Minio
    except ImportError as error:
        raise PushError("pushing to S3 needs a library: pip install minio") from error
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if missing := [name for name in names if not environment.get(name)]:
        raise PushError(
            f"{', '.join(missing)} must be set: where the bucket is, and the key that may write to it"
        )
    parts = urllib.parse.urlsplit(environment[names[0]])
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise PushError(f"{names[0]} is {environment[names[0]]!r}: write http://HOST:PORT or https://HOST")
    return Minio(
        endpoint=parts.netloc,
        access_key=environment[names[1]],
        secret_key=environment[names[2]],
        secure=parts.scheme == "https",
        region=environment.get("AWS_REGION") or "us-east-1",
    )
