"""D-FINE (https://arxiv.org/abs/2410.13842): RT-DETR with distributions for boxes, finer layer by layer."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task
from finemesh.finetune.families.auto_images import load_image_processor
from finemesh.finetune.families.detector import Detector, PerBox
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.rt_detr import DENOISING, TOWERS, small_transformer, tiny_processor

_DISTILLATION: Final = (
    "One part of its loss, the distillation between layers, is a mean over the batch: how a step is cut into "
    "micro batches changes it a little."
)


def tiny_config(tokens: TinyTokens) -> Any:
    """An HGNet of four blocks before a transformer as small as that of RT-DETR."""
    from transformers import DFineConfig, HGNetV2Config

    del tokens
    make: Any = HGNetV2Config  # its fields are not all known to type checkers
    backbone = make(
        embedding_size=16,
        stem_channels=[3, 8, 16],
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        stage_in_channels=[16, 16, 24, 32],
        stage_mid_channels=[8, 8, 12, 16],
        stage_out_channels=[16, 24, 32, 48],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 3, 3],
        out_indices=[2, 3, 4],
    )
    return DFineConfig(backbone_config=backbone, decoder_n_points=[2, 2, 2], **small_transformer())


D_FINE: Final = Family(
    name="d-fine",
    task=Task.DETECTION,
    model_types=("d_fine",),
    auto_class="AutoModelForObjectDetection",
    towers=TOWERS,
    load_processor=load_image_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    detector=Detector(PerBox(), masked=True, adapts=False),
    quirks=(
        DENOISING,
        _DISTILLATION,
    ),
)
