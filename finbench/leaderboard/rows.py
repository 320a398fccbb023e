"""A card, a row and a table of the leaderboard."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.cards import Heading, cardfiles, thinking_tokens
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import UNKNOWN, Measure, Score, Scorecard
from finbench.evaluation import Verification
from finbench.leaderboard import precedence
from finbench.leaderboard.attested import AttestedAdapter
from finbench.leaderboard.evidence import Proof, evidence_of
from finbench.leaderboard.store import SCORECARDS
from finbench.scoring import SeedVariance, seed_variance

UNRANKED = (
    "finlora",
    "fingpt",
    "published",
    "mini",
    "noise",
)  # for compatibility, demos, noise: never ranked, mini never shown


@dataclass(frozen=True)
class BoardCard:
    """A card of the leaderboard with its samples, how far it can be believed, and its adapter's training if known.

    ``key``: its place below ``scorecards`` without the ending, OWNER/SUBJECT/CARD or CARD. ``card`` may hold the main
    metric of each score alone; ``whole`` has all.
    """

    key: str
    card: Scorecard
    samples: Mapping[str, list[dict[str, Any]]]  # by task, read when asked for
    found: Verification
    level: str
    trained: AttestedAdapter | None = None
    arrival: float = math.inf  # place in the order in which cards were added; infinity: it is not in it
    owner: str = ""  # folder that it lies in: who brought it; empty in the flat folder
    shown: str = ""  # its subject's name, unlike any other on the board
    recipe: str = ""  # digest of what it is one of several trainings of
    recipe_name: str = ""
    packed: bool = False  # it lies in a Parquet file
    path: Path | None = None  # its file; None: ``card`` is all that there is
    seen: str | None = None  # digest of its bytes, its samples' and all that judges them (``known.key_of``)

    def whole(self) -> Scorecard:
        """The card as its file has it; FinbenchError where that is another one by now."""
        if self.path is None:
            return self.card
        card = cardfiles.read(self.path)
        if card.seal != self.card.seal:
            raise FinbenchError(f"{self.path} was changed while its leaderboard was built.", "Repeat the command.")
        return card

    @functools.cached_property
    def identity(self) -> str:
        """Digest of the weights that answered."""
        return precedence.identity(self.card.subject)

    @functools.cached_property
    def how(self) -> str:
        """Digest of how its answers were computed."""
        return precedence.how(self.card)

    @functools.cached_property
    def way(self) -> str:
        """Digest of the subject and of how its answers were computed."""
        return digest([self.identity, self.how])

    @functools.cached_property
    def weights(self) -> str:
        """Digest of the weights in their format, which count once whoever asks; of unknown ones the way."""
        subject = self.card.subject
        unknown = UNKNOWN in (subject.base.fingerprint, subject.adapter)
        return self.way if unknown else digest([self.identity, subject.bits])

    @property
    def precedence(self) -> tuple[float, float, str]:
        """By which cards count before others, the least first: evidence, then arrival."""
        return (-precedence.STRENGTH[self.level], self.arrival, self.key)

    @functools.cached_property
    def owner_spoken(self) -> str:
        """Who brought it, as far as a reader tells owners apart."""
        return precedence.spoken(self.owner)

    @property
    def file(self) -> str:
        """Its file, as commands name it: below the leaderboard, or where ``finbench leaderboard unpack`` writes it."""
        return f"unpacked/{self.key}.json" if self.packed else f"leaderboards/{SCORECARDS}/{self.key}.json"

    @property
    def name(self) -> str:
        """Of its subject, unlike that of any other on the board."""
        return self.shown or self.card.subject.name

    @functools.cached_property
    def machine(self) -> str:
        """Seconds and bytes are only comparable on one kind of machine: accelerator, else processor and cores."""
        known = self.card.provenance.hardware
        if "gpu" in known:
            return f"{known.get('gpus', 1)} × {known['gpu']}"
        return (
            f"{known.get('cpu', 'not stated')}, {known.get('cores', '?')} core{'' if known.get('cores') == 1 else 's'}"
        )


@dataclass(frozen=True)
class RefusedCard:
    """A file of a leaderboard that is not shown, and what is wrong with it."""

    file: str
    faults: list[str]


@dataclass
class BoardRow:
    """A subject's score in a test. ``group`` 1 cannot be separated from the best; None where nothing can be tested.

    Of a recipe with several trainings ``score`` has the means, ``entry`` is the first and ``runs`` are all of them.
    """

    entry: BoardCard
    score: Score
    runs: tuple[BoardRow, ...] = ()
    group: int | None = None
    on_cost_front: bool = False
    on_memory_front: bool = False
    on_thinking_front: bool = False
    on_price_front: bool = False

    @functools.cached_property
    def main(self) -> Measure:
        """The score's main, strict number."""
        return self.score.main

    @functools.cached_property
    def proof(self) -> Proof | None:
        """The evidence for its score; of several trainings that of the first."""
        return evidence_of(self.score, self.entry.samples)

    @property
    def name(self) -> str:
        """Of the recipe, if the board has several trainings of it, else of the subject."""
        return self.entry.recipe_name or self.entry.name

    @property
    def values(self) -> list[float]:
        """The main metric of each training."""
        return [run.main.value for run in self.runs] or [self.main.value]

    @property
    def trainings(self) -> int | None:
        """How many the score rests on; None for what was not trained."""
        return None if self.entry.card.subject.adapter is None else len(self.runs) or 1

    @functools.cached_property
    def between_seeds(self) -> SeedVariance | None:
        """How far its trainings scatter; None where there are not several."""
        return seed_variance(self.values) if len(self.runs) > 1 else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation between trainings, in the unit of the metric."""
        return None if self.between_seeds is None else self.between_seeds.deviation

    @property
    def seen(self) -> float | None:
        """Share of the test's texts that stood in training rows; None where nobody looked."""
        return self.score.overlap.texts / self.score.overlap.of if self.score.overlap else None

    @property
    def tokens_per_second(self) -> float | None:
        """Prompt tokens a second, answers included in the time; None where no time was taken."""
        score = self.score
        return score.prompt_tokens / score.own_seconds if score.seconds and score.prompt_tokens else None

    @property
    def thinking(self) -> float | None:
        """Tokens of reasoning an answer; None where answers were generated directly."""
        return thinking_tokens(self.entry.card, self.score)

    @property
    def cost(self) -> float | None:
        """Seconds of the machine for 1,000 documents."""
        seconds = 0.0 if self.score.hosted else self.score.own_seconds  # of an endpoint nobody knows the machine
        return 1000 * seconds / self.score.n if seconds else None

    @property
    def memory(self) -> int | None:
        """Bytes at the peak; None where the model was elsewhere."""
        return None if self.score.hosted else self.entry.card.peak_memory_bytes or None


@dataclass(frozen=True)
class KnownSpread:
    """How far the seeds of one recipe scatter in a test, and on which trainings that rests."""

    variance: SeedVariance
    recipes: int
    trainings: int
    tasks: tuple[str, ...]  # on which it was seen


@dataclass
class BoardTest(Heading):
    """One table of the leaderboard. ``whole``: the whole test was asked: not its first rows, no part of the set.

    ``sampled``: not all rows that were imported were asked.
    What is asked of all rows is asked once: nobody may ask before they are there.
    """

    key: str
    whole: bool = False
    sampled: bool = True
    rows: list[BoardRow] = field(default_factory=list)
    spread: KnownSpread | None = None  # between the seeds of one recipe, as far as the board knows

    @functools.cached_property
    def lenient(self) -> bool:
        """A row has a lenient value beside its strict one."""
        return any(row.score.main_metric in row.score.lenient for row in self.rows)

    @functools.cached_property
    def generated(self) -> bool:
        """Answers were generated under another profile than direct, so that tokens were counted."""
        return any(row.score.answers for row in self.rows)

    @property
    def ranked(self) -> bool:
        """Groups are formed; not in families that are for compatibility."""
        return self.score.family not in UNRANKED
