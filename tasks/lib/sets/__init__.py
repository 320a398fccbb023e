"""Every data set: its reader, its authors' files, its place on the Hub. A package of the standard library alone.

``finbench data import`` and lm-eval's loader (``lib/rows.py``) read the same table, so that a set is the same rows
whether it comes from files or from the Hub. To add a set: a reader that yields Units from its authors' rows, an entry
here, a task's YAML.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from . import entities, finlora, general, headlines, qa, sentiment
from .base import Drop, Hub, Part, Record, Set, Unit, WrongFile, parts, split_in
from .conversations import CONVERSATION_SETS
from .reports import REPORT_SETS
from .splits import SPLITS, Divided, hash_of, normalise, split_of, template_of
from .stance import STANCE_SETS
from .textbooks import TEXTBOOK_SETS
from .xbrl import XBRL_SETS

__all__ = ["SETS", "SPLITS", "Divided", "Drop", "Unit", "WrongFile", "hash_of", "hub_records", "normalise", "split_of"]

_AGREE = {"100": "allagree", "75": "75agree", "66": "66agree", "50": "50agree"}
_LIKE_NAMED = parts("train", "validation", "test")
_SCRIPTLESS = "refs/convert/parquet"  # the Hub's own conversion, of repositories whose loading script no longer runs


def _always_test(_: str) -> str:
    return "test"


def _tfns_split(name: str) -> str | None:
    """The authors publish train and validation only; validation is the test split, as in the literature."""
    split = split_in(name)
    return "test" if split == "validation" else split


def _agreement(name: str) -> str:
    return sentiment.agreement_in(name)


def _no_split(_: str) -> str:
    return ""


SETS = {
    "fpb": Set(
        sentiment.fpb,
        "Financial PhraseBank v1.0, Sentences_*Agree.txt",
        "Sentences_*Agree.txt",
        _agreement,
        4846,
        Hub(
            "takala/financial_phrasebank",
            tuple(Part(level, file=f"sentences_{name}/train/0000.parquet") for level, name in _AGREE.items()),
            _SCRIPTLESS,
        ),
        text="sentence@label",
        nested=True,
        corrected=(
            "All agreement levels are one set, split by text: no sentence of test is in train at another "
            "level. Sentences with two labels are dropped."
        ),
    ),
    "fiqa_sa": Set(
        sentiment.fiqa,
        "FiQA 2018 open challenge, task 1",
        "task1_*_ABSA_*.json",
        split_in,
        1111,
        Hub("TheFinAI/fiqa-sentiment-classification", (*parts("train", "test"), Part("validation", "valid"))),
        tests={"task1_*_absa_test.json": 200, "*test.json": 230},  # of the challenge; of FLaME's division
        corrected=(
            "One family of files only, for the published re-splits contradict each other. Sentences whose "
            "targets differ in label are dropped."
        ),
    ),
    "tfns": Set(
        sentiment.tfns,
        "Twitter Financial News Sentiment, sent_train.csv and sent_valid.csv",
        "sent_*.csv",
        _tfns_split,
        11931,
        Hub("zeroshot/twitter-financial-news-sentiment", (Part("train", "train"), Part("test", "validation"))),
        tests={"*valid*": 2388},
        corrected=(
            "The codes are 0 bearish, 1 bullish, 2 neutral; FinLoRA's copy has positive and neutral swapped "
            "in 85 % of its rows. Links are ignored when texts are compared; overlaps leave train."
        ),
    ),
    "nwgi": Set(
        sentiment.nwgi,
        "News With GPT Instructions; the test split as FinLoRA publishes it",
        "finlora_nwgi_*.jsonl",
        split_in,
        20231,
        Hub("oliverwang15/news_with_gpt_instructions", parts("train", "test")),
        tests={"*test*.json*": 4047},
        trains=False,
        corrected="Labels are a GPT's and unchecked: read differences with care.",
    ),
    "headlines": Set(
        headlines.headlines,
        "News headlines about gold (Sinha and Khandait 2021), one row a headline with nine columns of 0 and 1",
        "headlines.csv finalDataset*.csv",
        _no_split,
        11412,
        Hub("gtfintechlab/Headlines", (Part("", "*", "5768"),)),  # one of three re-splits of the same headlines
        template=template_of,
        corrected=(
            "Built from the nine columns, for the question about price is wrong in the published expansion. "
            "Copies of a headline that differ in any answer are dropped; all questions of a headline stay "
            "together. What equals a headline of the test but for numbers and months is not in train."
        ),
    ),
    "fin_ner": Set(
        entities.fin_ner,
        "SEC loan agreements, FIN5.txt and FIN3.txt",
        "FIN5.txt FIN3.txt",
        entities.fin_split,
        1467,
        Hub(
            "tner/fin",
            tuple(Part(split, file=f"fin/{split}/0000.parquet") for split in SPLITS),
            _SCRIPTLESS,
        ),
        tests={"fin3*": 303},
        text="conll",
        corrected="MISC, ten tokens such as Chinese and French, is left out. Sentences of FIN3 leave FIN5.",
    ),
    "fin_ner_typing": Set(
        entities.fin_ner_typing,
        "SEC loan agreements, FIN5.txt and FIN3.txt",
        "FIN5.txt FIN3.txt",
        entities.fin_split,
        1467,
        Hub(
            "tner/fin",
            tuple(Part(split, file=f"fin/{split}/0000.parquet") for split in SPLITS),
            _SCRIPTLESS,
        ),
        tests={"fin3*": 303},
        text="conll",
        corrected=(
            "One row for each distinct entity of a sentence, where the published test has 3,502 paraphrases "
            "of 98 pairs. An entity of two types in one sentence is left out."
        ),
    ),
    "finer_ord": Set(
        entities.finer_ord,
        "FiNER-ORD, train.csv, val.csv and test.csv, one token a row",
        "train.csv val.csv test.csv",
        split_in,
        116721,
        Hub("gtfintechlab/finer-ord", _LIKE_NAMED),
        tests={"*test*.csv": 25957},
        joined=True,
        corrected=(
            "Sentences that occur twice with different entities are dropped, those of test leave train. An "
            "inside tag that follows nothing starts an entity."
        ),
    ),
    "fin_math": Set(
        qa.fin_math,
        "XBRL Formula Calculation (XBRL-Agent), as FinLoRA publishes it",
        "finlora_formula_*.jsonl",
        split_in,
        1000,
        Hub("KirkHan/XBRL_Formula_Calculation", parts("train")),
        tests={"*test*.json*": 200},
        corrected=(
            "The published net present values discount from t = 0 and forget the outlay: worked out anew "
            "from the wording, and left out where it is not certain. Answers that the formula does not give with "
            "the question's numbers are left out, and so is what contradicts its formula or its wording."
        ),
    ),
    "financebench": Set(
        qa.financebench,
        "FinanceBench, the open sample",
        "financebench_open_source.jsonl",
        _always_test,
        150,
        Hub("PatronusAI/financebench", (Part("test", "train"),)),
        tests={"*open_source*": 150},
        trains=False,
        corrected="Only questions whose answer is one number: free text cannot be scored exactly.",
    ),
    "piqa": Set(
        general.piqa,
        "PIQA",
        "*piqa*.json*",
        split_in,
        1838,
        Hub("baber/piqa", (Part("test", "validation"),)),
        trains=False,
        verbatim=True,  # as upstream scores it, to the row
    ),
    "winogrande": Set(
        general.winogrande,
        "WinoGrande XL",
        "*winogrande*.json*",
        split_in,
        1267,
        Hub("allenai/winogrande", (Part("test", "validation", "winogrande_xl"),)),
        trains=False,
        verbatim=True,  # as upstream scores it, to the row
    ),
    "boolq": Set(
        general.boolq,
        "BoolQ, as in SuperGLUE",
        "*boolq*.json* *boolq*.parquet",
        split_in,
        3270,
        Hub("aps/super_glue", (Part("test", "validation", "boolq"),)),
        trains=False,
        verbatim=True,  # as upstream scores it, to the row
    ),
    "hellaswag": Set(
        general.hellaswag,
        "HellaSwag",
        "*hellaswag*.json* *hellaswag*.parquet",
        split_in,
        10042,
        Hub("Rowan/hellaswag", (Part("test", "validation"),)),
        trains=False,
        verbatim=True,  # as upstream scores it, to the row
    ),
    "arc_easy": Set(
        general.arc,
        "ARC, Easy",
        "*arc*easy*.json* *arc*easy*.parquet",
        split_in,
        2376,
        Hub("allenai/ai2_arc", parts("test", config="ARC-Easy")),
        trains=False,
        verbatim=True,  # as upstream scores it, to the row
    ),
    "mmlu": Set(
        general.mmlu,
        "MMLU, all 57 subjects",
        "*mmlu*.json* *mmlu*.parquet",
        split_in,
        14042,
        Hub("cais/mmlu", parts("test", config="all")),
        trains=False,
        verbatim=True,  # as upstream scores it, to the row
    ),
}

SETS |= XBRL_SETS | REPORT_SETS | CONVERSATION_SETS | STANCE_SETS | TEXTBOOK_SETS

_NEWS, _TWEET = "sentiment of this news", "sentiment of this tweet"
_FINLORA: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], int, str]] = {
    "fpb": ("label", (_NEWS,), sentiment.LABELS, 1212, "finlora_fpb_test.jsonl"),
    "fiqa": ("label", (_NEWS, _TWEET), sentiment.LABELS, 235, "finlora_fiqa_test.jsonl"),
    "tfns": ("label", (_TWEET,), sentiment.LABELS, 2388, "finlora_tfns_test.jsonl"),
    "nwgi": ("label", (_NEWS,), sentiment.LEVELS, 4047, "finlora_nwgi_test.jsonl"),
    "headline": ("label", (), ("Yes", "No"), 20540, "finlora_headline_test.jsonl"),
    "ner": ("entity", ("\nOptions: ",), ("person", "organization", "location"), 3502, "finlora_ner_test.jsonl"),
    "fin_math": ("number", ("Use formula ",), (), 200, "finlora_formula_test.jsonl"),
    "financebench": ("text", (), (), 43, "finlora_financebench_test.jsonl"),
}
SETS |= {
    f"finlora_{name}": Set(
        finlora.prompts(kind, whole, marks, labels),
        f"FinLoRA's published prompts, {file}",
        file,
        _always_test,
        whole,
        trains=False,
        verbatim=True,
        corrected="Nothing: prompts and labels as published, the wrong ones too.",
    )
    for name, (kind, marks, labels, whole, file) in _FINLORA.items()
}


def hub_records(hub: Hub, revision: str | None = None) -> Iterator[Record]:
    """The rows of a set on the Hub, at a commit or at its followed branch."""
    import datasets

    for part in hub.parts:
        at = revision or hub.ref
        url = f"hf://datasets/{hub.path}@{at.replace('/', '%2F')}/{part.file}"
        table: Any
        if part.file and part.file.endswith(".json"):  # rows whose values differ in kind, which Arrow does not hold
            with open(datasets.DownloadManager().download(url), encoding="utf-8") as handle:
                table = json.load(handle)
        elif part.file:
            kind = "csv" if part.file.endswith(".csv") else "parquet"
            table = datasets.load_dataset(kind, data_files={part.split: url}, split=part.split)
        else:
            split = None if part.split == "*" else part.split
            table = datasets.load_dataset(hub.path, part.config, split=split, revision=at)
            table = itertools.chain(*table.values()) if split is None else table
        for number, row in enumerate(table, 1):
            yield dict[str, Any](row), f"hub:{hub.path} {part.detail} row {number}", part.detail
