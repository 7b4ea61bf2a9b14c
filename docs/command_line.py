"""docs/reference/cli.md: every command with what it does and an example, from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Final

import typer
from finemesh.client.cli.app import app
from finemesh.client.cli.context import EXIT_CODES
from finemesh.client.cli.examples import EXAMPLES

HEAD: Final = """# The command line

`finemesh --help` and `finemesh <noun> <verb> --help` say what there is, with defaults, units and examples.
Everywhere: `--json` (a stream prints a line per message), `--server`, `--project`, `--token-file`; before or
after the command. Shell completion: `finemesh --install-completion`. This page is generated from the commands
by `make docs`.

The connection is looked for in this order, each value by itself: options; `FINEMESH_SERVER`,
`FINEMESH_PROJECT`, `FINEMESH_TOKEN` or `FINEMESH_TOKEN_FILE`, `FINEMESH_CA_FILE`, `FINEMESH_NATS_URL`,
`FINEMESH_NATS_NKEY_FILE`; `[connection]` of `~/.config/finemesh/config.toml`; `.finemesh/mesh.json` of the
current folder, which `finemesh up` writes.

| exit code | meaning |
|---|---|
"""


def page() -> str:
    """The text of the page."""
    for plugin in entry_points(group="finemesh.commands"):
        plugin.load()(app)
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    return HEAD + codes + "".join(_sections())


def _commands() -> Iterator[tuple[str, str, typer.models.CommandInfo]]:
    """Noun, verb and definition of each; the noun is empty where there is none."""
    for command in app.registered_commands:
        yield "", command.name or "", command
    for group in app.registered_groups:
        for command in _app_of(group).registered_commands:
            yield _noun(group), command.name or "", command


def _sections() -> Iterator[str]:
    """A table per noun."""
    abouts: dict[str, Any] = {_noun(group): _app_of(group).info.help for group in app.registered_groups}
    shown = None
    for noun, verb, command in _commands():
        if noun != shown:
            shown = noun
            title, about = (f"`{noun}`", abouts[noun]) if noun else ("Without a noun", "On one machine.")
            yield f"\n## {title}\n\n{about}\n\n| command | what it does | for example |\n|---|---|---|\n"
        name = f"{noun} {verb}".strip()
        examples = "<br>".join(f"`{each.replace('|', chr(92) + '|')}`" for each in EXAMPLES[name])
        yield f"| `{name}` | {_first_sentences(command)} | {examples} |\n"


def _first_sentences(command: typer.models.CommandInfo) -> str:
    """The first paragraph of its help, on one line."""
    text = (command.callback.__doc__ or "") if command.callback else ""
    return " ".join(text.strip().split("\n\n")[0].split()).replace("|", "\\|")


def _noun(group: typer.models.TyperInfo) -> str:
    return group.name or str(_app_of(group).info.name)


def _app_of(group: typer.models.TyperInfo) -> typer.Typer:
    assert group.typer_instance
    return group.typer_instance
