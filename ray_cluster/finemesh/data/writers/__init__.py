"""Dataset forms out: one module per form, and this registry."""

from __future__ import annotations

from typing import Final

from finemesh.core.spec.data import DatasetFormat
from finemesh.data.writers.canonical import CanonicalWriter
from finemesh.data.writers.coco import CocoWriter
from finemesh.data.writers.form import FormContext, FormWriter
from finemesh.data.writers.hugging_face import HuggingFaceWriter
from finemesh.data.writers.llava import LlavaWriter
from finemesh.data.writers.messages import MessagesWriter
from finemesh.data.writers.template import TemplateWriter
from finemesh.data.writers.yolo import YoloDetectionWriter, YoloSegmentationWriter

WRITERS: Final[dict[DatasetFormat, type[FormWriter]]] = {
    DatasetFormat.CANONICAL: CanonicalWriter,
    DatasetFormat.HUGGING_FACE: HuggingFaceWriter,
    DatasetFormat.LLAVA: LlavaWriter,
    DatasetFormat.MESSAGES: MessagesWriter,
    DatasetFormat.TEMPLATE: TemplateWriter,
    DatasetFormat.COCO: CocoWriter,
    DatasetFormat.YOLO_DETECTION: YoloDetectionWriter,
    DatasetFormat.YOLO_SEGMENTATION: YoloSegmentationWriter,
}

__all__ = ["WRITERS", "FormContext", "FormWriter"]
