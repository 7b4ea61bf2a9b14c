"""Under what name a worker keeps a source that is one file."""

from __future__ import annotations

import pytest
from finemesh.cluster.workers.sources import plain_name


@pytest.mark.parametrize("name", ["chat_train.jsonl", "Äpfel 2026.csv.gz", "sav_000001_manual.json"])
def test_name_of_the_user_is_kept(name: str) -> None:
    assert plain_name(name) == name


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a/b/chat.jsonl", "chat.jsonl"),
        ("..", "source"),
        (".ssh.json", "source.json"),
        ("-rf.csv", "source.csv"),
        ("a;b\n.tar.zst", "source.tar.zst"),
        ("x" * 300 + ".csv", "source.csv"),
    ],
)
def test_any_other_gives_its_suffix_alone(name: str, kept: str) -> None:
    assert plain_name(name) == kept
