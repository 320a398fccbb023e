"""The only file that talks to the Hugging Face Hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from finbench.errors import FinbenchError

# What a model is made of, and nothing that runs code when it is loaded.
SAFE_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]


class Unreachable(FinbenchError):
    """No Hub: offline, or no route to it."""


@contextlib.contextmanager
def explained(wanted: str) -> Iterator[None]:
    """What the Hub's clients raise, as one line: Unreachable without a network, else FinbenchError."""
    import httpx2  # the client of huggingface_hub 2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = wanted.removeprefix("datasets/").partition("@")[0]
    try:
        yield
    except GatedRepoError as fault:
        raise FinbenchError(
            f"hub:{wanted} is gated.", f"Ask for access at https://huggingface.co/{name}, then: hf auth login"
        ) from fault
    except RevisionNotFoundError as fault:
        raise FinbenchError(f"hub:{wanted}: no such revision.", "Name a commit, a branch or a tag of it.") from fault
    except RepositoryNotFoundError as fault:
        raise FinbenchError(
            f"hub:{wanted} does not exist, or it is private and you are not logged in.", "hf auth login"
        ) from fault
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, httpx2.TransportError) as fault:
        raise Unreachable(
            f"hub:{wanted} is not in the local cache and the Hub cannot be reached.",
            f"With a network: hf download {name}. Or name local files.",
        ) from fault
    except HfHubHTTPError as fault:
        reason = str(fault).splitlines()[0]
        raise FinbenchError(f"hub:{wanted}: the Hub answered: {reason}", "Repeat the command; it resumes.") from fault


@contextlib.contextmanager
def data_explained(path: str) -> Iterator[None]:
    """``explained`` for what the datasets library raises besides."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        with explained(path):
            yield
    except DatasetNotFoundError as fault:
        raise FinbenchError(
            f"hub:{path} does not exist, or it is private and you are not logged in.", "hf auth login"
        ) from fault
    except (DatasetsError, ValueError) as fault:  # ValueError: no such configuration or split
        reason = str(fault).splitlines()[0]
        raise FinbenchError(f"hub:{path}: cannot be read: {reason}", "Import it from files instead.") from fault


def dataset_sha(path: str, ref: str) -> str:
    """The commit that a branch of a data set's repository is at."""
    from huggingface_hub import HfApi

    try:
        with explained(path):
            return str(HfApi().dataset_info(path, revision=ref, timeout=10).sha)
    except Unreachable as fault:
        fault.hint = "Repeat the command with a network."
        raise


def snapshot(repo_id: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a model's safetensors, JSON and tokenizer files; return (folder, commit SHA).

    Raises Unreachable without a network and without a cached copy, FinbenchError for a model that is missing,
    gated or private.
    """
    from huggingface_hub import snapshot_download

    with explained(repo_id + (f"@{revision}" if revision else "")):
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=SAFE_FILES, etag_timeout=5))
    return folder, folder.name  # a snapshot folder is named by its commit
