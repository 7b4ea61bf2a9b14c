"""A fine-tune as people write it down: the message `finemesh.v1.FineTuneSpec` in plain values.

Names are those of the message. A document differs from what `FineTuneSpec.to_dict` writes in one thing: the
arms of a choice stand beside the other fields, `lora: {rank: 8}`; `method: {lora: {rank: 8}}` is understood
too. Enums are written as in the message or without its prefix, in any case. What is left out, or empty, means
its default; a zero means zero.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.spec import codec
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, Task, Tower, towers_of

Document = Mapping[str, Any]

# What a field that must be there is while the rest is checked.
_STAND_IN: Final = FineTuneSpec(Task.VISION_LANGUAGE, "", "")


def read(document: Document, path: str = "spec") -> FineTuneSpec:
    """The checked value of `document`, every default filled in.

    Args:
        document: plain values: mappings, lists, texts, numbers, booleans.
        path: where it lies in a request, e.g. `training_job.spec`; starts the path of every violation, and
            may be empty.

    Raises:
        InvalidError: reason INVALID_SPEC, with everything that is wrong at once.
    """
    shaped = _shaped(FineTuneSpec, document)
    violations: list[FieldViolation] = []
    if "method" not in shaped:
        arms = ", ".join(codec.arms(codec.type_hints(FineTuneSpec)["method"]))
        violations.append(
            FieldViolation("spec.method", f"is not set: write exactly one of the fields {arms}")
        )
    # Without a method the rest is checked with one that suits the task: it is not blamed for what it is not.
    whole = {"base_model": "", "dataset": "", **_told_by_others({"method": {"lora": {}}, **shaped})}
    try:
        spec = codec.decode(FineTuneSpec, whole, "spec")
    except InvalidError as error:
        violations += error.violations
        spec = _soundest(whole, violations)
    if spec is not None:
        said = {violation.field for violation in violations}
        violations += [each for each in _sound(spec) if each.field not in said]
    if violations or spec is None:
        placed = [
            FieldViolation((path + _in_document(v.field)).lstrip("."), v.description) for v in violations
        ]
        listed = "; ".join(f"{v.field}: {v.description}" for v in placed)
        raise InvalidError(listed, violations=placed, reason="INVALID_SPEC")
    return spec


def write(spec: FineTuneSpec) -> dict[str, Any]:
    """The document that says what `spec` says, nothing left to defaults. `read` is its inverse."""
    return _flat(FineTuneSpec, spec.to_dict())


def _shaped(cls: type[Any], document: Document) -> dict[str, Any]:
    """`document` as `codec` takes it: each choice an object of its own, without what says nothing."""
    hints, arms = codec.type_hints(cls), _arms(cls)
    given = dict(document)
    for choice, _ in arms.values():
        if isinstance(given.get(choice), Mapping):  # `method: {lora: ...}`
            inner = given.pop(choice)
            given |= {arm: _merged(inner[arm], given.get(arm)) for arm in inner}
    shaped: dict[str, Any] = {}
    for key, value in given.items():
        if key in arms:
            choice, kind = arms[key]
            shaped[choice] = {**shaped.get(choice, {}), key: _inside(kind, value)}
        elif codec.is_message(hints.get(key)):
            shaped[key] = _inside(hints[key], value)
        elif value not in (None, [], ()):
            shaped[key] = value
    return shaped


@functools.cache
def _arms(cls: type[Any]) -> dict[str, tuple[str, type[Any]]]:
    """The arms of the choices of a message: each with the choice and its own class."""
    hints = codec.type_hints(cls)
    return {arm: (name, kind) for name, hint in hints.items() for arm, kind in codec.arms(hint).items()}


def _merged(value: Any, over: Any) -> Any:
    return {**value, **over} if isinstance(value, Mapping) and isinstance(over, Mapping) else over or value


def _inside(kind: Any, value: Any) -> Any:
    """What a field that is a message holds; nothing at all is a message with its defaults."""
    if value is None:
        return {}
    return _shaped(kind, cast("Document", value)) if isinstance(value, Mapping) else value


def _told_by_others(shaped: dict[str, Any]) -> dict[str, Any]:
    """`shaped` with the defaults that other fields decide."""
    method = cast("dict[str, Any]", shaped["method"]) if isinstance(shaped.get("method"), dict) else {}
    lora, full = method.get("lora"), method.get("full")
    if isinstance(lora, dict) and isinstance(lora.get("rank"), int):
        method = {**method, "lora": {"alpha": 2.0 * max(lora["rank"], 1), **lora}}
    task = next((each for each in Task if codec.same_word(str(shaped.get("task")), each, Task)), None)
    if isinstance(full, dict) and task is Task.VISION_LANGUAGE:
        method = {**method, "full": {"towers": [Tower.LANGUAGE, Tower.CONNECTOR], **full}}
    if task and task not in TEXT_TOWERS:
        towers = list(towers_of(task))
        if isinstance(lora, dict):
            method = {**method, "lora": {"towers": towers[:-1], **method["lora"]}}  # all but the head
        if isinstance(full, dict):
            method = {**method, "full": {"towers": towers, **full}}
    return {**shaped, "method": method} if method else shaped


def _soundest(document: dict[str, Any], violations: list[FieldViolation]) -> FineTuneSpec | None:
    """The value of `document` without the fields that are already known to be wrong, to check the others."""
    rest = {"task": _STAND_IN.task, **document}
    for violation in violations:
        rest = _without(rest, re.findall(r"\w+", violation.field)[1:])
    try:
        return codec.decode(FineTuneSpec, {**codec.encode(_STAND_IN), **rest}, "spec")
    except InvalidError:
        return None


def _without(value: Any, path: list[str]) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(value, dict) and key in value:
        mapping = cast("dict[str, Any]", value)
        kept = {name: each for name, each in mapping.items() if name != key}
        return {**mapping, key: _without(mapping[key], rest)} if rest else kept
    if isinstance(value, list):
        return [each for index, each in enumerate(cast("list[Any]", value)) if str(index) != key]
    return value


def _sound(spec: FineTuneSpec) -> list[FieldViolation]:
    try:
        spec.validate()
    except InvalidError as error:
        return error.violations
    return []


def _in_document(field: str) -> str:
    """`spec.method.lora.rank` -> `.lora.rank`."""
    _, name, *inner = field.split(".")
    choice = inner and codec.arms(codec.type_hints(FineTuneSpec).get(name))
    return "".join(f".{part}" for part in (inner if choice else [name, *inner]))


def _flat(cls: type[Any], value: dict[str, Any]) -> dict[str, Any]:
    """What `codec.encode` wrote, with the arms of choices beside the other fields."""
    flat: dict[str, Any] = {}
    for name, hint in codec.type_hints(cls).items():
        inner = codec.arms(hint)
        if inner:
            flat |= {arm: _flat(inner[arm], each) for arm, each in value[name].items()}
        elif codec.is_message(hint):
            flat[name] = _flat(cast("type[Any]", hint), value[name])
        elif value[name] is not None:
            flat[name] = value[name]
    return flat
