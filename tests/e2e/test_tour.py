"""The README's tour, typed line by line into a shell by somebody who has only the README."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import datasets
import pytest

from tests.e2e.conftest import RunningMesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).resolve().parents[2]
# The first block starts the mesh, which the fixture does.
BLOCKS: Final = re.findall(
    r"^```sh\n(.*?)^```",
    (ROOT / "README.md").read_text().split("## Tour")[1].split("\n## ")[0],
    re.MULTILINE | re.DOTALL,
)[1:]


class Shell:
    """A shell in the folder of a running mesh, as a person has it after activating the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "LC_ALL": "C.UTF-8",
        }

    def run(self, script: str, *, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == expect, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, command: str) -> Any:
        return json.loads(self.run(f"finemesh {command} --json").stdout)


@pytest.fixture(scope="module")
def shell(running_mesh: RunningMesh) -> Shell:
    """In the folder of the mesh, with a home of its own."""
    (running_mesh.folder / "home").mkdir()
    return Shell(running_mesh.folder)


@pytest.fixture(scope="module")
def toured(shell: Shell) -> Shell:
    """The shell, after every line of the tour. The one that follows events for ever ends with the last."""
    endless = re.compile(r"^(finemesh events tail .*?)( +#.*)?$", re.MULTILINE)
    with (shell.folder / "out.txt").open("a") as said:
        for block in BLOCKS:
            ended = endless.sub(rf"\1 > events.jsonl &\n{until('events.jsonl', 'export.succeeded')}", block)
            said.write(shell.run(ended).stdout)
    return shell


def until(file: str, *words: str) -> str:
    """Lines that wait until the command before them has written all words to a file, and then end it."""
    seen = " && ".join(f"grep -q {word} {file}" for word in words)
    return f"until {seen}; do sleep 0.2; done; sleep 2; kill $!; wait $! || true"


def test_the_tour_leaves_what_it_says(toured: Shell) -> None:
    folder = toured.folder
    loaded: Any = datasets.load_dataset(str(folder / "hf"), cache_dir=str(folder / "cache"))
    assert set(loaded) == {"train", "validation", "test"}
    with zipfile.ZipFile(folder / "package.zip") as package:
        names = {name.split("/", 1)[1] for name in package.namelist()}
    assert {"manifest.json", "README.md", "verify.py", "serve.py", "curves/loss.png"} <= names
    said = (folder / "out.txt").read_text()
    assert "trainingJobs/r16" in said
    assert said.count("data: {") >= 1, "no Server-Sent Event"
    kinds = [json.loads(line)["type"] for line in (folder / "events.jsonl").read_text().splitlines()]
    for fact in ("dataset.imported", "dataset.split", "training_job.succeeded", "export.succeeded"):
        assert f"finemesh.v1.{fact}" in kinds


def test_every_list_and_show_speaks_json(toured: Shell) -> None:
    assert {each["name"].rsplit("/", 1)[1] for each in toured.json("dataset list")} >= {
        "raw",
        "split",
        "items",
    }
    assert toured.json("dataset show items")["state"] == "STATE_SUCCEEDED"
    assert {each["name"].rsplit("/", 1)[1] for each in toured.json("train list")} >= {"r4", "r16"}
    assert toured.json("train show r16")["state"] == "STATE_SUCCEEDED"
    assert len(toured.json("runs list")) >= 2
    assert toured.json("runs compare r4 r16")["configDifferences"]
    assert toured.json("export show pkg")["state"] == "STATE_SUCCEEDED"


def test_a_run_says_what_it_was_made_of_and_used(toured: Shell) -> None:
    run, made = toured.json("runs show r16"), toured.json("dataset show items")
    assert run["lineage"]["datasetDigest"] == made["summary"]["digest"]
    assert run["lineage"]["environment"]["libraries"]["torch"].startswith("2.")
    assert run["lineage"]["hardware"]["cpuCount"] >= 1
    assert run["lineage"]["seed"] == run["params"]["optimization.seed"]
    assert {"system/memory_bytes", "system/machine/cpu_percent"} <= {each["key"] for each in run["metrics"]}
    shown = toured.run("finemesh runs show r16").stdout
    for words in ("checkpoint", "best", "finemesh train logs r16", "torch 2."):
        assert words in shown


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("dataset import nothing.zip", 2, "nothing.zip"),
        ("dataset import scenes.zip --id Not-An-Id", 2, "dataset_id"),
        ("dataset import scenes.zip --id raw", 1, "DATASET_EXISTS"),
        ("dataset show none", 3, "DATASET_NOT_FOUND"),
        ("runs show none", 3, "RUN_NOT_FOUND"),
        ("export show none", 3, "EXPORT_NOT_FOUND"),
        ("export create r16 --id pkg --format merged", 1, "EXPORT_EXISTS"),
        ("train submit -o task=TASK_LANGUAGE -o dataset=items", 2, "base_model"),
        ("dataset convert items --to parchment", 2, "hugging-face"),
        ("--token-file README.md dataset list", 4, "README.md"),
        ("--server 127.0.0.1:1 dataset list", 5, "doctor"),
    ],
)
def test_what_goes_wrong_is_said_in_a_few_words(toured: Shell, command: str, code: int, said: str) -> None:
    done = toured.run(f"finemesh {command}", expect=code)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) < 20


def test_a_subscriber_reacts_to_what_succeeded_once(toured: Shell) -> None:
    """The example of the clients, started twice: it tells of each job once, and the second time of none."""
    example = ROOT / "clients/python/examples/on_training_succeeded.py"
    command = f"python -u {example} > told.txt 2> /dev/null"
    told = toured.run(f"{command} &\n{until('told.txt', '/r4', '/r16')}\ncat told.txt").stdout.splitlines()
    jobs = [line.split()[1].rsplit("/", 1)[1] for line in told]
    assert {"r16", "r4"} <= set(jobs)
    assert len(jobs) == len(set(jobs))
    again = toured.run(f"timeout --signal INT 5 {command} || true; cat told.txt").stdout
    assert not [job for job in jobs if f"/{job} " in again]


def test_what_is_cancelled_ends_and_can_be_deleted(toured: Shell) -> None:
    submit = "train submit --id long -o task=TASK_VISION_LANGUAGE -o base_model=$PWD/base -o dataset=items"
    toured.run(f"finemesh {submit} -o lora.rank=4 -o optimization.max_steps=100000")
    refused = toured.run("finemesh train delete long", expect=1)
    assert "TRAINING_JOB_LIVE" in refused.stderr
    toured.run("finemesh train cancel long")
    toured.run("finemesh train watch long", expect=1)
    toured.run("finemesh train cancel long")  # what is cancelled stays so
    assert toured.json("train show long")["state"] == "STATE_CANCELLED"
    for command, reason in (
        ("export create long --step 100000", "NO_CHECKPOINT"),
        ("train cancel r4", "TRAINING_JOB_ENDED"),
        ("dataset cancel items", "ALREADY_ENDED"),
        ("export cancel pkg", "EXPORT_ENDED"),
    ):
        assert reason in toured.run(f"finemesh {command}", expect=1).stderr
    toured.run("finemesh train delete long")
    toured.run("finemesh train show long", expect=3)


def test_a_job_is_certified_to_outlive_a_kill(toured: Shell) -> None:
    """Two short jobs with the spec of one of the tour; the process of one of them is killed by SIGKILL."""
    verdict = toured.json("train certify --job r4 --steps 10 --seed 1 --keep")
    assert verdict["green"], verdict
    assert {name for name, each in verdict.items() if isinstance(each, dict)} == {
        *("killed", "samples", "losses", "weights")
    }
    probe = toured.json(f"train show {verdict['probe'].rsplit('/', 1)[1]}")
    assert (probe["state"], probe["attempt"]) == ("STATE_SUCCEEDED", 2)
    assert probe["killAfterStep"] == str(verdict["killed_after_step"])
