"""What every layer uses: the nouns (``records``), errors, files, paths, what ships (``catalog``)."""

__all__ = [
    "catalog",
    "console",
    "environment",
    "errors",
    "faces",
    "files",
    "lifeline",
    "owntasks",
    "paths",
    "prose",
    "records",
    "refs",
    "safety",
    "seal",
    "settings",
    "strict",
    "taskcode",
    "taskfiles",
    "templates",
    "version",
]
