"""What the processes of a training say to each other: that one refuses, that they agree, that all are through.

They talk by gloo, on processors, and wait for hours: NCCL gives up after ten minutes, in which a first process has not
read a base of 140 GB. While they train, NCCL's limit stands, and a machine that is gone is noticed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from finbench.core import environment
from finbench.core.errors import FinbenchError, Interrupted, shortened

_PATIENCE = timedelta(hours=6)


@functools.cache
def _group() -> Any:
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)


def gathered(said: Any) -> list[Any]:
    """What each process says, in their order; all must ask. A process that is alone hears itself."""
    import torch

    if not torch.distributed.is_initialized() or environment.processes() == 1:
        return [said]
    heard: list[Any] = [None] * environment.processes()
    torch.distributed.all_gather_object(heard, said, group=_group())
    return heard


def wait() -> None:
    """Until all are here, however long one of them works alone."""
    gathered(None)


def part() -> None:
    """When all are through: one that left before would break the others."""
    import torch

    if torch.distributed.is_initialized():
        wait()
        _group.cache_clear()
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def parting() -> Iterator[None]:
    """When all are through what is inside, or have stopped in it at the user's wish, they part."""
    try:
        yield
    except Interrupted:
        part()
        raise
    part()


@contextlib.contextmanager
def refusing_together() -> Iterator[None]:
    """What one process refuses inside, all refuse when they are through it: the fault of the first of them."""
    fault: FinbenchError | None = None
    try:
        yield
    except FinbenchError as own:
        fault = own
    heard = gathered(None if fault is None else (fault.message, fault.hint))
    if first := next((one for one in heard if one), None):
        message, hint = first
        raise FinbenchError(message, hint) from fault


def agree(stated: Mapping[str, Any]) -> None:
    """Refuse, in all processes, what they state differently: other data, another base, other libraries."""
    heard = gathered(dict(stated))
    for rank, other in enumerate(heard):
        keys = [key for key, value in heard[0].items() if other.get(key) != value]
        if keys:
            told = "; ".join(f"{key}: {_told(heard[0][key], other.get(key))}" for key in keys[:3])
            raise FinbenchError(
                f"The processes of this training differ: process {rank} has not what process 0 has ({told}).",
                "Give every machine the same libraries, base, data and recipe; with other GPUs, also --set dtype=...",
            )


def _told(one: Any, other: Any) -> str:
    """Two values that differ, or what in them does."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return ", ".join(
            f"{key} {shortened(str(one.get(key)))} and {shortened(str(other.get(key)))}" for key in keys[:3]
        )
    return f"{shortened(str(one))} and {shortened(str(other))}"
