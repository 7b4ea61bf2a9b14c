"""Whatever is said in a conversation, a preflight shows the ids and labels that the encoder makes of it, and
texts that join to what was encoded; for tokenizers that keep spaces, that mark them, and that drop them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.finetune import OverLength, Sequence, Task
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune.encoding import Encoder
from finemesh.finetune.families import family_of
from finemesh.finetune.preflight import preflight_dataset
from finemesh.finetune.preflight_report import ShownRow
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.conversations import message, row, spec, tiny_model, write_dataset

LIMIT = 40
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=30).filter(
    lambda text: "\x00" not in text
)
chats = st.lists(words, min_size=2, max_size=5)


@pytest.fixture(scope="module", params=["bytes", "metaspace", "words"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama, its tokenizer replaced."""
    folder = tiny_model(tmp_path_factory.mktemp("llama"), "llama")
    if request.param != "bytes":
        _retokenize(folder, request.param)
    return folder


def _retokenize(folder: Path, kind: str) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    old: Any = AutoTokenizer.from_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(["<unk>", "▁", *map(chr, range(33, 127))])}
    tokenizer: Any = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    else:  # white space is in no token
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    fast.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    fast.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    fast.chat_template = old.chat_template
    fast.save_pretrained(folder)


def ids_of(shown: ShownRow) -> list[int]:
    return [each for part in shown.segments for each in part.ids]


@given(said=st.lists(chats, min_size=1, max_size=3))
@settings(deadline=None, max_examples=15)
def test_what_is_shown_is_what_is_encoded(base: Path, said: list[list[str]]) -> None:
    roles = ("user", "assistant")
    rows = [
        row(f"r{index}", "train", [message(roles[i % 2], text) for i, text in enumerate(turns)])
        for index, turns in enumerate(said)
    ]
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(Path(folder) / "dataset", rows, shards=1)
        sequence = Sequence(max_tokens=LIMIT, over_length=OverLength.TRUNCATE)
        wanted = spec(Task.LANGUAGE, sequence=sequence)
        report = preflight_dataset(PreflightOptions(wanted), base, dataset)
        family = family_of(base, Task.LANGUAGE)
        assert family.load_processor
        encoder = Encoder(family, family.load_processor(base), None, sequence)
        samples = {sample.row_id: sample for sample in encoder.encode(dataset, "train").samples}
    assert [shown.figures.row_id for shown in report.shown] == [each["row_id"] for each in rows]
    for shown, turns in zip(report.shown, said, strict=True):
        text = "".join(f"<|{roles[i % 2]}|>{each}{'</s>' * (i % 2)}" for i, each in enumerate(turns))
        told = "".join(part for segment in shown.segments for part in segment.texts)
        assert f"<s>{text}".startswith(told)  # white space at the end is in no token
        assert f"<s>{text}"[len(told) :].strip() == ""
        sample = samples.get(shown.figures.row_id)
        if sample is not None:
            loss = [segment.loss for segment in shown.segments for _ in segment.ids]
            assert ids_of(shown)[: sample.size] == sample.input_ids_T.tolist()
            assert loss[: sample.size] == sample.loss_T.tolist()
            assert not any(loss[sample.size :])
            assert shown.figures.cut_tokens == len(loss) - sample.size
        else:
            assert shown.figures.reason in {"NO_LOSS_TOKENS", "NO_TURN_FITS"}
