"""Subjects and tasks in, scorecards out; and scorecards verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.evaluation import preflight
    from finbench.evaluation.evaluator import evaluate
    from finbench.evaluation.lmeval import import_card
    from finbench.evaluation.subjects import Examinee, examinees
    from finbench.evaluation.verification import Verification, verify
else:
    __getattr__ = face(__name__)

__all__ = [
    "Examinee",
    "Verification",
    "evaluate",
    "examinees",
    "import_card",
    "preflight",
    "verify",
]
