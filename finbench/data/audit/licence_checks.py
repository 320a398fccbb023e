"""Licences: sets whose terms are unclear, or do not let anybody use them for trade."""

from __future__ import annotations

from collections.abc import Iterator

from finbench.data.audit.context import AuditContext, AuditedFile
from finbench.data.audit.findings import Finding


def licences(context: AuditContext) -> Iterator[Finding]:
    """One note for each licence that does not let texts be shown. What nobody knows a licence of is in the table."""
    found: dict[str, list[AuditedFile]] = {}
    for source in context.sources:
        if source.open is False and source.licence:
            found.setdefault(source.licence, []).append(source)
    for licence, sources in found.items():
        yield context.find(
            "licence",
            "note",
            sources,
            (len(sources), len(context.sources)),
            f"The licence is unclear or does not allow every use: {licence}.",
        )
