"""Templates: what they make of rows, what they cannot do, and that none of them hangs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ConvertOptions, DatasetFormat, ImportOptions
from finemesh.data import Progress, convert_dataset, import_source, iter_ledger, verify_dataset
from finemesh.data.faults import RowFault
from finemesh.data.writers.rendering import MAX_ENDED, TemplateRenderer

from tests.support.servers import PATIENCE_SECONDS
from tests.support.sources import png, write_files

CALL = {"name": "add", "arguments": {"a": "<1>"}}
RECORDS = [
    {
        "conversations": [
            {"from": "human", "value": "<image>\nWie groß?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "5"},
            {"from": "gpt", "value": "5 m"},
        ],
        "image": "red.png",
        "place": {"town": "Köln"},
    },
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
]
CHAT = """{% for m in messages %}<|{{ m.role }}|>
{{ m.text or m.tool_calls | map(attribute='arguments') | map('tojson') | join }}
{% endfor %}{{ attributes.place.town if attributes.place is defined else '-' }} {{ images | length }}"""


@pytest.fixture
def dataset(tmp_path: Path, silent: Progress) -> Path:
    source = write_files(tmp_path / "source", {"a_train.json": RECORDS, "red.png": png()})
    import_source(source, tmp_path / "in", ImportOptions(), silent)
    return tmp_path / "in"


def rendered(dataset: Path, template: str, silent: Progress) -> dict[str, str]:
    out = dataset.parent / "out"
    options = ConvertOptions(target=DatasetFormat.TEMPLATE, template=template)
    convert_dataset(dataset, out, options, silent)
    verify_dataset(out)
    entries = [json.loads(line) for line in (out / "train.jsonl").read_text("utf-8").splitlines()]
    return {entry["id"]: entry["text"] for entry in entries}


def test_template_makes_a_text_of_each_row(dataset: Path, silent: Progress) -> None:
    assert rendered(dataset, CHAT, silent) == {
        "a_train/0": '<|user|>\n<image>\nWie groß?\n<|assistant|>\n{"a": "<1>"}\n<|tool|>\n5\n'
        "<|assistant|>\n5 m\nKöln 1",
        "a_train/1": "<|user|>\nHi\n<|assistant|>\nYo\n- 0",
    }


def test_a_row_that_the_template_cannot_take_is_put_aside(dataset: Path, silent: Progress) -> None:
    texts = rendered(dataset, "{# where #}\n{{ attributes.place.town }}", silent)
    assert texts == {"a_train/0": "\nKöln"}
    [fault] = [entry for entry in iter_ledger(dataset.parent / "out") if entry.reason]
    assert (fault.row_id, fault.reason, fault.field) == ("a_train/1", "TEMPLATE_FAILED", "template")
    assert "line 2" in fault.message
    assert "place" in fault.message


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% if %}", "line 1"),
        ("{{ mesages }}", "mesages"),
        ("{% include '/etc/passwd' %}", "no other"),
        ("{{ messages | nonsense }}", "nonsense"),
        ("{{ " + "(" * 100_000, "recursion"),
    ],
)
def test_what_is_no_template_is_refused_before_anything_is_written(
    template: str, said: str, dataset: Path, silent: Progress
) -> None:
    with pytest.raises(InvalidError) as error:
        rendered(dataset, template, silent)
    assert error.value.reason == "TEMPLATE_INVALID"
    assert said in error.value.message
    assert error.value.violations[0].field == "options.template"
    assert not (dataset.parent / "out").exists()


@pytest.fixture
def renderer() -> Iterator[Any]:
    made: list[TemplateRenderer] = []

    def render(template: str, **values: Any) -> str:
        made.append(TemplateRenderer(template, tuple(values), seconds=0.3, characters=10_000))
        return made[-1].render(values)

    yield render
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ a.__class__.__mro__ }}", "TEMPLATE_FAILED"),
        ("{{ a.__init__.__globals__ }}", "TEMPLATE_FAILED"),
        ("{{ ''.join.__self__.__class__ }}", "TEMPLATE_FAILED"),
        ("{{ a | attr('__class__') }}", "TEMPLATE_FAILED"),
        ("{{ '{0.__class__.__mro__}'.format(a) }}", "TEMPLATE_FAILED"),
        ("{{ b.append(1) }}", "TEMPLATE_FAILED"),
        ("{{ namespace.__init__.__globals__ }}", "TEMPLATE_FAILED"),
        ("{{ b[5] }}", "TEMPLATE_FAILED"),
        ("{{ a / 0 }}", "TEMPLATE_FAILED"),
        ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(a) }}", "TEMPLATE_FAILED"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "TEMPLATE_FAILED"),
        ("{% for i in range(99999) %}0123456789{% endfor %}", "TEMPLATE_TOO_LONG"),
        ("{{ c * 20000 }}", "TEMPLATE_TOO_LONG"),
        ("{{ c * 10 ** 11 }}", "TEMPLATE_TOO_SLOW"),
        ("{{ a ** (a ** a) }}", "TEMPLATE_TOO_SLOW"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "TEMPLATE_TOO_SLOW",
        ),
        (
            "{% set n = namespace(x=c) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "TEMPLATE_TOO_SLOW",
        ),
        ("{{ '%99999999999d' % 1 }}", "TEMPLATE_TOO_SLOW"),
    ],
)
def test_templates_made_to_do_harm_are_put_aside_in_time(renderer: Any, template: str, reason: str) -> None:
    began = time.monotonic()
    with pytest.raises(RowFault) as fault:
        renderer(template, a=9, b=[1], c="x")
    assert fault.value.reason == reason, fault.value.message
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_a_renderer_carries_on_until_too_many_rows_end_it() -> None:
    slow = "{{ n ** (n ** n) }}ok"
    made = TemplateRenderer(slow, ("n",), seconds=0.05)
    for _ in range(MAX_ENDED):
        assert made.render({"n": 1}) == "1ok"
        with pytest.raises(RowFault):
            made.render({"n": 9})
    with pytest.raises(InvalidError) as error:
        made.render({"n": 1})
    assert error.value.reason == "TEMPLATE_TOO_SLOW"


def test_a_template_that_takes_for_ever_to_translate_is_refused() -> None:
    with pytest.raises(InvalidError) as error:
        TemplateRenderer("{{ 9 ** (9 ** 9) }}", (), seconds=0.3)
    assert error.value.reason == "TEMPLATE_INVALID"


def test_half_a_surrogate_pair_is_no_text(dataset: Path, silent: Progress) -> None:
    template = "{{ messages[0].text }}{% if not images %}\\ud83d{{ '\\ud83d' }}{% endif %}"
    assert list(rendered(dataset, template, silent)) == ["a_train/0"]
