"""Rows of the user's own as training rows: rendered, tokenised, measured, with all that is left out counted."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from finbench.core import owntasks
from finbench.core.errors import FinbenchError, shortened
from finbench.core.records import LearntData, Recipe
from finbench.data import own
from finbench.data.contamination import Index
from finbench.data.own import Survey, Turn
from finbench.models import bases
from finbench.training.batches import TrainingRow
from finbench.training.encoding import Rendered, RowEncoder
from finbench.training.token_rows import TokenWriter

_TOGETHER = 512  # rows that are tokenised at once
_FAR, _WIDE = 200_000, 32  # characters that are looked at of a very long text, and of each token that it may have
SHOWN = 5  # faults that are named one by one
_LOOKED_INTO = re.compile(r"[<>\[\]{}|]")


class Unrenderable(Exception):
    """Why a conversation cannot be rendered."""


@dataclass(frozen=True)
class Frame:
    """What a template writes around the turns of a conversation: before the first, between them, after the last.

    ``answers``: number of a turn -> characters that its answer has before and behind what was said.
    """

    pieces: list[str]
    answers: dict[int, tuple[int, int]]
    closed: bool


@dataclass(frozen=True)
class Renderer:
    """Turns to text: by the base's chat template if there is one, else a prompt and its answer one after the other.

    ``delimiter`` comes between them where neither has white space there. ``ends``: texts of the tokenizer's own tokens.
    """

    template: Callable[..., str] | None
    delimiter: str
    ends: tuple[str, ...]
    base: str
    frames: dict[tuple[str, ...], Frame | None] = field(default_factory=dict)  # of conversations by who speaks in them

    @classmethod
    def of(cls, tokenizer: Any, template: Callable[..., str] | None, delimiter: str, base: str) -> Renderer:
        """For the tokens that the tokenizer does not make of text."""
        added = [token.content for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]
        ends = dict.fromkeys([*added, *tokenizer.all_special_tokens])
        return cls(template, delimiter, tuple(end for end in ends if end.strip()), base)

    def rendered(self, turns: Sequence[Turn], conversation: bool) -> list[Rendered]:
        """One text, or one for each answer where the template shows earlier turns otherwise than it did at first.

        Raises Unrenderable.
        """
        if conversation:
            return self._framed(turns) or self._conversation(turns)
        asked, answer = turns[:-1], turns[-1][1]
        closed = not answer.endswith(self.ends)  # rows that were made for another trainer may have an end of their own
        if turns[0][0] == "text":
            return [Rendered(answer, ((0, len(answer)),), closed)]
        if self.template is not None:
            shown = self._shown(_messages(asked), True)
            self._check(asked, shown)
            return [Rendered.of_pair(shown, answer)._replace(closed=closed)]
        prompt = "\n".join(text for _, text in asked)
        joined = "" if prompt[-1:].isspace() or answer[:1].isspace() else self.delimiter
        return [Rendered.of_pair(prompt, joined + answer)._replace(closed=closed)]

    def _framed(self, turns: Sequence[Turn]) -> list[Rendered]:
        """By what the template wrote around other words of the same speakers, if it writes the same around these.

        Rendered turn by turn a conversation takes twice as long as its tokens do. Texts that a template may look into
        (thoughts in tags, calls of tools) are not taken for words.
        """
        if any(_LOOKED_INTO.search(text) or text != text.strip() for _, text in turns):
            return []
        speakers = tuple(who for who, _ in turns)
        if speakers not in self.frames:
            self.frames[speakers] = self._frame(speakers)
        frame = self.frames[speakers]
        if frame is None:
            return []
        text, spans = frame.pieces[0], []
        for number, ((_, said), after) in enumerate(zip(turns, frame.pieces[1:], strict=True)):
            start = len(text)
            text += said + after
            if number in frame.answers:
                before, behind = frame.answers[number]
                spans.append((start - before, start + len(said) + behind))
        if self._shown(_messages(turns), False).rstrip() != text:
            return []
        return [Rendered(text, tuple(spans), frame.closed)]

    def _frame(self, speakers: Sequence[str]) -> Frame | None:
        words = [f"word{number}word" for number in range(len(speakers))]
        made = self._conversation(list(zip(speakers, words, strict=True)))
        if len(made) > 1 or any(made[0].text.count(word) != 1 for word in words):
            return None
        places = [made[0].text.index(word) for word in words]
        ends = [place + len(word) for place, word in zip(places, words, strict=True)]
        if places != sorted(places):
            return None
        pieces = [made[0].text[end:start] for end, start in zip([0, *ends], [*places, None], strict=True)]
        numbers = [number for number, who in enumerate(speakers) if who == "assistant"]
        answers = {
            number: (places[number] - start, end - ends[number])
            for number, (start, end) in zip(numbers, made[0].spans, strict=True)
        }
        return Frame(pieces, answers, made[0].closed)

    def _conversation(self, turns: Sequence[Turn]) -> list[Rendered]:
        messages = _messages(turns)
        answers = [number for number, (who, _) in enumerate(turns) if who == "assistant"]
        whole = self._shown(messages, False)
        self._check(turns, whole)
        alone: list[Rendered] = []
        for number in answers:
            before = self._shown(messages[:number], True)
            after = whole if number == len(messages) - 1 else self._shown(messages[: number + 1], False)
            if not after.startswith(before):
                raise Unrenderable(
                    f"the chat template of {self.base} begins an answer otherwise than it asks for one "
                    f"({shortened(before[-40:])!r})"
                )
            text = after.rstrip()
            self._check(turns[number : number + 1], text[len(before.rstrip()) :], number)
            alone.append(Rendered(text, ((len(before.rstrip(" ")), len(text)),), not text.endswith(self.ends)))
        earlier = alone[:-1]
        if any(one.closed or not whole.startswith(one.text) for one in earlier):
            return alone
        spans = tuple(span for one in alone for span in one.spans)
        return [alone[-1]._replace(spans=spans)]

    def _check(self, turns: Sequence[Turn], shown: str, before: int = 0) -> None:
        """Refuse a template that leaves words out: one for pictures and text, or without system prompts."""
        for number, (who, text) in enumerate(turns, before + 1):
            if text.rpartition("</think>")[2].strip() not in shown:  # many take earlier thoughts out
                raise Unrenderable(f"the chat template of {self.base} leaves out what turn {number} says ({who})")

    def _shown(self, messages: list[dict[str, str]], asking: bool) -> str:
        assert self.template is not None
        try:
            return self.template(messages, asking, not asking)
        except FinbenchError as fault:
            raise Unrenderable(fault.message.rstrip(".")) from fault


def _messages(turns: Iterable[Turn]) -> list[dict[str, str]]:
    return [{"role": who, "content": text} for who, text in turns]


@dataclass
class Learnt:
    """What becomes of the rows of one source. ``numbers``: of its rows in the writer, in order."""

    survey: Survey
    numbers: list[int] = field(default_factory=list)
    rows: int = 0  # that were rendered: a conversation may become several
    apart: int = 0  # conversations of which each answer became a row of its own
    refused: int = 0
    long: int = 0
    uncounted: int = 0  # of these, so long that their tokens were not counted
    lengths: array[int] = field(default_factory=lambda: array("q"))  # tokens of each row, before it was cut
    answers: int = 0  # tokens that bear loss
    faults: list[str] = field(default_factory=list)
    digest: str = ""
    shown: list[tuple[Rendered, str]] = field(default_factory=list)  # the first rows, with their lines
    texts: set[int] = field(default_factory=set)  # test texts of ranked tasks that stand in them

    def dropped(self, recipe: Recipe) -> dict[str, int]:
        """Why rows were left out, or cut -> how many."""
        found = dict(self.survey.dropped)
        if self.refused:
            found["refused"] = self.refused
        if self.long:
            found["too long, cut" if recipe.long_rows == "cut" else "too long"] = self.long
        return found

    def lines(self, recipe: Recipe) -> list[str]:
        """What was left out or done otherwise, for people."""
        found = []
        if dropped := self.dropped(recipe):
            found.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in dropped.items()) + ".")
        if self.apart:
            found.append(
                f"of {self.apart:,} conversations each answer is a row of its own, for the chat template shows "
                "earlier turns otherwise than it did when they were answered."
            )
        return found

    def record(self, recipe: Recipe) -> LearntData:
        """Which rows were learnt."""
        located = self.survey.located
        hub = located.revision is not None
        pinned = {"origin": located.name.partition("@")[0], "revision": located.revision} if hub else {"origin": "own"}
        return LearntData(
            set=located.name.partition("@")[0].removeprefix("hub:"),
            split="train",
            rows=self.rows,
            digest=self.digest,
            sha256=located.sha256,
            dropped=self.dropped(recipe),
            **pinned,
        )


def learn(
    found: Survey,
    recipe: Recipe,
    encoder: RowEncoder,
    renderer: Renderer,
    longest: int,
    writer: TokenWriter,
    *,
    chosen: Sequence[int] | None = None,
    index: Index | None = None,
    show: int = 1,
) -> Learnt:
    """Render and tokenise the rows of a source, or the ``chosen`` ones of them, into ``writer``.

    ``longest``: tokens that a row may have. ``index``: test texts to look for. ``show``: rows kept as text,
    spread over all.
    Rows that are too long, or that the template refuses, are counted; ``settle`` says what that means.
    """
    made, sha = Learnt(found), hashlib.sha256()
    wanted = None if chosen is None else bytearray(len(found.kept))
    for number in chosen or ():
        assert wanted is not None
        wanted[number] = 1
    kept = found.kept.tobytes() if wanted is None else bytes(wanted)
    apart = max(1, sum(kept) // show)
    used = itertools.compress(found.contents(), kept)
    for part in _groups(_rendered(used, made, renderer, sha, index)):
        heads = [_head(one, longest, encoder) for one, _ in part]
        rows = encoder.rows([head or one for head, (one, _) in zip(heads, part, strict=True)])
        for (one, place), head, row in zip(part, heads, rows, strict=True):
            if head is None:
                made.lengths.append(len(row.ids))
            made.uncounted += head is not None
            if row.answer < 1:
                made.refused += 1
                _note(made, f"{place}: its answer has no token of its own")
                continue
            if len(row.ids) > longest:
                made.long += 1
                if len(made.faults) < SHOWN and recipe.long_rows == "refuse":
                    size = f"{len(row.ids):,} tokens" if head is None else f"{len(one.text):,} characters"
                    made.faults.append(f"{place}: {size}")
                cut = shorter(row, longest) if recipe.long_rows == "cut" else None
                if cut is None:
                    continue
                row = cut
            if made.rows == len(made.shown) * apart and len(made.shown) < show:
                made.shown.append((one, place))
            made.numbers.append(len(writer))
            made.rows += 1
            made.answers += row.answer
            writer.add(row)
    made.digest = sha.hexdigest()
    return made


def benchmarks_of(found: Survey) -> list[str]:
    """A line for each benchmark that was made here of these very rows."""
    return [
        f"{folder.name} was made of these very rows, and its test is among them. To be scored on it, learn "
        f"its train split instead: --task {folder}"
        for folder in owntasks.made_of(found.located.sha256)
    ]


def template_of(tokenizer: Any, recipe: Recipe) -> Callable[..., str] | None:
    """The chat template of a recipe's base, where it asks for it. Raises FinbenchError where there is none."""
    if recipe.chat and not tokenizer.chat_template:
        for part in filter(own.holds_conversations, recipe.data):
            raise _untold(part.source, recipe)
    return bases.chat_template(tokenizer, recipe.base) if recipe.chat else None


def check_template(found: Survey, template: Callable[..., str] | None, tokenizer: Any, recipe: Recipe) -> None:
    """Refuse conversations where no chat template would render them. Raises FinbenchError."""
    if template is None and any(known.shape.chat for known in found.formats.values()):
        if not tokenizer.chat_template:
            raise _untold(found.name, recipe)
        raise FinbenchError(
            f"{found.name} holds conversations, which only a chat template can render.", "Add --set chat=true"
        )


def _untold(source: str, recipe: Recipe) -> FinbenchError:
    return FinbenchError(
        f"{source} holds conversations, which only a chat template can render, and {recipe.base} has none.",
        "Choose a base that has one, as those with chat of: finbench bases",
    )


def settle(made: Learnt, recipe: Recipe, longest: int) -> None:
    """Refuse rows that cannot be learnt as the recipe asks. Raises FinbenchError."""
    name, count = made.survey.name, made.rows + made.refused + made.long
    if made.refused and recipe.bad_rows == "refuse":
        raise FinbenchError(
            f"{made.refused:,} of {count:,} rows of {name} cannot be rendered:\n  " + "\n  ".join(made.faults),
            "Correct them, choose another base (finbench bases), or leave such rows out: --set bad_rows=drop",
        )
    most = max(made.lengths, default=0)
    if made.long and recipe.long_rows == "refuse":
        counted = "" if made.uncounted else f" (up to {most:,})"
        ways = ["Cut them at their end (--set long_rows=cut)", "leave them out (--set long_rows=drop)"]
        if not made.uncounted:
            ways.append(f"allow them (--set max_length={most}), if the base's context allows that many")
        raise FinbenchError(
            f"{made.long:,} of {count:,} rows of {name} are longer than {longest:,} tokens{counted}:\n  "
            + "\n  ".join(made.faults),
            f"{', '.join(ways[:-1])}, or {ways[-1]}.",
        )
    if not made.rows:
        left = ", ".join(f"{many:,} {why}" for why, many in made.dropped(recipe).items())
        said = f"No row of {name} is left to learn from" + (f" (left out: {left})." if left else ".")
        if made.survey.copies and not made.survey.kept.any():  # of rows of other sources: of its own, one each is kept
            mend = "Is it named twice? Sources before it have all of its rows: name it once, or leave it out. "
            raise FinbenchError(said, f"{mend}A weight has rows learnt twice: --data {name}:2")
        raise FinbenchError(said, f"See why: finbench data check {name}")


def _head(one: Rendered, longest: int, encoder: RowEncoder) -> Rendered | None:
    """The beginning of a text of which this much is too long already; None for any other: all of it is tokenised."""
    room = max(_FAR, _WIDE * longest)
    if len(one.text) <= 2 * room:
        return None
    spans = tuple((start, min(end, room)) for start, end in one.spans if start < room - 1)
    head = Rendered(one.text[:room], spans or ((room - 1, room),), closed=False)
    [row] = encoder.rows([head])
    return head if len(row.ids) > longest else None


def shorter(row: TrainingRow, longest: int) -> TrainingRow | None:
    """The first ``longest`` tokens of a row; None if no answer is left among them."""
    spans = [(start, min(end, longest)) for start, end in row.spans if start < longest]
    if not spans:
        return None
    silent = tuple((end, start) for (_, end), (start, _) in itertools.pairwise(spans))
    return TrainingRow(row.ids[: spans[-1][1]], sum(end - start for start, end in spans), silent)


def _rendered(
    used: Iterable[tuple[list[Turn], str]], made: Learnt, renderer: Renderer, sha: Any, index: Index | None
) -> Iterator[tuple[Rendered, str]]:
    chats = {name for name, known in made.survey.formats.items() if known.shape.chat}
    every = len(chats) == len(made.survey.formats)
    for turns, place in used:
        chat = bool(chats) and (every or any(place.startswith(f"{name}:") for name in chats))
        try:
            texts = renderer.rendered(turns, chat)
        except Unrenderable as fault:
            made.refused += 1
            _note(made, f"{place}: {fault}")
            continue
        made.apart += len(texts) > 1
        sha.update(json.dumps([chat, *turns], ensure_ascii=False).encode())
        if index is not None:
            made.texts |= index.seen(text for _, text in turns)
        for text in texts:
            yield text, place


def _note(made: Learnt, said: str) -> None:
    if len(made.faults) < SHOWN:
        made.faults.append(said)


def _groups(texts: Iterator[tuple[Rendered, str]]) -> Iterator[list[tuple[Rendered, str]]]:
    while part := list(itertools.islice(texts, _TOGETHER)):
        yield part
