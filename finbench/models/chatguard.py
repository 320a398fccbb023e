"""Chat templates of strangers: tried in a process of their own first, then rendered within bounds.

What is rendered is seen to show what it was given: a template may drop a question without a word.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finbench.core import safety
from finbench.core.errors import FinbenchError, shortened

SECONDS = 1.0  # of the processor, for one conversation; real templates take a millisecond
_TRIED = 0.5  # of the processor, for the six conversations of the trial
LONGEST = 2**20  # characters beyond those of the messages
_LARGEST = 2**18  # characters of a template; the longest of known models has about 20,000
_OF_ITS_CODE = (ValueError, TypeError, AttributeError, LookupError)  # what a template's own expressions may raise
_NO_CHAT = "Use --no-chat; in training, --set chat=false."
_NO_SYSTEM = "Leave out --system-prompt, or use --no-chat."
_ONE_TURN = "Use --no-fewshot-as-multiturn (examples in one turn), or --no-chat."
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
        raise FinbenchError(f"The chat template of {base} has {len(text):,} characters; none needs so many.", _NO_CHAT)
    if not safety.finishes(_TRY, [json.loads(text), LONGEST], _TRIED, 2**30, _IMPORTS):
        raise FinbenchError(
            f"The chat template of {base} is refused: it never ends, or takes or makes too much.", _NO_CHAT
        )


def renderer(tokenizer: Any, base: str, variables: Mapping[str, Any]) -> Callable[..., str]:
    """(messages, add_generation_prompt) -> text, by a tokenizer's chat template, which ``variables`` are given to.

    Without a generation prompt the last message is left open, to go on with; with ``closed`` as well, it is ended as
    the template ends it.

    A template is a program of whoever made the model: transformers renders it in a sandbox; here it also may not
    take more than a moment, a gigabyte, or a megabyte of text. The first conversation of each shape is preceded by one
    of made-up words: what a template does not show of them it would leave out of every such conversation. Templates
    for pictures and text show a text only as a part of a list, and are given it so.
    """
    from jinja2 import TemplateError

    def rendered(messages: Sequence[Mapping[str, str]], opened: bool, closed: bool, parts: bool) -> str:
        hint = _NO_SYSTEM if any(message["role"] == "system" for message in messages) else _NO_CHAT
        given = [{**one, "content": [{"type": "text", "text": one["content"]}]} if parts else one for one in messages]
        try:
            with safety.bounded(f"The chat template of {base}", SECONDS, _NO_CHAT):
                text = str(
                    tokenizer.apply_chat_template(
                        given,
                        tokenize=False,
                        add_generation_prompt=opened,
                        continue_final_message=not opened and not closed,
                        **variables,
                    )
                )
        except (TemplateError, MemoryError, OverflowError, RecursionError, *_OF_ITS_CODE) as fault:
            raise FinbenchError(f"The chat template of {base} refuses: {fault}", hint) from fault
        if len(text) > LONGEST + 2 * sum(len(message["content"]) for message in messages):
            raise FinbenchError(f"The chat template of {base} makes {len(text):,} characters.", _NO_CHAT)
        return text

    @functools.cache
    def in_parts(roles: tuple[str, ...], opened: bool, closed: bool) -> bool:
        """Whether texts of such a conversation are given as parts of lists; FinbenchError where it is not all shown."""
        # letters only, of one length: neither trimming nor another case hides one, and none is in another
        words = ["trial" + "".join(chr(97 + int(digit)) for digit in f"{number:06}") for number in range(len(roles))]
        trial = [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]
        lost: dict[bool, list[int]] = {}
        for parts in (False, True):
            try:
                text = rendered(trial, opened, closed, parts)
            except safety.Exceeded:
                raise
            except FinbenchError:
                continue
            lost[parts] = _lost(roles, words, text)
            if not lost[parts]:
                return parts
        if False in lost:
            raise _leaves_out(base, roles, min(lost.values(), key=len))
        return False  # the template refuses, and will say so of the conversation itself

    def apply(messages: list[dict[str, str]], add_generation_prompt: bool = True, closed: bool = False) -> str:
        roles = tuple(message["role"] for message in messages)
        parts = in_parts(roles, add_generation_prompt, closed)
        return rendered(messages, add_generation_prompt, closed, parts)

    return apply


def _lost(roles: Sequence[str], words: Sequence[str], text: str) -> list[int]:
    """The turns whose words do not stand in a text in their order; that of the system may stand anywhere."""
    text, at, lost = text.casefold(), 0, []
    for number, (role, word) in enumerate(zip(roles, words, strict=True)):
        found = text.find(word, 0 if role == "system" else at)
        if found < 0:
            lost.append(number)
        elif role != "system":
            at = found + len(word)
    return lost


def _leaves_out(base: str, roles: Sequence[str], lost: Sequence[int]) -> FinbenchError:
    asked = max((number for number, role in enumerate(roles) if role == "user"), default=len(roles))
    if asked in lost:
        what, hint = "what the user says", _NO_CHAT
    elif any(roles[number] == "system" for number in lost):
        what, hint = "the system prompt", _NO_SYSTEM
    elif lost[0] < asked:
        what, hint = "earlier turns", _ONE_TURN
    else:
        what, hint = f"what the {roles[lost[0]]} says", _NO_CHAT
    return FinbenchError(f"The chat template of {base} leaves out {what}.", hint)
