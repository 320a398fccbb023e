"""What the development Hub answers: which request goes to whom."""

from __future__ import annotations

from collections.abc import Callable

from finbench.hub.dev import reading, writing
from finbench.hub.dev.calls import Answer, Call
from finbench.hub.dev.card import card_faults
from finbench.hub.dev.store import Refusal

_OF_A_REPOSITORY: dict[tuple[str, str], Callable[..., Answer]] = {
    ("GET", "revision"): reading.info,
    ("GET", "tree"): reading.tree,
    ("GET", "refs"): reading.refs,
    ("GET", "commits"): reading.commits,
    ("GET", "auth-check"): reading.check,
    ("GET", "discussions"): reading.discussions,
    ("POST", "paths-info"): reading.paths,
    ("POST", "preupload"): writing.preupload,
    ("POST", "commit"): writing.commit,
    ("POST", "tag"): writing.tag,
    ("POST", "branch"): writing.branch,
    ("POST", "discussions"): writing.discuss,
    ("PUT", "settings"): writing.settings,
}


def answer(call: Call) -> Answer:
    """Answer any request; Refusal for what is not there or not allowed."""
    parts = call.parts
    if parts[0] == "api":
        return _api(call, parts[1:])
    if parts[0] == "lfs" and len(parts) > 2:
        return writing.lfs(call, *parts[1:4])
    kind = parts[0] if parts[0] in ("datasets", "spaces") else "models"
    rest = parts if kind == "models" else parts[1:]
    name, rest, reads = "/".join(rest[:2]), rest[2:], call.method in ("GET", "HEAD")
    if rest == ["info", "lfs", "objects", "batch"] and name.endswith(".git") and call.method == "POST":
        return writing.batch(call, call.readable(kind, name.removesuffix(".git")))
    if len(rest) > 2 and rest[0] in ("resolve", "raw") and reads:
        return reading.file(call, call.readable(kind, name), rest[1], "/".join(rest[2:]))
    if "/" in name and not rest and reads:
        return Answer(f"{call.readable(kind, name).name}: a repository of a development Hub\n".encode())
    raise Refusal(404, "Not found")


def _api(call: Call, parts: list[str]) -> Answer:
    if parts == ["whoami-v2"]:
        return _who(call)
    if parts == ["repos", "create"] and call.method == "POST":
        return writing.create(call)
    if parts == ["validate-yaml"] and call.method == "POST":
        stated = call.json()
        faults = card_faults(str(stated.get("content", "")), str(stated.get("repoType") or "model"))
        errors = [{"message": fault} for fault in faults]
        return Answer.json({"errors": errors, "warnings": []}, 400 if errors else 200)
    if len(parts) < 3 or parts[0] not in ("models", "datasets", "spaces"):
        raise Refusal(404, "Not found")
    repo = call.readable(parts[0], "/".join(parts[1:3]))
    verb = parts[3] if len(parts) > 3 else "revision"
    if (call.method, verb) not in _OF_A_REPOSITORY:
        raise Refusal(404, "Not found")
    return _OF_A_REPOSITORY[call.method, verb](call, repo, *parts[4:])


def _who(call: Call) -> Answer:
    who = call.account
    if who is None:
        raise Refusal(401, "Invalid user token.")
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in who.orgs if name != "*"]
    token = {"displayName": "development", "role": who.role}
    return Answer.json(
        {"type": "user", "name": who.name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}
    )
