"""A request and its answer, whose it is, and what that account may do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finbench.hub.dev.store import Refusal, Repository, Store


@dataclass
class DevAccount:
    """Who holds a token. ``orgs``: namespaces besides the own one; ``*`` is every one."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ("*",)


@dataclass
class Call:
    """A request. ``parts``: its path, unquoted piece by piece; ``account`` is None without a token."""

    store: Store
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

    def owns(self, name: str) -> bool:
        """Whether a repository lies in a namespace of the caller's."""
        namespace, who = name.partition("/")[0], self.account
        return who is not None and (namespace == who.name or namespace in who.orgs or "*" in who.orgs)

    def readable(self, kind: str, name: str) -> Repository:
        """A repository that the caller may see; Refusal for any other."""
        repo = self.store.repository(kind, name)
        self.store.check_name(repo)
        if repo.info()["private"] and not self.owns(name):
            raise Refusal(401 if self.account is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def writer(self, name: str = "") -> DevAccount:
        """The caller, who may write, and where a repository is named, into that one; else Refusal."""
        if self.account is None:
            raise Refusal(401, "Invalid username or password.")
        if self.account.role != "write":
            raise Refusal(403, "Your token has no write permission")
        if name and not self.owns(name):
            raise Refusal(403, f"You have no write access to {name.partition('/')[0]}")
        return self.account


@dataclass
class Answer:
    """What goes back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        return cls(json.dumps(value).encode(), status, {**kind, **(headers or {})})
