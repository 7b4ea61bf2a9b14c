"""The words of the data compiler: forms, stages, tasks, severities."""

from __future__ import annotations

from enum import StrEnum


class AnnotationFormat(StrEnum):
    """A form of annotations that can be imported."""

    SAV = "sav"
    """SA-V masklets, one JSON file per video (manual or automatic)."""
    SAM2 = "sam2"
    """The SAM 2 export layout of docs/reference/sam2-archive.md: manifest, class names, masklets, frames."""
    COCO = "coco"
    """COCO instances: polygons, compressed and uncompressed RLE, boxes."""


class DatasetFormat(StrEnum):
    """A form of a dataset version."""

    CANONICAL = "canonical"
    HUGGING_FACE = "hugging_face"
    LLAVA = "llava"


class DatasetOrigin(StrEnum):
    """Which stage made a dataset version."""

    IMPORT = "import"
    CONVERT = "convert"
    SPLIT = "split"


class SplitStrategy(StrEnum):
    AUTO = "auto"
    """TEMPORAL for a single video, BY_VIDEO otherwise."""
    BY_VIDEO = "by_video"
    """A video, and whatever shares an identical image with it, lies in one split."""
    TEMPORAL = "temporal"
    """Each video is cut in time: train first, then val, then test, with gaps between."""


class Split(StrEnum):
    """The split of a row. A dataset that was never split has rows of NONE."""

    NONE = ""
    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    GAP = "gap"
    """Kept in the dataset, used for nothing: it separates neighbours in time."""


class InstructionTask(StrEnum):
    """How conversations are made from objects."""

    CLASSIFY_REGION = "classify_region"
    """A crop around each visible object; the question is what it is, the answer its class name."""
    LOCATE_OBJECT = "locate_object"
    """The whole frame, one object outlined; the answer is one of nine cells, e.g. `top left`."""
    REFER_OBJECT = "refer_object"
    """The whole picture and an object that is the only one of its class; the answer is its box."""
    DESCRIBE_REGION = "describe_region"
    """The whole picture and a box; the answer says what is there, how large and where."""
    CAPTION = "caption"
    """The whole picture; the answer is its caption, or what its objects are."""
    COUNT = "count"
    """The whole picture and a class; the answer is how many there are."""
    PRESENCE = "presence"
    """The whole picture and a class that is there, or one that usually is beside what is; yes or no."""


class ValidationLevel(StrEnum):
    BASIC = "basic"
    STRICT = "strict"
    """Also decodes every image in full."""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ValidationStatus(StrEnum):
    PASSED = "passed"
    PASSED_WITH_WARNINGS = "passed_with_warnings"
    FAILED = "failed"
