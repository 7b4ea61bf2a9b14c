"""The words of the data compiler: forms, stages, tasks, severities."""

from __future__ import annotations

from enum import StrEnum


class AnnotationFormat(StrEnum):
    """A form of annotations that can be imported: docs/reference/formats.md."""

    SAV = "sav"
    """SA-V masklets, one JSON file per video (manual or automatic)."""
    SAM2 = "sam2"
    """The SAM 2 export layout of docs/reference/sam2-archive.md: manifest, class names, masklets, frames."""
    COCO = "coco"
    """COCO instances, keypoints and captions: polygons, compressed and uncompressed RLE, boxes."""
    SA1B = "sa1b"
    """SA-1B, one JSON file per picture."""
    MASK_STREAM = "mask_stream"
    """What the SAM 2 demo streams: masks per frame, as JSON Lines or a list."""
    COCO_RESULTS = "coco_results"
    """Predictions in COCO's results form, beside the COCO file of their pictures."""
    YOLO = "yolo"
    """YOLO boxes or polygons with their data.yaml."""
    VOC = "voc"
    """Pascal VOC, an XML file per picture."""
    CVAT = "cvat"
    """CVAT for images or for video, one XML file."""
    LABEL_STUDIO = "label_studio"
    """Label Studio's JSON export: boxes, polygons, key points, brush masks, choices."""
    IMAGE_FOLDER = "image_folder"
    """Hugging Face's imagefolder: metadata.jsonl or metadata.csv, or a folder per class."""
    LLAVA = "llava"
    """Conversations with `<image>`, as LLaVA's trainer reads them."""
    SHAREGPT = "sharegpt"
    """Conversations `from` human and gpt, with tools."""
    OPENAI = "openai"
    """Messages with roles, of texts or of text and image parts, with tool calls."""
    ALPACA = "alpaca"
    """instruction, input and output."""
    PROMPT_COMPLETION = "prompt_completion"
    """prompt and completion."""
    INPUT_OUTPUT = "input_output"
    """input and output."""
    PREFERENCE = "preference"
    """chosen and rejected answers to one prompt."""
    TEXT = "text"
    """Plain text, to be modelled as it is."""
    TABLE = "table"
    """CSV or TSV, whose columns are named by the request."""
    PARQUET = "parquet"
    """Parquet with the columns of one of the forms above."""


class DatasetFormat(StrEnum):
    """A form of a dataset version."""

    CANONICAL = "canonical"
    HUGGING_FACE = "hugging_face"
    LLAVA = "llava"
    MESSAGES = "messages"
    """JSON Lines of messages with roles, and a folder of pictures."""
    COCO = "coco"
    """COCO instances with the pictures."""
    YOLO_DETECTION = "yolo_detection"
    """Boxes, data.yaml, pictures."""
    YOLO_SEGMENTATION = "yolo_segmentation"
    """Polygons, data.yaml, pictures."""
    TEMPLATE = "template"
    """A text per row by the template of the request."""


class MaskForm(StrEnum):
    """How a form that can hold either writes masks."""

    AS_SOURCE = "as_source"
    """As polygons where the mask came as polygons, else as run lengths."""
    POLYGON = "polygon"
    RLE = "rle"


class DatasetOrigin(StrEnum):
    """Which stage made a dataset version."""

    IMPORT = "import"
    CONVERT = "convert"
    SPLIT = "split"


class SplitStrategy(StrEnum):
    AUTO = "auto"
    """TEMPORAL for a single video, BY_VIDEO otherwise."""
    BY_VIDEO = "by_video"
    """A video, and whatever shares a picture with it, lies in one split."""
    TEMPORAL = "temporal"
    """Each video is cut in time: train first, then val, then test, with gaps between."""
    STRATIFIED = "stratified"
    """As BY_VIDEO, and each split gets its share of every class."""
    GROUPED = "grouped"
    """Rows with the same value of a key lie in one split."""
    RANDOM = "random"
    """Row by row; what shares a picture still lies in one split."""
    PREDEFINED = "predefined"
    """By the lists of the request, or by the splits that the source names."""


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
