"""`make bench-tracking`: Tracking against its peers, a JSON line per bar.

`ratio` says how many times ours goes into the peer's, or is the rate where a rate is the bar; `goal` is the
least of it, or, where there is none, the largest ours. Servers are real and talked to over gRPC and HTTP by
clients in processes of their own; all of them share this machine. `--only` names some of the groups,
`--millions 50` stores more points than 10.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.measuring import Board
from tests.bench.tracking_ingest import MILLIONS_AT_ONCE, history_bars, ingest_bars, sustained_bars
from tests.bench.tracking_logging import logging_bars
from tests.bench.tracking_program import program_bars
from tests.bench.tracking_query import search_bars, watch_bars
from tests.bench.tracking_reads import read_bars
from tests.bench.tracking_site import site

GROUPS: Final = ("ingest", "history", "stored", "logging", "program", "search", "watch")


def stored_bars(board: Board, folder: Path, millions: int) -> None:
    with site(folder) as own:
        runs = sustained_bars(board, own, millions)
        read_bars(board, own, runs)


def run(board: Board, groups: list[str], millions: int) -> None:
    for name in groups:
        # The disk decides how fast points become durable: memory in its place would flatter us.
        with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
            match name:
                case "ingest":
                    ingest_bars(board, Path(folder))
                case "history":
                    history_bars(board, Path(folder))
                case "logging":
                    logging_bars(board, Path(folder))
                case "program":
                    program_bars(board, Path(folder))
                case "search":
                    search_bars(board, Path(folder))
                case "watch":
                    watch_bars(board, Path(folder))
                case _:
                    stored_bars(board, Path(folder), millions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--millions", type=int, default=MILLIONS_AT_ONCE, help="points to store, in millions")
    asked, given = parser.parse_args(), sys.argv[1:]
    command = " ".join(["python -m tests.bench.tracking", *given]) if given else "make bench-tracking"
    run(Board(command), asked.only, asked.millions)


if __name__ == "__main__":
    main()
