"""The addresses of the project, of which the source knows none: ``$REPO_URL``, as a build from a repository sets it."""

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Addresses(MetadataHookInterface):
    """``project.urls``; none without ``$REPO_URL``."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get("REPO_URL", "").rstrip("/")
        names = {"Repository": "", "Issues": "/issues", "Changelog": "/blob/main/CHANGELOG.md"}
        metadata["urls"] = {name: repository + below for name, below in names.items()} if repository else {}
