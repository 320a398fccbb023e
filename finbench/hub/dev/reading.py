"""What a client may read of a repository: revisions, listings, history, files."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote

from finbench.hub.dev.desk import Answer, Call, Desk
from finbench.hub.dev.store import Refusal, StoredFile, git_oid

PAGE = 1000  # items of a listing before the next page


class Reading:
    """Requests that change nothing."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def info(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        """A repository at a revision."""
        info = self.desk.store.info(kind, repo)
        sha = self.desk.store.resolve(kind, repo, revision)
        siblings = [{"rfilename": path} for path in self.desk.store.tree(kind, repo, sha)]
        stated: dict[str, Any] = {
            "_id": sha[:24],
            "id": repo,
            "modelId": repo,
            "author": repo.partition("/")[0],
            "sha": sha,
        }
        stated |= {"private": info["private"], "gated": info["gated"], "disabled": False, "tags": []}
        stated |= {"downloads": 0, "likes": 0, "createdAt": info["created"], "siblings": siblings}
        return Answer.json(stated | {"lastModified": self.desk.store.commit_of(kind, repo, sha)["date"]})

    def tree(self, call: Call, kind: str, repo: str, revision: str = "main", *below: str) -> Answer:
        """Its files, a page of them."""
        sha = self.desk.store.resolve(kind, repo, revision)
        prefix = "".join(f"{part}/" for part in below)
        tree = {path: e for path, e in self.desk.store.tree(kind, repo, sha).items() if path.startswith(prefix)}
        if below and not tree:
            raise Refusal(404, f"{prefix} does not exist on {revision}", "EntryNotFound")
        items = self._listed(tree, prefix, recursive=call.query.get("recursive") in (["true"], ["True"]))
        start = int(call.query.get("cursor", ["0"])[0])
        page, headers = items[start : start + PAGE], {}
        if len(items) > start + PAGE:
            path = f"/api/{kind}/{repo}/tree/{quote(revision, safe='')}/{prefix}".rstrip("/")
            recursive = call.query.get("recursive", ["false"])[0]
            headers["Link"] = f'<{call.base}{path}?recursive={recursive}&cursor={start + PAGE}>; rel="next"'
        return Answer.json(page, headers=headers)

    def _listed(self, tree: dict[str, StoredFile], prefix: str, *, recursive: bool) -> list[dict[str, Any]]:
        folders = {
            "/".join(path.split("/")[:depth])
            for path in tree
            for depth in range(prefix.count("/") + 1, path.count("/") + 1)
        }
        listed: list[dict[str, Any]] = [
            {"type": "directory", "path": path, "size": 0, "oid": git_oid(path.encode())} for path in sorted(folders)
        ]
        listed += [entry.as_tree(path) for path, entry in tree.items()]
        return listed if recursive else [item for item in listed if "/" not in item["path"].removeprefix(prefix)]

    def refs(self, call: Call, kind: str, repo: str) -> Answer:
        """Branches, tags and pull requests."""
        found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        places = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for ref, sha in self.desk.store.refs(kind, repo).items():
            start = next(start for start in places if ref.startswith(start))
            found[places[start]].append({"name": ref.removeprefix(start), "ref": ref, "targetCommit": sha})
        return Answer.json(found)

    def commits(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        """The history of a revision, newest first."""
        sha: str | None = self.desk.store.resolve(kind, repo, revision)
        found = []
        while sha:
            commit = self.desk.store.commit_of(kind, repo, sha)
            found.append(
                {"id": sha, "title": commit["summary"], "message": commit["description"], "date": commit["date"]}
                | {"authors": [{"user": repo.partition("/")[0]}]}
            )
            sha = commit["parent"]
        return Answer.json(found)

    def check(self, call: Call, kind: str, repo: str) -> Answer:
        """Whether the caller may read a gated repository."""
        if self.desk.store.info(kind, repo)["gated"] and not self.desk.owner(call, repo):
            raise Refusal(403, f"Access to {repo} is restricted", "GatedRepo")
        return Answer.json({})

    def paths(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        """Some files by their paths."""
        if call.body.lstrip().startswith(b"{"):
            wanted = list(call.json().get("paths", []))
        else:
            wanted = parse_qs(call.body.decode()).get("paths", [])
        tree = self.desk.store.tree(kind, repo, self.desk.store.resolve(kind, repo, revision))
        return Answer.json([tree[path].as_tree(path) for path in wanted if path in tree])

    def file(self, call: Call, kind: str, repo: str, revision: str, path: str) -> Answer:
        """The content of a file."""
        info = self.desk.readable(call, kind, repo)
        if info["gated"] and not self.desk.owner(call, repo):
            raise Refusal(401 if call.account is None else 403, f"Access to {repo} is restricted", "GatedRepo")
        sha = self.desk.store.resolve(kind, repo, revision)
        entry = self.desk.store.tree(kind, repo, sha).get(path)
        if entry is None:
            raise Refusal(404, f"{path} does not exist", "EntryNotFound")
        data = self.desk.store.blob(entry.sha256).read_bytes()
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.sha256 if entry.lfs else entry.oid}"'}
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if entry.lfs:
            headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        return Answer(data, 200, headers)
