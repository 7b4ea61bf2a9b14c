"""Sources that were not uploaded: the operator says which, and nothing else gets to a cluster."""

from __future__ import annotations

import pytest
from finemesh.core.errors import InvalidError, PermissionDeniedError
from finemesh.v1 import dataset_pb2

from tests.support.dataprep_client import DataPrepClient
from tests.support.scripted_cluster import ScriptedCluster

pytestmark = pytest.mark.integration


async def make(client: DataPrepClient, source_uri: str = "", upload: str = "") -> dataset_pb2.Dataset:
    source = dataset_pb2.ImportOrigin(source_uri=source_uri, upload=upload)
    return await client.create(dataset_pb2.Dataset(imported_from=source))


@pytest.mark.parametrize("place", ["s3://lake/open", "s3://lake/open/a/rows.jsonl", "s3://own-{project}/"])
async def test_what_is_allowed_reaches_the_cluster(
    client: DataPrepClient, cluster: ScriptedCluster, place: str
) -> None:
    uri = place.format(project=client.project)
    dataset = await make(client, source_uri=uri)
    assert dataset.imported_from.source_uri == uri
    attempt = await cluster.next_attempt()
    work = attempt.command.import_work
    assert (work.source_uri, work.HasField("upload")) == (uri, False)
    assert work.origin.source_uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "s3://lake",
        "s3://lake/opener",
        "s3://lake/closed/a.zip",
        "s3://own-other",
        "s3://elsewhere/a",
        "s3://finemesh-test/projects/other/datasets/d",  # allowed by mistake: it holds everybody's files
    ],
)
async def test_what_is_not_allowed_is_refused(client: DataPrepClient, uri: str) -> None:
    with pytest.raises(PermissionDeniedError, match="s3://lake/open") as refusal:
        await make(client, source_uri=uri)
    assert refusal.value.reason == "SOURCE_FORBIDDEN"


@pytest.mark.parametrize(
    "uri",
    ["lake/open", "http://lake/open", "s3:///open", "s3://Lake/open", "s3://lake/open/../closed"]
    + ["s3://lake/open//a", "s3://lake/open/a\n", "s3://lake/open/./a", "s3://lake\\open"],
)
async def test_what_is_no_address_is_refused(client: DataPrepClient, uri: str) -> None:
    with pytest.raises(InvalidError) as refusal:
        await make(client, source_uri=uri)
    assert [each.field for each in refusal.value.violations] == ["dataset.imported_from.source_uri"]


async def test_there_is_one_source(client: DataPrepClient) -> None:
    upload = await client.uploaded()
    for uri, name in (("", ""), ("s3://lake/open", upload)):
        with pytest.raises(InvalidError, match="upload and source_uri") as refusal:
            await make(client, uri, name)
        assert refusal.value.reason == "INVALID_OPTIONS"
