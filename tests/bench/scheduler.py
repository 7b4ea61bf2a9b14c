"""`make bench-scheduler`: the scheduling pass alone under a virtual clock, then the real service.

The pass is measured in CPU time of its process: it computes and waits for nothing. The day is played on the
numbers of `tests.support.scheduling_world`, which checks every step; what it must reach is what no schedule
could exceed, all GPUs in use all the time, since there are always jobs that wait.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from typing import Final

from finemesh.core.spec.finetune import Resources
from finemesh.training.placement import decide
from finemesh.training.planning import PLACE_BATCH
from finemesh.training.quotas import Quota

from tests.bench import scheduler_service
from tests.bench.measuring import Board
from tests.support.scheduling_world import World

COMMAND: Final = "make bench-scheduler"
PROJECTS: Final = tuple(f"p{number:02}" for number in range(50))
CLUSTERS, NODES, GPUS, CPUS = 10, 100, 8, 64
SIZES: Final = (1, 1, 1, 1, 2, 2, 4, 8, 8, 16)
JOBS: Final = 100_000
TICK_SECONDS: Final = 300
DAY_SECONDS: Final = 86_400
FAIRNESS: Final = 0.02
STARVED_HOURS: Final = 6.0
DEPTH: Final = 2000  # at least so many jobs of each project wait at any time


def fill(world: World, count: int, rng: random.Random, begin: int = 0) -> None:
    """Submit jobs of all sizes to all projects by turns. They take 10 minutes to 3 hours."""
    for number in range(begin, begin + count):
        gpus = rng.choice(SIZES)
        seconds = TICK_SECONDS * rng.randint(2, 36)
        project = PROJECTS[number % len(PROJECTS)]
        held = Resources(cpus=4.0 * gpus, gpus=gpus)
        world.submit(f"j{number:07}", held, seconds, project=project)


def empty_world(weights: dict[str, float], limit: int) -> World:
    nodes = [(float(CPUS), float(GPUS))] * NODES
    quotas = {project: Quota(project, weight=weight) for project, weight in weights.items()}
    return World([nodes] * CLUSTERS, quotas, limit)


def passes(board: Board) -> None:
    """Passes over 100,000 jobs: while the mesh fills, and when it is full."""
    world = empty_world(dict.fromkeys(PROJECTS, 1.0), PLACE_BATCH)
    fill(world, JOBS, random.Random(1))
    filling: list[float] = []
    while True:
        took, placed = _pass(world)
        if not placed:
            break
        filling.append(took)
    board.show("scheduling pass, mesh filling, slowest", max(filling), 100.0, "ms of CPU")
    full: list[float] = []
    for _ in range(30):
        world.advance(TICK_SECONDS)
        took, _ = _pass(world)
        full.append(took)
    board.show("scheduling pass, mesh full, slowest", max(full), 100.0, "ms of CPU")


def _pass(world: World) -> tuple[float, int]:
    """CPU time of the decision in ms, and how many it placed; then it is carried out."""
    snapshot = world.snapshot()
    began = time.process_time()
    decide(snapshot, world.limit)
    took = (time.process_time() - began) * 1e3
    return took, len(world.step(0.0).placed)


def day(board: Board) -> None:
    """A day with weights of 1, 2 and 4, in which there are always jobs that wait."""
    rng = random.Random(2)
    weights = {project: float(2 ** (i % 3)) for i, project in enumerate(PROJECTS)}
    world = empty_world(weights, 10**6)
    made, latest = 0, dict[tuple[str, int], int]()
    for tick in range(DAY_SECONDS // TICK_SECONDS):
        line = Counter(entry.demand.project for entry in world.waiting.entries.values())
        missing = max(DEPTH - min((line[project] for project in PROJECTS), default=0), 0)
        fill(world, missing * len(PROJECTS), rng, made)
        made += missing * len(PROJECTS)
        for placed in world.step(TICK_SECONDS).placed:
            demand = world.jobs[placed.name].demand
            latest[demand.project, int(demand.resources.gpus)] = tick
    used, most = world.gpu_seconds.total(), CLUSTERS * NODES * GPUS * DAY_SECONDS
    board.show("GPUs in use over a day, of all", used / most, 0.97, "share", 1.0, used / most)
    total = sum(weights.values())
    off = [abs(world.gpu_seconds[p] / used * total / weight - 1) for p, weight in weights.items()]
    board.show("fair share over a day, furthest from its weight", max(off), FAIRNESS, "share")
    last = DAY_SECONDS // TICK_SECONDS
    idle = [last - latest.get((p, gpus), 0) for p in PROJECTS for gpus in SIZES]
    hours = max(idle) * TICK_SECONDS / 3600
    board.show("longest that no job of some size of some project has started", hours, STARVED_HOURS, "h")


PARTS: Final = {
    "passes": passes,
    "day": day,
    "renewals": scheduler_service.run_renewals,
    "fill": scheduler_service.run_fill,
    "service": scheduler_service.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scheduler", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    board = Board(COMMAND)
    for part in parser.parse_args().only:
        PARTS[part](board)


if __name__ == "__main__":
    main()
