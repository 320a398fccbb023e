"""What an endpoint's reply says, read strictly: every field has its type, or the reply is refused in one line.

What is no answer (a text that is null, one that a filter withheld, one of another model) never becomes one: it would
count as a wrong answer of the model that was asked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from finbench.core.errors import FinbenchError, shortened
from finbench.engines.http import Passing

_CUT = re.compile("length|max_|limit|exceed|truncat|incomplete")  # the budget ended the answer
WITHHELD = re.compile("filter|safety|recitation|refusal|block|prohibited|sensitive|spii|guardrail|moderation")
_BROKEN = re.compile("error|abort|cancel|insufficient|timeout|^load$|^unload$|malformed")  # the server's own fault
_MOST_TOKENS = 10**8
_ABOVE = 1e-3  # a log-probability may be so far above 0 by rounding
_BELOW = 1e9  # and below 0: some servers state what cannot be as -9999 or -100,000, and sums of less have no end
# what may follow a model's name in a reply, or stand behind it: a version's date or number, a tag that is the usual one
_VERSION = re.compile(r"(?:[-@:](?:\d{3,8}(?:-\d\d){0,2}|preview(?:-\d\d-\d\d)?|exp|latest|beta|free|v\d))+$|\.gguf$")
_PARTIAL = re.compile("\ufffd|^bytes:|<0x[0-9A-Fa-f]{2}>")  # a token that is part of a character


@dataclass(frozen=True)
class Usage:
    """Tokens, as the endpoint counts them; ``reasoning`` are part of ``answer``; some count no ``prompt``."""

    prompt: int | None
    answer: int
    reasoning: int


@dataclass(frozen=True)
class Reply:
    """One answer: its text, its reasoning where the endpoint parts them, and what is said of it.

    ``ended``: the model ended it, not the limit of tokens; ``withheld``: a filter of the endpoint has it.
    """

    text: str
    reasoning: str
    ended: bool
    withheld: bool
    usage: Usage | None
    model: str | None
    fingerprint: str | None


def _no_reply(what: str) -> FinbenchError:
    """The endpoint's reply has a shape that no completion has."""
    return FinbenchError(
        f"The endpoint answers with something that is no completion: {what}",
        "Name an OpenAI-compatible endpoint: --arg url=http://127.0.0.1:8000/v1",
    )


def read(found: Any, model: str, *, also: str | None = None) -> Reply:
    """The reply in the JSON of /chat/completions or /completions. Passing for what may be another time.

    Raises FinbenchError for another shape, and for a reply that names another model than ``model`` (or ``also``).
    """
    choice = first(found)
    named = _name(found, model, also)
    message = choice.get("message", choice)
    if not isinstance(message, dict):
        raise _no_reply(_is("message", message))
    reason = choice.get("finish_reason")
    if not isinstance(reason, str | None):
        raise _no_reply(_is("finish_reason", reason))
    reason = (reason or "").lower()
    ended = not _CUT.search(reason)
    raw = message.get("content") if message is not choice else choice.get("text")
    text, inside = _text(raw)
    parted = [_string(message[key], key) for key in ("reasoning_content", "reasoning") if message.get(key) is not None]
    reasoning = inside + "".join(dict.fromkeys(parted))  # some servers write it under both names
    usage = _usage(found.get("usage"))
    fingerprint = found.get("system_fingerprint")
    stamp = shortened(fingerprint) if isinstance(fingerprint, str) and fingerprint else None
    withheld = bool(WITHHELD.search(reason)) or message.get("refusal") is not None
    if not withheld:
        if _BROKEN.search(reason):
            raise Passing(f"it broke an answer off ({shortened(reason)})")
        if message.get("tool_calls") or message.get("function_call") or "tool" in reason or "function" in reason:
            raise _no_reply("the model calls a tool, and none was offered")
        thought = reasoning or (usage and usage.reasoning) or not ended  # Gemini gives no text where it only thought
        if raw is None and not thought:
            raise Passing("its answer has no text (null)")
    return Reply(text, reasoning, ended, withheld, usage, named, stamp)


def first(found: Any) -> dict[str, Any]:
    """The first choice of a reply."""
    if not isinstance(found, dict):
        raise _no_reply(_is("it", found))
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _no_reply(_is("choices", choices))
    return choices[0]


def _is(what: str, value: Any) -> str:
    return f"{what} is {shortened(repr(value)[:400])}"


def clean(text: str) -> str:
    """Text without halves of characters (lone surrogates), as every decoder writes what is none."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _string(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _no_reply(_is(what, value))
    return clean(value)


def _text(content: Any) -> tuple[str, str]:
    """(text, reasoning) of a content: a text, null, or parts of both kinds."""
    if not isinstance(content, list):
        return (_string(content, "the text") if content is not None else ""), ""
    said: dict[str, list[str]] = {"text": [], "thinking": []}
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "output_text", "summary_text"):
            said["text"].append(_string(part.get("text"), "the text"))
        elif kind in ("thinking", "reasoning"):
            inner = part.get(kind, part.get("text", part.get("summary")))
            said["thinking"].append(_text(inner)[0] if isinstance(inner, list) else _string(inner, kind))
        elif kind == "redacted_thinking":
            pass  # it is the provider's secret
        else:
            raise _no_reply(_is("a part of the text", part))
    return "".join(said["text"]), "".join(said["thinking"])


def _usage(stated: Any) -> Usage | None:
    """None where tokens are not counted, or not in numbers that can be."""
    if not isinstance(stated, dict):
        return None
    details = stated.get("completion_tokens_details") or {}
    counts: list[Any] = [stated.get("prompt_tokens"), stated.get("completion_tokens")]
    counts += [(details.get("reasoning_tokens") if isinstance(details, dict) else None) or 0]
    prompt, answer, reasoning = (
        count if type(count) is int and 0 <= count <= _MOST_TOKENS else None for count in counts
    )
    if answer is None or reasoning is None:
        return None
    whole, total = answer if answer >= reasoning else answer + reasoning, stated.get("total_tokens")
    if type(total) is int and prompt is not None and whole < total - prompt <= _MOST_TOKENS:
        # xAI counts reasoning apart, Gemini's in the total alone
        whole, reasoning = total - prompt, max(reasoning, total - prompt - answer)
    return Usage(prompt, whole, reasoning)


def _name(found: dict[str, Any], model: str, also: str | None) -> str | None:
    """The model that a reply names; FinbenchError for another one than was asked, None where none is named."""
    named = found.get("model")
    if named is None or named == "":
        return None
    if not isinstance(named, str) or len(named) > 500:
        raise _no_reply(_is("model", named))
    named = clean(named)
    if not any(same_model(one, named) for one in (model, also) if one):
        raise FinbenchError(
            f"{shortened(model)} was asked, and {shortened(named)} answers.",
            f"If that is the same model by another name, say so: --arg answered_by={shortened(named)}",
        )
    return named


def same_model(asked: str, named: str) -> bool:
    """Whether a reply's name is the one asked for: as it is, with its date or version, with or without its owner."""

    def parts(name: str) -> list[str]:
        name = name.lower().strip("/")
        while (shorter := _VERSION.sub("", name)) != name:
            name = shorter
        return name.split("/")

    if asked == named:
        return True
    one, other = parts(asked), parts(named)
    dates = [re.search(r"(?:\d{4}-\d\d-\d\d|\d{8}|-\d{4}|-\d{3})$", name.lower()) for name in (asked, named)]
    if dates[0] and dates[1] and dates[0][0] != dates[1][0]:  # another version was asked for
        return False
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]


def log_likelihood(found: Any, prompt: str, start: int) -> tuple[float, bool]:
    """(log-likelihood, greedy) of what follows ``start`` in an echoed ``prompt``, from a reply of /completions."""
    choice = first(found)
    part, text = choice.get("logprobs"), choice.get("text")
    if not isinstance(text, str) or not text.startswith(prompt) or not isinstance(part, dict):
        raise FinbenchError(
            "The endpoint does not echo prompts with log-probabilities, which forms with labels need.",
            "Ask the generated form (fpb, not fpb_mc), or use --engine vllm",
        )
    names = ("tokens", "token_logprobs", "text_offset", "top_logprobs")
    tokens, values, offsets, best = (cast(list[Any], part.get(name)) for name in names)
    if not _lists(tokens, values, offsets) or not all(isinstance(token, str) for token in tokens):
        raise _unfit("tokens, token_logprobs and text_offset are not lists of one length")
    if not isinstance(best, list | None) or (best and len(best) != len(tokens)):
        raise _unfit("top_logprobs has another length than the tokens")
    places = _places(tokens, offsets, text)
    # a token across the seam belongs to the answer: without it the start of a label would not count
    first_place = max((place for place in places if place <= start), default=start)
    chosen = [at for at, place in enumerate(places) if first_place <= place < len(prompt) and values[at] is not None]
    if not chosen or any(values[at] is None for at in range(chosen[0], chosen[-1])) or places[chosen[0]] > start:
        raise _unfit("the answer has no tokens of its own")
    if not all(_log_probability(values[at]) for at in chosen):
        raise _unfit("they are not finite numbers up to 0")
    return float(sum(values[at] for at in chosen)), all(_greedy(values[at], best and best[at]) for at in chosen)


def _lists(*found: Any) -> bool:
    return all(isinstance(one, list) and one for one in found) and len({len(one) for one in found}) == 1


def _log_probability(value: Any) -> bool:
    return type(value) in (int, float) and -_BELOW <= value <= _ABOVE


def _greedy(value: float, best: Any) -> bool:
    if not best:
        return False
    if not isinstance(best, dict) or not all(map(_log_probability, best.values())):
        raise _unfit("top_logprobs are not finite numbers up to 0")
    return bool(value >= max(best.values()))


def _places(tokens: Sequence[str], offsets: Sequence[Any], text: str) -> list[int]:
    """Where each token begins in the text: by the tokens themselves, by the offsets where those are part of characters.

    vLLM counts the characters of a special token at the start, which the text does not have.
    """
    places, at = [], 0
    for token in tokens:
        places.append(at)
        # where tokens are decoded one by one, some tokenizers lose the space before a word
        blank = len(text[at:]) - len(text[at:].lstrip()) if not text.startswith(token, at) else 0
        if text.startswith(token, at + blank):
            at += blank + len(token)
        elif at == 0 and token[:1] == " " and text.startswith(token[1:]):
            at = len(token) - 1
        elif at > 0 or _PARTIAL.search(token):
            break  # at 0 it is a special token
    else:
        if not text[at:].strip():
            return places
    shift = next((place for place, token in zip(offsets, tokens, strict=True) if text.startswith(token)), 0)
    if not all(type(place) is int for place in offsets):
        raise _unfit("text_offset holds other things than numbers")
    stated = [max(0, place - shift) for place in offsets]
    whole = all(
        text.startswith(token, place) for token, place in zip(tokens, stated, strict=True) if not _PARTIAL.search(token)
    )
    grows = all(a <= b for a, b in itertools.pairwise(stated))
    moves = 4 * len(set(stated)) >= len(stated)  # no character has more than four bytes
    if not (whole and grows and moves) or stated[-1] > len(text) or not any(map(_PARTIAL.search, tokens)):
        raise _unfit("the tokens are not those of the text")
    return stated


def _unfit(why: str) -> FinbenchError:
    return FinbenchError(
        f"The endpoint's log-probabilities are not finite, or do not fit the prompt: {why}.",
        "Serve the model by vLLM (finbench serve), or use --engine hf",
    )
