"""tasks/lib/spans.py: which entities an answer lists, and the F1 over them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

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
        pytest.param(f"```json\n[{ONE}]\n```", [ANA], [ANA], id="code fence"),
        pytest.param(f"Entities: [{ONE}]. Done.", [ANA], [ANA], id="a lead and a reason"),
        pytest.param(f"Ana [sic] is named: [{ONE}]", None, [ANA], id="brackets before"),
        pytest.param(f"[{ONE}] as in note [1]", None, [ANA], id="brackets after"),
        pytest.param(f"[{ONE}]\n[{OTHER}]", None, [ANA], id="a second list"),
        pytest.param(f'{{"entities": [{ONE}]}}', [ANA], [ANA], id="wrapped in an object"),
        pytest.param('[{"text": "Ana", "type": "person", "start": 0}]', None, [ANA], id="extra key"),
        pytest.param('[{"entity": "Ana", "type": "person"}]', None, [ANA], id="entity for text"),
        pytest.param('[{"entity": "X", "text": "Ana", "type": "person"}]', None, [ANA], id="text before entity"),
        pytest.param(f"<think>[{OTHER}]</think>[{ONE}]", [ANA], [ANA], id="thinking"),
        pytest.param(f"<think>[{ONE}]", None, None, id="thinking that does not end"),
        pytest.param('[{"text": "Ana", "type": "Person "}]', None, [ANA], id="type in other case"),
        pytest.param(f'[{{"text": "X", "type": "animal"}}, {ONE}]', None, [ANA], id="unknown type"),
        pytest.param(f'[{{"text": "X"}}, {ONE}]', None, [ANA], id="type missing"),
        pytest.param(f'[{{"type": "person"}}, {ONE}]', None, [ANA], id="text missing"),
        pytest.param(f'[{{"text": 7, "type": "person"}}, {ONE}]', None, [ANA], id="text no string"),
        pytest.param(f'[{{"text": "X", "type": ["person"]}}, {ONE}]', None, [ANA], id="type no string"),
        pytest.param(f'[{{"text": "X", "type": null}}, {ONE}]', None, [ANA], id="type null"),
        pytest.param(f"[1, null, NaN, [], {ONE}]", None, [ANA], id="other things in the list"),
        pytest.param('[{"text":"Ana","text":"Bo","type":"person"}]', None, None, id="duplicate key"),
        pytest.param(f"[[{ONE}]]", None, None, id="list in a list"),
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


def per_type(result: dict[str, Any]) -> list[tuple[list[int], int]]:
    """The counts of the types beside the document's own, for each of hits, false alarms and misses."""
    columns = map(list, zip(*result["span_macro_f1"], strict=True))
    return list(zip(columns, result["span_f1"], strict=True))


@given(st.lists(st.tuples(FEW, st.none() | FEW), min_size=1))
def test_span_f1_equals_a_count_by_hand(documents: list[tuple[Any, Any]]) -> None:
    answers = ["nothing" if predicted is None else spans.target(doc(predicted)) for _, predicted in documents]
    results = [spans.score(doc(gold), [answer]) for (gold, _), answer in zip(documents, answers, strict=True)]
    expected = by_hand(documents)
    assert all(sum(counts) == total for result in results for counts, total in per_type(result))
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


Tags = list[str]
SENTENCE = st.integers(1, 12).flatmap(
    lambda size: st.tuples(*[st.lists(st.sampled_from(["O", *TYPES]), min_size=size, max_size=size)] * 2)
)
REPEATED = st.lists(st.sampled_from(["Ulm", "Bo", "Ana"]), min_size=12, max_size=12)


def iob2(drawn: list[str]) -> Tags:
    """Tags in which neighbours of one type are one entity."""
    return [
        kind if kind == "O" else f"{'I' if place and drawn[place - 1] == kind else 'B'}-{kind}"
        for place, kind in enumerate(drawn)
    ]


def entities(tokens: list[str], tags: Tags) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for place, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append({"text": tokens[place], "type": tag[2:], "start": place})
        elif tag.startswith("I-"):
            found[-1]["text"] += " " + tokens[place]
    return found


def scored(tokens: list[str], gold: Tags, predicted: Tags, offsets: bool = True) -> dict[str, Any]:
    known = entities(tokens, gold)
    if not offsets:
        known = [{"text": entity["text"], "type": entity["type"]} for entity in known]
    answer = spans.target({"entities": entities(tokens, predicted)})
    result: dict[str, Any] = spans.score({"entities": known, "choices": list(TYPES)}, [answer])
    return result


@pytest.mark.parametrize("offsets", [True, False], ids=["offsets", "no offsets"])
@given(st.lists(SENTENCE, min_size=1, max_size=4))
def test_micro_and_macro_f1_equal_seqevals_on_the_same_spans(offsets: bool, drawn: list[Any]) -> None:
    """Strict IOB2. A sentence of every type, all found, keeps each in seqeval's mean, which leaves absent ones out."""
    drawn = [*drawn, (list(TYPES), list(TYPES))]
    gold, predicted = ([iob2(pair[side]) for pair in drawn] for side in (0, 1))
    results = [
        scored([f"w{place}" for place in range(len(tags))], tags, other, offsets)
        for tags, other in zip(gold, predicted, strict=True)
    ]
    for average, ours in (("micro", spans.span_f1), ("macro", spans.span_macro_f1)):
        expected = f1_score(gold, predicted, average=average, mode="strict", scheme=IOB2, zero_division=0)
        name = "span_f1" if average == "micro" else "span_macro_f1"
        assert ours([result[name] for result in results]) == pytest.approx(expected, abs=1e-12)
        assert ours([result[f"{name}_lenient"] for result in results]) == pytest.approx(expected, abs=1e-12)


@given(SENTENCE, REPEATED)
def test_where_texts_repeat_f1_is_never_below_seqevals(drawn: tuple[list[str], list[str]], tokens: list[str]) -> None:
    """An answer does not say which "Ulm" it means, so that the benefit of the doubt is the answer's, in order."""
    gold, predicted = iob2(drawn[0]), iob2(drawn[1])
    found = scored(tokens, gold, predicted)["span_f1"]
    expected = f1_score([gold], [predicted], average="micro", mode="strict", scheme=IOB2, zero_division=0)
    assert spans.span_f1([found]) >= expected - 1e-12
    loose = scored(tokens, gold, predicted, offsets=False)["span_f1"]
    assert found[0] <= loose[0]
    assert (found[0] + found[1], found[0] + found[2]) == (loose[0] + loose[1], loose[0] + loose[2])


@pytest.mark.parametrize(
    ("gold", "predicted", "counts"),
    [
        ("pl", "pl", (2, 0, 0)),
        ("pl", "lp", (1, 1, 1)),
        ("pl", "l", (1, 0, 1)),
        ("plp", "pp", (2, 0, 1)),
        ("plpl", "lplp", (3, 1, 1)),
        ("p", "ppp", (1, 2, 0)),
        ("pl", "", (0, 0, 2)),
    ],
)
def test_mentions_of_one_text_match_in_order(gold: str, predicted: str, counts: Any) -> None:
    kinds = {"p": "person", "l": "location"}
    known = [{"text": "Ulm", "type": kinds[kind], "start": place} for place, kind in enumerate(gold)]
    answer = spans.target({"entities": [{"text": "Ulm", "type": kinds[kind]} for kind in predicted]})
    for order in (known, known[::-1]):  # the offsets say the order, not the row
        result = spans.score({"entities": order, "choices": list(TYPES)}, [answer])
        assert result["span_f1"] == counts


def test_a_type_that_never_occurs_counts_nothing_in_the_mean() -> None:
    result = spans.score(doc([ANA]), [f"[{ONE}]"])
    assert spans.span_macro_f1([result["span_macro_f1"]]) == pytest.approx(1 / 3)


def test_a_gold_type_that_the_task_does_not_know_stops_the_run() -> None:
    with pytest.raises(ValueError, match="animal"):
        spans.score(doc([("Rex", "animal")]), ["[]"])


@pytest.mark.parametrize("answer", ['["Acme"]', "[1]", "[null]", "[[]]", '[{"x": 1}]', '[{"text": "A", "type": "x"}]'])
def test_what_cannot_be_read_does_not_say_that_there_are_none(answer: str) -> None:
    assert spans.score(doc([]), [answer])["exact_match_lenient"] == 0.0
    assert spans.score(doc([]), ["I found none: []"])["exact_match_lenient"] == 1.0
