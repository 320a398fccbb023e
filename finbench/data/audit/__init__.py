"""``finbench data audit``: what is wrong with data sets, found by machine.

Files are read once, row by row; nothing is assumed about them but that they hold texts and, mostly, answers. Each check
looks at all rows and yields findings with their evidence; none is told where to look.
"""

from finbench.data.audit.model import Audit, Finding, Seen
from finbench.data.audit.run import audit

__all__ = ["Audit", "Finding", "Seen", "audit"]
