"""Rounds of faults on a running mesh: one in `make test`, many in `make soak`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=1, help="how many rounds of faults")
    parser.addoption("--alone", action="store_true", help="rounds of one fault each, in turn")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds of faults this run makes."""
    return int(str(request.config.getoption("--rounds", default=1)))


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> bool:
    """Whether each round has one fault and no others."""
    return bool(request.config.getoption("--alone", default=False))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # The option is known only to a run that begins in this folder.
        rounds = int(str(metafunc.config.getoption("--rounds", default=1)))
        metafunc.parametrize("seed", list(range(rounds)))
