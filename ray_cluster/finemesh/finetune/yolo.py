"""YOLOv8 and YOLO11 as models of transformers. The only module that imports ultralytics (AGPL-3.0), for the
process that `apart` starts and for this command, which makes the folder of a base model:

    python -m finemesh.finetune.yolo yolo11n.yaml --out ./yolo11n     random weights, of an architecture
    python -m finemesh.finetune.yolo yolo11n.pt --out ./yolo11n       published weights

A `.pt` is a pickle, which can run anything as it is read: convert those of a source you trust, once. What is
written is safetensors, the architecture in config.json, and how pictures are resized.

Shape legend: B pictures, A points of all grids, K classes, N boxes; C, H, W channels, height, width.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.utils.generic import ModelOutput

# Read as the library is imported: it fetches nothing, installs nothing, and writes its settings nowhere else.
os.environ.update(
    YOLO_OFFLINE="true",
    YOLO_AUTOINSTALL="false",
    YOLO_VERBOSE="false",
    YOLO_CONFIG_DIR=tempfile.gettempdir(),
)
from ultralytics.nn.tasks import DetectionModel, yaml_model_load  # pyright: ignore[reportMissingImports]
from ultralytics.utils.loss import v8DetectionLoss  # pyright: ignore[reportMissingImports]
from ultralytics.utils.nms import non_max_suppression  # pyright: ignore[reportMissingImports]

from finemesh.core.errors import InvalidError
from finemesh.finetune.families.yolo import KEYS, refused

SIDE_PX: Final = 640
GREY: Final = 114 / 255  # what lies beyond the edge of a picture
# Weights of the parts of the loss, and what its validation keeps: the library's defaults (cfg/default.yaml).
_GAINS: Final = {"box": 7.5, "cls": 0.5, "dfl": 1.5}
_LEAST_SCORE, _OVERLAP, _MOST_FOUND = 0.001, 0.7, 300
_MOST_COMPARED: Final = 3000
_CANVAS: Final = 1000.0  # units of a canvas in which boxes are compared; their overlaps are the same in any


class YoloConfig(PreTrainedConfig):
    """`architecture` is the YAML of a model, its `scale` too; its `nc` is what it was first made for."""

    model_type = "yolo"
    architecture: dict[str, Any] | None = None
    num_queries: int = _MOST_FOUND


class _Prior(torch.nn.Conv2d):
    """A last layer that starts from what is usual: the bias of `Detect.bias_init`."""

    def __init__(self, before: torch.nn.Conv2d, outputs: int, bias: float) -> None:
        self._usual = bias
        super().__init__(before.in_channels, outputs, 1)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.bias is not None
        torch.nn.init.constant_(self.bias, self._usual)


@dataclass
class Found(ModelOutput):
    """As the detectors of transformers have it: `logits` (B, A, K), and `pred_boxes` (B, A, 4) as centre x,
    centre y, width, height, from 0 to 1 of the canvas. In training there is the loss alone.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None


class YoloForObjectDetection(PreTrainedModel):
    """A `DetectionModel` of ultralytics that is loaded, called and saved like a model of transformers."""

    config_class = YoloConfig
    main_input_name = "pixel_values"

    def __init__(self, config: YoloConfig) -> None:
        super().__init__(config)
        with torch.device("cpu"):  # it computes as it is made
            self.yolo = _detection_model(config)
        self.stride_px = int(self.yolo.stride.max())
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, labels: list[dict[str, torch.Tensor]] | None = None, **_: Any
    ) -> Found:
        """Pictures on a canvas that is 0 where none is; the boxes of `labels` are relative to it."""
        height, width = pixel_values.shape[-2:]
        more = (0, -width % self.stride_px, 0, -height % self.stride_px)
        padded_BCHW = torch.nn.functional.pad(pixel_values, more) + GREY
        made = self.yolo(padded_BCHW)
        decoded, raw = (None, made) if self.yolo.training else made
        loss = None
        if labels is not None:
            loss = self._loss(raw, labels, (width / padded_BCHW.shape[-1], height / padded_BCHW.shape[-2]))
        if decoded is None:
            return Found(loss)
        boxes_B4A = decoded[:, :4] / decoded.new_tensor([width, height, width, height]).view(1, 4, 1)
        return Found(loss, raw["scores"].transpose(1, 2), boxes_B4A.transpose(1, 2))

    def _loss(
        self, raw: dict[str, torch.Tensor], labels: list[dict[str, torch.Tensor]], share: tuple[float, float]
    ) -> torch.Tensor:
        """The mean over the pictures. `share` is what the canvas takes of what the model sees."""
        counts = torch.tensor([len(each["boxes"]) for each in labels])
        boxes_N4 = torch.cat([each["boxes"] for each in labels])
        batch = {
            "batch_idx": torch.repeat_interleave(counts).to(boxes_N4),
            "cls": torch.cat([each["class_labels"] for each in labels]).to(boxes_N4),
            "bboxes": boxes_N4 * boxes_N4.new_tensor([*share, *share]),
        }
        # Made anew each time: it keeps the device that the model was on.
        parts, _ = v8DetectionLoss(self.yolo)(raw, batch)  # of as many pictures as there are
        return parts.sum() / len(labels)

    def _init_weights(self, module: torch.nn.Module) -> None:
        fixed = any(not each.requires_grad for each in module.parameters(recurse=False))
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d) and not fixed:
            module.reset_parameters()


def _detection_model(config: YoloConfig) -> Any:
    """Its last layers tell the classes of `config` apart; all others are as the architecture says."""
    if why := refused(config.to_dict()):
        raise ValueError(why)
    architecture = cast("dict[str, Any]", config.architecture)
    model: Any = DetectionModel({**architecture}, verbose=False)
    model.args = SimpleNamespace(**_GAINS)
    head, classes = model.model[-1], len(config.id2label or {})
    for stride_px, box, scores in zip(head.stride.tolist(), head.cv2, head.cv3, strict=True):
        box[-1] = _Prior(box[-1], 4 * head.reg_max, 2.0)
        # Some five objects among the classes, on a picture of 640 pixels.
        scores[-1] = _Prior(scores[-1], classes, math.log(5 / classes / (SIDE_PX / stride_px) ** 2))
    head.nc, head.no = classes, classes + 4 * head.reg_max
    return model


class YoloImageProcessor(DetrImageProcessorPil):
    """Resizes the longer side to one length, keeps the shape, and makes grey zero."""

    image_mean: Any = [GREY] * 3
    image_std: Any = [1.0] * 3

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Any = None, **_: Any
    ) -> list[dict[str, torch.Tensor]]:
        """Boxes as corners in pixels of `target_sizes` (height, width); of those that overlap, the surest."""
        boxes_B4A = outputs.pred_boxes.transpose(1, 2) * _CANVAS
        found = non_max_suppression(
            torch.cat([boxes_B4A, outputs.logits.sigmoid().transpose(1, 2)], 1),
            conf_thres=max(threshold, _LEAST_SCORE),
            iou_thres=_OVERLAP,
            multi_label=True,
            max_det=_MOST_FOUND,
            max_nms=_MOST_COMPARED,
            max_time_img=math.inf,
        )
        extents = torch.as_tensor(target_sizes).flip(-1).repeat(1, 2).to(boxes_B4A)
        return [
            {"boxes": each[:, :4] / _CANVAS * extent, "scores": each[:, 4], "labels": each[:, 5].long()}
            for each, extent in zip(found, extents, strict=True)
        ]


AutoConfig.register(YoloConfig.model_type, YoloConfig)
AutoModelForObjectDetection.register(YoloConfig, YoloForObjectDetection)
AutoImageProcessor.register(YoloConfig, image_processor_classes={"pil": YoloImageProcessor})


def write_base_model(source: Path, out: Path, side_px: int = SIDE_PX, seed: int = 0) -> None:
    """Write the folder of a base model.

    Args:
        source: the YAML of an architecture, its own or a name that the library knows, or a trusted `.pt`.
        out: the folder.
        side_px: the longer side of pictures as the model sees them.
        seed: of random weights.

    Raises:
        InvalidError: BASE_MODEL_UNSUITABLE, it is none of YOLOv8 or YOLO11 that finds boxes.
    """
    trained: Any = None
    if source.suffix == ".pt":
        kept = torch.load(source, map_location="cpu", weights_only=False)
        trained = (kept.get("ema") or kept["model"]).float()
    told = trained.yaml if trained is not None else yaml_model_load(source)
    architecture = {key: told[key] for key in KEYS & told.keys()}
    names = trained.names if trained is not None else {index: str(index) for index in range(told["nc"])}
    config = YoloConfig(architecture=architecture, id2label=names)
    if why := refused(config.to_dict()):
        raise InvalidError(f"{source}: {why}", reason="BASE_MODEL_UNSUITABLE")
    torch.manual_seed(seed)
    model = YoloForObjectDetection(config)
    if trained is not None:
        model.yolo.load_state_dict(trained.state_dict())
    model.save_pretrained(out)
    YoloImageProcessor(size={"shortest_edge": side_px, "longest_edge": side_px}).save_pretrained(out)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finemesh.finetune.yolo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a .yaml, e.g. yolo11n.yaml, or a .pt that you trust")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--side", type=int, default=SIDE_PX, metavar="PX", help="longer side of pictures")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    given = parser.parse_args()
    try:
        write_base_model(given.source, given.out, given.side, given.seed)
    except (InvalidError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(given.out)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
