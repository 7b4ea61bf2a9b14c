"""Envoy under the generated configuration, before gRPC servers in place of the services, and a real S3."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import grpc
import pytest
import urllib3
from finemesh.chassis.auth import Role, SigningKey, write_private_file
from finemesh.chassis.presign import presign
from finemesh.embedded.servers import envoy_executable
from finemesh.gateway import (
    GatewayConfig,
    ObjectStore,
    Upstream,
    packaged_descriptor_set,
    write_configuration,
)
from finemesh.gateway.config import PUBLIC_SERVICES
from finemesh.v1 import (
    attempt_service_pb2,
    attempt_service_pb2_grpc,
    dataprep_service_pb2,
    dataprep_service_pb2_grpc,
    export_service_pb2_grpc,
    training_job_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
)
from google.api import httpbody_pb2
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.gateway_door import (
    BUCKET,
    LIMIT_BYTES,
    NOT_SERVING,
    SERVING,
    DataPrep,
    Door,
    Export,
    Training,
    serve,
    serve_tracking,
)
from tests.support.servers import PATIENCE_SECONDS, S3Server, ServerProcess, free_ports, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("gateway")
    key = SigningKey.generate()
    write_private_file(folder / "jwks.json", json.dumps(key.jwks()))
    # The stubs declare every method abstract; a servicer answers UNIMPLEMENTED to those it leaves out.
    servicers: dict[str, tuple[Any, Callable[[], Any]]] = {
        "dataprep": (dataprep_service_pb2_grpc.add_DataPrepServiceServicer_to_server, cast("Any", DataPrep)),
        "training": (training_service_pb2_grpc.add_TrainingServiceServicer_to_server, cast("Any", Training)),
        "export": (export_service_pb2_grpc.add_ExportServiceServicer_to_server, cast("Any", Export)),
    }
    started = {name: serve(PUBLIC_SERVICES[name], add, make()) for name, (add, make) in servicers.items()}
    port, nobody = free_ports(2)
    ports = {name: started[name][1] if name in started else nobody for name in PUBLIC_SERVICES}
    config = GatewayConfig(
        host="127.0.0.1",
        port=port,
        upstreams=tuple(
            Upstream(name, service, f"127.0.0.1:{ports[name]}") for name, service in PUBLIC_SERVICES.items()
        ),
        jwks_path=folder / "jwks.json",
        descriptor_set_path=packaged_descriptor_set(),
        access_log_path=folder / "access.jsonl",
        object_store=ObjectStore(s3_server.endpoint, BUCKET),
        max_request_bytes=LIMIT_BYTES,
    )
    write_configuration(config, folder / "envoy.json")
    command = [envoy_executable(), "-c", str(folder / "envoy.json"), "--disable-hot-restart", "-l", "warning"]
    envoy = ServerProcess(command, folder, folder / "envoy.log")
    pool = urllib3.PoolManager()
    door = Door(
        address=f"127.0.0.1:{port}",
        key=key,
        store=s3_server,
        health={name: entry[2] for name, entry in started.items()},
        access_log=config.access_log_path,
        pool=pool,
        absent_port=nobody,
    )

    def alive() -> bool:
        envoy.require_running()
        try:
            return door.request("GET", "/healthz", token="").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    envoy.start()
    try:
        wait_until(alive, "Envoy")
        yield door
    finally:
        envoy.stop()
        pool.clear()
        for server, *_ in started.values():
            server.stop(None).wait()


def _job_request(job: str = "a") -> Any:
    return training_service_pb2.GetTrainingJobRequest(name=f"projects/demo/trainingJobs/{job}")


def _health(channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


class TestTokens:
    def test_grpc_without_token_is_unauthenticated(self, door: Door) -> None:
        with door.channel() as channel, pytest.raises(grpc.RpcError) as raised:
            training_service_pb2_grpc.TrainingServiceStub(channel).GetTrainingJob(_job_request())
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert raised.value.details() == "Jwt is missing"

    @pytest.mark.parametrize(
        "token",
        [
            pytest.param(lambda door: "", id="none"),
            pytest.param(lambda door: "nonsense", id="malformed"),
            pytest.param(lambda door: door.token(ttl_seconds=-60), id="expired"),
            pytest.param(lambda door: door.token(aud="others"), id="for others"),
            pytest.param(lambda door: door.token(iss="others"), id="from others"),
            pytest.param(
                lambda door: SigningKey.generate().mint("x", Role.ADMIN, ["*"], 60), id="another key"
            ),
        ],
    )
    def test_json_without_good_token_is_refused_with_a_status(self, door: Door, token: Any) -> None:
        answer = door.request("GET", "/v1/projects/demo/trainingJobs/a", token=token(door))
        body = answer.json()
        expected = {401: code_pb2.UNAUTHENTICATED, 403: code_pb2.PERMISSION_DENIED}
        assert body["code"] == expected[answer.status]
        assert body["message"].startswith(("Jw", "Audiences"))
        assert body["details"][0]["reason"] == "TOKEN_INVALID"

    def test_token_in_the_query_does_not_count(self, door: Door) -> None:
        path = f"/v1/projects/demo/trainingJobs/a?access_token={door.token()}"
        assert door.request("GET", path, token="").status == 401

    def test_token_goes_on_to_the_service(self, door: Door) -> None:
        token = door.token()
        answer = door.request("GET", "/v1/projects/demo/trainingJobs/a", token=token)
        assert answer.json()["displayName"] == f"Bearer {token}"


class TestCalls:
    def test_grpc(self, door: Door) -> None:
        with door.channel() as channel:
            stub = training_service_pb2_grpc.TrainingServiceStub(channel)
            job = stub.GetTrainingJob(_job_request(), metadata=door.metadata())
            states = [job.state for job in stub.WatchTrainingJob(_job_request(), metadata=door.metadata())]
        assert job.name == "projects/demo/trainingJobs/a"
        assert len(states) == 2

    def test_grpc_web(self, door: Door) -> None:
        message = _job_request().SerializeToString()
        answer = door.request(
            "POST",
            "/finemesh.v1.TrainingService/GetTrainingJob",
            body=struct.pack(">BI", 0, len(message)) + message,
            headers={"content-type": "application/grpc-web+proto"},
        )
        assert answer.headers["content-type"] == "application/grpc-web+proto"
        _, length = struct.unpack(">BI", answer.data[:5])
        job = training_job_pb2.TrainingJob.FromString(answer.data[5 : 5 + length])
        assert job.name == "projects/demo/trainingJobs/a"
        assert b"grpc-status:0" in answer.data[5 + length :]

    def test_error_keeps_its_details_in_json(self, door: Door) -> None:
        answer = door.request("GET", "/v1/projects/demo/trainingJobs/none")
        body = answer.json()
        assert (answer.status, body["code"], body["message"]) == (404, code_pb2.NOT_FOUND, "no such job")
        assert body["details"][0]["reason"] == "TRAINING_JOB_NOT_FOUND"

    def test_unknown_query_parameter_is_refused(self, door: Door) -> None:
        answer = door.request("GET", "/v1/projects/demo/trainingJobs/a?colour=red")
        assert answer.status == 400
        assert "colour" in answer.json()["message"]

    def test_unknown_path_is_named(self, door: Door) -> None:
        body = door.request("GET", "/v1/projects/demo/nonsense").json()
        assert (body["code"], body["details"][0]["reason"]) == (code_pb2.NOT_FOUND, "PATH_NOT_FOUND")
        assert "GET /v1/projects/demo/nonsense" in body["message"]

    def test_malformed_json_is_refused(self, door: Door) -> None:
        answer = door.request("POST", "/v1/projects/demo/uploads", body=b'{"filename": ')
        assert (answer.status, answer.json()["code"]) == (400, code_pb2.INVALID_ARGUMENT)
        assert answer.json()["details"][0]["reason"] == "MALFORMED_REQUEST"

    @pytest.mark.parametrize(
        ("body", "field", "message"),
        [
            ({"splitFrom": {"dataset": "d", "sed": 7}}, "splitFrom.sed", "SplitOrigin"),
            ({"displayname": "a"}, "displayname", "Dataset"),
            ({"a": "}, {", "labels": {"a": "b"}}, "a", "Dataset"),
            ({"importedFrom": {"columns": {"prompt": "q"}, "x": [{"y": 1}]}}, "importedFrom.x", "Origin"),
        ],
    )
    def test_unknown_field_of_a_body_is_refused(
        self, door: Door, body: dict[str, Any], field: str, message: str
    ) -> None:
        answer = door.request("POST", "/v1/projects/demo/datasets", body=json.dumps(body).encode())
        told = answer.json()
        assert (answer.status, told["code"]) == (400, code_pb2.INVALID_ARGUMENT)
        assert told["details"][0]["reason"] == "MALFORMED_REQUEST"
        name = field.rpartition(".")[2]
        assert told["message"].startswith(f"{field}: there is no field {name} in finemesh.v1.")
        assert message in told["message"]

    def test_known_fields_pass_by_either_name_and_keys_of_maps_are_free(self, door: Door) -> None:
        labels = {'a "quoted\\" key': "{", "\u00e4\n": "[", **{f"key{n}": "v" * 100 for n in range(5_000)}}
        body = {"display_name": "n", "labels": labels, "importedFrom": {"source_uri": "s3://a"}}
        answer = door.request("POST", "/v1/projects/demo/datasets", body=json.dumps(body).encode())
        assert answer.status == 200, answer.data
        assert answer.json() == {
            "displayName": "n",
            "labels": labels,
            "importedFrom": {"sourceUri": "s3://a"},
        }

    def test_unknown_path_is_404_as_status(self, door: Door) -> None:
        answer = door.request("GET", "/v1/nothing")
        assert (answer.status, answer.json()["code"]) == (404, code_pb2.NOT_FOUND)

    def test_server_stream_as_server_sent_events(self, door: Door) -> None:
        """Each at once: the second is sent only after somebody has the first."""
        answer = door.request("GET", "/v1/projects/demo/trainingJobs/s:watch", preload_content=False)
        assert answer.headers["content-type"] == "text/event-stream"
        lines = (json.loads(line.removeprefix(b"data: ")) for line in answer if line.strip())
        assert next(lines)["state"] == "STATE_QUEUED"
        assert door.request("GET", "/v1/projects/demo/trainingJobs/s").status == 200
        assert [line["state"] for line in lines] == ["STATE_RUNNING"]

    def test_upload_streams_beyond_the_request_limit(self, door: Door) -> None:
        answer = door.request(
            "POST",
            "/v1/projects/demo/uploads/u:upload",
            body=bytes(5 * LIMIT_BYTES),
            headers={"content-type": "application/zip"},
        )
        assert answer.json() == {"name": "projects/demo/uploads/u", "sizeBytes": str(5 * LIMIT_BYTES)}

    def test_upload_may_look_like_json_and_be_none(self, door: Door) -> None:
        content = b'{"filename": "\xff\xfe", "x": {"y":\n\t1}'
        answer = door.request("POST", "/v1/projects/demo/uploads/u:upload", body=content)
        assert answer.json()["sizeBytes"] == str(len(content))

    def test_download_streams(self, door: Door) -> None:
        answer = door.request("GET", "/v1/projects/demo/exports/e:download")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
        assert len(answer.data) == 5 << 20

    def test_request_over_the_limit_is_413(self, door: Door) -> None:
        body = json.dumps({"filename": "a" * (2 * LIMIT_BYTES)}).encode()
        answer = door.request("POST", "/v1/projects/demo/uploads", body=body)
        assert (answer.status, answer.json()["code"]) == (413, code_pb2.OUT_OF_RANGE)
        assert answer.json()["details"][0]["reason"] == "REQUEST_TOO_LARGE"

    def test_absent_service_is_unavailable(self, door: Door) -> None:
        answer = door.request("GET", "/v1/projects/demo/runs/a")
        assert (answer.status, answer.json()["code"]) == (503, code_pb2.UNAVAILABLE)
        assert answer.json()["details"][0]["reason"] == "SERVICE_UNAVAILABLE"

    def test_internal_service_cannot_be_reached(self, door: Door) -> None:
        request = attempt_service_pb2.RenewLeaseRequest()
        with door.channel() as channel, pytest.raises(grpc.RpcError) as raised:
            attempt_service_pb2_grpc.AttemptServiceStub(channel).RenewLease(request, metadata=door.metadata())
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_cross_origin_is_off(self, door: Door) -> None:
        asked = {"origin": "https://elsewhere.example", "access-control-request-method": "GET"}
        answer = door.request("OPTIONS", "/v1/projects/demo/trainingJobs/a", token="", headers=asked)
        assert answer.status == 401
        assert "access-control-allow-origin" not in answer.headers


class TestHealth:
    def test_goes_to_the_service_it_names_without_a_token(self, door: Door) -> None:
        door.health["training"].set(PUBLIC_SERVICES["training"], NOT_SERVING)
        try:
            with door.channel() as channel:
                stub = _health(channel)
                status = {
                    name: stub.Check(health_pb2.HealthCheckRequest(service=PUBLIC_SERVICES[name])).status
                    for name in ("dataprep", "training", "export")
                }
        finally:
            door.health["training"].set(PUBLIC_SERVICES["training"], SERVING)
        assert status == {"dataprep": SERVING, "training": NOT_SERVING, "export": SERVING}

    def test_watch_follows_the_service_it_names(self, door: Door) -> None:
        service = PUBLIC_SERVICES["export"]
        with door.channel() as channel:
            stub = _health(channel)
            answers = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_SECONDS)
            assert next(answers).status == SERVING
            door.health["export"].set(service, NOT_SERVING)
            assert next(answers).status == NOT_SERVING
            door.health["export"].set(service, SERVING)
            answers.cancel()

    def test_of_an_absent_service_is_unavailable(self, door: Door) -> None:
        request = health_pb2.HealthCheckRequest(service=PUBLIC_SERVICES["tracking"])
        with door.channel() as channel, pytest.raises(grpc.RpcError) as raised:
            _health(channel).Check(request)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    def test_of_an_unknown_service_is_not_found(self, door: Door) -> None:
        request = health_pb2.HealthCheckRequest(service="finemesh.v1.Nothing")
        with door.channel() as channel, pytest.raises(grpc.RpcError) as raised:
            _health(channel).Check(request)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND

    def test_of_everything_is_answered(self, door: Door) -> None:
        with door.channel() as channel:
            answer = _health(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == SERVING


class TestReflection:
    def _services(self, door: Door, metadata: tuple[tuple[str, str], ...]) -> set[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with door.channel() as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            answer = next(
                stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=PATIENCE_SECONDS)
            )
        return {service.name for service in answer.list_services_response.service}

    def test_lists_all_services_on_one_port(self, door: Door) -> None:
        assert self._services(door, door.metadata()) >= set(PUBLIC_SERVICES.values())

    def test_needs_a_token(self, door: Door) -> None:
        with pytest.raises(grpc.RpcError) as raised:
            self._services(door, ())
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


class TestPresigned:
    @pytest.fixture(autouse=True)
    def bucket(self, door: Door) -> None:
        url = presign(
            "PUT",
            f"http://{door.store.endpoint}",
            f"/{BUCKET}",
            access_key=door.store.access_key,
            secret_key=door.store.secret_key,
            region="us-east-1",
            expires_seconds=60,
        )
        assert door.pool.request("PUT", url, retries=False).status in (200, 409)

    def test_put_get_and_range(self, door: Door) -> None:
        content = bytes(range(256)) * 4096 * 4  # more than the limit of other requests
        put = door.pool.request("PUT", door.presigned("PUT", "a/b c.bin"), body=content, retries=False)
        got = door.pool.request("GET", door.presigned("GET", "a/b c.bin"), retries=False)
        part = door.pool.request(
            "GET", door.presigned("GET", "a/b c.bin"), headers={"range": "bytes=5-9"}, retries=False
        )
        assert (put.status, got.status, part.status) == (200, 200, 206)
        assert got.data == content
        assert part.data == content[5:10]

    def test_changed_key_is_refused_by_s3(self, door: Door) -> None:
        url = door.presigned("GET", "a").replace(f"/{BUCKET}/a?", f"/{BUCKET}/b?")
        assert door.pool.request("GET", url, retries=False).status == 403

    @pytest.mark.parametrize("path", [f"/{BUCKET}/a", f"/{BUCKET}/?list-type=2", f"/{BUCKET}/../v1/x"])
    def test_unsigned_is_refused_at_the_door(self, door: Door, path: str) -> None:
        assert door.request("GET", path, token="").status == 401

    def test_signature_opens_nothing_else(self, door: Door) -> None:
        path = f"/{BUCKET}/../v1/projects/demo/trainingJobs/a?X-Amz-Signature=0"
        connection = http.client.HTTPConnection(door.address)  # sends the path as it is
        with contextlib.closing(connection):
            connection.request("GET", path)
            assert connection.getresponse().status == 401

    def test_access_log_keeps_no_signature(self, door: Door) -> None:
        url = door.presigned("GET", "logged")
        door.pool.request("GET", url, retries=False)
        path = urlsplit(url).path

        def logged() -> list[dict[str, Any]]:
            lines = door.access_log.read_text().splitlines() if door.access_log.exists() else []
            return [entry for entry in map(json.loads, lines) if entry["path"] == path]

        wait_until(lambda: bool(logged()), "the access log")
        assert logged()[0]["upstream"] == "object_store"
        assert "X-Amz" not in door.access_log.read_text()


def test_request_waits_for_a_service_that_restarts(door: Door) -> None:
    later = threading.Timer(0.3, lambda: servers.append(serve_tracking(door.absent_port)))
    servers: list[grpc.Server] = []
    later.start()
    answer = door.request("GET", "/v1/projects/demo/runs/a")
    later.join()
    servers[0].stop(None).wait()
    assert (answer.status, answer.json()) == (200, {"name": "projects/demo/runs/a"})


def test_upload_archive_by_grpc_stream(door: Door) -> None:
    chunks = [
        dataprep_service_pb2.UploadArchiveRequest(
            name="projects/demo/uploads/u" if i == 0 else "", chunk=httpbody_pb2.HttpBody(data=bytes(1 << 19))
        )
        for i in range(8)
    ]
    with door.channel() as channel:
        stub = dataprep_service_pb2_grpc.DataPrepServiceStub(channel)
        upload = stub.UploadArchive(iter(chunks), metadata=door.metadata())
    assert upload.size_bytes == 8 << 19


def test_jwks_is_of_the_kind_envoy_reads(door: Door) -> None:
    key = door.key.jwks()["keys"][0]
    assert key["kty"] == "oct"
    assert len(base64.urlsafe_b64decode(key["k"] + "==")) >= 32
