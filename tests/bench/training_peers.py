"""Peers of the training benchmarks. They run under a Python of their own, which has no finemesh."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench.training_common import (
    EPOCHS,
    LINEAR,
    RANK,
    RATE,
    ROWS,
    Clock,
    Train,
    Trained,
    encoded,
    held_out_loss,
    texts_of,
    trained_in,
    with_adapter,
    with_lora,
)

PACKED_ROWS: Final = 1
PACKED_TOKENS: Final = 1024


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
        ids, clock = encoded(folder), Clock()
        collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
        with tempfile.TemporaryDirectory() as work:
            transformers.set_seed(seed)
            model = with_lora(transformers.AutoModelForCausalLM.from_pretrained(folder / "model"))
            trainer = transformers.Trainer(
                model=model,
                args=_hf_arguments(transformers.TrainingArguments, work, seed, **more),
                train_dataset=datasets.Dataset.from_dict({"input_ids": ids}),
                data_collator=_counted(collate, clock),
                callbacks=[_watched(clock)],
            )
            trainer.train()
        return trained_in(clock, sum(clock.units[1 : clock.steps]), held_out_loss(model, folder))

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
                train_dataset=datasets.Dataset.from_dict({"text": texts_of(folder, "train")}),
                processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
                peft_config=peft.LoraConfig(
                    r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM"
                ),
                callbacks=[_watched(clock)],
            )
            trainer.data_collator = _counted(trainer.data_collator, clock)
            trainer.train()
            return trained_in(clock, sum(clock.units[1 : clock.steps]), held_out_loss(trainer.model, folder))

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
        loss = held_out_loss(with_adapter(folder, Path(work) / "out"), folder)
    return trained_in(clock, (clock.steps - 1) * PACKED_ROWS * PACKED_TOKENS, loss)


def _hf_llava(folder: Path, seed: int) -> Trained:
    """transformers' Trainer; the processor makes text and picture of every batch, as its guide shows."""
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
        model = with_lora(transformers.AutoModelForImageTextToText.from_pretrained(folder / "model"))
        trainer = transformers.Trainer(
            model=model,
            args=_hf_arguments(transformers.TrainingArguments, work, seed, remove_unused_columns=False),
            train_dataset=rows,
            data_collator=collate,
            callbacks=[_watched(clock)],
        )
        trainer.train()
    return trained_in(clock, sum(clock.units[1 : clock.steps]))


def _hf_yolos(folder: Path, seed: int) -> Trained:
    """transformers' Trainer as in its guide to detection: the image processor makes every batch."""
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
    return trained_in(clock, sum(clock.units[1 : clock.steps]))


def _rows(folder: Path, column: str) -> list[dict[str, Any]]:
    pyarrow = importlib.import_module("pyarrow.parquet")
    paths = sorted(folder.glob("dataset/shards/*.parquet"))
    return [row for path in paths for row in pyarrow.read_table(path, columns=["images", column]).to_pylist()]


PEERS: Final[dict[str, Train]] = {
    "hf-text": _hf_text(),
    "hf-text-grouped": _hf_text(train_sampling_strategy="group_by_length"),
    "trl-text": _trl(packing=False),
    "trl-text-packed": _trl(packing=True),
    "hf-llava": _hf_llava,
    "hf-yolos": _hf_yolos,
    "llama-factory-text-packed": _llama_factory,
}
