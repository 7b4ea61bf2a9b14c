"""`python -m tests.bench.contenders NAME SOURCE OUT`: one way of doing a job, ours or a peer's.

A contender imports its packages, says `ready`, and then does its job once for every line it is sent: it
answers with the wall and CPU seconds of the job and its peak memory so far. With `--once` the job is done at
once and the process ends; with `--profile` it says where the time went. Peers run under a Python of their
own, which has no finemesh: so everything is imported where it is needed.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import resource
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

ANNOTATIONS: Final = "annotations/instances_all.json"
Job = Callable[[], object]


def _finemesh(form: str, *, prove: bool = False, pictures: bool = False) -> Callable[[Path, Path], Job]:
    """compile_source into a form; without pictures the annotations alone are given."""

    def prepare(source: Path, out: Path) -> Job:
        from finemesh.core.spec.data import ConvertOptions, DatasetFormat, ImportOptions
        from finemesh.data import compile_source

        given = source if pictures else source / ANNOTATIONS
        options = ConvertOptions(DatasetFormat(form), prove_masks=prove)
        return lambda: compile_source(given, out, ImportOptions(), options, lambda *_: None)

    return prepare


def _finemesh_import(source: Path, out: Path) -> Job:
    from finemesh.core.spec.data import ImportOptions
    from finemesh.data import import_source

    return lambda: import_source(source, out, ImportOptions(), lambda *_: None)


def _finemesh_conversion(source: Path, out: Path) -> Job:
    from finemesh.core.spec.data import ConvertOptions, DatasetFormat
    from finemesh.data import convert_dataset

    options = ConvertOptions(DatasetFormat.HUGGING_FACE)
    return lambda: convert_dataset(source, out, options, lambda *_: None)


def _finemesh_validation(level: str) -> Callable[[Path, Path], Job]:
    def prepare(source: Path, out: Path) -> Job:
        from finemesh.core.spec.data import ValidateOptions, ValidationLevel
        from finemesh.data import validate_dataset

        del out
        options = ValidateOptions(level=ValidationLevel(level))
        return lambda: validate_dataset(source, options, lambda *_: None)

    return prepare


def _datumaro_validation(source: Path, out: Path) -> Job:
    """Its import and its validator, with the command line's own limits."""
    del out
    dataset: Any = importlib.import_module("datumaro").Dataset
    validator: Any = importlib.import_module("datumaro.plugins.validators").DetectionValidator
    limits = {"few_samples_thr": 10, "imbalance_ratio_thr": 10, "far_from_mean_thr": 5}

    def job() -> None:
        found = dataset.import_from(str(source), "coco_instances")
        validator(**limits, dominance_ratio_thr=0.8, topk_bins=0.1).validate(found)

    return job


def _cleanvision(issues: dict[str, Any] | None) -> Callable[[Path, Path], Job]:
    def prepare(source: Path, out: Path) -> Job:
        del out
        lab: Any = importlib.import_module("cleanvision").Imagelab
        return lambda: lab(data_path=str(source)).find_issues(issues, verbose=False)

    return prepare


def _plain_boxes(source: Path, out: Path) -> Job:
    """What somebody would write who needs it once: everything in memory, nothing checked."""

    def job() -> None:
        out.mkdir(parents=True)
        with (source / ANNOTATIONS).open() as file:
            coco = json.load(file)
        numbers = {category["id"]: number for number, category in enumerate(coco["categories"])}
        objects: defaultdict[int, list[Any]] = defaultdict(list)
        for annotation in coco["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        for image in coco["images"]:
            width, height, lines = image["width"], image["height"], list[str]()
            for item in objects[image["id"]]:
                x, y, w, h = item["bbox"]
                box = f"{(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}"
                lines.append(f"{numbers[item['category_id']]} {box}\n")
            with (out / f"{Path(image['file_name']).stem}.txt").open("w") as file:
                file.write("".join(lines))

    return job


def _datumaro_boxes(source: Path, out: Path) -> Job:
    dataset: Any = importlib.import_module("datumaro").Dataset

    def job() -> None:
        dataset.import_from(str(source), "coco_instances").export(str(out), "yolo", save_media=False)

    return job


def _ultralytics(*, segments: bool) -> Callable[[Path, Path], Job]:
    def prepare(source: Path, out: Path) -> Job:
        os.environ["YOLO_CONFIG_DIR"] = str(out.parent / "ultralytics")
        converter: Any = importlib.import_module("ultralytics.data.converter")
        folder = str((source / ANNOTATIONS).parent)
        return lambda: converter.convert_coco(folder, str(out), use_segments=segments, cls91to80=False)

    return prepare


def _supervision_masks(source: Path, out: Path) -> Job:
    dataset: Any = importlib.import_module("supervision").DetectionDataset

    def job() -> None:
        found = dataset.from_coco(str(source / "images"), str(source / ANNOTATIONS), force_masks=True)
        found.as_yolo(annotations_directory_path=str(out / "labels"), data_yaml_path=str(out / "data.yaml"))

    return job


def _pycocotools_decoding(source: Path, out: Path) -> Job:
    """Decoding alone: the file is read and parsed before."""
    decode: Any = importlib.import_module("pycocotools.mask").decode
    del out
    coco = json.loads((source / ANNOTATIONS).read_bytes())
    masks = [item["segmentation"] for item in coco["annotations"]]
    packed = [{"size": mask["size"], "counts": mask["counts"].encode()} for mask in masks]

    def job() -> None:
        for mask in packed:
            decode(mask)

    return job


def _datasets(examples: Callable[[Path], Iterator[dict[str, Any]]]) -> Callable[[Path, Path], Job]:
    """Dataset.from_generator and to_parquet."""

    def prepare(source: Path, out: Path) -> Job:
        datasets: Any = importlib.import_module("datasets")
        value, integer, text = datasets.Value("float64"), datasets.Value("int32"), datasets.Value("string")
        item = {"object_id": text, "class_name": text, "bbox": datasets.List(value, length=4), "area": value}
        item["iscrowd"] = datasets.Value("bool")
        columns = {"row_id": text, "images": datasets.List(datasets.Image()), "width": integer}
        features = datasets.Features({**columns, "height": integer, "objects": datasets.List(item)})

        def job() -> None:
            given = {"features": features, "gen_kwargs": {"source": source}, "cache_dir": str(out / "cache")}
            datasets.Dataset.from_generator(examples, **given).to_parquet(str(out / "all.parquet"))

        return job

    return prepare


def _examples_of_canonical(source: Path) -> Iterator[dict[str, Any]]:
    wanted = [
        f"objects.list.element.{name}" for name in ("object_id", "class_name", "bbox", "area", "iscrowd")
    ]
    wanted += ["row_id", *(f"images.list.element.{name}" for name in ("data", "name", "width", "height"))]
    parquet: Any = importlib.import_module("pyarrow.parquet")
    for path in sorted(source.glob("shards/*.parquet")):
        for batch in parquet.ParquetFile(path).iter_batches(256, columns=wanted):
            for row in batch.to_pylist():
                picture = row["images"][0]
                sides = {"width": picture["width"], "height": picture["height"]}
                images = [{"bytes": picture["data"], "path": picture["name"]}]
                yield {"row_id": row["row_id"], "images": images, **sides, "objects": row["objects"]}


def _examples_of_coco(source: Path) -> Iterator[dict[str, Any]]:
    coco = json.loads((source / ANNOTATIONS).read_bytes())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects: defaultdict[int, list[Any]] = defaultdict(list)
    for item in coco["annotations"]:
        told = {"object_id": str(item["id"]), "class_name": names[item["category_id"]], "bbox": item["bbox"]}
        objects[item["image_id"]].append({**told, "area": item["area"], "iscrowd": bool(item["iscrowd"])})
    for image in coco["images"]:
        name = image["file_name"]
        picture = {"bytes": (source / "images" / name).read_bytes(), "path": name}
        sides = {"width": image["width"], "height": image["height"]}
        yield {"row_id": str(image["id"]), "images": [picture], **sides, "objects": objects[image["id"]]}


CONTENDERS: Final[dict[str, Callable[[Path, Path], Job]]] = {
    "finemesh-boxes": _finemesh("yolo_detection"),
    "finemesh-masks": _finemesh("yolo_segmentation"),
    "finemesh-masks-proved": _finemesh("yolo_segmentation", prove=True),
    "finemesh-coco": _finemesh("coco"),
    "finemesh-parquet": _finemesh("hugging_face", pictures=True),
    "finemesh-import": _finemesh_import,
    "finemesh-conversion": _finemesh_conversion,
    "finemesh-validation": _finemesh_validation("basic"),
    "finemesh-validation-strict": _finemesh_validation("strict"),
    "plain-boxes": _plain_boxes,
    "datumaro-boxes": _datumaro_boxes,
    "ultralytics-boxes": _ultralytics(segments=False),
    "ultralytics-masks": _ultralytics(segments=True),
    "supervision-masks": _supervision_masks,
    "pycocotools-decoding": _pycocotools_decoding,
    "datasets-conversion": _datasets(_examples_of_canonical),
    "datasets-parquet": _datasets(_examples_of_coco),
    "datumaro-validation": _datumaro_validation,
    "cleanvision": _cleanvision(None),
    "cleanvision-duplicates": _cleanvision({"exact_duplicates": {}, "near_duplicates": {}}),
}


def _timed(job: Job, out: Path) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    job()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return {"wall": wall, "cpu": cpu, "peak": _peak_mb()}


def _cpu_seconds() -> float:
    """Of this process, its threads and the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak_mb() -> float:
    """Of this program alone, in MB: `ru_maxrss` would begin with the memory of whoever started it."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000


def _profiled(job: Job, out: Path) -> str:
    shutil.rmtree(out, ignore_errors=True)
    cprofile: Any = importlib.import_module("cProfile")
    pstats: Any = importlib.import_module("pstats")
    profile, told = cprofile.Profile(), io.StringIO()
    profile.runcall(job)
    pstats.Stats(profile, stream=told).sort_stats("tottime").print_stats(12)
    return told.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print what they like
    job = CONTENDERS[asked.name](asked.source, asked.out)
    if asked.profile:
        sys.stderr.write(_profiled(job, asked.out))
    elif asked.once:
        print(json.dumps(_timed(job, asked.out)), file=answers)
    else:
        print("ready", file=answers, flush=True)
        for _ in sys.stdin:
            print(json.dumps(_timed(job, asked.out)), file=answers, flush=True)


if __name__ == "__main__":
    main()
