"""Every method of the contract answers plain HTTP, and says of a wrong id what is wrong with it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import urllib3
from finemesh.chassis.auth import Role, SigningKey
from google.api import annotations_pb2

from tests.e2e.conftest import RunningMesh
from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROJECT: Final = "every-method"
ABSENT: Final = "absent"
NO_ID: Final = "No_Id"


@dataclass(frozen=True)
class Binding:
    """One `google.api.http` binding: of `{name=projects/*/runs/*}`, the asterisks are filled in."""

    method: str
    verb: str
    template: str
    has_body: bool

    def path(self, resource_id: str) -> str:
        """The path with PROJECT and, for every other id, `resource_id`."""
        pattern = re.sub(r"\{[^}=]*=?([^}]*)\}", lambda match: match[1] or "*", self.template)
        return pattern.replace("projects/*", f"projects/{PROJECT}").replace("*", resource_id)


def bindings() -> Iterator[Binding]:
    package = importlib.import_module("finemesh.v1")
    names = [each.name for each in pkgutil.iter_modules(package.__path__, "finemesh.v1.")]
    for name in (each for each in names if each.endswith("_service_pb2")):
        services = importlib.import_module(name).DESCRIPTOR.services_by_name.values()
        for method in (method for service in services for method in service.methods):
            http: Any = annotations_pb2.http
            if method.GetOptions().HasExtension(http):
                rule = method.GetOptions().Extensions[http]
                for each in (rule, *rule.additional_bindings):
                    verb = each.WhichOneof("pattern")
                    yield Binding(method.full_name, verb.upper(), getattr(each, verb), bool(each.body))


@dataclass(frozen=True)
class Caller:
    """An operator of PROJECT before the gateway."""

    url: str
    token: str

    def call(self, binding: Binding, resource_id: str) -> tuple[int, str]:
        """The status, and the reason of the error if it is one."""
        answer = urllib3.request(
            binding.verb,
            self.url + binding.path(resource_id),
            body=b"{}" if binding.has_body else None,
            headers={"authorization": f"Bearer {self.token}", "content-type": "application/json"},
            retries=False,
            timeout=PATIENCE_SECONDS,
        )
        if answer.status == 200:
            return 200, ""
        return answer.status, next(
            (each["reason"] for each in answer.json()["details"] if "reason" in each), ""
        )


@pytest.fixture(scope="module")
def caller(running_mesh: RunningMesh) -> Caller:
    key = SigningKey.load(running_mesh.data / "secrets" / "jwt.key")
    return Caller(running_mesh.url, key.mint("tester", Role.OPERATOR, [PROJECT], ttl_seconds=600))


@pytest.mark.parametrize("binding", tuple(bindings()), ids=lambda each: f"{each.verb}-{each.template}")
def test_a_method_over_http_with_ids_of_nothing(caller: Caller, binding: Binding) -> None:
    """Nothing is found under an id that nobody gave: 404, unless something else is wrong or denied first.

    Without an id in its path, a method may well succeed.
    """
    status, reason = caller.call(binding, ABSENT)
    assert (status, reason) == (200, "") or (status in (400, 403, 404) and reason)
    if ABSENT in binding.path(ABSENT):
        assert status != 200
        assert (status == 404) == reason.endswith("_NOT_FOUND")
        assert caller.call(binding, NO_ID)[0] in (400, 403, 404)


def test_most_methods_say_404_of_an_absent_thing(caller: Caller) -> None:
    """The others want a body, or a role, before they look."""
    with_id = [each for each in bindings() if ABSENT in each.path(ABSENT)]
    found = [caller.call(each, ABSENT)[0] for each in with_id]
    assert found.count(404) > 0.8 * len(found)
