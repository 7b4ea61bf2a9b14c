"""`finemesh workers`: the machines, what runs on them, and taking them out of use."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from finemesh.client.cli.context import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, Commands, err, options, out
from finemesh.client.cli.output import enum_name, moment, print_facts, print_json, print_list, short, styled
from finemesh.client.figures import size
from finemesh.v1 import worker_pb2
from finemesh.v1 import worker_service_pb2 as pb

commands = Commands("workers", "See the machines and what runs on them, drain them, resize the local pool.")

Node = worker_pb2.Node
_POLL_SECONDS = 1.0

NodeId = Annotated[
    str, typer.Argument(help="Id or host name of the node, the beginning of either, or its full name.")
]
ClusterId = Annotated[str, typer.Option("--cluster", help="Only this cluster.")]


@commands("list")
def list_nodes(cluster: ClusterId = "") -> None:
    """List the nodes of all clusters."""
    workers = options.connection().workers
    found = workers.ListNodes(pb.ListNodesRequest(parent=f"clusters/{cluster or '-'}"))
    print_list(
        list(found.nodes),
        ("node", "host", "state", "CPUs", "GPUs", "memory", "runs", "since"),
        lambda node: (
            short(node.name)[:12],
            node.hostname,
            styled(enum_name(node, "state")),
            _share(node.free.cpus, node.total.cpus),
            _gpus(node),
            size(node.total.memory_bytes),
            ", ".join(_work_name(work) for work in node.work) or "nothing",
            moment(node.start_time),
        ),
        "no cluster has reported itself: `finemesh doctor` says whether the agent is up",
    )
    for each in [] if options.json else workers.ListClusters(pb.ListClustersRequest()).clusters:
        if cluster in ("", short(each.name)):
            _print_besides(each)


@commands("show")
def show(node: NodeId) -> None:
    """Show one node, with the jobs, processes and GPUs in use there."""
    _print(_find(node))


@commands("drain")
def drain(
    node: NodeId,
    *,
    leave_work: Annotated[
        bool, typer.Option("--wait", help="Leave trainings there until they have ended, too.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Return when the node can be switched off.")
    ] = True,
) -> None:
    """Take a node out of use: nothing new goes there, and trainings save and go on elsewhere."""
    workers = options.connection().workers
    found = workers.DrainNode(pb.DrainNodeRequest(name=_find(node).name, leave_work=leave_work))
    while follow and found.state == Node.STATE_DRAINING:
        err.print(f"{len(found.work)} still there: {_runs(found)}", highlight=False)
        time.sleep(_POLL_SECONDS)
        found = workers.GetNode(pb.GetNodeRequest(name=found.name))
    _print(found)
    if follow and found.state != Node.STATE_DRAINED:
        raise typer.Exit(EXIT_FAILED)


@commands("undrain")
def undrain(node: NodeId) -> None:
    """Let a node have work again."""
    _print(options.connection().workers.UndrainNode(pb.UndrainNodeRequest(name=_find(node).name)))


@commands("resize")
def resize(
    nodes: Annotated[int, typer.Argument(help="How many nodes there should be beside the head.")],
    cluster: Annotated[str, typer.Option("--cluster", help="The cluster with a local pool.")] = "local",
    cpus: Annotated[float, typer.Option(help="Cores of each node that is started; 0 means 1.")] = 0.0,
    memory_gb: Annotated[float, typer.Option(help="Memory of each in GB; 0 means 2.")] = 0.0,
) -> None:
    """Start further nodes of Ray on this machine, or drain and stop some. For meshes of `finemesh up`."""
    resources = worker_pb2.NodeResources(cpus=cpus, memory_bytes=round(memory_gb * 1e9))
    request = pb.ResizeLocalPoolRequest(name=f"clusters/{cluster}", nodes=nodes, node=resources)
    found = options.connection().workers.ResizeLocalPool(request)
    if options.json:
        print_json(found)
        return
    pool = found.local_pool
    print_facts(
        (
            ("cluster", found.name),
            ("nodes of the pool", f"{pool.nodes}, {pool.wanted_nodes} wanted"),
            ("each has", f"{pool.node.cpus:g} CPUs, {size(pool.node.memory_bytes)}"),
            ("trouble", pool.message),
        )
    )


def _print_besides(cluster: worker_pb2.Cluster) -> None:
    """What of a cluster is neither given away nor free."""
    name = short(cluster.name)
    if cluster.warm_memory_bytes:
        ready, memory = cluster.warm_workers, size(cluster.warm_memory_bytes)
        out.print(
            f"{name}: warm workers that wait {ready}, with those that get so in {memory}", highlight=False
        )
    if cluster.gpus_held_back:
        out.print(
            f"{name}: GPUs held back until they are proven free: {cluster.gpus_held_back}", highlight=False
        )


def _find(given: str) -> Node:
    """The one node that is meant."""
    workers = options.connection().workers
    if given.startswith("clusters/"):
        return workers.GetNode(pb.GetNodeRequest(name=given))
    nodes = workers.ListNodes(pb.ListNodesRequest(parent="clusters/-")).nodes
    found = [node for node in nodes if given in (short(node.name), node.hostname)]
    found = found or [
        node for node in nodes if short(node.name).startswith(given) or node.hostname.startswith(given)
    ]
    if len(found) == 1:
        return found[0]
    problem = "several nodes are" if found else "no node is"
    err.print(
        f"[red]error:[/] {problem} called {given!r}: take one of the ids of `finemesh workers list`",
        highlight=False,
        soft_wrap=True,
    )
    raise typer.Exit(EXIT_USAGE if found else EXIT_NOT_FOUND)


def _print(node: Node) -> None:
    if options.json:
        print_json(node)
        return
    facts = [
        ("node", node.name),
        ("host", node.hostname),
        ("state", styled(enum_name(node, "state"))),
        ("CPUs", _share(node.free.cpus, node.total.cpus)),
        ("GPUs", _gpus(node)),
        ("memory", f"{size(node.free.memory_bytes)} of {size(node.total.memory_bytes)} free"),
        ("since", moment(node.start_time)),
        ("drained since", moment(node.drain_time) if node.HasField("drain_time") else ""),
        ("node of the pool", str(node.pool_slot or "")),
    ]
    print_facts(fact for fact in facts if fact[1])
    print_list(
        list(node.work),
        ("work", "attempt", "pids", "GPUs", "doing", "since"),
        lambda work: (
            _work_name(work),
            work.attempt or "",
            ", ".join(map(str, work.pids)),
            ", ".join(work.gpu_ids),
            work.message,
            moment(work.start_time) if work.HasField("start_time") else "",
        ),
        "nothing runs there",
    )


def _runs(node: Node) -> str:
    return ", ".join(_work_name(work) for work in node.work) or "processes that end"


def _work_name(work: worker_pb2.NodeWork) -> str:
    return "/".join(work.resource.split("/")[-2:]) or "work of another project"


def _share(free: float, total: float) -> str:
    return f"{free:g} of {total:g} free"


def _gpus(node: Node) -> str:
    if not node.total.gpus:
        return "none"
    kind = f" {node.gpu_model}" if node.gpu_model else ""
    memory = f" {size(node.gpu_memory_bytes)}" if node.gpu_memory_bytes else ""
    return _share(node.free.gpus, node.total.gpus) + kind + memory
