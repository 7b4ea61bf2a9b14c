"""What tells the weights of a base model from those of another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from finemesh.core.errors import PreconditionError
from finemesh.finetune.base_weights import base_digest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import change_weights
from tests.support.conversations import tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("bases") / "llama", "llama")


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_another_base_is_told_by_any_of_its_tensors(base: Path, copy: Path) -> None:
    with safe_open(base / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert base_digest(copy) == base_digest(base)
    seen = {base_digest(base)}
    for name in names:
        shutil.copy(base / "model.safetensors", copy)
        change_weights(copy, name)
        seen.add(base_digest(copy))
    assert len(seen) == len(names) + 1


def test_a_large_tensor_is_read_in_places_to_its_last_byte(tmp_path: Path) -> None:
    values = torch.zeros(1_000_000, dtype=torch.int32)
    seen: set[str] = set()
    for place in (None, 0, 333_000, 666_000, 999_999):
        changed = values.clone()
        if place is not None:
            changed[place] = 1
        save_file({"weight": changed}, tmp_path / "model.safetensors")
        seen.add(base_digest(tmp_path))
    assert len(seen) == 5


def test_how_weights_are_spread_over_files_changes_nothing(base: Path, copy: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    (copy / "model.safetensors").unlink()
    shards = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == shard}, copy / shard)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert base_digest(copy) == base_digest(base)
    (copy / shards.popitem()[1]).unlink()
    with pytest.raises(PreconditionError, match="fetch it anew"):
        base_digest(copy)


@pytest.mark.parametrize("keep", [0, 4, 40, -100])
def test_a_file_that_is_cut_off_does_not_read(copy: Path, keep: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PreconditionError) as caught:
        base_digest(copy)
    assert caught.value.reason == "BASE_MODEL_CORRUPT"


def test_of_weights_in_another_format_nothing_is_known(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert base_digest(copy) == ""
