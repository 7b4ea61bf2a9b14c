"""Stores of MLflow: a folder of files (`mlruns`) or an SQLite database.

Formats: mlflow/store/tracking/file_store.py and mlflow/store/tracking/dbmodels/models.py of
https://github.com/mlflow/mlflow. Times there are milliseconds.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from finemesh.client.imports.source import Column, Source, SourceFile, counted, run_id_of

# A database cannot hold infinities: MLflow stores the largest float in their place.
_INFINITY: Final = 1.7976931348623157e308
# RunStatus of mlflow/protos/service.proto, as the folder has them.
_STATUSES: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_STATES: Final = {"FAILED": "FAILED", "KILLED": "CANCELLED"}
# Tags that say what has a place of its own here.
_NAME: Final = "mlflow.runName"
_NOTE: Final = "mlflow.note.content"
_PARENT: Final = "mlflow.parentRunId"
_COMMIT: Final = "mlflow.source.git.commit"
_REPOSITORY: Final = "mlflow.source.git.repoURL"
_COMMAND: Final = "mlflow.source.name"
_PLACED: Final = {_NAME, _NOTE, _PARENT, _COMMIT, _REPOSITORY, _COMMAND}


def mlflow_runs(path: Path) -> Iterator[Source]:
    """The runs of a store, but those that were deleted there.

    Raises FileNotFoundError (there is no store), ValueError (the database is none of MLflow's).
    """
    if path.is_file():
        yield from _database_runs(path)
        return
    folders = sorted(each.parent for each in path.glob("*/*/meta.yaml") if (each.parent / "metrics").is_dir())
    if not folders and (path / "mlflow.db").is_file():
        yield from _database_runs(path / "mlflow.db")
        return
    if not folders:
        raise FileNotFoundError(f"{path} holds no run of MLflow (EXPERIMENT/RUN/meta.yaml), and no mlflow.db")
    for folder in folders:
        if ".trash" not in folder.parts:
            yield _folder_run(folder)


def _folder_run(folder: Path) -> Source:
    meta, problems = _yaml(folder / "meta.yaml")
    experiment, more = _yaml(folder.parent / "meta.yaml")
    run_uuid = str(meta.get("run_id") or meta.get("run_uuid") or folder.name)
    facts = {
        **meta,
        "experiment": experiment.get("name") or folder.parent.name,
        "status": _STATUSES.get(meta.get("status", 0), str(meta.get("status"))),
        "name": meta.get("run_name") or meta.get("name"),
    }
    params = {key: _read(file) for key, file in _entries(folder / "params")}
    tags = {key: _read(file) for key, file in _entries(folder / "tags")}
    source = _source(run_uuid, facts, params, tags)
    source.problems += problems + more
    for key, file in _entries(folder / "metrics"):
        source.columns[key] = _metric_file(key, file, source.problems)
    _add_artifacts(source, folder / "artifacts")
    return source


def _metric_file(key: str, file: Path, problems: list[str]) -> Column:
    """Lines of `time value [step ...]`."""
    column, broken = Column(), 0
    for line in _read(file).splitlines():
        words = line.split(" ")
        try:
            step = int(words[2]) if len(words) > 2 else 0
            column.add(step, float(words[1]), int(words[0]) / 1e3)
        except (ValueError, IndexError):
            broken += bool(line.strip())
    if broken:
        problems.append(f"{broken} lines of metric {key!r} left out: they are not `time value step`")
    return column


def _database_runs(path: Path) -> Iterator[Source]:
    address = f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            database.row_factory = sqlite3.Row
            query = """
                SELECT runs.*, experiments.name AS experiment FROM runs
                LEFT JOIN experiments USING (experiment_id)
                WHERE runs.lifecycle_stage IS NULL OR runs.lifecycle_stage <> 'deleted'
                ORDER BY start_time, run_uuid"""
            for row in database.execute(query).fetchall():
                yield _database_run(database, dict(row))
    except sqlite3.Error as error:
        raise ValueError(f"{path} is no database of MLflow's, or is damaged: {error}") from error


def _database_run(database: sqlite3.Connection, facts: dict[str, Any]) -> Source:
    run_uuid = facts["run_uuid"]

    def pairs(table: str) -> dict[str, str]:
        query = f"SELECT key, value FROM {table} WHERE run_uuid = ?"  # noqa: S608  one of two names of ours
        return {row["key"]: row["value"] or "" for row in database.execute(query, [run_uuid])}

    source = _source(run_uuid, facts, pairs("params"), pairs("tags"))
    query = """
        SELECT key, value, timestamp, step, is_nan FROM metrics
        WHERE run_uuid = ? ORDER BY key, timestamp, step"""
    for row in database.execute(query, [run_uuid]):
        value = math.nan if row["is_nan"] else _with_infinity(float(row["value"]))
        column = source.columns.setdefault(row["key"], Column())
        column.add(int(row["step"]), value, int(row["timestamp"]) / 1e3)
    with contextlib.suppress(sqlite3.OperationalError):  # a store from before there were data sets
        query = """
            SELECT name, digest FROM datasets JOIN inputs ON source_id = dataset_uuid
            WHERE destination_id = ? AND destination_type = 'RUN' ORDER BY name"""
        for row in database.execute(query, [run_uuid]).fetchmany(1):
            source.lineage.dataset, source.lineage.dataset_digest = row["name"], row["digest"]
    _add_artifacts(source, _local_path(str(facts.get("artifact_uri") or "")))
    return source


def _source(run_uuid: str, facts: Mapping[str, Any], params: dict[str, str], tags: dict[str, str]) -> Source:
    name = str(facts.get("name") or tags.get(_NAME) or run_uuid)
    status = str(facts.get("status") or "")
    source = Source(
        kind="mlflow",
        identity=run_uuid,
        name=name,
        experiment=str(facts.get("experiment") or ""),
        params=params,
        tags=[f"{key}={value}" for key, value in sorted(tags.items()) if key not in _PLACED],
        notes=tags.get(_NOTE, ""),
        parent_run_id=run_id_of("mlflow", tags[_PARENT]) if tags.get(_PARENT) else "",
        start_time=(facts.get("start_time") or 0) / 1e3,
        end_time=(facts.get("end_time") or 0) / 1e3,
        state=_STATES.get(status, "FINISHED"),
        original={"run": dict(facts), "params": params, "tags": tags},
    )
    source.lineage.code.commit = tags.get(_COMMIT, "")
    source.lineage.code.repository = tags.get(_REPOSITORY, "")
    source.lineage.code.command = tags.get(_COMMAND, "")
    if status not in {"FINISHED", "FAILED", "KILLED"}:
        source.problems.append(f"it was {status or 'of no status'} in MLflow: it counts as finished here")
    return source


def _add_artifacts(source: Source, folder: Path | None) -> None:
    if folder is None:
        uri = source.original["run"].get("artifact_uri")
        source.problems.append(f"artifacts at {uri} are not on this disk: fetch them with MLflow")
        return
    skipped: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_symlink():
            skipped["links"] += 1
        elif path.is_file():
            source.files.append(SourceFile(path.relative_to(folder).as_posix(), path))
    source.problems += counted(skipped)


def _local_path(uri: str) -> Path | None:
    """Where `file:` and plain paths point; None for other places."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "file":
        return Path(urllib.parse.unquote(parts.path))
    return Path(uri) if uri and not parts.scheme else None


def _with_infinity(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _INFINITY else value


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of a folder by their path in it: a metric's name may have slashes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _yaml(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a YAML file says, and what was wrong with it."""
    try:
        found = yaml.safe_load(_read(path))
    except (OSError, yaml.YAMLError) as error:
        return {}, [f"{path} cannot be read: {error}"]
    return (found, []) if isinstance(found, dict) else ({}, [f"{path} is no mapping"])
