"""`finemesh train lint`, `schema`, `preset`, `presets`, `spec`: fine-tunes as files."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client import specs
from finemesh.client.cli.context import EXIT_FAILED, options, out
from finemesh.client.cli.output import enum_name, print_json, print_list, print_text, short, to_json
from finemesh.client.cli.paging import collect
from finemesh.client.cli.specs import (
    LEVELS,
    Dataset,
    Given,
    Gpus,
    Model,
    Overrides,
    SpecPath,
    TaskWord,
    as_seen_from_here,
    described,
    is_error,
    lint,
    to_message,
)
from finemesh.client.cli.training import JobId, commands
from finemesh.v1 import training_service_pb2 as pb
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec

AGAIN = "Run it again: finemesh train submit -f FILE, with -o field=value for what shall differ."


@commands("lint")
def lint_spec(
    spec_file: SpecPath = None,
    overrides: Overrides = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
) -> None:
    """Say what is wrong with a spec, and what is likely a mistake. Exit code 1 if it would be refused."""
    file = Given(file=spec_file).read(overrides or [])
    response = lint(as_seen_from_here(to_message(file)))
    errors = sum(is_error(finding) for finding in response.findings)
    if options.json:
        found = [{**to_json(each), "place": file.place(each.field)} for each in response.findings]
        print_json({"findings": found, "spec": to_json(response.spec)})
    else:
        for finding in response.findings:
            out.print(described(finding, file), highlight=False, soft_wrap=True)
        counted = f"errors: {errors}, warnings: {len(response.findings) - errors}"
        out.print(counted if response.findings else "[green]nothing to complain about[/]", highlight=False)
    if errors or (strict and response.findings):
        raise typer.Exit(EXIT_FAILED)


@commands("schema")
def schema() -> None:
    """Print the JSON schema of spec files.

    Editors complete and check by it: save it beside a spec, and begin the spec with the line
    `# yaml-language-server: $schema=fine-tune-spec.schema.json`.
    """
    print_text(specs.schema())


@commands("presets")
def list_presets() -> None:
    """List the presets of all tasks."""
    found = collect(
        options.connection().training.ListPresets,
        pb.ListPresetsRequest(),
        lambda page: iter(page.presets),
        500,
    )
    print_list(
        found,
        ("preset", "task", "what it chooses"),
        lambda preset: (
            enum_name(preset, "level").lower(),
            enum_name(preset.spec, "task").lower().replace("_", "-"),
            escape(preset.description),
        ),
        "no presets",
    )


@commands("preset")
def preset(
    level: Annotated[str, typer.Argument(help=LEVELS)],
    task: TaskWord = "",
    model: Model = "",
    dataset: Dataset = "",
    gpus: Gpus = 0,
    overrides: Overrides = None,
) -> None:
    """Print a preset as a spec file, every value written out."""
    given = Given(preset=level, task=task, model=model, dataset=dataset, gpus=gpus)
    print_spec(
        to_message(given.read(overrides or [])), f"Preset {level}. Train: finemesh train submit -f FILE"
    )


@commands("spec")
def spec(job: JobId) -> None:
    """Print what a job was started from, as a spec file that starts the same again."""
    connection = options.connection()
    name = connection.name("trainingJobs", job)
    found = connection.training.GetTrainingJob(pb.GetTrainingJobRequest(name=name))
    print_spec(found.spec, f"Job {short(found.name)}. {AGAIN}")


def print_spec(message: FineTuneSpec, heading: str) -> None:
    """A spec as YAML, or as JSON."""
    if options.json:
        print_json(message)
    else:
        print_text(specs.to_yaml(message, heading))
