"""How this very finbench is installed, with which extras: what to type where something is missing."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path


def install(*extras: str, again: bool = False) -> str:
    """The command that installs finbench with ``extras`` from where this one came; ``again``: over what is there.

    That is a checkout, the address that pip has noted (PEP 610: a repository, a folder, a wheel), or an index.
    """
    wanted = f"[{','.join(extras)}]" if extras else ""
    more = "--force-reinstall " if again else ""
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        place = "." if root == Path.cwd() else str(root)
        return f'pip install {more}-e "{place}{wanted}"'
    return f'pip install {more}"finbench{wanted}{_origin()}"'


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
