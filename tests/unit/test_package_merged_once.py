"""The exports of a checkpoint on one node share its merge."""

from __future__ import annotations

from pathlib import Path

import torch
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.package.shared import SharedFolders
from finemesh.package.trained import Trained


class Counted(Trained):
    """A fine-tune whose merges are counted."""

    def merge_into(self, folder: Path, dtype: torch.dtype, shard_bytes: int = 0) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"w")
        (folder / "config.json").write_text(str(dtype))
        with (folder.parent / "made").open("a") as log:
            log.write("x")


def test_a_checkpoint_is_merged_once(tmp_path: Path) -> None:
    spec = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d")
    shared = SharedFolders(tmp_path / "shared", "key", lambda: None)
    first, second = (
        Counted(spec, tmp_path, tmp_path, tmp_path, tmp_path / name, shared).merged for name in ("a", "b")
    )
    assert (tmp_path / "shared" / "made").read_text() == "x"
    assert first.joinpath("model.safetensors").samefile(second / "model.safetensors")
    assert not first.joinpath("config.json").samefile(second / "config.json")  # some write to theirs
