"""Every command teaches by an example, and every example is one that the command would take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from finemesh.client.cli import context
from finemesh.client.cli.app import app
from finemesh.client.cli.examples import EXAMPLES, add_to


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that is no group, by its words."""
    for name, each in getattr(command, "commands", {}).items():
        yield from leaves(each, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    for plugin in entry_points(group="finemesh.commands"):
        plugin.load()(app)
    add_to(app)
    return dict(leaves(typer.main.get_command(app)))


def test_every_command_has_an_example_in_its_help(commands: dict[str, Any]) -> None:
    assert EXAMPLES.keys() == commands.keys()
    assert not [name for name, command in commands.items() if EXAMPLES[name][0] not in (command.epilog or "")]


@pytest.mark.parametrize("example", [each for texts in EXAMPLES.values() for each in texts])
def test_every_example_is_one_that_its_command_takes(commands: dict[str, Any], example: str) -> None:
    """Its options exist and its arguments are as many as the command wants; files need not be there."""
    words = shlex.split(example.split(" > ", maxsplit=1)[0])[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in commands else words[0]
    command = commands[name]
    values, left, _order = command.make_parser(typer.Context(command)).parse_args(words[len(name.split()) :])
    missing = [each.name for each in command.params if each.required and values.get(each.name) is None]
    assert (left, missing) == ([], [])


def test_what_messages_tell_to_type_is_a_command(commands: dict[str, Any]) -> None:
    known = {*commands, *(name.split()[0] for name in commands)}
    told = {
        found.group(1).strip()
        for path in Path(context.__file__).parent.glob("*.py")
        for found in re.finditer(r"`finemesh ([a-z]+(?: [a-z-]+)?)", path.read_text(encoding="utf-8"))
    }
    assert len(told) > 10
    assert not [words for words in told if words not in known and words.split()[0] not in commands]
