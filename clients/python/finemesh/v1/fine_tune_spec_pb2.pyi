from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tower(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOWER_UNSPECIFIED: _ClassVar[Tower]
    TOWER_LANGUAGE: _ClassVar[Tower]
    TOWER_VISION: _ClassVar[Tower]
    TOWER_CONNECTOR: _ClassVar[Tower]
    TOWER_HEAD: _ClassVar[Tower]
    TOWER_DECODER: _ClassVar[Tower]
TOWER_UNSPECIFIED: Tower
TOWER_LANGUAGE: Tower
TOWER_VISION: Tower
TOWER_CONNECTOR: Tower
TOWER_HEAD: Tower
TOWER_DECODER: Tower

class FineTuneSpec(_message.Message):
    __slots__ = ("task", "base_model", "base_model_revision", "dataset", "train_split", "validation_split", "test_split", "lora", "full", "optimization", "sequence", "precision", "evaluation", "checkpoint", "resources", "max_quarantined_fraction", "objective", "preference", "pictures", "segmentation", "on_out_of_memory")
    class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TASK_UNSPECIFIED: _ClassVar[FineTuneSpec.Task]
        TASK_VISION_LANGUAGE: _ClassVar[FineTuneSpec.Task]
        TASK_LANGUAGE: _ClassVar[FineTuneSpec.Task]
        TASK_DETECTION: _ClassVar[FineTuneSpec.Task]
        TASK_SEMANTIC_SEGMENTATION: _ClassVar[FineTuneSpec.Task]
        TASK_INSTANCE_SEGMENTATION: _ClassVar[FineTuneSpec.Task]
        TASK_IMAGE_CLASSIFICATION: _ClassVar[FineTuneSpec.Task]
    TASK_UNSPECIFIED: FineTuneSpec.Task
    TASK_VISION_LANGUAGE: FineTuneSpec.Task
    TASK_LANGUAGE: FineTuneSpec.Task
    TASK_DETECTION: FineTuneSpec.Task
    TASK_SEMANTIC_SEGMENTATION: FineTuneSpec.Task
    TASK_INSTANCE_SEGMENTATION: FineTuneSpec.Task
    TASK_IMAGE_CLASSIFICATION: FineTuneSpec.Task
    class Objective(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OBJECTIVE_UNSPECIFIED: _ClassVar[FineTuneSpec.Objective]
        OBJECTIVE_CONVERSATION: _ClassVar[FineTuneSpec.Objective]
        OBJECTIVE_TEXT: _ClassVar[FineTuneSpec.Objective]
        OBJECTIVE_PREFERENCE: _ClassVar[FineTuneSpec.Objective]
    OBJECTIVE_UNSPECIFIED: FineTuneSpec.Objective
    OBJECTIVE_CONVERSATION: FineTuneSpec.Objective
    OBJECTIVE_TEXT: FineTuneSpec.Objective
    OBJECTIVE_PREFERENCE: FineTuneSpec.Objective
    class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PRECISION_UNSPECIFIED: _ClassVar[FineTuneSpec.Precision]
        PRECISION_FP32: _ClassVar[FineTuneSpec.Precision]
        PRECISION_BF16: _ClassVar[FineTuneSpec.Precision]
        PRECISION_FP16: _ClassVar[FineTuneSpec.Precision]
    PRECISION_UNSPECIFIED: FineTuneSpec.Precision
    PRECISION_FP32: FineTuneSpec.Precision
    PRECISION_BF16: FineTuneSpec.Precision
    PRECISION_FP16: FineTuneSpec.Precision
    class OutOfMemory(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUT_OF_MEMORY_UNSPECIFIED: _ClassVar[FineTuneSpec.OutOfMemory]
        OUT_OF_MEMORY_FAIL: _ClassVar[FineTuneSpec.OutOfMemory]
        OUT_OF_MEMORY_HALVE_MICRO_BATCH: _ClassVar[FineTuneSpec.OutOfMemory]
    OUT_OF_MEMORY_UNSPECIFIED: FineTuneSpec.OutOfMemory
    OUT_OF_MEMORY_FAIL: FineTuneSpec.OutOfMemory
    OUT_OF_MEMORY_HALVE_MICRO_BATCH: FineTuneSpec.OutOfMemory
    TASK_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_REVISION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SPLIT_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SPLIT_FIELD_NUMBER: _ClassVar[int]
    TEST_SPLIT_FIELD_NUMBER: _ClassVar[int]
    LORA_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUARANTINED_FRACTION_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    ON_OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    task: FineTuneSpec.Task
    base_model: str
    base_model_revision: str
    dataset: str
    train_split: str
    validation_split: str
    test_split: str
    lora: LoraMethod
    full: FullMethod
    optimization: OptimizationSpec
    sequence: SequenceSpec
    precision: FineTuneSpec.Precision
    evaluation: EvaluationSpec
    checkpoint: CheckpointSpec
    resources: ResourceSpec
    max_quarantined_fraction: float
    objective: FineTuneSpec.Objective
    preference: PreferenceSpec
    pictures: PictureSpec
    segmentation: SegmentationSpec
    on_out_of_memory: FineTuneSpec.OutOfMemory
    def __init__(self, task: _Optional[_Union[FineTuneSpec.Task, str]] = ..., base_model: _Optional[str] = ..., base_model_revision: _Optional[str] = ..., dataset: _Optional[str] = ..., train_split: _Optional[str] = ..., validation_split: _Optional[str] = ..., test_split: _Optional[str] = ..., lora: _Optional[_Union[LoraMethod, _Mapping]] = ..., full: _Optional[_Union[FullMethod, _Mapping]] = ..., optimization: _Optional[_Union[OptimizationSpec, _Mapping]] = ..., sequence: _Optional[_Union[SequenceSpec, _Mapping]] = ..., precision: _Optional[_Union[FineTuneSpec.Precision, str]] = ..., evaluation: _Optional[_Union[EvaluationSpec, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointSpec, _Mapping]] = ..., resources: _Optional[_Union[ResourceSpec, _Mapping]] = ..., max_quarantined_fraction: _Optional[float] = ..., objective: _Optional[_Union[FineTuneSpec.Objective, str]] = ..., preference: _Optional[_Union[PreferenceSpec, _Mapping]] = ..., pictures: _Optional[_Union[PictureSpec, _Mapping]] = ..., segmentation: _Optional[_Union[SegmentationSpec, _Mapping]] = ..., on_out_of_memory: _Optional[_Union[FineTuneSpec.OutOfMemory, str]] = ...) -> None: ...

class SegmentationSpec(_message.Message):
    __slots__ = ("background",)
    class Background(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BACKGROUND_UNSPECIFIED: _ClassVar[SegmentationSpec.Background]
        BACKGROUND_CLASS: _ClassVar[SegmentationSpec.Background]
        BACKGROUND_IGNORED: _ClassVar[SegmentationSpec.Background]
    BACKGROUND_UNSPECIFIED: SegmentationSpec.Background
    BACKGROUND_CLASS: SegmentationSpec.Background
    BACKGROUND_IGNORED: SegmentationSpec.Background
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    background: SegmentationSpec.Background
    def __init__(self, background: _Optional[_Union[SegmentationSpec.Background, str]] = ...) -> None: ...

class PictureSpec(_message.Message):
    __slots__ = ("horizontal_flip",)
    HORIZONTAL_FLIP_FIELD_NUMBER: _ClassVar[int]
    horizontal_flip: float
    def __init__(self, horizontal_flip: _Optional[float] = ...) -> None: ...

class PreferenceSpec(_message.Message):
    __slots__ = ("beta", "label_smoothing", "chosen_weight")
    BETA_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    beta: float
    label_smoothing: float
    chosen_weight: float
    def __init__(self, beta: _Optional[float] = ..., label_smoothing: _Optional[float] = ..., chosen_weight: _Optional[float] = ...) -> None: ...

class LoraMethod(_message.Message):
    __slots__ = ("rank", "alpha", "dropout", "towers", "target_modules", "train_connector", "use_rslora", "use_dora", "loraplus_ratio", "quantization", "double_quantization")
    class Quantization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        QUANTIZATION_UNSPECIFIED: _ClassVar[LoraMethod.Quantization]
        QUANTIZATION_NONE: _ClassVar[LoraMethod.Quantization]
        QUANTIZATION_NF4: _ClassVar[LoraMethod.Quantization]
        QUANTIZATION_INT8: _ClassVar[LoraMethod.Quantization]
    QUANTIZATION_UNSPECIFIED: LoraMethod.Quantization
    QUANTIZATION_NONE: LoraMethod.Quantization
    QUANTIZATION_NF4: LoraMethod.Quantization
    QUANTIZATION_INT8: LoraMethod.Quantization
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    TOWERS_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODULES_FIELD_NUMBER: _ClassVar[int]
    TRAIN_CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    USE_RSLORA_FIELD_NUMBER: _ClassVar[int]
    USE_DORA_FIELD_NUMBER: _ClassVar[int]
    LORAPLUS_RATIO_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    rank: int
    alpha: float
    dropout: float
    towers: _containers.RepeatedScalarFieldContainer[Tower]
    target_modules: _containers.RepeatedScalarFieldContainer[str]
    train_connector: bool
    use_rslora: bool
    use_dora: bool
    loraplus_ratio: float
    quantization: LoraMethod.Quantization
    double_quantization: bool
    def __init__(self, rank: _Optional[int] = ..., alpha: _Optional[float] = ..., dropout: _Optional[float] = ..., towers: _Optional[_Iterable[_Union[Tower, str]]] = ..., target_modules: _Optional[_Iterable[str]] = ..., train_connector: _Optional[bool] = ..., use_rslora: _Optional[bool] = ..., use_dora: _Optional[bool] = ..., loraplus_ratio: _Optional[float] = ..., quantization: _Optional[_Union[LoraMethod.Quantization, str]] = ..., double_quantization: _Optional[bool] = ...) -> None: ...

class FullMethod(_message.Message):
    __slots__ = ("towers",)
    TOWERS_FIELD_NUMBER: _ClassVar[int]
    towers: _containers.RepeatedScalarFieldContainer[Tower]
    def __init__(self, towers: _Optional[_Iterable[_Union[Tower, str]]] = ...) -> None: ...

class OptimizationSpec(_message.Message):
    __slots__ = ("learning_rate", "weight_decay", "epochs", "max_steps", "warmup_ratio", "schedule", "max_grad_norm", "micro_batch_size", "gradient_accumulation_steps", "seed", "optimizer", "min_rate_ratio", "warmup_steps", "decay_ratio", "beta1", "beta2", "epsilon", "vision_rate_ratio", "connector_rate_ratio", "activation_checkpointing", "compile", "neftune_alpha", "label_smoothing")
    class Optimizer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OPTIMIZER_UNSPECIFIED: _ClassVar[OptimizationSpec.Optimizer]
        OPTIMIZER_ADAMW: _ClassVar[OptimizationSpec.Optimizer]
        OPTIMIZER_ADAMW_8BIT: _ClassVar[OptimizationSpec.Optimizer]
        OPTIMIZER_PAGED_ADAMW_8BIT: _ClassVar[OptimizationSpec.Optimizer]
        OPTIMIZER_PAGED_ADAMW_32BIT: _ClassVar[OptimizationSpec.Optimizer]
        OPTIMIZER_ADAFACTOR: _ClassVar[OptimizationSpec.Optimizer]
        OPTIMIZER_SGD: _ClassVar[OptimizationSpec.Optimizer]
    OPTIMIZER_UNSPECIFIED: OptimizationSpec.Optimizer
    OPTIMIZER_ADAMW: OptimizationSpec.Optimizer
    OPTIMIZER_ADAMW_8BIT: OptimizationSpec.Optimizer
    OPTIMIZER_PAGED_ADAMW_8BIT: OptimizationSpec.Optimizer
    OPTIMIZER_PAGED_ADAMW_32BIT: OptimizationSpec.Optimizer
    OPTIMIZER_ADAFACTOR: OptimizationSpec.Optimizer
    OPTIMIZER_SGD: OptimizationSpec.Optimizer
    class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SCHEDULE_UNSPECIFIED: _ClassVar[OptimizationSpec.Schedule]
        SCHEDULE_CONSTANT: _ClassVar[OptimizationSpec.Schedule]
        SCHEDULE_LINEAR: _ClassVar[OptimizationSpec.Schedule]
        SCHEDULE_COSINE: _ClassVar[OptimizationSpec.Schedule]
        SCHEDULE_INVERSE_SQRT: _ClassVar[OptimizationSpec.Schedule]
        SCHEDULE_WARMUP_STABLE_DECAY: _ClassVar[OptimizationSpec.Schedule]
    SCHEDULE_UNSPECIFIED: OptimizationSpec.Schedule
    SCHEDULE_CONSTANT: OptimizationSpec.Schedule
    SCHEDULE_LINEAR: OptimizationSpec.Schedule
    SCHEDULE_COSINE: OptimizationSpec.Schedule
    SCHEDULE_INVERSE_SQRT: OptimizationSpec.Schedule
    SCHEDULE_WARMUP_STABLE_DECAY: OptimizationSpec.Schedule
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RATIO_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    MIN_RATE_RATIO_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    DECAY_RATIO_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    VISION_RATE_RATIO_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_RATE_RATIO_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_CHECKPOINTING_FIELD_NUMBER: _ClassVar[int]
    COMPILE_FIELD_NUMBER: _ClassVar[int]
    NEFTUNE_ALPHA_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    weight_decay: float
    epochs: float
    max_steps: int
    warmup_ratio: float
    schedule: OptimizationSpec.Schedule
    max_grad_norm: float
    micro_batch_size: int
    gradient_accumulation_steps: int
    seed: int
    optimizer: OptimizationSpec.Optimizer
    min_rate_ratio: float
    warmup_steps: int
    decay_ratio: float
    beta1: float
    beta2: float
    epsilon: float
    vision_rate_ratio: float
    connector_rate_ratio: float
    activation_checkpointing: bool
    compile: bool
    neftune_alpha: float
    label_smoothing: float
    def __init__(self, learning_rate: _Optional[float] = ..., weight_decay: _Optional[float] = ..., epochs: _Optional[float] = ..., max_steps: _Optional[int] = ..., warmup_ratio: _Optional[float] = ..., schedule: _Optional[_Union[OptimizationSpec.Schedule, str]] = ..., max_grad_norm: _Optional[float] = ..., micro_batch_size: _Optional[int] = ..., gradient_accumulation_steps: _Optional[int] = ..., seed: _Optional[int] = ..., optimizer: _Optional[_Union[OptimizationSpec.Optimizer, str]] = ..., min_rate_ratio: _Optional[float] = ..., warmup_steps: _Optional[int] = ..., decay_ratio: _Optional[float] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., epsilon: _Optional[float] = ..., vision_rate_ratio: _Optional[float] = ..., connector_rate_ratio: _Optional[float] = ..., activation_checkpointing: _Optional[bool] = ..., compile: _Optional[bool] = ..., neftune_alpha: _Optional[float] = ..., label_smoothing: _Optional[float] = ...) -> None: ...

class SequenceSpec(_message.Message):
    __slots__ = ("max_tokens", "packing", "over_length", "length_grouping")
    class OverLength(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OVER_LENGTH_UNSPECIFIED: _ClassVar[SequenceSpec.OverLength]
        OVER_LENGTH_RAISE: _ClassVar[SequenceSpec.OverLength]
        OVER_LENGTH_TRUNCATE: _ClassVar[SequenceSpec.OverLength]
        OVER_LENGTH_DROP: _ClassVar[SequenceSpec.OverLength]
        OVER_LENGTH_SPLIT: _ClassVar[SequenceSpec.OverLength]
    OVER_LENGTH_UNSPECIFIED: SequenceSpec.OverLength
    OVER_LENGTH_RAISE: SequenceSpec.OverLength
    OVER_LENGTH_TRUNCATE: SequenceSpec.OverLength
    OVER_LENGTH_DROP: SequenceSpec.OverLength
    OVER_LENGTH_SPLIT: SequenceSpec.OverLength
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PACKING_FIELD_NUMBER: _ClassVar[int]
    OVER_LENGTH_FIELD_NUMBER: _ClassVar[int]
    LENGTH_GROUPING_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    packing: bool
    over_length: SequenceSpec.OverLength
    length_grouping: bool
    def __init__(self, max_tokens: _Optional[int] = ..., packing: _Optional[bool] = ..., over_length: _Optional[_Union[SequenceSpec.OverLength, str]] = ..., length_grouping: _Optional[bool] = ...) -> None: ...

class EvaluationSpec(_message.Message):
    __slots__ = ("every_steps", "max_items", "baselines", "patience", "min_improvement", "holdout_fraction", "metrics", "max_generated_tokens")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    BASELINES_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_IMPROVEMENT_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_FRACTION_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    MAX_GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    max_items: int
    baselines: bool
    patience: int
    min_improvement: float
    holdout_fraction: float
    metrics: _containers.RepeatedScalarFieldContainer[str]
    max_generated_tokens: int
    def __init__(self, every_steps: _Optional[int] = ..., max_items: _Optional[int] = ..., baselines: _Optional[bool] = ..., patience: _Optional[int] = ..., min_improvement: _Optional[float] = ..., holdout_fraction: _Optional[float] = ..., metrics: _Optional[_Iterable[str]] = ..., max_generated_tokens: _Optional[int] = ...) -> None: ...

class CheckpointSpec(_message.Message):
    __slots__ = ("every_steps", "keep_last", "keep_best")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    KEEP_BEST_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    keep_last: int
    keep_best: bool
    def __init__(self, every_steps: _Optional[int] = ..., keep_last: _Optional[int] = ..., keep_best: _Optional[bool] = ...) -> None: ...

class ResourceSpec(_message.Message):
    __slots__ = ("cpus", "gpus", "memory_bytes", "workers", "strategy")
    class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STRATEGY_UNSPECIFIED: _ClassVar[ResourceSpec.Strategy]
        STRATEGY_AUTO: _ClassVar[ResourceSpec.Strategy]
        STRATEGY_DDP: _ClassVar[ResourceSpec.Strategy]
        STRATEGY_FSDP: _ClassVar[ResourceSpec.Strategy]
    STRATEGY_UNSPECIFIED: ResourceSpec.Strategy
    STRATEGY_AUTO: ResourceSpec.Strategy
    STRATEGY_DDP: ResourceSpec.Strategy
    STRATEGY_FSDP: ResourceSpec.Strategy
    CPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    cpus: float
    gpus: float
    memory_bytes: int
    workers: int
    strategy: ResourceSpec.Strategy
    def __init__(self, cpus: _Optional[float] = ..., gpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., workers: _Optional[int] = ..., strategy: _Optional[_Union[ResourceSpec.Strategy, str]] = ...) -> None: ...
