"""The development Hub over HTTP, on this machine only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from finbench.hub.dev.desk import Answer, DevAccount, call, ranged
from finbench.hub.dev.faults import HOSTILE_NAMES, Fault, Faults
from finbench.hub.dev.routes import Routes
from finbench.hub.dev.store import Refusal, Store

TOKEN = "hf_development"  # of the account `dev`, which may write everywhere


class DevHub:
    """A Hub on ``http://127.0.0.1:<port>`` over the folder ``root``; port 0 takes a free one.

    ``tokens`` maps tokens to accounts. ``requests`` lists "METHOD path" of every request so far. ``watch`` is called
    with (number of the request, "before" or "after" it is done, "METHOD path"); tests kill a client there.
    """

    def __init__(self, root: Path, port: int = 0, tokens: dict[str, DevAccount] | None = None) -> None:
        self.routes = Routes(Store(root))
        self.faults = Faults()
        self.tokens = tokens or {TOKEN: DevAccount("dev")}
        self.requests: list[str] = []
        self.watch: Callable[[int, str, str], None] | None = None
        self.say: Callable[[str], None] | None = None
        hub = self

        class Handler(_Handler):
            dev = hub

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    @property
    def store(self) -> Store:
        """The repositories."""
        return self.routes.desk.store

    def __enter__(self) -> DevHub:
        Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    dev: DevHub
    protocol_version = "HTTP/1.1"
    server_version = "finbench-devhub"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: ``say`` tells what there is to tell."""

    def _handle(self) -> None:
        request = f"{self.command} {self.path}"
        self.dev.requests.append(request)
        number = len(self.dev.requests)
        body = self._body()
        if self.dev.watch:
            self.dev.watch(number, "before", request)
        faults = self.dev.faults.take(request)
        for fault in faults:
            if fault.kind == "slow":
                time.sleep(float(fault.value or 1))
        answer = next((found for fault in faults if (found := self._broken(fault))), None)
        if answer is None:
            answer = self._answer(body)
        if self.dev.watch:
            self.dev.watch(number, "after", request)
        if self.dev.say:
            self.dev.say(f"{answer.status} {request}" + (f"  ({', '.join(f.kind for f in faults)})" if faults else ""))
        self._send(answer, {fault.kind: fault for fault in faults})

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
        try:
            if token and token not in self.dev.tokens:
                raise Refusal(401, "Invalid credentials in Authorization header")
            base = f"http://{self.headers.get('Host') or self.dev.url.removeprefix('http://')}"
            return self.dev.routes.answer(call(self.command, self.path, body, self.dev.tokens.get(token), base))
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

    def _send(self, answer: Answer, faults: dict[str, Fault]) -> None:
        if "lost" in faults:
            self.close_connection = True
            return
        body = answer.body
        if "listing" in faults and "/tree/" in self.path and answer.status == 200:
            oid = "0" * 40
            extra = [{"type": "file", "path": name, "size": 3, "oid": oid} for name in HOSTILE_NAMES]
            body = json.dumps([*json.loads(body), *extra]).encode()
        if "etag" in faults:
            answer = Answer(body, answer.status, {**answer.headers, **_other_hash(answer.headers)})
        if "wrong" in faults and body and "/resolve/" in self.path:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        status, sent = answer.status, body
        part = ranged(self.headers.get("Range", ""), len(body)) if status == 200 else None
        if part and self.command == "GET":
            status, sent = 206, body[part[0] : part[1]]
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if status == 206 and part:
            self.send_header("Content-Range", f"bytes {part[0]}-{part[1] - 1}/{len(body)}")
        if "short" in faults and self.command == "GET":
            sent = sent[: _cut(faults["short"], len(sent))]
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if "reset" in faults:
            sent = sent[: _cut(faults["reset"], len(sent))]
            self.close_connection = True
        self.wfile.write(sent)


def _cut(fault: Fault, size: int) -> int:
    """Bytes of a body that are sent: as many as the fault says, else the half."""
    return min(int(fault.value), size) if fault.value.isdecimal() else size // 2


def _other_hash(headers: dict[str, str]) -> dict[str, str]:
    """The hashes of these headers, each with its first digit changed."""
    return {
        name: '"' + ("1" if value.strip('"')[0] == "0" else "0") + value.strip('"')[1:] + '"'
        for name, value in headers.items()
        if name in ("ETag", "X-Linked-Etag")
    }
