import datetime

from finemesh.v1 import ledger_pb2 as _ledger_pb2
from finemesh.v1 import progress_pb2 as _progress_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATASET_FORMAT_UNSPECIFIED: _ClassVar[DatasetFormat]
    DATASET_FORMAT_CANONICAL: _ClassVar[DatasetFormat]
    DATASET_FORMAT_HUGGING_FACE: _ClassVar[DatasetFormat]
    DATASET_FORMAT_LLAVA: _ClassVar[DatasetFormat]
    DATASET_FORMAT_MESSAGES: _ClassVar[DatasetFormat]
    DATASET_FORMAT_COCO: _ClassVar[DatasetFormat]
    DATASET_FORMAT_YOLO_DETECTION: _ClassVar[DatasetFormat]
    DATASET_FORMAT_YOLO_SEGMENTATION: _ClassVar[DatasetFormat]
    DATASET_FORMAT_TEMPLATE: _ClassVar[DatasetFormat]

class AnnotationFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANNOTATION_FORMAT_UNSPECIFIED: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_SAM2: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_SAV: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_COCO: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_SA1B: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_MASK_STREAM: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_COCO_RESULTS: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_YOLO: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_VOC: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_CVAT: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_LABEL_STUDIO: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_IMAGE_FOLDER: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_LLAVA: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_SHAREGPT: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_OPENAI: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_ALPACA: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_PROMPT_COMPLETION: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_INPUT_OUTPUT: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_PREFERENCE: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_TEXT: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_TABLE: _ClassVar[AnnotationFormat]
    ANNOTATION_FORMAT_PARQUET: _ClassVar[AnnotationFormat]

class InstructionTask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INSTRUCTION_TASK_UNSPECIFIED: _ClassVar[InstructionTask]
    INSTRUCTION_TASK_CLASSIFY_REGION: _ClassVar[InstructionTask]
    INSTRUCTION_TASK_LOCATE_OBJECT: _ClassVar[InstructionTask]
    INSTRUCTION_TASK_REFER_OBJECT: _ClassVar[InstructionTask]
    INSTRUCTION_TASK_DESCRIBE_REGION: _ClassVar[InstructionTask]
    INSTRUCTION_TASK_CAPTION: _ClassVar[InstructionTask]
    INSTRUCTION_TASK_COUNT: _ClassVar[InstructionTask]
    INSTRUCTION_TASK_PRESENCE: _ClassVar[InstructionTask]

class BoxConvention(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BOX_CONVENTION_UNSPECIFIED: _ClassVar[BoxConvention]
    BOX_CONVENTION_UNIT: _ClassVar[BoxConvention]
    BOX_CONVENTION_THOUSANDTHS: _ClassVar[BoxConvention]
    BOX_CONVENTION_PIXELS: _ClassVar[BoxConvention]
    BOX_CONVENTION_LOCATIONS: _ClassVar[BoxConvention]

class MaskForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_FORM_UNSPECIFIED: _ClassVar[MaskForm]
    MASK_FORM_AS_SOURCE: _ClassVar[MaskForm]
    MASK_FORM_POLYGON: _ClassVar[MaskForm]
    MASK_FORM_RLE: _ClassVar[MaskForm]

class SplitStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPLIT_STRATEGY_UNSPECIFIED: _ClassVar[SplitStrategy]
    SPLIT_STRATEGY_BY_VIDEO: _ClassVar[SplitStrategy]
    SPLIT_STRATEGY_TEMPORAL: _ClassVar[SplitStrategy]
    SPLIT_STRATEGY_STRATIFIED: _ClassVar[SplitStrategy]
    SPLIT_STRATEGY_GROUPED: _ClassVar[SplitStrategy]
    SPLIT_STRATEGY_RANDOM: _ClassVar[SplitStrategy]
    SPLIT_STRATEGY_PREDEFINED: _ClassVar[SplitStrategy]
DATASET_FORMAT_UNSPECIFIED: DatasetFormat
DATASET_FORMAT_CANONICAL: DatasetFormat
DATASET_FORMAT_HUGGING_FACE: DatasetFormat
DATASET_FORMAT_LLAVA: DatasetFormat
DATASET_FORMAT_MESSAGES: DatasetFormat
DATASET_FORMAT_COCO: DatasetFormat
DATASET_FORMAT_YOLO_DETECTION: DatasetFormat
DATASET_FORMAT_YOLO_SEGMENTATION: DatasetFormat
DATASET_FORMAT_TEMPLATE: DatasetFormat
ANNOTATION_FORMAT_UNSPECIFIED: AnnotationFormat
ANNOTATION_FORMAT_SAM2: AnnotationFormat
ANNOTATION_FORMAT_SAV: AnnotationFormat
ANNOTATION_FORMAT_COCO: AnnotationFormat
ANNOTATION_FORMAT_SA1B: AnnotationFormat
ANNOTATION_FORMAT_MASK_STREAM: AnnotationFormat
ANNOTATION_FORMAT_COCO_RESULTS: AnnotationFormat
ANNOTATION_FORMAT_YOLO: AnnotationFormat
ANNOTATION_FORMAT_VOC: AnnotationFormat
ANNOTATION_FORMAT_CVAT: AnnotationFormat
ANNOTATION_FORMAT_LABEL_STUDIO: AnnotationFormat
ANNOTATION_FORMAT_IMAGE_FOLDER: AnnotationFormat
ANNOTATION_FORMAT_LLAVA: AnnotationFormat
ANNOTATION_FORMAT_SHAREGPT: AnnotationFormat
ANNOTATION_FORMAT_OPENAI: AnnotationFormat
ANNOTATION_FORMAT_ALPACA: AnnotationFormat
ANNOTATION_FORMAT_PROMPT_COMPLETION: AnnotationFormat
ANNOTATION_FORMAT_INPUT_OUTPUT: AnnotationFormat
ANNOTATION_FORMAT_PREFERENCE: AnnotationFormat
ANNOTATION_FORMAT_TEXT: AnnotationFormat
ANNOTATION_FORMAT_TABLE: AnnotationFormat
ANNOTATION_FORMAT_PARQUET: AnnotationFormat
INSTRUCTION_TASK_UNSPECIFIED: InstructionTask
INSTRUCTION_TASK_CLASSIFY_REGION: InstructionTask
INSTRUCTION_TASK_LOCATE_OBJECT: InstructionTask
INSTRUCTION_TASK_REFER_OBJECT: InstructionTask
INSTRUCTION_TASK_DESCRIBE_REGION: InstructionTask
INSTRUCTION_TASK_CAPTION: InstructionTask
INSTRUCTION_TASK_COUNT: InstructionTask
INSTRUCTION_TASK_PRESENCE: InstructionTask
BOX_CONVENTION_UNSPECIFIED: BoxConvention
BOX_CONVENTION_UNIT: BoxConvention
BOX_CONVENTION_THOUSANDTHS: BoxConvention
BOX_CONVENTION_PIXELS: BoxConvention
BOX_CONVENTION_LOCATIONS: BoxConvention
MASK_FORM_UNSPECIFIED: MaskForm
MASK_FORM_AS_SOURCE: MaskForm
MASK_FORM_POLYGON: MaskForm
MASK_FORM_RLE: MaskForm
SPLIT_STRATEGY_UNSPECIFIED: SplitStrategy
SPLIT_STRATEGY_BY_VIDEO: SplitStrategy
SPLIT_STRATEGY_TEMPORAL: SplitStrategy
SPLIT_STRATEGY_STRATIFIED: SplitStrategy
SPLIT_STRATEGY_GROUPED: SplitStrategy
SPLIT_STRATEGY_RANDOM: SplitStrategy
SPLIT_STRATEGY_PREDEFINED: SplitStrategy

class ImportOrigin(_message.Message):
    __slots__ = ("upload", "format", "max_quarantined_fraction", "seed", "max_total_bytes", "max_files", "max_ratio", "max_image_pixels", "columns", "source_uri")
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAX_QUARANTINED_FRACTION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FILES_FIELD_NUMBER: _ClassVar[int]
    MAX_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    upload: str
    format: AnnotationFormat
    max_quarantined_fraction: float
    seed: int
    max_total_bytes: int
    max_files: int
    max_ratio: float
    max_image_pixels: int
    columns: _containers.ScalarMap[str, str]
    source_uri: str
    def __init__(self, upload: _Optional[str] = ..., format: _Optional[_Union[AnnotationFormat, str]] = ..., max_quarantined_fraction: _Optional[float] = ..., seed: _Optional[int] = ..., max_total_bytes: _Optional[int] = ..., max_files: _Optional[int] = ..., max_ratio: _Optional[float] = ..., max_image_pixels: _Optional[int] = ..., columns: _Optional[_Mapping[str, str]] = ..., source_uri: _Optional[str] = ...) -> None: ...

class SplitOrigin(_message.Message):
    __slots__ = ("dataset", "strategy", "train_ratio", "validation_ratio", "test_ratio", "gap_frames", "seed", "group_key", "assignments", "max_similar_bits")
    class AssignmentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    TRAIN_RATIO_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_RATIO_FIELD_NUMBER: _ClassVar[int]
    TEST_RATIO_FIELD_NUMBER: _ClassVar[int]
    GAP_FRAMES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    GROUP_KEY_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_SIMILAR_BITS_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    strategy: SplitStrategy
    train_ratio: float
    validation_ratio: float
    test_ratio: float
    gap_frames: int
    seed: int
    group_key: str
    assignments: _containers.ScalarMap[str, str]
    max_similar_bits: int
    def __init__(self, dataset: _Optional[str] = ..., strategy: _Optional[_Union[SplitStrategy, str]] = ..., train_ratio: _Optional[float] = ..., validation_ratio: _Optional[float] = ..., test_ratio: _Optional[float] = ..., gap_frames: _Optional[int] = ..., seed: _Optional[int] = ..., group_key: _Optional[str] = ..., assignments: _Optional[_Mapping[str, str]] = ..., max_similar_bits: _Optional[int] = ...) -> None: ...

class ConvertOrigin(_message.Message):
    __slots__ = ("dataset", "format", "instruction", "image_size_pixels", "seed", "context_fraction", "min_object_pixels", "max_answer_ratio", "max_items", "box_convention", "questions", "answers", "max_turns", "template", "mask_form", "prove_masks", "min_mask_iou")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FRACTION_FIELD_NUMBER: _ClassVar[int]
    MIN_OBJECT_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_ANSWER_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    BOX_CONVENTION_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    MAX_TURNS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    MASK_FORM_FIELD_NUMBER: _ClassVar[int]
    PROVE_MASKS_FIELD_NUMBER: _ClassVar[int]
    MIN_MASK_IOU_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    format: DatasetFormat
    instruction: InstructionTask
    image_size_pixels: int
    seed: int
    context_fraction: float
    min_object_pixels: int
    max_answer_ratio: float
    max_items: int
    box_convention: BoxConvention
    questions: _containers.RepeatedScalarFieldContainer[str]
    answers: _containers.RepeatedScalarFieldContainer[str]
    max_turns: int
    template: str
    mask_form: MaskForm
    prove_masks: bool
    min_mask_iou: float
    def __init__(self, dataset: _Optional[str] = ..., format: _Optional[_Union[DatasetFormat, str]] = ..., instruction: _Optional[_Union[InstructionTask, str]] = ..., image_size_pixels: _Optional[int] = ..., seed: _Optional[int] = ..., context_fraction: _Optional[float] = ..., min_object_pixels: _Optional[int] = ..., max_answer_ratio: _Optional[float] = ..., max_items: _Optional[int] = ..., box_convention: _Optional[_Union[BoxConvention, str]] = ..., questions: _Optional[_Iterable[str]] = ..., answers: _Optional[_Iterable[str]] = ..., max_turns: _Optional[int] = ..., template: _Optional[str] = ..., mask_form: _Optional[_Union[MaskForm, str]] = ..., prove_masks: _Optional[bool] = ..., min_mask_iou: _Optional[float] = ...) -> None: ...

class SplitCount(_message.Message):
    __slots__ = ("split", "rows")
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    split: str
    rows: int
    def __init__(self, split: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...

class ClassCount(_message.Message):
    __slots__ = ("class_name", "objects")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    objects: int
    def __init__(self, class_name: _Optional[str] = ..., objects: _Optional[int] = ...) -> None: ...

class ClassSplitCount(_message.Message):
    __slots__ = ("class_name", "split", "objects", "rows")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    split: str
    objects: int
    rows: int
    def __init__(self, class_name: _Optional[str] = ..., split: _Optional[str] = ..., objects: _Optional[int] = ..., rows: _Optional[int] = ...) -> None: ...

class LeakageShares(_message.Message):
    __slots__ = ("by_video", "by_image", "by_similar")
    BY_VIDEO_FIELD_NUMBER: _ClassVar[int]
    BY_IMAGE_FIELD_NUMBER: _ClassVar[int]
    BY_SIMILAR_FIELD_NUMBER: _ClassVar[int]
    by_video: float
    by_image: float
    by_similar: float
    def __init__(self, by_video: _Optional[float] = ..., by_image: _Optional[float] = ..., by_similar: _Optional[float] = ...) -> None: ...

class MaskProof(_message.Message):
    __slots__ = ("masks", "mean_iou", "min_iou", "below_floor", "cpu_seconds")
    MASKS_FIELD_NUMBER: _ClassVar[int]
    MEAN_IOU_FIELD_NUMBER: _ClassVar[int]
    MIN_IOU_FIELD_NUMBER: _ClassVar[int]
    BELOW_FLOOR_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    masks: int
    mean_iou: float
    min_iou: float
    below_floor: int
    cpu_seconds: float
    def __init__(self, masks: _Optional[int] = ..., mean_iou: _Optional[float] = ..., min_iou: _Optional[float] = ..., below_floor: _Optional[int] = ..., cpu_seconds: _Optional[float] = ...) -> None: ...

class DatasetSummary(_message.Message):
    __slots__ = ("digest", "row_count", "size_bytes", "video_count", "splits", "classes", "has_class_names", "media", "ledger", "leakage", "warnings", "parent_digests", "class_splits", "leakage_shares", "mask_proof", "conversation_count")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VIDEO_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    HAS_CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    LEAKAGE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    PARENT_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CLASS_SPLITS_FIELD_NUMBER: _ClassVar[int]
    LEAKAGE_SHARES_FIELD_NUMBER: _ClassVar[int]
    MASK_PROOF_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    row_count: int
    size_bytes: int
    video_count: int
    splits: _containers.RepeatedCompositeFieldContainer[SplitCount]
    classes: _containers.RepeatedCompositeFieldContainer[ClassCount]
    has_class_names: bool
    media: _containers.RepeatedScalarFieldContainer[str]
    ledger: _ledger_pb2.LedgerSummary
    leakage: float
    warnings: _containers.RepeatedScalarFieldContainer[str]
    parent_digests: _containers.RepeatedScalarFieldContainer[str]
    class_splits: _containers.RepeatedCompositeFieldContainer[ClassSplitCount]
    leakage_shares: LeakageShares
    mask_proof: MaskProof
    conversation_count: int
    def __init__(self, digest: _Optional[str] = ..., row_count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., video_count: _Optional[int] = ..., splits: _Optional[_Iterable[_Union[SplitCount, _Mapping]]] = ..., classes: _Optional[_Iterable[_Union[ClassCount, _Mapping]]] = ..., has_class_names: _Optional[bool] = ..., media: _Optional[_Iterable[str]] = ..., ledger: _Optional[_Union[_ledger_pb2.LedgerSummary, _Mapping]] = ..., leakage: _Optional[float] = ..., warnings: _Optional[_Iterable[str]] = ..., parent_digests: _Optional[_Iterable[str]] = ..., class_splits: _Optional[_Iterable[_Union[ClassSplitCount, _Mapping]]] = ..., leakage_shares: _Optional[_Union[LeakageShares, _Mapping]] = ..., mask_proof: _Optional[_Union[MaskProof, _Mapping]] = ..., conversation_count: _Optional[int] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "display_name", "labels", "imported_from", "split_from", "converted_from", "format", "state", "progress", "error", "summary", "attempt", "create_time", "start_time", "end_time", "update_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Dataset.State]
        STATE_QUEUED: _ClassVar[Dataset.State]
        STATE_RUNNING: _ClassVar[Dataset.State]
        STATE_SUCCEEDED: _ClassVar[Dataset.State]
        STATE_FAILED: _ClassVar[Dataset.State]
        STATE_CANCELLING: _ClassVar[Dataset.State]
        STATE_CANCELLED: _ClassVar[Dataset.State]
    STATE_UNSPECIFIED: Dataset.State
    STATE_QUEUED: Dataset.State
    STATE_RUNNING: Dataset.State
    STATE_SUCCEEDED: Dataset.State
    STATE_FAILED: Dataset.State
    STATE_CANCELLING: Dataset.State
    STATE_CANCELLED: Dataset.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FROM_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FROM_FIELD_NUMBER: _ClassVar[int]
    CONVERTED_FROM_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    imported_from: ImportOrigin
    split_from: SplitOrigin
    converted_from: ConvertOrigin
    format: DatasetFormat
    state: Dataset.State
    progress: _progress_pb2.Progress
    error: _status_pb2.Status
    summary: DatasetSummary
    attempt: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., imported_from: _Optional[_Union[ImportOrigin, _Mapping]] = ..., split_from: _Optional[_Union[SplitOrigin, _Mapping]] = ..., converted_from: _Optional[_Union[ConvertOrigin, _Mapping]] = ..., format: _Optional[_Union[DatasetFormat, str]] = ..., state: _Optional[_Union[Dataset.State, str]] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., summary: _Optional[_Union[DatasetSummary, _Mapping]] = ..., attempt: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Upload(_message.Message):
    __slots__ = ("name", "filename", "size_bytes", "sha256", "url", "expire_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    filename: str
    size_bytes: int
    sha256: str
    url: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., filename: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., url: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("path", "size_bytes", "sha256", "url", "expire_time")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    sha256: str
    url: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., url: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
