"""bitsandbytes comes without torch's compiler, and what it wants compiled is so when it is called."""

from __future__ import annotations

import subprocess
import sys

import pytest
from finemesh.finetune import quantiser


def test_it_comes_without_the_compiler() -> None:
    code = (
        "import sys, torch; compile = torch.compile; import finemesh.finetune.quantiser;"
        "assert torch.compile is compile and 'bitsandbytes' in sys.modules;"
        "sys.exit('torch._inductor.compile_fx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_function_is_compiled_once_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[dict[str, object]] = []

    def compile_now(function: object, **options: object) -> object:
        compiled.append(options)
        return function

    monkeypatch.setattr(quantiser, "_compile", compile_now)
    late = quantiser._compile_late(max, dynamic=False)  # pyright: ignore[reportPrivateUsage]
    assert compiled == []
    assert late(3, 5) == late(5, 4) == 5
    assert compiled == [{"dynamic": False}]
