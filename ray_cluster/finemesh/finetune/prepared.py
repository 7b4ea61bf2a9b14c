"""Encoded splits on disk, so that a resumed or repeated run need not encode anew.

An entry is a folder named by its key, a digest of all that the encoding follows from: the bytes of the
dataset and of the base model's files but its weights, the spec but what encoding does not read, the sources
of this package and the versions of the libraries beneath it. So an entry is never stale; where one is broken,
it is made again.

    <key>/
        samples.jsonl   one sample in a line; an array is `{"at": byte, "dtype": …, "shape": […]}`
        arrays.bin      the arrays, mapped into memory when they are read
        entries.jsonl   what became of every row
        manifest.json   size and SHA-256 of each, and how many rows were cut off
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, cast

import numpy as np

from finemesh.core.spec import codec
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.manifests import file_digest, read_manifest, write_manifest, wrong_files
from finemesh.finetune.objectives.objective import AnyObjective, AnySplit

DEFAULT_MAX_BYTES: Final = 20 << 30
# What encoding does not read: the dataset, the model and the splits count by their content.
_WITHOUT_EFFECT: Final = {
    *("dataset", "base_model", "base_model_revision", "train_split", "validation_split", "test_split"),
    *("method", "optimization", "precision", "evaluation", "checkpoint", "resources"),
    "max_quarantined_fraction",
}
_WEIGHTS: Final = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".msgpack", ".h5"}
_LIBRARIES: Final = (
    *("numpy", "pillow", "pyarrow", "pycocotools", "timm", "tokenizers", "torch", "torchvision"),
)
_ALIGNMENT: Final = 64
_ABANDONED_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class PreparedCache:
    """A folder of entries, at most `max_bytes` of them: the least recently used go first."""

    folder: Path
    max_bytes: int = DEFAULT_MAX_BYTES

    def encoder(
        self, spec: FineTuneSpec, base_model: Path, dataset: Path, objective: AnyObjective
    ) -> Callable[[str, int], AnySplit]:
        """`objective.encode`, which looks here first and keeps what it makes."""
        inputs = encoding_inputs(spec, base_model, dataset, type(objective))

        def encode(split: str, limit: int = 0) -> AnySplit:
            entry = self.folder / codec.digest({**inputs, "split": split, "limit": limit})
            kept = self._read(entry, objective)
            if kept is None:
                made = objective.encode(split, limit)
                kept = made if not self._write(entry, made) else self._read(entry, objective) or made
            return kept

        return encode

    def _read(self, entry: Path, objective: AnyObjective) -> AnySplit | None:
        """What an entry holds; None if there is none, or none that is whole."""
        try:
            manifest = read_manifest(entry)
            if next(wrong_files(entry, manifest), None) is None:
                split = _read_split(entry, objective, manifest["truncated"])
                os.utime(entry)
                return split
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):  # a bad disk, an interrupted removal
            shutil.rmtree(entry, ignore_errors=True)
        return None

    def _write(self, entry: Path, split: AnySplit) -> bool:
        """Whether a split was kept: a full disk, or a sample of an odd kind, costs time and not the run."""
        partial: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=self.folder))
            _write_split(partial, split)
            shutil.rmtree(entry, ignore_errors=True)
            partial.rename(entry)
        except (OSError, TypeError):
            return False
        finally:
            if partial:
                shutil.rmtree(partial, ignore_errors=True)
        self._evict(entry)
        return True

    def _evict(self, newest: Path) -> None:
        """Remove what is least recently used, until the rest fits. Who has it mapped keeps it."""
        for left in self.folder.glob(".*.partial"):  # by whoever was killed in the middle
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        total = 0
        for entry in sorted(
            _entries(self.folder), key=lambda each: (each == newest, _used(each)), reverse=True
        ):
            total += sum(each.stat().st_size for each in entry.iterdir() if each.is_file())
            if total > self.max_bytes and entry != newest:
                shutil.rmtree(entry, ignore_errors=True)


def encoding_inputs(
    spec: FineTuneSpec, base_model: Path, dataset: Path, objective: type[AnyObjective]
) -> dict[str, Any]:
    """All that the samples of a split follow from, but the split itself, as JSON."""
    content = spec.to_dict()
    return {
        "spec": {name: value for name, value in content.items() if name not in _WITHOUT_EFFECT},
        "dataset": _digests(dataset, lambda path: path.suffix in {".parquet", ".json"})
        if dataset.is_dir()
        else file_digest(dataset),
        "base_model": _digests(base_model, lambda path: path.suffix not in _WEIGHTS),
        "objective": f"{objective.__module__}.{objective.__qualname__}",
        "code": _code(),
    }


def _digests(folder: Path, wanted: Callable[[PurePath], bool]) -> dict[str, str]:
    """SHA-256 of the files of a folder by their names, those of hidden folders left out."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    visible = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return {str(name): file_digest(folder / name) for name in sorted(visible) if wanted(name)}


@cache
def _code() -> dict[str, str]:
    """This package by its sources, the libraries beneath it by their versions."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0{file_digest(path)}\0".encode())
    return {
        "finemesh": digest.hexdigest(),
        **{name: _version(name) for name in (*_LIBRARIES, "transformers")},
    }


def _version(library: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(library)
    return ""


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()]


def _used(entry: Path) -> int:
    try:
        return entry.stat().st_mtime_ns
    except FileNotFoundError:  # removed by another run meanwhile
        return 0


# Splits as files


def _write_split(folder: Path, split: AnySplit) -> None:
    with (folder / "arrays.bin").open("wb") as arrays:
        write_lines(folder / "samples.jsonl", (_plain(sample, arrays) for sample in split.samples))
        write_lines(folder / "entries.jsonl", (_plain(entry, arrays) for entry in split.entries))
    write_manifest(folder, {"truncated": split.truncated})


def _read_split(folder: Path, objective: AnyObjective, truncated: int) -> AnySplit:
    path = folder / "arrays.bin"
    # Copied where it is written to: arrays are as free as those that were encoded, and the file stays.
    mapped = np.asarray(np.memmap(path, np.uint8, "c")) if path.stat().st_size else np.empty(0, np.uint8)
    kind = _sample_type(type(objective))
    samples = [_rich(kind, line, mapped) for line in _lines(folder / "samples.jsonl")]
    entries = [_rich(LedgerEntry, line, mapped) for line in _lines(folder / "entries.jsonl")]
    return objective.restore(samples, entries, truncated)


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _sample_type(objective: type[AnyObjective]) -> type[Any]:
    """The S of the `Objective[S, B]` that an objective derives from, by way of whatever classes."""
    for origin in (each for base in objective.__mro__ for each in vars(base).get("__orig_bases__", ())):
        for argument in typing.get_args(origin)[:1]:
            if is_dataclass(argument) and isinstance(argument, type):
                return argument
    raise TypeError(f"{objective.__name__} does not say what its samples are: derive from Objective[S, B]")


def _plain(value: Any, arrays: BinaryIO) -> Any:
    """A sample as JSON; its arrays go to the end of `arrays`."""
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(cast("np.ndarray[Any, Any]", value))
        arrays.write(b"\0" * (-arrays.tell() % _ALIGNMENT))
        where = arrays.tell()
        arrays.write(array.data.cast("B") if array.size else b"")
        return {"at": where, "dtype": array.dtype.str, "shape": value.shape}
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name), arrays) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item, arrays) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {name: _plain(item, arrays) for name, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | Enum):
        return value
    raise TypeError(f"a {type(value).__name__} of a sample cannot be kept: make it an array or a number")


def _rich(annotation: Any, value: Any, mapped: np.ndarray[Any, Any]) -> Any:
    """The inverse of `_plain`, for a value that is annotated so."""
    if isinstance(annotation, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if arm is not types.NoneType]
        return None if value is None else _rich(arms[0], value, mapped)
    origin: Any = typing.get_origin(annotation) or annotation
    if origin is np.ndarray:
        dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
        end = value["at"] + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return mapped[value["at"] : end].view(dtype).reshape(shape)
    if is_dataclass(origin):
        hints = _hints(origin)
        make = cast("Callable[..., Any]", origin)
        return make(**{name: _rich(hints[name], item, mapped) for name, item in value.items()})
    if hasattr(origin, "_fields"):  # a NamedTuple
        kinds = _hints(origin).values()
        return origin(*(_rich(kind, item, mapped) for kind, item in zip(kinds, value, strict=True)))
    if origin in (dict, Mapping):
        kind = typing.get_args(annotation)[1]
        return {key: _rich(kind, item, mapped) for key, item in value.items()}
    if origin in (tuple, list):
        inner = typing.get_args(annotation)
        each = inner[:1] * len(value) if origin is list or inner[1:] == (Ellipsis,) else inner
        return origin(_rich(kind, item, mapped) for kind, item in zip(each, value, strict=True))
    if not isinstance(value, str | int | float):
        raise TypeError(f"a sample has a {annotation}, which cannot be read again: use a tuple or a dict")
    return origin(value) if isinstance(origin, type) and issubclass(origin, Enum) else value


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)
