"""How this very finbench is installed, with which extras: what to type where something is missing."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path


def install(*extras: str, again: bool = False) -> str:
    """The command that installs finbench with ``extras`` from where this one came; ``again``: over what is there.

    That is a checkout, the address that pip has noted (PEP 610: a repository, a folder, a wheel), or an index.
    """
    wanted = f"[{','.join(extras)}]" if extras else ""
    more = "--force-reinstall " if again else ""
    if (place := _checkout()) is not None:
        return f'pip install {more}-e "{place}{wanted}"'
    return f'pip install {more}"finbench{wanted}{_origin()}"'


def update() -> str:
    """The command that brings this finbench up to date."""
    place = _checkout()
    if place is None:
        return re.sub(r'@[0-9a-f]+"$', '"', install(again=True))  # of a repository the newest commit
    return "git pull" if place == "." else f'git -C "{place}" pull'


def _checkout() -> str | None:
    """The checkout that this package runs from, as it is typed; None where it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return None
    return "." if root == Path.cwd() else str(root)


def _origin() -> str:
    """`` @ URL`` of what pip installed from an address; empty of what came from an index, or as nobody knows."""
    try:
        noted = importlib.metadata.distribution("finbench").read_text("direct_url.json")
        stated = json.loads(noted or "{}")
        url = str(stated["url"])
        vcs = stated.get("vcs_info")
        return f" @ {vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else f" @ {url}"
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return ""
