from finemesh.v1 import dataset_pb2 as _dataset_pb2
from finemesh.v1 import fine_tune_spec_pb2 as _fine_tune_spec_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelFamily(_message.Message):
    __slots__ = ("name", "description", "task", "model_types", "auto_class", "parts", "methods", "box_convention", "quirks")
    class Part(_message.Message):
        __slots__ = ("tower", "module_prefixes", "lora_targets")
        TOWER_FIELD_NUMBER: _ClassVar[int]
        MODULE_PREFIXES_FIELD_NUMBER: _ClassVar[int]
        LORA_TARGETS_FIELD_NUMBER: _ClassVar[int]
        tower: _fine_tune_spec_pb2.Tower
        module_prefixes: _containers.RepeatedScalarFieldContainer[str]
        lora_targets: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, tower: _Optional[_Union[_fine_tune_spec_pb2.Tower, str]] = ..., module_prefixes: _Optional[_Iterable[str]] = ..., lora_targets: _Optional[_Iterable[str]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPES_FIELD_NUMBER: _ClassVar[int]
    AUTO_CLASS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    BOX_CONVENTION_FIELD_NUMBER: _ClassVar[int]
    QUIRKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    task: _fine_tune_spec_pb2.FineTuneSpec.Task
    model_types: _containers.RepeatedScalarFieldContainer[str]
    auto_class: str
    parts: _containers.RepeatedCompositeFieldContainer[ModelFamily.Part]
    methods: _containers.RepeatedScalarFieldContainer[str]
    box_convention: _dataset_pb2.BoxConvention
    quirks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., task: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec.Task, str]] = ..., model_types: _Optional[_Iterable[str]] = ..., auto_class: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[ModelFamily.Part, _Mapping]]] = ..., methods: _Optional[_Iterable[str]] = ..., box_convention: _Optional[_Union[_dataset_pb2.BoxConvention, str]] = ..., quirks: _Optional[_Iterable[str]] = ...) -> None: ...
