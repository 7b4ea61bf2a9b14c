"""What is known of a base model in the mesh's bucket: its config, and the headers of its weights alone."""

from __future__ import annotations

import struct
from typing import Final

from finemesh.chassis.objects import ObjectStore
from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError
from finemesh.core.spec.estimate.base_model import BaseModel
from finemesh.training.estimates.convert import base_model_from_proto
from finemesh.v1 import estimate_pb2

_LONGEST_TEXT: Final = 4_000_000
_MOST_FILES: Final = 1000


class StoredModels:
    """The models under `s3://{bucket}/`."""

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._root = f"s3://{bucket}/"

    def holds(self, model: str) -> bool:
        """Whether it is one of these, as far as its name tells."""
        return model.startswith(self._root)

    async def read(self, model: str, project: str) -> BaseModel:
        """Raises InvalidError, reason BASE_MODEL_UNKNOWN: it is not there, or another project's."""
        prefix = model.removeprefix(self._root).strip("/")
        if prefix.startswith("projects/") and prefix.split("/")[1] != project:
            raise _unknown(f"{model} belongs to another project")
        try:
            listed = await self._objects.list(f"{prefix}/", limit=_MOST_FILES)
            config = await self._text(f"{prefix}/config.json")
            if not config:
                raise _unknown(f"there is no {model}/config.json")
            weights = sorted(each.key for each in listed if each.key.endswith(".safetensors"))
            headers = [await self._header(key) for key in weights]
        except InvalidError:
            raise
        except FinemeshError as error:
            raise _unknown(f"{model} cannot be read: {error.message}") from error
        size = sum(each.size_bytes for each in listed if each.key in set(weights))
        files = estimate_pb2.BaseModelFiles(
            config_json=config,
            processor_json=await self._text(f"{prefix}/preprocessor_config.json"),
            weight_headers=headers,
            weight_bytes=size,
        )
        return base_model_from_proto(files, "spec.base_model")

    async def _text(self, key: str) -> str:
        try:
            return (await self._objects.get_bytes(key, max_bytes=_LONGEST_TEXT)).decode(errors="replace")
        except NotFoundError:
            return ""

    async def _header(self, key: str) -> str:
        """The JSON at the beginning of a safetensors file, after eight bytes that tell its length."""
        (length,) = struct.unpack("<Q", await self._part(key, 0, 8))
        if length > _LONGEST_TEXT:
            raise _unknown(f"the header of {key} is larger than {_LONGEST_TEXT} bytes")
        return (await self._part(key, 8, length)).decode(errors="replace")

    async def _part(self, key: str, offset: int, length: int) -> bytes:
        parts = [part async for part in self._objects.stream(key, offset=offset, length=length)]
        content = b"".join(parts)
        if len(content) != length:
            raise _unknown(f"{key} is no safetensors file: it ends before its header does")
        return content


def _unknown(problem: str) -> InvalidError:
    return InvalidError.of("spec.base_model", problem, reason="BASE_MODEL_UNKNOWN")
