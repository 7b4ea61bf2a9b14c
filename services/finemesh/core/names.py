"""Resource names, as the AIPs write them: `projects/{project}/datasets/{dataset}`.

An id is `[a-z][a-z0-9-]{0,62}` and does not end with a hyphen (https://google.aip.dev/122, DNS-label form).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final

from finemesh.core.errors import InvalidError

ID_PATTERN: Final = r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
_ID: Final = re.compile(rf"^{ID_PATTERN}$")

COLLECTIONS: Final = ("datasets", "trainingJobs", "sweeps", "runs", "exports")
CHILD_COLLECTIONS: Final = {"datasets": ("validationReports", "preflightReports")}


def check_id(value: str, field: str) -> str:
    """Return `value` if it is a well-formed id. Raises InvalidError naming `field` otherwise."""
    if not _ID.match(value):
        raise InvalidError.of(
            field,
            f"{value!r} is not an id: use 1 to 63 of a-z, 0-9 and '-', "
            "starting with a letter, not ending with '-'",
            reason="MALFORMED_ID",
        )
    return value


def new_id(prefix: str) -> str:
    """A fresh id such as `tj-4f0c1b9e2a77`: 48 random bits after a prefix that says what it is."""
    return check_id(f"{prefix}-{secrets.token_hex(6)}", "prefix")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A parsed resource name. `str()` gives the canonical form back."""

    project: str
    collection: str
    id: str
    child_collection: str = ""
    child_id: str = ""

    def __str__(self) -> str:
        own = f"projects/{self.project}/{self.collection}/{self.id}"
        return f"{own}/{self.child_collection}/{self.child_id}" if self.child_collection else own

    @property
    def kind(self) -> str:
        """What `parse_name` takes as collection, e.g. `datasets/validationReports`."""
        return f"{self.collection}/{self.child_collection}" if self.child_collection else self.collection

    @property
    def parent(self) -> str:
        """`projects/{project}`, or the parent resource for a child."""
        if self.child_collection:
            return f"projects/{self.project}/{self.collection}/{self.id}"
        return f"projects/{self.project}"


def parse_project(value: str, field: str = "parent") -> str:
    """The id out of `projects/{project}`. Raises InvalidError."""
    head, _, project = value.partition("/")
    if head != "projects" or not project:
        raise InvalidError.of(
            field, f"{value!r} is not a project: write projects/{{project}}", reason="MALFORMED_NAME"
        )
    return check_id(project, field)


def parse_name(value: str, collection: str, field: str = "name") -> Name:
    """Parse `projects/{p}/{collection}/{id}`, or a child when `collection` is like
    `datasets/validationReports`.

    Raises:
        InvalidError: reason MALFORMED_NAME or MALFORMED_ID, naming `field`.
    """
    collections = collection.split("/")
    parts = value.split("/")
    shape_ok = (
        len(parts) == 2 + 2 * len(collections) and parts[0] == "projects" and parts[2::2] == collections
    )
    if not shape_ok:
        wanted = "projects/{project}/" + "/".join(f"{each}/{{id}}" for each in collections)
        problem = f"{value!r} is not a name of this kind: write {wanted}"
        raise InvalidError.of(field, problem, reason="MALFORMED_NAME")
    ids = [check_id(part, field) for part in parts[1::2]]
    if len(collections) == 2:
        return Name(ids[0], collections[0], ids[1], collections[1], ids[2])
    return Name(ids[0], collections[0], ids[1])
