"""What steps on a CPU free is not taken from the system again."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Final

import pytest

STEPS: Final = """
import resource, sys
from finemesh.finetune.memory import kept_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        [bytearray(1 << 20) for _ in range(32)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1])

with kept_memory(sys.argv[1]):
    faults()
    print(faults())
    held = resident()
print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have other habits")
def test_what_a_step_frees_is_there_for_the_next_one_and_not_held_after_the_last() -> None:
    def run(device: str) -> list[int]:
        done = subprocess.run(
            [sys.executable, "-c", STEPS, device], capture_output=True, check=True, text=True
        )
        return [int(line) for line in done.stdout.split()]

    pages = 32 * 256
    faults, handed_back = run("cpu")
    assert faults < pages
    assert handed_back > pages / 2
    assert run("cuda")[0] > 5 * pages
