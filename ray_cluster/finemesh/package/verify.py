"""`python -m finemesh.package.verify PACKAGE [--base DIR]`: check a package, print the report."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from finemesh.core.errors import FinemeshError
from finemesh.core.spec.export import ParityTolerance
from finemesh.package.parity import verify_package


def main(arguments: list[str] | None = None) -> int:
    default = ParityTolerance()
    parser = argparse.ArgumentParser(prog="python -m finemesh.package.verify", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--base", type=Path, help="folder of the base model, for an adapter")
    parser.add_argument("--max-logit-difference", type=float, default=default.max_logit_difference)
    parser.add_argument("--min-token-agreement", type=float, default=default.min_token_agreement)
    given = parser.parse_args(arguments)
    try:
        tolerance = ParityTolerance(given.max_logit_difference, given.min_token_agreement)
        report = verify_package(given.package, given.base, tolerance)
    except FinemeshError as error:
        print(f"error {error.reason}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(json.dumps(report.to_json()))  # noqa: T201
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
