"""Where reasoning ends and the answer begins, in what models of every family write."""

from __future__ import annotations

from collections.abc import Sequence

from finbench.core.settings import Profile
from finbench.engines.interface import Generated


def taken_apart(
    raw: str,
    *,
    profile: Profile,
    until: Sequence[str],
    ended: bool,
    opened: bool = False,
    think_end: str | None = None,
) -> tuple[str, str, bool]:
    """(reasoning, final part, truncated) of the ``raw`` text of one turn, special tokens included.

    ``until``: the task's own stops, applied to what follows the reasoning. ``ended``: the model ended its turn itself;
    otherwise the budget did. ``opened``: the prompt ended inside the reasoning.
    """
    raise NotImplementedError


def given_apart(reasoning: str, content: str, *, profile: Profile, until: Sequence[str], ended: bool) -> Generated:
    """The answer of a server that parts reasoning and content itself, without its counts of tokens."""
    raise NotImplementedError
