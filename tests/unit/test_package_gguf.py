"""GGUF packages: llama.cpp computes what transformers does, reads what its tokenizer reads, or is refused."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from finemesh.core.errors import InvalidError
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.finetune.loop import train
from finemesh.finetune.tiny import CHAT_TEMPLATE, build_tiny
from finemesh.package.exporting import export_checkpoint
from finemesh.package.formats.format import SHIPPED
from finemesh.package.gguf_file import plain_template, unsuitable, write_gguf
from finemesh.package.gguf_words import words_of
from finemesh.package.modelfile import ask_with, frame_of, modelfile
from finemesh.package.parity import verify_package
from finemesh.package.shipped.chat_template import compiled
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset

TEXTS = ["say red green blue", "Grüße, don't! 12345 \n\n  x = y**2; 我是 naïve\u00a0🎈"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WHOLE = {"use_sliding_window": False, "sliding_window": None, "layer_types": ["full_attention"] * 2}
MODELS = [
    ("llama", {}),
    ("llama", {"num_key_value_heads": 2, "attention_bias": True, "tie_word_embeddings": True}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}}),
    ("llama", {"head_dim": 32}),
    ("mistral", {"sliding_window": None}),
    ("qwen", WHOLE),
    ("qwen", {**WHOLE, "model_type": "qwen2", "vocab_size": 400}),
    ("phi", {}),
]


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The shipped files beside one another, as in a package."""
    sys.path.insert(0, str(SHIPPED))
    yield
    sys.path.remove(str(SHIPPED))


def runner_of(folder: Path) -> Any:
    (folder / "manifest.json").write_text(json.dumps({"spec": {"task": "LANGUAGE"}}))
    return importlib.import_module("runtime_llama_cpp").Runner(folder)


def model_of(folder: Path, family: str, changes: dict[str, Any]) -> Any:
    """A model of random weights, norms and biases included, saved in `folder`."""
    build_tiny(family, folder, TEXTS * 20, 0)
    config = json.loads((folder / "config.json").read_text()) | changes
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "bias" in name:
                weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder)
    # As the tokenizer's class has it, which for some models is not as the file had it.
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(("family", "changes"), MODELS)
def test_llama_cpp_computes_what_transformers_does(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    model = model_of(tmp_path, family, changes)
    assert not unsuitable(tmp_path)
    write_gguf(tmp_path, tmp_path, tmp_path / "model.gguf", half=False)
    runner, tokenizer = runner_of(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    asked = [{"role": "user", "content": TEXTS[1]}]
    inputs = runner.prepare([{"role": "user", "content": [{"type": "text", "text": TEXTS[1]}]}], None)
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert inputs["input_ids"].tolist() == [prompt]
    with torch.inference_mode():
        whole = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=6)
        expected = model(whole[:, :-1]).logits[0, len(prompt) - 1 :].numpy()
    tokens = whole[0, len(prompt) :].tolist()
    found = runner.outputs(inputs, tokens)["logits"]
    # llama.cpp keeps the keys and values of what it has read in 16 bits.
    assert np.linalg.norm(found - expected) < 5e-3 * np.linalg.norm(expected)
    assert runner.write(inputs, 6) == tokens
    assert runner.text(tokens) == tokenizer.decode(tokens, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("mistral", {}, "sees a window of 8 tokens"),
        ("gemma", {}, "'gemma3_text' models were not proven"),
        ("llama", {"hidden_act": "gelu"}, "with silu"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    tmp_path: Path, family: str, changes: dict[str, Any], why: str
) -> None:
    build_tiny(family, tmp_path, TEXTS, 0)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert why in unsuitable(tmp_path)


def test_a_tokenizer_that_llama_cpp_has_no_name_for_is_refused(tmp_path: Path) -> None:
    build_tiny("llama", tmp_path, TEXTS, 0)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    rule = {"type": "Split", "pattern": {"Regex": "\\s"}, "behavior": "Isolated", "invert": False}
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [rule, cut]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "by a rule that llama.cpp has no name for" in unsuitable(tmp_path)


def test_words_of_sentencepiece_are_cut_as_by_its_tokenizer(tmp_path: Path) -> None:
    """Merged by rank there and by score here; what is in no piece falls back to bytes."""
    build_tiny("llama", tmp_path, TEXTS, 0)
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>"]
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*special, *letters], show_progress=False)
    made.train_from_iterator([text for text in TEXTS for _ in range(9)] + ["banana bandana an"], trainer)
    content = json.loads(made.to_str())
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] in special]
    made = Tokenizer.from_str(json.dumps(content))
    made.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in special])
    made.save(str(tmp_path / "tokenizer.json"))
    size = made.get_vocab_size()
    changes = {"vocab_size": size, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    model.save_pretrained(tmp_path)
    assert words_of(tmp_path, size).model == "llama"
    write_gguf(tmp_path, tmp_path, tmp_path / "model.gguf", half=True)
    runner = runner_of(tmp_path)
    vocabulary = runner._vocabulary  # the template would hide what is looked at
    for text in (*TEXTS, "banana", "bandanas", " two  spaces", "ö", "a\tb"):
        assert vocabulary.tokenize(text, False, True) == made.encode(text, add_special_tokens=False).ids, text


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[FineTuneSpec, Path, Path, Path]:
    root = tmp_path_factory.mktemp("job")
    dataset = write_dataset(root / "dataset", list(text_rows({"train": 16, "test": 8})))
    chosen, base = replace(spec(Task.LANGUAGE), test_split="test"), tiny_model(root / "base", "llama")
    result = train(chosen, base_model=base, dataset=dataset, work=root / "work")
    return chosen, base, dataset, result.checkpoint.path


def export(job: tuple[FineTuneSpec, Path, Path, Path], out: Path, form: ExportFormat) -> Path:
    chosen, base, dataset, checkpoint = job
    export_checkpoint(
        spec=chosen,
        checkpoint=checkpoint,
        base_model=base,
        dataset=dataset,
        out=out,
        format=form,
        lineage={},
        golden_items=4,
    )
    return out


def test_a_package_is_proven_with_llama_cpp_and_one_that_is_broken_is_not(
    job: tuple[FineTuneSpec, Path, Path, Path], tmp_path: Path
) -> None:
    package = export(job, tmp_path / "package", ExportFormat.GGUF_F16)
    report = verify_package(package)
    assert report.passed, report.reasons
    assert "cyllama" in report.runtime
    quantized = export(job, tmp_path / "quantized", ExportFormat.GGUF_Q4_0)
    assert (quantized / "model.gguf").stat().st_size < 0.6 * (package / "model.gguf").stat().st_size
    # Half of the bits are gone, and with them what a small model of few weights has learned.
    off = next(each for each in verify_package(quantized).checks if "norm" in each.what)
    sound = next(each for each in report.checks if "norm" in each.what)
    assert sound.value < 0.01 < off.value


def test_k_quants_want_rows_in_blocks(job: tuple[FineTuneSpec, Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="come in blocks of 256, and hidden_size is 64"):
        export(job, tmp_path / "package", ExportFormat.GGUF_Q4_K_M)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>"
    "{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
GO = """import json, pathlib, sys, go_template
sys.stdout.buffer.write(go_template.render(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])))"""


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, CHATML, INSTRUCT])
def test_the_template_of_a_modelfile_writes_what_the_chat_template_writes(
    tmp_path: Path, template: str
) -> None:
    """Read by Go's own text/template."""
    pytest.importorskip("go_template")
    ask = ask_with(compiled(plain_template(template)), {"bos_token": "<s>", "eos_token": "</s>"})
    frame = frame_of(ask)
    assert frame is not None
    written = modelfile(frame, ["</s>"], 2048)
    assert 'PARAMETER stop "</s>"\n' in written
    go = tmp_path / "template.go"
    go.write_text(written.split('"""')[1])
    said = ['say "red"\n', "red {{ no }} {% none %}", "and?"]
    turns = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant", "user"), said, strict=True)
    ]
    messages = [{"role": "system", "content": "Be brief."}, *turns]
    values = {"Messages": [{key.title(): text for key, text in each.items()} for each in messages]}
    done = subprocess.run([sys.executable, "-c", GO, go, json.dumps(values)], capture_output=True, check=True)
    assert done.stdout.decode() == ask(messages, True)


def test_a_template_that_looks_at_more_than_the_role_has_no_modelfile() -> None:
    counting = "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}"
    trimming = "{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}"
    for template in (counting, trimming):
        assert frame_of(ask_with(compiled(template), {})) is None
