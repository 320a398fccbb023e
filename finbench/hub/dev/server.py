"""The development Hub over HTTP, on this machine only: which request goes to whom."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import parse_qs, unquote

from finbench.hub.dev import reading, writing
from finbench.hub.dev.calls import Answer, Call, DevAccount
from finbench.hub.dev.card import card_faults
from finbench.hub.dev.faults import HOSTILE_NAMES, Fault, Faults
from finbench.hub.dev.store import Moved, Refusal, Store

TOKEN = "hf_development"  # of the account `dev`, which may write everywhere
_OF_A_REPOSITORY: dict[tuple[str, str], Callable[..., Any]] = {
    ("GET", "revision"): reading.info,
    ("GET", "tree"): reading.tree,
    ("GET", "refs"): reading.refs,
    ("GET", "commits"): reading.commits,
    ("GET", "auth-check"): reading.check,
    ("GET", "leaderboard"): reading.leaderboard,
    ("GET", "discussions"): reading.discussions,
    ("POST", "paths-info"): reading.paths,
    ("POST", "preupload"): writing.preupload,
    ("POST", "commit"): writing.commit,
    ("POST", "tag"): writing.tag,
    ("POST", "branch"): writing.branch,
    ("POST", "discussions"): writing.discuss,
    ("PUT", "settings"): writing.settings,
}


class DevHub(ThreadingHTTPServer):
    """A Hub on ``http://127.0.0.1:<port>`` over the folder ``root``; port 0 takes a free one.

    ``tokens`` maps tokens to accounts. ``requests`` lists "METHOD path" of every request so far. ``watch`` is called
    with (number of the request, "before" or "after" it is done, "METHOD path"); tests kill a client there.
    """

    def __init__(self, root: Path, port: int = 0) -> None:
        self.store = Store(root)
        self.faults = Faults()
        self.tokens = {TOKEN: DevAccount("dev")}
        self.requests: list[str] = []
        self.watch: Callable[[int, str, str], None] | None = None
        self.say: Callable[[str], None] | None = None
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: DevHub
    protocol_version = "HTTP/1.1"
    server_version = "finbench-devhub"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: ``say`` tells what there is to tell."""

    def _handle(self) -> None:
        hub, request = self.server, f"{self.command} {self.path}"
        hub.requests.append(request)
        number = len(hub.requests)
        body = self._body()
        if hub.watch:
            hub.watch(number, "before", request)
        faults = hub.faults.take(request)
        for fault in faults:
            if fault.kind == "slow":
                time.sleep(float(fault.value or 1))
        found = next(filter(None, map(self._broken, faults)), None) or self._answer(body)
        if hub.watch:
            hub.watch(number, "after", request)
        if hub.say:
            hub.say(f"{found.status} {request}" + (f"  ({', '.join(f.kind for f in faults)})" if faults else ""))
        self._send(found, {fault.kind: fault for fault in faults})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, body: bytes) -> Answer:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        token = token.strip() if scheme == "Bearer" else ""  # a password of an address is of no account here
        hub = self.server
        try:
            if token and token not in hub.tokens:
                raise Refusal(401, "Invalid credentials in Authorization header")
            base = f"http://{self.headers.get('Host') or hub.url.removeprefix('http://')}"
            path, _, query = self.path.partition("?")
            parts = [unquote(part) for part in path.strip("/").split("/")]  # a quoted slash stays inside its part
            found = _answered(Call(hub.store, self.command, parts, parse_qs(query), body, hub.tokens.get(token), base))
            return found if isinstance(found, Answer) else Answer.json({} if found is None else found)
        except Moved as fault:
            return Answer(status=307, headers={"Location": self.path.replace(fault.name, fault.to, 1)})
        except Refusal as fault:
            codes = {"X-Error-Code": fault.code} if fault.code else {}
            message = {"X-Error-Message": fault.message.encode("ascii", "replace").decode()}
            return Answer.json({"error": fault.message}, fault.status, codes | message)
        except (KeyError, ValueError, TypeError) as fault:
            return Answer.json({"error": f"malformed request ({type(fault).__name__})"}, 400)

    def _broken(self, fault: Fault) -> Answer | None:
        """The answer that a fault puts in the place of the real one."""
        if fault.kind == "status":
            status, _, wait = fault.value.partition("=")
            headers = {"Retry-After": wait} if wait else {}
            return Answer.json({"error": "a fault that was switched on"}, int(status), headers)
        if fault.kind == "loop":
            return Answer(b"", 302, {"Location": self.path})
        if fault.kind == "gated":
            message = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."}
            return Answer.json({"error": "gated"}, 403, message)
        return None

    def _send(self, made: Answer, faults: dict[str, Fault]) -> None:
        if "lost" in faults:
            self.close_connection = True
            return
        status, body, headers = made.status, made.body, made.headers
        if "listing" in faults and "/tree/" in self.path and status == 200:
            oid = "0" * 40
            extra = [{"type": "file", "path": name, "size": 3, "oid": oid} for name in HOSTILE_NAMES]
            body = json.dumps([*json.loads(body), *extra]).encode()
        if "etag" in faults:
            for name in {"ETag", "X-Linked-Etag"} & headers.keys():
                first, rest = headers[name][1], headers[name][2:]  # within quotes
                headers[name] = f'"{"1" if first == "0" else "0"}{rest}'
        if "wrong" in faults and body and "/resolve/" in self.path:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        part = _ranged(self.headers.get("Range", ""), len(body))
        if part and status == 200 and self.command == "GET":
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(body)}"
            status, body = 206, body[part]
        if "short" in faults and self.command == "GET":
            body = body[: _cut(faults["short"], len(body))]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if "reset" in faults:
            body = body[: _cut(faults["reset"], len(body))]
            self.close_connection = True
        self.wfile.write(body)


def _ranged(stated: str, size: int) -> slice | None:
    """What a Range header asks for; None for none or one that cannot be met."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", stated.strip())
    if match is None or int(match[1]) >= size:
        return None
    return slice(int(match[1]), min(size, int(match[2]) + 1) if match[2] else size)


def _cut(fault: Fault, size: int) -> int:
    """Bytes of a body that are sent: as many as the fault says, else the half."""
    return min(int(fault.value), size) if fault.value.isdecimal() else size // 2


def _answered(call: Call) -> Any:
    """Answer any request: by an Answer, by JSON, or by None for an empty object."""
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


def _api(call: Call, parts: list[str]) -> Any:
    if parts == ["whoami-v2"]:
        return _who(call)
    if parts == ["repos", "create"] and call.method == "POST":
        return writing.create(call)
    if parts == ["repos", "move"] and call.method == "POST":
        return writing.move(call)
    if parts == ["validate-yaml"] and call.method == "POST":
        stated = call.json()
        faults = card_faults(str(stated.get("content", "")), str(stated.get("repoType") or "model"))
        errors = [{"message": fault} for fault in faults]
        return Answer.json({"errors": errors, "warnings": []}, 400 if errors else 200)
    if parts == ["datasets"] and call.method == "GET":
        return reading.benchmarks(call)
    if len(parts) < 3 or parts[0] not in ("models", "datasets", "spaces"):
        raise Refusal(404, "Not found")
    repo = call.readable(parts[0], "/".join(parts[1:3]))
    verb = parts[3] if len(parts) > 3 else "revision"
    if (call.method, verb) not in _OF_A_REPOSITORY:
        raise Refusal(404, "Not found")
    return _OF_A_REPOSITORY[call.method, verb](call, repo, *parts[4:])


def _who(call: Call) -> dict[str, Any]:
    who = call.account
    if who is None:
        raise Refusal(401, "Invalid user token.")
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in who.orgs]
    token = {"displayName": "development", "role": who.role}
    return {"type": "user", "name": who.name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}
