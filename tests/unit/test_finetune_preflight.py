"""A preflight shows what the training's own encoder and collator make of the rows, and refuses what they
would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.finetune import Evaluation, Optimization, OverLength, Sequence, Task
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune import loop
from finemesh.finetune.batches import Batch, collate
from finemesh.finetune.models import load_model
from finemesh.finetune.objectives import conversation
from finemesh.finetune.preflight import preflight_dataset
from finemesh.finetune.preflight_page import page_of
from finemesh.finetune.preflight_report import PreflightReport, Segment, Severity, ShownRow, histogram_of

from tests.support.conversations import (
    QUESTION,
    colour_rows,
    message,
    picture,
    row,
    spec,
    text_rows,
    tiny_model,
    write_dataset,
)

PATCHES = 49  # (112 px / 16 px) squared
SPLITS = {"train": 12, "val": 3, "test": 3}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llava"), "llava")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llama"), "llama")


def red() -> bytes:
    return picture("red", np.random.default_rng(0))


def chat(row_id: str, *words: str, split: str = "train") -> dict[str, Any]:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant")
    return row(row_id, split, [message(roles[i % 2], text) for i, text in enumerate(words)])


def options(task: Task = Task.LANGUAGE, shown_rows: int = 5, **changes: Any) -> PreflightOptions:
    changed = {"validation_split": "", "test_split": "", **changes}
    return PreflightOptions(spec(task, **changed), shown_rows=shown_rows)


def ids_of(shown: ShownRow) -> list[int]:
    return [each for part in shown.segments for each in (part.ids * part.count if part.image else part.ids)]


def loss_of(shown: ShownRow) -> list[bool]:
    return [part.loss for part in shown.segments for _ in range(part.count)]


def said(segments: Iterator[Segment] | list[Segment]) -> str:
    return "".join(text for part in segments for text in part.texts)


def reasons(report: PreflightReport, severity: Severity) -> set[str]:
    return {problem.reason for problem in report.problems if problem.severity is severity}


def test_a_handmade_conversation_carries_loss_where_the_assistant_speaks(llava: Path, tmp_path: Path) -> None:
    turns = [
        message("user", "Look."),
        message("assistant", "green"),
        message("user", "<picture>", QUESTION),
        message("assistant", "red"),
    ]
    dataset = write_dataset(tmp_path / "dataset", [row("a", "train", turns, red())], shards=1)
    report = preflight_dataset(options(Task.VISION_LANGUAGE), llava, dataset)
    [shown] = report.shown
    image = "<image>"
    assert said([part for part in shown.segments if part.loss]) == "green</s>red</s>"
    assert (
        said(list(shown.segments))
        == f"<s><|user|>Look.<|assistant|>green</s><|user|>{image}{QUESTION}<|assistant|>red</s>"
    )
    [placeholders] = [part for part in shown.segments if part.image]
    assert (placeholders.count, placeholders.texts, placeholders.turn) == (PATCHES, (image,), 2)
    assert [part.role for part in shown.segments if part.loss] == ["assistant", "assistant"]
    assert [turn.loss_tokens > 0 for turn in shown.turns] == [False, True, False, True]
    assert sum(turn.tokens for turn in shown.turns) == shown.figures.tokens == len(ids_of(shown))
    assert (shown.figures.placeholders, shown.figures.features) == (PATCHES, PATCHES)
    assert report.verdict == "PASSED"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sequence": Sequence(packing=False)},
        {"sequence": Sequence(packing=False, length_grouping=True)},
        {"evaluation": Evaluation(holdout_fraction=0.3)},
    ],
)
def test_what_is_shown_is_what_the_training_collates(
    llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """One epoch of the real loop, its collator overheard: same ids, same labels, same largest batch."""
    rows = list(colour_rows(SPLITS))
    for number, each in enumerate(rows):
        each["messages"][1]["content"][0]["text"] += " so" * (number % 5)
    dataset = write_dataset(tmp_path / "dataset", rows)
    wanted = options(
        Task.VISION_LANGUAGE,
        shown_rows=12,
        **changes,
        optimization=Optimization(micro_batch_size=5, gradient_accumulation_steps=2, epochs=2, seed=4),
    )
    report = preflight_dataset(wanted, llava, dataset)
    heard: list[tuple[list[Any], Batch]] = []

    def overhear(samples: list[Any], *args: Any, **kwargs: Any) -> Batch:
        batch = collate(samples, *args, **kwargs)
        heard.append((samples, batch))
        return batch

    monkeypatch.setattr(conversation, "collate", overhear)
    loop.train(wanted.spec, base_model=llava, dataset=dataset, work=tmp_path / "work")
    trained = {sample.row_id: sample for samples, _ in heard for sample in samples}
    shown = {each.figures.row_id: each for each in report.shown}
    assert shown.keys() >= trained.keys()
    assert len(shown) == len(trained) or "evaluation" in changes
    for row_id, sample in trained.items():
        assert ids_of(shown[row_id]) == sample.input_ids_T.tolist()
        assert loss_of(shown[row_id]) == sample.loss_T.tolist()
    longest = report.longest_batch
    assert longest
    samples, batch = max(heard, key=lambda each: each[1].inputs["input_ids"].numel())
    assert longest.row_ids == tuple(sample.row_id for sample in samples)
    assert longest.input_shape == tuple(batch.inputs["input_ids"].shape)
    assert longest.pixel_shape == tuple(batch.inputs["pixel_values"].shape)
    assert longest.loss_tokens == len(batch.targets_N)
    assert longest.tokens - longest.padding == batch.units


def test_features_are_those_of_the_vision_tower_itself(llava: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 1})), shards=1)
    report = preflight_dataset(options(Task.VISION_LANGUAGE), llava, dataset)
    model = load_model(spec(), llava)
    assert report.longest_batch
    pixels = torch.zeros(report.longest_batch.pixel_shape)
    with torch.no_grad():
        made: Any = model.module.get_base_model().get_image_features(pixel_values=pixels).pooler_output
    assert {len(each) for each in made} == {report.splits[0].features} == {report.splits[0].placeholders}


def test_the_sums_agree_with_a_count_by_hand(llama: Path, tmp_path: Path) -> None:
    """Bytes are tokens for a text that the tokenizer never saw: lengths are known in advance."""
    rows = [chat(f"r{n}", "@" * n, "#" * (2 * n)) for n in (1, 5, 9)]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    report = preflight_dataset(options(sequence=Sequence(packing=False)), llama, dataset)
    [split] = report.splits
    header = 3  # <s><|user|> and <|assistant|>
    assert split.loss_tokens == sum(2 * n + 1 for n in (1, 5, 9))
    assert split.tokens == sum(header + n + 2 * n + 1 for n in (1, 5, 9))
    assert [each.row_id for each in report.longest] == ["r9", "r5", "r1"]
    assert sum(report.histogram.tokens) == sum(report.histogram.loss_tokens) == split.rows == 3
    assert report.longest_batch
    assert report.longest_batch.input_shape == (4, 31)  # four of the three rows: the epoch begins again
    assert report.longest_batch.worst_tokens == 4 * 31
    json.dumps(report.to_json())


def test_characters_of_several_tokens_are_written_once(llama: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", [chat("a", "¿qué?", "日本 🎉 e\u0301")], shards=1)
    [shown] = preflight_dataset(options(), llama, dataset).shown
    assert said(list(shown.segments)) == "<s><|user|>¿qué?<|assistant|>日本 🎉 e\u0301</s>"


@pytest.mark.parametrize(
    ("policy", "outcome", "severity", "reason"),
    [
        (OverLength.RAISE, "REFUSED", Severity.ERROR, "ROW_TOO_LONG"),
        (OverLength.TRUNCATE, "DROPPED", Severity.WARNING, "NO_TURN_FITS"),
        (OverLength.DROP, "DROPPED", Severity.WARNING, "ROW_TOO_LONG"),
    ],
)
def test_long_rows_say_what_would_be_cut(
    llama: Path, tmp_path: Path, policy: OverLength, outcome: str, severity: Severity, reason: str
) -> None:
    rows = [chat("short", "@", "#"), chat("long", "@", "#" * 20 + "!" * 4)]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    report = preflight_dataset(options(sequence=Sequence(max_tokens=24, over_length=policy)), llama, dataset)
    [long] = report.over_length
    assert (long.row_id, long.outcome, long.tokens) == ("long", outcome, 29)
    assert (long.cut_tokens, long.cut_loss_tokens, long.cut_text) == (5, 5, "!!!!</s>")
    shown = next(each for each in report.shown if each.figures.row_id == "long")
    assert said([part for part in shown.segments if part.cut]) == "!!!!</s>"
    assert not any(part.loss for part in shown.segments if part.cut)
    assert reason in reasons(report, severity)


def test_a_cut_row_shows_what_is_cut_after_its_last_whole_turn(llama: Path, tmp_path: Path) -> None:
    rows = [chat("long", "@", "#", "@", "#" * 20)]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    sequence = Sequence(max_tokens=24, over_length=OverLength.TRUNCATE)
    report = preflight_dataset(options(sequence=sequence), llama, dataset)
    [long] = report.over_length
    tail = f"<|user|>@<|assistant|>{'#' * 20}</s>"
    assert (long.outcome, long.cut_tokens, long.cut_loss_tokens) == ("TRUNCATED", 24, 21)
    assert (long.cut_text, long.reason) == (tail, "")
    assert said([part for part in report.shown[0].segments if part.cut]) == tail
    assert "ROW_TRUNCATED" in reasons(report, Severity.WARNING)


def test_masked_rows_fail_above_their_share(llama: Path, tmp_path: Path) -> None:
    rows = [chat("mute", "nothing follows"), *(chat(f"r{n}", "@", "#") for n in range(9))]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    wanted = options(max_quarantined_fraction=0.5)
    strict = preflight_dataset(wanted, llama, dataset)
    assert [each.row_id for each in strict.all_masked] == ["mute"]
    assert reasons(strict, Severity.ERROR) == {"NO_LOSS_TOKENS"}
    lenient = preflight_dataset(replace(wanted, max_masked_fraction=0.1), llama, dataset)
    assert (lenient.verdict, reasons(lenient, Severity.WARNING)) == (
        "PASSED_WITH_WARNINGS",
        {"NO_LOSS_TOKENS"},
    )


def test_a_processor_that_counts_otherwise_than_the_model_fails(llava: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in llava.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    settings = json.loads((base / "processor_config.json").read_text())
    settings["num_additional_image_tokens"] = 0
    (base / "processor_config.json").write_text(json.dumps(settings))
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 4})))
    report = preflight_dataset(options(Task.VISION_LANGUAGE), base, dataset)
    assert reasons(report, Severity.ERROR) == {"PLACEHOLDER_MISMATCH"}
    assert report.splits[0].mismatched == report.splits[0].refused == 4
    assert [(row.placeholders, row.features) for row in report.mismatched] == [(PATCHES - 1, PATCHES)] * 4
    assert report.longest_batch is None


def test_rows_that_never_become_tokens_are_named(llava: Path, tmp_path: Path) -> None:
    good = [message("user", "<picture>", QUESTION), message("assistant", "red")]
    rows = [row("good", "train", good, red()), row("torn", "train", good, red()[:100])]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    report = preflight_dataset(options(Task.VISION_LANGUAGE), llava, dataset)
    assert [(each.row_id, each.reason) for each in report.not_trained] == [("torn", "IMAGE_UNREADABLE")]
    assert reasons(report, Severity.ERROR) == {"LOSS_BUDGET_EXCEEDED"}
    assert reasons(report, Severity.WARNING) == {"IMAGE_UNREADABLE"}


def test_every_split_is_looked_at_and_must_have_rows(llama: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 4, "val": 2})))
    wanted = options(validation_split="val", test_split="test")
    report = preflight_dataset(wanted, llama, dataset)
    assert [(each.split, each.rows) for each in report.splits] == [("train", 4), ("val", 2), ("test", 0)]
    assert reasons(report, Severity.ERROR) == {"SPLIT_EMPTY"}
    with pytest.raises(PreconditionError) as caught:
        preflight_dataset(options(train_split="other"), llama, dataset)
    assert caught.value.reason == "SPLIT_EMPTY"


def test_what_cannot_be_held_out_is_a_finding(llama: Path, tmp_path: Path) -> None:
    alone = [dict(each, video_id="alone") for each in text_rows({"train": 4})]
    dataset = write_dataset(tmp_path / "dataset", alone)
    report = preflight_dataset(options(evaluation=Evaluation(holdout_fraction=0.5)), llama, dataset)
    assert reasons(report, Severity.ERROR) == {"HOLDOUT_IMPOSSIBLE"}


def test_the_task_can_be_told_from_the_model(llava: Path, llama: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 2})))
    wanted = replace(options(Task.LANGUAGE), detect_task=True)
    assert preflight_dataset(wanted, llava, dataset).model.task == "VISION_LANGUAGE"
    blind = preflight_dataset(wanted, llama, dataset)
    assert blind.model.task == "LANGUAGE"
    assert {each.reason for each in blind.not_trained} == {"IMAGE_FOR_LANGUAGE_MODEL"}


def test_calls_of_tools_are_learnt(llama: Path, tmp_path: Path) -> None:
    turns = [
        message("user", "@"),
        message("assistant", "#", tool_calls='[{"name": "now", "arguments": {}}]'),
        message("user", "@", train=False),
        message("assistant", "!", train=False),
    ]
    tools = json.dumps([{"name": "now", "parameters": {}}])
    dataset = write_dataset(tmp_path / "dataset", [row("a", "train", turns) | {"tools": tools}], shards=1)
    report = preflight_dataset(options(), llama, dataset)
    assert said([part for part in report.shown[0].segments if part.loss]) == (
        '#<call>{"name": "now", "arguments": {}}</call></s>'
    )
    assert [bool(turn.loss_tokens) for turn in report.shown[0].turns] == [False, True, False, False]


def edited_template(llama: Path, folder: Path, edit: Any) -> Path:
    folder.mkdir()
    for path in llama.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    if edited := edit(template):
        (folder / "chat_template.jinja").write_text(edited)
    return folder


def test_templates_that_do_not_serve_are_named(llama: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 2})))

    def under(name: str, edit: Any) -> PreflightReport:
        return preflight_dataset(options(), edited_template(llama, tmp_path / name, edit), dataset)

    with pytest.raises(InvalidError) as caught:
        under("none", lambda _: "")
    assert caught.value.reason == "TEMPLATE_MISSING"
    picky = under("picky", lambda text: text + "{{ raise_exception('roles must alternate') }}")
    assert reasons(picky, Severity.ERROR) == {"TEMPLATE_REFUSED"}
    assert "roles must alternate" in picky.problems[0].message
    whole = under(
        "whole",
        lambda text: (
            "{%- generation -%}" + re.sub(r"{%-? ?(end)?generation ?-?%}", "", text) + "{%- endgeneration -%}"
        ),
    )
    assert reasons(whole, Severity.WARNING) == {"PROMPT_NOT_MASKED"}
    plain = under("plain", lambda text: re.sub(r"{%-? ?(end)?generation ?-?%}", "", text))
    marked = preflight_dataset(options(), llama, dataset)
    assert (plain.model.template, marked.model.template) == ("by turns", "marked")
    assert [loss_of(each) for each in plain.shown] == [loss_of(each) for each in marked.shown]


def test_what_is_no_model_or_no_conversation_is_refused(llama: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", [row("a", "train", [], red())], shards=1)
    with pytest.raises(NotFoundError) as missing:
        preflight_dataset(options(), tmp_path, dataset)
    assert missing.value.reason == "BASE_MODEL_NOT_FOUND"
    with pytest.raises(InvalidError) as unsuitable:
        preflight_dataset(options(Task.VISION_LANGUAGE), llama, dataset)
    assert unsuitable.value.reason == "BASE_MODEL_UNSUITABLE"
    with pytest.raises(PreconditionError) as silent:
        preflight_dataset(options(), llama, dataset)
    assert silent.value.reason == "NO_CONVERSATIONS"


def test_options_name_what_is_wrong() -> None:
    with pytest.raises(InvalidError) as caught:
        PreflightOptions(spec(), shown_rows=-1, max_masked_fraction=2)
    assert [each.field for each in caught.value.violations] == [
        "options.shown_rows",
        "options.max_masked_fraction",
    ]


@pytest.mark.parametrize(
    ("tokens", "width"), [([3, 7], 1), ([19], 1), ([20], 2), ([1000, 1], 100), ([4095], 500), ([], 0)]
)
def test_histograms_have_at_most_twenty_round_buckets(tokens: list[int], width: int) -> None:
    made = histogram_of(tokens, tokens)
    assert sum(made.tokens) == len(tokens)
    assert len(made.tokens) <= 21
    assert {after - before for before, after in zip(made.edges, made.edges[1:], strict=False)} <= {width}
    for count, edge in zip(made.tokens, made.edges, strict=False):
        assert count == sum(edge <= value < edge + width for value in tokens)


class Page(HTMLParser):
    """What a browser would make of the page: its tags, and the tokens of the rows with their titles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.tokens: list[tuple[str, str]] = []
        self.images: list[str] = []
        self._open: str = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = "i" if tag == "i" else "image" if "image" in (dict(attrs).get("class") or "") else ""
        if tag == "i":
            self.tokens.append((dict(attrs)["title"] or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "i":
            title, text = self.tokens[-1]
            self.tokens[-1] = (title, text + data)
        elif self._open == "image":
            self.images.append(data)


def test_the_page_shows_every_token_and_lets_no_text_become_markup(llava: Path, tmp_path: Path) -> None:
    hostile = "</pre><script>alert(1)</script><!-- & {title} \"'"
    turns = [message("user", "<picture>", hostile), message("assistant", hostile)]
    made = row(f"<b>{hostile}", "train", turns, red())
    dataset = write_dataset(tmp_path / "dataset", [made], shards=1)
    report = preflight_dataset(options(Task.VISION_LANGUAGE), llava, dataset)
    page = Page(text := page_of(report))
    [shown] = report.shown
    assert not {"script", "b", "img", "link"} & set(page.tags)
    assert page.tokens == [
        (str(token), word)
        for part in shown.segments
        if not part.image
        for token, word in zip(part.ids, part.texts, strict=True)
    ]
    assert page.images == [f"<image x {PATCHES}>"]
    assert "http" not in text.replace("http-equiv", "")


def test_the_page_stays_below_its_limit(llama: Path, tmp_path: Path) -> None:
    rows = [chat(f"r{n}", "&" * 400, "<" * 400) for n in range(30)]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    report = preflight_dataset(options(shown_rows=50), llama, dataset)
    assert len(report.shown) == 30
    many = replace(report, shown=report.shown * 20)
    assert 2_000_000 < len(page_of(many).encode()) < 3_000_000
    assert "more rows do not fit" in page_of(many)
