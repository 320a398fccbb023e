"""Prompts of strangers: which Jinja a template may hold before it counts as a program."""

from __future__ import annotations

import functools
import re

_METHODS = re.compile(
    "l?strip|rstrip|r?split|splitlines|replace|lower|upper|title|capitalize|casefold|startswith|endswith|join|items|"
    "keys|values|get|index|count|find|removeprefix|removesuffix|isdigit"
)
_FILTERS = re.compile(
    "abs|capitalize|default|d|escape|e|first|float|int|join|last|length|count|list|lower|map|max|min|regex_replace|"
    "reject|rejectattr|replace|reverse|round|safe|select|selectattr|sort|string|sum|title|tojson|trim|unique|upper|"
    "dictsort|items"
)


@functools.lru_cache(1024)
def beyond(text: str) -> str:
    """What makes a template more than a form to fill; empty where it is none.

    Filled in are fields, filters and the methods of texts and lists; there may be conditions, and loops over a field.
    Not allowed: other calls (``range``), names with underscores in front, macros, imports, and products, which make a
    prompt of any length.
    """
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        tree = Environment().parse(text)
    except (TemplateSyntaxError, RecursionError):
        return "a fault of syntax"
    plain = (
        *(nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr, nodes.Compare),
        *(nodes.Operand, nodes.Test, nodes.For, nodes.Concat, nodes.Add, nodes.Sub, nodes.Neg, nodes.List, nodes.Dict),
        *(nodes.Pair, nodes.Tuple, nodes.Slice, nodes.Not, nodes.And, nodes.Or, nodes.Getitem, nodes.Getattr),
        *(nodes.Call, nodes.Filter, nodes.Assign, nodes.NSRef, nodes.Keyword, nodes.Mod, nodes.FloorDiv, nodes.Div),
    )
    for node in tree.find_all(nodes.Node):
        kind = type(node).__name__.lower()
        if not isinstance(node, plain):
            return f"a {kind}"
        if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            return f"the attribute {node.attr[:40]}"
        if isinstance(node, nodes.Filter) and not _FILTERS.fullmatch(node.name):
            return f"the filter {node.name[:40]}"
        if isinstance(node, nodes.Call) and not (
            isinstance(node.node, nodes.Getattr) and _METHODS.fullmatch(node.node.attr)
        ):
            return "a call"
    return ""


def patterns(text: str) -> list[str]:
    """The regular expressions of a template; one that a field gives is empty of bounds, and stands as what is none."""
    from jinja2 import Environment, nodes

    found = []
    for node in Environment().parse(text).find_all(nodes.Filter):
        if node.name.startswith("regex"):
            first = node.args[0] if node.args else None
            found.append(str(first.value) if isinstance(first, nodes.Const) else _NO_PATTERN)
    return found


_NO_PATTERN = "("  # which no reader takes
