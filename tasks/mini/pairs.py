"""Write pairs.test.jsonl: 500 minimal pairs of sentences about invented companies, the same bytes every time.

    python tasks/mini/pairs.py           # (re)write the files
    python tasks/mini/pairs.py --check   # exit 1 if one differs

The two sentences of a pair differ in one thing and in their label: the direction ("profit rose", "profit fell"), or
what moved ("profit rose", "loss rose"). So neither a word of direction nor a noun decides alone.
pairs.train.jsonl has 50 pairs of other companies, for worked examples.
"""

import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
PAIRS = {"test": 500, "train": 50}
GOOD = (
    "operating profit", "net profit", "net sales", "order intake", "cash flow from operations", "earnings per share",
    "gross margin", "market share", "comparable sales", "net interest income", "customer satisfaction", "fee income",
)  # fmt: skip
BAD = (
    "net debt", "raw material costs", "credit losses", "impairment charges", "customer complaints", "interest expenses",
    "overdue receivables", "staff turnover", "warranty claims", "operating loss", "net loss", "bad debts",
)  # fmt: skip
UP = ("rose", "increased", "grew", "climbed", "went up")
DOWN = ("fell", "decreased", "declined", "dropped", "went down")
LOSSES = ("operating loss", "net loss", "pretax loss")
PROFITS = ("operating profit", "net profit", "pretax profit")
NAMES = {
    "test": (
        "Norvane", "Quellmar", "Brastow", "Tindrel", "Velmoor", "Karsund", "Pellwick", "Drenholm", "Sarvund", "Lundrow",
        "Ostvale", "Brinmoor", "Callthorn", "Delvany", "Eskerow", "Farnwyke", "Gorsmere", "Hathvale", "Ilvarra",
    ),
    "train": ("Aldermoss", "Bexholm", "Calvarne", "Drosmere", "Elvestra", "Frostane", "Galdwin", "Hollandry"),
}  # fmt: skip
SUFFIXES = ("Group", "plc", "Inc", "Holdings", "Industries", "Partners")
PERIODS = (
    "in the first quarter", "in the second quarter", "in the third quarter", "in the fourth quarter",
    "in the first half of the year", "over the past twelve months", "in the financial year", "in the reporting period",
)  # fmt: skip
FRAMES = (
    "{name} said that its {what} {moved} by {share} % {when}.",
    "{name}'s {what} {moved} {when}, the company said.",
    "{when}, {what} of {name} {moved} by {share} %.",
    "According to its interim report, {name}'s {what} {moved} by {share} % {when}.",
    "At {name}, {what} {moved} {when}.",
    "Analysts at {other} note that {name}'s {what} {moved} by {share} % {when}.",
)


def statements(rng: random.Random) -> tuple[tuple[str, str], tuple[str, str]]:
    """(what, moved) of good news and of bad news; they differ in one of the two."""
    at = rng.randrange(len(UP))
    kind = rng.randrange(5)
    if kind == 0:
        what = rng.choice(GOOD)
        return (what, UP[at]), (what, DOWN[at])
    if kind == 1:
        what = rng.choice(BAD)
        return (what, DOWN[at]), (what, UP[at])
    if kind == 2:
        what = rng.choice(LOSSES)
        return (what, "narrowed"), (what, "widened")
    number = rng.randrange(len(PROFITS))
    moved = (UP if kind == 3 else DOWN)[at]
    news = (PROFITS[number], moved), (LOSSES[number], moved)
    return news if kind == 3 else (news[1], news[0])


def rows(split: str) -> list[dict[str, str]]:
    """Two rows a pair; the good news stands first in half of them."""
    rng, seen, made = random.Random(f"36 {split}"), set[str](), list[dict[str, str]]()
    while len(made) < 2 * PAIRS[split]:
        name, other = (f"{one} {rng.choice(SUFFIXES)}" for one in rng.sample(NAMES[split], 2))
        frame, when, share = rng.choice(FRAMES), rng.choice(PERIODS), rng.randrange(2, 40)
        texts = []
        for what, moved in statements(rng):
            text = frame.format(name=name, other=other, what=what, moved=moved, when=when, share=share)
            texts.append(text[0].upper() + text[1:])
        if seen & set(texts):
            continue
        seen |= set(texts)
        number = len(made) // 2 + 1
        labelled = list(zip(texts, ("positive", "negative"), strict=True))
        for part, (text, label) in zip("ab", labelled if number % 2 else labelled[::-1], strict=True):
            made.append(
                {
                    "id": f"pairs-{split}-{number:03}{part}",
                    "group": f"{split}-{number:03}",
                    "text": text,
                    "label": label,
                }
            )
    return made


def main() -> None:
    """Write the files, or compare them."""
    for split in PAIRS:
        file = HERE / f"pairs.{split}.jsonl"
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows(split))
        if "--check" not in sys.argv[1:]:
            file.write_text(text, encoding="utf-8")
        elif file.read_text(encoding="utf-8") != text:
            sys.exit(f"{file.name} differs: python tasks/mini/pairs.py")


if __name__ == "__main__":
    main()
