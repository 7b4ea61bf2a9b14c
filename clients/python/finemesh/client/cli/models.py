"""`finemesh models`: what can be fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client.cli.context import Commands, options, out
from finemesh.client.cli.output import enum_name, print_facts, print_json, print_list, short, table
from finemesh.client.cli.specs import LEVEL_WORDS, all_families, facts_of, families_of
from finemesh.v1 import model_family_pb2, preset_pb2
from finemesh.v1 import training_service_pb2 as pb

commands = Commands("models", "See which models can be fine-tuned.")

Family = model_family_pb2.ModelFamily


@commands("list")
def list_families() -> None:
    """List the families of models, in the order in which they are asked for a model."""
    print_list(
        all_families(),
        ("family", "task", "model types", "parts", "boxes"),
        lambda family: (
            short(family.name),
            _task(family),
            escape(", ".join(family.model_types) or "any"),
            ", ".join(enum_name(part, "tower").lower() for part in family.parts),
            _boxes(family),
        ),
        "no families",
    )


@commands("show")
def show(
    model: Annotated[str, typer.Argument(help="Name of a family, or folder of a model.")],
) -> None:
    """Show a family, or the families that take the model of a folder."""
    if Path(model).expanduser().is_dir():
        found = _families_of(model)
    elif "/" in model.removeprefix("modelFamilies/"):
        raise typer.BadParameter(
            f"there is no folder {model}; give a folder, or a name of `finemesh models list`"
        )
    else:
        name = f"modelFamilies/{model.removeprefix('modelFamilies/')}"
        found = [options.connection().training.GetModelFamily(pb.GetModelFamilyRequest(name=name))]
    if options.json:
        print_json(found[0] if len(found) == 1 else found)
        return
    for family in found:
        _print(family)


def _families_of(folder: str) -> list[Family]:
    """The families that name the type of the model in `folder`, or else those that take any."""
    if not facts_of(folder).model_type:
        raise typer.BadParameter(f"{folder} has no config.json with a model_type: give the folder of a model")
    return families_of(folder) or [family for family in all_families() if not family.model_types]


def _print(family: Family) -> None:
    print_facts(
        [
            ("family", short(family.name)),
            ("what", escape(family.description)),
            ("task", _task(family)),
            ("model types", escape(", ".join(family.model_types) or "any")),
            ("loaded by", family.auto_class),
            ("methods", ", ".join(family.methods)),
            ("boxes", _boxes(family)),
            *(("note" if not index else "", escape(quirk)) for index, quirk in enumerate(family.quirks)),
        ]
    )
    rows = [
        (enum_name(part, "tower").lower(), _listed(part.module_prefixes), _listed(part.lora_targets))
        for part in family.parts
    ]
    out.print(table(("part", "modules", "adapted by default"), rows))
    presets = [_preset(family, level) for level in LEVEL_WORDS]
    out.print(
        table(
            ("preset", "what it chooses"), [(short(each.name), escape(each.description)) for each in presets]
        )
    )


def _preset(family: Family, level: str) -> preset_pb2.Preset:
    request = pb.GetPresetRequest(name=f"presets/{short(family.name)}-{level}")
    return options.connection().training.GetPreset(request)


def _listed(names: object) -> str:
    return escape(", ".join(name for name in list(names) if name) or "all")  # pyright: ignore[reportArgumentType, reportCallIssue]


def _task(family: Family) -> str:
    return enum_name(family, "task").lower().replace("_", "-")


def _boxes(family: Family) -> str:
    return enum_name(family, "box_convention").lower() if family.HasField("box_convention") else ""
