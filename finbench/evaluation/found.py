"""What a check of a scorecard finds: faults, what was found right, and how far the card can be believed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from finbench.cards import RowsByTask
from finbench.core.errors import FinbenchError
from finbench.evaluation import rerun as again

Level = Literal["none", "self-reported", "samples-attached", "reproduced"]
SEALED, EDITED = "seal and run key", "was edited after the card was written"


@dataclass(frozen=True)
class CardFault:
    """A field that cannot be right, and why."""

    field: str
    message: str


@dataclass
class Verification:
    """What was found; ``level`` is ``none`` where anything was wrong."""

    card: str
    faults: list[CardFault] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    level: Level = "none"
    asked: list[again.Answered] = field(default_factory=list)  # the model was asked again

    def __post_init__(self) -> None:
        self._noted = set(self.faults)  # a card may have ten thousand
        self.rows: RowsByTask | None = None  # the samples that were looked at

    def fault(self, place: str, message: str) -> None:
        """Note a fault, once."""
        found = CardFault(place, message)
        if found not in self._noted:
            self._noted.add(found)
            self.faults.append(found)

    @contextlib.contextmanager
    def reading(self, place: str) -> Iterator[None]:
        """Look at what a stranger wrote: whatever it does to a check is a fault, and ends no command."""
        try:
            yield
        except FinbenchError:
            raise
        except Exception as fault:  # noqa: BLE001 - nobody foresees all that a card can hold
            self.fault(place, f"cannot be read ({type(fault).__name__})")

    @property
    def right(self) -> list[str]:
        """The checks that no fault refutes: of the seal, and of a task whose scores or samples are at fault, none."""
        return [check for check in self.checks if not any(_refutes(fault, check) for fault in self.faults)]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"card": self.card, "level": self.level, "faults": [], **asdict(self), "checks": self.right}


def _refutes(fault: CardFault, check: str) -> bool:
    if check == SEALED:
        return fault.field in ("seal", "run_key") or fault.message == EDITED
    task, colon, _ = check.partition(": ")
    named = f"[{task}]" in fault.field or f"[{task} " in fault.field  # a score, or one of its rows
    return bool(colon) and (named or fault.field.partition(" ")[0] == "samples")
