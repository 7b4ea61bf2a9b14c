"""The numbers in `core.spec.estimate.activations` are those that autograd keeps, counted again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.spec.estimate.activations import picture_values, token_values
from finemesh.core.spec.estimate.base_model import BaseModel
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Lora, Optimization, Task
from finemesh.finetune.batches import collate
from finemesh.finetune.encoding import Sample
from finemesh.finetune.families import FAMILIES, family_named
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.sight import Pictures
from finemesh.finetune.tiny import build_tiny
from transformers import AutoConfig

TINY = [family for family in FAMILIES if family.tiny_config and family.name != "timm"]
TOKENS = 64


@pytest.mark.parametrize("name", [family.name for family in TINY if family.task in TEXT_TOWERS])
def test_a_layer_keeps_so_many_values_of_a_token(name: str, tmp_path: Path) -> None:
    """Two more layers of a wider language model, with adapters on every linear layer."""
    base = build_tiny(name, tmp_path / "base", ["some words"], seed=0)
    models = [widened(base, name, layers) for layers in (2, 4)]
    few, many = (bytes_kept(model) for model in models)
    values = (many - few) / 2 / TOKENS / 4
    said = token_values(name, BaseModel(models[0].config.to_dict()))
    if name == "gemma2":  # whose capped scores are counted beside it
        values -= 2.6 * models[0].config.num_attention_heads * TOKENS
    assert 0.97 * said < values < 1.25 * said


def widened(folder: Path, name: str, layers: int) -> Model:
    import transformers

    base = Path(mkdtemp(dir=folder.parent)) / name
    shutil.copytree(folder, base)
    config: Any = AutoConfig.from_pretrained(base)
    text = config.get_text_config()
    text.num_hidden_layers, text.intermediate_size, text.num_key_value_heads = layers, 384, 2
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1] * layers
    family = family_named(name)
    getattr(transformers, family.auto_class).from_config(config).save_pretrained(base)
    task: Task = family.task
    chosen = FineTuneSpec(task, "tiny", "projects/a/datasets/b", method=Lora(rank=1))
    model = load_model(replace(chosen, optimization=Optimization(max_steps=1)), base)
    model.module.train()
    return model


def bytes_kept(model: Model) -> int:
    """Storages that autograd keeps of a forward pass over packed text, parameters left out."""
    ids_T = np.full(TOKENS, 200)
    sample = Sample("a", "", ids_T, np.arange(TOKENS) == TOKENS - 1)
    pictures = Pictures(Path(), model.family, model.processor, model.config)
    batch = collate([sample], pictures, packing=True, pad_id=0)
    return kept_by(model.module, lambda: model.logits(batch))


def kept_by(module: Any, forward: Any) -> int:
    owned = {each.untyped_storage().data_ptr() for each in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in owned:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
        return sum(each.untyped_storage().nbytes() for each in kept.values())


def published(name: str) -> Any:
    """The architecture at the size at which it is published, or a little smaller where that is slow here."""
    import transformers as t

    if name in {"detr", "conditional-detr"}:
        config: Any = t.DetrConfig if name == "detr" else t.ConditionalDetrConfig
        resnet: Any = t.ResNetConfig
        backbone = resnet(out_indices=[4])
        return config(use_timm_backbone=False, backbone=None, backbone_config=backbone)
    sizes: dict[str, Any] = {"image_size": 256} if name in {"vit", "swin", "convnext", "convnextv2"} else {}
    if name == "yolos":
        sizes = {"image_size": [256, 256], "use_mid_position_embeddings": False}
    kinds: dict[str, Any] = {
        "vit": t.ViTConfig,
        "yolos": t.YolosConfig,
        "swin": t.SwinConfig,
        "convnext": t.ConvNextConfig,
        "convnextv2": t.ConvNextV2Config,
        "segformer": t.SegformerConfig,
        "rt-detr-v2": t.RTDetrV2Config,
        "d-fine": t.DFineConfig,
        "mask2former": t.Mask2FormerConfig,
    }
    if name == "swin":
        sizes["window_size"] = 8
    return kinds[name](**sizes)


@pytest.mark.parametrize("side_px", [256, 384])
@pytest.mark.parametrize("name", [family.name for family in TINY if family.task not in TEXT_TOWERS])
def test_a_model_keeps_so_many_values_of_a_picture(name: str, side_px: int) -> None:
    import transformers

    config = published(name)
    if side_px == 384 and name in {"swin", "mask2former", "d-fine"}:
        pytest.skip("slow, and the same numbers")
    model: Any = getattr(transformers, family_named(name).auto_class).from_config(config)
    model.requires_grad_(True).train()
    pixels = torch.zeros(1, 3, side_px, side_px)
    arguments = {"interpolate_pos_encoding": True} if name == "vit" else {}
    values = kept_by(model, lambda: model(pixel_values=pixels, **arguments)) / 4
    base = BaseModel(config.to_dict(), processor={"size": {"height": side_px, "width": side_px}})
    assert 0.75 * values < picture_values(name, base, classes=0) < 1.35 * values
