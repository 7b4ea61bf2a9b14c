"""What a fine-tune is put together from on the command line: a file or a preset, and fields."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.markup import escape

from finemesh import specfile
from finemesh.client import specs
from finemesh.client.cli.context import EXIT_USAGE, err, options
from finemesh.client.cli.output import choice, choices_of, enum_name
from finemesh.client.cli.paging import collect
from finemesh.specfile import SpecFile, SpecFileError
from finemesh.v1 import fine_tune_spec_pb2, model_family_pb2, preset_pb2, spec_finding_pb2
from finemesh.v1 import training_service_pb2 as pb

FineTuneSpec = fine_tune_spec_pb2.FineTuneSpec
Finding = spec_finding_pb2.SpecFinding
_TASKS: Final = choices_of(FineTuneSpec.Task)
_LEVELS: Final = choices_of(preset_pb2.Preset.Level)
LEVEL_WORDS: Final = tuple(_LEVELS)

SpecPath = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", help="Spec in YAML or JSON; `finemesh train schema` describes it.", dir_okay=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-o", help="A field of the spec, e.g. -o lora.rank=16; null is its default. Repeatable."
    ),
]
Model = Annotated[str, typer.Option(help="Base model: a hub id, a folder, or s3://bucket/prefix.")]
Dataset = Annotated[str, typer.Option(help="Id or full name of the dataset.")]
TaskWord = Annotated[
    str, typer.Option("--task", help=f"{' | '.join(_TASKS)}; a model in a folder tells by itself.")
]
Gpus = Annotated[
    float,
    typer.Option(help="GPUs to hold, or a share of one such as 0.5; bf16 then.", min=0, metavar="NUMBER"),
]
LEVELS: Final = f"{' | '.join(LEVEL_WORDS)}, or one of `finemesh train presets`"


@dataclass(frozen=True)
class Given:
    """What the command line says of a fine-tune besides fields one by one."""

    file: Path | None = None
    preset: str = ""
    model: str = ""
    dataset: str = ""
    task: str = ""
    gpus: float = 0

    def read(self, overrides: Sequence[str]) -> SpecFile:
        """What is said, and what follows from it. Ends the command if it cannot be read."""
        return _completed(self.said(overrides))

    def said(self, overrides: Sequence[str]) -> SpecFile:
        """What is said, with the places where. Ends the command if it cannot be read."""
        if self.file and self.preset:
            raise typer.BadParameter("give a file or a preset, not both", param_hint="--preset")
        try:
            start = specfile.read(self.file) if self.file else SpecFile()
            if self.preset:
                start = self._of_preset()
            return specfile.overridden(start, [*self._assignments(), *overrides])
        except SpecFileError as error:
            fail([str(error)])

    def _assignments(self) -> list[str]:
        said = {
            "base_model": json.dumps(self.model) if self.model else "",
            "dataset": json.dumps(self.dataset) if self.dataset else "",
            "task": enum_word(choice(self.task, _TASKS, "--task")) if self.task else "",
            "resources.gpus": f"{self.gpus:g}" if self.gpus else "",
            "precision": "BF16" if self.gpus else "",
        }
        return [f"{name}={value}" for name, value in said.items() if value]

    def _of_preset(self) -> SpecFile:
        name = f"presets/{self._preset_id()}"
        preset = options.connection().training.GetPreset(pb.GetPresetRequest(name=name))
        return specfile.parse(specs.to_yaml(preset.spec), name)

    def _preset_id(self) -> str:
        """What is given in full; else that of the model's family, or of the task if none is known."""
        if "-" in self.preset:
            return self.preset
        level = _word(_LEVELS, choice(self.preset, _LEVELS, "--preset"))
        task = choice(self.task, _TASKS, "--task") if self.task else 0
        families = [each for each in families_of(self.model) if task in (0, each.task)]
        if len(families) == 1:
            return f"{families[0].name.removeprefix('modelFamilies/')}-{level}"
        if not task:
            raise typer.BadParameter(
                f"there is a preset for each task: say which of {', '.join(_TASKS)}, give a model's folder, "
                f"or name the model's family: --preset llava-{level}",
                param_hint="--task",
            )
        return f"{_word(_TASKS, task)}-{level}"


def _completed(file: SpecFile) -> SpecFile:
    """`file`, with the task that its base model tells, and a core for each GPU."""
    said = [] if file.values.get("task") else [("task", task_of(str(file.values.get("base_model", ""))))]
    assignments = [f"{name}={enum_word(task)}" for name, task in said if task]
    resources = file.values.get("resources")
    held: dict[str, Any] = resources if isinstance(resources, dict) else {}
    gpus, cpus = held.get("gpus", 0), held.get("cpus", 1)
    if isinstance(gpus, int | float) and isinstance(cpus, int | float) and gpus > cpus:
        assignments.append(f"resources.cpus={math.ceil(gpus)}")
    return specfile.overridden(file, assignments)


def _word(words: Mapping[str, int], number: int) -> str:
    return next(word for word, each in words.items() if each == number)


def enum_word(task: int) -> str:
    return FineTuneSpec.Task.Name(task).removeprefix("TASK_")  # pyright: ignore[reportArgumentType]


def task_of(model: str) -> int:
    """The task of a model in a folder, by its family; 0 if nothing tells, or it can do several."""
    tasks = {family.task for family in families_of(model)}
    return tasks.pop() if len(tasks) == 1 else 0


def families_of(model: str) -> list[model_family_pb2.ModelFamily]:
    """The families that name the type of a model in a folder; none if nothing tells."""
    model_type = facts_of(model).model_type
    return [family for family in all_families() if model_type in family.model_types] if model_type else []


def all_families() -> list[model_family_pb2.ModelFamily]:
    request = pb.ListModelFamiliesRequest()
    return collect(
        options.connection().training.ListModelFamilies, request, lambda page: iter(page.model_families), 500
    )


def facts_of(model: str) -> spec_finding_pb2.BaseModelFacts:
    """What the config.json of a model in a folder says; nothing if it is elsewhere."""
    try:
        config: Any = json.loads((Path(model).expanduser() / "config.json").read_bytes())
        language = config.get("text_config") or config
        positions = language.get("max_position_embeddings")
        # Models of timm do not name their type.
        model_type = str(config.get("model_type") or ("timm_wrapper" if "pretrained_cfg" in config else ""))
    except (OSError, ValueError, AttributeError):
        return spec_finding_pb2.BaseModelFacts()
    return spec_finding_pb2.BaseModelFacts(
        model_type=model_type, max_positions=positions if isinstance(positions, int) else 0
    )


def to_message(file: SpecFile) -> FineTuneSpec:
    """As `specs.to_message`; ends the command if anything is wrong."""
    try:
        return specs.to_message(file)
    except specs.SpecError as error:
        fail([str(problem) for problem in error.problems])


def fail(problems: Sequence[str]) -> NoReturn:
    """Says what is wrong with the command line, and ends it."""
    for problem in problems:
        err.print(f"[red]error:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_USAGE)


def as_seen_from_here(spec: FineTuneSpec) -> FineTuneSpec:
    """`spec` with full names: on a node of the cluster a relative folder would be another."""
    connection = options.connection()
    if spec.dataset:
        spec.dataset = connection.name("datasets", spec.dataset)
    if spec.base_model.startswith(("./", "../", "~")):
        folder = Path(spec.base_model).expanduser().resolve()
        if not folder.is_dir():
            fail([f"base_model: {spec.base_model} is no folder here, which is what its name says"])
        spec.base_model = str(folder)
    return spec


def lint(spec: FineTuneSpec) -> pb.LintFineTuneSpecResponse:
    """What the mesh finds in `spec`."""
    request = pb.LintFineTuneSpecRequest(spec=spec, base_model=facts_of(spec.base_model))
    return options.connection().training.LintFineTuneSpec(request)


def described(finding: Finding, file: SpecFile) -> str:
    """A line for people, with markup: where, how bad, what."""
    severity = enum_name(finding, "severity").lower()
    colour = "red" if finding.severity == Finding.SEVERITY_ERROR else "yellow"
    place = file.place(finding.field)
    where = f"{escape(place)}: " if place else ""
    return f"{where}[{colour}]{severity}:[/] [bold]{finding.field}[/]: {escape(finding.message)}"


def is_error(finding: Finding) -> bool:
    return finding.severity == Finding.SEVERITY_ERROR
