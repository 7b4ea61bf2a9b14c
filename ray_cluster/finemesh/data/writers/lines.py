"""JSON Lines per split: `train.jsonl` and so on; `all.jsonl` for rows that were never split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finemesh.core.spec.data import ShardInfo
from finemesh.data.storage import describe_file


class SplitLines:
    """Opens its files for as long as a batch takes, so that a failure leaves none open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rows: dict[str, int] = {}

    def write(self, entries: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append each entry to the file of its split."""
        lines: defaultdict[str, list[str]] = defaultdict(list)
        for split, entry in entries:
            lines[split or "all"].append(json.dumps(entry, ensure_ascii=False) + "\n")
        for name, of_split in lines.items():
            with self._path(name).open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(of_split)
            self._rows[name] = self._rows.get(name, 0) + len(of_split)

    def close(self) -> list[ShardInfo]:
        return [
            describe_file(self._root, self._path(name), rows) for name, rows in sorted(self._rows.items())
        ]

    def _path(self, name: str) -> Path:
        return self._root / f"{name}.jsonl"
