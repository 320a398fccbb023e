"""What a client may read of a repository: revisions, listings, history, files, discussions."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote

from finbench.core.taskfiles import head_of
from finbench.hub.community import EVAL_YAML, read_yaml, result_faults
from finbench.hub.dev.calls import Answer, Call
from finbench.hub.dev.store import Refusal, Repository, git_oid

PAGE = 1000  # items of a listing before the next page


def info(call: Call, repo: Repository, revision: str = "main") -> dict[str, Any]:
    """A repository at a revision."""
    known, sha = repo.info(), repo.resolve(revision)
    stated: dict[str, Any] = {"_id": sha[:24], "sha": sha}
    stated |= {"id": repo.name, "modelId": repo.name, "author": repo.owner}
    stated |= {"private": known["private"], "gated": known["gated"], "disabled": False}
    stated["tags"] = ["benchmark:official"] if is_benchmark(repo) else []
    if "evalResults" in call.query.get("expand", []):
        stated["evalResults"] = [item for _, item in results(repo)]
    if repo.kind == "datasets" and (readme := repo.tree(sha).get("README.md")):
        head = head_of(repo.store.blob(readme.sha256).read_text(encoding="utf-8", errors="replace"))
        stated["cardData"] = json.loads(json.dumps(head, default=str))
    stated |= {"downloads": 0, "likes": 0, "createdAt": known["created"]}
    stated |= {"siblings": [{"rfilename": path, "size": file.size} for path, file in repo.tree(sha).items()]}
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


def is_benchmark(repo: Repository) -> bool:
    """Whether it counts as a benchmark: a data set that is registered as one, with an ``eval.yaml``."""
    registered = repo.kind == "datasets" and repo.name in repo.store.benchmarks
    return registered and EVAL_YAML in repo.tree(repo.resolve("main"))


def results(repo: Repository) -> list[tuple[str, dict[str, Any]]]:
    """(file, entry as the Hub states it) of what a model has in ``.eval_results``; a wrong file is one entry."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path, file in repo.tree(repo.resolve("main")).items():
        folder, _, name = path.rpartition("/")
        if folder == ".eval_results" and name.endswith(".yaml"):
            text = repo.store.blob(file.sha256).read_text(encoding="utf-8", errors="replace")
            if faults := result_faults(text):
                found.append((path, {"filename": path, "error": "; ".join(faults)}))
            else:
                found += [(path, {"filename": path, "verified": False, "data": one}) for one in read_yaml(text)]
    return found


def leaderboard(call: Call, repo: Repository) -> list[dict[str, Any]]:
    """The results of every model that name this benchmark, the best first; by default of models without a base."""
    if not is_benchmark(repo):
        raise Refusal(404, "This dataset does not have a leaderboard")
    every = call.query.get("base_model", ["true"])[0].lower() == "false"
    entries = []
    for model in call.store.repositories("models"):
        readme = model.tree(model.resolve("main")).get("README.md")
        card = call.store.blob(readme.sha256).read_text(encoding="utf-8") if readme else ""
        derived = re.search(r"^base_model:", card.split("\n---")[0], re.MULTILINE)
        if not model.info()["private"] and (every or not derived):
            entries += [(model, path, item["data"]) for path, item in results(model) if "data" in item]
    tasks = {str(task["id"]) for task in _eval_yaml(call, repo)["tasks"]}
    own = [one for one in entries if one[2]["dataset"]["id"] == repo.name and one[2]["dataset"]["task_id"] in tasks]
    own.sort(key=lambda one: -float(one[2]["value"]))
    return [
        {"rank": rank, "modelId": model.name, "value": data["value"], "filename": path, "verified": False}
        | {"source": data.get("source"), "notes": data.get("notes")}
        | {"author": {"type": "user", "name": model.owner, "fullname": model.owner, "avatarUrl": ""}}
        for rank, (model, path, data) in enumerate(own, 1)
    ]


def _eval_yaml(call: Call, repo: Repository) -> dict[str, Any]:
    file = repo.tree(repo.resolve("main"))[EVAL_YAML]
    return dict(read_yaml(call.store.blob(file.sha256).read_text(encoding="utf-8")))


def benchmarks(call: Call) -> list[dict[str, Any]]:
    """Data sets; only those with every tag that ``filter`` names."""
    seen = [repo for repo in call.store.repositories("datasets") if not repo.info()["private"] or call.owns(repo.name)]
    found = [info(call, repo) for repo in seen]
    return [one for one in found if set(call.query.get("filter", [])) <= set(one["tags"])]
