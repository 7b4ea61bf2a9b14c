"""Trace context and the log lines that carry it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from finemesh.chassis.logs import get_logger
from finemesh.chassis.telemetry import (
    TraceContext,
    current_trace,
    span,
    trace_from_headers,
    trace_from_metadata,
    trace_headers,
)

from tests.support.log_lines import written

# The example of the specification, https://www.w3.org/TR/trace-context/#examples-of-http-traceparent-headers
HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_header_is_read_and_written() -> None:
    context = TraceContext.parse(HEADER)
    assert context == TraceContext(TRACE_ID, "00f067aa0ba902b7", 1)
    assert context is not None
    assert context.header() == HEADER


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        HEADER[:-1],
        HEADER.upper(),
        HEADER + "-more",  # version 00 has nothing after the flags
        "ff" + HEADER[2:],
        HEADER.replace(TRACE_ID, "0" * 32),
        HEADER.replace("00f067aa0ba902b7", "0" * 16),
    ],
)
def test_a_malformed_header_is_ignored(header: str) -> None:
    assert TraceContext.parse(header) is None


def test_a_later_version_may_say_more() -> None:
    later = TraceContext.parse("01" + HEADER[2:] + "-what-comes-later")
    assert later is not None
    assert later.header() == HEADER


def test_spans_nest_in_one_trace_and_end() -> None:
    assert current_trace() is None
    with span(TraceContext.parse(HEADER)) as outer:
        with span() as inner:
            assert current_trace() == inner
        assert current_trace() == outer
        assert outer.trace_id == inner.trace_id == TRACE_ID
        assert len({outer.span_id, inner.span_id, "00f067aa0ba902b7"}) == 3
    assert current_trace() is None


async def test_tasks_do_not_share_a_span() -> None:
    async def traced() -> str:
        with span() as here:
            await asyncio.sleep(0)
            assert current_trace() == here
            return here.trace_id

    assert len(set(await asyncio.gather(*(traced() for _ in range(4))))) == 4


def test_the_context_travels_in_headers_and_metadata() -> None:
    assert trace_headers() == {}
    with span() as here:
        headers = trace_headers()
    assert trace_from_headers(headers) == trace_from_metadata(headers.items()) == here
    assert trace_from_headers(None) is None
    assert trace_from_metadata([("traceparent", b"bytes"), ("other", "x")]) is None


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    with written("training", "INFO") as stream:
        yield stream


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_line_says_who_when_and_where(log: io.StringIO) -> None:
    with span() as here:
        get_logger("finemesh.training").info("job_queued", job="projects/a/trainingJobs/t", path=object)
    [line] = lines(log)
    assert (line["service"], line["level"], line["event"]) == ("training", "info", "job_queued")
    assert (line["trace_id"], line["span_id"]) == (here.trace_id, here.span_id)
    assert (line["job"], line["logger"]) == ("projects/a/trainingJobs/t", "finemesh.training")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 60
    assert line["time"].endswith("Z")


def test_libraries_log_in_the_same_form(log: io.StringIO) -> None:
    logging.getLogger("library").warning("watch %s", "out", extra={"depth": 3})
    logging.getLogger("library").debug("unseen")
    logging.getLogger("nats").info("too talkative")
    [line] = lines(log)
    assert (line["event"], line["logger"], line["level"], line["depth"]) == (
        "watch out",
        "library",
        "warning",
        3,
    )
    assert (line["service"], "trace_id" in line) == ("training", False)


def test_a_traceback_is_one_line(log: io.StringIO) -> None:
    try:
        raise ValueError("deep down")
    except ValueError:
        get_logger("finemesh.x").exception("failed")
        logging.getLogger("library").exception("failed too")
    ours, theirs = lines(log)
    assert "ValueError: deep down" in ours["exception"]
    assert "ValueError: deep down" in theirs["exception"]


def test_warnings_are_logged(log: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old ways", stacklevel=1)
    assert "old ways" in lines(log)[0]["event"]
