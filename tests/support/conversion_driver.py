"""A conversion in parts as a worker does it, in a process of its own: `conversion_driver RAY S3.json FOLDER`.

The dataset lies in FOLDER/dataset. With a fourth argument, the process kills itself (SIGKILL) once so many
parts are recorded, as a killed worker would end. Prints the digest, and how many parts it has made.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config
from finemesh.cluster.config import Site
from finemesh.cluster.worker import Job
from finemesh.cluster.workers import conversion
from finemesh.cluster.workers.store import Store
from finemesh.core.spec.data import ConvertOptions, DatasetFormat
from finemesh.data import parts
from finemesh.v1 import attempt_pb2

OUTPUT = "datasets/out"


def main(address: str, s3_file: str, folder: Path, die_after: int | None) -> None:
    told: dict[str, Any] = json.loads(Path(s3_file).read_text())
    told["secret_key"] = Secret(told["secret_key"])
    config = S3Config(**told)
    site = Site(cluster="c", data_dir=folder, addresses={}, s3=config)
    parts.PART_BYTES = 1  # a part for every row group
    os.cpu_count = lambda: 2  # with more at a time there might be nothing left to do when it dies
    made: list[int] = []
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    job = Job(attempt_pb2.Command(), site, folder / f"scratch-{os.getpid()}")
    job.scratch.mkdir()
    make = conversion._make

    def counting(*arguments: Any) -> Any:
        for part in make(*arguments):
            made.append(part.number)
            if len(made) == die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield part

    conversion._make = counting
    with Store(site) as store:
        options = ConvertOptions(DatasetFormat.YOLO_SEGMENTATION)
        uri = f"s3://{site.s3.bucket}/{OUTPUT}"
        manifest, size = conversion.convert_in_parts(job, store, folder / "dataset", uri, options)
    print(json.dumps({"digest": manifest.digest, "size": size, "made": made}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
