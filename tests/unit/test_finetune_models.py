"""Small models, towers, targets and precision."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.finetune import Full, Lora, Precision, Resources, Sequence, Task, Tower
from finemesh.finetune.attention import PACKED, attention
from finemesh.finetune.families import family_of
from finemesh.finetune.models import load_model
from finemesh.finetune.tiny import main as build_by_command
from safetensors.torch import load_file

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llava"), "llava")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.mark.parametrize("family", ["llava", "llama"])
def test_the_same_seed_builds_the_same_files(family: str, tmp_path: Path) -> None:
    one, same, other = (tiny_model(tmp_path / str(i), family, seed) for i, seed in enumerate((0, 0, 1)))
    for path in one.iterdir():
        assert path.read_bytes() == (same / path.name).read_bytes(), path.name
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_a_small_model_reloads_bit_equal(llama: Path) -> None:
    whole = spec(Task.LANGUAGE, method=Full(), sequence=Sequence(packing=False))
    loaded = load_model(whole, llama).module.state_dict()
    written = load_file(llama / "model.safetensors")
    assert written.keys() == loaded.keys()
    assert all(torch.equal(loaded[name], written[name]) for name in written)


def test_tiny_by_command_line(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 3})))
    out = tmp_path / "model"
    assert build_by_command(["--family", "llama", "--out", str(out), "--dataset", str(dataset)]) == 0
    assert family_of(out, Task.LANGUAGE).name == "llama"


def test_lora_adapts_the_language_tower_alone_by_default(llava: Path) -> None:
    method = Lora(rank=2)
    trainable = load_model(spec(method=method), llava).trainable
    assert trainable
    assert all(".language_model." in name and "lora_" in name for name in trainable)
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in trainable}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        (Lora(towers=(Tower.VISION,)), {"vision_tower"}),
        (Lora(towers=(Tower.LANGUAGE, Tower.CONNECTOR)), {"language_model", "multi_modal_projector"}),
        (Lora(train_connector=True), {"language_model", "multi_modal_projector"}),
        (Full((Tower.CONNECTOR,)), {"multi_modal_projector"}),
        (Full((Tower.LANGUAGE,)), {"language_model", "lm_head"}),
    ],
)
def test_towers_say_what_is_trained(llava: Path, method: Lora | Full, parts: set[str]) -> None:
    trainable = load_model(spec(method=method), llava).trainable
    known = ("vision_tower", "multi_modal_projector", "language_model", "lm_head")
    assert {part for name in trainable for part in known if f"{part}." in name} == parts


def test_named_targets_are_found_or_refused(llava: Path) -> None:
    trainable = load_model(spec(method=Lora(rank=2, target_modules=("v_proj",))), llava).trainable
    assert len(trainable) == 4  # A and B of two layers
    with pytest.raises(InvalidError, match="query_key_value") as caught:
        load_model(spec(method=Lora(target_modules=("v_proj", "query_key_value"))), llava)
    assert caught.value.reason == "TARGETS_NOT_FOUND"
    with pytest.raises(InvalidError, match=r"v_prj \(did you mean v_proj\?\) in the chosen towers, LANG"):
        load_model(spec(method=Lora(target_modules=("v_prj",))), llava)


def test_the_auto_family_adapts_every_linear_layer_but_the_head(tmp_path: Path, llama: Path) -> None:
    from transformers import Olmo2Config, Olmo2ForCausalLM

    config = Olmo2Config(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    Olmo2ForCausalLM(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((llama / name).read_bytes())
    loaded = load_model(spec(Task.LANGUAGE, method=Lora(rank=2)), tmp_path)
    assert loaded.family.name == "auto"
    assert len(loaded.trainable) == 2 * 7
    assert not any("lm_head" in name for name in loaded.trainable)


def test_attention_is_switched_for_the_language_model_alone(llava: Path) -> None:
    loaded = load_model(spec(), llava)
    config = loaded.module.get_base_model().config

    def implementations() -> tuple[str, str]:
        return config.text_config._attn_implementation, config.vision_config._attn_implementation

    assert implementations() == (PACKED, "sdpa")
    with attention(loaded.module, loaded.family, "sdpa"):
        assert implementations() == ("sdpa", "sdpa")
    assert implementations() == (PACKED, "sdpa")


@pytest.mark.parametrize("method", [Lora(rank=2, train_connector=True), Full((Tower.LANGUAGE,))])
def test_bf16_keeps_what_is_trained_in_fp32(llava: Path, method: Lora | Full) -> None:
    loaded = load_model(spec(method=method, precision=Precision.BF16), llava)
    trained = {each.dtype for each in loaded.module.parameters() if each.requires_grad}
    frozen = {each.dtype for each in loaded.module.parameters() if not each.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"config\.json") as caught:
        load_model(spec(), tmp_path)
    assert caught.value.reason == "BASE_MODEL_NOT_FOUND"


def test_a_model_of_another_kind_is_refused(llama: Path) -> None:
    with pytest.raises(InvalidError, match="'llama' model cannot do VISION_LANGUAGE") as caught:
        load_model(spec(Task.VISION_LANGUAGE), llama)
    assert caught.value.reason == "BASE_MODEL_UNSUITABLE"


def needing_code(llama: Path, folder: Path, file: str, **fields: Any) -> Path:
    """A copy of a model one of whose files names code beside it, which says so where it is run."""
    shutil.copytree(llama, folder)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    return folder


@pytest.mark.parametrize("model_type", ["newest", "clip_vision_model"])
def test_a_model_that_needs_code_of_its_own_is_refused(llama: Path, tmp_path: Path, model_type: str) -> None:
    """Also where transformers knows the type, and no model of it that speaks."""
    fields = {"model_type": model_type, "auto_map": {"AutoModelForCausalLM": "own.Model"}}
    base = needing_code(llama, tmp_path / "base", "config.json", **fields)
    with pytest.raises(InvalidError, match=rf"code of its own .* knows no '{model_type}'") as caught:
        load_model(spec(Task.LANGUAGE), base)
    assert caught.value.reason == "BASE_MODEL_UNSUITABLE"
    assert not (base / "ran").exists()


def test_a_model_that_transformers_has_too_needs_no_code_of_its_own(llama: Path, tmp_path: Path) -> None:
    base = needing_code(
        llama, tmp_path / "base", "config.json", auto_map={"AutoModelForCausalLM": "own.Model"}
    )
    assert load_model(spec(Task.LANGUAGE), base).family.name == "llama"
    assert not (base / "ran").exists()


def test_a_tokenizer_that_needs_code_of_its_own_is_refused(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _question: "y")  # whoever is asked by transformers says yes
    fields = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    base = needing_code(llama, tmp_path / "base", "tokenizer_config.json", **fields)
    with pytest.raises(NotFoundError, match=r"code of its own \(auto_map in its tokenizer_config") as caught:
        load_model(spec(Task.LANGUAGE), base)
    assert caught.value.reason == "PROCESSOR_NOT_FOUND"
    assert not (base / "ran").exists()


def test_pickled_weights_are_not_read(llama: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((llama / name).read_bytes())
    torch.save(load_file(llama / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidError) as caught:
        load_model(spec(Task.LANGUAGE), tmp_path)
    assert caught.value.reason == "BASE_MODEL_UNREADABLE"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_in_silence(llama: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        load_model(replace(spec(Task.LANGUAGE), resources=Resources(gpus=1)), llama)
    assert caught.value.reason == "NO_ACCELERATOR"


def test_what_a_supervisor_needs_imports_no_torch() -> None:
    """Hooks, manifests and package records are read by processes that shall start fast and stay small."""
    modules = "finemesh.finetune.hooks, finemesh.finetune.manifests, finemesh.package.manifest"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
