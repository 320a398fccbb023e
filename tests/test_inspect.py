"""inspect-ai runs our tasks: prompts, answers and strict scores are those of our own engine. Skipped without it."""

from __future__ import annotations

import json
import math
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

inspect_ai = pytest.importorskip("inspect_ai", reason="pip install finbench[inspect]")

from inspect_ai.model import ModelAPI, ModelOutput, get_model, modelapi  # noqa: E402

from finbench.cards import cardfiles  # noqa: E402
from finbench.core import catalog  # noqa: E402
from finbench.data.sources import import_data  # noqa: E402
from finbench.evaluation import evaluator, import_card, inspecttasks  # noqa: E402
from finbench.scoring import prompts  # noqa: E402
from make_data import write_sources  # noqa: E402
from make_xbrl import xbrl_filing_sets  # noqa: E402

MINI = ["mini_sentiment", "mini_ner", "mini_headline", "mini_xbrl_value"]
ROWS = 6


@modelapi(name="said")
class Said(ModelAPI):  # type: ignore[misc]
    """Gives the answers that it was given, in their order, then nothing; counts no tokens (the mock's needs a net)."""

    def __init__(self, model_name: str, answers: tuple[str, ...] = (), **_: Any) -> None:
        super().__init__(model_name=model_name)
        self.left = list(answers)

    async def generate(self, *_: Any, **__: Any) -> Any:
        return ModelOutput.from_content("said", self.left.pop(0) if self.left else "")

    async def count_text_tokens(self, text: str) -> int:
        return len(text)

    async def count_tokens(self, *_: Any, **__: Any) -> int:
        return 1


def said(*answers: str) -> Any:
    return get_model("said/model", memoize=False, answers=answers)


def every_set(folder: Path) -> None:
    for name, files in write_sources(folder / "sources", 24).items():
        import_data(name, files, folder)
    xbrl_filing_sets(folder)


@pytest.fixture(autouse=True)
def _rows(once: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small rows of every set; and nothing of another test is kept."""
    monkeypatch.setenv("FINBENCH_DATA", str(once("inspect/data", every_set)))
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    inspecttasks.load.cache_clear()


def run(names: list[str], logs: Path, model: Any, **options: Any) -> list[Any]:
    found = inspect_ai.eval(
        [f"finbench/{name}" for name in names], model=model, log_dir=str(logs), limit=ROWS, display="none", **options
    )
    assert [log.status for log in found] == ["success"] * len(names), [log.error for log in found]
    return list(found)


def same_samples(one: Path, other: Path) -> bool:
    [first], [second] = cardfiles.expand([one]), cardfiles.expand([other])
    return cardfiles.read_samples(first) == cardfiles.read_samples(second)


@pytest.mark.parametrize(("names", "chat"), [(MINI, False), (MINI[:1], True)])
def test_it_gives_our_scores_sample_for_sample(llama: Path, names: list[str], chat: bool, tmp_path: Path) -> None:
    hf = {"model": "hf/tiny", "model_args": {"model_path": str(llama), "dtype": "float32"}}
    logs = run(names, tmp_path / "logs", **hf, task_args={"chat": True} if chat else {})
    import_card(tmp_path / "logs", out=tmp_path / "theirs")
    [ours] = evaluator.evaluate(
        model=str(llama), tasks=names, limit=ROWS, out=tmp_path / "ours", chat=chat, arguments={"dtype": "float32"}
    )
    assert same_samples(tmp_path / "theirs", tmp_path / "ours")
    shown = {log.eval.metadata["task"]: log.results.scores[0].metrics for log in logs}
    for score in ours.scores:
        for name, measure in score.metrics.items():
            assert shown[score.task][name].value == pytest.approx(measure.value, abs=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_so_does_the_embedded_base(tmp_path: Path) -> None:
    from finbench.models import bases

    names = ["mini_sentiment", "mini_xbrl_value"]
    folder = bases.resolve("smollm2-135m", "wheel").folder
    run(names, tmp_path / "logs", "hf/base", model_args={"model_path": str(folder), "dtype": "float32"})
    import_card(tmp_path / "logs", out=tmp_path / "theirs")
    evaluator.evaluate(
        model="smollm2-135m", tasks=names, limit=ROWS, out=tmp_path / "ours", arguments={"dtype": "float32"}
    )
    assert same_samples(tmp_path / "theirs", tmp_path / "ours")


def test_every_ranked_task_loads_and_is_scored(tmp_path: Path) -> None:
    ranked = [task.name.removeprefix("finbench_") for task in catalog.expand(["finbench"])]
    for log in run(ranked, tmp_path, said()):
        task = catalog.tasks()[log.eval.metadata["task"]]
        assert log.eval.task_version == task.version
        measured = log.results.scores[0].metrics
        if task.form == "choice":
            assert set(measured) == {"acc_letters", "parse_rate"}
        else:
            assert task.main_metric in measured
            assert all(math.isfinite(value.value) for value in measured.values())


def test_letters_are_read_and_scored(tmp_path: Path) -> None:
    for name in ("piqa", "winogrande", "mmlu"):
        task = catalog.tasks()[f"finbench_{name}"]
        lm_task = prompts.load([task], None)[task.name]
        golds = ["ABCD"[prompts.gold_choice(lm_task, doc)] for doc in prompts.rows(lm_task, "test")[:ROWS]]
        [log] = run([name], tmp_path, said(*golds[:-1], "Who knows"), max_samples=1)
        found = {key: value.value for key, value in log.results.scores[0].metrics.items()}
        assert found == {"acc_letters": (ROWS - 1) / ROWS, "parse_rate": (ROWS - 1) / ROWS}
        asked = log.samples[0].input[0].content
        assert "A. " in asked
        assert "B. " in asked


def test_worked_examples_are_those_of_our_own_run(tmp_path: Path) -> None:
    [log] = run(["mini_sentiment"], tmp_path, said(), task_args={"shots": 2, "seed": 5})
    task = catalog.tasks()["finbench_mini_sentiment"]
    ours = prompts.requests(prompts.load([task], None, 2, 5)[task.name], 1, lambda turns, **_: json.dumps(turns))
    turns = [{"role": turn.role, "content": turn.content} for turn in log.samples[0].input]
    assert turns == json.loads(ours[0].args[0])
    assert len(turns) == 5


def test_what_cannot_be_asked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect_ai._util.error import PrerequisiteError

    with pytest.raises(PrerequisiteError, match="no prompts without turns"):
        run(["mini_sentiment"], tmp_path, said(), task_args={"chat": False})
    monkeypatch.setenv("FINBENCH_DATA", str(tmp_path / "none"))
    inspecttasks.load.cache_clear()
    with pytest.raises(PrerequisiteError, match="No data for fpb"):
        run(["fpb"], tmp_path, said())


def test_an_inspect_that_is_built_otherwise_is_named_with_its_version() -> None:
    class Hf:
        def __init__(self) -> None:
            self.do_sample, self.use_chat_template = True, None

    with pytest.raises(inspecttasks.PrerequisiteError, match=r"inspect-ai [0-9.]+ is another .* no chat_template"):
        inspecttasks._teach(Hf())


def test_it_needs_no_private_name_of_inspect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Path(inspecttasks.__file__).read_text(encoding="utf-8")
    private = re.findall(r"from (inspect_ai\.[\w.]*\b_\w[\w.]*) import", source)
    assert private == ["inspect_ai._util.error"]
    monkeypatch.setitem(sys.modules, private[0], None)  # as if it were not there
    place = tmp_path / "alone.py"
    place.write_text(source.partition("TASKS = [")[0])  # a task is registered once a process
    alone = runpy.run_path(str(place))
    assert alone["PrerequisiteError"] is RuntimeError
