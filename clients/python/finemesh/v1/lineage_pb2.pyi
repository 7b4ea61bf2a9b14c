from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Lineage(_message.Message):
    __slots__ = ("dataset", "dataset_digest", "code", "environment", "seed", "hardware")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    dataset_digest: str
    code: Code
    environment: Environment
    seed: int
    hardware: Hardware
    def __init__(self, dataset: _Optional[str] = ..., dataset_digest: _Optional[str] = ..., code: _Optional[_Union[Code, _Mapping]] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., seed: _Optional[int] = ..., hardware: _Optional[_Union[Hardware, _Mapping]] = ...) -> None: ...

class Code(_message.Message):
    __slots__ = ("repository", "commit", "dirty", "command")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    repository: str
    commit: str
    dirty: bool
    command: str
    def __init__(self, repository: _Optional[str] = ..., commit: _Optional[str] = ..., dirty: _Optional[bool] = ..., command: _Optional[str] = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ("python", "platform", "libraries")
    class LibrariesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    LIBRARIES_FIELD_NUMBER: _ClassVar[int]
    python: str
    platform: str
    libraries: _containers.ScalarMap[str, str]
    def __init__(self, python: _Optional[str] = ..., platform: _Optional[str] = ..., libraries: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Hardware(_message.Message):
    __slots__ = ("hostname", "cpu", "cpu_count", "memory_bytes", "gpus", "gpu_memory_bytes", "gpu_driver")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_DRIVER_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    cpu: str
    cpu_count: int
    memory_bytes: int
    gpus: _containers.RepeatedScalarFieldContainer[str]
    gpu_memory_bytes: _containers.RepeatedScalarFieldContainer[int]
    gpu_driver: str
    def __init__(self, hostname: _Optional[str] = ..., cpu: _Optional[str] = ..., cpu_count: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpus: _Optional[_Iterable[str]] = ..., gpu_memory_bytes: _Optional[_Iterable[int]] = ..., gpu_driver: _Optional[str] = ...) -> None: ...
