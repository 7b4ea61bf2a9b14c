"""Rows to tokens: what carries loss, what the policies do, and that the ledger names every row."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import OverLength, Sequence, Task
from finemesh.core.spec.ledger import Disposition
from finemesh.finetune.array_file import ArrayFile
from finemesh.finetune.chat import render
from finemesh.finetune.encoding import EncodedSplit, Encoder
from finemesh.finetune.families import family_of
from finemesh.finetune.families.auto import load_tokenizer
from finemesh.finetune.rows import Message, read_images, read_rows

from tests.support.conversations import (
    QUESTION,
    colour_rows,
    message,
    picture,
    row,
    text_rows,
    tiny_model,
    write_dataset,
)

TURNS = (message("user", "<picture>", QUESTION), message("assistant", "red"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llava"), "llava")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llama"), "llama")


def encoder_of(base: Path, sequence: Sequence | None = None) -> Encoder:
    from transformers import AutoConfig

    task = Task.VISION_LANGUAGE if (base / "processor_config.json").exists() else Task.LANGUAGE
    family = family_of(base, task)
    assert family.load_processor
    config = AutoConfig.from_pretrained(base)
    return Encoder(family, family.load_processor(base), config, sequence or Sequence())


def encode(encoder: Encoder, folder: Path, rows: list[dict[str, Any]]) -> EncodedSplit:
    return encoder.encode(write_dataset(folder / "dataset", rows, shards=1), "train")


def red() -> bytes:
    return picture("red", np.random.default_rng(0))


def test_only_what_the_assistant_says_carries_loss(llama: Path, tmp_path: Path) -> None:
    encoder = encoder_of(llama)
    [sample] = encode(encoder, tmp_path, list(text_rows({"train": 1}))).samples
    spoken = encoder.tokenizer.decode(sample.input_ids_T[sample.loss_T])
    silent = encoder.tokenizer.decode(sample.input_ids_T[~sample.loss_T])
    [turns] = [each["messages"] for each in text_rows({"train": 1})]
    said, first = (turns[turn]["content"][0]["text"] for turn in (1, 3))
    assert spoken == f"{said}</s>{first}</s>"
    assert silent == f"<s><|user|>say {said}<|assistant|><|user|>and the first?<|assistant|>"


@pytest.mark.parametrize("marked", [True, False])
def test_a_turn_that_says_so_carries_loss_or_does_not(llama: Path, tmp_path: Path, *, marked: bool) -> None:
    encoder = encoder_of(llama)
    if not marked:
        encoder.tokenizer.chat_template = without_marks(encoder.tokenizer.chat_template)
    turns = [
        message("user", "say red"),
        message("assistant", "green", train=False),
        message("user", "no, red"),
        message("assistant", "red", train=True),
    ]
    heard = [message("user", "say red", train=True), message("assistant", "red", train=False)]
    rows = [row("corrected", "train", turns), row("heard", "train", heard)]
    rows.append(row("first", "train", [message("assistant", "blue"), message("user", "red")]))
    corrected, other, first = encode(encoder, tmp_path, rows).samples
    assert encoder.tokenizer.decode(corrected.input_ids_T[corrected.loss_T]) == "red</s>"
    assert encoder.tokenizer.decode(other.input_ids_T[other.loss_T]) == "<|user|>say red"
    assert encoder.tokenizer.decode(first.input_ids_T[first.loss_T]) == "blue</s>"


def test_placeholders_are_expanded_and_shift_the_words_after_them(llava: Path, tmp_path: Path) -> None:
    encoder = encoder_of(llava)
    turns = [
        message("user", "Look."),
        message("assistant", "green"),
        message("user", "<picture>", QUESTION),
        message("assistant", "red"),
    ]
    [sample] = encode(encoder, tmp_path, [row("a", "train", turns, red())]).samples
    assert (sample.input_ids_T == encoder.processor.image_token_id).sum() == 49  # (112 px / 16 px) squared
    assert encoder.tokenizer.decode(sample.input_ids_T[sample.loss_T]) == "green</s>red</s>"


def test_templates_without_marks_give_the_same_spans(llama: Path) -> None:
    """A template with `{% generation %}` and the same one without are read alike."""
    tokenizer = encoder_of(llama).processor
    turns = next(iter(text_rows({"train": 1})))["messages"]
    marked = render(tokenizer, turns, parts=False)
    tokenizer.chat_template = without_marks(tokenizer.chat_template)
    assert render(tokenizer, turns, parts=False) == marked


@pytest.mark.parametrize("marked", [True, False])
def test_tools_and_their_calls_reach_the_template(llama: Path, *, marked: bool) -> None:
    tokenizer = load_tokenizer(llama)
    if not marked:
        tokenizer.chat_template = re.sub(r"\{%-? (end)?generation -?%\}", "", tokenizer.chat_template)
    call = {"name": "weather", "arguments": {"city": "Bern"}}
    turns: list[Message] = [
        {"role": "user", "content": [{"type": "text", "text": "rain?"}], "tool_calls": []},
        {"role": "assistant", "content": [{"type": "text", "text": ""}], "tool_calls": [call]},
        {"role": "tool", "content": [{"type": "text", "text": "dry"}], "tool_calls": []},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}], "tool_calls": []},
    ]
    rendered = render(tokenizer, turns, parts=False, tools=[{"name": "weather", "parameters": {}}])
    learnt = [rendered.text[start:end] for start, end in rendered.spans]
    assert learnt == [f"<call>{json.dumps(call)}</call></s>", "no</s>"]
    system = rendered.text.partition("<|user|>")[0]
    assert json.loads(system.partition("<|system|>")[2])[0]["function"]["name"] == "weather"


def test_templates_find_the_id_of_a_call_and_of_what_answers_it(llama: Path, tmp_path: Path) -> None:
    """As Mistral's template does: the id stands beside the function, and its answer names it."""
    tokenizer = load_tokenizer(llama)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}#{{ c.id }}{% endfor %}"
        "{% if m.role == 'tool' %}#{{ m.tool_call_id }} {{ m.name }}{% endif %}{{ '|' }}{% endfor %}"
    )
    call = {"id": "c1", "name": "weather", "arguments": {"city": "Bern"}}
    turns = [message("user", "rain?"), message("assistant", "", tool_calls=json.dumps([call]))]
    beside = {"message_fields": {"2": {"tool_call_id": "c1", "name": "weather"}}}
    made = row("a", "train", [*turns, message("tool", "dry")]) | {"attributes": json.dumps(beside)}
    lines = tmp_path / "lines.jsonl"
    arguments = json.dumps(call["arguments"])
    asked = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    answered = {"role": "tool", "content": "dry", "tool_call_id": "c1", "name": "weather"}
    said = [{"role": "user", "content": "rain?"}, {"role": "assistant", "tool_calls": [asked]}, answered]
    lines.write_text(json.dumps({"messages": said}), encoding="utf-8")
    for dataset in (write_dataset(tmp_path / "dataset", [made], shards=1), lines):
        [read] = read_rows(dataset)
        text = render(tokenizer, read.messages, parts=False).text
        assert text == 'rain?|{"name": "weather", "arguments": {"city": "Bern"}}#c1|dry#c1 weather|'


def test_a_template_that_knows_no_tools_is_refused(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    turns: list[Message] = [
        {"role": "user", "content": [{"type": "text", "text": "rain?"}], "tool_calls": []},
        {"role": "assistant", "content": [], "tool_calls": [{"name": "weather", "arguments": {}}]},
    ]
    whole = tokenizer.chat_template
    for left_out, tools, named in (
        (r"\{%- if tools.*?endif -%\}", [{"name": "clock"}], "clock"),
        (r"\{\{ '<call>'.*?\}\}", [], "weather"),
    ):
        tokenizer.chat_template = re.sub(left_out, "", whole)
        with pytest.raises(InvalidError, match=named) as caught:
            render(tokenizer, turns, parts=False, tools=tools)
        assert caught.value.reason == "TEMPLATE_WITHOUT_TOOLS"


def test_a_template_that_rewrites_earlier_turns_is_refused(llama: Path) -> None:
    tokenizer = encoder_of(llama).processor
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(InvalidError) as caught:
        render(tokenizer, next(iter(text_rows({"train": 1})))["messages"], parts=False)
    assert caught.value.reason == "TEMPLATE_NOT_INCREMENTAL"


def test_a_model_without_template_is_refused(llama: Path) -> None:
    tokenizer = encoder_of(llama).processor
    tokenizer.chat_template = None
    with pytest.raises(InvalidError) as caught:
        render(tokenizer, next(iter(text_rows({"train": 1})))["messages"], parts=False)
    assert caught.value.reason == "TEMPLATE_MISSING"


def test_faulty_rows_are_quarantined_each_with_its_reason(llava: Path, tmp_path: Path) -> None:
    rows = [
        row("good", "train", TURNS, red()),
        row("torn", "train", TURNS, red()[:100]),
        row("forged", "train", [message("user", "<picture>", "an <image> in words"), TURNS[1]], red()),
        row("absent", "train", [message("user", "<picture>", "<picture>"), TURNS[1]], red()),
        row("mute", "train", TURNS[:1], red()),
        row("other", "test", TURNS, red()),
    ]
    encoded = encode(encoder_of(llava), tmp_path, rows)
    assert [sample.row_id for sample in encoded.samples] == ["good"]
    assert {entry.row_id: entry.reason for entry in encoded.entries} == {
        "good": "",
        "torn": "IMAGE_UNREADABLE",
        "forged": "IMAGE_TOKEN_IN_TEXT",
        "absent": "PLACEHOLDER_MISMATCH",
        "mute": "NO_LOSS_TOKENS",
    }
    assert (encoded.ledger.inputs, encoded.ledger.kept, encoded.ledger.quarantined) == (5, 1, 4)


def test_plain_text_among_conversations_is_told_how_it_is_learnt(llama: Path, tmp_path: Path) -> None:
    plain = {**row("plain", "train", []), "messages": None, "text": "only words"}
    [entry] = encode(encoder_of(llama), tmp_path, [plain]).entries
    assert (entry.reason, "spec.objective TEXT" in entry.message) == ("NO_LOSS_TOKENS", True)


def test_a_language_model_is_not_shown_pictures(llama: Path, tmp_path: Path) -> None:
    encoded = encode(encoder_of(llama), tmp_path, [row("a", "train", TURNS, red())])
    assert [entry.reason for entry in encoded.entries] == ["IMAGE_FOR_LANGUAGE_MODEL"]


def turns_of(*words: str) -> list[Any]:
    """A question before each of the assistant's `words`."""
    return [part for word in words for part in (message("user", "say"), message("assistant", word))]


def test_long_rows_raise_are_cut_or_dropped(llama: Path, tmp_path: Path) -> None:
    rows = [row("short", "train", turns_of("red")), row("long", "train", turns_of("red", "red " * 40))]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)

    def under(policy: OverLength) -> EncodedSplit:
        return encoder_of(llama, Sequence(max_tokens=20, over_length=policy)).encode(dataset, "train")

    with pytest.raises(InvalidError, match="row long has") as caught:
        under(OverLength.RAISE)
    assert caught.value.reason == "ROW_TOO_LONG"
    cut = under(OverLength.TRUNCATE)
    assert (cut.truncated, cut.ledger.kept) == (1, 2)
    dropped = under(OverLength.DROP)
    assert [entry.disposition for entry in dropped.entries] == [Disposition.KEPT, Disposition.DROPPED]
    assert dropped.ledger.by_reason == {"ROW_TOO_LONG": 1}


@pytest.mark.parametrize("marked", [True, False])
def test_truncation_ends_with_a_whole_turn(llama: Path, tmp_path: Path, *, marked: bool) -> None:
    """However little fits: what is left is what the template makes of the first turns, or nothing."""
    words = ("red", "green blue", "yellow red green", "blue")
    dataset = write_dataset(tmp_path / "dataset", [row("a", "train", turns_of(*words))], shards=1)
    ends = set[int]()
    for limit in range(2, 60):
        encoder = encoder_of(llama, Sequence(max_tokens=limit, over_length=OverLength.TRUNCATE))
        if not marked:
            encoder.processor.chat_template = without_marks(encoder.processor.chat_template)
        encoded = encoder.encode(dataset, "train")
        if not encoded.samples:
            assert encoded.ledger.by_reason == {"NO_TURN_FITS": 1}
            assert encoded.entries[0].disposition is Disposition.DROPPED
            continue
        [sample] = encoded.samples
        wholes = [
            render(encoder.processor, turns_of(*words[:count]), parts=False).text for count in range(1, 5)
        ]
        fitting = [ids for ids in encoder.tokenizer(wholes)["input_ids"] if len(ids) <= limit]
        assert sample.input_ids_T.tolist() == fitting[-1]
        assert encoded.truncated == (len(fitting) < len(words))
        ends.add(sample.size)
    assert len(ends) == len(words)


def without_marks(template: str) -> str:
    return template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")


def test_truncation_never_cuts_an_image(llava: Path, tmp_path: Path) -> None:
    """The first turn stays with its picture; the second one's picture goes with the turn."""
    again = [message("user", "and", "<picture>"), message("assistant", "green")]
    rows = [row("both", "train", [*TURNS, *again], red(), red()), row("none", "train", [*again], red())]
    encoder = encoder_of(llava, Sequence(max_tokens=64, over_length=OverLength.TRUNCATE))
    both, _ = encode(encoder, tmp_path / "some", rows).samples
    assert [place.number for place in both.images] == [0]
    assert (both.input_ids_T == encoder.image_token_id).sum() == 49
    encoder = encoder_of(llava, Sequence(max_tokens=40, over_length=OverLength.TRUNCATE))
    assert encode(encoder, tmp_path / "nothing", rows).ledger.by_reason == {"NO_TURN_FITS": 2}


def test_a_processor_that_counts_otherwise_than_the_model_is_refused(llava: Path, tmp_path: Path) -> None:
    encoder = encoder_of(llava)
    encoder.processor.num_additional_image_tokens = 0
    with pytest.raises(InvalidError) as caught:
        encode(encoder, tmp_path, [row("a", "train", TURNS, red())])
    assert caught.value.reason == "PLACEHOLDER_MISMATCH"


def test_an_empty_split_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"it has 2 in test.* may be empty") as caught:
        encode(encoder_of(llama), tmp_path, list(text_rows({"test": 2})))
    assert caught.value.reason == "SPLIT_EMPTY"


def test_pictures_beyond_the_cache_are_made_again_alike(llava: Path, tmp_path: Path) -> None:
    encoder = encoder_of(llava)
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 40})))
    encoded = encoder.encode(dataset, "train")
    for sample in encoded.samples:
        [place] = sample.images
        cached = encoded.pictures.load(place)
        again = replace(encoded.pictures, kept=ArrayFile(0)).load(place)
        assert again.keys() == cached.keys()
        assert all(np.array_equal(again[name], cached[name]) for name in again)
    assert len({read_images(dataset, sample.images[0].location) for sample in encoded.samples}) == 40


def test_a_shard_that_is_no_parquet_is_named(llama: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 4})))
    shard = json.loads((dataset / "manifest.json").read_text())["shards"][0]["path"]
    (dataset / shard).write_bytes(b"PAR1")
    with pytest.raises(InvalidError, match="part-00000") as caught:
        encoder_of(llama).encode(dataset, "train")
    assert caught.value.reason == "DATASET_CORRUPT"
