"""`finemesh train logs`: what the attempts at a job have written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import grpc
import typer

from finemesh.client.cli.context import err, options
from finemesh.client.cli.output import print_json_line
from finemesh.client.cli.training import JobId, commands
from finemesh.client.errors import RpcError
from finemesh.client.figures import size
from finemesh.v1 import training_log_pb2 as pb

_AGAIN_SECONDS = 1.0
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@commands("logs")
def logs(
    job: JobId,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job has ended.")] = False,
    attempt: Annotated[int, typer.Option(min=0, help="Only of this attempt; 0 means of all.")] = 0,
    tail: Annotated[int, typer.Option(min=0, help="Begin with the last so many lines.")] = 0,
) -> None:
    """Print what the attempts at a job have written: their log, stdout and stderr."""
    name = options.connection().name("trainingJobs", job)
    request = pb.StreamTrainingJobLogsRequest(name=name, attempt=attempt, tail=tail, follow=follow)
    shown = 0
    for line in _lines(request):
        if options.json:
            print_json_line(line)
            continue
        if line.attempt != shown:
            shown = line.attempt
            err.print(f"[dim]attempt {shown}[/]")
        if line.dropped_bytes:
            err.print(
                f"[yellow]{size(line.dropped_bytes)} of this log were dropped: it had become too large[/]"
            )
        print(line.text, flush=True)  # noqa: T201
    if not shown and not options.json:
        err.print("[dim]nothing was written: no attempt has got so far[/]")


def _lines(request: pb.StreamTrainingJobLogsRequest) -> Iterator[pb.LogLine]:
    """The lines; while following, over interruptions of the connection as well."""
    while True:
        try:
            for part in options.connection().training.StreamTrainingJobLogs(request):
                yield from part.lines
                request.cursor = part.cursor
            return
        except RpcError as error:
            if not (request.follow and error.code in _AWAY):
                raise
            time.sleep(_AGAIN_SECONDS)
