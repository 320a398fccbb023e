"""finbench/data: the authors' files become canonical rows, each text on one split, or nothing is written."""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.data.sources import ImportReport, _share, describe_set, import_data
from finbench.scoring import prompts
from make_data import LABELS, sentences, write_sources

SETS = paths.helper("sets").SETS
SOURCES = ("fpb", "fiqa_sa", "tfns")  # the three whose files these tests write by hand
fiqa_label = paths.helper("sets").sentiment.fiqa_label
normalise, hash_of, split_of = (getattr(paths.helper("sets"), name) for name in ("normalise", "hash_of", "split_of"))

SPLITS = ("train", "validation", "test")
FIFTY, ALL = "Sentences_50Agree.txt", "Sentences_AllAgree.txt"
FIQA_TRAIN, FIQA_TEST = "task1_headline_ABSA_train.json", "task1_headline_ABSA_test.json"
TFNS_TRAIN, TFNS_TEST = "sent_train.csv", "sent_valid.csv"
LINES = [f"{text}@{label}" for text, label in sentences(30, 9)]
TWEETS = ["text,label", *(f'"{text}",1' for text, _ in sentences(30, 9))]


def rows(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The rows of an imported set, of one split or of all."""
    files = [folder / f"{name}.jsonl" for name in SPLITS if split in (None, name)]
    files = [file for file in files if file.exists()]  # a split without a row has no file
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def row(folder: Path, text: str) -> dict[str, Any]:
    """The one row with this text."""
    (found,) = [each for each in rows(folder) if each["text"] == text]
    return found


def splits(folder: Path) -> dict[str, str]:
    """The split of every text."""
    return {each["text"]: split for split in SPLITS for each in rows(folder, split)}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fpb(folder: Path, name: str, lines: Iterable[str] = (), filler: Iterable[str] = LINES) -> Path:
    """A Financial PhraseBank file with ``lines`` and then enough others to fill each split."""
    path = folder / name
    path.write_bytes("".join(f"{line}\r\n" for line in [*lines, *filler]).encode("iso-8859-1"))
    return path


def fiqa(folder: Path, name: str, entries: dict[str, tuple[str, list[Any]]]) -> Path:
    """A FiQA file; ``entries`` by id: a sentence and the scores of its targets."""
    infos = {
        key: {"sentence": text, "info": [{"target": f"T{n}", "sentiment_score": score} for n, score in enumerate(all_)]}
        for key, (text, all_) in entries.items()
    }
    path = folder / name
    path.write_text(json.dumps(infos), encoding="utf-8")
    return path


def fiqa_pair(folder: Path, entries: dict[str, tuple[str, list[Any]]]) -> list[Path]:
    """FiQA train with ``entries`` and something else, and a test file of one other headline."""
    train = {"t1": ("Something else entirely .", [0.5]), **entries}
    return [fiqa(folder, FIQA_TRAIN, train), fiqa(folder, FIQA_TEST, {"t2": ("The task headline .", ["0.5"])})]


def tfns(folder: Path, name: str, lines: Iterable[str]) -> Path:
    path = folder / name
    path.write_text("text,label\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    return path


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# ---- what an import gives


@pytest.mark.parametrize(
    ("name", "read", "by_authors", "dropped"),
    [
        ("fpb", 180, None, {"also in a file of higher agreement": 60}),
        ("fiqa_sa", 160, {"test": 40}, {}),
        ("tfns", 160, {"test": 40}, {}),
    ],
)
def test_an_import_counts_what_it_read_kept_and_dropped(
    tmp_path: Path, name: str, read: int, by_authors: dict[str, int] | None, dropped: dict[str, int]
) -> None:
    report = import_data(name, write_sources(tmp_path / "sources")[name], tmp_path / "data")
    assert (report.read, dict(report.dropped), report.faults) == (read, dropped, [])
    assert sum(report.rows.values()) == read - sum(dropped.values())
    assert all(report.rows[split] > 0 for split in SPLITS)
    if by_authors:
        assert report.rows["test"] == by_authors["test"]
    folder = tmp_path / "data" / name
    assert report.folder == folder
    assert report.rows == {split: len(rows(folder, split)) for split in SPLITS}
    assert {each["label"] for each in rows(folder)} == set(LABELS)
    assert len({each["id"] for each in rows(folder)}) == len(rows(folder))


@pytest.mark.parametrize("name", SOURCES)
def test_the_card_tells_the_truth_about_the_rows(tmp_path: Path, name: str) -> None:
    files = write_sources(tmp_path / "sources")[name]
    report = import_data(name, files, tmp_path / "data")
    folder = tmp_path / "data" / name
    card = describe_set(name, tmp_path / "data")
    assert card is not None
    assert (card["set"], card["read"], card["rejected"]) == (name, report.read, 0)
    assert (card["rows"], card["dropped"]) == (report.rows, dict(report.dropped))
    assert card["sources"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for file, sha in card["sha256"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == sha
    assert sorted(contents(folder)) == sorted([*card["sha256"], "dataset.json"])
    assert str(tmp_path) not in (folder / "dataset.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SOURCES)
def test_importing_again_and_in_another_order_of_files_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    files = write_sources(tmp_path / "sources")[name]
    for folder, given_files in (("one", files), ("two", files), ("three", files[::-1])):
        import_data(name, given_files, tmp_path / folder)
    import_data(name, files, tmp_path / "two")  # over an earlier one
    one = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == one
    assert contents(tmp_path / "three") == one


def test_the_prefix_of_the_task_may_be_written(tmp_path: Path) -> None:
    files = write_sources(tmp_path / "sources")["fpb"]
    assert import_data("finbench_fpb", files, tmp_path / "data").folder == tmp_path / "data" / "fpb"


def test_a_set_that_was_not_imported_is_none_and_a_torn_card_names_the_cure(tmp_path: Path) -> None:
    assert describe_set("fpb", tmp_path) is None
    (tmp_path / "fpb").mkdir()
    (tmp_path / "fpb" / "dataset.json").write_text('{"schema"')
    with pytest.raises(FinbenchError, match="finbench data import fpb"):
        describe_set("fpb", tmp_path)


# ---- the rule that splits


@pytest.mark.parametrize(
    "copy",
    ["Profit rose 5 % .", "profit rose 5%", "PROFIT  rose\n5 %!", "“Profit” rose 5 %", "Ｐｒｏｆｉｔ rose 5 %"],
    ids=["spacing", "case", "line break", "quotes", "full-width"],
)
def test_copies_of_a_text_are_normalised_to_one(copy: str) -> None:
    assert normalise(copy) == normalise("Profit rose 5 %")


def test_links_are_no_part_of_a_text_but_a_text_that_is_a_link_is_kept() -> None:
    assert normalise("Up https://t.co/a today http://b.c/d?e=1") == normalise("up today") == "up today"
    assert normalise("https://t.co/a") != normalise("https://t.co/b")
    assert normalise("!?") != normalise("...")


@pytest.mark.parametrize("other", ["Profit fell 5 %", "Profit rose 6 %", "Profit rose 5 % today", "Profitrose 5 %"])
def test_texts_of_other_words_are_not_normalised_to_one(other: str) -> None:
    assert normalise(other) != normalise("Profit rose 5 %")


@given(st.text(st.characters(exclude_categories=())))
def test_the_split_is_the_documented_hash_of_the_text(text: str) -> None:
    place = int(hashlib.sha256(b"finbench-v1:" + text.encode("utf-8", "surrogatepass")).hexdigest()[:16], 16) / 2**64
    assert int.from_bytes(hash_of(text)[:8], "big") / 2**64 == pytest.approx(place)
    assert split_of(text) == ("test" if place < 0.2 else "validation" if place < 0.3 else "train")
    assert split_of(text, has_test=True) == ("validation" if place < 0.1 else "train")


def test_the_shares_of_the_splits_are_as_promised() -> None:
    counts = Counter(split_of(f"sentence {number}") for number in range(10_000))
    assert [counts[split] / 10_000 for split in SPLITS] == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    counts = Counter(split_of(f"sentence {number}", has_test=True) for number in range(10_000))
    assert [counts[split] / 10_000 for split in SPLITS] == pytest.approx([0.9, 0.1, 0.0], abs=0.02)


@pytest.mark.parametrize("name", SOURCES)
def test_adding_rows_moves_none(tmp_path: Path, name: str) -> None:
    for count in (60, 240):
        import_data(name, write_sources(tmp_path / f"sources{count}", count)[name], tmp_path / str(count))
    few, many = splits(tmp_path / "60" / name), splits(tmp_path / "240" / name)
    shared = few.keys() & many.keys()
    assert len(shared) >= 20
    assert {text: few[text] for text in shared} == {text: many[text] for text in shared}


def test_no_text_is_on_two_sides_however_it_is_spelt(tmp_path: Path) -> None:
    copies = [f"{text.upper().replace(' .', '!')}@{label}" for text, label in sentences(30, 9)]
    report = import_data("fpb", [fpb(tmp_path, FIFTY, copies)], tmp_path / "data")
    texts = [normalise(each["text"]) for each in rows(tmp_path / "data" / "fpb")]
    assert len(texts) == len(set(texts)) == 30
    assert report.dropped == {"duplicate": 30}


# ---- Financial PhraseBank


def test_fpb_splits_a_line_at_its_last_at_sign(tmp_path: Path) -> None:
    import_data("fpb", [fpb(tmp_path, FIFTY, ["Mail ir@alder.example for 3 @ 5 .@neutral"])], tmp_path / "data")
    assert row(tmp_path / "data" / "fpb", "Mail ir@alder.example for 3 @ 5 .")["label"] == "neutral"


def test_fpb_keeps_latin_1_letters_and_breaks_no_line_inside(tmp_path: Path) -> None:
    odd = ["Äänekoski £5 ½ .", "one\x85two three .", "four\x1cfive six .", "seven\x0beight\x0cnine ."]
    import_data("fpb", [fpb(tmp_path, FIFTY, [f"{text}@positive" for text in odd])], tmp_path / "data")
    texts = {each["text"] for each in rows(tmp_path / "data" / "fpb")}
    assert set(odd) <= texts
    assert len(texts) == 34


def test_fpb_reads_either_line_end_and_no_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / FIFTY
    for end, folder in (("\r\n", "dos"), ("\n", "unix")):
        path.write_text(end.join(LINES), encoding="utf-8", newline="")
        assert sum(import_data("fpb", [path], tmp_path / folder).rows.values()) == 30
    assert rows(tmp_path / "dos" / "fpb") == rows(tmp_path / "unix" / "fpb")


def test_fpb_keeps_the_highest_agreement_and_counts_nested_files_apart_from_duplicates(tmp_path: Path) -> None:
    twice = "Twice in a file .@positive"
    levels = {
        "Sentences_AllAgree.txt": ["In every file .@positive", twice, twice],
        "Sentences_75Agree.txt": ["From 75 on .@negative"],
        "Sentences_66Agree.txt": ["From 66 on .@neutral"],
        "Sentences_50Agree.txt": ["Only in 50 .@neutral"],
    }
    files, so_far = [], []
    for name, lines in levels.items():
        so_far += lines
        files.append(fpb(tmp_path, name, so_far))
    report = import_data("fpb", files[::-1], tmp_path / "data")
    folder = tmp_path / "data" / "fpb"
    assert {row(folder, line.split("@")[0])["agreement"] for line in so_far} == {"100", "75", "66", "50"}
    for text, level in (
        ("In every file .", "100"),
        ("From 75 on .", "75"),
        ("From 66 on .", "66"),
        ("Only in 50 .", "50"),
    ):
        assert row(folder, text)["agreement"] == level
    assert report.dropped == {"also in a file of higher agreement": 3 * (30 + 3) + 2 + 1, "duplicate": 1}


@pytest.mark.parametrize("spelling", ["It stood still .", "it stood still"])
def test_a_sentence_with_two_labels_is_dropped_and_counted(tmp_path: Path, spelling: str) -> None:
    files = [fpb(tmp_path, ALL, ["It stood still .@neutral"], []), fpb(tmp_path, FIFTY, [f"{spelling}@negative"])]
    report = import_data("fpb", files, tmp_path / "data")
    assert report.dropped == {"same text, different labels": 2}
    assert sum(report.rows.values()) == 30


# ---- FiQA


@pytest.mark.parametrize(
    ("score", "label"),
    [
        (-1, "negative"),
        (-0.101, "negative"),
        (-0.1, "neutral"),
        (0, "neutral"),
        (0.099, "neutral"),
        (0.1, "positive"),
        (1, "positive"),
    ],
)
def test_fiqa_scores_become_labels_at_a_tenth(tmp_path: Path, score: float, label: str) -> None:
    assert fiqa_label(score) == label
    texts = {"a": ("As a number .", [score]), "b": ("As a text .", [str(score)])}
    import_data("fiqa_sa", fiqa_pair(tmp_path, texts), tmp_path / "data")
    for text, _ in texts.values():
        found = row(tmp_path / "data" / "fiqa_sa", text)
        assert (found["label"], found["score"]) == (label, score)


def test_fiqa_takes_the_mean_of_several_targets(tmp_path: Path) -> None:
    import_data("fiqa_sa", fiqa_pair(tmp_path, {"a": ("Two rise .", ["0.2", 0.5])}), tmp_path / "data")
    found = row(tmp_path / "data" / "fiqa_sa", "Two rise .")
    assert (found["score"], found["label"], found["targets"]) == (0.35, "positive", ["T0", "T1"])


@pytest.mark.parametrize(("score", "count"), [(-0.1, 3), (0.1, 10), (0.7, 3), (-0.3, 7)])
def test_fiqa_targets_of_one_score_have_its_label(tmp_path: Path, score: float, count: int) -> None:
    import_data("fiqa_sa", fiqa_pair(tmp_path, {"a": ("All the same .", [score] * count)}), tmp_path / "data")
    found = row(tmp_path / "data" / "fiqa_sa", "All the same .")
    assert (found["score"], found["label"]) == (score, fiqa_label(score))


@pytest.mark.parametrize("scores", [[0.5, -0.5], [0.5, 0.0], ["0.9", "0.9", "-0.2"]])
def test_fiqa_drops_and_counts_a_sentence_of_mixed_polarity(tmp_path: Path, scores: list[Any]) -> None:
    report = import_data("fiqa_sa", fiqa_pair(tmp_path, {"a": ("One up, one down .", scores)}), tmp_path / "data")
    assert report.dropped == {"several targets with different labels": 1}
    assert "One up, one down ." not in splits(tmp_path / "data" / "fiqa_sa")


def test_fiqa_knows_a_post_from_a_headline(tmp_path: Path) -> None:
    post = fiqa(tmp_path, "task1_post_ABSA_train.json", {"p": ("holding nicely here", [0.4])})
    files = [*fiqa_pair(tmp_path, {"a": ("Alder beats forecasts", [0.4])}), post]
    import_data("fiqa_sa", files, tmp_path / "data")
    kinds = {each["text"]: each["kind"] for each in rows(tmp_path / "data" / "fiqa_sa")}
    assert (kinds["holding nicely here"], kinds["Alder beats forecasts"]) == ("post", "headline")


def test_fiqa_files_of_two_families_are_refused(tmp_path: Path) -> None:
    files = [*fiqa_pair(tmp_path, {}), fiqa(tmp_path, "flame_task1_valid.json", {"a": ("A .", [0.4])})]
    with pytest.raises(FinbenchError, match="two families"):
        import_data("fiqa_sa", files, tmp_path / "data")
    assert not (tmp_path / "data").exists()


# ---- Twitter Financial News Sentiment


def test_tfns_codes_are_bearish_bullish_neutral(tmp_path: Path) -> None:
    files = [
        tfns(tmp_path, TFNS_TRAIN, ["bears here,0", "bulls here,1", "calm here, 2"]),
        tfns(tmp_path, TFNS_TEST, ["task,1"]),
    ]
    import_data("tfns", files, tmp_path / "data")
    found = {each["text"]: each["label"] for each in rows(tmp_path / "data" / "tfns")}
    assert found == {"bears here": "negative", "bulls here": "positive", "calm here": "neutral", "task": "positive"}


def test_tfns_keeps_a_quoted_line_break_comma_and_quote(tmp_path: Path) -> None:
    text = 'first line\nsecond, with a "quote"'
    files = [
        tfns(tmp_path, TFNS_TRAIN, ['"first line\nsecond, with a ""quote""",0']),
        tfns(tmp_path, TFNS_TEST, ["task,1"]),
    ]
    import_data("tfns", files, tmp_path / "data")
    assert row(tmp_path / "data" / "tfns", text)["label"] == "negative"


def test_tfns_tweets_equal_up_to_a_link_are_one(tmp_path: Path) -> None:
    lines = ["$ALDR up https://t.co/a,1", "$ALDR up https://t.co/b,1", "$ALDR up!,1"]
    report = import_data(
        "tfns", [tfns(tmp_path, TFNS_TRAIN, lines), tfns(tmp_path, TFNS_TEST, ["task,1"])], tmp_path / "data"
    )
    assert (sum(report.rows.values()), report.dropped) == (2, {"duplicate": 2})
    assert "$ALDR up https://t.co/a" in splits(tmp_path / "data" / "tfns")  # the first one stays


# ---- the authors' splits


def test_what_the_authors_have_in_train_and_in_test_leaves_train(tmp_path: Path) -> None:
    test = tfns(tmp_path, TFNS_TEST, ["both sides https://t.co/a,1", "test only,2", "test twice,0", "test twice,0"])
    train = tfns(tmp_path, TFNS_TRAIN, ["Both sides!,1", "both sides,1", "train only,0", "another one,0"])
    report = import_data("tfns", [train, test], tmp_path / "data")
    found = splits(tmp_path / "data" / "tfns")
    assert {text for text, split in found.items() if split == "test"} == {
        "both sides https://t.co/a",
        "test only",
        "test twice",
    }
    assert {text for text, split in found.items() if split != "test"} == {"train only", "another one"}
    assert report.dropped == {"also in the test or validation split": 2, "duplicate": 1}


def test_a_text_with_another_label_in_test_leaves_both_sides(tmp_path: Path) -> None:
    files = [
        tfns(tmp_path, TFNS_TRAIN, ["odd one,0", "train only,0"]),
        tfns(tmp_path, TFNS_TEST, ["odd one,1", "task,1"]),
    ]
    report = import_data("tfns", files, tmp_path / "data")
    assert set(splits(tmp_path / "data" / "tfns")) == {"train only", "task"}
    assert report.dropped == {"same text, different labels": 2}


def test_an_authors_validation_split_is_kept_and_yields_to_test(tmp_path: Path) -> None:
    parts = {
        "train": {"a": ("In all three .", [0.5]), "b": ("Train alone .", [0.5])},
        "valid": {"a": ("In all three .", [0.5]), "c": ("Validation alone .", [0.5])},
        "test": {"a": ("In all three .", [0.5])},
    }
    files = [fiqa(tmp_path, f"flame_task1_{split}.json", entries) for split, entries in parts.items()]
    report = import_data("fiqa_sa", files, tmp_path / "data")
    found = splits(tmp_path / "data" / "fiqa_sa")
    assert (found["In all three ."], found["Validation alone ."]) == ("test", "validation")
    assert report.dropped == {"also in the test or validation split": 2}


# ---- bad input


def entry(sentence: str, *scores: str) -> bytes:
    """A FiQA file of the one id 7; sentence and scores as JSON."""
    infos = ", ".join(f'{{"sentiment_score": {score}}}' for score in scores)
    return f'{{"7": {{"sentence": {sentence}, "info": [{infos}]}}}}'.encode()


def csv(*lines: bytes) -> bytes:
    return b"\n".join([b"text,label", b"a,1", *lines, b""])


def phrases(*lines: bytes) -> bytes:
    return b"\n".join([b"a@neutral", *lines, b""])


def utf16(text: Iterable[str], how: str = "utf-16") -> bytes:
    return "\n".join(text).encode(how)


FILES = {"fpb": FIFTY, "fiqa_sa": FIQA_TRAIN, "tfns": TFNS_TRAIN}
# fmt: off
BAD: list[tuple[str, str, bytes, str, str]] = [  # set, what is wrong, the bytes, the place and words of the message
    ("fpb", "empty file", b"", "", "empty"),
    ("fiqa_sa", "empty file", b"", "", "empty"),
    ("tfns", "space only", b" \r\n\n", "", "empty"),
    ("fpb", "byte order mark alone", b"\xef\xbb\xbf", "", ""),
    ("fiqa_sa", "byte order mark alone", b"\xff\xfe", "", ""),
    ("tfns", "byte order mark alone", b"\xef\xbb\xbf", "", ""),
    ("fpb", "UTF-16 without its mark", utf16(LINES, "utf-16-le"), ":1", "NUL"),
    ("tfns", "UTF-16 without its mark", utf16(TWEETS, "utf-16-be"), ":1", "NUL"),
    ("tfns", "half of UTF-16", utf16(TWEETS)[:-1], ":", "UTF-16"),
    ("tfns", "not UTF-8", csv(b"b\xff,1"), ":3", "UTF-8"),
    ("tfns", "not UTF-8 below a byte order mark", b"\xef\xbb\xbf" + csv(b"\xff,1"), ":3", "UTF-8"),
    ("fiqa_sa", "not UTF-8", b'{"7":\n{"sentence": "\xe9"}}', ":2", "UTF-8"),
    ("fpb", "not the UTF-8 that its mark says", b"\xef\xbb\xbf" + phrases(b"\xe4@neutral"), ":2", "UTF-8"),
    ("fpb", "NUL", phrases(b"\0b@neutral"), ":2", "NUL"),
    ("fpb", "NUL below a Latin-1 letter", phrases(b"\xe4\xe4@neutral", b"b\0b@neutral"), ":3", "NUL"),
    ("tfns", "NUL", csv(b"b\0,1"), ":3", "NUL"),
    ("fpb", "unknown label", phrases(b"b@happy"), ":2", "'happy'"),
    ("tfns", "unknown label", csv(b"b,3"), ":3", "'3'"),
    ("tfns", "unknown label below a quoted line break", csv(b'"b\nb",1', b"c,x"), ":5", "'x'"),
    ("fpb", "missing label", phrases(b"b"), ":2", "sentence@label"),
    ("tfns", "missing label", csv(b"b"), ":3", "text,label"),
    ("tfns", "three fields", csv(b"b,c,1"), ":3", "3 fields"),
    ("fiqa_sa", "missing score", entry('"a"'), "id 7", ""),
    ("fiqa_sa", "score no number", entry('"a"', '"high"'), "id 7", ""),
    ("fiqa_sa", "score null", entry('"a"', "0.5", "null"), "id 7", ""),
    ("fiqa_sa", "score true", entry('"a"', "true"), "id 7", ""),
    ("fiqa_sa", "score out of range", entry('"a"', "0.5", "1.5"), "id 7", "-1"),
    ("fiqa_sa", "score NaN", entry('"a"', "NaN"), "id 7", ""),
    ("fiqa_sa", "score beyond any float", entry('"a"', "1" + "0" * 400), "id 7", ""),
    ("fpb", "empty text", phrases(b" @neutral"), ":2", "empty"),
    ("tfns", "empty text", csv(b" ,1"), ":3", "empty"),
    ("fiqa_sa", "empty text", entry('" "', "0.5"), "id 7", ""),
    ("fiqa_sa", "text null", entry("null", "0.5"), "id 7", ""),
    ("fiqa_sa", "text a number", entry("12", "0.5"), "id 7", ""),
    ("fiqa_sa", "missing text", b'{"7": {"info": []}}', "id 7", "sentence"),
    ("fiqa_sa", "entry no object", b'{"7": 12}', "id 7", ""),
    ("fiqa_sa", "one id twice", b'{"same": %s, "same": %s}' % ((entry('"a"', "0.5")[6:-1],) * 2), "", "same"),
    ("tfns", "quote that never closes", csv(b'"b,1', b"c,1"), ":", "CSV"),
    ("tfns", "quote inside a field", csv(b'"b"c,1'), ":3", "CSV"),
    ("tfns", "endless field", csv(b'"' + b"b" * 200_000 + b'",1'), ":3", "CSV"),
    ("tfns", "wrong header", b"tweet,label\na,1\n", ":2", "tweet, label"),
    ("tfns", "a column twice", b"text,label,text\na,1,b\n", ":1", "twice"),
    ("tfns", "no header", b"a,1\n", ":1", "a,1"),
    ("fiqa_sa", "broken JSON", b'{\n"7": {"sentence": "a",\n}', ":3", "not valid JSON"),
    ("fiqa_sa", "JSON of another shape", b"[1, 2]", ": entry 1", "object"),
    ("fiqa_sa", "rows of another set", b'[{"a": 1}]', ": entry 1", "sentence"),
    ("fiqa_sa", "JSON nested too deep", b"[" * 100_000, ":1", ""),
    ("fiqa_sa", "lone surrogate", entry('"a \\ud800"', "0.5"), "id 7", "Unicode"),
    ("fiqa_sa", "lone surrogate in an id", b'{"\\ud800": {"sentence": "a", "info": []}}', "id ", ""),
]
# fmt: on


def with_good_partner(folder: Path, name: str, path: Path) -> list[Path]:
    """``path`` as train with a good test file beside it, where the set has one."""
    partner = {"fiqa_sa": FIQA_TEST, "tfns": TFNS_TEST}.get(name)
    good = [file for file in write_sources(folder / "good")[name] if file.name == partner]
    return [*good, path]


@pytest.mark.parametrize(
    ("name", "data", "place", "words"),
    [(name, *rest) for name, _, *rest in BAD],
    ids=[f"{name}: {fault}" for name, fault, *_ in BAD],
)
def test_bad_input_is_named_by_its_place_and_nothing_is_written(
    tmp_path: Path, name: str, data: bytes, place: str, words: str
) -> None:
    path = tmp_path / FILES[name]
    path.write_bytes(data)
    with pytest.raises(FinbenchError) as caught:
        import_data(name, with_good_partner(tmp_path, name, path), tmp_path / "data")
    message = str(caught.value)
    message.encode("utf-8")  # can be printed
    assert path.name + (f": {place}" if place.startswith("id") else place) in message
    assert words in message
    assert not (tmp_path / "data").exists()


def test_a_file_name_without_a_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match=r"tweets\.csv.*split") as caught:
        import_data("tfns", [tfns(tmp_path, "tweets.csv", ["a,1"])], tmp_path / "data")
    assert "train" in caught.value.hint
    assert not (tmp_path / "data").exists()


def test_a_missing_file_is_named_with_the_files_that_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match=r"nowhere\.csv") as caught:
        import_data("tfns", [tmp_path / "nowhere.csv"], tmp_path / "data")
    assert "sent_train.csv" in caught.value.hint
    with pytest.raises(FinbenchError, match="Which files"):
        import_data("tfns", [], tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("name", "meant"), [("fbp", "fpb"), ("FPB", "fpb"), ("tfn", "tfns"), ("fiqa", "fiqa_sa")])
def test_an_unknown_set_is_answered_with_the_near_miss(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(FinbenchError, match=f"Did you mean {meant}"):
        import_data(name, [], tmp_path / "data")


def test_all_bad_rows_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError) as caught:
        import_data("fpb", [fpb(tmp_path, FIFTY, [f"row {n}@sad" for n in range(25)])], tmp_path / "data")
    message = caught.value.message
    assert "25 of 55 rows" in message
    assert [f"{FIFTY}:{n}:" in message for n in (1, 10)] == [True, True]
    assert "15 more" in message


@pytest.mark.parametrize(
    ("name", "good", "bad", "end"),
    [
        ("fpb", "\n".join(LINES), "\nA bad one@sad", "\n"),
        ("tfns", "\n".join(TWEETS), "\nA bad one,9", "\n"),
        ("fiqa_sa", entry('"Good ."', "0.5").decode()[:-1], ', "8": {"sentence": "\\ud800", "info": []}', "}"),
    ],
)
def test_skip_bad_keeps_the_good_rows_and_counts_the_bad(
    tmp_path: Path, name: str, good: str, bad: str, end: str
) -> None:
    path = tmp_path / FILES[name]
    path.write_text(good + end, encoding="utf-8")
    clean = import_data(name, with_good_partner(tmp_path, name, path), tmp_path / "clean")
    path.write_text(good + bad + end, encoding="utf-8")
    report = import_data(name, with_good_partner(tmp_path, name, path), tmp_path / "data", skip_bad=True)
    assert (len(report.faults), report.read) == (1, clean.read + 1)
    assert rows(tmp_path / "data" / name) == rows(tmp_path / "clean" / name)
    card = describe_set(name, tmp_path / "data")
    assert card is not None
    assert card["rejected"] == 1


def test_skip_bad_does_not_make_a_set_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="no row"):
        import_data("fpb", [fpb(tmp_path, FIFTY, ["a@sad"], [])], tmp_path / "data", skip_bad=True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["tfns", "fiqa_sa"])
@pytest.mark.parametrize(("given_file", "missing"), [(0, "test"), (1, "train")])
def test_one_side_of_the_authors_split_alone_is_refused(
    tmp_path: Path, name: str, given_file: int, missing: str
) -> None:
    files = write_sources(tmp_path / "sources")[name]
    with pytest.raises(FinbenchError, match=missing):
        import_data(name, [files[given_file]], tmp_path / "data")
    assert not (tmp_path / "data").exists()


MARKED = {
    "fpb": "\n".join(LINES),
    "tfns": "\n".join(TWEETS),
    "fiqa_sa": '{"1": {"sentence": "Good Ääne .", "info": [{"sentiment_score": "0.5"}]}}',
}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_file_with_a_byte_order_mark_reads_as_without(tmp_path: Path, name: str, encoding: str) -> None:
    path, text = tmp_path / FILES[name], MARKED[name]
    for how in ("utf-8", encoding):
        path.write_bytes(text.encode(how))
        import_data(name, with_good_partner(tmp_path, name, path), tmp_path / how)
    assert rows(tmp_path / encoding / name) == rows(tmp_path / "utf-8" / name)


# ---- nothing is half written


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A data directory in which the set fpb was imported."""
    import_data("fpb", write_sources(tmp_path / "earlier", 60)["fpb"], tmp_path / "data")
    return tmp_path / "data"


def test_a_later_import_that_fails_leaves_the_earlier_set_as_it_was(imported: Path, tmp_path: Path) -> None:
    before = contents(imported)
    with pytest.raises(FinbenchError):
        import_data("fpb", [fpb(tmp_path, FIFTY, ["a@sad"])], imported)
    assert contents(imported) == before


def test_a_later_import_takes_the_place_of_the_earlier_set(imported: Path, tmp_path: Path) -> None:
    import_data("fpb", [fpb(tmp_path, FIFTY)], imported)
    assert [path.name for path in imported.iterdir()] == ["fpb"]
    assert len(rows(imported / "fpb")) == 30


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("file", ["train.jsonl", "test.jsonl", "dataset.json"])
def test_a_write_that_breaks_off_leaves_the_earlier_set_and_nothing_else(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, fault: BaseException
) -> None:
    before, path, real = contents(imported), fpb(tmp_path, FIFTY), Path.open

    def breaking(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if self.name == file and "w" in mode:
            raise fault
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", breaking)
    with pytest.raises((FinbenchError, KeyboardInterrupt)) as caught:
        import_data("fpb", [path], imported)
    monkeypatch.undo()
    assert isinstance(caught.value, KeyboardInterrupt) or "No space left" in caught.value.message
    assert contents(imported) == before
    assert [entry.name for entry in imported.iterdir()] == ["fpb"]


def test_a_first_import_onto_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fpb(tmp_path, FIFTY)
    monkeypatch.setattr(os, "rename", no_space)
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(FinbenchError, match="No space left"):
        import_data("fpb", [path], tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("broken", [1, 2, 3], ids=["first", "second", "third"])
def test_a_rename_that_fails_leaves_a_whole_set_and_nothing_else(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    before = contents(imported)
    path = fpb(tmp_path, FIFTY)
    real, calls = os.rename, []

    def rename(source: Any, target: Any) -> None:
        calls.append(source)
        if len(calls) == broken:
            no_space()
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())  # a system that cannot exchange in one step
    message = ""
    try:
        import_data("fpb", [path], imported)
    except FinbenchError as fault:
        message = fault.message
    if message:
        assert "No space left" in message
        assert contents(imported) == before
    else:
        assert len(rows(imported / "fpb")) == 30
    assert [entry.name for entry in imported.iterdir()] == ["fpb"]


# ---- the authors' real files


RECORD = {"fpb": rb"@(?:negative|neutral|positive)\s*$", "fiqa_sa": rb'"sentence":', "tfns": rb",[012]\r?$"}


@pytest.mark.parametrize(
    ("name", "pattern", "label", "low", "high"),
    [
        ("fpb", "fpb/Sentences_*Agree.txt", "neutral", 0.55, 0.64),
        ("fiqa_sa", "fiqa/task1_*ABSA*.json", "positive", 0.55, 0.70),
        ("tfns", "tfns/sent_*.csv", "neutral", 0.63, 0.68),
    ],
)
def test_the_real_files_are_read_whole_without_overlap_and_with_sane_labels(
    real_data: Path, tmp_path: Path, name: str, pattern: str, label: str, low: float, high: float
) -> None:
    files = sorted(real_data.glob(pattern))
    report = import_data(name, files, tmp_path)
    assert report.faults == []
    assert report.read == sum(len(re.findall(RECORD[name], path.read_bytes(), re.MULTILINE)) for path in files)
    assert report.read == sum(report.rows.values()) + sum(report.dropped.values())
    texts = [normalise(each["text"]) for each in rows(tmp_path / name)]
    assert len(texts) == len(set(texts)) == sum(report.rows.values())
    shares = Counter(each["label"] for each in rows(tmp_path / name, "test"))
    assert set(shares) == set(LABELS)
    assert low < shares[label] / sum(shares.values()) < high


def test_an_import_says_whether_the_files_are_the_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Duplicates inside the loosest file do not count against it."""
    [fifty, every] = write_sources(tmp_path / "s")["fpb"]
    fifty.write_bytes(fifty.read_bytes() + every.read_bytes().splitlines()[0] + b"\r\n")
    part = import_data("fpb", [fifty, every], tmp_path / "d")
    assert "121 of the authors' 4,846 rows" in part.note
    [task] = catalog.expand(["fpb"])
    load = functools.partial(prompts.load, [task], tmp_path / "d")
    lm_task = load()[task.name]
    data = prompts.data_id(task, lm_task, "test", prompts.rows(lm_task, "test"))
    assert data.share == round(121 / 4846, 4)
    assert describe_set("fpb", tmp_path / "d")["share"] == data.share
    monkeypatch.setitem(SETS, "fpb", SETS["fpb"]._replace(whole=121))
    assert import_data("fpb", [fifty, every], tmp_path / "d").note == ""
    lm_task = load()[task.name]
    assert prompts.data_id(task, lm_task, "test", prompts.rows(lm_task, "test")).share is None
    assert json.loads((tmp_path / "d" / "fpb" / "dataset.json").read_text())["complete"] is True


@pytest.mark.parametrize(
    ("name", "read", "share"),
    [
        ("tatqa", {"tatqa_dataset_test_gold.json": 200, "tatqa_dataset_dev.json": 278}, round(200 / 277, 4)),
        ("tatqa", {"tatqa_dataset_dev.json": 139}, 0.5),
        ("fiqa_sa", {"task1_headline_ABSA_test.json": 100, "task1_post_ABSA_test.json": 50, "train.json": 9}, 0.75),
        ("fiqa_sa", {"flame_task1_test.json": 115}, 0.5),
        ("fin_ner", {"FIN3.txt": 303, "FIN5.txt": 1}, None),
        ("fin_ner", {"FIN5.txt": 1164}, None),
        ("fin_ner", {"test": 150, "train": 1014, "validation": 303}, None),  # of the Hub, which divides otherwise
        ("finer139", {"test.jsonl": 1}, 0.0001),
        ("piqa", {"piqa.jsonl": 919}, 0.5),
    ],
)
def test_the_share_is_of_the_file_that_is_the_test(name: str, read: dict[str, int], share: float | None) -> None:
    report = ImportReport(name, Path("here"), by_file=Counter(read), divided=True)
    assert _share(SETS[name], report, sum(read.values())) == share


def test_of_sets_divided_by_their_authors_files_the_share_is_that_of_the_test_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, valid = sorted(write_sources(tmp_path / "s")["tfns"])
    assert "valid" in valid.name

    def share(*files: Path) -> float | None:
        import_data("tfns", list(files), tmp_path / "d")
        told: float | None = json.loads((tmp_path / "d" / "tfns" / "dataset.json").read_text())["share"]
        return told

    whole = import_data("tfns", [train, valid], tmp_path / "d").by_file[valid.name]
    assert share(train, valid) == round(whole / 2388, 4)
    monkeypatch.setitem(SETS, "tfns", SETS["tfns"]._replace(tests={"other*": 3, "*valid*": whole}))
    few = tmp_path / train.name
    few.write_bytes(b"".join(train.read_bytes().splitlines(keepends=True)[:60]))
    assert share(few, valid) is None  # the test is whole, though train is not
    part = tmp_path / valid.name
    part.write_bytes(b"".join(valid.read_bytes().splitlines(keepends=True)[: whole // 2 + 1]))  # its head, and half
    assert share(train, part) == round((whole // 2) / whole, 4)
    with zipfile.ZipFile(tmp_path / "tfns.zip", "w") as packed:
        packed.write(train, f"tfns/{train.name}")
        packed.write(part, f"tfns/{part.name}")
    assert share(tmp_path / "tfns.zip") == round((whole // 2) / whole, 4)
    monkeypatch.setitem(SETS, "tfns", SETS["tfns"]._replace(tests={"other*": 3}))
    assert share(train, part) is None  # a file that nobody counted
