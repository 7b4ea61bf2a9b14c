"""GPUs proven free, and warm processes that heed which GPU they are given, on a machine that has one."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
import torch
from finemesh.cluster.devices import NvmlDevices, given
from finemesh.cluster.reaper import Holding, place, release

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator on this machine"),
]

GIB = 1 << 30
HOLDER = """
import time, torch
held = torch.zeros(1 << 30, dtype=torch.uint8, device="cuda")
print(held.sum().item(), flush=True)
time.sleep(600)
"""
# What a warm worker does: it imports without a GPU, and is given one afterwards.
WARM = """
import os
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
import importlib
from finemesh.cluster.warm import MODULES, cuda_untouched
for module in MODULES:
    importlib.import_module(module)
assert cuda_untouched()
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
import torch
print(torch.cuda.device_count(), torch.zeros(1, device="cuda").item())
assert not cuda_untouched()
"""


def test_a_gpu_is_free_when_its_process_has_been_ended() -> None:
    devices = NvmlDevices()
    (device,) = given(["0"], "0", 1.0, devices)
    assert device.uuid == devices.uuids()[0]
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline()
    try:
        usage = devices.usage(device.uuid)
        assert usage is not None
        assert usage.memory_bytes >= device.memory_bytes + GIB
        started = psutil.Process(process.pid).create_time()
        found = release(Holding(process.pid, started, "node", place(), (device,)), devices)
        assert found.free, found.evidence
        assert device.uuid in found.evidence
    finally:
        process.kill()
        process.communicate()


def test_imports_leave_cuda_alone_and_a_gpu_given_later_is_seen() -> None:
    done = subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert done.stdout.split()[-2:] == ["1", "0.0"]
