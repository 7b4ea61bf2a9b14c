"""The registry of model families, as a page and as what the Training service answers from.

Services do not import the training room, so they read a file; it is the JSON of ListModelFamiliesResponse.
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any, Final

from finemesh.core.spec import codec
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune import families
from finemesh.finetune.families.family import Family
from finemesh.v1 import training_service_pb2 as pb
from google.protobuf import json_format

HEAD: Final = """# Model families

What can be fine-tuned. A model belongs to a family by `model_type` in its config.json, whether it comes from
a hub, a folder or S3. `finemesh models list` shows them all, `finemesh models show llava` one, and
`finemesh models show ./folder` the one of a model. A family is a small file in
`ray_cluster/finemesh/finetune/families`.

Adapters go onto the layers of the language model that are named here, unless `lora.towers` asks for other
parts or `lora.target_modules` names other layers.

This page is generated from the registry by `make docs`.
"""


def document() -> str:
    """JSON of all families, in the order in which they are asked for a model."""
    message = pb.ListModelFamiliesResponse()
    json_format.ParseDict({"model_families": [_told(each) for each in families.FAMILIES]}, message)
    told = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """The page of all families."""
    return HEAD + "".join(_section(family) for family in families.FAMILIES)


def _told(family: Family) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": f"modelFamilies/{family.name}",
        "description": _description(family),
        "task": f"TASK_{family.task}",
        "model_types": list(family.model_types),
        "auto_class": family.auto_class,
        "parts": [
            {
                "tower": f"TOWER_{tower}",
                "module_prefixes": list(prefixes),
                "lora_targets": list(family.lora_targets.get(tower, ())),
            }
            for tower, prefixes in family.towers.items()
        ],
        "methods": _methods(family),
        "quirks": list(family.quirks),
    }
    if family.box_convention:
        told["box_convention"] = f"BOX_CONVENTION_{family.box_convention.name}"
    return told


def _methods(family: Family) -> list[str]:
    adapts = not family.detector or family.detector.adapts
    return [arm for arm in codec.arms(codec.type_hints(FineTuneSpec)["method"]) if adapts or arm != "lora"]


def _description(family: Family) -> str:
    """The first sentence of the docstring of the family's module."""
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{families.__name__}.")]
    home = next(module for module in modules if _is_home(module, family))
    return " ".join((inspect.getdoc(home) or "").split("\n\n")[0].split())


def _is_home(module: Any, family: Family) -> bool:
    """Whether the module makes the family, and not only imports it."""
    named = [name for name, value in vars(module).items() if value is family]
    return bool(named) and f"{named[0]}: Final = " in inspect.getsource(module)


def _section(family: Family) -> str:
    types = ", ".join(f"`{each}`" for each in family.model_types) or "any"
    rows = [
        ("task", family.task.value),
        ("`model_type`", types),
        ("loaded by", f"`{family.auto_class}`"),
        ("methods", ", ".join(_methods(family))),
        ("presets", f"[quick, balanced, quality](presets.md#{family.name.replace('.', '')})"),
    ]
    if family.box_convention:
        rows.append(("boxes in its texts", family.box_convention.value))
    facts = "".join(f"| {name} | {value} |\n" for name, value in rows)
    parts = "".join(
        f"| {tower.value.lower()} | {_listed(prefixes)} | {_listed(family.lora_targets.get(tower, ()))} |\n"
        for tower, prefixes in family.towers.items()
    )
    quirks = "".join(f"- {quirk}\n" for quirk in family.quirks)
    return (
        f"\n## {family.name}\n\n{_description(family)}\n\n| | |\n|---|---|\n{facts}\n"
        f"| part | modules | adapted by default, where the part is |\n|---|---|---|\n{parts}"
        + (f"\n{quirks}" if quirks else "")
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names if name) or "all"
