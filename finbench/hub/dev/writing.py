"""How a client changes repositories: create, upload by LFS, commit, tag, discuss, settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from finbench.hub.dev.calls import Answer, Call
from finbench.hub.dev.store import Refusal, Repository, is_large, now


def create(call: Call) -> Any:
    """A new repository."""
    stated = call.json()
    account = call.writer()
    kind = _kind(stated)
    name = f"{stated.get('organization') or account.name}/{stated.get('name')}"
    call.writer(name)
    if kind == "spaces" and stated.get("sdk") not in ("static", "gradio", "docker"):
        raise Refusal(400, '"sdk" must be one of static, gradio, docker')
    repo = call.store.repository(kind, name)
    url = f"{call.base}/{repo.page}"
    try:
        repo.create(private=bool(stated.get("private")) or stated.get("visibility") == "private")
    except Refusal as fault:
        return Answer.json({"error": fault.message, "url": url}, fault.status)
    return {"url": url, "name": name, "id": name}


def _kind(stated: dict[str, Any]) -> str:
    return {"dataset": "datasets", "space": "spaces"}.get(str(stated.get("type")), "models")


def move(call: Call) -> None:
    """Another name, in any namespace that the caller may write to."""
    stated = call.json()
    old, new = str(stated["fromRepo"]), str(stated["toRepo"])
    call.writer(old)
    call.writer(new)
    call.store.move(call.readable(_kind(stated), old), new)


def preupload(call: Call, repo: Repository, revision: str = "main") -> dict[str, Any]:
    """Which of some files go by LFS."""
    call.writer("" if "create_pr" in call.query else repo.name)
    tree = repo.tree(repo.resolve(revision))
    files = []
    for item in call.json().get("files", []):
        path = str(item["path"])
        mode = "lfs" if is_large(path, int(item["size"])) else "regular"
        stated = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if known := tree.get(path):
            stated["oid"] = known.sha256 if known.lfs else known.oid
        files.append(stated)
    return {"files": files}


def batch(call: Call, repo: Repository) -> dict[str, Any]:
    """Where objects are to be sent that are not here yet."""
    call.writer()
    objects = []
    for item in call.json().get("objects", []):
        oid, size = str(item["oid"]), int(item["size"])
        stated: dict[str, Any] = {"oid": oid, "size": size}
        if not call.store.blob(oid).is_file():
            header, action = {}, "put"
            if call.store.multipart and size > call.store.multipart:
                count, action = -(-size // 2**20), "complete"
                header = {"chunk_size": str(2**20)}
                header |= {str(n): f"{call.base}/lfs/part/{oid}/{n}" for n in range(1, count + 1)}
            verify = {"href": f"{call.base}/lfs/verify/{oid}"}
            upload = {"href": f"{call.base}/lfs/{action}/{oid}", "header": header}
            stated["actions"] = {"upload": upload, "verify": verify}
        objects.append(stated)
    return {"transfer": "multipart" if call.store.multipart else "basic", "objects": objects}


def lfs(call: Call, action: str = "", oid: str = "", number: str = "") -> Answer | None:
    """An object, in one piece or in parts."""
    store, verb = call.store, (call.method, action)
    if verb == ("PUT", "put"):
        store.put_blob(oid, call.body)
    elif verb == ("PUT", "part"):
        store.parts[oid, int(number)] = call.body
        return Answer(headers={"ETag": f'"{hashlib.md5(call.body, usedforsecurity=False).hexdigest()}"'})
    elif verb == ("POST", "complete"):
        numbers = [int(part["partNumber"]) for part in call.json().get("parts", [])]
        store.put_blob(oid, b"".join(store.parts.pop((oid, number)) for number in sorted(numbers)))
    elif verb == ("POST", "verify"):
        if not store.blob(oid).is_file() or store.blob(oid).stat().st_size != int(call.json().get("size", -1)):
            raise Refusal(404, "The object was not uploaded")
    else:
        raise Refusal(404, "Not found")
    return None


def commit(call: Call, repo: Repository, revision: str = "main") -> dict[str, Any]:
    """A commit, or with ``create_pr`` a pull request."""
    pull = call.query.get("create_pr") == ["1"]
    account = call.writer("" if pull else repo.name)
    try:
        lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    except ValueError as fault:
        raise Refusal(400, "The body is not NDJSON") from fault
    sha, number = repo.commit(revision, lines, account.name, pull)
    page = f"{call.base}/{repo.page}"
    stated = {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}"}
    return stated | ({"pullRequestUrl": f"{page}/discussions/{number}"} if number else {})


def tag(call: Call, repo: Repository, revision: str = "main") -> None:
    """A new tag."""
    call.writer(repo.name)
    repo.add_ref(f"refs/tags/{call.json().get('tag')}", repo.resolve(revision))


def branch(call: Call, repo: Repository, name: str) -> None:
    """A new branch."""
    call.writer(repo.name)
    repo.add_ref(f"refs/heads/{name}", repo.resolve(str(call.json().get("startingPoint", "main"))))


def settings(call: Call, repo: Repository) -> None:
    """Visibility and gate."""
    call.writer(repo.name)
    repo.change(call.json())


def discuss(call: Call, repo: Repository, number: str = "", action: str = "") -> dict[str, Any]:
    """A new discussion or pull request; or merge, close and reopen."""
    account = call.writer(repo.name if number else "")
    if not number:
        stated = call.json()
        pull, title = bool(stated.get("pullRequest")), str(stated.get("title"))
        new = repo.discuss(title, str(stated.get("description")), account.name, pull_request=pull)
        if pull:
            repo.add_ref(f"refs/pr/{new}", repo.resolve("main"))
        return {"num": new}
    if action == "merge":
        repo.merge(int(number))
    elif action == "status":
        repo.set_status(int(number), str(call.json().get("status")))
    else:
        raise Refusal(404, "Not found")
    status = repo.discussions()[int(number) - 1]["status"]
    event = {"id": f"{int(number):024x}", "type": "status-change", "createdAt": now(), "data": {"status": status}}
    return {"newStatus": {**event, "author": {"name": account.name}}, **event}
