"""Reports: bold only where significant, seeds as mean and deviation, safe text in three formats, plots."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from finbench.cards import cardfiles, plots, reporting
from finbench.cards.render import latex
from finbench.core.errors import FinbenchError
from finbench.core.records import Measure, Overlap, Scorecard
from finbench.core.seal import card_seal
from finbench.evaluation import evaluator

TASKS = ["mini_sentiment", "mini_headline"]


def scored(out: Path, name: str, adapter_seed: int | None = None, **options: Any) -> Path:
    """A card of the dummy under another name, as if it were an adapter."""
    evaluator.evaluate(engine="dummy", out=out / name, **{"tasks": TASKS, **options})
    path = out / name / "dummy.json"
    found = json.loads(path.read_text())
    found["subject"] |= {"name": name}
    if adapter_seed is not None:
        found["subject"] |= {"kind": "peft", "adapter": name, "method": "lora", "rank": 8, "seed": adapter_seed}
    return sealed(path, found)


def sealed(path: Path, card: dict[str, Any]) -> Path:
    """A card's JSON written as an honest hand would."""
    path.write_text(json.dumps(card | {"seal": card_seal(card)}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that guesses, an adapter of three seeds that guesses, and one that knows the gold."""
    out = tmp_path_factory.mktemp("cards")
    scored(out, "base", seed=9)
    for seed in range(3):
        scored(out, f"guess-s{seed}", seed, seed=seed)
    scored(out, "gold-s0", 0, arguments={"answers": "gold"})
    return out


def files(folder: Path, *names: str) -> list[Path]:
    return [folder / name / "dummy.json" for name in names]


def line(text: str, name: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(f"| {name} "))


def test_only_who_is_significantly_better_than_every_other_is_bold(folder: Path) -> None:
    text = reporting.report(files(folder, "base", "guess-s0", "gold-s0"))
    assert line(text, "gold-s0").count("**") == 4
    assert "†" not in line(text, "gold-s0")
    assert "**" not in line(text, "guess-s0") + line(text, "base")
    alike = reporting.report(files(folder, "base", "guess-s0"), tasks=["mini_headline"])
    assert "**" not in alike
    assert line(alike, "base").count("†") == line(alike, "guess-s0").count("†") == 1


def test_families_have_means_and_baselines_their_rows(folder: Path) -> None:
    text = reporting.report(files(folder, "guess-s0", "gold-s0"))
    assert "| mean of mini |" in text.splitlines()[0]
    card = cardfiles.read(files(folder, "guess-s0")[0])
    mean = 50 * sum(score.main.value for score in card.scores)
    assert line(text, "guess-s0").endswith(f"| {mean:.1f} |")
    assert line(text, "gold-s0").endswith("| 100.0 |")
    assert "no model" in line(text, "majority label")


def test_seeds_become_mean_and_deviation(folder: Path) -> None:
    names = ("base", "guess-s0", "guess-s1", "guess-s2")
    text = reporting.report(files(folder, *names), spread="seeds", tasks=["mini_sentiment"])
    values = [100 * cardfiles.read(path).scores[-1].main.value for path in files(folder, *names[1:])]
    mean = sum(values) / 3
    deviation = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    assert f"{mean:.1f} ± {deviation:.1f}" in line(text, "guess")
    assert "±" not in line(text, "base")
    assert "Welch" in text


def test_a_copy_is_no_second_run_and_another_run_of_one_name_another_line(folder: Path, tmp_path: Path) -> None:
    [card] = files(folder, "gold-s0")
    shutil.copytree(card.parent, tmp_path / "copy")
    for spread in reporting.SPREADS:
        once = reporting.report([card], spread=spread)
        assert reporting.report([card, tmp_path / "copy" / card.name], spread=spread) == once
    again = scored(tmp_path, "again", 0, seed=3)
    found = json.loads(again.read_text())
    found["subject"]["name"] = "gold-s0"
    sealed(again, found)
    made = reporting.table([card, again])
    assert [line.name for line in made.lines if not line.baseline] == ["gold-s0", f"gold-s0 ({again.with_suffix('')})"]
    assert all(len(cell.runs) == 1 for line in made.lines if not line.baseline for cell in line.cells if cell)


def test_nothing_is_marked_where_nothing_can_be_tested(folder: Path, tmp_path: Path) -> None:
    bare = []
    for path in files(folder, "guess-s0", "gold-s0"):
        card = json.loads(path.read_text()) | {"samples": None}
        bare.append(tmp_path / f"{card['subject']['name']}.json")
        sealed(bare[-1], card)
    text = reporting.report(bare)
    assert "**" not in text
    assert "No significance test was possible" in text
    assert "†" not in text


def test_other_conditions_are_other_columns(folder: Path, tmp_path: Path) -> None:
    limited = scored(tmp_path, "limited", limit=20)
    text = reporting.report([*files(folder, "base"), limited])
    assert "mini_sentiment, a sample of 20 rows, macro-F1" in text.splitlines()[0]


def test_columns_of_one_task_say_what_sets_them_apart(folder: Path, tmp_path: Path) -> None:
    older = json.loads(files(folder, "base")[0].read_text())
    for score in older["scores"]:
        score |= {"version": 1, "task_digest": "0" * 64}
    older["subject"]["name"] = "older"
    sealed(tmp_path / "older.json", older | {"samples": None})
    head = reporting.report([tmp_path / "older.json", *files(folder, "base")], tasks=["mini_sentiment"]).splitlines()[0]
    assert "mini_sentiment, v1, data " in head
    assert head.count("mini_sentiment") == 2


def test_latex_is_a_booktabs_table_with_everything_escaped(folder: Path, tmp_path: Path) -> None:
    hostile = json.loads(files(folder, "base")[0].read_text())
    hostile["subject"]["name"] = r"a_b & 50% #1 $x$ {y} \input{z} ~^"
    sealed(tmp_path / "card.json", hostile | {"samples": None})
    text = reporting.report([tmp_path / "card.json"], format="latex")
    assert r"a\_b \& 50\% \#1 \$x\$ \{y\} \textbackslash{}input\{z\} \textasciitilde{}\textasciicircum{}" in text
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{llrrr}", r"\caption{"):
        assert part in text
    rows = [row for row in text.splitlines() if row.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {4}
    assert latex("±") == r"$\pm$"


def test_html_is_one_page_without_script_or_request(folder: Path, tmp_path: Path) -> None:
    hostile = json.loads(files(folder, "base")[0].read_text())
    hostile["subject"]["name"] = "<script>alert(1)</script>"
    sealed(tmp_path / "card.json", hostile | {"samples": None})
    page = reporting.report([tmp_path / "card.json", *files(folder, "gold-s0")], format="html")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page) == []
    assert page.count("<svg") == 2


def test_plots_are_well_formed_and_show_every_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    reporting.report([folder / name for name in ("base", "guess-s0", "gold-s0")], out=out)
    assert out.read_text().startswith("| subject |")
    drawn = sorted(tmp_path.glob("*.svg"))
    assert [path.name for path in drawn] == ["table-mini-headline.svg", "table-mini-sentiment.svg"]
    for path in drawn:
        texts = [node.text for node in ET.fromstring(path.read_text()).iter() if node.text]
        assert {"base", "guess-s0", "gold-s0", "majority", "random"} <= set(texts)


def test_a_plot_has_error_bars_of_one_kind_and_says_which(folder: Path, tmp_path: Path) -> None:
    cards = cardfiles.expand(sorted(path for path in folder.iterdir() if path.is_dir()))
    for spread, subjects, bars in (
        ("seeds", 3, "95 % intervals of the mean over 3 training seeds; pale dots: runs"),
        ("interval", 5, "95 % intervals over {n} documents"),
    ):
        shown = reporting.table(cards, spread)
        for number, plot in enumerate(shown.plots):
            cells = [line.cells[number] for line in shown.lines if not line.baseline]
            assert len(cells) == subjects
            drawn = len(re.findall(r'<path class="b?w" ', plot.svg))
            several = [cell for cell in cells if cell and (len(cell.runs) > 1 or spread == "interval")]
            assert drawn == sum(cell.measure.interval is not None for cell in several) > 0
            n = shown.columns[number].score.n
            assert bars.format(n=f"{n:,}") in plot.caption
            assert f"n = {n:,} documents." in plot.caption
            texts = [node.text for node in ET.fromstring(plot.svg).iter() if node.text]
            assert any(bars.format(n=f"{n:,}") in text for text in texts)


def test_no_two_texts_of_a_plot_overlap(tmp_path: Path) -> None:
    for limit, title in ((None, "mini_sentiment"), (12, "mini_sentiment, a sample of 12 rows")):
        card = scored(tmp_path, f"rows-{limit}", tasks=["mini_sentiment"], limit=limit)
        drawn = ET.fromstring(plots.forest(reporting.table([card]), 0))
        texts = {node.text: node for node in drawn.iter() if node.text}
        place = texts[title], next(node for text, node in texts.items() if ", n = " in text)
        assert place[1].get("x") if len(title) < 20 else place[1].get("dx")  # behind a title that reaches over the axis
        left, right = sorted((texts["majority"], texts["random"]), key=lambda node: float(node.get("x", "")))
        assert (left.get("text-anchor"), right.get("text-anchor")) == ("end", "start")
        assert float(left.get("x", "")) + 5 < float(right.get("x", ""))
    assert "Documents of mini_sentiment, a sample of 12 rows: 12." in reporting.report([card])


def test_axes_have_round_steps_around_their_values() -> None:
    for low, high in ((0, 100), (81.2, 88.1), (0.2, 0.9), (99.9, 100), (-3, 12), (5, 5)):
        start, end, step = plots._axis(low, high, (-1000, 1000))
        assert start <= low <= high <= end + 1e-9
        assert 1 <= (end - start) / step <= 8.01


def test_a_metric_of_which_less_is_better_is_ranked_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main metric turned into an error: the one with the smaller value is best."""
    made = []
    for path in files(folder, "guess-s0", "gold-s0"):
        card = cardfiles.read(path)
        scores = [
            score.model_copy(update={"lower_is_better": ["macro_f1"]})
            for score in card.scores
            if score.main_metric == "macro_f1"
        ]
        target = tmp_path / f"{card.subject.name}.json"
        cardfiles.write(
            target,
            card.model_copy(update={"scores": scores}),
            [row for row in cardfiles.read_samples(path) if row["task"] == scores[0].task],
        )
        made.append(target)
    text = reporting.report(made)
    assert "**" in line(text, "guess-s0")
    assert "**" not in line(text, "gold-s0")


def test_faults_name_what_to_type(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="Unknown format 'pdf'"):
        reporting.report(files(folder, "base"), format="pdf")
    with pytest.raises(FinbenchError, match="Did you mean seeds"):
        reporting.report(files(folder, "base"), spread="seed")
    with pytest.raises(FinbenchError, match="No scorecard is there"):
        reporting.report([tmp_path])
    with pytest.raises(FinbenchError, match="No such scorecard"):
        reporting.report([tmp_path / "none.json"])
    with pytest.raises(FinbenchError, match="score of the tasks named"):
        reporting.report(files(folder, "base"), tasks=["fpb"])


def test_an_interval_that_was_edited_is_not_shown(folder: Path, tmp_path: Path) -> None:
    card = tmp_path / "cards" / "dummy.json"
    shutil.copytree(folder / "base", card.parent)
    found = json.loads(card.read_text())
    found["scores"][0]["metrics"][found["scores"][0]["main_metric"]]["low"] -= 0.01
    card.write_text(json.dumps(found))
    with pytest.raises(FinbenchError, match=r"edited after it was written: scores\[0\]\.metrics") as caught:
        reporting.report([*files(folder, "gold-s0"), card])
    assert caught.value.hint == f"finbench verify {card}"


def test_columns_in_which_no_row_has_anything_are_left_out(folder: Path) -> None:
    card = cardfiles.read(files(folder, "guess-s0")[0])
    [first, *_] = card.scores
    bare = first.model_copy(
        update={
            "lenient": {},
            "metrics": {first.main_metric: first.main},
            "baselines": {},
            "main_metric": first.main_metric,
        }
    )
    from finbench.cards import render

    whole, lacking = (card.model_copy(update={"scores": [score]}) for score in (first, bare))
    for name in ("accuracy", "lenient"):
        assert f" {name} |" in render.markdown([whole])
        assert f" {name} |" not in render.markdown([lacking])
        assert f">{name}</th>" in render.html([whole])
        assert f">{name}</th>" not in render.html([lacking])
    assert {column.header for column in render.terminal_tables([lacking])[0].columns} & {"acc.", "lenient"} == set()
    for line in render.markdown([lacking]).splitlines():
        assert not line.startswith("|") or line.count("|") in (5, 8)


def test_metrics_that_are_no_shares_are_shown_as_they_are(folder: Path) -> None:
    card = cardfiles.read(files(folder, "guess-s0")[0])
    measure = Measure(value=0.1234, low=-0.2, high=0.3, method="")
    score = card.scores[0].model_copy(
        update={"main_metric": "r2", "metrics": {"r2": measure}, "baselines": {}, "lenient": {"r2": measure}}
    )
    shown: Scorecard = card.model_copy(update={"scores": [score]})
    from finbench.cards import render

    assert "0.123 [-0.200, 0.300]" in render.markdown([shown])
    assert "R², n&nbsp;=" in render.html([shown])
    assert "%" not in str(render.terminal_tables([shown])[0].title)


def test_who_was_trained_on_a_part_of_a_test_is_named_wherever_the_score_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from finbench.cards import render
    from finbench.cli.show import scorecards

    card = cardfiles.read(files(folder, "guess-s0")[0])
    clean = card.scores[0].model_copy(update={"overlap": Overlap(texts=0, of=340)})
    seen = card.scores[0].model_copy(update={"overlap": Overlap(texts=12, of=340)})
    for score, said in ((clean, 0), (seen, 1)):
        shown: Scorecard = card.model_copy(update={"scores": [score]})
        scorecards.scored([shown], Path("out"))
        sentence = "was trained on 12 of the 340 texts (3.5 %) of this test"
        for text in (render.html([shown]), render.markdown([shown]), " ".join(capsys.readouterr().out.split())):
            assert text.count(sentence) == said


def test_names_at_the_ends_of_curves_neither_overlap_nor_stand_among_the_axis_numbers() -> None:
    ends = [1.01, 1.0, 1.0, 1.0, 1.02]
    drawn = ET.fromstring(plots.curves("t", "a", {f"model {n}": [(0, 2.0), (9, y)] for n, y in enumerate(ends)}))
    places = {text.text or "": float(text.get("y", 0)) for text in drawn.iter() if text.tag.endswith("text")}
    named = sorted(y for name, y in places.items() if name.startswith("model"))
    assert len(named) == len(ends)
    assert all(after - before >= 13.9 for before, after in itertools.pairwise(named))
    assert named[-1] <= places["0"] - 14


def test_a_pair_has_both_dots_within_the_scale_and_names_are_text() -> None:
    own, base = Measure(value=1.0, low=0.9, high=1.0, method="m"), Measure(value=-0.2, low=None, high=None, method="m")
    drawn = ET.fromstring(plots.pairs("a <b>", [("<script>", "acc & n", own, base), ("alone", "acc", own, None)]))
    texts = [text.text for text in drawn.iter() if text.tag.endswith("text")]
    assert {"a <b>", "<script>", "acc & n", "100.0", "-20.0"} <= set(texts)
    dots = [
        (circle.get("class"), float(circle.get("cx", 0))) for circle in drawn.iter() if circle.tag.endswith("circle")
    ]
    scale = {text.text: float(text.get("x", 0)) for text in drawn.iter() if text.get("text-anchor") == "middle"}
    assert dots == [("b", scale["0"]), ("d", scale["100"]), ("d", scale["100"])]
