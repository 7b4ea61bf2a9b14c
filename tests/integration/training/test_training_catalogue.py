"""What the service knows without a project: presets, model families, and what a linter says."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from finemesh.chassis.auth import Role
from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.presets import PRESETS
from finemesh.v1 import fine_tune_spec_pb2, spec_finding_pb2
from finemesh.v1 import training_service_pb2 as pb

from tests.support.services import ServiceProcess
from tests.support.training_client import TrainingClient

pytestmark = pytest.mark.integration
Severity = spec_finding_pb2.SpecFinding.Severity


@pytest.fixture
async def viewer(service: ServiceProcess, client: TrainingClient) -> AsyncGenerator[TrainingClient]:
    made = TrainingClient(service.address, service.key, client.project, Role.VIEWER)
    yield made
    await made.channel.close()


async def test_lists_come_page_by_page(viewer: TrainingClient) -> None:
    names: list[str] = []
    request = pb.ListPresetsRequest(page_size=40)
    while True:
        page = await viewer.call("ListPresets", request)
        assert len(page.presets) <= 40
        names += [preset.name for preset in page.presets]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert names == [f"presets/{preset.id}" for preset in PRESETS]
    for token in ("-1", "999", "x"):
        with pytest.raises(InvalidError) as refused:
            await viewer.call("ListPresets", pb.ListPresetsRequest(page_token=token))
        assert refused.value.reason == "MALFORMED_PAGE_TOKEN"


async def test_what_is_listed_can_be_got(viewer: TrainingClient) -> None:
    families = (await viewer.call("ListModelFamilies", pb.ListModelFamiliesRequest())).model_families
    llava = await viewer.call("GetModelFamily", pb.GetModelFamilyRequest(name="modelFamilies/llava"))
    assert llava in families
    assert list(llava.model_types) == ["llava"]
    preset = await viewer.call("GetPreset", pb.GetPresetRequest(name="presets/language-quick"))
    assert preset.spec.lora.rank == 8
    for method, request, reason in (
        ("GetPreset", pb.GetPresetRequest(name="presets/none"), "PRESET_NOT_FOUND"),
        ("GetModelFamily", pb.GetModelFamilyRequest(name="modelFamilies/none"), "FAMILY_NOT_FOUND"),
    ):
        with pytest.raises(NotFoundError) as missing:
            await viewer.call(method, request)
        assert missing.value.reason == reason
    with pytest.raises(InvalidError, match="modelFamilies"):
        await viewer.call("GetModelFamily", pb.GetModelFamilyRequest(name="llava"))


async def test_a_spec_is_judged_and_completed(viewer: TrainingClient) -> None:
    spec = fine_tune_spec_pb2.FineTuneSpec(
        task="TASK_LANGUAGE", base_model="m", dataset="projects/p/datasets/d"
    )
    refused = await viewer.call("LintFineTuneSpec", pb.LintFineTuneSpecRequest(spec=spec))
    assert [(each.severity, each.field) for each in refused.findings] == [(Severity.SEVERITY_ERROR, "method")]
    assert not refused.HasField("spec")
    spec.lora.SetInParent()
    facts = spec_finding_pb2.BaseModelFacts(max_positions=1024)
    judged = await viewer.call("LintFineTuneSpec", pb.LintFineTuneSpecRequest(spec=spec, base_model=facts))
    found = {each.field: each for each in judged.findings}
    assert found.keys() == {"sequence.max_tokens", "evaluation.every_steps"}
    assert "1024 positions" in found["sequence.max_tokens"].message
    assert judged.spec.lora.alpha == 32


async def test_layers_that_a_family_has_not_are_named(viewer: TrainingClient) -> None:
    spec = fine_tune_spec_pb2.FineTuneSpec(
        task="TASK_LANGUAGE", base_model="m", dataset="projects/p/datasets/d"
    )
    spec.lora.target_modules.append("q_prj")
    facts = spec_finding_pb2.BaseModelFacts(model_type="phi3")
    judged = await viewer.call("LintFineTuneSpec", pb.LintFineTuneSpecRequest(spec=spec, base_model=facts))
    [said] = [each.message for each in judged.findings if each.field == "lora.target_modules"]
    assert "qkv_proj, o_proj, gate_up_proj, down_proj" in said
