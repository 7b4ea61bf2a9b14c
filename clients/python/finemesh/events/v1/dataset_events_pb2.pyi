from finemesh.v1 import dataset_pb2 as _dataset_pb2
from finemesh.v1 import preflight_pb2 as _preflight_pb2
from finemesh.v1 import validation_report_pb2 as _validation_report_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetImported(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: _dataset_pb2.Dataset
    def __init__(self, dataset: _Optional[_Union[_dataset_pb2.Dataset, _Mapping]] = ...) -> None: ...

class DatasetConverted(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: _dataset_pb2.Dataset
    def __init__(self, dataset: _Optional[_Union[_dataset_pb2.Dataset, _Mapping]] = ...) -> None: ...

class DatasetSplit(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: _dataset_pb2.Dataset
    def __init__(self, dataset: _Optional[_Union[_dataset_pb2.Dataset, _Mapping]] = ...) -> None: ...

class DatasetValidated(_message.Message):
    __slots__ = ("validation_report",)
    VALIDATION_REPORT_FIELD_NUMBER: _ClassVar[int]
    validation_report: _validation_report_pb2.ValidationReport
    def __init__(self, validation_report: _Optional[_Union[_validation_report_pb2.ValidationReport, _Mapping]] = ...) -> None: ...

class DatasetPreflighted(_message.Message):
    __slots__ = ("preflight_report",)
    PREFLIGHT_REPORT_FIELD_NUMBER: _ClassVar[int]
    preflight_report: _preflight_pb2.PreflightReport
    def __init__(self, preflight_report: _Optional[_Union[_preflight_pb2.PreflightReport, _Mapping]] = ...) -> None: ...

class DatasetFailed(_message.Message):
    __slots__ = ("dataset", "validation_report", "preflight_report")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_REPORT_FIELD_NUMBER: _ClassVar[int]
    PREFLIGHT_REPORT_FIELD_NUMBER: _ClassVar[int]
    dataset: _dataset_pb2.Dataset
    validation_report: _validation_report_pb2.ValidationReport
    preflight_report: _preflight_pb2.PreflightReport
    def __init__(self, dataset: _Optional[_Union[_dataset_pb2.Dataset, _Mapping]] = ..., validation_report: _Optional[_Union[_validation_report_pb2.ValidationReport, _Mapping]] = ..., preflight_report: _Optional[_Union[_preflight_pb2.PreflightReport, _Mapping]] = ...) -> None: ...

class DatasetCancelled(_message.Message):
    __slots__ = ("dataset", "validation_report", "preflight_report")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_REPORT_FIELD_NUMBER: _ClassVar[int]
    PREFLIGHT_REPORT_FIELD_NUMBER: _ClassVar[int]
    dataset: _dataset_pb2.Dataset
    validation_report: _validation_report_pb2.ValidationReport
    preflight_report: _preflight_pb2.PreflightReport
    def __init__(self, dataset: _Optional[_Union[_dataset_pb2.Dataset, _Mapping]] = ..., validation_report: _Optional[_Union[_validation_report_pb2.ValidationReport, _Mapping]] = ..., preflight_report: _Optional[_Union[_preflight_pb2.PreflightReport, _Mapping]] = ...) -> None: ...
