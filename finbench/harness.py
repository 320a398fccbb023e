"""lm-eval's own command line, with finbench's model classes and tasks known to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from finbench import paths
from finbench.errors import FinbenchError

MODELS = {
    "finbench": "finbench.engines.lm:TreeLM"
}  # the same in pyproject.toml, for an lm-eval that reads entry points
_MIXING = ("--use_cache", "--cache_requests")


def register() -> None:
    """Make our classes known to lm-eval in this process; nothing is imported before one is used."""
    import lm_eval.models  # noqa: F401  fills the registry with lm-eval's own
    from lm_eval.api.registry import model_registry

    for name, target in MODELS.items():
        if name not in model_registry:
            model_registry.register(name, target=target)


def run(arguments: Sequence[str]) -> None:
    """Run ``lm_eval ARGUMENTS`` here. The tasks of finbench are found unless --include_path names others.

    Raises FinbenchError for lm-eval's caches, whose keys name no model: one model would be given another's answers.
    """
    given = list(arguments)
    mixing = [word for word in given if word.partition("=")[0] in _MIXING]
    if mixing:
        raise FinbenchError(
            f"{mixing[0]} is refused: lm-eval's caches do not tell one model from another.",
            "finbench eval keeps what was answered, and goes on after a kill.",
        )
    if "run" in given[:1] or (given and given[0].startswith("--") and given[0] not in ("--help", "-h")):
        given = given if "run" in given[:1] else ["run", *given]
        if not any(word.partition("=")[0] == "--include_path" for word in given):
            given += ["--include_path", str(paths.shipped("tasks"))]
    register()
    from lm_eval.__main__ import cli_evaluate

    before, sys.argv = sys.argv, ["lm_eval", *given]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
