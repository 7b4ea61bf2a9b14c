"""Conversions: part by part, several at once as Ray tasks, each uploaded as soon as it is made.

The files of a part lie at their place on the object store from then on, and its record `parts/<number>.json`
beside them; but they are no dataset before the list of all files is there. So an attempt that follows one
that was killed makes the missing parts alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finemesh.chassis.logs import configure_logging, get_logger
from finemesh.chassis.objects import DirectoryManifest, FileEntry, sha256_of_file
from finemesh.cluster.config import Site
from finemesh.cluster.worker import Job, Stopped
from finemesh.cluster.workers.store import Store
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.data import ConvertOptions, DatasetManifest, ShardInfo

if TYPE_CHECKING:
    from finemesh.data.parts import Conversion, Part

_POLL_SECONDS: Final = 0.5
_TASK_RETRIES: Final = 2

_log = get_logger("finemesh.worker")


def convert_in_parts(
    job: Job, store: Store, dataset: Path, output_uri: str, options: ConvertOptions
) -> tuple[DatasetManifest, int]:
    """Convert the dataset in a folder to `output_uri`. Returns its manifest and its size in bytes.

    Raises as `finemesh.data.convert_dataset`; Stopped, after which nothing of it is left.
    """
    from finemesh.data.parts import assemble, missing_parts, plan_conversion, recorded_files

    job.progress(0.0, "planning")
    conversion = plan_conversion(dataset, options)
    out = job.scratch / "dataset"
    out.mkdir()
    _bring_records(store, output_uri, out, conversion)
    missing = missing_parts(out, conversion)
    if len(missing) < len(conversion.parts):
        _log.info("conversion_resumed", parts=len(conversion.parts), missing=len(missing))
    try:
        done = conversion.parent.rows - sum(part.rows for part in missing)
        for part in _make(job, dataset, out, output_uri, conversion, missing):
            done += part.rows
            job.progress(done / conversion.parent.rows, f"{done} of {conversion.parent.rows} rows")
        made = recorded_files(out, conversion)
        manifest = assemble(out, conversion)
    except (Stopped, InvalidError, PreconditionError):  # trying again would not help: leave nothing
        store.discard(output_uri)
        raise
    size = _seal(store, output_uri, out, manifest, made)
    for part in conversion.parts:
        store.delete(f"{output_uri}/{part.file}")
    return manifest, size


def _bring_records(store: Store, output_uri: str, out: Path, conversion: Conversion) -> None:
    """Fetch what earlier attempts have recorded."""
    from finemesh.data.parts import PARTS

    known = {part.file for part in conversion.parts}
    found = store.list(f"{output_uri}/{PARTS}/", limit=len(known) + 1)
    uris = {f"{output_uri}/{name}" for name in known if any(stat.key.endswith(name) for stat in found)}
    store.fetch_files({uri: out / PARTS / uri.rpartition("/")[2] for uri in uris}, lambda *_: None)


def _make(
    job: Job, dataset: Path, out: Path, output_uri: str, conversion: Conversion, missing: Sequence[Part]
) -> Iterator[Part]:
    """Make parts, and give each once it is recorded: here if there is one, else in tasks on this node."""
    if len(missing) < 2:
        for part in missing:
            make_part(job.site, dataset, out, output_uri, conversion, part, job.progress)
            yield part
        return
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # The attempt holds its CPU while it waits: tasks that wanted one of their own could wait for it for ever.
    task: Any = ray.remote(_task).options(num_cpus=0, scheduling_strategy=node, max_retries=_TASK_RETRIES)
    shared = ray.put(conversion)
    waiting = iter(missing)
    running: dict[Any, Part] = {}
    try:
        while True:
            while len(running) < (os.cpu_count() or 1) and (part := next(waiting, None)) is not None:
                running[task.remote(job.site, str(dataset), str(out), output_uri, shared, part)] = part
            if not running:
                return
            ended, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            job.progress(job.fraction, job.message)  # raises when the work is to stop
            for each in ended:
                ray.get(each)
                yield running.pop(each)
    finally:
        for each in running:
            ray.cancel(each, force=True)


def _task(site: Site, dataset: str, out: str, output_uri: str, conversion: Conversion, part: Part) -> None:
    configure_logging("worker", site.log_level)
    make_part(site, Path(dataset), Path(out), output_uri, conversion, part, lambda *_: None)


def make_part(
    site: Site,
    dataset: Path,
    out: Path,
    output_uri: str,
    conversion: Conversion,
    part: Part,
    progress: Any,
) -> None:
    """Make a part, upload its files, and last its record."""
    from finemesh.data.parts import convert_part

    tally = convert_part(dataset, out, conversion, part, progress)
    with Store(site) as store:
        store.put_files(out, output_uri, [_entry(shard) for shard in (*tally.shards, *tally.ledger_shards)])
        store.put(out / part.file, f"{output_uri}/{part.file}", "application/json")


def _seal(store: Store, output_uri: str, out: Path, manifest: DatasetManifest, made: frozenset[str]) -> int:
    """Upload what belongs to no part, and the list of all files."""
    listed = {entry.path: entry for entry in map(_entry, (*manifest.shards, *manifest.ledger_shards))}
    path = out / "manifest.json"
    listed[path.name] = FileEntry(path.name, path.stat().st_size, sha256_of_file(path))
    whole = DirectoryManifest(tuple(listed[name] for name in sorted(listed)))
    store.put_files(out, output_uri, [entry for entry in whole.files if entry.path not in made])
    store.seal(output_uri, whole)
    shutil.rmtree(out)
    return whole.total_bytes


def _entry(shard: ShardInfo) -> FileEntry:
    return FileEntry(shard.path, shard.bytes, shard.sha256)
