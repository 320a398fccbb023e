"""``finbench data audit``: what is wrong with data sets, found by machine.

Files are read once, row by row; nothing is assumed about them but that they hold texts and, mostly, answers. Each check
looks at all rows and yields findings with their evidence; none is told where to look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.data.audit.auditing import audit, audit_against
    from finbench.data.audit.findings import Audit, Finding
    from finbench.data.audit.near import near_copies, near_pairs
    from finbench.data.audit.show import audit_tables
else:
    __getattr__ = face(__name__)

__all__ = [
    "Audit",
    "Finding",
    "audit",
    "audit_against",
    "audit_tables",
    "near_copies",
    "near_pairs",
]
