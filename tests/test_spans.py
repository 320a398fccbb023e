"""tasks/lib/spans.py: which entities an answer lists, and the F1 over them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import task_helper, within

spans = task_helper("spans")

TYPES = ("person", "organization", "location")
ANA, ACME = ("Ana", "person"), ("Acme", "organization")
ONE, OTHER = '{"text": "Ana", "type": "person"}', '{"text": "Acme", "type": "organization"}'

TEXTS = st.text(st.characters(exclude_categories=()))  # with lone surrogates
ENTITIES = st.lists(st.tuples(TEXTS, st.sampled_from(TYPES)))
FEW = st.lists(st.tuples(st.sampled_from(["Ana", "Acme", "Ulm"]), st.sampled_from(TYPES[:2])), max_size=6)


def doc(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    return {"entities": [{"text": text, "type": kind} for text, kind in pairs], "choices": list(TYPES)}


@pytest.mark.parametrize(
    ("answer", "strict", "lenient"),
    [
        pytest.param(f"[{ONE}]", [ANA], [ANA], id="one entity"),
        pytest.param(f"[{ONE}, {OTHER}]", [ANA, ACME], [ANA, ACME], id="two entities"),
        pytest.param(f"[{ONE}, {ONE}]", [ANA, ANA], [ANA, ANA], id="one entity twice"),
        pytest.param("[]", [], [], id="empty list"),
        pytest.param(f" \n[ {ONE} ]\n", [ANA], [ANA], id="space around"),
        pytest.param('[{"type":"person","text":"Ana"}]', [ANA], [ANA], id="keys in the other order"),
        pytest.param('[{"text":"\\u00c4nn","type":"person"}]', [("Änn", "person")], [("Änn", "person")], id="escape"),
        pytest.param(f"```json\n[{ONE}]\n```", None, [ANA], id="code fence"),
        pytest.param(f"Entities: [{ONE}]. Done.", None, [ANA], id="words around"),
        pytest.param(f"Ana [sic] is named: [{ONE}]", None, [ANA], id="brackets before"),
        pytest.param(f"[{ONE}] as in note [1]", None, [ANA], id="brackets after"),
        pytest.param(f"[{ONE}]\n[{OTHER}]", None, [ANA], id="a second list"),
        pytest.param(f'{{"entities": [{ONE}]}}', None, [ANA], id="wrapped in an object"),
        pytest.param('[{"text": "Ana", "type": "person", "start": 0}]', None, [ANA], id="extra key"),
        pytest.param('[{"text": "Ana", "type": "Person "}]', None, [ANA], id="type in other case"),
        pytest.param(f'[{{"text": "X", "type": "animal"}}, {ONE}]', None, [ANA], id="unknown type"),
        pytest.param(f'[{{"text": "X"}}, {ONE}]', None, [ANA], id="type missing"),
        pytest.param(f'[{{"type": "person"}}, {ONE}]', None, [ANA], id="text missing"),
        pytest.param(f'[{{"text": 7, "type": "person"}}, {ONE}]', None, [ANA], id="text no string"),
        pytest.param(f'[{{"text": "X", "type": ["person"]}}, {ONE}]', None, [ANA], id="type no string"),
        pytest.param(f'[{{"text": "X", "type": null}}, {ONE}]', None, [ANA], id="type null"),
        pytest.param(f"[1, null, NaN, [], {ONE}]", None, [ANA], id="other things in the list"),
        pytest.param('[{"text":"Ana","text":"Bo","type":"person"}]', None, None, id="duplicate key"),
        pytest.param(f"[[{ONE}]]", None, [], id="list in a list"),
        pytest.param(ONE, None, None, id="no list"),
        pytest.param(f"[{ONE}", None, None, id="truncated after an entity"),
        pytest.param(f'[{ONE}, {{"text": "Ac', None, None, id="truncated in an entity"),
        pytest.param(f"[{ONE},]", None, None, id="trailing comma"),
        pytest.param("[{'text': 'Ana', 'type': 'person'}]", None, None, id="single quotes"),
        pytest.param("There are no entities.", None, None, id="prose"),
        pytest.param("", None, None, id="empty"),
        pytest.param("][", None, None, id="brackets reversed"),
        pytest.param("null", None, None, id="null"),
        pytest.param("[" + "1" * 10_000 + "]", None, None, id="number too long"),
    ],
)
def test_an_answer_reads_as(answer: str, strict: Any, lenient: Any) -> None:
    assert (spans.parse(answer, TYPES), spans.parse_lenient(answer, TYPES)) == (strict, lenient)


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000,
        '[{"text":' * 100_000,
        "[x" * 100_000 + "]",
        "[" * 500_000,
        "]" * 1_000_000,
        "[" + "9" * 1_000_000 + "]",
    ],
    ids=["open", "closed", "objects", "both", "broken", "half a megabyte", "closing only", "digits"],
)
def test_hostile_nesting_reads_as_none_and_fast(answer: str) -> None:
    with within(2):
        assert (spans.parse(answer, TYPES), spans.parse_lenient(answer, TYPES)) == (None, None)


@given(ENTITIES)
def test_the_target_reads_back_as_the_entities(pairs: list[tuple[str, str]]) -> None:
    target = spans.target(doc(pairs))
    assert spans.parse(target, TYPES) == pairs
    assert "\n" not in target  # the answer ends at a line end


def test_the_target_leaves_out_what_is_not_asked_for() -> None:
    entity = {"text": "Änn", "type": "person", "start": 3}
    assert json.loads(spans.target({"entities": [entity]})) == [{"text": "Änn", "type": "person"}]
    assert "Änn" in spans.target({"entities": [entity]})


@given(TEXTS | st.lists(st.sampled_from([ONE, OTHER, "[", "]", ",", "{", "}", '"', " ", "```"])).map("".join))
def test_any_text_reads_as_pairs_of_known_types_or_as_none(answer: str) -> None:
    strict, lenient = spans.parse(answer, TYPES), spans.parse_lenient(answer, TYPES)
    assert all(kind in TYPES for _, kind in [*(strict or []), *(lenient or [])])
    if strict is not None:
        assert lenient == [(text.strip(), kind) for text, kind in strict]


def by_hand(documents: list[tuple[list[tuple[str, str]], list[tuple[str, str]] | None]]) -> float:
    """Micro F1 by crossing out each predicted entity in what is left of the gold ones."""
    hits = named = wanted = 0
    for gold, predicted in documents:
        left = list(gold)
        for pair in predicted or []:
            if pair in left:
                left.remove(pair)
                hits += 1
        named, wanted = named + len(predicted or []), wanted + len(gold)
    precision, recall = hits / max(named, 1), hits / max(wanted, 1)
    return 2 * precision * recall / (precision + recall) if hits else 0.0


@given(st.lists(st.tuples(FEW, st.none() | FEW), min_size=1))
def test_span_f1_equals_a_count_by_hand(documents: list[tuple[Any, Any]]) -> None:
    answers = ["nothing" if predicted is None else spans.target(doc(predicted)) for _, predicted in documents]
    results = [spans.score(doc(gold), [answer]) for (gold, _), answer in zip(documents, answers, strict=True)]
    expected = by_hand(documents)
    assert spans.span_f1([result["span_f1"] for result in results]) == pytest.approx(expected)
    assert spans.span_f1([result["span_f1_lenient"] for result in results]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "counts", "exact", "lenient_counts", "lenient_exact"),
    [
        pytest.param(f"[{ONE}, {OTHER}]", (2, 0, 0), 1.0, (2, 0, 0), 1.0, id="all"),
        pytest.param(f"[{OTHER}, {ONE}]", (2, 0, 0), 1.0, (2, 0, 0), 1.0, id="another order"),
        pytest.param(f"[{ONE}, {ONE}, {OTHER}]", (2, 1, 0), 0.0, (2, 1, 0), 0.0, id="one named twice"),
        pytest.param(f"[{ONE}]", (1, 0, 1), 0.0, (1, 0, 1), 0.0, id="one missed"),
        pytest.param('[{"text": "Ana", "type": "location"}]', (0, 1, 2), 0.0, (0, 1, 2), 0.0, id="wrong type"),
        pytest.param('[{"text": "ana", "type": "person"}]', (0, 1, 2), 0.0, (0, 1, 2), 0.0, id="text in other case"),
        pytest.param(f"Here: [{ONE}, {OTHER}]", (0, 0, 2), 0.0, (2, 0, 0), 1.0, id="words around"),
        pytest.param("none", (0, 0, 2), 0.0, (0, 0, 2), 0.0, id="unparsed"),
    ],
)
def test_an_answer_scores(answer: str, counts: Any, exact: float, lenient_counts: Any, lenient_exact: float) -> None:
    result = spans.score(doc([ANA, ACME]), [answer])
    assert (result["span_f1"], result["exact_match"]) == (counts, exact)
    assert (result["span_f1_lenient"], result["exact_match_lenient"]) == (lenient_counts, lenient_exact)
    assert result["parse_rate"] == float(spans.parse(answer, TYPES) is not None)


def test_an_empty_list_is_right_where_there_is_nothing_and_prose_is_not() -> None:
    assert spans.score(doc([]), ["[]"])["exact_match"] == 1.0
    assert spans.score(doc([]), ["There are none."])["exact_match_lenient"] == 0.0
