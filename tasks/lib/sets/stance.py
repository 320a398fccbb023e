"""Sentences with a label, from spreadsheets: stance of the Federal Reserve (FOMC), numeric claims (NumClaim)."""

from collections.abc import Callable, Iterable, Iterator

from .base import Hub, Item, Part, Record, Set, Unit, WrongFile, coded, key_of, text_of

STANCES = ("dovish", "hawkish", "neutral")
CLAIMS = ("out-of-claim", "in-claim")
SEEDS = ("5768", "78516", "944601")
KINDS = ("combine", "split-combine")
_STANCE_CODES = dict(zip("012", STANCES, strict=True))
_CLAIM_CODES = dict(zip("01", CLAIMS, strict=True)) | {"inclaim": "in-claim", "outofclaim": "out-of-claim"}


def _readable(text: str) -> str:
    """Encoding damage undone where nothing is lost: UTF-8 that was read as Windows-1252."""
    if not any(mark in text for mark in ("â€", "Ã", "Â")):
        return text
    try:
        return text.encode("cp1252").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text


def _labelled(
    codes: dict[str, str], *columns: str, verbatim: bool = False
) -> Callable[[Iterable[Record]], Iterator[Item]]:
    """A reader of a sentence in the first of ``columns``, and its label."""

    def units(records: Iterable[Record]) -> Iterator[Item]:
        for number, (row, place, detail) in enumerate(records):
            if key_of("true_label") in {key_of(str(name)) for name in row}:
                raise WrongFile(f"{place}: answers of a model; score them with: finbench card import")
            text, told = text_of(row, place, *columns), text_of(row, place, "label", "response")
            label = coded(told, codes)
            if label is None:
                yield f"{place}: the label is one of {', '.join(codes)}, found {told[:40]!r}"
            elif not text:
                yield f"{place}: the sentence is empty"
            else:
                made = {"text": text if verbatim else _readable(text), "label": label}
                if verbatim:
                    made["id"] = str(number)
                elif detail:
                    made["source"] = detail
                if "year" in row and (year := text_of(row, place, "year")):
                    made["year"] = year
                yield Unit(made["text"], label, [made], place, "test" if verbatim else None)

    return units


def _source(name: str) -> str:
    return "earnings call" if "_ec_" in name or "earnings" in name else "analyst report"


STANCE_SETS = {
    "fomc": Set(
        _labelled(_STANCE_CODES, "sentence"),
        "FOMC communication (Shah et al. 2023), lab-manual-split-combine-{train,test}-5768.xlsx: all kinds of text",
        "lab-manual-split-combine-*-5768.xlsx",
        lambda _: "",
        2480,
        Hub(
            "gtfintechlab/fomc_communication",
            (Part("", "train"), Part("", "test")),
            "5e6fd34de3e1a8dbfb20c8c9ec18d6cafdd4ef3c",
        ),
        corrected=(
            "One split of our own by text, for the authors' three tests overlap and share sentences with their train "
            "files. Sentences with two labels are dropped, damaged characters mended."
        ),
    ),
    "numclaim": Set(
        _labelled(_CLAIM_CODES, "text", "context"),
        "NumClaim (Shah et al. 2024), gold_{arpts,ec}_numclaim-{train,test}-5768.xlsx",
        "gold_*_numclaim-*-5768.xlsx",
        _source,
        3179,
        Hub(
            "gtfintechlab/Numclaim",
            (Part("analyst report", "train", "main"), Part("analyst report", "test", "main")),
            "31b2df4c76d61d95aa0ca8866b60121bbe31cecd",
        ),
        corrected=(
            "One split of our own by text over analyst reports and earnings calls, for the authors' tests share "
            "sentences with their train files. The Hub's copy has the analyst reports alone."
        ),
    ),
}
STANCE_SETS |= {
    f"fomc_{kind.replace('-', '_')}_{seed}": Set(
        _labelled(_STANCE_CODES, "sentence", verbatim=True),
        f"FOMC communication as published, lab-manual-{kind}-test-{seed}.xlsx",
        f"lab-manual-{kind}-test-{seed}.xlsx",
        lambda _: "test",
        496 if kind == "split-combine" else 476,
        trains=False,
        verbatim=True,
        corrected="Nothing: rows and labels as published, those that are in train too.",
    )
    for kind in KINDS
    for seed in SEEDS
}
