"""Alterations that no honest writer makes: other types, other alphabets, other files, hidden data. Each is named."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from test_verification import Card, Rows, change, change_sha, other, put, rescored, row_of

from conftest import quick
from finbench.cards import cardfiles, comparison, exports, render, reporting
from finbench.core import seal
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file, stable_json
from finbench.core.records import Scorecard
from finbench.data.sources import import_data
from finbench.evaluation import drawing, evaluator, rerun
from finbench.evaluation.verification import Verification, _reproduced, verify
from make_data import write_sources

SENTIMENT, HEADLINE = "finbench_mini_sentiment", "finbench_mini_headline"
ROW = f"samples[{SENTIMENT} 7]"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card of the random dummy on two shipped sets, and of another subject; do not write into its folder."""
    out = tmp_path_factory.mktemp("cards")
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment", "mini_headline"], out=out)
    evaluator.evaluate(
        engine="dummy", tasks=["mini_sentiment", "mini_headline"], out=out / "gold", arguments={"answers": "gold"}
    )
    return out / "dummy.json"


@pytest.fixture
def card(original: Path, tmp_path: Path) -> Path:
    """A copy to alter."""
    shutil.copytree(original.parent, tmp_path / "cards")
    return tmp_path / "cards" / original.name


def labels(row: dict[str, Any], part: int, new: Any) -> None:
    """Put a gold label (0) or a prediction (1) into every metric that has one."""
    for name, value in row["values"].items():
        if isinstance(value, list):
            row["values"][name] = [*value[:part], new, *value[part + 1 :]]


def gold_everywhere(card: Card, rows: Rows) -> None:
    """Another gold label, with the accuracies that follow from it."""
    row = row_of(rows)
    labels(row, 0, other(row["values"]["macro_f1"][0]))
    for end in ("", "_lenient"):
        gold, said, _ = row["values"]["macro_f1" + end]
        row["values"]["acc" + end] = float(gold == said)


def contents_swapped(card: Card, rows: Rows) -> None:
    """Answers and values of two rows change places, their documents stay."""
    one = row_of(rows)
    two = next(
        row for row in rows if row["task"] == SENTIMENT and row["values"]["macro_f1"][0] != one["values"]["macro_f1"][0]
    )
    for key in ("answer", "values"):
        one[key], two[key] = two[key], one[key]


def indices_swapped(card: Card, rows: Rows) -> None:
    one, two = row_of(rows, number=7), row_of(rows, number=8)
    one["index"], two["index"] = 8, 7


def copied(card: Card, rows: Rows) -> None:
    """A row that was answered rightly takes the place of one that was not."""
    right = next(row for row in rows if row["task"] == SENTIMENT and row["values"]["acc"] == 1)
    wrong = next(row for row in rows if row["task"] == SENTIMENT and row["values"]["acc"] == 0)
    wrong.update({key: value for key, value in right.items() if key != "index"})


def shifted(by: float) -> Any:
    def alter(card: Card, rows: Rows) -> None:
        measure = card["scores"][1]["metrics"]["macro_f1"]
        measure |= {"low": measure["low"] + by, "high": measure["high"] + by}

    return alter


def turned(card: Card, rows: Rows) -> None:
    measure = card["scores"][1]["metrics"]["acc"]
    measure |= {"low": measure["high"], "high": measure["low"]}


def set_row(key: str, value: Any) -> Any:
    def alter(card: Card, rows: Rows) -> None:
        row_of(rows)[key] = value

    return alter


def set_value(name: str, value: Any) -> Any:
    def alter(card: Card, rows: Rows) -> None:
        row_of(rows)["values"][name] = value

    return alter


def tasks_exchanged(card: Card, rows: Rows) -> None:
    for row in rows:
        row["task"] = HEADLINE if row["task"] == SENTIMENT else SENTIMENT


def look_alike(card: Card, rows: Rows) -> None:
    card["scores"][1]["task"] = SENTIMENT.replace("e", "\u0435")


def look_alike_label(card: Card, rows: Rows) -> None:
    labels(row_of(rows), 1, "p\u043esitive")


def look_alike_metric(card: Card, rows: Rows) -> None:
    metrics = card["scores"][1]["metrics"]
    metrics["\u0430cc"] = metrics.pop("acc")


def one_digest_for_another(card: Card, rows: Rows) -> None:
    one, two = card["scores"]
    one["data"]["digest"], two["data"]["digest"] = two["data"]["digest"], one["data"]["digest"]


def every_source_its_own(card: Card, rows: Rows) -> None:
    """As if no documents shared a source, so that intervals are shorter."""
    for number, row in enumerate(row for row in rows if row["task"] == HEADLINE):
        row["cluster"] = f"{number:016x}"


def always_parses(card: Card, rows: Rows) -> None:
    card["scores"][1]["parse_rate"] |= {"value": 1.0, "low": 1.0, "high": 1.0, "method": "choices always parse"}


CAREFUL: dict[str, tuple[Any, str]] = {  # seals and hashes renewed; what must be named
    "a gold label in every place": (rescored(gold_everywhere), f"{ROW}.values.macro_f1"),
    "contents of two rows swapped": (contents_swapped, f"{ROW}.values"),
    "indices of two rows swapped": (indices_swapped, f"{ROW}.doc"),
    "a right row for a wrong one": (rescored(copied), ".doc"),
    "an interval shifted up": (shifted(0.01), ".metrics.macro_f1.low"),
    "an interval shifted down": (shifted(-0.01), ".metrics.macro_f1.low"),
    "an interval turned around": (turned, ".metrics.acc"),
    "truth for a number": (set_value("acc", True), f"{ROW}.values.acc"),
    "text for a number": (set_value("acc", "1.0"), f"{ROW}.values.acc"),
    "nothing for a number": (set_value("acc", None), f"{ROW}.values.acc"),
    "a number beyond all": (set_value("acc", 10**400), f"{ROW}.values.acc"),
    "a count as text": (lambda card, rows: card["scores"][1].update(n="150"), "scores[1].n"),
    "a count as truth": (lambda card, rows: card["scores"][1].update(truncated=False), "scores[1].truncated"),
    "a count as a fraction": (lambda card, rows: card["scores"][1].update(n=150.0), "scores[1].n"),
    "a value as text": (
        lambda card, rows: card["scores"][1]["metrics"]["acc"].update(value="0.5"),
        "scores[1].metrics.acc.value",
    ),
    "a schema as text": (lambda card, rows: card.update(schema="1"), "schema"),
    "a task in other letters": (look_alike, ".task"),
    "a label in other letters": (look_alike_label, f"{ROW}.values.macro_f1"),
    "a metric in other letters": (look_alike_metric, ".metrics"),
    "rows of two tasks exchanged": (tasks_exchanged, f"samples[{HEADLINE}"),
    "digests of two sets exchanged": (one_digest_for_another, ".data.digest"),
    "every source its own": (rescored(every_source_its_own), f"samples[{HEADLINE} "),
    "a parse rate of choices": (always_parses, ".parse_rate"),
    "lenient numbers taken out": (lambda card, rows: card["scores"][1]["lenient"].clear(), ".lenient"),
    "a metric that no scorer gives": (set_value("bonus", 1.0), f"{ROW}.values"),
    "a key that no row has": (set_row("comment", "restricted text"), f"{ROW}.comment"),
    "an answer and the hash of another": (set_row("answer_sha256", "0" * 32), f"{ROW}.answer_sha256"),
    "a digest in capitals": (
        lambda card, rows: card["scores"][1].update(task_digest=card["scores"][1]["task_digest"].upper()),
        ".task_digest",
    ),
    "a document in capitals": (
        lambda card, rows: row_of(rows).update(doc=row_of(rows)["doc"].upper() + "A"),
        f"{ROW}.doc",
    ),
    "a date that is none": (put("yesterday", "provenance", "created"), "provenance.created"),
    "a day that is none": (put("2026-02-31T00:00:00Z", "provenance", "created"), "provenance.created"),
    "a time before all others": (put("0001-01-01T00:00:00Z", "provenance", "created"), "provenance.created"),
    "a base with an adapter": (put("a" * 64, "subject", "adapter"), "subject.kind"),
    "an adapter without a name": (put("", "subject", "adapter"), "subject.kind"),
    "an adapter's kind alone": (put("peft", "subject", "kind"), "subject.kind"),
}


@pytest.mark.parametrize("what", CAREFUL)
def test_a_hostile_alteration_is_named_though_all_seals_are_renewed(what: str, card: Path) -> None:
    alter, field = CAREFUL[what]
    written(card, alter)
    found = verify(card)
    assert found.level == "none"
    assert any(field in fault.field for fault in found.faults), found.faults[:5]


def written(path: Path, alter: Any) -> None:
    """As ``change`` with a careful hand, for values that no record can hold."""
    found, rows = json.loads(path.read_text()), cardfiles.read_samples(path)
    alter(found, rows)
    lines = "".join(stable_json(row) + "\n" for row in rows)
    cardfiles.samples_path(path).write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    found["samples"] = sha256_file(cardfiles.samples_path(path))
    if isinstance(found["provenance"]["created"], str):
        found["seal"] = seal.card_seal(found)
    path.write_text(json.dumps(found, indent=1))


def without_samples(path: Path) -> None:
    """The card alone, sealed anew."""
    found = json.loads(path.read_text()) | {"samples": None}
    path.write_text(json.dumps(found | {"seal": seal.card_seal(found)}))


NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400", "1" * 5000)


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_json_does_not_have_are_named_in_card_and_rows(number: str, card: Path) -> None:
    text = card.read_text()
    value = json.loads(text)["scores"][1]["metrics"]["acc"]["value"]
    card.write_text(text.replace(f'"value": {value}', f'"value": {number}'))
    assert card.read_text() != text
    with pytest.raises(FinbenchError, match="torn or not JSON"):
        verify(card)
    card.write_text(text)
    lines = [stable_json(row) for row in cardfiles.read_samples(card)]
    lines[-1] = lines[-1].replace('"acc":0.0', f'"acc":{number}').replace('"acc":1.0', f'"acc":{number}')
    content = ("\n".join(lines) + "\n").encode()
    cardfiles.samples_path(card).write_bytes(zstandard.ZstdCompressor().compress(content))
    change_sha(card)
    found = verify(card)
    assert found.level == "none"
    assert {fault.field for fault in found.faults} == {"samples"}


@pytest.mark.parametrize(("where", "value"), [("rank", 0), ("rank", -8), ("seed", -1), ("trainable_parameters", -5)])
def test_a_count_below_what_there_can_be_is_no_card(where: str, value: int, card: Path) -> None:
    written(card, lambda found, _: found["subject"].update({where: value}))
    with pytest.raises(FinbenchError, match=rf"subject\.{where}") as caught:
        cardfiles.read(card)
    assert "greater than or equal to" in str(caught.value)


def test_cards_of_two_subjects_do_not_pass_for_each_other(card: Path) -> None:
    """The whole subject, or the samples, of another card that is honest in itself."""
    gold = card.parent / "gold" / "dummy.json"
    mine, theirs = json.loads(card.read_text()), json.loads(gold.read_text())
    assert verify(gold).faults == []
    kept = card.read_bytes()
    card.write_text(json.dumps(mine | {"arguments": theirs["arguments"]}))
    assert {"run_key", "arguments.answers"} & {fault.field.split(" ")[0] for fault in verify(card).faults}
    card.write_bytes(kept)
    shutil.copy(cardfiles.samples_path(gold), cardfiles.samples_path(card))
    assert verify(card).faults[0].field == "samples"
    change_sha(card)
    assert any(".metrics.acc" in fault.field for fault in verify(card).faults)


@pytest.mark.parametrize(
    "behind",
    [
        b"text behind the end",
        zstandard.ZstdCompressor().compress(b"restricted text\n"),
        b"\x50\x2a\x4d\x18\x0f\x00\x00\x00restricted text",  # a frame that readers skip
    ],
)
def test_data_behind_the_samples_is_named(behind: bytes, card: Path) -> None:
    file = cardfiles.samples_path(card)
    file.write_bytes(file.read_bytes() + behind)
    change_sha(card)
    [fault] = verify(card).faults
    assert fault.field == "samples"
    assert "behind" in fault.message


def test_how_a_card_is_laid_out_does_not_matter(card: Path) -> None:
    """Other spaces and another order of keys are the same card; another order of rows is another file, and no more."""
    found = json.loads(card.read_text())
    card.write_text(json.dumps(dict(reversed(found.items())), indent=7))
    assert verify(card).faults == []
    change(card, lambda found, rows: rows.reverse())
    assert {fault.field for fault in verify(card).faults} == {"samples"}
    change_sha(card)
    assert verify(card).faults == []


def test_a_date_that_is_none_is_one_line_in_every_export(card: Path, tmp_path: Path) -> None:
    written(card, put("yesterday", "provenance", "created"))
    for how in ("eval-results", "model-index", "every-eval-ever", "lm-eval"):
        if how == "model-index":  # has no time
            continue
        with pytest.raises(FinbenchError, match="'yesterday' is no time"):
            exports.export_card(card, format=how, out=tmp_path, benchmark="hub:org/set")


def test_an_export_stays_in_its_folder_whatever_the_card_says(card: Path, tmp_path: Path) -> None:
    def away(found: Card, rows: Rows) -> None:
        found["subject"]["name"] = ".."
        found["subject"]["base"]["hub_id"] = "../../../up"

    written(card, away)
    for how in ("eval-results", "model-index", "every-eval-ever", "lm-eval"):
        out = tmp_path / "a" / "b" / "c"
        for path in exports.export_card(card, format=how, out=out, benchmark="hub:org/set"):
            assert path.resolve().is_relative_to(out), how


# ---------------------------------------------------------------- what a check must not be talked out of


def on_sentiment(change: Any) -> Any:
    def alter(card: Card, rows: Rows) -> None:
        change(next(score for score in card["scores"] if score["task"] == SENTIMENT))

    return alter


def certain(score: dict[str, Any]) -> None:
    """An interval without width, and no word of how it was made."""
    measure = score["metrics"]["macro_f1"]
    measure |= {"low": measure["value"], "high": measure["value"], "method": ""}


def all_right_without_answers(card: Card, rows: Rows) -> None:
    """No counts, so no evidence is asked for; no answers, so none can be scored again; all values right."""
    for row in rows:
        if row["task"] == SENTIMENT:
            row.pop("answer")
            gold = row["values"]["macro_f1"][0]
            for name, value in row["values"].items():
                row["values"][name] = 1.0 if isinstance(value, float) else [gold, gold, value[2]]
    rescored(lambda card, rows: None)(card, rows)
    for score in card["scores"]:
        score |= {"clusters": None, "duplicates": None}


def passed_off(card: Card, rows: Rows) -> None:
    """The dummy engine, which reproduces its answers without any model, as a model with a name."""
    card["subject"] |= {"name": "llama-3.1-8b"}
    card["subject"]["base"] |= {"alias": "llama-3.1-8b", "hub_id": "meta-llama/Llama-3.1-8B", "source": "hub"}


def emptied(card: Card, rows: Rows) -> None:
    card |= {"scores": [], "status": "partial"}
    rows.clear()


LESS: dict[str, tuple[Any, str]] = {
    "an interval without width": (on_sentiment(certain), ".metrics.macro_f1.method"),
    "counts and answers taken out": (all_right_without_answers, "schema"),
    "the dummy engine under a model's name": (passed_off, "subject.base"),
    "no scores at all": (emptied, "scores"),
    "a main metric that is not there": (on_sentiment(lambda score: score.update(main_metric="f2")), "schema"),
    "more cut prompts than prompts": (on_sentiment(lambda score: score.update(truncated=151)), ".truncated"),
    "a date in other digits": (put("\uff12026-11-26T00:00:00Z", "provenance", "created"), "provenance.created"),
    "a date of another form": (put("2026-1-1T1:1:1Z", "provenance", "created"), "provenance.created"),
}


@pytest.mark.parametrize("what", LESS)
def test_saying_less_is_no_way_around_a_check(what: str, card: Path) -> None:
    alter, field = LESS[what]

    def renewed(found: Card, rows: Rows) -> None:
        alter(found, rows)
        with contextlib.suppress(FinbenchError):
            found["run_key"] = cardfiles.run_key(Scorecard.parse(found, "altered"))

    written(card, renewed)
    found = verify(card, rerun=0 if what == "the dummy engine under a model's name" else 20)
    assert found.level == "none"
    assert any(field in fault.field for fault in found.faults), found.faults[:5]


def test_half_a_character_is_one_clear_line_in_card_and_rows(card: Path) -> None:
    kept = card.read_bytes()
    card.write_text(card.read_text().replace('"name": "dummy"', r'"name": "dum\ud800my"'))
    for read in (verify, cardfiles.read):
        with pytest.raises(FinbenchError, match="torn or not JSON"):
            read(card)
    card.write_bytes(kept)
    lines = "".join(stable_json(row) + "\n" for row in cardfiles.read_samples(card))
    text = lines.replace('"answer":"', r'"answer":"\udfff')
    assert text != lines
    cardfiles.samples_path(card).write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    change_sha(card)
    assert {fault.field for fault in verify(card).faults} == {"samples"}
    whole = lines.replace('"answer":"', r'"answer":"\ud83d\ude00')  # both halves are one character
    cardfiles.samples_path(card).write_bytes(zstandard.ZstdCompressor().compress(whole.encode()))
    change_sha(card)
    assert "samples" not in {fault.field for fault in verify(card).faults}


def test_a_rerun_is_refused_where_it_could_show_nothing(card: Path) -> None:
    for options in ({"rerun": -1}, {"rerun": 3, "seed": -1}):
        with pytest.raises(FinbenchError, match="counts from 0, got -1"):
            verify(card, **options)
    bare = json.loads(card.read_text()) | {"samples": None}
    card.write_text(json.dumps(bare | {"seal": seal.card_seal(bare)}))
    assert verify(card).level == "self-reported"
    with pytest.raises(FinbenchError, match="has no samples"):
        verify(card, rerun=3)


@pytest.mark.parametrize(
    ("asked", "moved", "level"),
    [
        (1, 1, "samples-attached"),
        (1, 0, "reproduced"),
        (20, 1, "samples-attached"),
        (20, 2, "none"),
        (50, 1, "reproduced"),
        (100, 3, "samples-attached"),
        (100, 4, "none"),
    ],
)
def test_a_model_in_half_precision_reproduces_49_in_50_and_not_0_in_1(asked: int, moved: int, level: str) -> None:
    rows = [[], list(range(asked)), []]
    answered = rerun.Answered(SENTIMENT, 0, [0, 150, 0], rows, list(range(moved)), drawing.TOLERATED)
    found = Verification("card", level="samples-attached")
    _reproduced([answered], found)
    assert found.level == level
    assert bool(found.faults) == (level == "none")
    exact = replace(answered, tolerated=0.0)
    assert (exact.same, exact.chance) == (not moved, False)


# ---------------------------------------------------------------- tables of cards that nobody verified


def main_edited(card: Card, rows: Rows) -> None:
    card["scores"][1]["metrics"]["macro_f1"] |= {"value": 0.99, "low": 0.98, "high": 1.0}


def turned_around(card: Card, rows: Rows) -> None:
    card["scores"][1]["lower_is_better"] = ["macro_f1"]


def another_main(card: Card, rows: Rows) -> None:
    card["scores"][1]["main_metric"] = "acc"


def out_of_reach(card: Card, rows: Rows) -> None:
    for row in rows:
        if row["task"] == SENTIMENT:
            row["values"]["macro_f1"] = {"sha256": "0" * 32}


UNEQUAL: dict[str, tuple[Any, str]] = {
    "a main number that its samples do not give": (main_edited, "says macro_f1 = 0.9900 .* its samples give"),
    "less is better": (turned_around, r"they differ in lower_is_better: \['macro_f1'\] and \[\]"),
    "another main metric": (another_main, "they differ in main_metric: acc and macro_f1"),
    "every source its own": (every_source_its_own, "not of the same documents"),
}


@pytest.mark.parametrize("what", UNEQUAL)
def test_what_would_change_the_verdict_is_refused_by_compare(what: str, card: Path) -> None:
    alter, said = UNEQUAL[what]
    written(card, alter)
    with pytest.raises(FinbenchError, match=said):
        comparison.compare([card, card.parent / "gold" / "dummy.json"])


def test_values_out_of_reach_are_one_line_whichever_card_has_them(card: Path) -> None:
    written(card, out_of_reach)
    for pair in ([card, card.parent / "gold" / "dummy.json"], [card.parent / "gold" / "dummy.json", card]):
        with pytest.raises(FinbenchError, match="quotes restricted text"):
            comparison.compare(pair, tasks=["mini_sentiment"])


def test_a_report_shows_no_number_that_the_samples_beside_it_contradict(card: Path) -> None:
    written(card, main_edited)
    with pytest.raises(FinbenchError, match=r"says macro_f1 = 0\.9900") as caught:
        reporting.report([card])
    assert "finbench verify" in caught.value.hint


def test_two_subjects_of_one_name_are_two_lines_and_have_no_common_mean(card: Path) -> None:
    gold = card.parent / "gold" / "dummy.json"

    def only(number: int, base: str) -> Any:
        def alter(found: Card, rows: Rows) -> None:
            found["scores"] = [found["scores"][number]]
            rows[:] = [row for row in rows if row["task"] == found["scores"][0]["task"]]
            found["subject"]["base"]["fingerprint"] = base

        return alter

    written(card, only(0, "a" * 64))
    written(gold, only(1, "b" * 64))
    made = reporting.table([card, gold])
    lines = [line for line in made.lines if not line.baseline]
    assert [line.name for line in lines] == ["dummy", f"dummy ({gold.with_suffix('')})"]
    assert made.families == []  # a mean that nobody has is no column
    assert all(line.means == [] for line in made.lines)


def test_a_seed_that_was_scored_twice_is_one_seed(card: Path) -> None:
    """Scored again it has the same value: counted as two it would halve the spread that training has."""
    places = []
    for number, (seed, day) in enumerate([(1, 1), (1, 2), (2, 1)]):
        source = card if seed == 1 else card.parent / "gold" / "dummy.json"
        place = card.parent / f"{number}" / "dummy.json"
        place.parent.mkdir()
        shutil.copy(source, place)
        shutil.copy(cardfiles.samples_path(source), cardfiles.samples_path(place))

        def alter(found: Card, rows: Rows, seed: int = seed, day: int = day) -> None:
            found["subject"] |= {"name": f"m-s{seed}", "seed": seed, "kind": "peft", "adapter": f"{seed}" * 64}
            found["provenance"]["created"] = f"2026-01-0{day}T00:00:00Z"

        written(place, alter)
        places.append(place)
    lines = [line for line in reporting.table(places, "seeds", [SENTIMENT]).lines if not line.baseline]
    assert [(line.name, len(line.cells[0].runs)) for line in lines if line.cells[0]] == [
        ("m", 2),
        (f"m ({places[1].with_suffix('')})", 1),
    ]


EVIL = "[x]<script>x</script>|**b**\r\n\n# h1 \x1b[31m\u202e\u2028"


def test_no_text_of_a_card_is_markup_a_line_or_a_command_in_any_format(card: Path) -> None:
    def everywhere(found: Card, rows: Rows) -> None:
        found["subject"] |= {"name": EVIL, "method": EVIL}
        found |= {"engine": EVIL, "dtype": EVIL, "samples": None}
        for score in found["scores"]:
            values = next(iter(score["metrics"].values()))
            score |= {"task": score["task"] + EVIL, "family": EVIL, "main_metric": EVIL}
            score["metrics"][EVIL] = values

    written(card, everywhere)
    without_samples(card)
    texts = {how: reporting.report([card], format=how) for how in reporting.FORMATS}
    texts["eval"] = render.markdown([cardfiles.read(card)])
    for how, text in texts.items():
        assert "<script" not in text.replace("$<$", ""), how
        assert how == "html" or not re.search("[\r\x1b\u202e\u2028]|\n# h1|\n\\[|[^\\\\]\\*\\*b", text), how
    assert r"\\" + "\n[" not in texts["latex"]
    assert "{[}x{]}" in texts["latex"]


ROW_START = '{"task":"finbench_mini_sentiment","index":0,"doc":"x","cluster":"x","values":{'
BOMBS: dict[str, str] = {  # of samples, whose file has some kilobytes
    "names": ROW_START + '"acc":0,' * 3_000_000 + '"acc":0}}',
    "texts": ROW_START + '"acc":[' + '"éa",' * 5_000_000 + "0]}}",
    "numbers": ROW_START + '"acc":[' + "0.1," * 8_000_000 + "0]}}",
}


@pytest.mark.parametrize("what", BOMBS)
def test_samples_that_are_a_bomb_are_refused_before_they_are_read(what: str, card: Path) -> None:
    samples = cardfiles.samples_path(card)
    samples.write_bytes(zstandard.ZstdCompressor(level=1).compress(BOMBS[what].encode()))
    before = time.thread_time()
    with pytest.raises(FinbenchError, match="larger than any samples file"):
        cardfiles.parse_samples(samples)
    assert quick(time.thread_time() - before, 1.0)


@pytest.mark.parametrize("text", ['{"scores":[' + "{}," * 90_000 + "{}]}", '{"scores":[' + "[]," * 5_000_000 + "0]}"])
def test_a_card_in_which_everything_is_wrong_is_told_at_once(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    before = time.thread_time()
    with pytest.raises(FinbenchError, match="at most 1000 items|larger than any scorecard"):
        cardfiles.read(tmp_path / "c.json")
    assert quick(time.thread_time() - before, 1.0)


@pytest.mark.parametrize("value", [1e308, -1e308])
def test_a_share_beyond_all_is_named(value: float, card: Path) -> None:
    def far(found: Card, rows: Rows) -> None:
        found["scores"][1]["metrics"]["acc"]["value"] = value

    written(card, far)
    assert any(fault.field.endswith("metrics.acc") for fault in verify(card).faults)


def test_no_name_of_a_card_is_a_link_or_markup_in_a_table(card: Path) -> None:
    """Addresses become links by themselves on GitHub, underlines slanted type."""
    name = "best: https://evil.example/a_b WWW.evil.example _sure_"
    written(card, lambda found, _: found["subject"].update(name=name))
    without_samples(card)
    told = r"best: https&#58;//evil.example/a\_b WWW&#46;evil.example \_sure\_"
    text = render.markdown([cardfiles.read(card)])
    assert told in text
    assert "://evil" not in text + reporting.report([card])


def test_a_number_beyond_any_axis_is_drawn_and_a_baseline_without_it_left_out(card: Path) -> None:
    def far(found: Card, rows: Rows) -> None:
        for score in found["scores"]:
            score["main_metric"], score["baselines"] = "mse", {"random": {}}
            score["metrics"]["mse"] = {"value": 1.7e308, "low": -1.7e308, "high": 1.7e308, "method": "x"}

    written(card, far)
    without_samples(card)
    assert "<svg" in reporting.report([card], format="html")
    assert "random label" not in render.markdown([cardfiles.read(card)])


# ---------------------------------------------------------------- what a card says of rows and models that it had


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cards on a restricted set, of which a part lies in ``data``, without examples and (``few``) with two."""
    place = tmp_path_factory.mktemp("imported")
    import_data("fpb", write_sources(place / "s")["fpb"], place / "data")
    tasks = ["fpb", "fpb_mc", "mini_sentiment"]
    for name, shots in (("none", 0), ("few", 2)):
        evaluator.evaluate(engine="dummy", tasks=tasks, out=place / name, data_dir=place / "data", shots=shots)
    return place


def of_fpb(**values: Any) -> Any:
    def alter(card: Card, rows: Rows) -> None:
        next(score for score in card["scores"] if score["task"] == "finbench_fpb").update(values)

    return alter


def likely(change: Any) -> Any:
    """Other log-likelihoods of one row."""

    def alter(card: Card, rows: Rows) -> None:
        row = row_of(rows, "finbench_fpb_mc", 3)
        row["answer"] = change(row["answer"])

    return alter


def shared(share: float | None) -> Any:
    def alter(card: Card, rows: Rows) -> None:
        for score in card["scores"]:
            score["data"]["share"] = share
        card["status"] = "partial" if share else "complete"

    return alter


def based(**values: Any) -> Any:
    def alter(card: Card, rows: Rows) -> None:
        base = {"fingerprint": "a" * 64, "source": "hub", "revision": "b" * 40, **values}
        card["engine"], card["subject"]["base"] = "hf", card["subject"]["base"] | base

    return alter


def unreadable(alter: Any) -> Any:
    """Answers of which only hashes are there, and which no label has; and rows altered beside."""

    def both(card: Card, rows: Rows) -> None:
        for number, row in enumerate(row for row in rows if row["task"] == "finbench_fpb"):
            row["answer_sha256"] = f"{number:032x}"
            alter(row, number)

    return rescored(both)


def as_said(row: dict[str, Any], number: int) -> None:
    """What was said is right."""
    for value in row["values"].values():
        if isinstance(value, list):
            value[0] = value[1] or value[0]
    for end in ("", "_lenient"):
        gold, said, _ = row["values"]["macro_f1" + end]
        row["values"]["acc" + end] = float(gold == said)


MC, FPB = "samples[finbench_fpb_mc 3].answer", "scores[finbench_fpb]"
SAID: dict[str, tuple[str, Any, str]] = {  # which card, how it is altered, what must be named without the data too
    "a log-likelihood above 0": ("none", likely(lambda have: [one + 200 for one in have]), MC),
    "a log-likelihood in words": ("none", likely(lambda have: ["nan", *have[1:]]), MC),
    "no log-likelihood": ("none", likely(lambda have: [None, *have[1:]]), MC),
    "truth for a log-likelihood": ("none", likely(lambda have: [*have[:-1], False]), MC),
    "a log-likelihood below all": ("none", likely(lambda have: [-(10**400), *have[1:]]), MC),
    "fewer log-likelihoods than labels": ("none", likely(lambda have: have[:2]), MC),
    "more log-likelihoods than labels": ("none", likely(lambda have: [*have, -99.0]), MC),
    "no log-likelihoods": ("none", likely(lambda have: []), MC),
    "examples of no split": ("few", of_fpb(fewshot_split=None), f"{FPB}.fewshot_split"),
    "examples of the test": ("few", of_fpb(fewshot_split="test"), f"{FPB}.fewshot_split"),
    "examples without a digest": ("few", of_fpb(fewshot_digest=None), f"{FPB}.fewshot_digest"),
    "examples with no digest's digest": ("few", of_fpb(fewshot_digest="0"), f"{FPB}.fewshot_digest"),
    "a known alias of another model": ("none", based(alias="gpt2", hub_id="org/other"), "subject.base.hub_id"),
    "a known alias of a folder": (
        "none",
        based(alias="gpt2", hub_id="org/other", source="folder", revision=None),
        "subject.base.hub_id",
    ),
}
DISPROVED: dict[str, tuple[str, Any, str]] = {  # by the data alone
    "a part as the whole": ("none", shared(None), f"{FPB}.data.share"),
    "a part as a larger one": ("none", shared(1.0), f"{FPB}.data.share"),
    "other rows of examples": ("few", of_fpb(fewshot_digest="0" * 64), f"{FPB}.fewshot_digest"),
    "right answers beside unreadable ones": ("none", unreadable(as_said), ".values.macro_f1"),
    "sources beside unreadable answers": (
        "none",
        unreadable(lambda row, number: row.update(cluster=f"{number:016x}")),
        ".cluster",
    ),
    "years beside unreadable answers": ("none", unreadable(lambda row, number: row.update(year=2031)), ".year"),
}


@pytest.mark.parametrize("what", SAID | DISPROVED)
def test_what_a_card_says_of_rows_and_models_is_looked_at(what: str, imported: Path, tmp_path: Path) -> None:
    which, alter, field = (SAID | DISPROVED)[what]
    shutil.copytree(imported / which, tmp_path / "cards")
    card = tmp_path / "cards" / "dummy.json"
    assert verify(card, data_dir=imported / "data").faults == []
    change(card, alter, careful=True)
    for data in (imported / "data", *([tmp_path] if what in SAID else [])):
        found = verify(card, data_dir=data)
        assert any(field in fault.field and "cannot be read" not in fault.message for fault in found.faults), found


def test_a_folder_and_other_harnesses_name_models_as_they_like(imported: Path, tmp_path: Path) -> None:
    shutil.copytree(imported / "none", tmp_path / "cards")
    card = tmp_path / "cards" / "dummy.json"
    change(card, based(alias="gpt2", hub_id=None, source="folder", revision=None), careful=True)
    assert verify(card, data_dir=imported / "data").faults == []
    change(card, based(alias="gpt2", hub_id="gpt2"), careful=True)
    assert verify(card, data_dir=imported / "data").faults == []
    change(card, based(alias="gpt2", hub_id="org/gpt2"), careful=True)
    assert verify(card, data_dir=imported / "data").faults
    change(card, put("lm-eval", "origin"), careful=True)
    assert verify(card, data_dir=imported / "data").faults == []
