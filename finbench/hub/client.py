"""Which Hub, as whom, and what its refusals mean: one sentence, and the command that mends it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from finbench.core.errors import FinbenchError

Kind = Literal["model", "dataset", "space"]
OFFICIAL = "https://huggingface.co"
_CONNECT, _ANSWER = 10.0, 120.0  # seconds; the client itself would wait for ever
_BEARER = re.compile(r"bearer\s+\S+", re.IGNORECASE)
_NO_FACTS = (KeyError, TypeError, RecursionError)  # what the client raises of JSON that lacks what a Hub states
_PREFIX: dict[str, str] = {"model": "", "dataset": "datasets/", "space": "spaces/"}
_SPOKEN: dict[str, str] = {"datasets/": "the data set ", "spaces/": "the Space "}


class Unreachable(FinbenchError):
    """No Hub: offline, or no route to it."""


@dataclass(frozen=True)
class Account:
    """Who the token belongs to. ``may_write`` is None where the Hub does not say; ``*`` in ``orgs``: every one."""

    name: str
    orgs: tuple[str, ...]
    may_write: bool | None
    role: str


def endpoint() -> str:
    """The Hub's address: ``$HF_ENDPOINT``, read now and not when a library was imported, else huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or OFFICIAL).rstrip("/")


def shown_endpoint() -> str:
    """The Hub's address for people, cards and names of folders: without a password that ``$HF_ENDPOINT`` may hold."""
    return re.sub(r"(?<=://)[^/]*@", "", endpoint())


def page(repo: str, kind: Kind = "model", *rest: str) -> str:
    """The address of a repository's page on this Hub, or of something below it."""
    return "/".join([shown_endpoint(), f"{_PREFIX[kind]}{repo}", *rest])


def address(repo: str, kind: Kind = "model", revision: str | None = None) -> str:
    """A repository as part of the Hub's addresses, ``datasets/org/name@rev``: what ``explained`` wants."""
    return f"{_PREFIX[kind]}{repo}" + (f"@{revision}" if revision else "")


def api() -> Any:
    """The Hub's own client for this endpoint."""
    from huggingface_hub import HfApi

    from finbench.core.version import __version__

    _patience()
    return HfApi(endpoint=endpoint(), library_name="finbench", library_version=__version__)


@functools.cache
def _patience() -> None:
    """Give the client's session time limits: a Hub that accepts and then is silent must not hang a command."""
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Any:
        made = default_client_factory()
        made.timeout = httpx2.Timeout(_ANSWER, connect=_CONNECT)
        return made

    set_client_factory(client)


def offline() -> bool:
    """Whether the user has switched the network off (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def has_token() -> bool:
    """Whether there is a token, wherever the Hub's client looks for one."""
    from huggingface_hub import get_token

    return get_token() is not None


def account() -> Account | None:
    """Whose token is in use; None without one. Raises Unreachable, and FinbenchError for a token that is refused."""
    if not has_token():
        return None
    with explained("your account"):
        stated = api().whoami()
    token = (stated.get("auth") or {}).get("accessToken") or {}
    role = str(token.get("role") or "unknown")
    orgs = tuple(str(org.get("name")) for org in stated.get("orgs") or [])
    # a fine-grained token lists what it may do for each repository: only a try can tell
    may_write = {"write": True, "read": False}.get(role)
    return Account(str(stated.get("name")), orgs, may_write, role)


def check_account(repo: str, kind: Kind, *, new: bool, proposes: bool) -> None:
    """Refuse without a try what the Hub would refuse of a push: no token, one that only reads, somebody else's place.

    ``new``: there is no such repository yet; ``proposes``: a pull request, for which a token that writes is enough.
    """
    found, said = account(), sentence(address(repo, kind))
    if found is None:
        raise no_token()
    mine = {repo.partition("/")[0], "*"} & {found.name, *found.orgs}
    if found.may_write is False or (new and not mine):
        raise not_allowed(said)
    if not new and not proposes:
        with explained(address(repo, kind), writing=True):
            api().auth_check(repo, repo_type=kind, write=True)


def check_token() -> None:
    """Refuse to write without a token before the Hub, or anything else, is asked."""
    if not has_token():
        raise no_token()


def no_token() -> FinbenchError:
    """The fault of who writes without a token."""
    return FinbenchError("You have no token, and the Hub lets nobody write without one.", "hf auth login")


def not_allowed(said: str) -> FinbenchError:
    """The fault of a token that may not write."""
    return FinbenchError(
        f"{said}: your token may not write there.",
        f"Make one that may at {shown_endpoint()}/settings/tokens, then: hf auth login. Or propose it: --pr",
    )


def _tokens() -> re.Pattern[str]:
    """What has a token's form, or is the user's own one."""
    from huggingface_hub import get_token

    own = get_token() or ""
    return re.compile("hf_[A-Za-z0-9]{12,}" + (f"|{re.escape(own)}" if len(own) > 5 else ""))


def token_free(text: str) -> str:
    """Text without anything that looks like a token of the Hub."""
    return _BEARER.sub("<token>", _tokens().sub("<token>", text.replace(endpoint(), shown_endpoint())))


def holds_token(text: str) -> bool:
    """Whether text has the user's own token, or something of a token's form."""
    return bool(_tokens().search(text))


def status_of(fault: BaseException) -> int:
    """The HTTP status of what the Hub's client raised; 0 where there was no answer."""
    return int(getattr(getattr(fault, "response", None), "status_code", 0) or 0)


def retry_after(fault: BaseException) -> float | None:
    """Seconds that the Hub asks to wait, if it does."""
    headers = getattr(getattr(fault, "response", None), "headers", None) or {}
    stated = str(headers.get("Retry-After", "")).strip()
    return float(stated) if re.fullmatch("[0-9]{1,6}", stated) else None


def transport_faults() -> tuple[type[Exception], ...]:
    """What the client raises when no answer came, or none in good order."""
    import httpx2  # the client of huggingface_hub 2

    return (httpx2.RequestError, ConnectionError, httpx2.StreamError)


@contextlib.contextmanager
def explained(wanted: str, *, writing: bool = False) -> Iterator[None]:
    """What the Hub's client raises, as one line: Unreachable without a network, else FinbenchError.

    ``wanted`` is what ``address`` gives, or words for what is no repository.
    """
    import httpx2
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    unreachable: tuple[type[Exception], ...] = (LocalEntryNotFoundError, *transport_faults())
    try:
        yield
    except HfHubHTTPError as fault:
        raise refusal(fault, wanted, writing=writing) from fault
    except unreachable as fault:
        if isinstance(fault.__cause__, HfHubHTTPError):  # of a download: the Hub has answered, but nothing useful
            raise refusal(fault.__cause__, wanted, writing=writing) from fault
        raise _unreachable(fault, wanted, writing) from fault
    except (FileMetadataError, json.JSONDecodeError, httpx2.InvalidURL, UnicodeError, *_NO_FACTS) as fault:
        raise no_hub() from fault
    except HFValidationError as fault:
        raise FinbenchError(f"Not a name of the Hub: {wanted[:100]!r}.", "Write hub:org/name.") from fault


def no_hub() -> FinbenchError:
    """The fault for an endpoint that is something else, or no address at all."""
    said = f"{shown_endpoint()[:200]} does not answer as a Hub does."
    return FinbenchError(said, "Correct HF_ENDPOINT, or unset it: unset HF_ENDPOINT")


def _unreachable(fault: BaseException, wanted: str, writing: bool) -> FinbenchError:
    import httpx2

    if isinstance(fault, httpx2.TooManyRedirects):
        said = f"{shown_endpoint()} redirects in circles for {named(wanted)}."
        return FinbenchError(said, "Is HF_ENDPOINT right? Repeat later.")
    the_hub = "the Hub" if endpoint() == OFFICIAL or offline() else f"the Hub at {shown_endpoint()} (HF_ENDPOINT)"
    if "/" not in wanted:
        return Unreachable(
            f"{sentence(wanted)} is unknown and {the_hub} cannot be reached.",
            "With a network, and without HF_HUB_OFFLINE, repeat the command.",
        )
    if writing:
        off = "It is switched off: unset HF_HUB_OFFLINE" if offline() else "Repeat the command with a network"
        return Unreachable(
            f"{sentence(wanted)}: {the_hub} cannot be reached.",
            f"{off}. To see what would be sent: --dry-run",
        )
    download = re.sub("^(dataset|space)s/(.*)", r"\2 --repo-type \1", wanted.partition("@")[0])
    return Unreachable(
        f"{sentence(wanted)} is not in the local cache and {the_hub} cannot be reached.",
        f"With a network: hf download {download}. Or name local files.",
    )


def named(wanted: str) -> str:
    """What ``address`` gives as people say it: ``the data set hub:org/name@rev``."""
    for prefix, spoken in _SPOKEN.items():
        if wanted.startswith(prefix):
            return f"{spoken}hub:{wanted.removeprefix(prefix)}"
    return f"hub:{wanted}" if "/" in wanted else wanted


def sentence(wanted: str) -> str:
    """``named`` as the begin of a sentence."""
    text = named(wanted)
    return text if text.startswith("hub:") else text[0].upper() + text[1:]


def refusal(fault: BaseException, wanted: str, *, writing: bool = False) -> FinbenchError:
    """A refusal of the Hub as one sentence and the command that mends it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status, shown = status_of(fault), sentence(wanted)
    if isinstance(fault, GatedRepoError):
        where = f"{shown_endpoint()}/{wanted.partition('@')[0]}"
        return FinbenchError(f"{shown} is gated.", f"Ask for access at {where}, then: hf auth login")
    if isinstance(fault, RevisionNotFoundError):
        return FinbenchError(f"{shown}: no such revision.", "Name a commit, a branch or a tag of it.")
    said = str(getattr(fault, "server_message", None) or "")
    if status == 401 and re.search("credentials|user token", said + str(fault), re.IGNORECASE):
        return FinbenchError("The Hub does not know your token.", "Log in again: hf auth login")
    if writing and not has_token():
        return no_token()
    if isinstance(fault, RepositoryNotFoundError) or status == 404:
        if not has_token():
            return FinbenchError(
                f"{shown} does not exist, or it is private: you have no token, so only what is public is shown to you.",
                "Correct the name; or hf auth login",
            )
        return FinbenchError(
            f"{shown} does not exist, or it is private and you have no access.",
            "hf auth whoami shows who you are logged in as",
        )
    if status == 403 and writing:
        return not_allowed(shown)
    known = {
        401: ("{0}: the Hub wants to know who you are.", "hf auth login"),
        403: (
            "{0}: your token may not read it.",
            f"Make one that may at {shown_endpoint()}/settings/tokens, then: hf auth login",
        ),
        409: ("{0}: the Hub is busy with another change of it.", "Repeat the command in a minute."),
        412: ("{0} has changed since the plan was made.", "Repeat the command: it plans again."),
        429: ("{0}: the Hub has had too many requests from you.", f"Repeat in {retry_after(fault) or 60:.0f} seconds."),
    }
    if status in known:
        message, hint = known[status]
        return FinbenchError(message.format(shown), hint)
    reason = token_free(next(iter((said or str(fault)).strip().splitlines()), "nothing"))[:300]
    return FinbenchError(f"{shown}: the Hub answered {status or 'badly'}: {reason}", "Repeat the command; it resumes.")


@contextlib.contextmanager
def data_explained(path: str) -> Iterator[None]:
    """``explained`` for what the datasets library raises besides."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        with explained(address(path, "dataset")):
            yield
    except DatasetNotFoundError as fault:
        raise FinbenchError(
            f"hub:{path} does not exist, or it is private and you are not logged in.", "hf auth login"
        ) from fault
    except (DatasetsError, ValueError) as fault:  # ValueError: no such configuration or split
        reason = str(fault).splitlines()[0]
        raise FinbenchError(f"hub:{path}: cannot be read: {reason}", "Import it from files instead.") from fault


def dataset_sha(path: str, ref: str) -> str:
    """The commit that a branch of a data set's repository is at; of a commit itself."""
    try:
        with explained(address(path, "dataset")):
            found = str(api().dataset_info(path, revision=ref, timeout=10).sha)
            if re.fullmatch("[0-9a-f]{40}", ref) and found != ref:
                raise FinbenchError(f"hub:{path}@{ref}: the Hub answered with commit {found}.", "Is HF_ENDPOINT right?")
            return found
    except Unreachable as fault:
        fault.hint = "Repeat the command with a network."
        raise
