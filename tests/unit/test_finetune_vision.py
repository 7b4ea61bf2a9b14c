"""Vision-language families against transformers itself: tokens, pictures, logits, training, adapters."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import Full, Lora, OverLength, Sequence, Task, Tower
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune.batches import collate
from finemesh.finetune.checkpoint import list_checkpoints, load_weights
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.families import FAMILIES, family_named, family_of
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train
from finemesh.finetune.models import Model, load_model, load_processor
from finemesh.finetune.preflight import preflight_dataset
from finemesh.finetune.scoring import closed_answers, score
from finemesh.finetune.sight import decode_image
from PIL import Image
from transformers import AutoConfig

from tests.support.conversations import (
    colour_rows,
    message,
    picture,
    row,
    spec,
    tiny_model,
    write_dataset,
)

NAMES = [family.name for family in FAMILIES if family.task is Task.VISION_LANGUAGE]
# Several of a message, several messages with some, and every size another.
TURNS = (
    message("user", "<picture>", "and", "<picture>", "say"),
    message("assistant", "red green"),
    message("user", "the first?", "<picture>"),
    message("assistant", "blue"),
)
SIZES_PX = ((32, 32), (48, 20), (24, 56))


@cache
def base_of(name: str) -> Path:
    return tiny_model(Path(mkdtemp()) / name, name)


def pictures() -> list[bytes]:
    rng = np.random.default_rng(3)
    colours = ("red", "green", "blue")
    return [picture(colour, rng, *size) for colour, size in zip(colours, SIZES_PX, strict=True)]


@dataclass(frozen=True)
class Reading:
    model: Model
    encoded: EncodedSplit

    @property
    def sample(self) -> Sample:
        [sample] = self.encoded.samples
        return sample


@pytest.fixture(params=NAMES)
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Reading:
    model = load_model(spec(method=Lora(rank=2)), base_of(request.param))
    model.module.eval()
    dataset = write_dataset(tmp_path / "dataset", [row("a", "train", TURNS, *pictures())], shards=1)
    encoder = Encoder(model.family, model.processor, model.config, Sequence())
    return Reading(model, encoder.encode(dataset, "train"))


def own_inputs(model: Model) -> dict[str, Any]:
    """What the model's own processor makes of the conversation."""
    images = [Image.open(io.BytesIO(each)).convert("RGB") for each in pictures()]
    text = model.tokenizer.apply_chat_template([{**turn} for turn in TURNS], tokenize=False)
    return dict(model.processor(text=[text], images=[images], add_special_tokens=False, return_tensors="pt"))


def test_tokens_and_pictures_are_those_of_the_processor(reading: Reading) -> None:
    if reading.model.family.name == "instructblip":
        pytest.skip("its processor writes placeholders before the text, and one picture's alone")
    expected = own_inputs(reading.model)
    assert reading.sample.input_ids_T.tolist() == expected["input_ids"][0].tolist()
    found = reading.encoded.pictures.inputs([reading.sample])
    assert found
    for name, tensor in found.items():
        given = expected[name]
        if name == "pixel_values" and reading.model.family.name == "llava-next":  # padded to the most tiles
            given = torch.cat([each[: each.flatten(1).any(1).sum()] for each in given])
        assert torch.equal(tensor, given), name


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_seen_by_several_threads_as_by_one(name: str, tmp_path: Path) -> None:
    """Also where one of them does not decode: rows, ledger and tensors are the same, in the same order."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 90, (40, 2)).tolist()
    turns = [message("user", "<picture>", "say"), message("assistant", "red")]
    shown = [picture("red", rng, *size) for size in sizes]
    shown[7] = shown[7][:50]
    rows = [row(f"row-{n}", "train", turns, each) for n, each in enumerate(shown)]
    dataset = write_dataset(tmp_path / "dataset", rows)
    family, config = family_named(name), AutoConfig.from_pretrained(base_of(name))
    encoder = Encoder(family, load_processor(base_of(name), family), config, Sequence(max_tokens=4096))
    before, made = torch.get_num_threads(), list[EncodedSplit]()
    for threads in (1, 4):
        torch.set_num_threads(threads)
        made.append(encoder.encode(dataset, "train"))
    torch.set_num_threads(before)
    one, several = made
    assert one.entries == several.entries
    assert [entry.row_id for entry in one.entries if entry.reason] == ["row-7"]
    for ours, theirs in zip(one.samples, several.samples, strict=True):
        assert (ours.row_id, ours.input_ids_T.tolist()) == (theirs.row_id, theirs.input_ids_T.tolist())
        [tensors, again] = (
            each.pictures.inputs([sample]) for each, sample in ((one, ours), (several, theirs))
        )
        assert all(torch.equal(tensors[key], again[key]) for key in tensors)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "instructblip"])
def test_real_photographs_are_seen_as_the_processor_sees_them(name: str) -> None:
    folder = Path(__file__).parents[2] / "../shared/samples/frames"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/samples with real data is not here")
    family, processor = family_named(name), load_processor(base_of(name), family_named(name))
    config: Any = AutoConfig.from_pretrained(base_of(name))
    for path in sorted(folder.glob("*.jpg")):
        image = decode_image(path.read_bytes())
        seen = family.see(processor, image)
        mark = str(processor.image_token)
        whole = processor(text=[mark], images=[[image]], return_tensors="np")
        ids = processor.tokenizer(seen.text, add_special_tokens=False)["input_ids"]
        assert ids == whole["input_ids"][0].tolist()[-len(ids) :]
        joined = family.join(config, [seen.tensors], [])
        assert np.array_equal(joined["pixel_values"].ravel(), whole["pixel_values"].ravel())
        assert family.image_features
        assert seen.text.count(mark) == family.image_features(config, seen.tensors)


@pytest.mark.parametrize("name", NAMES)
def test_processors_load_as_hubs_lay_them_out(name: str, tmp_path: Path) -> None:
    """The image processor in a file of its own, called by its torchvision name, as older folders have it."""
    family, base = family_named(name), tmp_path / "base"
    shutil.copytree(base_of(name), base)
    image = decode_image(pictures()[1])
    before = family.see(load_processor(base, family), image)
    content = json.loads((base / "processor_config.json").read_bytes())
    images = content.pop("image_processor")
    images["image_processor_type"] = images["image_processor_type"].removesuffix("Pil")
    (base / "preprocessor_config.json").write_text(json.dumps(images))
    (base / "processor_config.json").write_text(json.dumps(content))
    processor = load_processor(base, family)
    after = family.see(processor, image)
    assert processor.chat_template
    assert after.text == before.text
    for key, tensor in before.tensors.items():
        assert np.array_equal(after.tensors[key], tensor)


def test_packed_logits_are_those_of_the_model_by_itself(reading: Reading) -> None:
    """Positions, masks and pictures as the model's forward makes them of the processor's output."""
    import transformers

    model, sample = reading.model, reading.sample
    plain = getattr(transformers, model.family.auto_class).from_pretrained(base_of(model.family.name)).eval()
    if model.family.name == "instructblip":
        ids = torch.from_numpy(sample.input_ids_T)[None]
        expected: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected |= reading.encoded.pictures.inputs([sample])
    else:
        expected = own_inputs(model)
    batch = collate([sample], reading.encoded.pictures, packing=True, pad_id=0)
    with torch.inference_mode():
        ours_NV = model.logits(batch)
        theirs_NV = plain(**expected).logits[0][batch.predict_BT[0]]
    torch.testing.assert_close(ours_NV, theirs_NV, rtol=0, atol=2e-5)


def test_closed_and_open_scores_agree(reading: Reading, tmp_path: Path) -> None:
    """One way computes prompts once and answers on their keys and values, the other whole packed rows."""
    model = reading.model
    asked, first, third = message("user", "<picture>", "say"), pictures()[0], pictures()[2]
    rows = [
        row("a", "train", [asked, message("assistant", "red green blue")], first),
        row("b", "train", [asked, message("assistant", "blue")], third),
        row("c", "train", [message("user", "say"), message("assistant", "blue")]),
    ]
    dataset = write_dataset(tmp_path / "closed", rows, shards=1)
    encoder = Encoder(model.family, model.processor, model.config, Sequence())
    encoded = encoder.encode(dataset, "train")
    closed = score(model, encoded.samples, encoded.pictures, closed_answers(encoded.samples))
    opened = score(model, encoded.samples, encoded.pictures, None)
    for one, other in zip(closed, opened, strict=True):
        assert one.loss_sum == pytest.approx(other.loss_sum, rel=1e-4)
        assert one.correct_tokens == other.correct_tokens
    blank = score(model, encoded.samples, encoded.pictures, None, blank=True)
    assert blank[0].loss_sum != pytest.approx(opened[0].loss_sum, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_truncation_drops_pictures_with_their_turns(name: str, tmp_path: Path) -> None:
    base = base_of(name)
    family = family_named(name)
    config, processor = AutoConfig.from_pretrained(base), load_processor(base, family)
    dataset = write_dataset(tmp_path / "dataset", [row("a", "train", TURNS, *pictures())], shards=1)
    [whole] = Encoder(family, processor, config, Sequence()).encode(dataset, "train").samples
    options = Sequence(max_tokens=whole.size - 1, over_length=OverLength.TRUNCATE)
    encoded = Encoder(family, processor, config, options).encode(dataset, "train")
    [cut] = encoded.samples
    assert cut.input_ids_T.tolist() == whole.input_ids_T[: cut.size].tolist()
    assert processor.tokenizer.decode(cut.input_ids_T[cut.loss_T]) == "red green</s>"
    assert [place.number for place in cut.images] == [0, 1]
    assert all(len(tensor) == 2 for tensor in cut.extras.values())
    model = load_model(spec(method=Lora(rank=2)), base)
    assert model.logits(collate([cut], encoded.pictures, packing=True, pad_id=0)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("method", "towers"),
    [
        (Lora(rank=2), {Tower.LANGUAGE}),
        (Lora(rank=2, towers=(Tower.VISION, Tower.CONNECTOR)), {Tower.VISION, Tower.CONNECTOR}),
        (Lora(rank=2, train_connector=True), {Tower.LANGUAGE, Tower.CONNECTOR}),
        (Full((Tower.VISION,)), {Tower.VISION}),
        (Full((Tower.LANGUAGE, Tower.CONNECTOR)), {Tower.LANGUAGE, Tower.CONNECTOR}),
    ],
)
def test_towers_say_what_is_trained(name: str, method: Lora | Full, towers: set[Tower]) -> None:
    model = load_model(spec(method=method), base_of(name))
    inner = [each.removeprefix("base_model.model.") for each in model.trainable]
    found = {
        tower
        for each in inner
        for tower, prefixes in model.family.towers.items()
        if any(f"{each}.".startswith(f"{prefix}.") for prefix in prefixes)
    }
    assert found == towers
    named = {prefix for prefixes in model.family.towers.values() for prefix in prefixes}
    whole = model.module.get_base_model() if hasattr(model.module, "get_base_model") else model.module
    for parameter, _ in whole.named_parameters():  # no parameter is of no tower
        assert any(f"{parameter}.".startswith(f"{prefix}.") for prefix in named), parameter
    layers = dict(model.module.named_modules())
    adapted = {each.split(".lora_")[0] for each in model.trainable if ".lora_" in each}
    assert all(isinstance(layers[each].base_layer, torch.nn.Linear) for each in adapted)


@pytest.mark.parametrize("name", NAMES)
def test_a_preflight_counts_every_picture(name: str, tmp_path: Path) -> None:
    turns = TURNS[:2]
    rows = [row("two", "train", turns, *pictures()[:2]), row("one", "train", [*TURNS[2:]], pictures()[2])]
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    options = PreflightOptions(spec(), shown_rows=2)
    report = preflight_dataset(options, base_of(name), dataset)
    assert report.verdict == "PASSED"
    [split] = report.splits
    assert (split.rows, split.images) == (2, 3)
    assert split.placeholders == split.features > 0
    model = load_model(spec(method=Lora(rank=2)), base_of(name))
    encoded = Encoder(model.family, model.processor, model.config, Sequence()).encode(dataset, "train")
    for sample, shown in zip(encoded.samples, report.shown, strict=True):
        ids = [
            each for part in shown.segments for each in (part.ids * part.count if part.image else part.ids)
        ]
        assert ids == sample.input_ids_T.tolist()
    assert report.longest_batch
    inputs = collate(encoded.samples, encoded.pictures, packing=True, pad_id=0).inputs
    assert report.longest_batch.pixel_shape[-1] == inputs["pixel_values"].shape[-1]


class Losses(NoHooks):
    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.by_step[step] = values["train/loss"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of peft
@pytest.mark.parametrize("name", NAMES)
def test_each_learns_resumes_alike_and_opens_in_plain_peft(name: str, tmp_path: Path) -> None:
    import transformers
    from peft import PeftModel

    base = base_of(name)
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 16})))
    chosen = spec(method=Lora(rank=4, towers=(Tower.LANGUAGE, Tower.VISION), train_connector=True))
    chosen = replace(chosen, optimization=replace(chosen.optimization, learning_rate=1e-2, max_steps=6))
    whole, resumed = Losses(), Losses()
    train(chosen, base_model=base, dataset=dataset, work=tmp_path / "whole", hooks=whole)
    assert whole.by_step[6] < 0.9 * whole.by_step[1]
    checkpoints = [path for _, path in list_checkpoints(tmp_path / "whole" / "checkpoints")]
    train(
        chosen,
        base_model=base,
        dataset=dataset,
        work=tmp_path / "resumed",
        hooks=resumed,
        resume_from=next(path for path in checkpoints if path.name.endswith("3")),
    )
    assert resumed.by_step == {step: whole.by_step[step] for step in (4, 5, 6)}
    last = next(path for path in checkpoints if path.name.endswith("6"))
    family = family_named(name)
    plain = getattr(transformers, family.auto_class).from_pretrained(base)
    opened = PeftModel.from_pretrained(plain, str(last / "adapter")).eval()
    ours = load_model(chosen, base)
    load_weights(last, ours)
    ours.module.eval()
    encoder = Encoder(family, ours.processor, ours.config, Sequence())
    encoded = encoder.encode(dataset, "train", 3)
    batch = collate(encoded.samples, encoded.pictures, packing=False, pad_id=0)
    with torch.inference_mode():
        theirs_NV = opened(**batch.inputs).logits[batch.predict_BT]
        ours_NV = ours.logits(collate(encoded.samples, encoded.pictures, packing=True, pad_id=0))
    torch.testing.assert_close(ours_NV, theirs_NV, rtol=0, atol=1e-4)


def test_an_instructblip_with_an_encoder_and_a_decoder_is_refused(tmp_path: Path) -> None:
    content = {"model_type": "instructblip", "text_config": {"model_type": "t5"}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InvalidError, match="Vicuna") as caught:
        family_of(tmp_path, Task.VISION_LANGUAGE)
    assert caught.value.reason == "BASE_MODEL_UNSUITABLE"


def test_a_strip_that_the_processor_refuses_costs_its_row_alone(tmp_path: Path) -> None:
    base, family = base_of("qwen2.5-vl"), family_named("qwen2.5-vl")
    turns = [message("user", "<picture>"), message("assistant", "red")]
    strip = picture("red", np.random.default_rng(0), 300, 1)
    rows = [row("strip", "train", turns, strip), row("good", "train", turns, pictures()[0])]
    encoder = Encoder(family, load_processor(base, family), AutoConfig.from_pretrained(base), Sequence())
    encoded = encoder.encode(write_dataset(tmp_path / "dataset", rows, shards=1), "train")
    assert {entry.row_id: entry.reason for entry in encoded.entries} == {"strip": "IMAGE_REFUSED", "good": ""}
