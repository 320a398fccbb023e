"""How a client changes repositories: create, upload by LFS, commit, tag, settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from finbench.hub.dev.desk import Answer, Call, Desk
from finbench.hub.dev.store import Refusal, is_large


class Writing:
    """Requests that change something; Refused for who may not."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.multipart = 0  # bytes from which uploads come in parts of 1 MiB; 0: never
        self.parts: dict[tuple[str, int], bytes] = {}

    def create(self, call: Call) -> Answer:
        """A new repository."""
        stated = call.json()
        account = self.desk.writable(call, "", namespace=False)
        kind = {"dataset": "datasets", "space": "spaces"}.get(str(stated.get("type")), "models")
        repo = f"{stated.get('organization') or account.name}/{stated.get('name')}"
        self.desk.writable(call, repo)
        if kind == "spaces" and stated.get("sdk") not in ("static", "gradio", "docker"):
            raise Refusal(400, '"sdk" must be one of static, gradio, docker')
        private = bool(stated.get("private")) or stated.get("visibility") == "private"
        url = f"{call.base}/{'' if kind == 'models' else kind + '/'}{repo}"
        try:
            self.desk.store.create(kind, repo, private)
        except Refusal as fault:
            if fault.status != 409:
                raise
            return Answer.json({"error": fault.message, "url": url}, 409)
        return Answer.json({"url": url, "name": repo, "id": repo})

    def preupload(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        """Which of some files go by LFS."""
        self.desk.writable(call, repo, namespace="create_pr" not in call.query)
        tree = self.desk.store.tree(kind, repo, self.desk.store.resolve(kind, repo, revision))
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

    def batch(self, call: Call, kind: str, repo: str, rest: list[str]) -> Answer:
        """Where objects are to be sent that are not here yet."""
        self.desk.readable(call, kind, repo)
        self.desk.writable(call, repo, namespace=False)
        if rest != ["batch"] or call.method != "POST":
            raise Refusal(404, "Not found")
        objects = []
        for item in call.json().get("objects", []):
            oid, size = str(item["oid"]), int(item["size"])
            stated: dict[str, Any] = {"oid": oid, "size": size}
            if not self.desk.store.blob(oid).is_file():
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

    def lfs(self, call: Call, parts: list[str]) -> Answer:
        """An object, in one piece or in parts."""
        if len(parts) < 2:
            raise Refusal(404, "Not found")
        action, oid = parts[:2]
        if (call.method, action) == ("PUT", "put"):
            self.desk.store.put_blob(oid, call.body)
        elif (call.method, action) == ("PUT", "part") and len(parts) == 3:
            self.parts[oid, int(parts[2])] = call.body
            return Answer(headers={"ETag": f'"{hashlib.md5(call.body, usedforsecurity=False).hexdigest()}"'})
        elif (call.method, action) == ("POST", "complete"):
            numbers = [int(part["partNumber"]) for part in call.json().get("parts", [])]
            self.desk.store.put_blob(oid, b"".join(self.parts.pop((oid, number)) for number in sorted(numbers)))
        elif (call.method, action) == ("POST", "verify"):
            size = int(call.json().get("size", -1))
            if not self.desk.store.blob(oid).is_file() or self.desk.store.blob(oid).stat().st_size != size:
                raise Refusal(404, "The object was not uploaded")
        else:
            raise Refusal(404, "Not found")
        return Answer.json({})

    def commit(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        """A commit, or with ``create_pr`` a pull request."""
        pull = call.query.get("create_pr") == ["1"]
        account = self.desk.writable(call, repo, namespace=not pull)
        try:
            lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
        except ValueError as fault:
            raise Refusal(400, "The body is not NDJSON") from fault
        sha, number = self.desk.store.commit(kind, repo, revision, lines, account.name, pull)
        page = f"{call.base}/{'' if kind == 'models' else kind + '/'}{repo}"
        stated = {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}"}
        return Answer.json(stated | ({"pullRequestUrl": f"{page}/discussions/{number}"} if number else {}))

    def tag(self, call: Call, kind: str, repo: str, revision: str = "main") -> Answer:
        """A new tag."""
        self.desk.writable(call, repo)
        sha = self.desk.store.resolve(kind, repo, revision)
        self.desk.store.set_ref(kind, repo, f"refs/tags/{call.json().get('tag')}", sha)
        return Answer.json({})

    def branch(self, call: Call, kind: str, repo: str, branch: str) -> Answer:
        """A new branch."""
        self.desk.writable(call, repo)
        sha = self.desk.store.resolve(kind, repo, str(call.json().get("startingPoint", "main")))
        self.desk.store.set_ref(kind, repo, f"refs/heads/{branch}", sha)
        return Answer.json({})

    def settings(self, call: Call, kind: str, repo: str) -> Answer:
        """Visibility and gate."""
        self.desk.writable(call, repo)
        self.desk.store.settings(kind, repo, call.json())
        return Answer.json({})
