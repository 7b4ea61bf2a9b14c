"""Base models from S3 and from a node's disk, with their weights and without."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from finemesh.cluster.config import Site
from finemesh.cluster.workers.models import local_base_model
from finemesh.cluster.workers.store import Store
from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.finetune import Task
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune.preflight import preflight_dataset

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.servers import S3Server

pytestmark = pytest.mark.integration


def test_a_preflight_needs_no_weights_and_fetches_none(s3_server: S3Server, tmp_path: Path) -> None:
    config = S3Config(
        endpoint=f"http://{s3_server.endpoint}",
        access_key=s3_server.access_key,
        secret_key=Secret(s3_server.secret_key),
        bucket=s3_server.bucket,
    )
    asyncio.run(S3ObjectStore(config).ensure_bucket())
    base = tiny_model(tmp_path / "made", "llama")
    wanted = spec(Task.LANGUAGE, base_model=f"s3://{s3_server.bucket}/models/llama")
    with Store(Site(cluster="c", data_dir=tmp_path, addresses={}, s3=config)) as store:
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
