"""What the development Hub answers: one function for each request of the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from finbench.devhub.card import card_faults
from finbench.devhub.store import Entry, Refused, Store, git_oid, is_large, now

PAGE = 1000  # items of a listing before the next page


@dataclass
class Account:
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
    account: Account | None
    base: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as fault:
            raise Refused(400, "The body is not JSON") from fault
        if not isinstance(value, dict):
            raise Refused(400, "The body is not an object")
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


def call(method: str, target: str, body: bytes, account: Account | None, base: str) -> Call:
    """Take a request apart; a quoted slash (refs%2Fpr%2F1) stays inside its part."""
    path, _, query = target.partition("?")
    return Call(method, [unquote(part) for part in path.strip("/").split("/")], parse_qs(query), body, account, base)


class Routes:
    """The protocol over a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.multipart = 0  # bytes from which uploads come in parts of 1 MiB; 0: never
        self.parts: dict[tuple[str, int], bytes] = {}

    def answer(self, call: Call) -> Answer:
        """Answer any request; Refused for what is not there or not allowed."""
        parts = call.parts
        if parts[0] == "api":
            return self._api(call, parts[1:])
        if parts[0] == "lfs":
            return self._lfs(call, parts[1:])
        kind = parts[0] if parts[0] in ("datasets", "spaces") else "models"
        rest = parts if kind == "models" else parts[1:]
        if len(rest) >= 5 and rest[1].endswith(".git") and rest[2:5] == ["info", "lfs", "objects"]:
            return self._batch(call, kind, f"{rest[0]}/{rest[1].removesuffix('.git')}", rest[5:])
        if len(rest) >= 5 and rest[2] in ("resolve", "raw") and call.method in ("GET", "HEAD"):
            return self._file(call, kind, "/".join(rest[:2]), rest[3], "/".join(rest[4:]))
        if len(rest) == 2 and call.method in ("GET", "HEAD"):
            self._readable(call, kind, "/".join(rest))
            return Answer(f"{'/'.join(rest)}: a repository of a development Hub\n".encode())
        raise Refused(404, "Not found")

    # ------------------------------------------------------------ who may do what

    def _owner(self, call: Call, repo: str) -> bool:
        namespace, who = repo.partition("/")[0], call.account
        return who is not None and (namespace == who.name or namespace in who.orgs or "*" in who.orgs)

    def _readable(self, call: Call, kind: str, repo: str) -> dict[str, Any]:
        info = self.store.info(kind, repo)
        if info["private"] and not self._owner(call, repo):
            raise Refused(401 if call.account is None else 404, "Repository not found", "RepoNotFound")
        return info

    def _writable(self, call: Call, repo: str, namespace: bool = True) -> Account:
        if call.account is None:
            raise Refused(401, "Invalid username or password.")
        if call.account.role != "write":
            raise Refused(403, "Your token has no write permission")
        if namespace and not self._owner(call, repo):
            raise Refused(403, f"You have no write access to {repo.partition('/')[0]}")
        return call.account

    # ------------------------------------------------------------ /api

    def _api(self, call: Call, parts: list[str]) -> Answer:
        if parts == ["whoami-v2"]:
            return self._who(call)
        if parts == ["repos", "create"] and call.method == "POST":
            return self._create(call)
        if parts == ["validate-yaml"] and call.method == "POST":
            stated = call.json()
            faults = card_faults(str(stated.get("content", "")), str(stated.get("repoType") or "model"))
            errors = [{"message": fault} for fault in faults]
            return Answer.json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if len(parts) < 3 or parts[0] not in ("models", "datasets", "spaces"):
            raise Refused(404, "Not found")
        kind, repo, rest = parts[0], "/".join(parts[1:3]), parts[3:]
        self._readable(call, kind, repo)
        verb = rest[0] if rest else "revision"
        known: dict[tuple[str, str], Callable[..., Answer]] = {
            ("GET", "revision"): self._info,
            ("GET", "tree"): self._tree,
            ("GET", "refs"): self._refs,
            ("GET", "commits"): self._commits,
            ("GET", "auth-check"): self._check,
            ("POST", "paths-info"): self._paths,
            ("POST", "preupload"): self._preupload,
            ("POST", "commit"): self._commit,
            ("POST", "tag"): self._tag,
            ("POST", "branch"): self._branch,
            ("PUT", "settings"): self._settings,
            ("GET", "discussions"): self._discussions,
            ("POST", "discussions"): self._discuss,
        }
        if (call.method, verb) not in known:
            raise Refused(404, "Not found")
        return known[call.method, verb](call, kind, repo, *rest[1:])

    def _who(self, call: Call) -> Answer:
        if call.account is None:
            raise Refused(401, "Invalid user token.")
        who = call.account
        orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in who.orgs if name != "*"]
        token = {"displayName": "development", "role": who.role}
        return Answer.json(
            {"type": "user", "name": who.name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}
        )

    def _create(self, call: Call) -> Answer:
        stated = call.json()
        account = self._writable(call, "", namespace=False)
        kind = {"dataset": "datasets", "space": "spaces"}.get(str(stated.get("type")), "models")
        repo = f"{stated.get('organization') or account.name}/{stated.get('name')}"
        self._writable(call, repo)
        if kind == "spaces" and stated.get("sdk") not in ("static", "gradio", "docker"):
            raise Refused(400, '"sdk" must be one of static, gradio, docker')
        private = bool(stated.get("private")) or stated.get("visibility") == "private"
        url = f"{call.base}/{'' if kind == 'models' else kind + '/'}{repo}"
        try:
            self.store.create(kind, repo, private)
        except Refused as fault:
            if fault.status != 409:
                raise
            return Answer.json({"error": fault.message, "url": url}, 409)
        return Answer.json({"url": url, "name": repo, "id": repo})

    def _info(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        info = self.store.info(kind, repo)
        sha = self.store.resolve(kind, repo, revision)
        siblings = [{"rfilename": path} for path in self.store.tree(kind, repo, sha)]
        stated: dict[str, Any] = {
            "_id": sha[:24],
            "id": repo,
            "modelId": repo,
            "author": repo.partition("/")[0],
            "sha": sha,
        }
        stated |= {"private": info["private"], "gated": info["gated"], "disabled": False, "tags": []}
        stated |= {"downloads": 0, "likes": 0, "createdAt": info["created"], "siblings": siblings}
        return Answer.json(stated | {"lastModified": self.store.commit_of(kind, repo, sha)["date"]})

    def _tree(self, call: Call, kind: str, repo: str, revision: str = "main", *below: str) -> Answer:
        sha = self.store.resolve(kind, repo, revision)
        prefix = "".join(f"{part}/" for part in below)
        tree = {path: e for path, e in self.store.tree(kind, repo, sha).items() if path.startswith(prefix)}
        if below and not tree:
            raise Refused(404, f"{prefix} does not exist on {revision}", "EntryNotFound")
        items = self._listed(tree, prefix, recursive=call.query.get("recursive") in (["true"], ["True"]))
        start = int(call.query.get("cursor", ["0"])[0])
        page, headers = items[start : start + PAGE], {}
        if len(items) > start + PAGE:
            path = f"/api/{kind}/{repo}/tree/{quote(revision, safe='')}/{prefix}".rstrip("/")
            recursive = call.query.get("recursive", ["false"])[0]
            headers["Link"] = f'<{call.base}{path}?recursive={recursive}&cursor={start + PAGE}>; rel="next"'
        return Answer.json(page, headers=headers)

    def _listed(self, tree: dict[str, Entry], prefix: str, *, recursive: bool) -> list[dict[str, Any]]:
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

    def _refs(self, call: Call, kind: str, repo: str) -> Answer:
        found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        places = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for ref, sha in self.store.refs(kind, repo).items():
            start = next(start for start in places if ref.startswith(start))
            found[places[start]].append({"name": ref.removeprefix(start), "ref": ref, "targetCommit": sha})
        return Answer.json(found)

    def _commits(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        sha: str | None = self.store.resolve(kind, repo, revision)
        found = []
        while sha:
            commit = self.store.commit_of(kind, repo, sha)
            found.append(
                {"id": sha, "title": commit["summary"], "message": commit["description"], "date": commit["date"]}
                | {"authors": [{"user": repo.partition("/")[0]}]}
            )
            sha = commit["parent"]
        return Answer.json(found)

    def _check(self, call: Call, kind: str, repo: str) -> Answer:
        if self.store.info(kind, repo)["gated"] and not self._owner(call, repo):
            raise Refused(403, f"Access to {repo} is restricted", "GatedRepo")
        return Answer.json({})

    def _paths(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        if call.body.lstrip().startswith(b"{"):
            wanted = list(call.json().get("paths", []))
        else:
            wanted = parse_qs(call.body.decode()).get("paths", [])
        tree = self.store.tree(kind, repo, self.store.resolve(kind, repo, revision))
        return Answer.json([tree[path].as_tree(path) for path in wanted if path in tree])

    # ------------------------------------------------------------ writing

    def _preupload(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        self._writable(call, repo, namespace="create_pr" not in call.query)
        tree = self.store.tree(kind, repo, self.store.resolve(kind, repo, revision))
        files = []
        for item in call.json().get("files", []):
            path = str(item["path"])
            large = is_large(path, int(item["size"]))
            known = tree.get(path)
            files.append(
                {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                | ({"oid": known.sha256 if known.lfs else known.oid} if known else {})
            )
        return Answer.json({"files": files})

    def _batch(self, call: Call, kind: str, repo: str, rest: list[str]) -> Answer:
        self._readable(call, kind, repo)
        self._writable(call, repo, namespace=False)
        if rest != ["batch"] or call.method != "POST":
            raise Refused(404, "Not found")
        objects = []
        for item in call.json().get("objects", []):
            oid, size = str(item["oid"]), int(item["size"])
            stated: dict[str, Any] = {"oid": oid, "size": size}
            if not self.store.blob(oid).is_file():
                header, action = {}, "put"
                if self.multipart and size > self.multipart:
                    count, action = -(-size // 2**20), "complete"
                    header = {"chunk_size": str(2**20)}
                    header |= {str(n): f"{call.base}/lfs/part/{oid}/{n}" for n in range(1, count + 1)}
                verify = {"href": f"{call.base}/lfs/verify/{oid}"}
                upload = {"href": f"{call.base}/lfs/{action}/{oid}", "header": header}
                stated["actions"] = {"upload": upload, "verify": verify}
            objects.append(stated)
        return Answer.json({"transfer": "multipart" if self.multipart else "basic", "objects": objects})

    def _lfs(self, call: Call, parts: list[str]) -> Answer:
        if len(parts) < 2:
            raise Refused(404, "Not found")
        action, oid = parts[:2]
        if (call.method, action) == ("PUT", "put"):
            self.store.put_blob(oid, call.body)
        elif (call.method, action) == ("PUT", "part") and len(parts) == 3:
            self.parts[oid, int(parts[2])] = call.body
            return Answer(headers={"ETag": f'"{hashlib.md5(call.body, usedforsecurity=False).hexdigest()}"'})
        elif (call.method, action) == ("POST", "complete"):
            numbers = [int(part["partNumber"]) for part in call.json().get("parts", [])]
            self.store.put_blob(oid, b"".join(self.parts.pop((oid, number)) for number in sorted(numbers)))
        elif (call.method, action) == ("POST", "verify"):
            size = int(call.json().get("size", -1))
            if not self.store.blob(oid).is_file() or self.store.blob(oid).stat().st_size != size:
                raise Refused(404, "The object was not uploaded")
        else:
            raise Refused(404, "Not found")
        return Answer.json({})

    def _commit(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        pull = call.query.get("create_pr") == ["1"]
        account = self._writable(call, repo, namespace=not pull)
        try:
            lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
        except ValueError as fault:
            raise Refused(400, "The body is not NDJSON") from fault
        sha, number = self.store.commit(kind, repo, revision, lines, account.name, pull)
        page = f"{call.base}/{'' if kind == 'models' else kind + '/'}{repo}"
        stated = {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}"}
        return Answer.json(stated | ({"pullRequestUrl": f"{page}/discussions/{number}"} if number else {}))

    def _tag(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        self._writable(call, repo)
        sha = self.store.resolve(kind, repo, revision)
        self.store.set_ref(kind, repo, f"refs/tags/{call.json().get('tag')}", sha)
        return Answer.json({})

    def _branch(self, call: Call, kind: str, repo: str, branch: str) -> Answer:
        self._writable(call, repo)
        sha = self.store.resolve(kind, repo, str(call.json().get("startingPoint", "main")))
        self.store.set_ref(kind, repo, f"refs/heads/{branch}", sha)
        return Answer.json({})

    def _settings(self, call: Call, kind: str, repo: str) -> Answer:
        self._writable(call, repo)
        self.store.settings(kind, repo, call.json())
        return Answer.json({})

    # ------------------------------------------------------------ reading files

    def _file(self, call: Call, kind: str, repo: str, revision: str, path: str) -> Answer:
        info = self._readable(call, kind, repo)
        if info["gated"] and not self._owner(call, repo):
            raise Refused(401 if call.account is None else 403, f"Access to {repo} is restricted", "GatedRepo")
        sha = self.store.resolve(kind, repo, revision)
        entry = self.store.tree(kind, repo, sha).get(path)
        if entry is None:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        data = self.store.blob(entry.sha256).read_bytes()
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.sha256 if entry.lfs else entry.oid}"'}
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if entry.lfs:
            headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        return Answer(data, 200, headers)

    # ------------------------------------------------------------ discussions

    def _discussion(self, kind: str, repo: str, found: dict[str, Any]) -> dict[str, Any]:
        stated = {"num": found["num"], "title": found["title"], "status": found["status"], "createdAt": found["date"]}
        stated |= {"author": {"name": found["author"]}, "isPullRequest": found["pull_request"]}
        return stated | {"repo": {"name": repo, "type": kind.removesuffix("s")}}

    def _discussions(self, call: Call, kind: str, repo: str, number: str = "") -> Answer:
        found = self.store.discussions(kind, repo)
        if not number:
            listed = [self._discussion(kind, repo, one) for one in reversed(found)]
            wanted = {"pull_request": True, "discussion": False}.get(call.query.get("type", [""])[0])
            listed = [one for one in listed if wanted is None or one["isPullRequest"] == wanted]
            return Answer.json({"discussions": listed, "count": len(listed), "start": 0})
        if not number.isdigit() or not 0 < int(number) <= len(found):
            raise Refused(404, "No such discussion")
        one = found[int(number) - 1]
        event = {"id": f"{int(number):024x}", "type": "comment", "createdAt": one["date"]}
        event |= {"author": {"name": one["author"]}}
        event |= {"data": {"edited": False, "hidden": False, "latest": {"raw": one["description"]}}}
        changes = {"base": "refs/heads/main", "mergeCommitId": one["merged"]}
        stated = self._discussion(kind, repo, one) | {"events": [event], "filesWithConflicts": []}
        return Answer.json(stated | ({"changes": changes} if one["pull_request"] else {}))

    def _discuss(self, call: Call, kind: str, repo: str, number: str = "", action: str = "") -> Answer:
        account = self._writable(call, repo, namespace=bool(number))
        if not number:
            stated = call.json()
            pull, title = bool(stated.get("pullRequest")), str(stated.get("title"))
            new = self.store.discuss(kind, repo, title, str(stated.get("description")), account.name, pull_request=pull)
            if pull:
                self.store.set_ref(kind, repo, f"refs/pr/{new}", self.store.resolve(kind, repo, "main"))
            return Answer.json({"num": new})
        if action == "merge":
            self.store.merge(kind, repo, int(number))
        elif action == "status":
            self.store.set_status(kind, repo, int(number), str(call.json().get("status")))
        else:
            raise Refused(404, "Not found")
        event = {"id": f"{int(number):024x}", "type": "status-change", "createdAt": now()}
        status = {"status": self.store.discussions(kind, repo)[int(number) - 1]["status"]}
        return Answer.json(
            {"newStatus": {**event, "author": {"name": account.name}, "data": status}, **event, "data": status}
        )


def ranged(stated: str, size: int) -> tuple[int, int] | None:
    """(first, last + 1) of a Range header; None for none or one that cannot be met."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", stated.strip())
    if match is None or int(match[1]) >= size:
        return None
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
