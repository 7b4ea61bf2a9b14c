"""bitsandbytes, imported without torch's compiler: take it from here, and before peft, which imports it too.

As it is imported it hands what it has no kernel for to `torch.compile`, which loads the whole compiler: 1.5 s
of processor time and 40 MB in every training, for functions that hardly any calls. Here each is compiled when
it is called for the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch

_torch: Any = torch
_compile: Any = torch.compile


def _compile_late(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    @cache
    def compiled() -> Callable[..., Any]:
        return _compile(function, **options)

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return compiled()(*arguments, **named)

    return call


# It warns of kernels that nothing here needs, and of every 8-bit product.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
_torch.compile = _compile_late
try:
    import bitsandbytes
finally:
    _torch.compile = _compile

__all__ = ["bitsandbytes"]
