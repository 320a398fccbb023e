"""Gold headlines (Sinha and Khandait 2021): nine yes/no questions about each headline."""

from collections.abc import Iterable, Iterator

from .base import Item, Record, Row, Unit, coded, text_of

# attribute, the authors' column, the question
QUESTIONS = (
    ("price", "PriceOrNot", "Is the headline about the price of the commodity?"),
    ("price_up", "DirectionUp", "Does the headline say that the price went up?"),
    ("price_constant", "DirectionConstant", "Does the headline say that the price stayed the same?"),
    ("price_down", "DirectionDown", "Does the headline say that the price went down?"),
    ("past_price", "PastPrice", "Does the headline tell about prices in the past?"),
    ("future_price", "FuturePrice", "Does the headline tell about prices in the future?"),
    ("past_news", "PastNews", "Does the headline tell about an event in the past, other than of the price?"),
    ("future_news", "FutureNews", "Does the headline tell about an event in the future, other than of the price?"),
    ("comparison", "AssetComparision", "Does the headline compare gold with another asset?"),
)
_ANSWERS = {"0": "No", "0.0": "No", "false": "No", "1": "Yes", "1.0": "Yes", "true": "Yes"}


def headlines(records: Iterable[Record]) -> Iterator[Item]:
    """``News`` and nine columns of 0 and 1; columns are known by their letters, so "Price or Not" is one too.

    A headline is one unit: copies that differ in any answer are dropped whole, and its questions stay together.
    """
    for row, place, _ in records:
        text = text_of(row, place, "News", "headline")
        told = [text_of(row, place, column, column.replace("Comparision", "Comparison")) for _, column, _ in QUESTIONS]
        answers = [coded(value, _ANSWERS) for value in told]
        if None in answers:
            wrong = answers.index(None)
            yield f"{place}: {QUESTIONS[wrong][1]} is 0 or 1, found {told[wrong][:40]!r}"
        elif not text:
            yield f"{place}: the headline is empty"
        else:
            yield Unit(text, answers, _rows(text, [str(answer) for answer in answers]), place)


def _rows(text: str, answers: list[str]) -> list[Row]:
    return [
        {"id": name, "text": text, "attribute": name, "question": question, "label": answer}
        for (name, _, question), answer in zip(QUESTIONS, answers, strict=True)
    ]
