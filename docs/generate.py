"""Writes what follows from the code: `python docs/generate.py [--check]`.

With `--check` nothing is written; the exit code is 1 if a file differs from what would be generated, or a
variable of the configuration is not described.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import command_line
import configuration
import fine_tune_schema
import model_families
import spec_pages
from finemesh.core import states

ROOT = Path(__file__).resolve().parent.parent

_STATES = """# States

Generated from `finemesh.core.states`. FAILED can be reached from any live state, CANCELLING from any but
itself. How a training job is paused, preempted, tried again and limited: [jobs](jobs.md).

"""


def generated() -> dict[Path, str]:
    """Every file, with its text."""
    return {
        ROOT / "docs/reference/cli.md": command_line.page(),
        ROOT / "docs/reference/configuration.md": configuration.page(),
        ROOT / "docs/reference/models.md": model_families.page(),
        ROOT / "docs/reference/presets.md": spec_pages.presets_page(),
        ROOT / "docs/reference/spec-fields.md": spec_pages.fields_page(),
        ROOT / "docs/reference/states.md": _STATES + states.markdown(),
        ROOT / "services/finemesh/training/model_families.json": model_families.document(),
        ROOT / "clients/python/finemesh/client/fine-tune-spec.schema.json": fine_tune_schema.document(),
    }


def main() -> int:
    """Write or check. The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check: bool = parser.parse_args().check
    if silent := configuration.silent():
        sys.stderr.write(f"not described in the docstring of its class: {', '.join(silent)}\n")
        return 1
    files = generated()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} is not up to date: run `make docs`\n")
        else:
            path.write_text(files[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
