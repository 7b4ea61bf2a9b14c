"""`python -m finemesh.package.verify PACKAGE [--base DIR]`: check a package, print the report."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields, replace
from pathlib import Path

from finemesh.core.errors import FinemeshError
from finemesh.core.spec.export import ParityTolerance
from finemesh.package.formats import FORMATS
from finemesh.package.manifest import load_package_manifest
from finemesh.package.parity import verify_package


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m finemesh.package.verify", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--base", type=Path, help="folder of the base model, for an adapter")
    for each in fields(ParityTolerance):
        parser.add_argument(
            f"--{each.name.replace('_', '-')}", type=float, help="instead of the format's own"
        )
    given = parser.parse_args(arguments)
    try:
        said = {each.name: getattr(given, each.name) for each in fields(ParityTolerance)}
        said = {name: value for name, value in said.items() if value is not None}
        declared = FORMATS[load_package_manifest(given.package).format].tolerance
        report = verify_package(given.package, given.base, replace(declared, **said))
    except FinemeshError as error:
        print(f"error {error.reason}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(json.dumps(report.to_json()))  # noqa: T201
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
