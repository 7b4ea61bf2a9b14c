"""Several processes that train as one: a rank each, and what they say to each other.

Every rank takes the same steps over the same samples and computes its share of each. Rank 0 leads: it alone
calls hooks, writes checkpoints and reads them, and what it decides the others are told. Gradients are summed
in buckets after the backward pass, for what lies whole on every rank; shards are summed by FSDP (`sharding`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch.distributed.tensor import DTensor

from finemesh.core.errors import UnavailableError

# How long a rank waits for the others: longer than an upload that holds rank 0 up while the store is away.
TIMEOUT: Final = timedelta(minutes=30)
_BUCKET_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of one training, as one of them sees it. Alone, nothing is said and calls return at once.

    Every method but `leads` and `seed_step` is called by all ranks, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sums over all ranks of a small tensor on the CPU."""
        if self.size == 1:
            return values
        sums = values.to(torch.float64, copy=True)
        dist.all_reduce(sums)
        return sums.to(values.dtype)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients of all ranks in place. What has none on any rank keeps none, as with one."""
        if self.size == 1:
            return
        shards = [each for each in parameters if isinstance(each, DTensor)]
        for parameter in shards:
            if parameter.grad is not None:
                parameter.grad.mul_(self.size)  # FSDP has made the mean of them
        whole = [each for each in parameters if not isinstance(each, DTensor)]
        learning = torch.tensor([each.grad is not None for each in whole], dtype=torch.uint8)
        dist.all_reduce(learning, dist.ReduceOp.MAX)
        gradients: list[torch.Tensor] = []
        for parameter, learns in zip(whole, learning.tolist(), strict=True):
            if learns:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([each.reshape(-1) for each in bucket])
            dist.all_reduce(flat)
            for each, summed in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                each.copy_(summed.view_as(each))

    def tell(self, text: str) -> str:
        """What rank 0 says, on every rank."""
        if self.size == 1:
            return text
        said = torch.frombuffer(bytearray(text.encode() or b"\0"), dtype=torch.uint8)
        length = torch.tensor([len(said)])
        with self.watched():
            dist.broadcast(length, 0)
            said = said if self.leads else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(said, 0)
        return bytes(said.tolist()).rstrip(b"\0").decode()

    def agreed(self, values: dict[str, float]) -> dict[str, float]:
        """Rank 0's values, bit for bit."""
        return values if self.size == 1 else json.loads(self.tell(json.dumps(values)))

    def hand(self, tensor: torch.Tensor | None) -> torch.Tensor:
        """Rank 0's tensor, on the CPU; the others give None."""
        kind = json.loads(self.tell(json.dumps(_kind(tensor)) if tensor is not None else ""))
        if tensor is None:
            tensor = torch.empty(kind["shape"], dtype=getattr(torch, kind["dtype"]))
        if self.size > 1:
            with self.watched():  # as bytes: the transport does not know every number format
                dist.broadcast(tensor.contiguous().reshape(-1).view(torch.uint8), 0)
        return tensor

    def seed_step(self, seed: int, step: int) -> None:
        """Let the other ranks draw other numbers (of dropout) than rank 0, whose generator is in checkpoints.

        They follow from seed, step and rank: a resumed run of as many ranks draws the same again.
        """
        if not self.leads:
            drawn = hashlib.sha256(f"{seed}\0{step}\0{self.rank}".encode()).digest()
            torch.manual_seed(int.from_bytes(drawn[:7], "big"))

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Raises UnavailableError, reason RANK_LOST, when another rank does not answer any more."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise UnavailableError(
                f"rank {self.rank} of {self.size} waits for others that do not answer "
                f"({str(error).splitlines()[0][:200]}): see how those ended, and resume from the last "
                "checkpoint",
                reason="RANK_LOST",
            ) from error

    @contextlib.contextmanager
    def folder(self, work: Path) -> Generator[Path]:
        """Where this rank writes: `work` for rank 0; what the others write is the same, and thrown away."""
        if self.leads:
            yield work
            return
        with tempfile.TemporaryDirectory(prefix=f"finemesh-rank-{self.rank}-") as folder:
            yield Path(folder)


ALONE: Final = Group()


def from_environment() -> AbstractContextManager[Group]:
    """The group of a process that torchrun has started; of any other, itself alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return contextlib.nullcontext(ALONE)
    return joined(int(os.environ["RANK"]), size, local_rank=int(os.environ.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def joined(
    rank: int,
    size: int,
    *,
    store: dist.Store | None = None,
    local_rank: int = 0,
    timeout: timedelta = TIMEOUT,
) -> Generator[Group]:
    """Meet the other ranks, and leave them in the end.

    Args:
        rank: of this process, from 0.
        size: how many meet.
        store: where they meet; None for MASTER_ADDR and MASTER_PORT.
        local_rank: which of the GPUs that this process sees is its own.
        timeout: how long it waits for the others, now and in every step.

    Raises:
        UnavailableError: RANK_LOST, not all have come in time.
    """
    group = Group(rank, size)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with group.watched():
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    yield group
    # Not after an error: others may be gone, and then their leave would be waited for.
    dist.destroy_process_group()


def end_process(code: int) -> NoReturn:
    """End a process that may have been a rank, with an exit code, without taking Python apart before.

    Threads of gloo outlive `destroy_process_group` where FSDP was used, or where another rank was lost. One
    that lets go of a tensor while the interpreter ends wants its lock, and the process dies of SIGABRT
    ("terminate called without an active exception") after all its work was done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class SharedTensors(Mapping[str, torch.Tensor]):
    """The tensors of a safetensors file that rank 0 reads, each when it is asked for; on the CPU.

    All ranks ask for the same ones in the same order, so that no rank ever holds more than it wants.

    Raises:
        OSError, SafetensorError: rank 0 cannot read it.
    """

    def __init__(self, path: Path, group: Group) -> None:
        self._file: Any = safe_open(path, "pt") if group.leads else None
        self._group = group
        self._names: list[str] = json.loads(
            group.tell(json.dumps(list(self._file.keys())) if self._file else "")
        )

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._group.hand(self._file.get_tensor(name) if self._file else None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)


def _kind(tensor: torch.Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _buckets(gradients: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Runs of one number format, up to a size: a message each."""
    bucket: list[torch.Tensor] = []
    for each in gradients:
        if bucket and (each.dtype != bucket[0].dtype or sum(b.nbytes for b in bucket) >= _BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(each)
    if bucket:
        yield bucket
