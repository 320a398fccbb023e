"""``finbench serve add``, ``remove`` and ``list``: the other side of ``desk.py``, from any shell that has the key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from finbench.core import refs
from finbench.core.errors import FinbenchError, reason
from finbench.engines import Endpoint, NoConnection, Passing, usable
from finbench.serving.guard import KEY

HERE = "http://127.0.0.1:8000/v1"
_PATIENCE = 1000.0  # seconds: an adapter may have to be fetched, and requests to end


def add(adapter: str, *, name: str | None = None, url: str = HERE) -> dict[str, Any]:
    """Have a running server check an adapter and serve it; what it is called there, and what it is.

    A folder is one of the server's machine. Raises FinbenchError with the server's reasons where it does not take it.
    """
    ref = refs.parse(adapter)
    folder = Path(adapter).expanduser()
    if ref.kind == "folder" or (ref.kind == "name" and folder.is_dir()):
        adapter = str(folder.resolve())
    return _asked(url, "POST", "/load_lora_adapter", {"lora_path": adapter, "lora_name": name})


def remove(name: str, *, wait: bool = False, url: str = HERE) -> dict[str, Any]:
    """Have a running server let an adapter go; with ``wait``, after the requests that are under way."""
    return _asked(url, "POST", "/unload_lora_adapter", {"lora_name": name, "wait": wait})


def listed(url: str = HERE) -> dict[str, Any]:
    """What a running server serves, and for how many more there is room."""
    return _asked(url, "GET", "/adapters", None)


def _asked(url: str, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    key = usable(os.environ.get(KEY))
    if key is None:
        raise FinbenchError("A running zoo is changed and listed only with its key.", f"export {KEY}=...")
    endpoint = Endpoint(url, key, timeout=_PATIENCE)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    asked = None if body is None else json.dumps(body).encode()
    try:
        state, _, text = endpoint.fetched(method, endpoint.url + path, headers, asked)
        found = json.loads(text)
    except (NoConnection, Passing) as fault:
        raise FinbenchError(
            f"{url} takes no connection: {endpoint.hidden(reason(fault))}",
            "Start one: finbench serve --base BASE; or name one that runs: --url http://127.0.0.1:8001/v1",
        ) from fault
    except (ValueError, RecursionError) as fault:
        raise _other(url, state) from fault
    if state == 401:
        raise FinbenchError(f"{url} has another key.", f"export {KEY}=... as it was when the server started")
    if not isinstance(found, dict):
        raise _other(url, state)
    error = found.get("error")
    if isinstance(error, dict) and "hint" in error:
        raise FinbenchError(endpoint.hidden(str(error.get("message"))), endpoint.hidden(str(error["hint"])))
    if state != 200 or not {"adapters", "adapter"} & found.keys():
        raise _other(url, state)
    return found


def _other(url: str, state: int) -> FinbenchError:
    return FinbenchError(f"{url} is no server of finbench serve (it answers {state}).", "Name another: --url ...")
