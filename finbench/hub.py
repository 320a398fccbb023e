"""The only file that talks to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from finbench.errors import FinbenchError

# What a model is made of, and nothing that runs code when it is loaded.
SAFE_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]


class Unreachable(FinbenchError):
    """No Hub: offline, or no route to it."""


def snapshot(repo_id: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a model's safetensors, JSON and tokenizer files; return (folder, commit SHA).

    Raises Unreachable without a network and without a cached copy, FinbenchError for a model that is missing,
    gated or private.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = f"hub:{repo_id}" + (f"@{revision}" if revision else "")
    try:
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=SAFE_FILES, etag_timeout=5))
    except GatedRepoError as fault:
        raise FinbenchError(
            f"{wanted} is gated.", f"Ask for access at https://huggingface.co/{repo_id}, then: hf auth login"
        ) from fault
    except RevisionNotFoundError as fault:
        raise FinbenchError(f"{wanted}: no such revision.", "Name a commit, a branch or a tag of it.") from fault
    except RepositoryNotFoundError as fault:
        raise FinbenchError(
            f"{wanted} does not exist, or it is private and you are not logged in.", "hf auth login"
        ) from fault
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as fault:
        raise Unreachable(
            f"{wanted} is not in the local cache and the Hub cannot be reached.",
            f"With a network: hf download {repo_id}. Or name a local folder: ./folder",
        ) from fault
    except HfHubHTTPError as fault:
        reason = str(fault).splitlines()[0]
        raise FinbenchError(f"{wanted}: the Hub answered: {reason}", "Repeat the command; it resumes.") from fault
    return folder, folder.name  # a snapshot folder is named by its commit
