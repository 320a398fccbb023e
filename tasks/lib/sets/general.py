"""General ability, to see what fine-tuning forgets: rows of the upstream sets, by the column names of the Hub.

PIQA and WinoGrande are read from LLM-Adapters' prompts too, which hold the whole question. Its BoolQ lacks the passage.
"""

from collections.abc import Iterable, Iterator

from .base import Item, Record, Unit, WrongFile, coded, parted, text_of

_PIQA = (
    *("Please choose the correct solution to the question: ", "\n\nSolution1: ", "\n\nSolution2: "),
    "\n\nAnswer format: solution1/solution2",
)
_WINOGRANDE = (
    "Please choose the correct answer to fill in the blank to complete the given sentence: ",
    *("\n\nOption1: ", " Option2: ", " Answer format: option1/option2"),
)


def _unit(text: str, choices: list[str], label: int | None, place: str, split: str | None, **more: str) -> Item:
    if not text or len(choices) < 2 or not all(choices) or label is None or not 0 <= label < len(choices):
        return f"{place}: needs a question, choices and the number of the right one"
    key = " ".join([text, *more.values(), *choices])
    return Unit(key, choices[label], [{"text": text, **more, "choices": choices, "label": label}], place, split)


def _index(told: str, names: tuple[str, ...]) -> int | None:
    told = told.casefold().removesuffix(".0")
    return names.index(told) if told in names else None


def _prompt(row: dict[str, object], place: str, marks: tuple[str, ...]) -> list[str]:
    found = parted(str(row["instruction"]).strip(), *marks)
    if found is None or found[0] or found[-1]:
        raise WrongFile(f"{place}: not a prompt of LLM-Adapters for this set")
    return [part.strip() for part in found[1:-1]]


def piqa(records: Iterable[Record]) -> Iterator[Item]:
    """PIQA (Bisk et al. 2020): ``goal``, ``sol1``, ``sol2``, ``label``."""
    for row, place, split in records:
        if "instruction" in row:
            goal, *choices = _prompt(row, place, _PIQA)
            label = _index(text_of(row, place, "answer"), ("solution1", "solution2"))
        else:
            goal, *choices = (text_of(row, place, name) for name in ("goal", "sol1", "sol2"))
            label = _index(text_of(row, place, "label"), ("0", "1"))
        yield _unit(goal, choices, label, place, split)


def winogrande(records: Iterable[Record]) -> Iterator[Item]:
    """WinoGrande (Sakaguchi et al. 2020): ``sentence`` with a blank ``_``, ``option1``, ``option2``, ``answer``."""
    for row, place, split in records:
        if "instruction" in row:
            sentence, *choices = _prompt(row, place, _WINOGRANDE)
            label = _index(text_of(row, place, "answer"), ("option1", "option2"))
        else:
            sentence, *choices = (text_of(row, place, name) for name in ("sentence", "option1", "option2"))
            label = _index(text_of(row, place, "answer"), ("1", "2"))
        if sentence.count("_") != 1:
            yield f"{place}: the sentence needs one blank _"
        else:
            yield _unit(sentence, choices, label, place, split)


def boolq(records: Iterable[Record]) -> Iterator[Item]:
    """BoolQ (Clark et al. 2019): ``passage``, ``question``, ``label`` (0 no, 1 yes)."""
    codes = {"0": "no", "1": "yes", "false": "no", "true": "yes"}
    for row, place, split in records:
        if "instruction" in row:
            raise WrongFile(f"{place}: these prompts lack BoolQ's passage, without which it is another test")
        passage, question = text_of(row, place, "passage"), text_of(row, place, "question")
        told = coded(text_of(row, place, "label", "answer"), codes)
        if not passage or not question or told is None:
            yield f"{place}: needs a passage, a question and a label 0 or 1"
        else:
            yield _unit(passage, ["no", "yes"], ["no", "yes"].index(told), place, split, question=question)


def _hellaswag_text(text: str) -> str:
    """As upstream: WikiHow's marks in square brackets go."""
    lines = text.strip().replace(" [title]", ". ").split("\n")
    return "\n".join(map(_unmarked, lines)).replace("  ", " ")


def _unmarked(line: str) -> str:
    """The line without what is in square brackets. A regular expression is quadratic where they do not close."""
    kept, start = [], 0
    while (opens := line.find("[", start)) >= 0 and (closes := line.find("]", opens)) >= 0:
        kept.append(line[start:opens])
        start = closes + 1
    return "".join([*kept, line[start:]])


def hellaswag(records: Iterable[Record]) -> Iterator[Item]:
    """HellaSwag (Zellers et al. 2019): ``activity_label``, ``ctx_a``, ``ctx_b``, ``endings``, ``label``."""
    for row, place, split in records:
        start = f"{text_of(row, place, 'ctx_a')} {text_of(row, place, 'ctx_b').capitalize()}"
        endings = row.get("endings")
        if not isinstance(endings, list):
            raise WrongFile(f"{place}: endings is a list of four texts")
        query = _hellaswag_text(f"{text_of(row, place, 'activity_label')}: {start}")
        choices = [_hellaswag_text(str(ending)) for ending in endings]
        yield _unit(query, choices, _index(text_of(row, place, "label"), ("0", "1", "2", "3")), place, split)


def arc(records: Iterable[Record]) -> Iterator[Item]:
    """ARC (Clark et al. 2018): ``question``, ``choices`` {text, label}, ``answerKey``."""
    for row, place, split in records:
        choices = row.get("choices")
        if not isinstance(choices, dict) or not {"text", "label"} <= set(choices):
            raise WrongFile(f"{place}: choices is an object of text and label")
        names = tuple(str(name).casefold() for name in choices["label"])
        label = _index(text_of(row, place, "answerKey"), names)
        yield _unit(text_of(row, place, "question"), [str(text) for text in choices["text"]], label, place, split)


def mmlu(records: Iterable[Record]) -> Iterator[Item]:
    """MMLU (Hendrycks et al. 2021): ``question``, ``subject``, ``choices``, ``answer`` 0 to 3."""
    for row, place, split in records:
        choices, subject = row.get("choices"), text_of(row, place, "subject").replace("_", " ")
        if not isinstance(choices, list):
            raise WrongFile(f"{place}: choices is a list of four texts")
        told = text_of(row, place, "answer")
        label = _index(told, ("0", "1", "2", "3")) if told[:1].isdigit() else _index(told, ("a", "b", "c", "d"))
        question = text_of(row, place, "question")
        yield _unit(question, [str(choice) for choice in choices], label, place, split, subject=subject)
