"""Subjects and tasks in, scorecards out; and scorecards verified.

Read in this order: ``options`` (what was asked), ``subjects`` (who), ``preflight`` (by which engine), ``evaluator``
(the whole run), ``journal`` (answers so far), ``scored`` (one score). ``verification`` and ``rescoring``, of cards of
earlier versions, use ``rescore`` (without the model) and ``rerun`` (with it, on documents that ``drawing`` chose).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.evaluation import drawing, options, preflight
    from finbench.evaluation.asking import Asker, SubjectReply, ask
    from finbench.evaluation.check import check_tasks
    from finbench.evaluation.doctor import DoctorLine, examine_machine
    from finbench.evaluation.evaluator import evaluate
    from finbench.evaluation.harness import run_lm_eval
    from finbench.evaluation.imported import import_card
    from finbench.evaluation.newtask import NewTask, described, new_task
    from finbench.evaluation.rerun import Answered
    from finbench.evaluation.rescoring import Rescored, rescore_cards
    from finbench.evaluation.subjects import DUMMY, Candidate, candidates
    from finbench.evaluation.verification import Verification, verify
else:
    __getattr__ = face(__name__)

__all__ = [
    "DUMMY",
    "Answered",
    "Asker",
    "Candidate",
    "DoctorLine",
    "NewTask",
    "Rescored",
    "SubjectReply",
    "Verification",
    "ask",
    "candidates",
    "check_tasks",
    "described",
    "drawing",
    "evaluate",
    "examine_machine",
    "import_card",
    "new_task",
    "options",
    "preflight",
    "rescore_cards",
    "run_lm_eval",
    "verify",
]
