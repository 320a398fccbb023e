"""lm-eval's own command line, with finbench's model classes and tasks known to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from finbench.core import paths
from finbench.core.errors import FinbenchError

# the same in pyproject.toml, for an lm-eval that reads entry points
MODELS = {"finbench": "finbench.engines.lm:TreeLM"}
_MIXING = ("use_cache", "cache_requests")


def register() -> None:
    """Make our classes known to lm-eval in this process; nothing is imported before one is used."""
    import lm_eval.models  # noqa: F401  fills the registry with lm-eval's own
    from lm_eval.api.registry import model_registry

    for name, target in MODELS.items():
        if name not in model_registry:
            model_registry.register(name, target=target)


def run_lm_eval(arguments: Sequence[str]) -> None:
    """Run ``lm_eval ARGUMENTS`` here. The tasks of finbench are found unless --include_path names others.

    Raises FinbenchError for lm-eval's caches, whose keys name no model: one model would be given another's answers.
    """
    register()
    from lm_eval._cli import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import setup_logging

    given = list(arguments)
    if given and given[0].startswith("-") and given[0] not in ("--help", "-h"):
        given = ["run", *given]
    before, sys.argv = sys.argv, ["lm_eval", *given]
    try:
        setup_logging()
        parser = HarnessCLI()
        stated = parser.parse_args()  # its own reading: it knows short names, abbreviations and values after "="
        if stated.command == "run":
            settings = EvaluatorConfig.load_yaml_config(stated.config) if stated.config else {}
            if mixing := [name for name in _MIXING if getattr(stated, name) or settings.get(name)]:
                raise FinbenchError(
                    f"--{mixing[0]} is refused: lm-eval's caches do not keep models apart.",
                    "Use finbench eval, which keeps every answer and resumes after a kill.",
                )
            if not settings.get("include_path"):
                stated.include_path = stated.include_path or str(paths.shipped("tasks"))
        parser.execute(stated)
    finally:
        sys.argv = before
