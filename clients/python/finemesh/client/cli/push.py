"""`finemesh export push`: a package, carried on to where models are served."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, err, options, out
from finemesh.client.cli.exports import ExportId, commands, download_folder, list_files
from finemesh.client.cli.output import print_json
from finemesh.client.figures import size
from finemesh.client.pushing import PushError, Target, check, push, wanted_there


@commands("push")
def push_export(
    export: ExportId,
    target: Annotated[
        str, typer.Argument(help="ollama://HOST[:PORT]/NAME | hub://OWNER/NAME | s3://BUCKET/PREFIX")
    ],
    *,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the package is, or is to stay. Default: a folder for the while."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Send it to the hub; else only say what would be sent there.")
    ] = False,
) -> None:
    """Carry a released package on to a running Ollama, the Hugging Face hub or an S3 bucket.

    The hub reads HF_TOKEN, S3 reads AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    try:
        place = Target.of(target)
        if place.scheme != "hub" or yes:
            check(place)
        with tempfile.TemporaryDirectory() as scratch:
            package = folder or Path(scratch)
            files = list_files(options.connection().name("exports", export))
            sizes = {file.path: file.size_bytes for file in files}
            wanted = wanted_there(sizes, place)
            if place.scheme == "hub" and not yes:
                _print_plan(target, {name: sizes[name] for name in wanted})
                return
            download_folder(files, package, resume=True)
            where = push(package, place, lambda path: err.print(f"sending {path}", highlight=False))
    except PushError as error:
        err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
    if options.json:
        print_json({"target": where})
    else:
        out.print(where, highlight=False)


def _print_plan(target: str, sizes: Mapping[str, int]) -> None:
    total = sum(sizes.values())
    if options.json:
        print_json({"target": target, "files": [*sizes], "sizeBytes": str(total), "sent": False})
        return
    for name, count in sizes.items():
        out.print(f"{size(count):>10}  {name}", highlight=False)
    out.print(f"{size(total)} would go to {target}, as a private model: say --yes", highlight=False)
