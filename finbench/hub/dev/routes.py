"""What the development Hub answers: which request goes to whom."""

from __future__ import annotations

from collections.abc import Callable

from finbench.hub.dev.card import card_faults
from finbench.hub.dev.desk import Answer, Call, Desk
from finbench.hub.dev.discussing import Discussing
from finbench.hub.dev.reading import Reading
from finbench.hub.dev.store import Refusal, Store
from finbench.hub.dev.writing import Writing


class Routes:
    """The protocol over a store."""

    def __init__(self, store: Store) -> None:
        self.desk = Desk(store)
        self.reading, self.writing, self.discussing = Reading(self.desk), Writing(self.desk), Discussing(self.desk)

    def answer(self, call: Call) -> Answer:
        """Answer any request; Refused for what is not there or not allowed."""
        parts = call.parts
        if parts[0] == "api":
            return self._api(call, parts[1:])
        if parts[0] == "lfs":
            return self.writing.lfs(call, parts[1:])
        kind = parts[0] if parts[0] in ("datasets", "spaces") else "models"
        rest = parts if kind == "models" else parts[1:]
        if len(rest) >= 5 and rest[1].endswith(".git") and rest[2:5] == ["info", "lfs", "objects"]:
            return self.writing.batch(call, kind, f"{rest[0]}/{rest[1].removesuffix('.git')}", rest[5:])
        if len(rest) >= 5 and rest[2] in ("resolve", "raw") and call.method in ("GET", "HEAD"):
            return self.reading.file(call, kind, "/".join(rest[:2]), rest[3], "/".join(rest[4:]))
        if len(rest) == 2 and call.method in ("GET", "HEAD"):
            self.desk.readable(call, kind, "/".join(rest))
            return Answer(f"{'/'.join(rest)}: a repository of a development Hub\n".encode())
        raise Refusal(404, "Not found")

    def _api(self, call: Call, parts: list[str]) -> Answer:
        if parts == ["whoami-v2"]:
            return self._who(call)
        if parts == ["repos", "create"] and call.method == "POST":
            return self.writing.create(call)
        if parts == ["validate-yaml"] and call.method == "POST":
            stated = call.json()
            faults = card_faults(str(stated.get("content", "")), str(stated.get("repoType") or "model"))
            errors = [{"message": fault} for fault in faults]
            return Answer.json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if len(parts) < 3 or parts[0] not in ("models", "datasets", "spaces"):
            raise Refusal(404, "Not found")
        kind, repo, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        self.desk.readable(call, kind, repo)
        verb = rest[0] if rest else "revision"
        known: dict[tuple[str, str], Callable[..., Answer]] = {
            ("GET", "revision"): self.reading.info,
            ("GET", "tree"): self.reading.tree,
            ("GET", "refs"): self.reading.refs,
            ("GET", "commits"): self.reading.commits,
            ("GET", "auth-check"): self.reading.check,
            ("POST", "paths-info"): self.reading.paths,
            ("POST", "preupload"): self.writing.preupload,
            ("POST", "commit"): self.writing.commit,
            ("POST", "tag"): self.writing.tag,
            ("POST", "branch"): self.writing.branch,
            ("PUT", "settings"): self.writing.settings,
            ("GET", "discussions"): self.discussing.discussions,
            ("POST", "discussions"): self.discussing.discuss,
        }
        if (call.method, verb) not in known:
            raise Refusal(404, "Not found")
        return known[call.method, verb](call, kind, repo, *rest[1:])

    def _who(self, call: Call) -> Answer:
        if call.account is None:
            raise Refusal(401, "Invalid user token.")
        who = call.account
        orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in who.orgs if name != "*"]
        token = {"displayName": "development", "role": who.role}
        return Answer.json(
            {"type": "user", "name": who.name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}
        )
