"""A request and its answer, whose it is, and what that account may do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from finbench.hub.dev.store import Refusal, Store


@dataclass
class DevAccount:
    """Who holds a token. ``orgs``: namespaces besides the own one; ``*`` is every one."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ("*",)


@dataclass
class Call:
    """A request. ``path`` is unquoted piece by piece; ``account`` is None without a token."""

    method: str
    parts: list[str]
    query: dict[str, list[str]]
    body: bytes
    account: DevAccount | None
    base: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as fault:
            raise Refusal(400, "The body is not JSON") from fault
        if not isinstance(value, dict):
            raise Refusal(400, "The body is not an object")
        return value


@dataclass
class Answer:
    """What goes back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """JSON."""
        kind = {"Content-Type": "application/json; charset=utf-8"}
        return cls(json.dumps(value).encode(), status, {**kind, **(headers or {})})


def call(method: str, target: str, body: bytes, account: DevAccount | None, base: str) -> Call:
    """Take a request apart; a quoted slash (refs%2Fpr%2F1) stays inside its part."""
    path, _, query = target.partition("?")
    return Call(method, [unquote(part) for part in path.strip("/").split("/")], parse_qs(query), body, account, base)


def ranged(stated: str, size: int) -> tuple[int, int] | None:
    """(first, last + 1) of a Range header; None for none or one that cannot be met."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", stated.strip())
    if match is None or int(match[1]) >= size:
        return None
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size


class Desk:
    """The store, and who may read and write what in it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def owner(self, call: Call, repo: str) -> bool:
        """Whether the repository lies in a namespace of the caller's."""
        namespace, who = repo.partition("/")[0], call.account
        return who is not None and (namespace == who.name or namespace in who.orgs or "*" in who.orgs)

    def readable(self, call: Call, kind: str, repo: str) -> dict[str, Any]:
        """What is known of a repository that the caller may see; Refused for any other."""
        info = self.store.info(kind, repo)
        if info["private"] and not self.owner(call, repo):
            raise Refusal(401 if call.account is None else 404, "Repository not found", "RepoNotFound")
        return info

    def writable(self, call: Call, repo: str, namespace: bool = True) -> DevAccount:
        """The caller, who may write there (``namespace``: in repositories of the own ones only); else Refused."""
        if call.account is None:
            raise Refusal(401, "Invalid username or password.")
        if call.account.role != "write":
            raise Refusal(403, "Your token has no write permission")
        if namespace and not self.owner(call, repo):
            raise Refusal(403, f"You have no write access to {repo.partition('/')[0]}")
        return call.account
