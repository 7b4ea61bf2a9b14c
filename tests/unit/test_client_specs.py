"""Spec files as messages: what is wrong is named by place and path, and everything else is taken as meant."""

from __future__ import annotations

import pytest
from finemesh.client.specs import SpecError, to_message, to_yaml
from finemesh.specfile import overridden, parse
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec, LoraMethod
from google.protobuf import json_format


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora:\n  rnk: 8", "f:2: lora.rnk: unknown; did you mean lora.rank?"),
        ("rank: 8", "f:1: rank: unknown; did you mean lora.rank?"),
        (
            "method: {lora: {}}",
            "f:1: method: unknown: what it chooses between stands in its place, lora or full",
        ),
        ("zzz: 8", "f:1: zzz: unknown; there are task, base_model"),
        ("task: langage", "'langage' is not one of VISION_LANGUAGE, LANGUAGE"),
        ("task: 3", "f:1: task: 3 is not one of"),
        ("dataset: 3", "f:1: dataset: 3 is not a text"),
        ("lora: {rank: high}", "f:1: lora.rank: 'high' is not a whole number"),
        ("lora: {rank: 1.5}", "f:1: lora.rank: 1.5 is not a whole number"),
        ("lora: {rank: true}", "f:1: lora.rank: True is not a whole number"),
        ("lora: {rank: 3000000000}", "f:1: lora.rank: Value out of range"),
        ("lora: {alpha: '2'}", "f:1: lora.alpha: '2' is not a number"),
        ("sequence: {packing: yes}", "f:1: sequence.packing: 'yes' is not true or false"),
        ("lora: {towers: LANGUAGE}", "f:1: lora.towers: 'LANGUAGE' is one value: write a list"),
        ("lora: {target_modules: [q, 1]}", "f:1: lora.target_modules[1]: 1 is not a text"),
        ("lora: 16", "f:1: lora: 16 is one value, and lora has fields: rank"),
        ("lora: {}\nfull: {}", "f:2: full: excludes lora"),
    ],
)
def test_what_is_wrong_is_named_by_place_and_path(text: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        to_message(parse(text, "f"))
    assert said in str(refused.value)
    assert len(refused.value.problems) == 1


def test_words_numbers_and_names_are_taken_as_meant() -> None:
    wanted = FineTuneSpec(
        task="TASK_VISION_LANGUAGE",
        base_model="m",
        lora=LoraMethod(rank=8, alpha=3.0, towers=["TOWER_VISION"]),
    )
    for text in (
        "task: vision-language\nbase_model: m\nlora: {rank: 8.0, alpha: 3, towers: [vision], dropout: null}",
        "task: TASK_VISION_LANGUAGE\nbaseModel: m\nlora: {rank: 8, alpha: 3.0, towers: [TOWER_VISION]}",
        json_format.MessageToJson(wanted),
    ):
        assert to_message(parse(text, "f")) == wanted
    chosen = overridden(parse("lora:", "f"), ["full.towers=[vision]", "lora=null"])
    assert to_message(chosen).WhichOneof("method") == "full"


def test_zeros_are_written_out_and_unset_choices_are_not() -> None:
    text = to_yaml(FineTuneSpec(full={}, checkpoint={"every_steps": 0}))
    assert "every_steps: 0" in text
    assert "lora" not in text
