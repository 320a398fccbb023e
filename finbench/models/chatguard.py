"""Chat templates of strangers, tried in a process of their own before the first one is rendered here."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from finbench.core import safety
from finbench.core.errors import FinbenchError, shortened

SECONDS = 1.0  # of the processor, for one conversation; real templates take a millisecond
_TRIED = 0.5  # of the processor, for the six conversations of the trial
LONGEST = 2**20  # characters beyond those of the messages
_LARGEST = 2**18  # characters of a template; the longest of known models has about 20,000
_GENERATION = re.compile(r"{%-?\s*(end)?generation\s*-?%}")  # transformers' own marks

# Only jinja2, so that it starts in a tenth of a second. Whatever a template refuses is its right; what never ends,
# takes a gigabyte, or has sums and products that could only make huge texts, is a fault. Exit 0 means: harmless.
_IMPORTS = """
import json, re, sys
from jinja2 import TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
"""
_TRY = """
text, longest = json.load(sys.stdin)
options = {"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.loopcontrols"]}
environment = ImmutableSandboxedEnvironment(**options)
def refuse(message): raise TemplateError(message)
environment.filters["tojson"] = lambda value, **options: json.dumps(value)
environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: "2026-01-01"}
text = re.sub(r"{%-?\\s*(end)?generation\\s*-?%}", "", text)
try:
    parsed = environment.parse(text)
except TemplateError:
    sys.exit(0)
for found in parsed.find_all((nodes.Pow, nodes.Mul, nodes.Const)):
    sides = (found, getattr(found, "left", None), getattr(found, "right", None))
    values = [getattr(side, "value", None) for side in sides]
    if isinstance(found, nodes.Pow) or any(isinstance(value, int) and value > 10**7 for value in values):
        sys.exit(3)
    if isinstance(found, nodes.Mul) and any(isinstance(value, str) for value in values):
        sys.exit(3)
user, system = {"role": "user", "content": "Hello"}, {"role": "system", "content": "Be brief."}
for messages in ([user], [system, user], [user, {"role": "assistant", "content": "Hi"}, user]):
    for prompt in (True, False):
        try:
            made = environment.from_string(text).render(
                messages=messages, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>", tools=None
            )
        except (TemplateError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            continue
        if len(made) > longest:
            sys.exit(3)
"""


def check(template: Any, base: str) -> None:
    """Refuse a template that does not end, or that makes or takes too much. Raises FinbenchError."""
    texts = template.values() if isinstance(template, dict) else [template]
    for text in texts:
        _check(json.dumps(text), base)


def reaching(template: str) -> str:
    """What in the text of a template no template needs, "" for nothing: reaching into Python, opening other files."""
    from jinja2 import Environment, TemplateError, nodes

    if len(template) > _LARGEST:
        return f"has {len(template):,} characters; none needs so many"
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION.sub("", template))
    except (TemplateError, RecursionError):
        return "is no template"
    for found in parsed.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter)):
        named = found.attr if isinstance(found, nodes.Getattr) else getattr(getattr(found, "arg", None), "value", "")
        if str(named).startswith("_") or (isinstance(found, nodes.Filter) and found.name == "attr"):
            return f"reaches into Python ({shortened(str(named) or 'attr')})"
    if any(parsed.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        return "opens other files"
    try:
        check(template, "the adapter")
    except FinbenchError:
        return "never ends, or takes or makes too much"
    return ""


@functools.cache
def _check(text: str, base: str) -> None:
    if len(text) > _LARGEST:
        raise FinbenchError(
            f"The chat template of {base} has {len(text):,} characters; none needs so many.", "Use --no-chat."
        )
    if not safety.finishes(_TRY, [json.loads(text), LONGEST], _TRIED, 2**30, _IMPORTS):
        raise FinbenchError(
            f"The chat template of {base} is refused: it never ends, or takes or makes too much.", "Use --no-chat."
        )
