"""Detection: the loss of a step, resumption, mirrored pictures, heads, and what becomes of every row."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Pictures,
    Precision,
    Task,
    Tower,
)
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.data.rows import make_object
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.heads import classes_of
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train
from finemesh.finetune.models import load_model
from finemesh.finetune.objectives.detection import Detection
from finemesh.finetune.preflight import preflight_dataset
from finemesh.finetune.tiny import build_tiny
from PIL import Image
from safetensors.torch import load_file

from tests.support.conversations import write_dataset
from tests.support.shapes import DATASET, row_of, shape_rows, shapes_row

FAMILIES = ("yolos", "detr", "conditional-detr", "rt-detr-v2", "d-fine")
EVERY_TOWER = (Tower.VISION, Tower.DECODER, Tower.HEAD)


@dataclass
class Recorder(NoHooks):
    losses: dict[int, float] = field(default_factory=dict[int, float])
    said: list[str] = field(default_factory=list[str])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.losses[step] = values["train/loss"]

    def on_progress(self, fraction: float, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: build_tiny(name, root / name, [], 0) for name in FAMILIES}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    return write_dataset(folder, list(shape_rows({"train": 12, "val": 4, "test": 6}, least=0)))


def detection(micro: int = 2, accumulate: int = 2, **changes: Any) -> FineTuneSpec:
    optimization = Optimization(
        learning_rate=1e-3,
        max_steps=3,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulate,
        seed=3,
    )
    spec = FineTuneSpec(
        task=Task.DETECTION,
        base_model="tiny",
        dataset=DATASET,
        validation_split="",
        test_split="",
        method=Full(EVERY_TOWER),
        optimization=optimization,
        checkpoint=Checkpointing(every_steps=1, keep_last=100),
    )
    return replace(spec, **changes)


def objective_of(spec: FineTuneSpec, model: Path, dataset: Path) -> Detection:
    return Detection(spec, load_model(spec, model, classes_of(spec, dataset)), dataset)


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_it_computes_the_same_bits(
    models: dict[str, Path], shapes: Path, tmp_path: Path, family: str
) -> None:
    """Dropout and denoising draw random numbers, and batch norms have statistics that move."""

    def run(work: str, resume_from: Path | None = None) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
        recorder = Recorder()
        result = train(
            detection(),
            base_model=models[family],
            dataset=shapes,
            work=tmp_path / work,
            hooks=recorder,
            resume_from=resume_from,
        )
        return recorder.losses, load_file(result.checkpoint.path / "weights" / "trainable.safetensors")

    losses, straight = run("straight")
    step, checkpoint = list_checkpoints(tmp_path / "straight" / "checkpoints")[0]
    again, resumed = run("resumed", checkpoint)
    assert again == {s: loss for s, loss in losses.items() if s > step}
    assert all(torch.equal(each, straight[name]) for name, each in resumed.items())


def losses_by_cut(spec: FineTuneSpec, model: Path, dataset: Path) -> tuple[float, list[float]]:
    """transformers' own loss over all training pictures at once, and ours in parts of 12, 4 and 1."""
    objective = objective_of(spec, model, dataset)
    split = objective.encode("train")
    objective.model.module.eval()
    with torch.no_grad():
        own = float(objective.model.module(**objective.collate(split, split.samples).inputs).loss)
        ours: list[float] = []
        for size in (12, 4, 1):
            parts = [split.samples[start : start + size] for start in range(0, 12, size)]
            batches = [objective.collate(split, part) for part in parts]
            sums_K = torch.stack([objective.loss(batch) for batch in batches]).sum(0)
            ours.append(float((sums_K / torch.stack([batch.weight for batch in batches]).sum(0)).sum()))
    return own, ours


@pytest.mark.parametrize("family", ["yolos", "detr", "conditional-detr", "rt-detr-v2"])
def test_how_a_step_is_cut_changes_nothing(models: dict[str, Path], shapes: Path, family: str) -> None:
    """Pictures have none to three boxes: a mean of means would differ."""
    own, ours = losses_by_cut(detection(), models[family], shapes)
    assert ours == pytest.approx([own] * 3, rel=1e-5)


@pytest.mark.parametrize("family", ["yolos", "detr", "d-fine"])
def test_padding_counts_unless_pictures_are_resized_to_one_size(
    models: dict[str, Path], tmp_path: Path, family: str
) -> None:
    """YOLOS is not told where it begins; DETR's mask hides it from attention, not from convolutions."""
    rng = np.random.default_rng(0)
    sizes = [(90, 50), (50, 80), (64, 64)] * 4
    rows = [shapes_row(f"row-{i}", "train", ["circle"], rng, size) for i, size in enumerate(sizes)]
    own, ours = losses_by_cut(detection(), models[family], write_dataset(tmp_path / "data", rows))
    assert ours[0] == pytest.approx(own, rel=1e-5)
    assert (ours[2] == pytest.approx(own, rel=1e-5)) == (family == "d-fine")


def test_denoising_counts(models: dict[str, Path], shapes: Path, tmp_path: Path) -> None:
    """Denoising takes its copies by the fullest picture of a batch: RT-DETR's loss in training shows it."""
    objective = objective_of(detection(), models["rt-detr-v2"], shapes)
    split = objective.encode("train")

    def step(size: int) -> float:
        torch.manual_seed(0)
        batches = [
            objective.collate(split, split.samples[start : start + size]) for start in range(0, 12, size)
        ]
        for norm in objective.model.module.modules():  # so that they are not what differs
            norm.training = "Norm" not in type(norm).__name__
        with torch.no_grad():
            sums = [float(objective.loss(batch)) for batch in batches]
        return sum(sums) / float(sum(batch.weight for batch in batches))

    assert step(12) != pytest.approx(step(4), rel=1e-3)


def test_targets_are_those_of_the_image_processor(models: dict[str, Path], shapes: Path) -> None:
    """In pixels and boxes, for pictures of uneven shape, and boxes that reach over the edge."""
    rng = np.random.default_rng(0)
    rows = [shapes_row("wide", "train", ["circle", "square"], rng, (90, 40))]
    rows.append(shapes_row("tall", "train", ["square"], rng, (40, 70)))
    rows[0]["objects"][0]["bbox"] = [80.0, -5.0, 20.0, 20.0]
    dataset = write_dataset(shapes.parent / "uneven", rows, shards=1)
    for family in ("detr", "yolos"):
        objective = objective_of(detection(), models[family], dataset)
        split = objective.encode("train")
        batch = objective.collate(split, split.samples)
        pictures = [Image.open(_stream(row)).convert("RGB") for row in rows]
        annotations = [{"image_id": 0, "annotations": list(map(_annotation, row["objects"]))} for row in rows]
        expected = objective.model.processor(images=pictures, annotations=annotations, return_tensors="pt")
        assert torch.allclose(batch.inputs["pixel_values"], expected["pixel_values"])
        if family == "detr":
            assert torch.equal(batch.inputs["pixel_mask"], expected["pixel_mask"])
        for ours, theirs, sample in zip(
            batch.inputs["labels"], expected["labels"], split.samples, strict=True
        ):
            # transformers makes boxes relative to the padded canvas. That is right for YOLOS, which sees no
            # mask; the boxes of DETR itself are relative to the picture.
            height, width = (
                shown / padded
                for shown, padded in zip(sample.shown_px, expected["pixel_values"].shape[2:], strict=True)
            )
            share = torch.tensor([width, height] * 2) if family == "detr" else torch.ones(4)
            assert torch.equal(ours["class_labels"], theirs["class_labels"])
            assert torch.allclose(ours["boxes"] * share, theirs["boxes"].float(), atol=1e-6)


def _stream(row: dict[str, Any]) -> Any:
    import io

    return io.BytesIO(row["images"][0]["data"])


def _annotation(thing: dict[str, Any]) -> dict[str, Any]:
    return {
        "bbox": thing["bbox"],
        "category_id": ["circle", "square"].index(thing["class_name"]),
        "area": thing["area"],
        "iscrowd": 0,
    }


def test_pictures_are_mirrored_by_seed_epoch_and_row_alone(models: dict[str, Path], shapes: Path) -> None:
    objective = objective_of(detection(pictures=Pictures(0.5)), models["detr"], shapes)
    split = objective.encode("train")
    mirrored = [[objective.vary(sample, epoch).mirrored for sample in split.samples] for epoch in range(40)]
    assert mirrored == [
        [objective.vary(each, epoch).mirrored for each in split.samples] for epoch in range(40)
    ]
    assert mirrored[0] != mirrored[1]
    assert 0.4 < np.mean(mirrored) < 0.6
    sample = next(each for each in split.samples if each.scene.count)
    plain = objective.collate(split, [sample]).inputs
    turned = objective.collate(split, [replace(sample, mirrored=True)]).inputs
    assert torch.equal(turned["pixel_values"], plain["pixel_values"].flip(-1))
    assert torch.allclose(turned["labels"][0]["boxes"][:, 0], 1 - plain["labels"][0]["boxes"][:, 0])
    assert torch.equal(turned["labels"][0]["boxes"][:, 1:], plain["labels"][0]["boxes"][:, 1:])


def test_every_row_is_accounted_for(models: dict[str, Path], tmp_path: Path) -> None:
    def box(number: int, name: str | None = "circle", x: float = 2.0, **flags: Any) -> Any:
        return make_object(str(number), name, bbox=[x, 2.0, 8.0, 8.0], **flags)

    picture = Image.new("RGB", (64, 64))
    rows = [
        row_of("sound", "train", picture, [box(0), box(1, "square")]),
        row_of("empty", "train", picture),
        row_of("hidden", "train", picture, [box(0, None, visible=False)]),
        row_of("crowd", "train", picture, [box(0), box(1, iscrowd=True)]),
        row_of("full", "train", picture, [box(number) for number in range(12)]),
        row_of("nameless", "train", picture, [box(0), box(1, None)]),
        row_of("outside", "train", picture, [box(0, x=64.0)]),
        row_of("pictureless", "train", None, [box(0)]),
        row_of("crowds", "val", picture, [box(0, iscrowd=True)]),
    ]
    dataset = write_dataset(tmp_path / "data", rows, shards=1)
    objective = objective_of(detection(), models["yolos"], dataset)
    split = objective.encode("train")
    assert {entry.row_id: (entry.reason, entry.field) for entry in split.entries if entry.reason} == {
        "nameless": ("OBJECT_WITHOUT_CLASS", "objects[1].class_name"),
        "outside": ("BOX_OUTSIDE_PICTURE", "objects[0].bbox"),
        "pictureless": ("NO_PICTURE", "images"),
    }
    assert split.ledger.inputs == 8
    labels = objective.collate(split, split.samples).inputs["labels"]
    counts = {sample.row_id: len(each["boxes"]) for sample, each in zip(split.samples, labels, strict=True)}
    assert counts == {"sound": 2, "empty": 0, "hidden": 0, "crowd": 1, "full": 12}
    assert split.truncated == 1  # twelve objects, ten detection tokens
    with pytest.raises(InvalidError) as caught:
        objective.encode("val")
    assert caught.value.reason == "NO_BOXES"


def test_without_class_names_there_is_nothing_to_tell_apart(models: dict[str, Path], tmp_path: Path) -> None:
    thing = make_object("0", None, bbox=[2.0, 2.0, 8.0, 8.0])
    dataset = write_dataset(tmp_path / "data", [row_of("a", "train", Image.new("RGB", (64, 64)), [thing])])
    with pytest.raises(InvalidError) as caught:
        train(detection(), base_model=models["yolos"], dataset=dataset, work=tmp_path / "work")
    assert caught.value.reason == "NO_CLASSES"


@pytest.mark.parametrize(("names", "kept"), [(("square", "circle"), True), (("a", "b", "c"), False)])
def test_a_head_is_kept_for_the_same_classes_and_made_anew_for_others(
    models: dict[str, Path], shapes: Path, tmp_path: Path, names: tuple[str, ...], kept: bool
) -> None:
    labels = dict(enumerate(names))
    module = transformers.AutoModelForObjectDetection.from_pretrained(
        models["detr"],
        id2label=labels,
        label2id={v: k for k, v in labels.items()},
        ignore_mismatched_sizes=True,
    )
    module.save_pretrained(tmp_path / "named")
    transformers.AutoImageProcessor.from_pretrained(models["detr"], backend="pil").save_pretrained(
        tmp_path / "named"
    )
    recorder = Recorder()
    spec = detection(optimization=replace(detection().optimization, max_steps=1))
    train(spec, base_model=tmp_path / "named", dataset=shapes, work=tmp_path / "work", hooks=recorder)
    assert any("head is new" in said for said in recorder.said) != kept
    model = load_model(spec, tmp_path / "named", ("circle", "square"))
    head = model.module.class_labels_classifier.weight
    assert torch.equal(head, module.class_labels_classifier.weight) if kept else head.shape[0] == 3
    assert model.config.label2id["square"] == (0 if kept else 1)
    again = load_model(spec, tmp_path / "named", ("circle", "square"))
    assert torch.equal(again.module.class_labels_classifier.weight, head)


@pytest.mark.parametrize(
    ("family", "towers", "adapted"),
    [
        ("yolos", (Tower.VISION, Tower.DECODER), "vit.encoder.layer.0.attention.attention.query"),
        ("conditional-detr", (Tower.DECODER,), "model.decoder.layers.0"),
        ("detr", (Tower.VISION, Tower.DECODER), "model.encoder.layers.0"),
    ],
)
def test_adapters_lie_in_linear_layers_and_the_head_is_trained_whole(
    models: dict[str, Path],
    shapes: Path,
    tmp_path: Path,
    family: str,
    towers: tuple[Tower, ...],
    adapted: str,
) -> None:
    spec = detection(
        method=Lora(rank=2, towers=towers), test_split="test", evaluation=Evaluation(baselines=True)
    )
    result = train(spec, base_model=models[family], dataset=shapes, work=tmp_path / "work")
    names = {
        name.removeprefix("base_model.model.")
        for name in load_file(result.checkpoint.path / "adapter" / "adapter_model.safetensors")
    }
    assert any(name.startswith(adapted) and "lora_A" in name for name in names)
    assert any("class" in name and "lora" not in name for name in names)
    assert result.metrics["test/untrained_loss"] > 0


@pytest.mark.parametrize(
    ("family", "reason"), [("detr", "TARGETS_NOT_FOUND"), ("rt-detr-v2", "METHOD_UNSUITABLE")]
)
def test_adapters_that_cannot_be_are_refused(
    models: dict[str, Path], shapes: Path, tmp_path: Path, family: str, reason: str
) -> None:
    """A backbone of convolutions has no linear layers, and peft does not know its way about RT-DETR."""
    spec = detection(method=Lora(rank=2, towers=(Tower.VISION,)))
    with pytest.raises(InvalidError) as caught:
        train(spec, base_model=models[family], dataset=shapes, work=tmp_path / "work")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("family", "method"), [("d-fine", Full(EVERY_TOWER)), ("detr", Lora(rank=2, towers=(Tower.DECODER,)))]
)
def test_bf16_trains(
    models: dict[str, Path], shapes: Path, tmp_path: Path, family: str, method: Full | Lora
) -> None:
    recorder = Recorder()
    spec = detection(precision=Precision.BF16, method=method, test_split="test")
    train(spec, base_model=models[family], dataset=shapes, work=tmp_path / "work", hooks=recorder)
    assert all(np.isfinite(loss) for loss in recorder.losses.values())


def test_it_learns_to_find_shapes(models: dict[str, Path], tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", list(shape_rows({"train": 96, "val": 8, "test": 24}, most=1)))
    spec = detection(
        optimization=Optimization(learning_rate=2e-3, max_steps=100, micro_batch_size=12, seed=1),
        evaluation=Evaluation(every_steps=45, baselines=True),
        checkpoint=Checkpointing(every_steps=0),
        validation_split="val",
        test_split="test",
    )
    result = train(spec, base_model=models["rt-detr-v2"], dataset=dataset, work=tmp_path / "work")
    assert result.metrics["test/untrained_map50"] < 0.1
    assert result.metrics["test/map50"] > 0.5
    assert result.metrics["test/map_low"] <= result.metrics["test/map"] <= result.metrics["test/map_high"]
    lines = (tmp_path / "work" / "evaluation" / "test.jsonl").read_text().splitlines()
    assert np.mean([json.loads(line)["average_precision"] for line in lines]) > 0.2


def test_it_is_not_looked_at_for_tokens(models: dict[str, Path], shapes: Path) -> None:
    spec = detection()
    with pytest.raises(InvalidError) as caught:
        preflight_dataset(PreflightOptions(spec), models["yolos"], shapes)
    assert caught.value.reason == "PREFLIGHT_UNSUITABLE"


def test_killed_alone_it_goes_on_as_if_nothing_had_been(
    models: dict[str, Path], shapes: Path, tmp_path: Path
) -> None:
    """SIGKILL after the second step was told, then `--resume`; pictures are mirrored, and prepared."""
    spec = detection(validation_split="val", test_split="test", pictures=Pictures(0.5))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-m", "finemesh.finetune", str(tmp_path / "spec.json")]
    command += ["--base", str(models["detr"]), "--dataset", str(shapes), "--cache", str(tmp_path / "cache")]
    command += ["--work", str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line).get("step") == 2:
                process.kill()
                break
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    resumed = json.loads(done.stdout.splitlines()[-1])
    straight = train(spec, base_model=models["detr"], dataset=shapes, work=tmp_path / "straight")
    assert resumed["certificate"]["loss_digest"] == straight.certificate.loss_digest
    assert resumed["metrics"]["test/map"] == straight.metrics["test/map"]
