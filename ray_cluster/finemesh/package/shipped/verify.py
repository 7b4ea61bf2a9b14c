"""Replay the golden items of a package and compare with the trained model: python verify.py [PACKAGE] [--base
DIR] [--key PUBLIC.pem]

Prints a report as JSON. Exits with 0 if the package is intact and within tolerance, with 1 otherwise. It runs
the package as anyone would: by `runtime.py` beside this file, with the package's own preprocessing and
template, and over HTTP through the server. With a key, the manifest must also be signed by its owner.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from decide import agreement, decide  # pyright: ignore[reportMissingImports]  (the files beside this one)
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

HERE = Path(__file__).parent
_CHUNK_BYTES = 1 << 20
_MOST_SHOWN = 20  # items of the evidence


def broken_files(package: Path, manifest: dict[str, Any]) -> list[str]:
    """Files that are missing or have other bytes than the manifest says."""
    broken: list[str] = []
    for each in manifest["files"]:
        path, digest = package / each["path"], hashlib.sha256()
        if path.is_file():
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
        if digest.hexdigest() != each["sha256"]:
            broken.append(each["path"])
    return broken


def unsigned(package: Path, key: Path) -> list[str]:
    """Why the manifest is not signed by the owner of an Ed25519 public key (PEM), if it is not."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(key.read_bytes())
        assert isinstance(public, Ed25519PublicKey), f"{key} holds a key of another kind than Ed25519"
        signature = base64.b64decode((package / "manifest.json.sig").read_bytes(), validate=False)
        public.verify(signature, (package / "manifest.json").read_bytes())
    except InvalidSignature:
        return ["manifest.json.sig: the manifest was not signed by the owner of this key"]
    except (OSError, ValueError, AssertionError) as error:
        return [f"the signature cannot be checked: {error}"]
    return []


def replay(package: Path, manifest: dict[str, Any], runner: Any) -> tuple[list[dict[str, Any]], Any]:
    """Run every golden item: how far each is off, and the decisions by `<index>/<name>`."""
    lines = (package / "golden" / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
    compared: list[dict[str, Any]] = []
    decisions: dict[str, Any] = {}
    with safe_open(package / "golden" / "outputs.safetensors", "numpy") as golden:
        for index, line in enumerate(lines):
            item = json.loads(line)
            expected = _of_item(golden, index)
            found, decision = _replay(package, manifest, runner, item, expected)
            compared.append({"row_id": item["row_id"], **found})
            decisions |= {f"{index}/{name}": each for name, each in decision.items()}
    return compared, decisions


def _of_item(golden: Any, index: int) -> dict[str, dict[str, Any]]:
    """The golden tensors of an item by kind (`inputs`, `outputs`, `decision`) and name."""
    kinds: dict[str, dict[str, Any]] = {"inputs": {}, "outputs": {}, "decision": {}}
    for key in golden.keys():  # noqa: SIM118  it is not a dict
        number, kind, name = key.split("/", 2)
        if number == str(index):
            kinds[kind][name] = golden.get_tensor(key)
    return kinds


def _replay(
    package: Path, manifest: dict[str, Any], runner: Any, item: dict[str, Any], expected: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    image = Image.open(package / item["image"]) if item["image"] else None
    inputs = runner.prepare(item["messages"], image)
    tokens = expected["decision"].get("tokens")
    outputs = runner.outputs(inputs, tokens)
    size_px = (image.height, image.width) if image else (0, 0)
    decision = decide(runner.task, manifest["decisions"], outputs, size_px)
    agreeing, of = agreement(decision, expected["decision"])
    if tokens is not None:
        answer = runner.text(runner.write(inputs, len(tokens)))
        decision["answer"] = np.frombuffer(answer.encode(), np.uint8)
    differences = {name: difference(value, outputs.get(name)) for name, value in expected["outputs"].items()}
    norms = [float(np.square(value, dtype=np.float64).sum()) for value in expected["outputs"].values()]
    squares = [each["squares"] for each in differences.values()]
    found = {
        **_prepared(inputs, expected["inputs"]),
        "difference": max(each["largest"] for each in differences.values()),
        "relative_difference": (sum(squares) / max(sum(norms), 1e-30)) ** 0.5,
        "agreeing": agreeing,
        "decisions": of,
    }
    return found, decision


def difference(expected: Any, found: Any) -> dict[str, float]:
    """The largest absolute difference of two arrays, and the sum of the squares; infinite if they are of
    different shapes or one is not a number where the other is.
    """
    if found is None or found.shape != expected.shape:
        return {"largest": float("inf"), "squares": float("inf")}
    apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    apart[(found == expected) | (np.isnan(expected) & np.isnan(found))] = 0  # two infinities are alike
    apart[np.isnan(apart)] = np.inf
    return {"largest": float(apart.max(initial=0)), "squares": float(np.square(apart).sum())}


def _prepared(inputs: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Whether the tokens are those of training, and how far the rest of what the model is fed is off."""
    tokens = expected.get("input_ids")
    rest = [difference(value, inputs.get(name)) for name, value in expected.items() if name != "input_ids"]
    return {
        "tokens_equal": tokens is None or np.array_equal(inputs["input_ids"], tokens),
        "input_difference": max((each["largest"] for each in rest), default=0.0),
    }


def checks(compared: list[dict[str, Any]], limits: dict[str, Any]) -> list[dict[str, Any]]:
    """What was compared, with its limit. A value that is not a number passes nothing."""
    agreeing, of = (sum(each[name] for each in compared) for name in ("agreeing", "decisions"))
    equal = sum(each["tokens_equal"] for each in compared) / len(compared)
    rows = [
        ("preprocessing", "items with the token ids of training", equal, 1.0, False),
        ("preprocessing", *_largest(compared, "input_difference", "of what the model is fed", limits)),
        ("raw outputs", *_largest(compared, "difference", "of any output", limits)),
        (
            "raw outputs",
            *_largest(compared, "relative_difference", "as a share of the outputs' norm", limits),
        ),
        ("decisions", "share that agrees", agreeing / max(of, 1), limits["min_agreement"], False),
    ]
    return [
        {
            "kind": kind,
            "what": what,
            "value": value,
            "limit": limit,
            "at_most": at_most,
            "passed": limit is None or (value <= limit if at_most else value >= limit),
        }
        for kind, what, value, limit, at_most in rows
    ]


def _largest(compared: list[dict[str, Any]], name: str, of: str, limits: dict[str, Any]) -> Any:
    return f"largest difference {of}", max(each[name] for each in compared), limits[f"max_{name}"], True


def evidence(compared: list[dict[str, Any]], limits: dict[str, Any]) -> list[dict[str, Any]]:
    """The items that lie beyond a limit, the furthest first."""
    beyond = [
        each
        for each in compared
        if not all(check["passed"] for check in checks([each], {**limits, "min_agreement": 1.0}))
    ]
    return sorted(beyond, key=lambda each: -each["relative_difference"])[:_MOST_SHOWN]


def verify(
    package: Path, base: str | None, limits: dict[str, Any], decisions: Path | None, key: Path | None
) -> dict[str, Any]:
    """The report."""
    manifest = json.loads((package / "manifest.json").read_bytes())
    report: dict[str, Any] = {"limits": limits, "items": 0, "checks": [], "differences": []}
    reasons = [f"{name} is not as the manifest says" for name in broken_files(package, manifest)]
    reasons += unsigned(package, key) if key else []
    if not reasons:
        # Slow to load: whoever has a broken package learns it at once.
        from runtime import Runner  # pyright: ignore[reportMissingImports]
        from server import replay as server  # pyright: ignore[reportMissingImports]

        runner = Runner(package, base)
        compared, decided = replay(package, manifest, runner)
        served = server.check(runner, decide, package)
        report["items"], report["checks"] = len(compared), [*checks(compared, limits), served]
        failed = [each for each in report["checks"] if not each["passed"]]
        report["differences"] = evidence(compared, limits) if failed else []
        reasons = [
            f"{each['kind']}: {each['what']} is {each['value']:.4g}, the limit is {each['limit']:g}"
            for each in failed
        ]
        report["runtime"] = {"python": platform.python_version(), **runner.versions}
        if decisions:
            save_file(decided, decisions)
    return report | {"passed": not reasons, "reasons": reasons}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="?", type=Path, default=HERE)
    parser.add_argument("--base", help="folder or hub id of the base model of an adapter")
    parser.add_argument("--limits", type=json.loads, help="JSON, instead of `tolerance` of the manifest")
    parser.add_argument("--decisions", type=Path, help="write what the package decided, as safetensors")
    parser.add_argument("--key", type=Path, help="Ed25519 public key, PEM, of whoever should have signed it")
    given = parser.parse_args()
    limits = json.loads((given.package / "manifest.json").read_bytes())["tolerance"] | (given.limits or {})
    report = verify(given.package, given.base, limits, given.decisions, given.key)
    print(json.dumps(report))  # noqa: T201
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
