"""The merge: bit for bit what peft computes, out of shards that are read and written a portion at a time."""

from __future__ import annotations

import json
import resource
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError, ResourceExhaustedError
from finemesh.core.spec.finetune import FineTuneSpec, Full, Lora, Task, Tower
from finemesh.finetune.tiny import build_tiny
from finemesh.package import safetensor_shards
from finemesh.package.merging import stream_merge
from finemesh.package.trained import Trained
from safetensors import safe_open

from tests.support.checkpoints import checkpoint_of, moved_model

CLASSES = ("circle", "square", "star")
PLAIN = Lora(rank=2, alpha=3)


def spec_of(task: Task, method: Lora | Full) -> FineTuneSpec:
    return FineTuneSpec(task, "tiny", "projects/test/datasets/d", method=method)


def trained(root: Path, spec: FineTuneSpec, base: Path, classes: tuple[str, ...] = ()) -> tuple[Trained, Any]:
    """A fine-tune, and the module that training left."""
    model = moved_model(spec, base, classes)
    made = Trained(spec, checkpoint_of(model, root / "checkpoints"), base, root / "dataset", root / "scratch")
    made.__dict__["classes"] = classes  # which it would ask a dataset for
    return made, model.module


def whole(module: Any) -> dict[str, torch.Tensor]:
    """By peft's own arithmetic in 64 bits."""
    module = module.double()
    return (module.merge_and_unload() if hasattr(module, "merge_and_unload") else module).state_dict()


def read(folder: Path, auto_class: str) -> dict[str, torch.Tensor]:
    """By transformers, which must miss nothing and find nothing that it does not know."""
    module, told = getattr(transformers, auto_class).from_pretrained(
        folder, dtype=torch.float64, output_loading_info=True
    )
    assert not any(told.values()), told
    return module.state_dict()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    for family in ("llama", "llava", "yolos", "mask2former", "gemma"):
        build_tiny(family, root / family, ["some texts"], seed=0)
    return root


@pytest.mark.parametrize(
    ("family", "task", "method"),
    [
        ("llama", Task.LANGUAGE, PLAIN),
        ("llama", Task.LANGUAGE, replace(PLAIN, use_rslora=True)),
        ("llama", Task.LANGUAGE, replace(PLAIN, use_dora=True)),
        ("llama", Task.LANGUAGE, Full()),
        ("llava", Task.VISION_LANGUAGE, replace(PLAIN, train_connector=True, use_dora=True)),
        ("gemma", Task.LANGUAGE, Full()),  # its head is its embeddings
        ("yolos", Task.DETECTION, replace(PLAIN, towers=(Tower.VISION,))),
        ("mask2former", Task.INSTANCE_SEGMENTATION, Full((Tower.HEAD,))),  # which has to be loaded whole
    ],
)
def test_the_merge_is_peft_s_to_the_bit(
    bases: Path, tmp_path: Path, family: str, task: Task, method: Lora | Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in portions of a few rows and in many shards. The base is read by names, not by order."""
    monkeypatch.setattr(safetensor_shards, "PORTION_BYTES", 4096)
    classes = () if task in (Task.LANGUAGE, Task.VISION_LANGUAGE) else CLASSES
    made, module = trained(tmp_path, spec_of(task, method), bases / family, classes)
    made.merge_into(tmp_path / "out", torch.float64, shard_bytes=100_000)
    expected, found = whole(module), read(tmp_path / "out", made.family.auto_class)
    assert found.keys() == expected.keys()
    assert [name for name, each in expected.items() if not torch.equal(found[name], each)] == []
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2


def test_shards_are_as_transformers_writes_them(bases: Path, tmp_path: Path) -> None:
    """Names, sizes and the precision of the config; what has no fraction stays what it is."""
    made, module = trained(tmp_path, spec_of(Task.LANGUAGE, PLAIN), bases / "llama")
    made.merge_into(tmp_path / "ours", torch.bfloat16, shard_bytes=100_000)
    module.merge_and_unload().bfloat16().save_pretrained(tmp_path / "theirs", max_shard_size=100_000)
    ours, theirs = (json.loads((tmp_path / each / "config.json").read_text()) for each in ("ours", "theirs"))
    assert ours == theirs
    names = {each: sorted(p.name for p in (tmp_path / each).iterdir()) for each in ("ours", "theirs")}
    assert names["ours"] == names["theirs"]
    with ExitStack() as files:
        for path in (tmp_path / "ours").glob("*.safetensors"):
            opened = files.enter_context(safe_open(path, "pt"))
            assert opened.metadata() == {"format": "pt"}
            assert {opened.get_tensor(key).dtype for key in opened.keys()} == {torch.bfloat16}  # noqa: SIM118
            assert path.stat().st_size < 110_000 or len(opened.keys()) == 1


def test_a_checkpoint_of_another_base_is_refused(bases: Path, tmp_path: Path) -> None:
    made, _ = trained(tmp_path, spec_of(Task.LANGUAGE, PLAIN), bases / "llama")
    other = replace(made, base_model=bases / "gemma")
    with pytest.raises(InvalidError) as caught:
        other.merge_into(tmp_path / "out", torch.float32)
    assert caught.value.reason == "ADAPTER_OF_OTHER_BASE"
    assert "give the base that the job names" in str(caught.value)


def test_a_base_that_does_not_read_is_refused(bases: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(bases / "llama", tmp_path / "base"))
    made, _ = trained(tmp_path, spec_of(Task.LANGUAGE, PLAIN), base)
    content = (base / "model.safetensors").read_bytes()
    for broken in (content[:-100], b"\xff" * 8 + content[8:]):
        (base / "model.safetensors").write_bytes(broken)
        with pytest.raises(PreconditionError) as caught:
            made.merge_into(tmp_path / "out", torch.float32)
        assert caught.value.reason == "BASE_MODEL_CORRUPT"
    (base / "model.safetensors").unlink()
    with pytest.raises(PreconditionError, match="do not read"):
        made.merge_into(tmp_path / "out", torch.float32)
    shutil.rmtree(base)
    with pytest.raises(NotFoundError) as gone:
        replace(made, base_model=base).merge_into(tmp_path / "out", torch.float32)
    assert gone.value.reason == "BASE_MODEL_NOT_FOUND"


def test_a_full_disk_says_how_much_room_is_needed(bases: Path, tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk's: both are told by the write."""
    made, _ = trained(tmp_path, spec_of(Task.LANGUAGE, PLAIN), bases / "llama")
    (tmp_path / "out").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(ResourceExhaustedError) as caught:
            stream_merge(
                made.spec, made.family, made.base_model, made.checkpoint, (), tmp_path / "out", torch.float32
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.reason == "DISK_FULL"
    assert "bytes of weights" in str(caught.value)
