"""Ollama's Modelfile of an exported model: its template, from the base's own, and the words at which it stops.

A chat template and a tokenizer are a stranger's: what could end a text of the Modelfile, or begin a program in it, is
refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.models import bases

_SYSTEM, _FIRST, _REPLY, _SECOND = (f"Finbench{word}Text" for word in ("System", "First", "Reply", "Next"))
_UNSAFE = re.compile(r'"""|\{\{|\}\}|[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]')
_STOP = re.compile(r'[^"\\\x00-\x1f\x7f]{1,100}')


@dataclass(frozen=True)
class Turns:
    """What a chat template writes around the texts of a conversation in which user and assistant take turns."""

    first: str  # before the user's first text, where nobody gave a system text
    system: str | None  # before the system's text; None: the template takes none
    after_system: str
    asked: str  # after a user's text: the assistant's turn begins
    replied: str  # after the assistant's text: the user's turn begins

    def template(self) -> str:
        """The same as Ollama's template."""
        # where the template takes no system text, one is left out, and the user's first turn begins as it does
        written = "" if self.system is None else f"{self.system}{{{{ $one.Content }}}}{self.after_system}"
        system = f'{{{{ if eq $one.Role "system" }}}}{written or self.first}{{{{ else }}}}'
        turn = '{{ if eq $one.Role "user" }}{{ if eq $place 0 }}' + self.first + "{{ end }}{{ $one.Content }}"
        turn += self.asked + '{{ else if eq $one.Role "assistant" }}{{ $one.Content }}' + self.replied + "{{ end }}"
        return "{{ range $place, $one := .Messages }}" + system + turn + "{{ end }}{{ end }}"


def text(tokenizer: Any, base: str, chat: bool, model: str) -> str:
    """The Modelfile of ``model``, a file beside it; FinbenchError for a template or a word that it cannot hold."""
    stops = [str(tokenizer.eos_token)] if tokenizer.eos_token else []
    template = "{{ .Prompt }}"
    if chat:
        turns = turns_of(tokenizer, base)
        template = turns.template()
        around = turns.asked + turns.replied
        stops += [word for word in map(str, tokenizer.all_special_tokens) if word in around and word not in stops]
        stops += [word for word in re.findall(r"<[^\s<>]{1,40}>", around) if word not in stops]
    for word in stops:
        if not _STOP.fullmatch(word):
            raise FinbenchError(f"{base} stops at {word[:60]!r}, which a Modelfile cannot hold.", "Use --to gguf.")
    lines = [f"FROM ./{model}", f'TEMPLATE """{template}"""']
    lines += [f'PARAMETER stop "{word}"' for word in dict.fromkeys(stops)]
    return "\n".join([*lines, "PARAMETER temperature 0"]) + "\n"


def turns_of(tokenizer: Any, base: str) -> Turns:
    """What the chat template of ``base`` writes around texts; FinbenchError for one that is no form to fill."""
    render = bases.chat_template(tokenizer, base)
    told = [("user", _FIRST), ("assistant", _REPLY), ("user", _SECOND)]
    said = [{"role": role, "content": content} for role, content in told]
    first, asked, replied, again = _around(render(said), (_FIRST, _REPLY, _SECOND), base)
    if again != asked:
        raise _no_form(base, "it writes another turn's beginning than a conversation's later")
    system, after_system = None, ""
    try:
        spoken = render([{"role": "system", "content": _SYSTEM}, *said])
    except FinbenchError:
        spoken = ""  # a template that takes no system text says so by an error
    if _SYSTEM in spoken:
        system, after_system, *rest = _around(spoken, (_SYSTEM, _FIRST, _REPLY, _SECOND), base)
        if rest != [asked, replied, asked]:
            raise _no_form(base, "its turns depend on the system text")
    begins = str(tokenizer.bos_token or "")
    if begins and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]:  # then llama.cpp writes it by itself
        first = first.removeprefix(begins)
        system = None if system is None else system.removeprefix(begins)
    found = Turns(first, system, after_system, asked, replied)
    parts = (first, system or "", after_system, asked, replied)
    if odd := _UNSAFE.search("".join(parts)):
        raise _no_form(base, f"it writes {odd[0]!r}")
    if any(part.startswith("}") or part.endswith("{") for part in parts):  # beside the form's own brackets
        raise _no_form(base, "it writes a curly bracket beside a text")
    return found


def _around(text: str, words: tuple[str, ...], base: str) -> list[str]:
    parts = re.split("|".join(words), text)
    if len(parts) != len(words) + 1 or re.findall("|".join(words), text) != list(words):
        raise _no_form(base, "it does not write every text once, in its order")
    return parts


def _no_form(base: str, why: str) -> FinbenchError:
    return FinbenchError(
        f"The chat template of {base} cannot be a Modelfile's: {why}.", "Use --to gguf; llama.cpp runs the template."
    )
