"""A preflight as one HTML page that needs nothing else: figures, histogram, and rows token by token."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from finemesh.finetune.preflight_report import (
    Histogram,
    LongestBatch,
    PreflightReport,
    RowFigures,
    Segment,
    ShownRow,
    SplitFigures,
)

MAX_PAGE_BYTES: Final = 2_900_000
_MAX_CELL_CHARACTERS: Final = 400
_PLOT_PX: Final = (960, 180)
_LEGEND: Final = (
    '<span class="key all"></span> all tokens <span class="key loss"></span> tokens with loss; '
    "dashed: max_tokens"
)

Cell = str | int


def page_of(report: PreflightReport) -> str:
    """The page, below 3 MB: rows that no longer fit are left out, and it says how many."""
    words = report.verdict.value.replace("_", " ").lower()
    top = "".join([_facts(report), *_sums(report), _histogram(report.histogram, report.max_tokens)])
    tables = "".join(_row_tables(report))
    rows = [_row(shown) for shown in report.shown]
    room = MAX_PAGE_BYTES - len(_PAGE) - len(top.encode()) - len(tables.encode())
    fitting = 0
    for row in rows:
        room -= len(row.encode())
        if room < 0:
            break
        fitting += 1
    left_out = f"<p>{len(rows) - fitting} more rows do not fit on this page.</p>" * (fitting < len(rows))
    return _PAGE.format(
        title=_text(f"Preflight: {words}"),
        verdict=report.verdict.value.lower(),
        top=top,
        rows="".join(rows[:fitting]) + left_out or "<p>None.</p>",
        tables=tables,
    )


def _facts(report: PreflightReport) -> str:
    model, batch = report.model, report.longest_batch
    how = "packed into one row" if report.packing else "padded to one length"
    kind = f"{model.model_type}, {model.task.replace('_', ' ').lower()}, {model.vocab_size} tokens"
    limit = f"At most {report.max_tokens} tokens a row, then {report.over_length_policy}"
    lines = [
        f"Model {model.base_model}: {kind}, chat template {model.template}.",
        f"{limit}; micro batches are {how}.",
        f"Dataset {report.dataset_digest}.",
    ]
    if batch:
        lines.append(_longest_batch(batch))
    return "".join(f"<p>{_text(line)}</p>" for line in lines)


def _longest_batch(batch: LongestBatch) -> str:
    pictures = f", pictures {' x '.join(map(str, batch.pixel_shape))}" if batch.pixel_shape else ""
    return (
        f"Longest batch: {' x '.join(map(str, batch.input_shape))} = {batch.tokens} tokens "
        f"({batch.padding} of padding), {batch.loss_tokens} with loss{pictures}; micro batch "
        f"{batch.micro_batch} of step {batch.step}, of {batch.steps} steps. The longest rows together would "
        f"make {batch.worst_tokens}."
    )


def _sums(report: PreflightReport) -> Iterable[str]:
    yield _table(
        "Problems",
        ("severity", "reason", "rows", "what"),
        [(each.severity.value, each.reason, each.rows or "", each.message) for each in report.problems],
    )
    yield _table("Splits", _SPLIT_HEADER, [_split(split) for split in report.splits])


def _row_tables(report: PreflightReport) -> Iterable[str]:
    yield _table(
        "Placeholders that are not features",
        ("row", "split", "placeholders", "features"),
        [(row.row_id, row.split, row.placeholders, row.features) for row in report.mismatched],
    )
    yield _row_table("Rows without a token to learn from", report.all_masked)
    yield _table(
        f"Rows of more than {report.max_tokens} tokens",
        ("row", "split", "outcome", "tokens", "beyond", "of them with loss", "what lies beyond"),
        [
            (r.row_id, r.split, r.outcome.value, r.tokens, r.cut_tokens, r.cut_loss_tokens, r.cut_text)
            for r in report.over_length
        ],
    )
    others = [row for row in report.not_trained if row not in report.all_masked]
    yield _row_table("Rows that are not trained on for another reason", others)
    yield _row_table("Longest rows", report.longest)


_SPLIT_HEADER: Final = (
    "split",
    "rows",
    "kept",
    "truncated",
    "dropped",
    "quarantined",
    "refused",
    "tokens",
    "with loss",
    "placeholders",
    "features",
    "reasons",
)


def _split(split: SplitFigures) -> tuple[Cell, ...]:
    return (
        split.split,
        split.rows,
        split.kept,
        split.truncated,
        split.dropped,
        split.quarantined,
        split.refused,
        split.tokens,
        f"{split.loss_tokens} ({split.loss_tokens / max(split.tokens, 1):.1%})",
        split.placeholders,
        split.features,
        ", ".join(f"{reason} {count}" for reason, count in split.by_reason.items()),
    )


def _row_table(title: str, rows: Sequence[RowFigures]) -> str:
    return _table(
        title,
        ("row", "split", "outcome", "tokens", "with loss", "reason", "message"),
        [
            (row.row_id, row.split, row.outcome.value, row.tokens, row.loss_tokens, row.reason, row.message)
            for row in rows
        ],
    )


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table; nothing without rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<h2>{_text(title)}</h2><div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _cell(value: Cell) -> str:
    if isinstance(value, int):
        return f'<td class="n">{value}</td>'
    clipped = value if len(value) <= _MAX_CELL_CHARACTERS else f"{value[:_MAX_CELL_CHARACTERS]}…"
    return f"<td>{_text(clipped)}</td>"


def _histogram(histogram: Histogram, max_tokens: int) -> str:
    """Both distributions as bars beside each other, and a line at the limit where it is in sight."""
    if not histogram.tokens:
        return ""
    width, height = _PLOT_PX
    slot = width / len(histogram.tokens)
    tallest = max(*histogram.tokens, *histogram.loss_tokens)
    parts: list[str] = []
    for index, pair in enumerate(zip(histogram.tokens, histogram.loss_tokens, strict=True)):
        low, high = histogram.edges[index], histogram.edges[index + 1]
        for place, (kind, count) in enumerate(zip(("all", "loss"), pair, strict=True)):
            tall = height * count / tallest
            x = slot * (index + 0.1 + 0.4 * place)
            what = "tokens" if kind == "all" else "tokens with loss"
            if count:
                middle = f'x="{x + 0.19 * slot:.1f}" y="{height - tall - 3:.1f}" text-anchor="middle"'
                parts.append(f"<text {middle}>{count}</text>")
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{height - tall:.1f}" width="{0.38 * slot:.1f}" '
                f'height="{tall:.1f}"><title>{count} rows of {low} to {high - 1} {what}</title></rect>'
            )
        parts.append(f'<text x="{slot * index:.1f}" y="{height + 16}">{low}</text>')
    if max_tokens < histogram.edges[-1]:
        x = width * max_tokens / histogram.edges[-1]
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"><title>max_tokens</title></line>')
    return (
        f"<h2>Rows by length</h2><p>{_LEGEND}</p>"
        f'<svg viewBox="0 -14 {width} {height + 34}" role="img" aria-label="rows by number of tokens">'
        f"{''.join(parts)}</svg>"
    )


def _row(shown: ShownRow) -> str:
    row = shown.figures
    turns = ", ".join(f"{turn.role} {turn.loss_tokens} of {turn.tokens}" for turn in shown.turns)
    told = [f"{row.outcome.value.lower()}, {row.loss_tokens} of {row.tokens} tokens with loss"]
    told += [f"by turn: {turns}"] if turns else []
    if row.cut_tokens:
        told += [f"{row.cut_tokens} tokens, {row.cut_loss_tokens} with loss, lie beyond max_tokens"]
    told += [f"{row.placeholders} placeholders, {row.features} image features"] if row.features else []
    told += [row.reason] if row.reason else []
    body = "".join(_segment(segment) for segment in shown.segments)
    return (
        f"<h3>{_text(row.row_id[:_MAX_CELL_CHARACTERS])}</h3><p>{_text('; '.join(told))}</p><pre>{body}</pre>"
    )


def _segment(segment: Segment) -> str:
    kind = "cut" if segment.cut else "loss" if segment.loss else "prompt"
    if segment.image:
        text = f"&lt;image x {segment.count}&gt;"
        return f'<span class="{kind} image" title="{segment.ids[0]} x {segment.count}">{text}</span>'
    tokens = "".join(
        f"<i title={token}>{_text(text)}</i>" for token, text in zip(segment.ids, segment.texts, strict=True)
    )
    return f'<span class="{kind}">{tokens}</span>'


def _text(value: str) -> str:
    return html.escape(value)


_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
 :root {{ color-scheme: light dark; --ink: #222; --page: #fff; --soft: #666; --line: #ddd; --tint: #f5f5f5;
  --token: #ececec; --bar: #9aa7b5; --loss: #2a8a4a; --on: #0b3d1c; --a: #bfe8cb; --b: #95d6a9;
  --cut: #c0392b; --image: #e2dcf5; --on-image: #4a3a8a }}
 @media (prefers-color-scheme: dark) {{ :root {{ --ink: #ececf0; --page: #161618; --soft: #a0a0a8;
  --line: #3a3a40; --tint: #212125; --token: #2e2e34; --bar: #6d7a88; --loss: #3fae66; --on: #d6f5df;
  --a: #1d4a2c; --b: #28633b; --cut: #ff8a7a; --image: #3a3160; --on-image: #d9d0ff }} }}
 body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }}
 .wide {{ overflow-x: auto; overflow-wrap: normal }}
 h1 {{ border-left: .5rem solid var(--loss); padding-left: .75rem }}
 h1.passed_with_warnings {{ border-color: #d99a1c }} h1.failed {{ border-color: var(--cut) }}
 table {{ border-collapse: collapse; width: 100% }} th {{ background: var(--tint) }}
 th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top }}
 td:first-child {{ overflow-wrap: anywhere; min-width: 6rem }} td:last-child {{ overflow-wrap: anywhere }}
 td.n {{ text-align: right; font-variant-numeric: tabular-nums }}
 svg {{ width: 100%; font-size: 11px; fill: var(--soft) }}
 line {{ stroke: var(--cut); stroke-dasharray: 4 3 }}
 rect.all {{ fill: var(--bar) }} rect.loss {{ fill: var(--loss) }}
 .key {{ display: inline-block; width: .8em; height: .8em }}
 .key.all {{ background: var(--bar) }} .key.loss {{ background: var(--loss) }}
 pre {{ background: var(--tint); border: 1px solid var(--line); padding: .75rem; white-space: pre-wrap;
  overflow-wrap: anywhere }}
 pre span {{ unicode-bidi: isolate }} i {{ font-style: normal }} i:empty::before {{ content: "·" }}
 i:hover {{ outline: 1px solid var(--ink) }}
 .prompt {{ color: var(--soft) }} .prompt i:nth-child(even) {{ background: var(--token) }}
 pre .loss {{ color: var(--on); font-weight: 600 }} pre .loss i {{ background: var(--a) }}
 pre .loss i:nth-child(even) {{ background: var(--b) }}
 .cut {{ color: var(--cut); text-decoration: line-through }}
 .image {{ background: var(--image); color: var(--on-image); border-radius: .3rem; padding: 0 .3rem }}
</style>
<h1 class="{verdict}">{title}</h1>
{top}
<h2>First rows, token by token</h2>
<p>Hover over a token for its id. Green carries loss; grey is read and not learnt; struck through lies beyond
 max_tokens.</p>
{rows}
{tables}
</html>
"""
