"""Base models from S3 and from a node's disk, with their weights and without."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from finemesh.cluster.config import Site
from finemesh.cluster.workers import models
from finemesh.cluster.workers.models import local_base_model
from finemesh.cluster.workers.store import Store
from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.finetune import Task
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune.preflight import preflight_dataset

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.servers import S3Server

pytestmark = pytest.mark.integration


def site_of(s3_server: S3Server, folder: Path) -> Site:
    config = S3Config(
        endpoint=f"http://{s3_server.endpoint}",
        access_key=s3_server.access_key,
        secret_key=Secret(s3_server.secret_key),
        bucket=s3_server.bucket,
    )
    asyncio.run(S3ObjectStore(config).ensure_bucket())
    return Site(cluster="c", data_dir=folder, addresses={}, s3=config)


def test_what_people_uploaded_is_a_model_of_their_own_project(s3_server: S3Server, tmp_path: Path) -> None:
    """As any S3 client leaves it: files below a prefix, and no list of them."""
    base = tiny_model(tmp_path / "made", "llama")
    bucket = f"s3://{s3_server.bucket}"
    with Store(site_of(s3_server, tmp_path)) as store:
        for path in base.iterdir():
            store.put(path, f"{bucket}/uploaded/{path.name}")
        store.put(base / "config.json", f"{bucket}/uploaded/optimizer.pt")
        store.publish(base, f"{bucket}/projects/other/exports/llama")
        whole = local_base_model(spec(base_model=f"{bucket}/uploaded/"), store, tmp_path / "whole")
        light = local_base_model(
            spec(base_model=f"{bucket}/uploaded"), store, tmp_path / "light", weights=False
        )
        for missing in ("nothing", "upload", "projects/other/exports/llama"):
            with pytest.raises(NotFoundError, match=missing) as caught:
                local_base_model(spec(base_model=f"{bucket}/{missing}"), store, tmp_path / "missing")
            assert caught.value.reason == "BASE_MODEL_NOT_FOUND"
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in base.iterdir()
    }
    assert {path.name for path in base.iterdir()} - {path.name for path in light.iterdir()} == {
        "model.safetensors"
    }


def test_more_files_than_a_model_has_are_refused_and_not_left_out(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix of many models, or of a training's checkpoints: whatever came first would have been taken."""
    base = tiny_model(tmp_path / "made", "llama")
    many = f"s3://{s3_server.bucket}/many"
    count = len(list(base.iterdir()))
    with Store(site_of(s3_server, tmp_path)) as store:
        for path in base.iterdir():
            store.put(path, f"{many}/{path.name}")
        monkeypatch.setattr(models, "MOST_FILES", count)
        assert len([*local_base_model(spec(base_model=many), store, tmp_path / "all").iterdir()]) == count
        monkeypatch.setattr(models, "MOST_FILES", count - 1)
        with pytest.raises(InvalidError, match=rf"more than {count - 1} files lie below {many}/") as caught:
            local_base_model(spec(base_model=many), store, tmp_path / "some")
    assert (caught.value.reason, caught.value.violations[0].field) == (
        "BASE_MODEL_UNSUITABLE",
        "spec.base_model",
    )


def test_a_preflight_needs_no_weights_and_fetches_none(s3_server: S3Server, tmp_path: Path) -> None:
    site = site_of(s3_server, tmp_path)
    base = tiny_model(tmp_path / "made", "llama")
    wanted = spec(Task.LANGUAGE, base_model=f"s3://{s3_server.bucket}/models/llama")
    with Store(site) as store:
        store.publish(base, wanted.base_model)
        whole = local_base_model(wanted, store, tmp_path / "whole")
        light = local_base_model(wanted, store, tmp_path / "light", weights=False)
        with pytest.raises(InvalidError) as foreign:
            local_base_model(spec(base_model="s3://elsewhere/llama"), store, tmp_path)
        with pytest.raises(NotFoundError) as missing:
            local_base_model(spec(base_model="/nowhere/llama"), store, tmp_path)
    assert (foreign.value.reason, missing.value.reason) == ("FOREIGN_URI", "BASE_MODEL_NOT_FOUND")
    names = {path.name for path in whole.iterdir()}
    assert {"model.safetensors"} == names - {path.name for path in light.iterdir()}
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 3})))
    assert preflight_dataset(PreflightOptions(wanted), light, dataset).verdict == "PASSED"
