"""What a program records, without a mesh: read back from the folder, and by readers that are not ours."""

from __future__ import annotations

import io
import math
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from finemesh.client import lineage, machine
from finemesh.client.files import MAX_WAITING, FileThread, picture_bytes, table_bytes, table_of
from finemesh.client.recording import Recording, RecordingError
from finemesh.client.run import Run
from finemesh.client.spool import PartsReader
from finemesh.v1 import run_pb2
from finemesh.v1.lineage_pb2 import Lineage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

KEYS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)
ROWS = st.dictionaries(KEYS, st.floats(), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def known_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking git and reading what is installed takes longer than all that is looked at here."""
    monkeypatch.setattr("finemesh.client.run.lineage_here", lambda **_: Lineage(seed=1))


def offline(folder: Path, **fields: Any) -> Run:
    return Run(folder=folder, offline=True, system_metrics=False, **fields)


def points_of(folder: Path) -> list[tuple[str, int, float]]:
    reader, found = PartsReader(folder / "points.spool"), list[tuple[str, int, float]]()
    while batches := reader.read():
        for each in batches:
            rows = zip(each.key_indices, each.steps, each.values, strict=True)
            found += [(each.keys[key], step, value) for key, step, value in rows]
    return found


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(ROWS, max_size=4), after=st.lists(ROWS, max_size=4))
def test_what_is_logged_is_in_the_folder_also_when_it_is_gone_on_with(
    before: list[dict[str, float]], after: list[dict[str, float]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for part in (before, after):
            with offline(Path(folder)) as run:
                for values in part:
                    run.log(values)
        expected = [
            (key, step, value) for step, row in enumerate(before + after) for key, value in row.items()
        ]
        assert repr(points_of(Path(folder))) == repr(expected)


def test_columns_come_in_rows_of_a_bounded_size(tmp_path: Path) -> None:
    steps = np.arange(50_000)
    with offline(tmp_path) as run:
        run.log_many({"a": steps / 7, "b": [float(step) for step in steps]}, steps, times=steps / 10)
        with pytest.raises(ValueError, match="a has 2 entries, and steps 3"):
            run.log_many({"a": [1.0, 2.0]}, [1, 2, 3])
    found = points_of(tmp_path)
    assert [value for key, _, value in found if key == "a"] == (steps / 7).tolist()
    assert [step for key, step, _ in found if key == "b"] == steps.tolist()


@pytest.mark.parametrize(
    ("values", "step", "said"),
    [({"": 1.0}, 0, "1 to 200"), ({"a\nb": 1.0}, 0, "printable"), ({"x" * 201: 1.0}, 0, "1 to 200"),
     ({"a": 1.0}, -1, "count from 0")],
)  # fmt: skip
def test_what_tracking_would_refuse_is_refused_at_once(
    tmp_path: Path, values: dict[str, float], step: int, said: str
) -> None:
    with offline(tmp_path) as run:
        with pytest.raises(ValueError, match=said):
            run.log(values, step)
        run.log({"a": 1.0}, 3)
    batches = PartsReader(tmp_path / "points.spool").read()
    assert [batch.sequence for batch in batches] == [1], "a refusal leaves a gap"
    with pytest.raises(ValueError, match="has ended"):
        run.log({"a": 1.0})


NO_METRICS: list[tuple[Any, Any, str]] = [
    ({"a": "1.5"}, 0, "a: a metric's value is a number, not the text '1.5'"),
    ({"a": 0.0, "b": None}, 0, "b: a metric's value is a number, not None"),
    ({"a": 10**400}, 0, "a: a metric's value is a number, not 1000"),
    ({"a": np.ones(2)}, 0, "a: a metric's value is a number, not array"),
    ({"a": 1.0}, 3.5, r"step 3.5 is no integer: give int\(step\)"),
    ([("a", 1.0)], 0, r"\('a', 1.0\) names no metric: give values by name"),
]


def test_what_is_no_number_is_named_and_leaves_no_trace(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        for _ in range(2):  # before the name is known, and after
            for values, step, said in NO_METRICS:
                with pytest.raises(TypeError, match=said):
                    run.log(values, step)
            row: Any = {"a": np.float32(0.5)}, np.int64(4)
            run.log(*row)
        with pytest.raises(ValueError, match="b is no column of numbers: could not convert"):
            run.log_many({"a": [1.0], "b": ["x"]}, [5])
        with pytest.raises(ValueError, match="DONE is no way to end: use FINISHED"):
            run.finish("DONE")
    assert points_of(tmp_path) == [("a", 4, 0.5)] * 2
    assert [batch.sequence for batch in PartsReader(tmp_path / "points.spool").read()] == [1, 2]
    for late in (lambda: run.log_images("a", np.zeros((2, 2))), lambda: run.update(notes="n")):
        with pytest.raises(ValueError, match="has ended"):
            late()


def test_a_run_that_the_mesh_would_refuse_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'Mine!' is no id: 1 to 63 of"):
        offline(tmp_path, run_id="Mine!")
    with pytest.raises(TypeError, match="tags is the text 'first': give a list"):
        offline(tmp_path, tags="first")
    with pytest.raises(ValueError, match="parent_run 'runs/a' names no run: give its id"):
        offline(tmp_path, parent_run="runs/a")
    with offline(tmp_path) as run, pytest.raises(ValueError, match="'My run' names no run"):
        run.update(parent_run="My run")


def test_one_program_writes_a_folder(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="mine") as run:
        with pytest.raises(RecordingError, match="another process is the writer"):
            offline(tmp_path)
        run.update(tags=["a"])
        run.update(notes="n")
        with pytest.raises(ValueError, match="state cannot be changed"):
            run.update(state="x")
    recording = Recording(tmp_path)
    assert recording.request().run_id == "mine"
    assert recording.changed_run() == run_pb2.Run(tags=["a"], notes="n")
    with pytest.raises(RecordingError, match="not the folder of a run"):
        Recording(tmp_path / "none").request()


def test_a_torn_line_costs_its_file_alone(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.add_bytes(b"1", "a", None)
    lines = tmp_path / "artifacts.jsonl"
    lines.write_bytes(lines.read_bytes() + b'{"path": "b", "sha')
    assert [each and each.path for each in recording.artifacts()] == ["a"]
    recording.add_bytes(b"3", "c", 7)
    assert [each and each.path for each in recording.artifacts()] == ["a", None, "c"]


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
def test_pictures_are_what_pillow_reads(shape: tuple[int, ...], dtype: str) -> None:
    array = np.random.default_rng(1).random(shape)
    drawn = (255 * array).astype("uint8") if dtype == "uint8" else (array > 0.5 if dtype == "bool" else array)
    drawn = drawn.astype(dtype)[::-1]  # not contiguous
    read = np.asarray(Image.open(io.BytesIO(picture_bytes(drawn))))
    expected = np.round(drawn * (1 if dtype == "uint8" else 255.0)).astype("uint8").reshape(read.shape)
    assert np.abs(read.astype(int) - expected).max() <= (dtype == "float32")
    assert np.asarray(Image.open(io.BytesIO(picture_bytes(Image.fromarray(read))))).tolist() == read.tolist()
    with pytest.raises(ValueError, match=r"\(2, 3, 5\) is no picture"):
        picture_bytes(np.zeros((2, 3, 5)))


def test_tables_are_what_pandas_reads() -> None:
    columns = {"name": ["a,b", 'c "d"', "e\nf"], "value": np.array([0.1, math.inf, math.nan])}
    read = pd.read_csv(io.BytesIO(table_bytes(table_of(columns))))
    pd.testing.assert_frame_equal(read, pd.DataFrame(columns), check_dtype=False)
    with pytest.raises(ValueError, match="a 1, b 2"):
        table_of({"a": [1], "b": [1, 2]})


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    import threading

    thread, gate = FileThread(Recording(tmp_path)), threading.Event()
    for index in range(MAX_WAITING + 3):
        thread.add(str(index), 0, gate.wait)
    thread.add("huge", 1 << 40, gate.wait)
    gate.set()
    thread.close()
    assert thread.lost == [*(str(index) for index in range(MAX_WAITING, MAX_WAITING + 3)), "huge"]
    thread.add("broken", 0, lambda: 1 / 0)
    thread.close()
    assert thread.lost[-1] == "broken"


def test_secrets_stay_out_of_the_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["train.py", "--api-key", "s3cr3t", "--lr", "0.1", "--token=s3cr3t", "--max-tokens", "3", "-v"]
    monkeypatch.setattr(sys, "argv", given)
    code = lineage.code_here(Path("/"))
    assert code.command == "train.py --api-key *** --lr 0.1 --token=*** --max-tokens 3 -v"
    assert lineage._without_credentials("https://me:s3cr3t@host/a.git") == "https://host/a.git"


def test_a_machine_without_gpus_is_measured() -> None:
    sampler = machine.Sampler(rank=2)
    first, second = sampler.sample(), sampler.sample()
    assert {"system/rank-2/memory_bytes", "system/rank-2/machine/memory_percent"} <= first.keys()
    assert second["system/rank-2/cpu_percent"] >= 0
    assert all(math.isfinite(value) for value in second.values())


def test_the_gpus_that_cuda_may_see_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By NVML as nvidia-ml-py has it, of which one GPU tells no power."""

    class NVMLError(Exception): ...

    def power(handle: str) -> int:
        if handle == "0":
            raise NVMLError
        return 345_678

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "575.1",
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=str,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetName=lambda handle: b"NVIDIA H200",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=150 << 30, used=7 << 30),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=93),
        nvmlDeviceGetPowerUsage=power,
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,0")
    found = {key: value for key, value in machine.Sampler().sample().items() if "gpu" in key}
    assert found == {
        "system/gpu-0/percent": 93.0,
        "system/gpu-0/memory_bytes": float(7 << 30),
        "system/gpu-0/watts": 345.678,
        "system/gpu-0/celsius": 61.0,
        "system/gpu-1/percent": 93.0,
        "system/gpu-1/memory_bytes": float(7 << 30),
        "system/gpu-1/celsius": 61.0,
    }
    assert [gpu.kind for gpu in machine.gpus_here()] == ["NVIDIA H200"] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.gpus_here() == []
