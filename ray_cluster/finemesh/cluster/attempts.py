"""How the cluster side refers to attempts."""

from __future__ import annotations

from typing import Final

from finemesh.cluster.config import SERVICE_OF
from finemesh.core.attempts import AttemptRef
from finemesh.core.errors import InvalidError
from finemesh.core.names import CHILD_COLLECTIONS, parse_name
from finemesh.v1 import attempt_pb2
from finemesh.v1 import attempt_service_pb2 as service_pb

ACTOR_NAMESPACE: Final = "finemesh"


def ref_of(message: attempt_pb2.Command | service_pb.AttemptRef) -> AttemptRef:
    return AttemptRef(message.resource, message.attempt, message.fence)


def to_proto(ref: AttemptRef) -> service_pb.AttemptRef:
    return service_pb.AttemptRef(resource=ref.resource, attempt=ref.attempt, fence=ref.fence)


def service_of(resource: str) -> str:
    """The service that owns a resource. Raises InvalidError for a name of no kind that is worked on."""
    parts = resource.split("/")
    collection = parts[2] if len(parts) > 2 else ""
    if collection not in SERVICE_OF:
        raise InvalidError.of("resource", f"{resource!r} is not worked on by clusters")
    return SERVICE_OF[collection]


def check_command(command: attempt_pb2.Command) -> AttemptRef:
    """The attempt that a command is for. Raises InvalidError for a command that nobody can carry out."""
    service_of(command.resource)
    _, _, collection, _, *child = command.resource.split("/")
    known = CHILD_COLLECTIONS.get(collection, ())
    kind = f"{collection}/{child[0]}" if child and child[0] in known else collection
    parse_name(command.resource, kind, "resource")
    if command.attempt < 1:
        raise InvalidError.of("attempt", f"{command.attempt} is not the number of an attempt")
    if command.WhichOneof("work") is None:
        raise InvalidError.of("work", "says nothing to do: this agent is older than the service that sent it")
    return ref_of(command)


def resource_key(resource: str) -> str:
    """The resource as a file name: `projects/a/trainingJobs/b` becomes `a.trainingJobs.b`."""
    return resource.removeprefix("projects/").replace("/", ".")


def resource_of(key: str) -> str:
    """The resource whose `resource_key` this is. An id has no dot."""
    return "projects/" + key.replace(".", "/")


def scratch_name(ref: AttemptRef) -> str:
    """The folder name of an attempt's scratch space, e.g. `a.trainingJobs.b-2`."""
    return f"{resource_key(ref.resource)}-{ref.attempt}"


def actor_name(ref: AttemptRef) -> str:
    """The supervisor's name on Ray, e.g. `attempt-a.trainingJobs.b-2`. An id has no dot, so it is unique."""
    return f"attempt-{resource_key(ref.resource)}-{ref.attempt}"
