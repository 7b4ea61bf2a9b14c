"""Become another program that the kernel ends together with the process that started it.

    python -I -S exec_with_parent.py <pid of the starter> <program> <arguments>

A small program in place of `preexec_fn`, which would fork the whole interpreter with its threads and gRPC
channels. Where the kernel does not offer this, the program just starts, and the next `up` reaps what is left.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # the starter was gone before the kernel knew
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
