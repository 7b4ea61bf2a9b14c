"""What a training puts down for Tracking: whole files, and never an error that ends a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from finemesh.cluster.evaluations import evaluations_of
from finemesh.cluster.workers import evaluations as worker
from finemesh.cluster.workers.evaluations import EvaluationSpool
from finemesh.finetune.jsonlines import write_lines
from finemesh.v1.evaluation_pb2 import Evaluation
from finemesh.v1.evaluation_service_pb2 import LogEvaluationRequest

from tests.support.conversations import text_rows, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [*text_rows({"train": 1, "test": 3})]
    return write_dataset(tmp_path_factory.mktemp("data") / "texts", rows)


def spool(folder: Path, dataset: Path) -> EvaluationSpool:
    about = Evaluation(dataset="projects/p/datasets/d", dataset_digest="sha256:1")
    return EvaluationSpool(folder, "projects/p/runs/r", 3, dataset, about, 64)


def write_results(folder: Path, name: str = "test", rows: int = 3) -> None:
    lines = [
        {"row_id": f"test-{n}", "group": "v", "correct": n > 0, "loss": n / 2, "tokens": n + 1}
        for n in range(rows)
    ]
    write_lines(folder / f"{name}.jsonl", lines)


def test_an_evaluation_is_put_down_with_its_items_and_baselines(tmp_path: Path, dataset: Path) -> None:
    write_results(tmp_path / "results")
    write_results(tmp_path / "results", "test_untrained", rows=2)
    spool(tmp_path / "spool", dataset).put("test", 7, tmp_path / "results")
    own, baseline = [
        LogEvaluationRequest.FromString(path.read_bytes()) for path in evaluations_of(tmp_path / "spool")
    ]
    assert own.parent == "projects/p/runs/r"
    about = own.evaluation
    assert (about.split, about.variant, about.step, about.attempt) == ("test", "", 7, 3)
    assert (about.dataset, about.dataset_digest) == ("projects/p/datasets/d", "sha256:1")
    assert baseline.evaluation.variant == "untrained"
    assert own.items.ids == ["test-0", "test-1", "test-2"]
    assert len(set(own.items.digests)) == 3
    assert own.items.digests[:2] == baseline.items.digests
    metrics = {each.key: each for each in own.items.metrics}
    assert list(metrics["accuracy"].values) == [0.0, 1.0, 1.0]
    assert list(metrics["loss"].weights) == [1.0, 2.0, 3.0]


def test_what_cannot_be_put_down_ends_no_run(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path / "results")
    (tmp_path / "file").write_text("where a folder should be")
    spool(tmp_path / "file", dataset).put("test", 7, tmp_path / "results")
    write_results(tmp_path / "strange", rows=4)  # an item that is in no row
    spool(tmp_path / "spool", dataset).put("test", 7, tmp_path / "strange")
    monkeypatch.setattr(worker, "MAX_BYTES", 10)
    spool(tmp_path / "spool", dataset).put("test", 7, tmp_path / "results")
    assert evaluations_of(tmp_path / "spool") == []
