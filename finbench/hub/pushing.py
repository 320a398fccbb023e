"""Executing a plan: one commit, retried safely, so that a repository is the old or the new, never a mix."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.hub.client import (
    Unreachable,
    api,
    explained,
    page,
    refusal,
    retry_after,
    sentence,
    status_of,
    transport_faults,
)
from finbench.hub.listing import Remote, files
from finbench.hub.plans import SENT, Plan

ATTEMPTS = 5
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever the Hub asks
_FIRST_PAGE = {"space": ("README.md", "index.html", "style.css")}  # of a new static Space, by the Hub
_TRANSIENT = (408, 429, 500, 502, 503, 504)
wait: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Published:
    """What a push led to. ``sha`` is the commit that holds the files; ``url`` the page to look at."""

    sha: str
    url: str
    new: bool
    pull_request: str | None = None


def execute(plan: Plan) -> Published:
    """Do what ``plan`` says. Repeating it after any interruption ends in the same state.

    Weights are uploaded first, by hash; the one commit that names them comes last, on the parent the plan was made
    for. Where its answer is lost, the repository is looked at before it is sent again. Where another push came
    first, this one goes on only if that touched none of the plan's files.

    Raises FinbenchError if the repository has moved otherwise, and for every refusal of the Hub.
    """
    with explained(plan.address, writing=True):
        if not plan.exists:
            plan = _create(plan)
        if not plan.changing and plan.parent:
            return Published(plan.parent, page(plan.repo, plan.kind), new=False)
        if plan.pull_request and (found := _open_request(plan)):
            return found
        return _commit(plan)


def _create(plan: Plan) -> Plan:
    """Make the repository, and plan on what the Hub puts into a new one.

    One that another push has made meanwhile is taken only if it holds nothing else.
    """
    more = {"space_sdk": "static"} if plan.kind == "space" else {}
    _patiently(
        lambda: api().create_repo(plan.repo, repo_type=plan.kind, private=plan.private, exist_ok=True, **more),
        lambda: None,
        plan,
    )
    sha = _head(plan)
    there = _files(plan, sha)
    if set(there) - {".gitattributes", *_FIRST_PAGE.get(plan.kind, ())}:
        raise moved(plan)
    return plan.on(sha, there)


def _commit(plan: Plan) -> Published:
    for _ in range(ATTEMPTS):
        done = _patiently(functools.partial(_send, plan), functools.partial(_landed, plan), plan)
        if isinstance(done, Published):
            return done
        plan = _rebased(plan)
    raise moved(plan)


def _send(plan: Plan) -> Published | None:
    """Commit; None where the branch is no longer at the plan's parent."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    states = {change.path: change.state for change in plan.changes}
    operations: list[Any] = []
    for file in plan.files:
        if states[file.path] in SENT:
            content = file.content if isinstance(file.content, bytes) else str(file.content)
            added = CommitOperationAdd(file.path, content)
            if added.upload_info.sha256.hex() != plan.hashes[file.path][0]:
                raise FinbenchError(f"{file.path} has changed since the plan was made.", "Repeat the command.")
            operations.append(added)
    operations += [CommitOperationDelete(path, is_folder=False) for path in sorted(plan.removals)]
    try:
        made = api().create_commit(
            plan.repo,
            operations,
            commit_message=plan.message,
            repo_type=plan.kind,
            parent_commit=plan.parent,
            create_pr=plan.pull_request,
        )
    except HfHubHTTPError as fault:
        if status_of(fault) in (409, 412) and not plan.pull_request and _head(plan) != plan.parent:
            return _landed(plan)
        raise
    except RuntimeError as fault:  # of an upload, after the client's own retries; what it met is the cause
        if isinstance(fault.__cause__, _faults()):
            raise _given_up(fault.__cause__, plan) from fault
        raise
    except ValueError as fault:  # the Hub finds the card's metadata wrong
        raise FinbenchError(" ".join(str(fault).split())[:400], "Correct the card, then repeat the command.") from fault
    return Published(
        str(made.oid), str(made.pr_url or made.commit_url), True, str(made.pr_url) if made.pr_url else None
    )


def _patiently(action: Callable[[], Any], landed: Callable[[], Any], plan: Plan) -> Any:
    """Try ``action`` until it is done. After a fault that may come from its answer alone, ``landed`` looks first."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except _faults() as fault:
            status = status_of(fault)
            if status and status not in _TRANSIENT:
                raise
            with contextlib.suppress(*_faults()):
                if (found := landed()) is not None:
                    return found
            if attempt == ATTEMPTS:
                raise _given_up(fault, plan) from fault
            pause = min(
                LONGEST_WAIT, retry_after(fault) or min(8.0, 2.0 ** (attempt - 1)) * (0.75 + random.random() / 2)
            )
            what = f"{status or 'no answer'}; trying again in {pause:.0f} s ({attempt} of {ATTEMPTS - 1})"
            say(f"{sentence(plan.address)}: {what}.")
            wait(pause)


def _faults() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    return (HfHubHTTPError, *transport_faults())


def _given_up(fault: BaseException, plan: Plan) -> FinbenchError:
    if status_of(fault):
        return refusal(fault, plan.address, writing=True)
    return Unreachable(
        f"{sentence(plan.address)}: the Hub cannot be reached; nothing half-done is visible there.",
        "Repeat the command: what has arrived is not sent again.",
    )


def _head(plan: Plan, branch: str = "main") -> str:
    return str(api().repo_info(plan.repo, repo_type=plan.kind, revision=branch).sha)


def _files(plan: Plan, sha: str) -> dict[str, Remote]:
    return files(plan.repo, plan.kind, sha)


def _landed(plan: Plan) -> Published | None:
    """The commit of this very plan, if the Hub has it although its answer was lost."""
    if plan.pull_request:
        return _open_request(plan)
    head = _head(plan)
    if head == plan.parent or not _holds(plan, _files(plan, head)):
        return None
    return Published(head, page(plan.repo, plan.kind, "commit", head), True)


def _holds(plan: Plan, there: Mapping[str, Remote]) -> bool:
    """Whether a listing has every file of the plan, and none that it removes."""
    return not plan.removals & there.keys() and all(plan.state(file.path, there) == "unchanged" for file in plan.files)


def _open_request(plan: Plan) -> Published | None:
    """An open pull request of ours that proposes exactly this plan."""
    for found in api().get_repo_discussions(plan.repo, repo_type=plan.kind, discussion_type="pull_request"):
        if found.status in ("open", "draft") and found.title == plan.message:
            sha = _head(plan, f"refs/pr/{found.num}")
            if _holds(plan, _files(plan, sha)):
                url = page(plan.repo, plan.kind, "discussions", str(found.num))
                return Published(sha, url, False, url)
    return None


def _rebased(plan: Plan) -> Plan:
    """The same plan on the new head, if what came between touched none of its files."""
    assert plan.parent is not None
    head = _head(plan)
    before, now = _files(plan, plan.parent), _files(plan, head)
    own = {change.path for change in plan.changes} | plan.removals
    touched = {path for path in {*before, *now} if before.get(path) != now.get(path)}
    if touched & own or any(map(plan.owns, touched)):
        raise moved(plan)
    say(f"{sentence(plan.address)}: another push came first and touched other files; going on from there.")
    return replace(plan, parent=head)


def moved(plan: Plan) -> FinbenchError:
    """The fault of a plan whose repository is no longer at its parent."""
    return FinbenchError(
        f"{sentence(plan.address)} has changed since the plan was made: another push came first.",
        "Look at it, then repeat the command: it plans again. See what it would do: --dry-run",
    )
