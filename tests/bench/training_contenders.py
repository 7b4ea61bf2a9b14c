"""`python -m tests.bench.training_contenders NAME FOLDER`: one way to train, ours or a peer's.

A contender imports its packages, says `ready`, and trains once for every line with a seed that it is sent. It
answers with the seconds on the wall and of the CPU from the end of the first step to that of the last, the
units of those steps (tokens without padding, or pictures), the number of optimiser steps, the peak of its
memory in MB, and the loss on held-out texts where there are some. Peers run under a Python of their own, and
that has no finemesh: so everything is imported where it is needed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import importlib.util
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

RANK: Final = 16
RATE: Final = 2e-3
ROWS: Final = 8
PACKED_ROWS: Final = 1
PACKED_TOKENS: Final = 1024
LINEAR: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(slots=True)
class Clock:
    """What happened between the end of the first step and that of the last."""

    wall: float = 0.0
    cpu: float = 0.0
    steps: int = 0
    units: list[int] = field(default_factory=list[int])
    _began: tuple[float, float] = (0.0, 0.0)

    def step_ended(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self.steps == 0:
            self._began = now
        self.wall, self.cpu = (here - then for here, then in zip(now, self._began, strict=True))
        self.steps += 1


@dataclass(frozen=True, slots=True)
class Trained:
    """Of one training; `loss` is that on held-out texts, in nats per token."""

    wall: float
    cpu: float
    units: int
    steps: int
    peak: float
    loss: float | None = None


ADAPTERS: Final = {"lora": {"rank": RANK, "alpha": 2.0 * RANK, "target_modules": LINEAR}}
WHOLE: Final = {"full": {"towers": ["VISION", "HEAD"]}}
EPOCHS: Final = 3  # of the pictures with shapes
Train = Callable[[Path, int], Trained]


def _finemesh(task: str, objective: str, method: dict[str, Any], epochs: int = 1) -> Train:
    def train(folder: Path, seed: int) -> Trained:
        from finemesh.core.spec.finetune import FineTuneSpec
        from finemesh.finetune.hooks import NoHooks
        from finemesh.finetune.loop import train as run

        clock = Clock()

        class Hooks(NoHooks):
            def on_metrics(self, step: int, values: dict[str, float]) -> None:
                if "train/loss" in values:
                    clock.step_ended()

        spec = FineTuneSpec.from_dict(
            {
                "task": task,
                "objective": objective,
                "base_model": "benchmark",
                "dataset": "projects/benchmark/datasets/benchmark",
                "validation_split": "",
                "test_split": "",
                "method": method,
                "optimization": {
                    "learning_rate": RATE,
                    "micro_batch_size": ROWS,
                    "seed": seed,
                    "epochs": float(epochs),
                },
            }
        )
        with tempfile.TemporaryDirectory() as work:
            base, dataset = folder / "model", folder / "dataset"
            run(spec, base_model=base, dataset=dataset, work=Path(work), hooks=Hooks())
            adapters = [*Path(work).glob("checkpoints/*/adapter")]
            loss = _held_out_loss(_with_adapter(folder, adapters[0]), folder) if adapters else None
        return _trained(clock, epochs * _units(folder, task) - _first_step(folder, task, seed), loss)

    return train


def _first_step(folder: Path, task: str, seed: int) -> int:
    """The units of the first step, which the clock leaves out."""
    if task != "LANGUAGE":
        return ROWS
    from finemesh.finetune.order import epoch_order
    from finemesh.finetune.rows import read_rows

    rows = list(read_rows(folder / "dataset", "train", ("row_id", "text")))
    first = epoch_order([row.row_id for row in rows], seed, 0)[:ROWS]
    return sum(len(rows[index].text.split()) + 1 for index in first)


def _units(folder: Path, task: str) -> int:
    texts = _texts(folder, "train") if task == "LANGUAGE" else []
    return sum(len(text.split()) + 1 for text in texts) or _pictures(folder)


def _pictures(folder: Path) -> int:
    return json.loads((folder / "dataset/manifest.json").read_bytes())["rows"]


def _with_adapter(folder: Path, adapter: Path) -> Any:
    if not (folder / "held_out.jsonl").is_file():
        return None
    peft, transformers = importlib.import_module("peft"), importlib.import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    return peft.PeftModel.from_pretrained(model, adapter)


def _bare(folder: Path, seed: int) -> Trained:
    """A plain loop over batches that were packed before, with the attention that keeps samples apart."""
    import torch
    from finemesh.finetune.attention import PACKED, register
    from finemesh.finetune.order import epoch_order

    register()
    ids = _encoded(folder)
    order = epoch_order([f"text-{number}" for number in range(len(ids))], seed, 0)
    chosen = [sorted((ids[i] for i in order[at : at + ROWS]), key=len) for at in range(0, len(order), ROWS)]
    batches = [_packed(part) for part in chosen]
    transformers = importlib.import_module("transformers")
    torch.manual_seed(seed)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation=PACKED)
    model = _lora(base)
    optimizer = torch.optim.AdamW(_trainable(model), lr=RATE, weight_decay=0.0, fused=True)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, len(batches) // 33 + 1, len(batches))
    clock = Clock(units=[sum(map(len, part)) for part in chosen])
    model.train()
    for inputs, keep, targets in batches:
        logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits
        torch.nn.functional.cross_entropy(logits, targets).backward()
        torch.nn.utils.clip_grad_norm_(_trainable(model), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step_ended()
    return _trained(clock, sum(clock.units[1:]), _held_out_loss(model, folder))


def _packed(part: Sequence[Sequence[int]]) -> tuple[dict[str, Any], Any, Any]:
    import torch

    keep = torch.tensor([[at < len(ids) - 1 for ids in part for at in range(len(ids))]])
    inputs = {
        "input_ids": torch.tensor([[token for ids in part for token in ids]]),
        "position_ids": torch.tensor([[at for ids in part for at in range(len(ids))]]),
        "sequence_lengths": [len(ids) for ids in part],
    }
    return inputs, keep, torch.tensor([token for ids in part for token in ids[1:]])


def _lora(model: Any) -> Any:
    peft = importlib.import_module("peft")
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def _trainable(model: Any) -> list[Any]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _hf_arguments(kind: Any, folder: str, seed: int, **more: Any) -> Any:
    given = {"per_device_train_batch_size": ROWS, "num_train_epochs": 1, "learning_rate": RATE, "seed": seed}
    given |= {"lr_scheduler_type": "cosine", "warmup_ratio": 0.03, "max_grad_norm": 1.0, "report_to": "none"}
    given |= {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    given |= {"bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}
    known = {name: value for name, value in (given | more).items() if name in kind.__init__.__annotations__}
    return kind(output_dir=folder, **known)


def _watched(clock: Clock) -> Any:
    callback: Any = importlib.import_module("transformers").TrainerCallback

    class Watch(callback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ended()

    return Watch()


def _counted(collate: Callable[[Any], Any], clock: Clock) -> Callable[[Any], Any]:
    """The collator, which also counts the tokens of every batch."""

    def collate_and_count(rows: Any) -> Any:
        clock.units.append(sum(len(row["input_ids"]) for row in rows))
        return collate(rows)

    return collate_and_count


def _hf_text(**more: Any) -> Train:
    """transformers' Trainer over tokenised texts, padded to the longest of a batch."""

    def train(folder: Path, seed: int) -> Trained:
        transformers, datasets = importlib.import_module("transformers"), importlib.import_module("datasets")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
        ids, clock = _encoded(folder), Clock()
        collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
        with tempfile.TemporaryDirectory() as work:
            transformers.set_seed(seed)
            model = _lora(transformers.AutoModelForCausalLM.from_pretrained(folder / "model"))
            trainer = transformers.Trainer(
                model=model,
                args=_hf_arguments(transformers.TrainingArguments, work, seed, **more),
                train_dataset=datasets.Dataset.from_dict({"input_ids": ids}),
                data_collator=_counted(collate, clock),
                callbacks=[_watched(clock)],
            )
            trainer.train()
        return _trained(clock, sum(clock.units[1 : clock.steps]), _held_out_loss(model, folder))

    return train


def _trl(*, packing: bool) -> Train:
    """TRL's SFTTrainer with its defaults, in fp32 and without checkpointing of activations."""

    def train(folder: Path, seed: int) -> Trained:
        transformers, datasets = importlib.import_module("transformers"), importlib.import_module("datasets")
        trl, peft = importlib.import_module("trl"), importlib.import_module("peft")
        clock = Clock()
        with tempfile.TemporaryDirectory() as work:
            transformers.set_seed(seed)
            more: dict[str, Any] = {"max_length": PACKED_TOKENS, "packing": packing}
            if packing:
                more["per_device_train_batch_size"] = PACKED_ROWS
            trainer = trl.SFTTrainer(
                model=transformers.AutoModelForCausalLM.from_pretrained(folder / "model"),
                args=_hf_arguments(trl.SFTConfig, work, seed, **more),
                train_dataset=datasets.Dataset.from_dict({"text": _texts(folder, "train")}),
                processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
                peft_config=peft.LoraConfig(
                    r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM"
                ),
                callbacks=[_watched(clock)],
            )
            trainer.data_collator = _counted(trainer.data_collator, clock)
            trainer.train()
            return _trained(clock, sum(clock.units[1 : clock.steps]), _held_out_loss(trainer.model, folder))

    return train


def _llama_factory(folder: Path, seed: int) -> Trained:
    """LLaMA-Factory's plain language modelling, which packs: texts are joined and cut."""
    # It imports torchaudio, which has no build without CUDA, for sounds; there are none here.
    silent = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = importlib.util.module_from_spec(silent)
    tuner: Any = importlib.import_module("llamafactory.train.tuner")
    clock = Clock()
    with tempfile.TemporaryDirectory() as work:
        texts = {"file_name": str(folder / "train.jsonl"), "columns": {"prompt": "text"}}
        (Path(work) / "dataset_info.json").write_text(json.dumps({"texts": texts}))
        arguments = {
            "stage": "pt",
            "model_name_or_path": str(folder / "model"),
            "dataset": "texts",
            "dataset_dir": work,
            "template": "empty",
            "cutoff_len": PACKED_TOKENS,
            "packing": True,
            "finetuning_type": "lora",
            "lora_rank": RANK,
            "lora_alpha": 2 * RANK,
            "lora_target": ",".join(LINEAR),
            "output_dir": str(Path(work) / "out"),
            "do_train": True,
            "per_device_train_batch_size": PACKED_ROWS,
            "num_train_epochs": 1.0,
            "learning_rate": RATE,
            "lr_scheduler_type": "cosine",
            "warmup_ratio": 0.03,
            "seed": seed,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_gradient_checkpointing": True,
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            "overwrite_cache": True,
        }
        tuner.run_exp(arguments, callbacks=[_watched(clock)])
        loss = _held_out_loss(_with_adapter(folder, Path(work) / "out"), folder)
    return _trained(clock, (clock.steps - 1) * PACKED_ROWS * PACKED_TOKENS, loss)


def _hf_llava(folder: Path, seed: int) -> Trained:
    """transformers' Trainer; the processor makes text and picture of every batch, as its guide shows."""
    import io

    transformers = importlib.import_module("transformers")
    image: Any = importlib.import_module("PIL.Image")
    processor = transformers.AutoProcessor.from_pretrained(folder / "model", backend="pil")
    rows, clock = _rows(folder, "messages"), Clock()

    def collate(batch: list[dict[str, Any]]) -> Any:
        clock.units.append(len(batch))
        chats = [
            [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]] for row in batch
        ]
        texts = [processor.apply_chat_template(chat, tokenize=False) for chat in chats]
        pictures = [image.open(io.BytesIO(row["images"][0]["data"])).convert("RGB") for row in batch]
        made = processor(text=texts, images=pictures, return_tensors="pt", padding=True)
        made["labels"] = made["input_ids"].masked_fill(made["attention_mask"] == 0, -100)
        return made

    with tempfile.TemporaryDirectory() as work:
        transformers.set_seed(seed)
        model = _lora(transformers.AutoModelForImageTextToText.from_pretrained(folder / "model"))
        trainer = transformers.Trainer(
            model=model,
            args=_hf_arguments(transformers.TrainingArguments, work, seed, remove_unused_columns=False),
            train_dataset=rows,
            data_collator=collate,
            callbacks=[_watched(clock)],
        )
        trainer.train()
    return _trained(clock, sum(clock.units[1 : clock.steps]))


def _hf_yolos(folder: Path, seed: int) -> Trained:
    """transformers' Trainer as in its guide to detection: the image processor makes every batch."""
    import io

    transformers = importlib.import_module("transformers")
    image: Any = importlib.import_module("PIL.Image")
    processor = transformers.AutoImageProcessor.from_pretrained(folder / "model", backend="pil")
    rows, clock = _rows(folder, "objects"), Clock()
    names = sorted({each["class_name"] for row in rows for each in row["objects"]})

    def annotation(thing: dict[str, Any]) -> dict[str, Any]:
        number = names.index(thing["class_name"])
        return {"bbox": thing["bbox"], "category_id": number, "area": thing["area"], "iscrowd": 0}

    def collate(batch: list[dict[str, Any]]) -> Any:
        clock.units.append(len(batch))
        pictures = [image.open(io.BytesIO(row["images"][0]["data"])).convert("RGB") for row in batch]
        told = [{"image_id": 0, "annotations": list(map(annotation, row["objects"]))} for row in batch]
        made = processor(images=pictures, annotations=told, return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "labels": made["labels"]}

    with tempfile.TemporaryDirectory() as work:
        transformers.set_seed(seed)
        model = transformers.AutoModelForObjectDetection.from_pretrained(
            folder / "model",
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
            ignore_mismatched_sizes=True,
        )
        more = {"remove_unused_columns": False, "num_train_epochs": EPOCHS}
        trainer = transformers.Trainer(
            model=model,
            args=_hf_arguments(transformers.TrainingArguments, work, seed, **more),
            train_dataset=rows,
            data_collator=collate,
            callbacks=[_watched(clock)],
        )
        trainer.train()
    return _trained(clock, sum(clock.units[1 : clock.steps]))


def _rows(folder: Path, column: str) -> list[dict[str, Any]]:
    pyarrow = importlib.import_module("pyarrow.parquet")
    paths = sorted(folder.glob("dataset/shards/*.parquet"))
    return [row for path in paths for row in pyarrow.read_table(path, columns=["images", column]).to_pylist()]


def _texts(folder: Path, name: str) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def _encoded(folder: Path, name: str = "train") -> list[list[int]]:
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(folder / "model")
    return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in _texts(folder, name)]


def _held_out_loss(model: Any, folder: Path) -> float | None:
    """Nats per token, one text at a time."""
    if model is None or not (folder / "held_out.jsonl").is_file():
        return None
    import torch

    model.eval()
    base = model.get_base_model()
    base.set_attn_implementation("sdpa")
    total = count = 0.0
    with torch.inference_mode():
        for ids in _encoded(folder, "held_out"):
            row = torch.tensor([ids])
            total += float(model(input_ids=row, labels=row).loss) * (len(ids) - 1)
            count += len(ids) - 1
    return total / count


def _trained(clock: Clock, units: int, loss: float | None = None) -> Trained:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Trained(clock.wall, clock.cpu, units, clock.steps, peak, loss)


CONTENDERS: Final[dict[str, Train]] = {
    "finemesh-text": _finemesh("LANGUAGE", "TEXT", ADAPTERS),
    "finemesh-llava": _finemesh("VISION_LANGUAGE", "CONVERSATION", ADAPTERS),
    "finemesh-yolos": _finemesh(
        "DETECTION", "CONVERSATION", {"full": {"towers": ["VISION", "HEAD"]}}, EPOCHS
    ),
    "bare-text": _bare,
    "hf-text": _hf_text(),
    "hf-text-grouped": _hf_text(train_sampling_strategy="group_by_length"),
    "trl-text": _trl(packing=False),
    "trl-text-packed": _trl(packing=True),
    "hf-llava": _hf_llava,
    "hf-yolos": _hf_yolos,
    "llama-factory-text-packed": _llama_factory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(CONTENDERS[given.name](given.folder, int(line)))), file=answers, flush=True)


if __name__ == "__main__":
    main()
