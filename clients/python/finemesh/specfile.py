"""Files that people write for Finemesh: YAML, where every field knows its line.

The command line and the training room read the same files and share nothing else, so this stands by itself:
it imports no other part of Finemesh. YAML is that of version 1.2, core schema
(https://yaml.org/spec/1.2.2, 10.3): `2e-4` is a number, `no` a text, and JSON is YAML too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import yaml

# A path may be given as requests, errors and lists of parameters write it.
_HEADS: Final = ("training_job.", "spec.", "training.", "method.")
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_RESOLVERS: Final = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class SpecFileError(ValueError):
    """What was given is not YAML, or not a mapping. The message says where."""


@dataclass(frozen=True, slots=True)
class SpecFile:
    """What was read.

    Attributes:
        values: mappings, lists, texts, numbers, booleans and None.
        places: where each field was said, by its path: `spec.yaml:12`, or `-o lora.rank=8`.
    """

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    places: dict[str, str] = field(default_factory=dict[str, str])

    def place(self, path: str) -> str:
        """Where `path`, or else the nearest field above it, was said; empty if nowhere."""
        while path and path not in self.places:
            path = re.sub(r"(\.|\[|^)[^.\[]*$", "", path)
        return self.places.get(path, "")


def read(path: Path) -> SpecFile:
    """The file at `path`. Raises SpecFileError."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise SpecFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecFileError(f"{path} cannot be read: {error}") from error


def parse(text: str, source: str) -> SpecFile:
    """One YAML document. `source` names it in places. Raises SpecFileError."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return SpecFile()
        if not isinstance(node, yaml.MappingNode):
            raise SpecFileError(f"{source} holds no fields: write `task: LANGUAGE` and so on, a line each")
        places: dict[str, str] = {}
        return SpecFile(_value(loader, node, "", source, places), places)
    except SpecFileError:
        raise
    except yaml.MarkedYAMLError as error:
        where = f"{source}:{error.problem_mark.line + 1}" if error.problem_mark else source
        raise SpecFileError(f"{where} is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecFileError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()


def overridden(file: SpecFile, assignments: list[str]) -> SpecFile:
    """`file` with fields set by `path=value`; the value is YAML, nothing is the empty text, null the default.

    Raises:
        SpecFileError: an assignment is none, or sets a field below one that has no fields.
    """
    values, places = _copied(file.values), dict(file.places)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        path = short_path(name.strip())
        if not equals or not _PATH.fullmatch(path):
            raise SpecFileError(f"-o {assignment}: write field=value, e.g. -o lora.rank=16")
        value = parse(f"value: {text}", f"-o {assignment}").values["value"] if text else ""
        *parents, leaf = path.split(".")
        target = values
        for index, parent in enumerate(parents):
            inner = target.setdefault(parent, {})
            if inner is None:
                inner = target[parent] = {}
            if not isinstance(inner, dict):
                raise SpecFileError(f"-o {assignment}: {parent} is {inner!r}, which has no fields")
            target = cast("dict[str, Any]", inner)
            places.setdefault(".".join(parents[: index + 1]), f"-o {assignment}")
        if value is None:
            target.pop(leaf, None)
        else:
            target[leaf] = value
        places[path] = f"-o {assignment}"
    return SpecFile(values, places)


def short_path(path: str) -> str:
    """A path as files have it: `training_job.spec.lora.rank` is `lora.rank`."""
    for head in _HEADS:
        path = path.removeprefix(head)
    return path


def dump(values: dict[str, Any], heading: str = "") -> str:
    """The file that says `values`, after a comment. `parse` reads the same values from it."""
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return "".join(f"# {line}\n" for line in heading.splitlines()) + text


def _value(loader: _Loader, node: yaml.Node, path: str, source: str, places: dict[str, str]) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, f"{path}[{i}]", source, places) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise SpecFileError(f"{source}:{line} has a name that is no text")
        if key in values:
            raise SpecFileError(f"{source}:{line} says {key} again: keep one of the two")
        inner = f"{path}.{key}" if path else key
        places[inner] = source if source.startswith("-o ") else f"{source}:{line}"
        values[key] = _value(loader, value_node, inner, source, places)
    return values


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in cast("dict[str, Any]", value).items()}
    return value


class _Loader(yaml.SafeLoader):
    """With the numbers, booleans and nulls of YAML 1.2 alone."""

    yaml_implicit_resolvers: Final = {}  # pyright: ignore[reportIncompatibleVariableOverride]


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would take for something else; writes lists in a line."""

    yaml_implicit_resolvers: Final = {  # pyright: ignore[reportIncompatibleVariableOverride]
        first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def in_a_line(self, data: list[Any]) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text: str = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


for _name, (_pattern, _first) in _RESOLVERS.items():
    _tag = f"tag:yaml.org,2002:{_name}"
    _regexp = re.compile(rf"(?:{_pattern})\Z")
    _starts = ["" if each == "\0" else each for each in _first]
    _Loader.add_implicit_resolver(_tag, _regexp, _starts)
    _Dumper.add_implicit_resolver(_tag, _regexp, _starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Dumper.add_representer(list, _Dumper.in_a_line)
