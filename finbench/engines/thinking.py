"""Where reasoning ends and the answer begins, in what models of every family write; and how templates switch it.

A turn is taken apart by the markers of the one family whose marker comes first in it (``FAMILIES``). A reasoning that
is never closed is no answer, whatever stands in it; nor is one without any marker that the budget cut off.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from finbench.core.console import say
from finbench.core.settings import Profile
from finbench.engines.interface import Generated


@dataclass(frozen=True)
class Family:
    """Marks of reasoning, as regular expressions, read in large and small letters alike.

    ``alone``: the end tells without a start before it. Prompts may end with the start, and servers swallow it; words
    of plain English, and tags that a model may put behind its answer, are no mark without their start.
    """

    models: str
    start: str
    end: str
    alone: bool = True


def _tags(models: str, start: str, end: str) -> Family:
    return Family(models, re.escape(start), re.escape(end))


FAMILIES = (
    _tags(
        "Qwen3, QwQ, DeepSeek-R1 and V3.1, Phi-4-reasoning, GLM-4.5, Nemotron, SmolLM3, Kimi-K2-Thinking, MiniMax-M2, "
        "Granite 4, Hunyuan, ERNIE-4.5, EXAONE 4, OLMo 3, MiMo, Step3, Magistral 2506",
        "<think>",
        "</think>",
    ),
    _tags("Magistral, Ministral", "[THINK]", "[/THINK]"),
    Family(
        "gpt-oss (harmony channels)",
        r"<\|channel\|>(?:analysis|commentary)",
        r"<\|channel\|>final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
    ),
    Family(
        "gpt-oss, special tokens stripped",
        r"(?-i:\A\s*(?:(?:analysis|commentary)(?=[A-Z]|(?s:.*)assistantfinal)|analysis(?=\s+\S)))",
        r"(?-i:assistantfinal)",
        alone=False,
    ),
    _tags("Gemma 4", "<|channel>", "<channel|>"),
    _tags("Seed-OSS", "<seed:think>", "</seed:think>"),
    _tags("Command A Reasoning", "<|START_THINKING|>", "<|END_THINKING|>"),
    _tags("Kimi-VL, Kimi-Dev", "◁think▷", "◁/think▷"),
    _tags("LongCat", "<longcat_think>", "</longcat_think>"),
    _tags("MiniMax-M3", "<mm:think>", "</mm:think>"),
    Family("Hunyuan 3 and 4", r"<think:[^\s<>]+>", r"</think:[^\s<>]+>"),
    Family("K2 (IFM)", r"<ifm\|think\w*>", r"</ifm\|think\w*>"),
    _tags("PLaMo 3", "<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    _tags("Apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
    _tags("EXAONE Deep, Gemini, Marco-o1", "<thought>", "</thought>"),
    _tags("OpenThinker, Sky-T1", "<|begin_of_thought|>", "<|end_of_thought|>"),
    _tags("prompted models", "<thinking>", "</thinking>"),
    _tags("prompted models", "<reasoning>", "</reasoning>"),
    Family(
        "prompted models, at the start of a turn",
        r"\A\s*<(?:analysis|thoughts|inner_thoughts|reflection|scratchpad)>",
        r"</(?:analysis|thoughts|inner_thoughts|reflection|scratchpad)>",
        alone=False,
    ),
    Family(
        "Granite 3.2",
        r"\A\s*Here(?:'s| is) my thought process:",
        r"Here(?:'s| is) my response:",
        alone=False,
    ),
)
# what some families put around the answer itself
_AROUND = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<output>", "</output>"),
    ("<solution>", "</solution>"),
    ("<final_answer>", "</final_answer>"),
    ("<final>", "</final>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|begin_of_box|>", "<|end_of_box|>"),
)
_NEXT = ("<|return|>", "<|end|>", "<|call|>", "<|start|>")  # harmony: what ends a message
# the line of cot that has the answer; what is bold before the word is bold up to the colon
_CUE = re.compile(
    r"^[ \t>#-]*(?P<dress>\*\*|__|[*_`])?(?:(?:the|my) +)?(?:final +)?answer(?: +is)?(?:\*\*|__|[*_])? ?[:\uff1a] *"
    r"(?(dress)(?:\*\*|__|[*_])? *)",
    re.I | re.M,
)
_FENCE = re.compile(r"(```|~~~)\w*\s*\n(.*?)(\n[ \t]*\1|\Z)", re.S)
_ANOTHER = re.compile(r"```|~~~|[\[{]\s*[\"\]}\[{]")  # a fence, or what a list or an object begins with
_QUOTES = set("`'\"‘’“”")
REASONING = "Reasoning:"  # as prompts of cot without a chat template end: their models may never end their turns
# variables of chat templates that turn thinking on and off: what they are set to
_SWITCHES: dict[str, tuple[Any, Any]] = {
    "enable_thinking": (True, False),  # Qwen3, GLM-4.5, SmolLM3, Nemotron 3, EXAONE 4, Hunyuan, Granite 4, Gemma 4
    "thinking": (True, False),  # Granite 3.2, DeepSeek-V3.1, Kimi K2.5
    "thinking_mode": ("enabled", "disabled"),  # MiniMax-M3
    "thinking_budget": (None, 0),  # Seed-OSS, whose default is no limit
}


def chat_template(tokenizer: Any, base: str, profile: Profile) -> Callable[..., str]:
    """The base's chat template with its thinking on under ``think`` and off under ``chat`` and ``cot``."""
    from finbench.models import bases

    if profile == "direct" or not tokenizer.chat_template:
        return bases.chat_template(tokenizer, base)
    found = switches(tokenizer.chat_template, profile == "think")
    if profile == "think" and not found and not _family(str(tokenizer.chat_template)):
        say(f"The chat template of {base} says nothing of thinking: its answers are taken as they come.")
    return bases.chat_template(tokenizer, base, found)


def switches(template: Any, on: bool) -> dict[str, Any]:
    """What a chat template is given so that the model thinks, or does not; empty for one that has no switch."""
    texts = template.values() if isinstance(template, dict) else [template]
    known = set[str]().union(*(_variables(str(text)) for text in texts))
    found = {name: values[0 if on else 1] for name, values in _SWITCHES.items() if name in known}
    return {name: value for name, value in found.items() if value is not None}


@functools.cache
def _variables(template: str) -> frozenset[str]:
    from jinja2 import Environment, TemplateError, meta

    text = re.sub(r"{%-?\s*(end)?generation\s*-?%}", "", template)  # transformers' own
    try:
        return frozenset(
            meta.find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text))
        )
    except TemplateError:
        return frozenset()


def taken_apart(
    raw: str,
    *,
    profile: Profile,
    until: Sequence[str],
    ended: bool,
    tokens: int,
    count: Callable[[str], int],
    prompt: str = "",
    think_end: str | None = None,
    specials: Collection[str] = (),
) -> Generated:
    """The answer in the ``raw`` text of one turn, special tokens included.

    ``until``: the task's own stops, applied to what follows the reasoning. ``ended``: the model ended its turn itself;
    otherwise its budget did. ``tokens``: of the whole turn; ``count`` says how many a text has. ``prompt``: it may end
    inside the reasoning. ``specials``: the tokenizer's special tokens, which are no part of an answer.
    """
    at, marked = _end(raw, prompt, think_end)
    if at is None or (profile == "think" and not marked and not ended):
        return Generated("", _clean(raw, specials), tokens, 0, truncated=not ended or at is None)
    thought = raw[:at]
    if profile == "cot":
        cue = _cue(raw[at:], prompt)
        if cue is None:
            return Generated("", _clean(raw, specials), tokens, 0, truncated=not ended)
        if not ended and not prompt.endswith(REASONING):  # it was still reasoning, and might have come to another one
            return Generated("", _clean(raw, specials), tokens, 0, truncated=True)
        at, thought = at + cue.end(), raw[: at + cue.start()]
    kept = min(tokens, count(raw[at:])) if thought else tokens
    text, whole = _final(raw[at:], until, ended, specials)
    return Generated(text, _clean(thought, specials), tokens - kept, kept, truncated=not whole)


def given_apart(
    reasoning: str,
    content: str,
    *,
    profile: Profile,
    until: Sequence[str],
    ended: bool,
    tokens: int,
    reasoning_tokens: int | None = None,
    prompt: str = "",
    think_end: str | None = None,
) -> Generated:
    """The answer of a server that may part ``reasoning`` and ``content`` itself, and counts ``tokens`` itself.

    Where it does not say how many of them are ``reasoning_tokens``, they are shared out by characters.
    """
    if not content.strip() and not ended:
        return Generated("", reasoning, tokens, 0, truncated=True)
    if reasoning and (not think_end or (ended and think_end not in content)):
        inner = taken_apart(content, profile="cot" if profile == "cot" else "chat", until=until, ended=ended, tokens=0,
                            count=len)  # fmt: skip
        found = Generated(inner.text, "\n".join(filter(None, [reasoning, inner.reasoning])), 0, 0, inner.truncated)
    else:
        found = taken_apart(
            content, profile=profile, until=until, ended=ended, tokens=0, count=len, prompt=prompt, think_end=think_end
        )
    whole = len(reasoning) + len(content)
    if reasoning_tokens is None:
        answer = 0 if found.reasoning and not found.text else len(content) - (len(found.reasoning) - len(reasoning))
        reasoning_tokens = tokens - round(tokens * answer / whole) if whole and found.reasoning else 0
    thought = max(0, min(tokens, reasoning_tokens))
    return Generated(found.text, found.reasoning, thought, tokens - thought, found.truncated)


def answered(raw: str, prompt: str, until: Sequence[str]) -> bool:
    """Whether a model without turns has said all that counts under ``cot``: a line with its answer."""
    cue = _cue(raw, prompt) if prompt.endswith(REASONING) else None
    return cue is not None and any(stop in raw[cue.end() :].lstrip() for stop in until if stop)


def _cue(said: str, prompt: str) -> re.Match[str] | None:
    """The last line with an answer; of a model without turns the first, for it goes on with questions of its own."""
    cues = list(_CUE.finditer(said))
    return None if not cues else cues[0] if prompt.endswith(REASONING) else cues[-1]


def _end(raw: str, prompt: str, think_end: str | None) -> tuple[int | None, bool]:
    """(where the reasoning ends, whether it was marked); None where it does not end."""
    if think_end:
        last = raw.rfind(think_end)
        return (None, True) if last < 0 else (last + len(think_end), True)
    opened = next((one for one in FAMILIES if _ends_with(one, prompt)), None)
    family = opened or _family(raw)
    if family is None:
        return 0, False
    at = _walk(raw, family, opened is not None)
    while at and (family := _opening(raw[at:])):  # another one may follow at once
        step = _walk(raw[at:], family, opened=False)
        if step == 0:
            break
        at = None if step is None else at + step
    return at, True


def _opening(rest: str) -> Family | None:
    """The family with whose start a text begins."""
    return next((one for one in FAMILIES if re.match(rf"\s*(?:{one.start})", rest, re.I)), None)


def _ends_with(family: Family, prompt: str) -> bool:
    return bool(prompt) and re.search(rf"(?:{family.start})\s*\Z", prompt[-200:], re.I) is not None


def _family(raw: str) -> Family | None:
    """The one whose mark comes first."""
    first: dict[int, Family] = {}
    for family in FAMILIES:
        marks = [family.start, family.end] if family.alone else [family.start]
        found = re.search("|".join(marks), raw, re.I)
        if found:
            first.setdefault(found.start(), family)
    return first[min(first)] if first else None


def _walk(raw: str, family: Family, opened: bool) -> int | None:
    """Where the last reasoning ends; None where it does not.

    A mark in quotes is only talked about. Of several ends the last counts, for models name their own marks while they
    reason; what opens after it and stays open is no answer.
    """
    marks = [
        mark
        for mark in re.finditer(f"(?P<start>{family.start})|(?P<end>{family.end})", raw, re.I)
        if not (mark.start() > 0 and mark.end() < len(raw) and {raw[mark.start() - 1], raw[mark.end()]} <= _QUOTES)
    ]
    if not marks:
        return None if opened else 0
    return None if marks[-1]["start"] is not None else marks[-1].end()


def _final(text: str, until: Sequence[str], ended: bool, specials: Collection[str]) -> tuple[str, bool]:
    """(what a task reads of the final part, whether it is whole): up to the first of the task's stops.

    JSON, and what stands in a fence, counts as one line: line ends in it are no stops.
    """
    cuts = [place for place in map(text.find, _NEXT) if place >= 0]
    ended = ended or bool(cuts)
    said = _without(text[: min(cuts)] if cuts else text, specials).lstrip()
    for start, end in _AROUND:
        if said[: len(start)].lower() == start.lower():
            said, *closed = re.split(re.escape(end), said[len(start) :].lstrip(), maxsplit=1, flags=re.IGNORECASE)
            ended = ended or bool(closed)
    if fenced := _FENCE.match(said):
        said, ended = " ".join(fenced[2].split()) + _more(said[fenced.end() :]), ended or bool(fenced[3])
    elif said[:1] in ("[", "{"):
        try:
            _, end_of = json.JSONDecoder().raw_decode(said)
            said, ended = " ".join(said[:end_of].split("\n")) + _more(said[end_of:]), ended or end_of == len(said)
        except (ValueError, RecursionError):
            if not ended:  # the first of its lines is not the answer
                return "", False
    cut = min((said.partition(stop)[0] for stop in until if stop), key=len, default=said)
    whole = ended or len(cut) < len(said)
    return (cut.strip() if whole else ""), whole


def _more(rest: str) -> str:
    """What follows JSON or a fence: a second one is a second answer, from which no stop parts it."""
    return " " + " ".join(rest.split()) if _ANOTHER.search(rest) else rest


def _without(text: str, specials: Collection[str]) -> str:
    if not specials:
        return text
    return re.sub("|".join(map(re.escape, sorted(specials, key=len, reverse=True))), "", text)


def _clean(text: str, specials: Collection[str]) -> str:
    return _without(text, specials).strip()
