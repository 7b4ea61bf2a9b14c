"""What is told of a base model, as any client may write it."""

from __future__ import annotations

import pytest
from finemesh.core.errors import InvalidError
from finemesh.training.estimates.convert import base_model_from_proto
from finemesh.v1.estimate_pb2 import BaseModelFiles

DEEP = "[" * 100_000


@pytest.mark.parametrize("config", ["", "nonsense", "[1]", "{}", '"text"', DEEP], ids=lambda it: it[:5])
def test_a_base_model_without_a_config_is_refused_by_the_path(config: str) -> None:
    with pytest.raises(InvalidError) as caught:
        base_model_from_proto(BaseModelFiles(config_json=config), "base_model")
    assert caught.value.reason == "BASE_MODEL_UNKNOWN"
    assert "base_model.config_json" in str(caught.value)


def test_a_base_model_larger_than_any_is_refused() -> None:
    files = BaseModelFiles(config_json="{}", weight_headers=["x" * 33_000_000])
    with pytest.raises(InvalidError, match="larger than") as caught:
        base_model_from_proto(files, "base_model")
    assert caught.value.reason == "BASE_MODEL_UNKNOWN"


@pytest.mark.parametrize(
    "header", ["", "nonsense", "[1]", '{"a": 1}', '{"a": {"shape": "x"}}', DEEP], ids=lambda it: it[:15]
)
def test_a_header_that_does_not_read_tells_of_no_tensors(header: str) -> None:
    files = BaseModelFiles(config_json='{"model_type": "llama"}', weight_headers=[header])
    assert base_model_from_proto(files, "base_model").config == {"model_type": "llama"}
