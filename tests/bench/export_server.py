"""`python -m tests.bench.export_server`: the server of a package against the bare model, a JSON line per bar.

The overhead is what a request over HTTP takes beyond the same work without the server, in the same process,
in turns; the client is counted too. The throughput of 8 clients is that of the server as it is, against the
same server that runs one request at a time. The model is a Llama of 31 M parameters with random weights.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import torch
from finemesh.finetune.tiny import build_tiny
from finemesh.package.formats.format import SHIPPED
from finemesh.package.shipped.decide import decide
from finemesh.package.shipped.server.app import Limits
from finemesh.package.shipped.server.replay import serving

from tests.bench.measuring import PAIRS, Board

PROMPT: Final = "say red green blue and the first? " * 4
REQUESTS: Final = 60
CLIENTS: Final = 8
EACH: Final = 2  # requests of a client in a round
TOKENS: Final = 24
WIDTH: Final = 512
LAYERS: Final = 10


def package(folder: Path) -> Path:
    """As much of a package as its runner and server read."""
    from transformers import LlamaConfig, LlamaForCausalLM

    build_tiny("llama", folder, [PROMPT], seed=0)
    config = LlamaConfig.from_pretrained(folder)
    config.update(
        {
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "head_dim": WIDTH // 8,
            "max_position_embeddings": 2048,
        }
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = None  # every answer is as long as it may be
    model.save_pretrained(folder)
    facts = {
        "format": "MERGED",
        "auto_class": "AutoModelForCausalLM",
        "spec": {"task": "LANGUAGE"},
        "decisions": {},
        "lineage": {},
        "base_model": {"name": "bench"},
    }
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


def load(folder: Path) -> Any:
    """The runner as the package has it, without its own end of an answer."""
    spec = importlib.util.spec_from_file_location("runtime", SHIPPED / "runtime_transformers.py")
    assert spec
    assert spec.loader
    runtime = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runtime)
    runner = runtime.Runner(folder)
    runner.end_ids = frozenset()
    return runner


def ask(connection: http.client.HTTPConnection, tokens: int) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    assert answer["usage"]["completion_tokens"] == tokens, answer


def overhead_seconds(runner: Any, folder: Path, tokens: int) -> list[tuple[float, float]]:
    """(the bare model, over HTTP) of each pair."""
    messages = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    pairs: list[tuple[float, float]] = []
    with serving(runner, decide, folder) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        for _ in range(REQUESTS + 5):
            began = time.perf_counter()
            runner.text(runner.write(runner.prepare(messages, None), tokens))
            bare = time.perf_counter()
            ask(connection, tokens)
            pairs.append((bare - began, time.perf_counter() - bare))
        connection.close()
    return pairs[5:]


def round_seconds(address: str) -> float:
    """How long CLIENTS take for EACH requests each, one after the other."""

    def client() -> None:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        for _ in range(EACH):
            ask(connection, TOKENS)
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for each in [pool.submit(client) for _ in range(CLIENTS)]:
            each.result()
    return time.perf_counter() - began


def main() -> int:
    board = Board("python -m tests.bench.export_server")
    with tempfile.TemporaryDirectory() as scratch:
        folder = package(Path(scratch) / "package")
        runner = load(folder)
        met = True
        for tokens in (1, 8):
            pairs = overhead_seconds(runner, folder, tokens)
            over = statistics.median(1000 * (served - bare) for bare, served in pairs)
            bare = statistics.median(1000 * bare for bare, _ in pairs)
            name = f"server: overhead over the bare model ({bare:.1f} ms), {tokens} tokens, median"
            met &= board.show(name, over, 5, "ms")
        ours: list[float] = []
        alone: list[float] = []
        with (
            serving(runner, decide, folder) as batched,
            serving(runner, decide, folder, Limits(batch=1)) as one,
        ):
            round_seconds(batched)
            round_seconds(one)
            for _ in range(PAIRS):
                ours.append(round_seconds(batched))
                alone.append(round_seconds(one))
        name = f"server: {CLIENTS} clients batched, against one request at a time, {TOKENS} tokens"
        met &= board.ratio(name, ours, alone, 2, "s")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
