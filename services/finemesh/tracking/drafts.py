"""What callers may say about a run: when they create it, and later."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from finemesh.core.errors import FieldViolation, InvalidError, PreconditionError
from finemesh.core.labels import describe_violations
from finemesh.core.names import Name, parse_name
from finemesh.tracking.domain import Run

MAX_PARAMS: Final = 1_000
MAX_PARAM_LENGTH: Final = 4_096
MAX_TAGS: Final = 100
MAX_TAG_LENGTH: Final = 200
MAX_NOTES_LENGTH: Final = 65_536
MAX_LINEAGE_ENTRIES: Final = 2_000
MAX_LINEAGE_LENGTH: Final = 4_096

# What people may change of any run, and what only of a run of another program.
FOR_PEOPLE: Final = frozenset({"display_name", "labels", "tags", "notes", "experiment", "parent_run"})
OF_PROGRAMS: Final = frozenset({"params", "lineage", "start_time"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a caller says about a run; the fields are those of `Run`."""

    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Sequence[str] = ()
    notes: str = ""
    experiment: str = ""
    parent_run: str = ""
    lineage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    start_time: datetime | None = None

    def check(self, name: Name) -> None:
        """Raises InvalidError naming every field that is malformed or too long."""
        violations = list(self._violations(name))
        if violations:
            listed = "; ".join(f"{each.field}: {each.description}" for each in violations)
            raise InvalidError(listed, violations=violations, reason="INVALID_RUN")

    def _violations(self, name: Name) -> Iterator[FieldViolation]:
        yield from describe_violations(self.display_name, self.labels, "run")
        if len(self.params) > MAX_PARAMS:
            yield FieldViolation("run.params", f"has more than {MAX_PARAMS} entries")
        if any(len(part) > MAX_PARAM_LENGTH for entry in self.params.items() for part in entry):
            yield FieldViolation("run.params", f"has a text of over {MAX_PARAM_LENGTH} characters")
        if len(self.tags) > MAX_TAGS:
            yield FieldViolation("run.tags", f"has {len(self.tags)} tags: at most {MAX_TAGS} fit")
        if any(not 1 <= len(tag) <= MAX_TAG_LENGTH or not tag.isprintable() for tag in self.tags):
            yield FieldViolation("run.tags", f"a tag has 1 to {MAX_TAG_LENGTH} printable characters")
        if len(self.notes) > MAX_NOTES_LENGTH:
            yield FieldViolation("run.notes", f"is longer than {MAX_NOTES_LENGTH} characters")
        if len(self.experiment) > MAX_TAG_LENGTH or not self.experiment.isprintable():
            yield FieldViolation("run.experiment", f"use at most {MAX_TAG_LENGTH} printable characters")
        texts = flat(self.lineage)
        if len(texts) > MAX_LINEAGE_ENTRIES or any(len(each) > MAX_LINEAGE_LENGTH for each in texts.values()):
            yield FieldViolation(
                "run.lineage",
                f"has over {MAX_LINEAGE_ENTRIES} entries or a text of over {MAX_LINEAGE_LENGTH} characters",
            )
        yield from self._parent_violations(name)

    def _parent_violations(self, name: Name) -> Iterator[FieldViolation]:
        if not self.parent_run:
            return
        try:
            parent = parse_name(self.parent_run, "runs", "run.parent_run")
        except InvalidError as error:
            yield from error.violations
            return
        if parent.project != name.project or parent == name:
            yield FieldViolation("run.parent_run", f"name another run of projects/{name.project}")

    def applied_to(self, run: Run, fields: Collection[str]) -> Run:
        """`run` with these fields of the draft. Raises PreconditionError, reason RUN_OF_JOB."""
        if run.training_job and (theirs := OF_PROGRAMS.intersection(fields)):
            raise PreconditionError(
                f"{', '.join(sorted(theirs))} of {run.name} follow from {run.training_job}: leave them out",
                reason="RUN_OF_JOB",
            )
        return replace(run, **self.values(fields))

    def values(self, fields: Collection[str]) -> dict[str, Any]:
        """Some of its fields as `Run` has them."""
        found = {name: getattr(self, name) for name in fields}
        if "tags" in found:
            found["tags"] = tuple(dict.fromkeys(self.tags))
        return found


def check_mask(paths: Collection[str]) -> frozenset[str]:
    """Which fields an update changes. Raises InvalidError naming those that cannot be changed."""
    allowed = FOR_PEOPLE | OF_PROGRAMS
    if wrong := sorted(set(paths) - allowed):
        raise InvalidError.of(
            "update_mask", f"{', '.join(wrong)} cannot be changed: name some of {', '.join(sorted(allowed))}"
        )
    if not paths:
        raise InvalidError.of("update_mask", f"name what to change: some of {', '.join(sorted(allowed))}")
    return frozenset(paths)


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The leaves of a JSON document by path, e.g. `{"code.commit": "1f0c…"}`; lists as one text."""
    leaves: dict[str, str] = {}
    for key, value in document.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{path}.")
        elif isinstance(value, list):
            leaves[path] = ", ".join(str(each) for each in value)
        else:
            leaves[path] = str(value).lower() if isinstance(value, bool) else str(value)
    return leaves
