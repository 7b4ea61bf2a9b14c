"""Classes and masks of pictures on a running mesh: trained, measured, and not packaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.conftest import RunningMesh
from tests.support.picture_runs import tiny_picture_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STEPS: Final = ["-o", "optimization.max_steps=4", "-o", "optimization.micro_batch_size=4", "-o", "full={}"]
FIGURES: Final = {
    "SEMANTIC_SEGMENTATION": ("segformer", {"test/mean_iou", "test/pixel_accuracy", "val/mean_iou"}),
    "INSTANCE_SEGMENTATION": ("mask2former", {"test/map", "val/map"}),
}


SWEEP: Final = """\
spec:
  task: SEMANTIC_SEGMENTATION
  base_model: ./segformer
  dataset: pictures
  full: {}
  optimization: {max_steps: 4, micro_batch_size: 4}
parameters: {optimization.learning_rate: [1.0e-4, 1.0e-2]}
successive_halving: {reduction: 2}
objective: {metric: val/loss}
"""


class Trainer:
    """Someone in the folder of the mesh, with a dataset of 10 videos of 2 frames whose objects have masks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scenes = ["-m", "finemesh.data.scenes", "--out", "pictures.zip", "--videos", "10", "--frames", "2"]
        subprocess.run([sys.executable, *scenes], cwd=folder, check=True, timeout=600)
        self.run("dataset", "import", "pictures.zip", "--id", "pictures-raw")
        self.run("dataset", "split", "pictures-raw", "--id", "pictures")

    def run(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("finemesh")), *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "160", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == expect, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def train(self, task: str, family: str, *options: str, expect: int = 0) -> Any:
        """A job called like its family, at its end."""
        spec = [f"task={task}", f"base_model=./{family}", "dataset=pictures", *options]
        words = [word for each in spec for word in ("-o", each)]
        self.run("train", "submit", *words, *STEPS, "--id", family)
        self.run("train", "watch", family, expect=expect)
        return json.loads(self.run("train", "show", family, "--json").stdout)


@pytest.fixture(scope="module")
def trainer(running_mesh: RunningMesh) -> Trainer:
    for family in ("vit", "segformer", "mask2former"):
        tiny_picture_model(running_mesh.folder / family, family)
    return Trainer(running_mesh.folder)


@pytest.mark.parametrize("task", FIGURES)
def test_masks_are_learnt_and_measured(trainer: Trainer, task: str) -> None:
    family, figures = FIGURES[task]
    assert trainer.train(task, family)["state"] == "STATE_SUCCEEDED"
    said = trainer.run("runs", "show", family, "--json").stdout
    assert not [figure for figure in figures if figure not in said]
    exported = json.loads(trainer.run("export", "create", family, "--json").stdout.splitlines()[-1])
    assert exported["state"] == "STATE_SUCCEEDED"
    refused = trainer.run("export", "create", family, "--format", "gguf-f16", expect=2)
    assert "llama.cpp was proven here with models of language alone" in refused.stdout + refused.stderr


def test_pictures_of_several_classes_are_no_pictures_of_one(trainer: Trainer) -> None:
    """Scenes show several shapes each: too many are put aside, which the job says."""
    error = trainer.train("IMAGE_CLASSIFICATION", "vit", expect=1)["error"]
    assert "LOSS_BUDGET_EXCEEDED" in json.dumps(error)


def test_the_survivor_of_a_sweep_is_what_it_would_have_been_alone(trainer: Trainer) -> None:
    """Two trials of two steps, of which the better goes on to the end: bit for bit what its spec gives."""
    (trainer.folder / "sweep.yaml").write_text(SWEEP)
    trainer.run("sweep", "create", "-f", "sweep.yaml", "--id", "halved", "--wait")
    sweep = json.loads(trainer.run("sweep", "show", "halved", "--json").stdout)
    assert [(rung.get("steps"), rung["arrived"]) for rung in sweep["rungs"]] == [("2", 2), (None, 1)]
    best = sweep["bestTrainingJob"].rpartition("/")[2]
    (trainer.folder / "alone.yaml").write_text(trainer.run("train", "spec", best).stdout)
    trainer.run("train", "submit", "-f", "alone.yaml", "--id", "alone", "--wait")
    survivor, alone = (
        json.loads(trainer.run("train", "show", job, "--json").stdout) for job in (best, "alone")
    )
    assert [each["matches"] for each in survivor["resumeCertificates"]] == [True]
    assert (survivor["attempt"], alone["attempt"]) == (2, 1)
    for proof in ("step", "lossDigest", "weightsSha256", "sampleHash"):
        assert survivor["latestCheckpoint"][proof] == alone["latestCheckpoint"][proof]
    objective = next(trial["objective"] for trial in sweep["trials"] if trial.get("best"))
    assert objective == alone["latestCheckpoint"]["metrics"]["val/loss"]
    table = trainer.run("sweep", "show", "halved").stdout
    assert (table.count("ELIMINATED"), table.count("*")) == (1, 1)
    refused = trainer.run("sweep", "create", "-f", "sweep.yaml", "-o", "optimization.max_steps=1", expect=2)
    assert "sweep.yaml:8: sweep.successive_halving: nobody would be eliminated" in refused.stderr
