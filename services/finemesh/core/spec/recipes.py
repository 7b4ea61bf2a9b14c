"""How the makers of each family tune it, where that differs from the presets of its task.

Each number stands on the page that `source` names. A family about which its makers say
nothing that these fields could hold, or just what the task's presets say, has an empty one. What a paper says
of batches of hundreds of rows is not taken over: the presets take as many as their task's, unless said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.core.spec.optimization import Schedule

Fields = Mapping[str, Mapping[str, Any]]
"""Values of fields by the section of a FineTuneSpec that they stand in: `optimization`, `method`, ..."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One family's way.

    Attributes:
        source: the page it is of.
        taken: what of it is taken, and where it stands.
        fields: of all its presets.
        quality: of the one for much data besides.
    """

    task: Task
    source: str = ""
    taken: str = ""
    fields: Fields = field(default_factory=dict[str, Mapping[str, Any]])
    quality: Fields = field(default_factory=dict[str, Mapping[str, Any]])


_TORCHTUNE: Final = "https://github.com/meta-pytorch/torchtune/blob/main/recipes/configs"
_TUNED_BY_TORCHTUNE: Final[Fields] = {
    "optimization": {
        "learning_rate": 3e-4,
        "weight_decay": 0.01,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 8,
    },
}
_QWEN: Final = Recipe(
    Task.LANGUAGE,
    "https://github.com/QwenLM/Qwen2.5",
    "examples/sft/finetune.sh and finetune.py: rate, decay, beta, warm-up, 16 rows a step; rank 64 at "
    "alpha 16, five passes",
    {
        "optimization": {
            "learning_rate": 3e-4,
            "weight_decay": 0.01,
            "beta2": 0.95,
            "warmup_ratio": 0.01,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 8,
        },
    },
    {"method": {"alpha": 16.0, "dropout": 0.05}, "optimization": {"epochs": 5.0}},
)
_QWEN_VL: Final = Recipe(
    Task.VISION_LANGUAGE,
    "https://github.com/QwenLM/Qwen3-VL",
    "qwen-vl-finetune/README.md: rate, rank 64 at alpha 16, 4 rows a step, merger frozen; of its full tuning "
    "4,096 tokens and decay",
    {
        "method": {"train_connector": False},
        "optimization": {
            "learning_rate": 2e-5,
            "weight_decay": 0.01,
            "micro_batch_size": 1,
            "gradient_accumulation_steps": 4,
        },
        "sequence": {"max_tokens": 4096},
    },
    {"method": {"alpha": 16.0, "dropout": 0.0}},
)
_LLAVA: Final = "https://github.com/haotian-liu/LLaVA"
_LLAVA_SCRIPT: Final = (
    "scripts/v1_5/finetune_task_lora.sh: the connector at a tenth of the rate, rank 128 at alpha 256"
)
_LLAVA_QUALITY: Final[Fields] = {
    "method": {"rank": 128, "alpha": 256.0},
    "optimization": {"learning_rate": 2e-4},
}
_SMOLVLM: Final = Recipe(
    Task.VISION_LANGUAGE,
    "https://github.com/huggingface/smollm",
    "vision/finetuning/Smol_VLM_FT.ipynb, for Idefics3 too: rate, decay, dropout, 16 rows a step, "
    "adapters alone, of rank 8 and of alpha as large as the rank",
    {
        "method": {"rank": 8, "alpha": 8.0, "dropout": 0.1, "train_connector": False},
        "optimization": {
            "learning_rate": 1e-4,
            "weight_decay": 0.01,
            "micro_batch_size": 4,
            "gradient_accumulation_steps": 4,
        },
    },
    {"method": {"rank": 64, "alpha": 64.0}},
)

RECIPES: Final[Mapping[str, Recipe]] = {
    "llava": Recipe(
        Task.VISION_LANGUAGE,
        _LLAVA,
        _LLAVA_SCRIPT,
        {"optimization": {"connector_rate_ratio": 0.1}},
        _LLAVA_QUALITY,
    ),
    "llava-next": Recipe(
        Task.VISION_LANGUAGE,
        _LLAVA,
        f"{_LLAVA_SCRIPT}, as for LLaVA-1.5; a picture takes some 2,900 tokens, so rows may have 4,096, "
        "one at a time",
        {
            "optimization": {
                "connector_rate_ratio": 0.1,
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 32,
            },
            "sequence": {"max_tokens": 4096},
        },
        _LLAVA_QUALITY,
    ),
    "qwen2-vl": _QWEN_VL,
    "qwen2.5-vl": _QWEN_VL,
    "qwen3-vl": _QWEN_VL,
    "idefics3": _SMOLVLM,
    "smolvlm": _SMOLVLM,
    "instructblip": Recipe(
        Task.VISION_LANGUAGE,
        "https://arxiv.org/abs/2305.06500",
        "2.6: the Q-Former, here the connector, at 1e-5",
        {"optimization": {"connector_rate_ratio": 0.05}},
        {"optimization": {"connector_rate_ratio": 0.1}},
    ),
    "d-fine": Recipe(
        Task.DETECTION,
        "https://github.com/Peterande/D-FINE",
        "configs/dfine/dfine_hgnetv2_l_coco.yml: both rates, decay",
        {"optimization": {"learning_rate": 2.5e-4, "vision_rate_ratio": 0.05, "weight_decay": 1.25e-4}},
    ),
    "rt-detr-v2": Recipe(
        Task.DETECTION,
        "https://github.com/lyuwenyu/RT-DETR",
        "rtdetrv2_pytorch/configs/rtdetrv2/include/optimizer.yml: rates, decay, clipping, 72 passes; the "
        "rate stays where it is",
        {"optimization": {"schedule": Schedule.CONSTANT}},
    ),
    "detr": Recipe(Task.DETECTION, "https://arxiv.org/abs/2005.12872", "A.4: rates, decay, clipping"),
    "conditional-detr": Recipe(
        Task.DETECTION,
        "https://arxiv.org/abs/2108.06152",
        "4.1: 50 passes; all else as DETR",
        quality={"optimization": {"epochs": 50.0}},
    ),
    "yolos": Recipe(
        Task.DETECTION,
        "https://github.com/hustvl/YOLOS",
        "README.md: one rate for the whole model, 8 pictures a step, 150 passes",
        {
            "method": {"towers": (Tower.VISION, Tower.HEAD)},  # it has no decoder
            "optimization": {
                "learning_rate": 2.5e-5,
                "vision_rate_ratio": 1.0,
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 8,
            },
        },
        {"optimization": {"epochs": 150.0}},
    ),
    "yolo": Recipe(
        Task.DETECTION,
        "https://docs.ultralytics.com/usage/cfg",
        "rate and beta of AdamW, decay, 3 passes of 100 to warm up, a line down to a hundredth, 64 "
        "pictures a step in batches of 16; clipping as in its trainer",
        {
            "optimization": {
                "learning_rate": 1e-3,
                "vision_rate_ratio": 1.0,
                "beta1": 0.9,
                "weight_decay": 5e-4,
                "schedule": Schedule.LINEAR,
                "min_rate_ratio": 0.01,
                "warmup_ratio": 0.03,
                "max_grad_norm": 10.0,
                "micro_batch_size": 16,
                "gradient_accumulation_steps": 4,
            }
        },
        {"optimization": {"epochs": 100.0}},
    ),
    "llama": Recipe(
        Task.LANGUAGE,
        f"{_TORCHTUNE}/llama3/8B_lora_single_device.yaml",
        "rate, decay, 16 rows a step",
        _TUNED_BY_TORCHTUNE,
    ),
    "qwen": _QWEN,
    "gemma": Recipe(
        Task.LANGUAGE,
        f"{_TORCHTUNE}/gemma/2B_lora_single_device.yaml",
        "rate, 16 rows a step, rank 64 at alpha 128",
        {
            "optimization": {
                "learning_rate": 2e-5,
                "micro_batch_size": 4,
                "gradient_accumulation_steps": 4,
            }
        },
        {"method": {"dropout": 0.0}},
    ),
    "gemma2": Recipe(
        Task.LANGUAGE,
        f"{_TORCHTUNE}/gemma2/9B_lora_single_device.yaml",
        "rate, 16 rows a step",
        {
            "optimization": {
                "learning_rate": 5e-5,
                "micro_batch_size": 8,
                "gradient_accumulation_steps": 2,
            }
        },
    ),
    "mistral": Recipe(
        Task.LANGUAGE,
        "https://github.com/mistralai/mistral-finetune",
        "example/7B.yaml: rate, decay, warm-up, rank 64",
        {"optimization": {"learning_rate": 6e-5, "weight_decay": 0.1, "warmup_ratio": 0.05}},
    ),
    "phi": Recipe(
        Task.LANGUAGE,
        f"{_TORCHTUNE}/phi3/mini_lora_single_device.yaml",
        "rate, decay, 16 rows a step",
        _TUNED_BY_TORCHTUNE,
    ),
    "vit": Recipe(
        Task.IMAGE_CLASSIFICATION,
        "https://github.com/huggingface/transformers/tree/main/examples/pytorch/image-classification",
        "README.md: one rate for the whole model, 8 pictures a step, 5 passes; the rate falls along a "
        "line from the start, without decay",
        {
            "optimization": {
                "learning_rate": 2e-5,
                "vision_rate_ratio": 1.0,
                "weight_decay": 0.0,
                "warmup_ratio": 0.0,
                "schedule": Schedule.LINEAR,
                "micro_batch_size": 8,
                "gradient_accumulation_steps": 1,
            }
        },
    ),
    "convnext": Recipe(
        Task.IMAGE_CLASSIFICATION,
        "https://github.com/facebookresearch/ConvNeXt",
        "TRAINING.md, fine-tuning: 5e-5 on the backbone, decay, no warm-up, 30 passes",
        {"optimization": {"weight_decay": 1e-8, "warmup_ratio": 0.0}},
        {"optimization": {"epochs": 30.0}},
    ),
    "convnextv2": Recipe(
        Task.IMAGE_CLASSIFICATION,
        "https://github.com/facebookresearch/ConvNeXt-V2",
        "TRAINING.md, fine-tuning: 6.25e-4 for 256 pictures, so a quarter of it for 64; decay, warm-up, "
        "smoothing, 100 passes",
        {
            "optimization": {
                "learning_rate": 1.5625e-4,
                "weight_decay": 0.05,
                "warmup_ratio": 0.2,
                "label_smoothing": 0.1,
            }
        },
        {"optimization": {"epochs": 100.0}},
    ),
    "swin": Recipe(
        Task.IMAGE_CLASSIFICATION,
        "https://github.com/microsoft/Swin-Transformer",
        "configs/swin/swin_base_patch4_window7_224_22kto1k_finetune.yaml: 2e-5 on the backbone, down to a "
        "hundredth, decay, 5 passes of 30 to warm up",
        {
            "optimization": {
                "vision_rate_ratio": 0.04,
                "min_rate_ratio": 0.01,
                "weight_decay": 1e-8,
                "warmup_ratio": 0.17,
            }
        },
        {"optimization": {"epochs": 30.0}},
    ),
    "timm": Recipe(Task.IMAGE_CLASSIFICATION),
    "segformer": Recipe(
        Task.SEMANTIC_SEGMENTATION, "https://arxiv.org/abs/2105.15203", "4.1: all that its task has"
    ),
    "mask2former": Recipe(
        Task.INSTANCE_SEGMENTATION, "https://arxiv.org/abs/2112.01527", "4.1: all that its task has"
    ),
    "auto": Recipe(Task.LANGUAGE),
    "auto-images": Recipe(Task.IMAGE_CLASSIFICATION),
}
