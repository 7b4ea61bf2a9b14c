"""A look, on a CPU, at what a fine-tune would be trained on: which tokens carry loss, whether placeholders
equal image features, what is too long, and the longest batch.

Rows are encoded by the `Encoder` and batched by the `cut` and `collate` of the training, with the base
model's own processor and config; its weights are not read.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Task
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune.batches import collate, cut
from finemesh.finetune.chat import is_marked
from finemesh.finetune.encoding import Encoder
from finemesh.finetune.families import family_of
from finemesh.finetune.families.family import FROM_FOLDER
from finemesh.finetune.holdout import hold_out
from finemesh.finetune.models import load_processor
from finemesh.finetune.objectives.objective import Split
from finemesh.finetune.preflight_problems import find_problems
from finemesh.finetune.preflight_report import (
    LongestBatch,
    ModelFacts,
    PreflightReport,
    Problem,
    RowFigures,
    Severity,
    histogram_of,
    verdict_of,
)
from finemesh.finetune.preflight_tally import EXAMPLES, Kept, Tally, Watcher
from finemesh.finetune.rows import no_rows, read_manifest, read_rows
from finemesh.finetune.run import sample_order, total_steps

Progress = Callable[[float, str], None]

_ENCODING_SHARE: Final = 0.9  # of the progress; the longest batch is the rest
# Samples of a run that are looked at for its longest batch: half a minute's worth.
_MAX_POSITIONS: Final = 5_000_000


def preflight_dataset(
    options: PreflightOptions, base_model: Path, dataset: Path, progress: Progress = lambda *_: None
) -> PreflightReport:
    """Encode every row that the spec would train, validate or test on, and report what was seen.

    Args:
        options: the fine-tune, and what is to be shown.
        base_model: local folder of the base model; config, tokenizer and processor are enough.
        dataset: local folder of a canonical dataset.
        progress: is told the share of the work that is done.

    Raises:
        NotFoundError: BASE_MODEL_NOT_FOUND, PROCESSOR_NOT_FOUND, DATASET_NOT_FOUND.
        InvalidError: BASE_MODEL_UNSUITABLE, BASE_MODEL_UNREADABLE, TEMPLATE_MISSING, DATASET_CORRUPT;
            PREFLIGHT_UNSUITABLE, the task knows no tokens.
        PreconditionError: SPLIT_EMPTY, the training split has no rows; NO_CONVERSATIONS.
    """
    spec = options.spec
    if spec.task not in TEXT_TOWERS:
        raise InvalidError.of(
            "spec.task",
            f"a preflight looks at tokens, and {spec.task} has none: submit the job, whose ledger says "
            "what it leaves out",
            reason="PREFLIGHT_UNSUITABLE",
        )
    task = detect_task(base_model) if options.detect_task else spec.task
    family = family_of(base_model, task)
    encoder = Watcher(family, load_processor(base_model, family), _load_config(base_model), spec.sequence)
    tallies = _examine(options, encoder, dataset, progress)
    progress(_ENCODING_SHARE, "collating the longest batch")
    model = _model_facts(spec, task, encoder)
    trained, impossible = _trained_on(spec, dataset, tallies)
    problems = (*impossible, *find_problems(options, dataset, tallies, model))
    return PreflightReport(
        dataset_digest=read_manifest(dataset).digest,
        model=model,
        max_tokens=spec.sequence.max_tokens,
        over_length_policy=spec.sequence.over_length.value,
        packing=spec.sequence.packing,
        verdict=verdict_of(problems),
        problems=problems,
        splits=tuple(tally.figures() for tally in tallies),
        histogram=histogram_of(
            [*chain.from_iterable(tally.tokens for tally in tallies)],
            [*chain.from_iterable(tally.loss_tokens for tally in tallies)],
        ),
        longest_batch=_longest_batch(spec, encoder, dataset, trained),
        longest=_longest(tallies),
        over_length=_examples(tallies, "over_length"),
        all_masked=_examples(tallies, "all_masked"),
        mismatched=_examples(tallies, "mismatched"),
        not_trained=_examples(tallies, "not_trained"),
        shown=tuple(tallies[0].shown),
    )


def detect_task(base_model: Path) -> Task:
    """The task that the model in a folder is for. Raises NotFoundError, reason BASE_MODEL_NOT_FOUND."""
    try:
        family_of(base_model, Task.VISION_LANGUAGE)
    except InvalidError:
        return Task.LANGUAGE
    return Task.VISION_LANGUAGE


def _examine(options: PreflightOptions, encoder: Watcher, dataset: Path, progress: Progress) -> list[Tally]:
    """The splits in the order of the spec, the training split first."""
    spec, tallies = options.spec, list[Tally]()
    sizes = read_manifest(dataset).splits
    splits = {spec.train_split: 0, spec.validation_split: spec.evaluation.max_items, spec.test_split: 0}
    total = sum(sizes.get(split, 0) for split in splits) or 1
    for split, limit in splits.items():
        if not split:
            continue
        before = sum(tally.rows for tally in tallies)

        def on_rows(rows: int, split: str = split, before: int = before) -> None:
            share = min(1.0, (before + rows) / total)
            progress(_ENCODING_SHARE * share, f"encoding split {split!r}, {rows} rows done")

        shown_rows = 0 if tallies else options.shown_rows
        tally = encoder.examine(dataset, split, limit=limit, shown_rows=shown_rows, on_rows=on_rows)
        if not tallies:
            _check_train_split(dataset, tally)
        tallies.append(tally)
    return tallies


def _check_train_split(dataset: Path, tally: Tally) -> None:
    if not tally.rows:
        raise no_rows(dataset, tally.split)
    if not tally.spoken:
        raise PreconditionError(
            "no row of the dataset has messages, so there is nothing to be trained on: convert it with an "
            "instruction task first",
            reason="NO_CONVERSATIONS",
        )


def _load_config(base_model: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base_model, **FROM_FOLDER)
    except (OSError, ValueError) as error:
        raise InvalidError.of(
            "spec.base_model", f"{base_model} does not load: {error}", reason="BASE_MODEL_UNREADABLE"
        ) from error


def _model_facts(spec: FineTuneSpec, task: Task, encoder: Encoder) -> ModelFacts:
    config = encoder.config
    return ModelFacts(
        base_model=spec.base_model,
        family=encoder.family.name,
        model_type=config.model_type,
        task=task.value,
        template="marked" if is_marked(encoder.processor.chat_template) else "by turns",
        vocab_size=len(encoder.tokenizer),
        max_positions=int(getattr(config.get_text_config(), "max_position_embeddings", None) or 0),
        image_token=encoder.image_token,
        image_token_id=encoder.image_token_id,
    )


def _longest(tallies: Sequence[Tally]) -> tuple[RowFigures, ...]:
    entries = chain.from_iterable(tally.longest for tally in tallies)
    return tuple(row for _, _, row in heapq.nlargest(EXAMPLES, entries, key=lambda entry: entry[:2]))


def _examples(tallies: Sequence[Tally], kind: str) -> tuple[RowFigures, ...]:
    return tuple(chain.from_iterable(tally.examples.get(kind, ()) for tally in tallies))[:EXAMPLES]


def _trained_on(
    spec: FineTuneSpec, dataset: Path, tallies: Sequence[Tally]
) -> tuple[list[Kept], list[Problem]]:
    """The samples of the training split but those that are held out of it, and why none can be."""
    train, share = tallies[0], spec.evaluation.holdout_fraction
    validated = any(tally.rows for tally in tallies if tally.split == spec.validation_split)
    if validated or not share:
        return train.samples, []
    row_ids = (row.row_id for row in read_rows(dataset, train.split, columns=("row_id",)))
    entries = [LedgerEntry(row_id, Disposition.KEPT) for row_id in row_ids]
    split = Split(train.samples, entries, 0)
    try:
        return hold_out(split, dataset, train.split, share, spec.optimization.seed)[0].samples, []
    except PreconditionError as error:
        return train.samples, [Problem(Severity.ERROR, error.reason, error.message)]


class _Place(NamedTuple):
    """A micro batch of the run; `tokens` with padding. Both counts start at 0."""

    tokens: int
    step: int
    micro_batch: int
    samples: list[Kept]


def _longest_batch(
    spec: FineTuneSpec, encoder: Encoder, dataset: Path, samples: list[Kept]
) -> LongestBatch | None:
    """Follow the order of the training to its largest forward pass, and make that as the training does."""
    if not samples:
        return None
    place, steps = _find_longest(spec, samples)
    wanted = {sample.row_id for sample in place.samples}
    rows = [row for row in read_rows(dataset, spec.train_split) if row.row_id in wanted]
    plain = Encoder(encoder.family, encoder.processor, encoder.config, encoder.sequence)
    encoded = plain.encode_rows(dataset, rows)
    by_id = {sample.row_id: sample for sample in encoded.samples}
    pad_id = encoder.tokenizer.pad_token_id
    batch = collate(
        [by_id[sample.row_id] for sample in place.samples],
        encoded.pictures,
        packing=spec.sequence.packing,
        pad_id=0 if pad_id is None else int(pad_id),
    )
    pixels = batch.inputs.get("pixel_values")
    tokens = int(batch.inputs["input_ids"].numel())
    longest = heapq.nlargest(len(place.samples), (sample.size for sample in samples))
    worst = sum(longest) if spec.sequence.packing else longest[0] * len(place.samples)
    return LongestBatch(
        step=place.step + 1,
        micro_batch=place.micro_batch + 1,
        row_ids=tuple(sample.row_id for sample in place.samples),
        input_shape=tuple(batch.inputs["input_ids"].shape),
        tokens=tokens,
        padding=tokens - batch.units,
        loss_tokens=len(batch.targets_N),
        pixel_shape=() if pixels is None else tuple(pixels.shape),
        steps=steps,
        worst_tokens=max(worst, tokens),
    )


def _find_longest(spec: FineTuneSpec, samples: list[Kept]) -> tuple[_Place, int]:
    """The micro batch with the most tokens, and how many steps were looked at."""
    optimization = spec.optimization
    per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps
    order = sample_order(spec, samples)
    steps = min(total_steps(spec, len(samples)), max(1, _MAX_POSITIONS // per_step))
    longest = _Place(0, 0, 0, [])
    for step in range(steps):
        taken = [samples[index] for index in order.take(step * per_step, per_step)]
        for number, part in enumerate(cut(taken, optimization.micro_batch_size)):
            tokens = _computed_tokens(part, packing=spec.sequence.packing)
            if tokens > longest.tokens:
                longest = _Place(tokens, step, number, part)
    return longest, steps


def _computed_tokens(part: Sequence[Kept], *, packing: bool) -> int:
    """Tokens of a forward pass, padding included."""
    lengths = [sample.size for sample in part]
    return sum(lengths) if packing else max(lengths) * len(lengths)
