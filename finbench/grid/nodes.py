"""What the nodes of a cluster offer, and the steps that none of them can take."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.core import environment, threads
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.grid.steps import Schedule


def this_machine() -> dict[str, float]:
    """What Ray would offer steps here, CPU and bytes of memory: what is free, less its store of objects.

    That takes 30 % of it, at most 200 GB, and no more than there is of shared memory (Ray's defaults).
    """
    free, shared = float(environment.free_host_memory()), Path("/dev/shm")
    most = max(1e10, 0.95 * shutil.disk_usage(shared).free) if shared.is_dir() else 2e11
    return {"CPU": max(1, int(threads.cores())), "memory": free - min(0.3 * free, most, 2e11)}


def most_gpus(ray: Any) -> int:
    """GPUs of the node that has most."""
    return int(max((node.get("GPU", 0) for node in nodes_of(ray)), default=0))


def check_gpus(board: Schedule, there: int, growing: bool) -> None:
    """Refuse steps for which no node has GPUs enough, for Ray would wait for ever; where nodes may come, say so."""
    wanted = {step.needs.gpus or 0: step.name for step in board.steps.values() if not step.done}
    most = max(wanted, default=0)
    if most <= there:
        return
    message = f"{wanted[most]} needs {most:g} GPU{'s' if most > 1 else ''}; "
    if growing:
        say(f"{message}no node has more than {there} now. Such steps wait for one that does.")
        return
    has = f"has {there}" if there else "has none that Ray finds"
    raise FinbenchError(f"{message}this machine {has}.", f"needs: {{gpus: {min(1, there)}}}, or a cluster: --ray")


def nodes_of(ray: Any) -> list[dict[str, float]]:
    """What each living node offers: CPU, GPU, and memory in bytes."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def unplaced(board: Schedule, nodes: Sequence[Mapping[str, float]], planned: bool = False) -> list[str]:
    """The steps that are left and that no node can take as it is, each with what it wants and what the largest offers.

    Ray would wait with them for ever, in silence. ``planned``: less those on GPUs, which are planned for anywhere.
    """
    found = []
    for step in board.steps.values():
        cpus, memory, gpus = step.needs.cpus, (step.needs.memory or 0) * 1e9, step.needs.gpus or 0
        able = [node for node in nodes if node.get("GPU", 0) >= gpus]
        if (
            step.outcome
            or (planned and gpus)
            or any(node.get("CPU", 0) >= cpus and node.get("memory", 0) >= memory for node in able)
        ):
            continue
        beside = f" beside {gpus:g} GPU{'s' if gpus > 1 else ''}" if gpus else ""
        wants = f"{cpus:g} CPU{'s' if cpus > 1 else ''}" + (f" and {memory / 1e9:g} GB" if memory else "") + beside
        most = max(able or nodes, key=lambda node: (node.get("memory", 0), node.get("CPU", 0)), default={})
        has = f"{most.get('CPU', 0):g} and {most.get('memory', 0) / 1e9:.1f} GB"
        has += f" beside {most.get('GPU', 0):g}" if gpus else ""
        which = "the largest node with so many" if gpus and able else "the largest node"
        found.append(f"{step.name} needs {wants}; {which} offers {has}")
    return found


def check_nodes(board: Schedule, nodes: Sequence[Mapping[str, float]], growing: bool, planned: bool = False) -> None:
    """Refuse steps that no node can take; where nodes may come, say so."""
    found = unplaced(board, nodes, planned)
    if not found:
        return
    others = f" (and {len(found) - 1:,} more steps)" if len(found) > 1 else ""
    if growing:
        say(f"{found[0]}{others}. They wait for a node that does.")
        return
    hint = "Ask for less, or leave memory out of needs: then as much is asked for as is planned. Or a cluster: --ray"
    raise FinbenchError(f"{found[0]}{others}.", hint)
