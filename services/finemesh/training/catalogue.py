"""The part of `finemesh.v1.TrainingService` that knows no project: presets, model families, the linter."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar

from google.protobuf import json_format

from finemesh.chassis.auth import Role, current_principal
from finemesh.chassis.fine_tune_spec import document_of, spec_to_proto
from finemesh.chassis.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.finetune import Tower
from finemesh.core.spec.lint import BaseModelFacts, Report, lint_document
from finemesh.core.spec.presets import PRESETS, Preset, preset_of
from finemesh.v1 import fine_tune_spec_pb2, model_family_pb2, preset_pb2, spec_finding_pb2
from finemesh.v1 import training_service_pb2 as pb
from finemesh.v1.training_service_pb2_grpc import TrainingServiceServicer

# Written by `make docs` from the registry of the training room, which services do not import.
_FAMILIES_FILE: Final = "model_families.json"

T = TypeVar("T")


class CatalogueServicer(TrainingServiceServicer):
    """Whoever has a token may read it."""

    async def LintFineTuneSpec(
        self, request: pb.LintFineTuneSpecRequest, context: Any
    ) -> pb.LintFineTuneSpecResponse:
        current_principal().require_role(Role.VIEWER)
        known = request.base_model
        facts = BaseModelFacts(known.model_type, known.max_positions, _layers(known.model_type))
        return _report_to_proto(lint_document(document_of(request.spec), facts))

    async def GetPreset(self, request: pb.GetPresetRequest, context: Any) -> preset_pb2.Preset:
        current_principal().require_role(Role.VIEWER)
        return _preset_to_proto(preset_of(_id(request.name, "presets")))

    async def ListPresets(self, request: pb.ListPresetsRequest, context: Any) -> pb.ListPresetsResponse:
        current_principal().require_role(Role.VIEWER)
        page, token = _page(PRESETS, request)
        return pb.ListPresetsResponse(
            presets=[_preset_to_proto(preset) for preset in page], next_page_token=token
        )

    async def GetModelFamily(
        self, request: pb.GetModelFamilyRequest, context: Any
    ) -> model_family_pb2.ModelFamily:
        current_principal().require_role(Role.VIEWER)
        _id(request.name, "modelFamilies")
        for family in families():
            if family.name == request.name:
                return family
        known = ", ".join(family.name.partition("/")[2] for family in families())
        raise NotFoundError(
            f"there is no {request.name}: the families are {known}", reason="FAMILY_NOT_FOUND"
        )

    async def ListModelFamilies(
        self, request: pb.ListModelFamiliesRequest, context: Any
    ) -> pb.ListModelFamiliesResponse:
        current_principal().require_role(Role.VIEWER)
        page, token = _page(families(), request)
        return pb.ListModelFamiliesResponse(model_families=page, next_page_token=token)


@cache
def families() -> tuple[model_family_pb2.ModelFamily, ...]:
    """The registry, in its order: the first that fits a model takes it."""
    text = resources.files("finemesh.training").joinpath(_FAMILIES_FILE).read_text()
    return tuple(json_format.Parse(text, pb.ListModelFamiliesResponse()).model_families)


def _layers(model_type: str) -> dict[Tower, tuple[str, ...]]:
    """The linear layers that the family of a type of model knows, by part; none of a type that none names."""
    for family in families():
        if model_type in family.model_types:
            return {_tower(part.tower): tuple(part.lora_targets) for part in family.parts}
    return {}


def _tower(number: fine_tune_spec_pb2.Tower) -> Tower:
    return Tower(fine_tune_spec_pb2.Tower.Name(number).removeprefix("TOWER_"))


def _id(name: str, collection: str) -> str:
    """The id in `{collection}/{id}`. Raises InvalidError."""
    head, _, found = name.partition("/")
    if head != collection or not found:
        raise InvalidError.of("name", f"{name!r} is none: write {collection}/{{id}}", reason="MALFORMED_NAME")
    return found


def _page(items: Sequence[T], request: Any) -> tuple[Sequence[T], str]:
    """A page of what never changes while the service runs: a token is where the next one starts."""
    if request.page_size < 0:
        raise InvalidError.of("page_size", f"{request.page_size} is negative: use 0 for the default")
    token: str = request.page_token
    if token and not (token.isascii() and token.isdigit() and int(token) < len(items)):
        raise InvalidError.of(
            "page_token",
            "not a token of ours: pass the next_page_token of the page before, unchanged",
            reason="MALFORMED_PAGE_TOKEN",
        )
    start = int(token or 0)
    end = start + min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    return items[start:end], str(end) if end < len(items) else ""


def _preset_to_proto(preset: Preset) -> preset_pb2.Preset:
    spec = spec_to_proto(preset.spec)
    return preset_pb2.Preset(
        name=f"presets/{preset.id}", level=f"LEVEL_{preset.level}", description=preset.description, spec=spec
    )


def _report_to_proto(report: Report) -> pb.LintFineTuneSpecResponse:
    findings = [
        spec_finding_pb2.SpecFinding(
            severity=f"SEVERITY_{each.severity}", field=each.field, message=each.message
        )
        for each in report.findings
    ]
    return pb.LintFineTuneSpecResponse(
        findings=findings, spec=spec_to_proto(report.spec) if report.spec else None
    )
