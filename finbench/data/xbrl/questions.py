"""How the questions are worded: several paraphrases of each, one drawn a row by its seed."""

from __future__ import annotations

import datetime
import random

from finbench.data.xbrl.model import Context

TAGS_BY_LABEL = (
    'Under which us-gaap concept does {company} report "{label}" {when}?',
    'Which us-gaap tag holds the item "{label}" of {company} {when}?',
    'Name the us-gaap element that {company} uses for "{label}" {when}.',
    'In the facts above, what is the us-gaap concept for "{label}" {when}?',
    '{company} labels one of its items "{label}". Which us-gaap tag carries it {when}?',
)
TAGS_BY_VALUE = (
    "Which us-gaap concept has the value {value} {unit} in the filing of {company} {when}?",
    "{company} reports {value} {unit} {when}. Under which us-gaap tag?",
    "To which us-gaap element does the figure {value} {unit} belong {when}?",
    "Find the figure {value} {unit} {when}: what is its us-gaap concept?",
    "Name the us-gaap tag under which {company} filed {value} {unit} {when}.",
)
VALUES = (
    'What value does {company} report for "{label}" {when}?',
    'How much was "{label}" of {company} {when}?',
    'Read the figure for "{label}" of {company} {when} from the facts.',
    '{company}, {when}: what is the reported value of "{label}"?',
    'State the amount that the filing of {company} gives for "{label}" {when}.',
)
FORMULAS = (
    "Which formula over us-gaap concepts gives the {ratio} of {company} {when}{how}?",
    "Write the {ratio} of {company} {when}{how} as a formula of us-gaap tags.",
    "From which us-gaap items, and how, does one compute the {ratio} of {company} {when}{how}?",
    "In terms of us-gaap elements, express the {ratio} of {company} {when}{how}.",
)
CALCULATIONS = (
    "What was the {ratio} of {company} {when}{how}?",
    "Compute the {ratio} of {company} {when}{how}.",
    "From the facts above, work out the {ratio} of {company} {when}{how}.",
    "How high was the {ratio} of {company} {when}{how}?",
)
_MONTHS = (  # not strftime: it follows the user's locale
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def draw(seed: int, name: str) -> random.Random:
    """Random numbers of one row: they depend on the seed and on the row alone, not on its neighbours."""
    return random.Random(f"{seed}:{name}")


def _day(date: str, style: int) -> str:
    parsed = datetime.date.fromisoformat(date)
    month = _MONTHS[parsed.month - 1]
    return (date, f"{parsed.day} {month} {parsed.year}", f"{month} {parsed.day}, {parsed.year}")[style]


def when(context: Context, rng: random.Random) -> str:
    """The period in words: "as of ...", "for the fiscal year ended ...", "from ... to ..."."""
    style = rng.randrange(3)
    end = _day(context.end, style)
    if not context.start:
        return f"{rng.choice(('as of', 'at', 'on'))} {end}"
    start = _day(context.start, style)
    days = days_of(context)
    if 350 <= days <= 380:
        return rng.choice((f"for the fiscal year ended {end}", f"for the year from {start} to {end}"))
    if 80 <= days <= 100:
        return rng.choice((f"for the quarter ended {end}", f"for the three months to {end}"))
    return f"for the period from {start} to {end}"


def days_of(context: Context) -> int:
    """Length of a duration in days, both ends counted; 0 for an instant."""
    if not context.start:
        return 0
    return (datetime.date.fromisoformat(context.end) - datetime.date.fromisoformat(context.start)).days + 1


def how(unit: str, places: int | None, number: bool) -> str:
    """How to answer, in brackets: the unit, and for a ``number`` to how many decimals; "" if all is clear."""
    parts = [] if unit == "times" else [f"in {unit}"]
    if number and places is not None:
        parts.append(f"rounded to {('no', 'one', 'two', 'three')[places]} decimals")
    return f" ({', '.join(parts)})" if parts else ""
