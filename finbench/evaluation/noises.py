"""An evaluation under several noises: the same command under one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from finbench.cards import UNREACHED
from finbench.core.console import once, say
from finbench.core.files import write_atomic
from finbench.core.records import Scorecard
from finbench.core.settings import Evaluation
from finbench.scoring import noise


def under_each(wanted: Evaluation, evaluate: Callable[[Evaluation], list[Scorecard]]) -> list[Scorecard]:
    """The cards of an evaluation; of several noises each has a folder below ``out``.

    A noise that reaches none of the tasks is noted there and leaves the others; ``noise.NotReached`` if none does.
    """
    stated = wanted.metadata.get("noise")
    noises = [] if stated is None else noise.several(stated)
    if len(noises) < 2:
        return evaluate(wanted)
    cards: list[Scorecard] = []
    unreached: list[noise.NotReached] = []
    with once():
        for number, name in enumerate(noises, 1):
            say(f"noise={name} ({number} of {len(noises)})")
            try:
                cards += evaluate(replace(wanted, metadata={**wanted.metadata, "noise": name}, out=wanted.out / name))
            except noise.NotReached as fault:
                say(fault.message)
                unreached.append(fault)
    if not cards:
        raise unreached[0]
    write_atomic(wanted.out / UNREACHED, "".join(f"{fault.message}\n" for fault in unreached))
    return cards
