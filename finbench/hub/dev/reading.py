"""What a client may read of a repository: revisions, listings, history, files, discussions."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote

from finbench.hub.dev.calls import Answer, Call
from finbench.hub.dev.store import Refusal, Repository, git_oid

PAGE = 1000  # items of a listing before the next page


def info(call: Call, repo: Repository, revision: str = "main") -> dict[str, Any]:
    """A repository at a revision."""
    known, sha = repo.info(), repo.resolve(revision)
    stated: dict[str, Any] = {"_id": sha[:24], "sha": sha}
    stated |= {"id": repo.name, "modelId": repo.name, "author": repo.owner}
    stated |= {"private": known["private"], "gated": known["gated"], "disabled": False, "tags": []}
    stated |= {"downloads": 0, "likes": 0, "createdAt": known["created"]}
    stated |= {"siblings": [{"rfilename": path} for path in repo.tree(sha)]}
    return stated | {"lastModified": repo.commit_of(sha)["date"]}


def tree(call: Call, repo: Repository, revision: str = "main", *below: str) -> Answer:
    """Its files, a page of them."""
    prefix = "".join(f"{part}/" for part in below)
    files = {path: e for path, e in repo.tree(repo.resolve(revision)).items() if path.startswith(prefix)}
    if below and not files:
        raise Refusal(404, f"{prefix} does not exist on {revision}", "EntryNotFound")
    folders = {
        "/".join(path.split("/")[:depth])
        for path in files
        for depth in range(prefix.count("/") + 1, path.count("/") + 1)
    }
    items: list[dict[str, Any]] = [
        {"type": "directory", "path": path, "size": 0, "oid": git_oid(path.encode())} for path in sorted(folders)
    ]
    items += [entry.as_tree(path) for path, entry in files.items()]
    recursive = call.query.get("recursive", ["false"])[0]
    if recursive not in ("true", "True"):
        items = [item for item in items if "/" not in item["path"].removeprefix(prefix)]
    start, headers = int(call.query.get("cursor", ["0"])[0]), {}
    if len(items) > start + PAGE:
        path = f"/api/{repo.kind}/{repo.name}/tree/{quote(revision, safe='')}/{prefix}".rstrip("/")
        headers["Link"] = f'<{call.base}{path}?recursive={recursive}&cursor={start + PAGE}>; rel="next"'
    return Answer.json(items[start : start + PAGE], headers=headers)


def refs(call: Call, repo: Repository) -> dict[str, Any]:
    """Branches, tags and pull requests."""
    found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    places = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
    for ref, sha in repo.refs().items():
        start = next(start for start in places if ref.startswith(start))
        found[places[start]].append({"name": ref.removeprefix(start), "ref": ref, "targetCommit": sha})
    return found


def commits(call: Call, repo: Repository, revision: str = "main") -> list[dict[str, Any]]:
    """The history of a revision, newest first."""
    sha: str | None = repo.resolve(revision)
    found = []
    while sha:
        commit = repo.commit_of(sha)
        found.append(
            {"id": sha, "title": commit["summary"], "message": commit["description"], "date": commit["date"]}
            | {"authors": [{"user": repo.owner}]}
        )
        sha = commit["parent"]
    return found


def check(call: Call, repo: Repository, what: str = "read") -> None:
    """Whether the caller may read a gated repository, or ``write`` into one."""
    if what == "write":
        call.writer(repo.name)
    if repo.info()["gated"] and not call.owns(repo.name):
        raise Refusal(403, f"Access to {repo.name} is restricted", "GatedRepo")


def paths(call: Call, repo: Repository, revision: str = "main") -> list[dict[str, Any]]:
    """Some files by their paths."""
    as_json = call.body.lstrip().startswith(b"{")
    wanted = call.json().get("paths", []) if as_json else parse_qs(call.body.decode()).get("paths", [])
    files = repo.tree(repo.resolve(revision))
    return [files[path].as_tree(path) for path in wanted if path in files]


def file(call: Call, repo: Repository, revision: str, path: str) -> Answer:
    """The content of a file."""
    if repo.info()["gated"] and not call.owns(repo.name):
        raise Refusal(401 if call.account is None else 403, f"Access to {repo.name} is restricted", "GatedRepo")
    sha = repo.resolve(revision)
    entry = repo.tree(sha).get(path)
    if entry is None:
        raise Refusal(404, f"{path} does not exist", "EntryNotFound")
    headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.sha256 if entry.lfs else entry.oid}"'}
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if entry.lfs:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    return Answer(call.store.blob(entry.sha256).read_bytes(), 200, headers)


def discussions(call: Call, repo: Repository, number: str = "") -> dict[str, Any]:
    """All discussions and pull requests, or one with its events."""
    found = repo.discussions()
    if not number:
        wanted = {"pull_request": True, "discussion": False}.get(call.query.get("type", [""])[0])
        listed = [_stated(repo, one) for one in reversed(found) if wanted in (None, one["pull_request"])]
        return {"discussions": listed, "count": len(listed), "start": 0}
    if not number.isdigit() or not 0 < int(number) <= len(found):
        raise Refusal(404, "No such discussion")
    one = found[int(number) - 1]
    event = {"id": f"{int(number):024x}", "type": "comment", "createdAt": one["date"]}
    event |= {"author": {"name": one["author"]}}
    event |= {"data": {"edited": False, "hidden": False, "latest": {"raw": one["description"]}}}
    stated = _stated(repo, one) | {"events": [event], "filesWithConflicts": []}
    if one["pull_request"]:
        stated["changes"] = {"base": "refs/heads/main", "mergeCommitId": one["merged"]}
    return stated


def _stated(repo: Repository, found: dict[str, Any]) -> dict[str, Any]:
    stated = {"num": found["num"], "title": found["title"], "status": found["status"], "createdAt": found["date"]}
    stated |= {"author": {"name": found["author"]}, "isPullRequest": found["pull_request"]}
    return stated | {"repo": {"name": repo.name, "type": repo.kind.removesuffix("s")}}
