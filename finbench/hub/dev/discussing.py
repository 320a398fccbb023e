"""Discussions and pull requests."""

from __future__ import annotations

from typing import Any

from finbench.hub.dev.desk import Answer, Call, Desk
from finbench.hub.dev.store import Refusal, now


class Discussing:
    """Requests about discussions and pull requests."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def _discussion(self, kind: str, repo: str, found: dict[str, Any]) -> dict[str, Any]:
        stated = {"num": found["num"], "title": found["title"], "status": found["status"], "createdAt": found["date"]}
        stated |= {"author": {"name": found["author"]}, "isPullRequest": found["pull_request"]}
        return stated | {"repo": {"name": repo, "type": kind.removesuffix("s")}}

    def discussions(self, call: Call, kind: str, repo: str, number: str = "") -> Answer:
        """All of them, or one with its events."""
        found = self.desk.store.discussions(kind, repo)
        if not number:
            listed = [self._discussion(kind, repo, one) for one in reversed(found)]
            wanted = {"pull_request": True, "discussion": False}.get(call.query.get("type", [""])[0])
            listed = [one for one in listed if wanted is None or one["isPullRequest"] == wanted]
            return Answer.json({"discussions": listed, "count": len(listed), "start": 0})
        if not number.isdigit() or not 0 < int(number) <= len(found):
            raise Refusal(404, "No such discussion")
        one = found[int(number) - 1]
        event = {"id": f"{int(number):024x}", "type": "comment", "createdAt": one["date"]}
        event |= {"author": {"name": one["author"]}}
        event |= {"data": {"edited": False, "hidden": False, "latest": {"raw": one["description"]}}}
        changes = {"base": "refs/heads/main", "mergeCommitId": one["merged"]}
        stated = self._discussion(kind, repo, one) | {"events": [event], "filesWithConflicts": []}
        return Answer.json(stated | ({"changes": changes} if one["pull_request"] else {}))

    def discuss(self, call: Call, kind: str, repo: str, number: str = "", action: str = "") -> Answer:
        """A new one; or merge, close and reopen."""
        account = self.desk.writable(call, repo, namespace=bool(number))
        if not number:
            stated = call.json()
            pull, title = bool(stated.get("pullRequest")), str(stated.get("title"))
            new = self.desk.store.discuss(
                kind, repo, title, str(stated.get("description")), account.name, pull_request=pull
            )
            if pull:
                self.desk.store.set_ref(kind, repo, f"refs/pr/{new}", self.desk.store.resolve(kind, repo, "main"))
            return Answer.json({"num": new})
        if action == "merge":
            self.desk.store.merge(kind, repo, int(number))
        elif action == "status":
            self.desk.store.set_status(kind, repo, int(number), str(call.json().get("status")))
        else:
            raise Refusal(404, "Not found")
        event = {"id": f"{int(number):024x}", "type": "status-change", "createdAt": now()}
        status = {"status": self.desk.store.discussions(kind, repo)[int(number) - 1]["status"]}
        return Answer.json(
            {"newStatus": {**event, "author": {"name": account.name}, "data": status}, **event, "data": status}
        )
