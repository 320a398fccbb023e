"""Inside vLLM's server, behind the key: adapters come and go while it runs, and what each of them does is counted.

vLLM's own routes for that stay closed, for they take any path. Ours have their addresses, and call what they call.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from finbench.core import refs
from finbench.core.errors import FinbenchError, counted, near_misses, shortened
from finbench.serving import wire
from finbench.serving.guard import KEY
from finbench.serving.tally import Tally
from finbench.serving.terms import PLACE, Served, Terms

PROBE = "Operating profit rose to 4.1 million euro from 3.0 million a year ago. The sentiment is"
OTHER = "(none)"  # in what is counted: a model that is not served, or none that was named
_CHECKING = 900.0  # seconds for fetching and checking an adapter
_DRAINING = 600.0  # seconds for the requests under way of one that goes
_REMEMBERED = 60.0  # seconds for which a reference that was refused is refused again without a look
_LONGEST = 4096  # characters of a reference, which may be a path
_LIST = "finbench serve list"


class Desk:
    """ASGI middleware of vLLM's server. What it does not know itself goes through."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.terms = Terms.parse(json.loads(Path(os.environ[PLACE]).read_text(encoding="utf-8")), PLACE)
        self.open = bool(os.environ.get(KEY)) and self.terms.rank > 0
        self.served = {one.name: one for one in self.terms.adapters}
        self.were = {one.name.casefold(): one.adapter for one in self.terms.adapters}  # a name means one thing for ever
        self.were[self.terms.base.casefold()] = self.terms.fingerprint
        self.leaving: set[str] = set()
        self.refused: dict[str, tuple[float, FinbenchError]] = {}
        self.tally, self.idle = Tally(), collections.defaultdict[str, asyncio.Event](asyncio.Event)
        self.one = asyncio.Lock()  # one comes or goes at a time
        self.routes = {
            ("GET", "/v1/adapters"): self._list,
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what is ours, count what is asked of a model, let the rest through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif (scope["method"], scope["path"]) == ("GET", "/metrics"):
            held = {name: one.bytes for name, one in self.served.items()}
            ours = self.tally.text(held, self.terms.capacity, self.terms.slot_bytes)
            await wire.appended(self.app, scope, receive, send, ours)
        elif route := self.routes.get((scope["method"], scope["path"])):
            try:
                found = await route(scope, wire.json_object(await wire.body_of(receive)))
            except FinbenchError as fault:
                await _decline(send, fault)
            else:
                await wire.reply(send, 200, found)
        elif scope["method"] == "POST":
            await self._asked(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # ------------------------------------------------------------ requests

    async def _asked(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            body = await wire.body_of(receive)
            asked, started = wire.json_object(body), time.monotonic()
            name = asked.get("model") or self.terms.base
            await self._admit(scope, name)
        except FinbenchError as fault:
            self.tally.add(OTHER, await _decline(send, fault), 0.0, 0, 0)
            return
        exchange = wire.Exchange(scope, asked, body)
        self.tally.running[name] += 1
        try:
            await self.app(exchange.scope, exchange.replay(receive), exchange.listening(send))
        finally:
            self.tally.running[name] -= 1
            if not self.tally.running[name]:
                del self.tally.running[name]
                self.idle[name].set()
            self.tally.add(name, exchange.state, time.monotonic() - started, exchange.prompt, exchange.answer)

    async def _admit(self, scope: Any, name: Any) -> None:
        """Whether ``name`` may be asked; ``hub:`` names of owners on the list are fetched when they are first asked."""
        if not isinstance(name, str):
            raise Declined("The model has to be named by a text.", "See the names: GET /v1/models", 400)
        self._check_stays(name)
        if name == self.terms.base or name in self.served:
            return
        if not (self.open and name.startswith("hub:")):
            close = near_misses(name, [*self.served, self.terms.base])
            mean = f" Did you mean {' or '.join(close)}?" if close else ""
            raise Declined(f"The model {shortened(name)!r} does not exist.{mean}", "See the names: GET /v1/models", 404)
        async with self.one:
            self._check_stays(name)  # whoever had the lock before us may have added it, and be removing it
            if name not in self.served:
                await self._add(scope, name, name)

    def _check_stays(self, name: str) -> None:
        if name in self.leaving:
            raise Declined(f"{name} is being removed.", _LIST, 404)

    # ------------------------------------------------------------ adapters

    async def _list(self, scope: Any, asked: Mapping[str, Any]) -> Any:
        rows = [{**one.model_dump(), "running": self.tally.running[name]} for name, one in self.served.items()]
        counts = {"capacity": self.terms.capacity, "slot_bytes": self.terms.slot_bytes, "rank": self.terms.rank}
        return {"base": self.terms.base, **counts, "owners": self.terms.owners, "adapters": rows}

    async def _load(self, scope: Any, asked: Mapping[str, Any]) -> Any:
        reference, name = asked.get("lora_path"), asked.get("lora_name")
        if not isinstance(reference, str) or not isinstance(name, str | None):
            raise Declined("lora_path has to name an adapter.", "finbench serve add zoo:name", 400)
        async with self.one:
            return (await self._add(scope, reference, name or None)).model_dump()

    async def _unload(self, scope: Any, asked: Mapping[str, Any]) -> Any:
        self._check_open()
        name = asked.get("lora_name")
        if not isinstance(name, str) or name not in self.served:
            close = near_misses(str(name), self.served)
            mean = f" Did you mean {' or '.join(close)}?" if close else ""
            raise Declined(f"No adapter {shortened(str(name))!r} is served.{mean}", _LIST, 404)
        if name in self.leaving:
            raise Declined(f"{name} is being removed already.", _LIST)
        if (under_way := self.tally.running[name]) and not asked.get("wait"):
            raise Declined(
                f"{counted(under_way, 'request')} of {name} under way.",
                f"Let them end, and take no new ones: finbench serve remove {name} --wait",
            )
        self.leaving.add(name)
        try:
            await self._drained(name)
            async with self.one:
                one = self.served[name]
                try:
                    await self._dropped(scope, one)
                finally:
                    self._clear(one)
                return one.model_dump()
        finally:
            self.leaving.discard(name)

    async def _drained(self, name: str) -> None:
        """Until no request of ``name`` is under way."""
        until = time.monotonic() + _DRAINING
        while self.tally.running[name]:
            self.idle[name].clear()
            try:
                await asyncio.wait_for(self.idle[name].wait(), until - time.monotonic())
            except TimeoutError as fault:
                still = counted(self.tally.running[name], "request")
                raise Declined(f"After {_DRAINING:.0f} s {still} of {name} still under way.", "Try later.") from fault

    def _check_open(self) -> None:
        if not self.open:
            raise Declined("This server takes no adapters while it runs: it has no key.", f"Start it with {KEY}.", 403)

    async def _add(self, scope: Any, reference: str, name: str | None) -> Served:
        """Check an adapter, load it, hear that it is not its base. The caller holds the lock."""
        self._check_open()
        if len(reference) > _LONGEST:  # it would be remembered
            raise Declined(
                f"{shortened(reference)!r} names no adapter.", "zoo:name, hub:org/name, or a whole path", 400
            )
        until, before = self.refused.get(reference, (0.0, None))
        if before is not None and time.monotonic() < until and name == reference:
            raise before
        try:
            self._check_reference(reference, pinned=name == reference)
            if name is not None and name != reference and not _is_name(name):
                said = f"{shortened(name)!r} is no name: letters, digits, dots and dashes, at most 96."
                raise Declined(said, "For example: --name fpb-2", 400)
            if len(self.served) >= self.terms.capacity:
                size = self.terms.slot_bytes / 2**20
                raise Declined(
                    f"There is room for {counted(self.terms.capacity, 'adapter')}, {size:.1f} MiB each.",
                    "Remove one: finbench serve remove NAME; or start with more --adapter-memory",
                )
            if name is not None:
                self._check_name(name, None)
            taken = await self._checked(reference)
            one = taken.model_copy(update={"name": name or taken.name})
            try:
                self._check_name(one.name, one.adapter)
                await self._loaded(scope, one)
            except BaseException:
                self._clear(one)
                raise
        except FinbenchError as fault:
            self.refused = {key: value for key, value in self.refused.items() if value[0] > time.monotonic()}
            self.refused[reference] = (time.monotonic() + _REMEMBERED, fault)
            raise
        self.served[one.name] = one
        self.were[one.name.casefold()] = one.adapter
        return one

    def _check_reference(self, reference: str, pinned: bool) -> None:
        ref = refs.parse(reference)
        if ref.kind == "name" or (ref.kind == "folder" and not ref.path.is_absolute()):
            raise Declined(
                f"{shortened(reference)!r} names no adapter.", "zoo:name, hub:org/name, or a whole path", 400
            )
        owner = ref.name.partition("/")[0]
        if ref.kind == "hub" and owner not in self.terms.owners:
            known = ", ".join(self.terms.owners) or "nobody"
            raise Declined(
                f"{owner} is not among the owners whose adapters this server fetches ({known}).",
                f"Start it with --allow-owner {owner}, if you trust them",
                403,
            )
        if ref.kind == "hub" and pinned and not ref.pinned:
            raise Declined(f"{reference} is not pinned to a commit.", f"hub:{ref.name}@ and 40 digits of a commit", 400)

    def _check_name(self, name: str, adapter: str | None) -> None:
        """Refuse a name that is taken, or was: answers in a cache, and people, may still know it as another's."""
        there = next((own for own in (self.terms.base, *self.served) if own.casefold() == name.casefold()), None)
        if there is not None:
            raise Declined(f"{there} is served already.", f"Give it another name (--name), or remove {there}")
        before = self.were.get(name.casefold())
        if adapter is not None and before not in (None, adapter):
            raise Declined(f"{name} was the name of another adapter here.", "Give it another one: --name")

    async def _checked(self, reference: str) -> Served:
        """What the process that checks says of it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "finbench.serving.intake"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        asked = json.dumps({"reference": reference, "terms": self.terms.model_dump()}).encode()
        try:
            said, printed = await asyncio.wait_for(process.communicate(asked), _CHECKING)
        except TimeoutError as fault:
            raise Declined(f"{reference} was not checked after {_CHECKING:.0f} s.", "Try again later.") from fault
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        try:
            found = json.loads(said.splitlines()[-1])
        except (ValueError, IndexError) as fault:
            last = (printed.decode("utf-8", "replace").strip().splitlines() or ["no word"])[-1]
            raise Declined(f"The check of {reference} has failed: {shortened(last)}", "finbench doctor") from fault
        if "fault" in found:
            raise Declined(found["fault"], found["hint"], 400)
        return Served.parse(found, reference)

    async def _loaded(self, scope: Any, one: Served) -> None:
        """Have vLLM load it, and hear that it says a number, and another one than its base."""
        handler, place = self._handler(scope), str(Path(self.terms.place) / one.adapter)
        stated = SimpleNamespace(lora_name=one.name, lora_path=place, load_inplace=False, is_3d_lora_weight=False)
        await self._called(handler.load_lora_adapter(stated))
        try:
            said = [await self._said(scope, model) for model in (one.name, self.terms.base)]
            if said[0] is None or said[0] == said[1]:
                how = "are no numbers" if said[0] is None else "are the base's own: it is not applied"
                raise Declined(
                    f"{one.name}: its answers {how}.", "Look at it: finbench eval --engine hf --adapter ...", 400
                )
        except BaseException:  # whatever happens, vLLM holds none that we do not list
            await self._dropped(scope, one)
            raise

    async def _dropped(self, scope: Any, one: Served) -> None:
        """Have vLLM forget it, if it knows it still. The caller holds the lock."""
        handler = self._handler(scope)
        held = handler.lora_requests.get(one.name)
        if held is not None:
            await self._called(handler.unload_lora_adapter(SimpleNamespace(lora_name=one.name)))
        self.served.pop(one.name, None)  # at once: what comes next may fail, and nobody can ask it any more
        if held is not None:
            await handler.engine_client.remove_lora(held.lora_int_id)  # else it holds its slot till others come

    def _clear(self, one: Served) -> None:
        """Remove its copy, unless it is served, by this name or another."""
        if one.adapter not in (other.adapter for other in self.served.values()):
            shutil.rmtree(Path(self.terms.place) / one.adapter, ignore_errors=True)

    async def _said(self, scope: Any, model: str) -> Any:
        asks = {"model": model, "prompt": PROBE, "max_tokens": 1, "temperature": 0, "logprobs": 5}
        state, found = await wire.inner(self.app, scope, "/v1/completions", asks)
        try:
            [said] = found["choices"][0]["logprobs"]["top_logprobs"] if state == 200 else [None]
        except (KeyError, TypeError, ValueError, IndexError):
            return None
        return said if said and all(map(math.isfinite, said.values())) else None

    def _handler(self, scope: Any) -> Any:
        """vLLM's own keeper of models, which its routes call."""
        return scope["app"].state.openai_serving_models

    async def _called(self, called: Any) -> None:
        """FinbenchError where vLLM refuses, in its own words."""
        if not isinstance(found := await called, str):
            raise Declined(f"vLLM refuses it: {shortened(str(found.error.message))}", _LIST, 400)


class Declined(FinbenchError):
    """What the server does not do; ``state`` of HTTP."""

    def __init__(self, message: str, hint: str, state: int = 409) -> None:
        super().__init__(message, hint)
        self.state = state


async def _decline(send: Any, fault: FinbenchError) -> int:
    """Say what is not done, and why, and what to type next; the state of HTTP."""
    state = fault.state if isinstance(fault, Declined) else 400
    said = {"message": fault.message, "hint": fault.hint, "type": "BadRequestError", "code": state}
    await wire.reply(send, state, {"error": said})
    return state


def _is_name(name: str) -> bool:
    try:
        return refs.parse(name).kind == "name"
    except FinbenchError:
        return False
