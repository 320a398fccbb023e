"""tasks/lib/answers.py: how every family reads the usual manners of models, and what no manner makes an answer."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from conftest import task_helper
from finbench.core import catalog, paths

answers, amounts, labels = (task_helper(name) for name in ("answers", "amounts", "labels"))
HELPERS = {name: task_helper(name) for name in ("labels", "numbers", "regression", "spans", "tagging", "xbrl")}
STATED = json.loads((paths.shipped("tasks") / "answers.json").read_text(encoding="utf-8"))
FAMILIES: dict[str, dict[str, Any]] = STATED["families"]
CELLS = [
    *((name, row[0], row[2][place], {}) for row in STATED["manners"] for place, name in enumerate(FAMILIES)),
    *((name, row[0], row[2], row[3] if len(row) > 3 else {}) for name, rows in STATED["own"].items() for row in rows),
]


def filled(family: dict[str, Any], template: str) -> str:
    return template.replace("{o}", family["other"]).replace("{}", family["right"])


def read(family: dict[str, Any], answer: str, doc: dict[str, Any]) -> tuple[bool, bool, bool]:
    """(right strictly, right leniently, parsed) of an answer to a document of the family."""
    module, function = family["scorer"].split(".")
    found = getattr(HELPERS[module], function)({**family["doc"], **doc}, [answer])
    if module == "regression":
        right, lenient = (found[name][0] == found[name][1] for name in ("r2", "r2_lenient"))
    else:
        name = "exact_match" if module == "spans" else "acc"
        right, lenient = found[name] == 1, found[f"{name}_lenient"] == 1
    return right, lenient, found["parse_rate"] == 1


@pytest.mark.parametrize(("name", "template", "cell", "doc"), CELLS, ids=[f"{c[0]}: {c[1]!r}"[:70] for c in CELLS])
def test_every_cell_of_the_table(name: str, template: str, cell: str, doc: dict[str, Any]) -> None:
    family = FAMILIES[name]
    right, lenient, parsed = read(family, filled(family, template), doc)
    assert {"+": (True, True), "~": (False, True), "-": (False, False)}[cell] == (right, lenient)
    assert parsed or not right
    if "{o}" in template and "{}" in template and cell != "+":  # nor is it the other answer
        assert not read(family, filled(family, template), family["otherwise"])[0]


def test_twenty_manners_and_more_of_every_family() -> None:
    assert all(len(row[2]) == len(FAMILIES) and set(row[2]) <= set("+~-") for row in STATED["manners"])
    assert len({row[0] for row in STATED["manners"]}) == len(STATED["manners"]) >= 50
    assert STATED["own"].keys() == FAMILIES.keys()


# ---------------------------------------------------------------- what is no answer

SETS = {
    "sentiment": ("negative", "neutral", "positive"),
    "levels": ("strong negative", "mildly negative", "neutral", "mildly positive", "strong positive"),
    "yes and no": ("Yes", "No"),
    "letters": ("A", "B", "C", "D"),
    "true and false": ("True", "False"),
    "claims": ("in-claim", "out-of-claim"),
    "moves": ("RATE_CUT", "no change", "rate-hike"),
}
PIECES = (
    *("Answer:", "The answer is", "Final answer:", "Sure!", "The sentiment is", "It is", "I would classify this as"),
    *("Based on the text,", "not", "or", "and", "because", "though", "perhaps", "sentiment", "The sentence has a"),
    *("**", "`", '"', "'", "(", ")", "[", "]", "{", "}", "<answer>", "</answer>", "\\boxed{", "\\text{", "$", "```"),
    *(".", ",", ":", ";", "!", "?", "-", " - ", "—", "/", "=", "#", ">", "📈", "❌", "•", "1.", "x"),
)


@pytest.mark.parametrize("choices", SETS.values(), ids=SETS)
@given(data=st.data())
def test_no_line_that_names_two_labels_is_read(choices: tuple[str, ...], data: st.DataObject) -> None:
    two = data.draw(st.permutations(choices))[:2]
    parts = [data.draw(st.lists(st.sampled_from(PIECES), max_size=4)) for _ in range(3)]
    words = [*parts[0], two[0], *parts[1], two[1], *parts[2]]
    assert labels.parse(" ".join(words), choices) is None


@pytest.mark.parametrize("choices", SETS.values(), ids=SETS)
def test_no_list_of_labels_is_read(choices: tuple[str, ...]) -> None:
    for some in itertools.permutations(choices, 2):
        for between in (
            ", ",
            "/",
            " or ",
            " and ",
            "\n",
            "\n- ",
            " | ",
            "; ",
            " to ",
            "-",
            ". ",
            "\n\n",
            "\r\n",
            "\u2028",
        ):
            for before in ("", "- ", "**", "Answer: ", "The answer is ", "Options: ", "```\n", "1. "):
                assert labels.parse(before + between.join(some), choices) is None, before + between.join(some)


@pytest.mark.parametrize("choices", SETS.values(), ids=SETS)
@given(words=st.lists(st.sampled_from(PIECES), max_size=8), place=st.integers(0, 9))
def test_what_is_read_of_a_line_is_named_in_it(choices: tuple[str, ...], words: list[str], place: int) -> None:
    line = " ".join([*words[:4], choices[place % len(choices)], *words[4:]])
    assert labels.parse(line, choices) in (None, choices[place % len(choices)])
    assert labels.parse(" ".join(words), choices) is None


@pytest.mark.parametrize(
    "denial", ["not", "never", "hardly", "anything but", "far from", "neither", "no longer", "less"]
)
@pytest.mark.parametrize("lead", ["", "It is ", "The answer is ", "Answer: ", "The sentence is ", "This is clearly "])
def test_no_denied_label_is_read(lead: str, denial: str) -> None:
    for choices in (SETS["sentiment"], SETS["true and false"], SETS["letters"]):
        assert labels.parse(f"{lead}{denial} {choices[0]}", choices) is None


@pytest.mark.parametrize(
    "inside", ["un{}", "{}ly", "{}s", "non-{}", "{}-ish", "{}的", "very {}", "the {}", "{} enough"]
)
def test_no_label_inside_other_words_is_read(inside: str) -> None:
    assert labels.parse(inside.format("positive"), SETS["sentiment"]) is None


@pytest.mark.parametrize("joint", [" ", "-", "_", "", "\u2010", "\u2011", "\u2012", "\u2013", "\u2212", "\u00a0"])
@pytest.mark.parametrize("choices", [SETS["claims"], SETS["levels"], SETS["moves"]])
def test_another_sign_may_join_the_words_of_a_label(choices: tuple[str, ...], joint: str) -> None:
    for label in choices:
        said = joint.join(re.split("[ _-]", label))
        for answer in (said, said.upper(), said.title(), f"The answer is **{said}**, as the text says."):
            assert labels.parse(answer, choices) == labels.parse_lenient(answer, choices) == label, answer
        for answer in (f"not{joint or '-'}{said}", f"no {said}", f"un{said}", f"{said}s", f"{said}-ish", f"x-{said}"):
            assert labels.parse(answer, choices) is None, answer


def test_labels_that_differ_in_their_joints_are_read_as_written() -> None:
    choices = ("noncurrent", "non-current", "no", "no risk")
    for answer in choices:
        assert labels.parse(answer.upper(), choices) == answer
    assert labels.parse("non_current", choices) is None
    for answer in ("No - risk is low.", "No \u2014 risk is low.", "no\u2014risk"):  # a reason
        assert labels.parse(answer, choices) == "no"


@given(st.text(st.sampled_from("\u0131\u0130\u017f\u212a\u00df\u1e9e\u01c5 isk-_A"), max_size=12))
@example("pos\u0131t\u0131ve")
@example("\u0130n claim")
def test_letters_that_fold_to_others_stop_no_scoring(answer: str) -> None:
    for choices in (SETS["sentiment"], SETS["claims"], ("A", "B", "in claim", "risk")):
        for read in (labels.parse, labels.parse_lenient):
            assert read(answer, choices) in (None, *choices)


@given(st.decimals(-(10**6), 10**6, places=2), st.decimals(-(10**6), 10**6, places=2), st.data())
def test_no_line_of_two_numbers_is_read(one: Any, other: Any, data: st.DataObject) -> None:
    assume(one != other)  # one amount may be said twice
    before, between, after = (" ".join(data.draw(st.lists(st.sampled_from(PIECES[:-3]), max_size=3))) for _ in range(3))
    assume("\\boxed{" not in before + between)  # a box announces the number in it
    assert amounts.number(f"{before} {one} {between} {other} {after}") is None


NUMBERS = st.decimals(-(10**6), 10**6, places=2).filter(bool)


@pytest.mark.parametrize("row", [row for row in STATED["manners"] if row[2][3] == "+"], ids=lambda row: row[1])
@given(value=NUMBERS)
def test_every_accepted_manner_keeps_every_number(row: list[str], value: Any) -> None:
    answer = row[0].replace("{o}", "4711").replace("{}", str(value))
    found = amounts.number(answer)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize("row", [row for row in STATED["manners"] if row[2][0] == "+"], ids=lambda row: row[1])
@pytest.mark.parametrize("choices", SETS.values(), ids=SETS)
def test_every_accepted_manner_keeps_every_label(row: list[str], choices: tuple[str, ...]) -> None:
    for label in choices:
        other = next(one for one in choices if one != label)
        assert labels.parse(row[0].replace("{o}", other).replace("{}", label), choices) == label


def test_constant_answers_reach_what_their_share_is() -> None:
    golds = [label for label in SETS["sentiment"] for _ in range(100)]
    for constant in (*SETS["sentiment"], "The sentiment is negative, neutral or positive.", "unknown", ""):
        right = [labels.score({"label": gold, "choices": SETS["sentiment"]}, [constant])["acc"] for gold in golds]
        assert sum(right) / len(right) == (1 / 3 if constant in SETS["sentiment"] else 0)


@pytest.mark.parametrize("more", ["[]", '[{"text": "Ulm", "type": "location"}]', '{"text": "Ulm", "type": "location"}'])
@pytest.mark.parametrize("between", ["", " ", "\n", "\n\n", ", ", "\n```\n```json\n", "\nAnswer: ", "\nOr:\n"])
def test_no_answer_with_a_second_list_is_read(between: str, more: str) -> None:
    spans = HELPERS["spans"]
    first = '[{"text": "Ana", "type": "person"}]'
    assert spans.parse(first, ["person", "location"]) == [("Ana", "person")]
    for answer in (first + between + more, more + between + first):
        assert spans.parse(answer, ["person", "location"]) is None, answer


@pytest.mark.parametrize("text", ["5²", "½", "①", "5′", "10⁻³", "٣", "5 °C"])
def test_characters_that_look_like_digits_make_no_other_number(text: str) -> None:
    assert amounts.number(text) in (None, amounts.number("3"))


@pytest.mark.parametrize(
    ("answer", "choices", "label"),
    [
        ("<answer>positive</answer> because sales rose", "sentiment", "positive"),
        ("<answer>positive</answer> or negative", "sentiment", None),
        ("<answer>positive</answer><answer>negative</answer>", "sentiment", None),
        ("<answer>positive</answer> is wrong", "sentiment", None),
        ("<answer>not positive</answer> because sales rose", "sentiment", None),
        ('"positive": sales rose', "sentiment", "positive"),
        ('"positive": 0.2', "sentiment", None),
        ('"positive": no', "sentiment", None),
        ('{"positive": "sales rose"}', "sentiment", None),
        ("positive\u3002", "sentiment", "positive"),
        ("positive\u3002no", "sentiment", None),
        ("positive\u3002negative", "sentiment", None),
        ("positive, wrong", "sentiment", None),
        ("True, it is not wrong.", "true and false", "True"),
        ("True. It is wrong.", "true and false", None),
        ("True, not false", "true and false", None),
    ],
)
def test_a_manner_is_read_and_no_hedge_like_it(answer: str, choices: str, label: str | None) -> None:
    assert labels.parse(answer, SETS[choices]) == label


OPTIONS = "A. Class B shares\nB. Company with a C rating.\nC. B and A"


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("A. Class B shares", "A"),
        ("**A. Class B shares**", "A"),
        ("The answer is (B) Company with a C rating.", "B"),
        ("C. B and A", "C"),
        ("B. Company with a C rat", "B"),
        ("A. Class B shares, or C", None),
        ("A. Class B shares B. Company with a C rating", None),
        (OPTIONS, None),
        ("not A. Class B shares", None),
        ("A. Class B shares is wrong", None),
        ("A. Company with a C rating", None),
        ("A. B", None),
        ("A, B", None),
    ],
)
def test_a_letter_may_have_its_own_options_text(answer: str, label: str | None) -> None:
    doc = {"label": label or "A", "choices": ["A", "B", "C"], "options": OPTIONS}
    assert (labels.score(doc, [answer])["acc"], labels.score(doc, [answer])["parse_rate"]) == (bool(label),) * 2


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("12.5, since the negative effect of prices was small", "12.5"),
        ("12.5, a negative effect", None),
        ("12.5, which is negative", None),
        ("12.5, the negative cash flow", None),
        ("4,100,000 (USD)", "4100000"),
        ("4,100 (USD million)", None),
        ("USD 4,100 (EUR)", None),
        ("12\u3002", "12"),
        ("12\u30025", None),
        ("<answer>12</answer>, since it rose", "12"),
        ("<answer>12</answer>.5", None),
        ("<answer>12</answer>34", None),
        ("$1{,}234$", "1234"),
        ("12\\text{ million}", "12000000"),
        *((parted, None) for parted in ("12$34$", "$12$34$", "12.$34$", "12\\text{34}", "\\text{12}34", "12\\(34\\)")),
    ],
)
def test_a_number_is_read_and_none_is_made_of_parts(answer: str, value: str | None) -> None:
    found = amounts.number(answer)
    assert (found and found.value) == (value and Decimal(value))


def test_the_rest_of_a_sentence_about_a_name_or_a_bold_formula() -> None:
    types = ("person", "organization")
    assert labels.parse('"Acme" is an organization.', types) == "organization"
    assert labels.parse('"Acme" is an organization or a person.', types) is None
    assert labels.parse('"Acme" is not an organization.', types) is None
    assert amounts.number('"12" is a 13') is None
    xbrl = HELPERS["xbrl"]
    right = xbrl.parse_formula("Assets / Liabilities")
    assert xbrl._read_formula("**Assets / Liabilities** (because both are of one day)")[0] == right
    for answer in (
        "**Assets / Liabilities** (not right)",
        "**Assets / Liabilities** or **Assets**",
        "Assets** (Equity)",
    ):
        assert xbrl._read_formula(answer) is None, answer


def test_helpers_read_alone(tmp_path: Path) -> None:
    """As in an environment without finbench, from another folder, by file."""
    program = (
        "import importlib.util, sys\n"
        "for file in sys.argv[1:]:\n"
        "    spec = importlib.util.spec_from_file_location('/x.y/' + file, file)\n"
        "    module = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(module)\n"
        "assert not [name for name in sys.modules if 'finbench' in name]\n"
        "print(module.score({'label': 'a', 'choices': ['a', 'b']}, ['Answer: a'])['acc'])\n"
    )
    files = [str(paths.shipped("tasks") / "lib" / f"{name}.py") for name in (*HELPERS, "labels")]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program, *files], cwd=tmp_path, env=kept, capture_output=True, check=True
    )
    assert done.stdout == b"1.0\n"


def test_published_answers_are_read_as_the_page_says(real_data: Path) -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "published_answers.py"
    subprocess.run([sys.executable, str(script), "--data", str(real_data)], check=True)


@pytest.mark.parametrize(
    ("task", "helper", "counts"),
    [
        ("fin_math", "amounts", True),
        ("fin_math", "answers", True),
        ("fpb", "answers", True),
        ("fpb", "amounts", False),
        ("mmlu", "answers", False),
        ("fnxl", "rows", False),
    ],
)
def test_a_helper_that_a_helper_loads_is_part_of_the_task(
    task: str, helper: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(paths.shipped("tasks"), tmp_path / "tasks")
    monkeypatch.setattr(paths, "shipped", lambda name: tmp_path / name)
    file = tmp_path / "tasks" / f"finbench_{task}.yaml"
    before = catalog.read_task(file).digest
    with (tmp_path / "tasks" / "lib" / f"{helper}.py").open("a") as handle:
        handle.write("# changed\n")
    assert (catalog.read_task(file).digest != before) == counts
