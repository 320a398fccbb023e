"""Texts to training rows: tokens, and which of them bear loss.

Where an answer begins is decided as lm-eval splits a (context, continuation) request: behind as many tokens as the text
before it has alone. To tokenise that text again would take as long as the row itself; the end of it is enough wherever
the tokenizer says that a word, or the text behind a special token, begins there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from finbench.training.batches import TrainingRow

_BACK = 24  # tokens before an answer among which a word is looked for
_REMEMBERED = 65_536  # ends of prompts; those of one task are few


class Rendered(NamedTuple):
    """A row as text. ``spans``: where its answers stand (first character, behind the last), in order, one at least.

    ``closed``: end-of-text follows the last answer; a chat template may have written its own end of a turn.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    closed: bool = True

    @classmethod
    def of_pair(cls, prompt: str, answer: str) -> Rendered:
        """A prompt and its answer; spaces at the end of the prompt go to the answer."""
        return cls(prompt + answer, ((len(prompt.rstrip(" ")), len(prompt) + len(answer)),))


class RowEncoder:
    """Tokenises rendered rows, many at once where the tokenizer can.

    A pair is divided as lm-eval divides a (context, continuation) request: the answer is what follows as many tokens
    as the prompt alone has. End-of-text is appended.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.eos = tokenizer, tokenizer.eos_token_id
        self.backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer_is_fast(tokenizer) else None
        added = getattr(tokenizer, "added_tokens_decoder", {})  # these are found before words are divided
        self.special = {*added, *tokenizer.all_special_ids} if self.backend else set()
        self.ends: dict[str, list[int]] = {}  # of the last words of prompts, tokenised

    def rows(self, texts: Sequence[Rendered]) -> Iterator[TrainingRow]:
        """The rows of some texts, in order. An answer that has no token of its own bears no loss."""
        encoded = self._encoded([one.text for one in texts])
        for one, (ids, found, opened) in zip(texts, encoded, strict=True):
            yield self._row(one, ids, found, opened)

    def _encoded(self, texts: list[str]) -> list[tuple[list[int], Any, bool]]:
        """Of each text its tokens without end-of-text, what the backend says of them, whether tokens were added."""
        if self.backend is None:
            return [(self._alone(text, self._opens(text)), None, self._opens(text)) for text in texts]
        made: list[Any] = [None] * len(texts)
        for opened in (True, False):
            chosen = [number for number, text in enumerate(texts) if self._opens(text) is opened]
            if chosen:
                found = self.backend.encode_batch([texts[number] for number in chosen], add_special_tokens=opened)
                for number, one in zip(chosen, found, strict=True):
                    made[number] = (self._bare(one.ids), one, opened)
        return made

    def _opens(self, text: str) -> bool:
        """Whether the tokenizer puts its own first token before a text: a chat template writes it itself."""
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _alone(self, text: str, opened: bool) -> list[int]:
        return self._bare(self.tokenizer.encode(text, add_special_tokens=opened))

    def _bare(self, ids: list[int]) -> list[int]:
        while ids and ids[-1] == self.eos:  # some tokenizers append it by themselves
            ids.pop()
        return ids

    def _row(self, one: Rendered, ids: list[int], found: Any, opened: bool) -> TrainingRow:
        first, last = one.spans[0][0], one.spans[-1][1]
        if len(one.spans) == 1 and one.closed and last == len(one.text):  # a pair, or a plain text
            begin = self._before(one.text, first, ids, found, opened)
            ids = [*ids, self.eos]
            return TrainingRow(ids, len(ids) - begin)
        edges = [
            (self._before(one.text, start, ids, found, opened), self._upto(one.text, end, ids, found, opened))
            for start, end in one.spans
        ]
        ids = ids[: edges[-1][1]]
        if one.closed or one.text.endswith(self.tokenizer.eos_token):  # which was taken off with what is appended
            ids.append(self.eos)
            edges[-1] = (edges[-1][0], len(ids))
        silent = tuple((end, start) for (_, end), (start, _) in pairwise(edges))
        return TrainingRow(ids, sum(end - start for start, end in edges), silent)

    def _before(self, text: str, at: int, ids: list[int], found: Any, opened: bool) -> int:
        """Tokens that the text before ``at`` has alone; of no text, one that is only there to be seen."""
        if at == 0:
            return max(1, len(self._alone("", opened)))
        begin = None if found is None else self._anchor(text, at, ids, found)
        if begin is not None:
            number, start = begin
            end = self._end(text[start:at])
            if end and end[-1] != self.eos and ids[number : number + len(end)] == end:
                return number + len(end)
        return len(self._alone(text[:at], opened))

    def _upto(self, text: str, at: int, ids: list[int], found: Any, opened: bool) -> int:
        """Tokens up to the end of an answer: where a special token ends it, that is known."""
        number = None if found is None else found.char_to_token(at - 1)
        if number is not None and number < len(ids) and ids[number] in self.special:
            return int(number) + 1
        return min(len(ids), len(self._alone(text[:at], opened))) if at < len(text) else len(ids)

    def _end(self, text: str) -> list[int]:
        known = self.ends.get(text)
        if known is None:
            if len(self.ends) >= _REMEMBERED:
                self.ends.clear()
            assert self.backend is not None
            known = self.ends[text] = self.backend.encode(text, add_special_tokens=False).ids
        return known

    def _anchor(self, text: str, at: int, ids: list[int], found: Any) -> tuple[int, int] | None:
        """(token, character) before ``at`` from which on tokens do not depend on what stands before; None: not found.

        Behind a special token; or at a single space before a word, where the tokenizer's own division begins one.
        """
        seen = at
        while seen < len(text) and text[seen].isspace():
            seen += 1
        last = found.char_to_token(seen) if seen < len(text) else len(ids)
        if last is None or last > len(ids):
            return None
        for number in range(last - 1, max(last - _BACK, 0), -1):
            span = found.token_to_chars(number)
            if span is None:
                return None
            if ids[number] in self.special:
                return (number + 1, span[1]) if span[1] < at else None
            start = span[0] if text[span[0]] == " " else span[0] - 1  # some do not count the space before a word
            if not 0 < start < at - 1 or text[start] != " " or text[start - 1].isspace():
                continue
            if text[start + 1].isalnum() and found.token_to_word(number) != found.token_to_word(number - 1):
                return number, start
        return None


def tokenizer_is_fast(tokenizer: Any) -> bool:
    """Whether it is one of the tokenizers library, which tokenises many texts at once and says where tokens stand."""
    return bool(getattr(tokenizer, "is_fast", False))
