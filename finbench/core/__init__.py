"""What every layer uses: the nouns (``records``), errors, files, paths, what ships (``catalog``)."""

__all__ = [
    "catalog",
    "console",
    "environment",
    "errors",
    "faces",
    "files",
    "limits",
    "paths",
    "records",
    "refs",
    "safety",
    "seal",
    "strict",
    "version",
]
