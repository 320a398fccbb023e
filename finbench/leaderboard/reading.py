"""Every card of a leaderboard, verified: by what is known of its bytes, else by processes that look at it now."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finbench.cards import cardfiles
from finbench.core import threads
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.evaluation import Verification
from finbench.leaderboard import attested, examine, known, precedence, store
from finbench.leaderboard.evidence import Samples
from finbench.leaderboard.known import KnownCard
from finbench.leaderboard.rows import BoardCard, RefusedCard
from finbench.leaderboard.store import CardPlace

_FEW = 6  # cards for which no process is started: that takes as long as they do


@dataclass(frozen=True)
class Cards:
    """The cards of a leaderboard, and those that are not shown."""

    entries: list[BoardCard]
    refused: list[RefusedCard]


def entries(folder: Path, trusted: Path | None = None) -> list[BoardCard]:
    """Every card of ``folder`` with which nothing is wrong (``read``)."""
    return read(folder, trusted).entries


def read(folder: Path, trusted: Path | None = None) -> Cards:
    """Every card of a leaderboard, verified; one in which something is wrong is refused, and stops no other.

    ``trusted``: the folder whose keys and order of arrival are believed, and after it the folder's own order of cards
    that are not there; default: the leaderboard's own. FinbenchError for a signature that proves nothing.
    """
    vouched, order = attested.attestations(folder, trusted), precedence.arrivals(trusted or folder)
    if trusted is not None:
        known_there, last = {place.key for place in store.places(trusted)[0]}, max(order.values(), default=-1)
        own = precedence.arrivals(folder)
        new = (key for key in sorted(own, key=own.__getitem__) if key not in order and key not in known_there)
        order |= {key: last + number for number, key in enumerate(new, 1)}
    places, wrong = store.places(folder)
    refused = [RefusedCard(name, [fault]) for name, fault in wrong.items()]
    found: dict[CardPlace, tuple[KnownCard, str | None]] = {}
    left: list[CardPlace] = []
    for place in places:
        seen = _known(place)
        if seen is not None:
            found[place] = seen
            continue
        try:
            tasks = examine.older(cardfiles.read(place.path))
        except FinbenchError as fault:
            refused.append(RefusedCard(f"{place.key}.json", [fault.message]))
            continue
        if not tasks:
            left.append(place)
        else:
            why = f"it is of an older version of {tasks}"
            say(f"{place.key}.json is left out: {why}. Score its subject again to rank it.")
    for place, faults in _examined(left):
        seen = None if faults else _known(place) or _unkept(place)
        if seen is None:
            refused.append(RefusedCard(f"{place.key}.json", faults))
        else:
            found[place] = seen
    made = []
    for place, (kept, key) in sorted(found.items()):
        try:
            made.append(_entry(folder, place, kept, key, vouched, order))
        except FinbenchError as fault:
            refused.append(RefusedCard(f"{place.key}.json", [fault.message]))
    return Cards(made, sorted(refused, key=lambda one: one.file))


def _known(place: CardPlace) -> tuple[KnownCard, str | None] | None:
    """A card of whose very bytes, and those of its samples, it is known that nothing is wrong with them; its digest."""
    key = known.key_of(place.path)
    kept = known.read(key) if key else None
    return None if kept is None else (kept, key)


def _unkept(place: CardPlace) -> tuple[KnownCard, str | None] | None:
    """A card with which nothing is wrong, where no cache can be written."""
    _, kept = examine.faults(place.path)
    return None if kept is None else (kept, None)


def _entry(
    folder: Path,
    place: CardPlace,
    kept: KnownCard,
    key: str | None,
    vouched: Sequence[attested.Vouched],
    order: Mapping[str, int],
) -> BoardCard:
    card, samples = kept.card, Samples(place.path, kept.card, kept.evidence)
    found = Verification(str(place.path), checks=[*kept.checks], notes=[*kept.notes], level=kept.level)
    return BoardCard(
        key=place.key,
        card=card,
        samples=samples,
        found=found,
        level=attested.level(place.path, samples, found, vouched),
        trained=attested.trained(folder, card.subject),
        arrival=order.get(place.key, math.inf),
        owner=store.owner_of(place.key),
        packed=place.packed,
        seen=key,
        path=place.path,
    )


def _examined(places: Sequence[CardPlace]) -> Iterator[tuple[CardPlace, list[str]]]:
    """Faults of each card, by as many processes as there are processors; one that dies takes no other card along."""
    count = min(math.ceil(threads.cores()), len(places))
    if len(places) <= _FEW or count < 2:
        with cardfiles.sharing_rows():
            yield from ((place, examine.examined(place.path)) for place in places)
        return
    waiting: queue.SimpleQueue[CardPlace] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[CardPlace, list[str]] | None] = queue.SimpleQueue()
    for place in places:
        waiting.put(place)
    workers = [threading.Thread(target=_ask, args=(waiting, answers), daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    done, ended = set(), 0
    while ended < count:
        answer = answers.get()
        if answer is None:
            ended += 1
            continue
        place, faults = answer
        done.add(place)
        yield place, faults
    left = [place for place in places if place not in done]
    for place in left:  # of a process that died: once more, each in a process of its own
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        waiting.put(place)
        _ask(waiting, answers)
        found = [answer for answer in (answers.get() for _ in range(answers.qsize())) if answer is not None]
        yield found[0] if found else (place, ["its check ended unexpectedly (memory?): finbench verify"])


def _ask(waiting: queue.SimpleQueue[CardPlace], answers: queue.SimpleQueue[tuple[CardPlace, list[str]] | None]) -> None:
    """Have a process examine one card after the other, until none waits or it has died."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "finbench.leaderboard.examine"]
    with contextlib.ExitStack() as done:
        done.callback(answers.put, None)
        done.enter_context(contextlib.suppress(OSError, queue.Empty, ValueError))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            while True:
                place = waiting.get_nowait()
                process.stdin.write(os.fsencode(place.path) + b"\n")
                process.stdin.flush()
                answers.put((place, json.loads(process.stdout.readline())))  # no JSON: it died, and the parent does it
