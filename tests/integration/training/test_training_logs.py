"""The log of a job on the real service: written by processes that are killed, brought by real shippers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.client_channel import channel
from finemesh.cluster.joblog import LogShipper, Redactor, log_path
from finemesh.core.errors import FencedError, InvalidError, PermissionDeniedError
from finemesh.training.logs.store import LIMIT_BYTES
from finemesh.v1 import training_log_pb2 as pb
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub
from google.rpc import code_pb2

from tests.support.scripted_cluster import ScriptedCluster, translated
from tests.support.servers import PATIENCE_SECONDS
from tests.support.services import ServiceProcess
from tests.support.training_client import TrainingClient

pytestmark = pytest.mark.integration
SECRET = "s3cr3t-of-the-object-store"
WRITER = """
import os, signal, sys
from pathlib import Path
from finemesh.cluster.joblog import redirect
redirect(Path(sys.argv[1]), "INFO")
for number in range(int(sys.argv[2])):
    print(f"line {number} by {sys.argv[3]}", file=sys.stderr if number % 2 else sys.stdout)
os.write(1, b"and then nothi")
os.kill(os.getpid(), signal.SIGKILL)
"""


async def read(client: TrainingClient, name: str, **wish: Any) -> list[pb.LogLine]:
    """All lines that come until the stream ends."""
    lines: list[pb.LogLine] = []
    async for part in client.stub.StreamTrainingJobLogs(pb.StreamTrainingJobLogsRequest(name=name, **wish)):
        lines += part.lines
    return lines


async def write(path: Path, count: int, who: str) -> None:
    """Let a process write so many lines and kill itself in the middle of the next."""
    command = [sys.executable, "-c", WRITER, str(path), str(count), who]
    done = await asyncio.to_thread(subprocess.run, command, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL


async def test_what_killed_attempts_wrote_is_complete_and_in_order(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, service: ServiceProcess, tmp_path: Path
) -> None:
    job = await client.create(trainable)
    first = await cluster.next_attempt()
    await first.renew("RUNNING")
    paths = [log_path(tmp_path, "job", number) for number in (1, 2)]
    async with first.kept_alive():
        await write(paths[0], 5000, f"one who knows {SECRET}")
    following = asyncio.create_task(read(client, job.name, follow=True))
    await first.fail(code_pb2.UNAVAILABLE, "killed")
    second = await cluster.next_attempt()
    await second.renew("RUNNING")
    async with second.kept_alive():
        await write(paths[1], 20, "two")
        # The supervisor of the first was killed as well: the second brings both, in their order.
        training = channel(service.address, lambda: second.token)
        for path in paths:
            await LogShipper(training, job.name, path, Redactor(SECRET)).ship(lambda: True)
    assert not tmp_path.joinpath("job").exists()
    await client.cancel(job.name)
    await second.stop()
    lines = await asyncio.wait_for(following, PATIENCE_SECONDS)
    stars = "*" * len(SECRET)
    wanted = [f"line {n} by one who knows {stars}" for n in range(5000)] + ["and then nothi"]
    wanted += [f"line {n} by two" for n in range(20)] + ["and then nothi"]
    assert [line.text for line in lines] == wanted
    assert await read(client, job.name) == lines
    assert await read(client, job.name, attempt=2, tail=3) == lines[-3:]
    cursor = f"{lines[17].attempt}:{lines[17].offset}"
    assert await read(client, job.name, cursor=cursor) == lines[17:]
    await training.close()


async def test_a_log_is_bounded_and_says_what_was_dropped(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, service: ServiceProcess
) -> None:
    job = await client.create(trainable)
    attempt = await cluster.next_attempt()
    await attempt.renew("RUNNING")
    agent = TrainingClient(service.address, service.key, client.project, Role.SERVICE)
    part = b"".join(b"%015d\n" % n for n in range(8192))  # 128 KiB
    offset = 0
    while offset < LIMIT_BYTES + (4 << 20):
        request = pb.AppendTrainingJobLogRequest(name=job.name, attempt=1, offset=offset, content=part)
        for _ in range(2):  # a repetition changes nothing
            answer = await agent.call("AppendTrainingJobLog", request)
            assert answer.durable_bytes == offset + len(part)
        offset += len(part)
    ahead = pb.AppendTrainingJobLogRequest(name=job.name, attempt=1, offset=offset + 1, content=b"x")
    assert (await agent.call("AppendTrainingJobLog", ahead)).durable_bytes == offset
    lines = await read(client, job.name)
    [gap] = [line for line in lines if line.dropped_bytes]
    assert 16 * len(lines) + gap.dropped_bytes == offset
    assert 16 * len(lines) <= LIMIT_BYTES
    assert (lines[0].text, lines[-1].text) == ("0" * 15, f"{8191:015d}")
    await agent.channel.close()


async def test_who_may_write_a_log(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, service: ServiceProcess
) -> None:
    job = await client.create(trainable)
    attempt = await cluster.next_attempt()
    await attempt.renew("RUNNING")
    training = channel(service.address, lambda: attempt.token)
    mine = TrainingServiceStub(training)
    request = pb.AppendTrainingJobLogRequest(name=job.name, attempt=2, content=b"not mine yet\n")
    with pytest.raises(FencedError), translated():
        await mine.AppendTrainingJobLog(request)
    request.attempt = 1
    await mine.AppendTrainingJobLog(request)
    with pytest.raises(PermissionDeniedError):
        await client.call("AppendTrainingJobLog", request)
    with pytest.raises(InvalidError), translated():
        await read(client, job.name, cursor="yesterday")
    await training.close()
