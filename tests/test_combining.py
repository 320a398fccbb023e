"""Several LoRAs become one: held against the sum of their updates and against peft's own ways of adding them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from conftest import make_lora
from finbench.cli.app import app
from finbench.cli.show import trainings
from finbench.core.combined import Combined
from finbench.core.errors import FinbenchError
from finbench.core.records import BaseModelId, Contamination, Merge, MergedModel
from finbench.data import contamination
from finbench.evaluation import evaluator
from finbench.models import adapters, attaching, bases
from finbench.training import combine, combining, exporting, merging

IDS = torch.tensor([[5, 9, 33, 71, 12, 4]])


@pytest.fixture(scope="module")
def parts(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs of other ranks, scales and modules."""
    home = tmp_path_factory.mktemp("parts")
    a = make_lora(home / "a", llama, "org/tiny", seed=1, lora_alpha=12, alpha_pattern={"layers.0.self_attn.q_proj": 5})
    b = make_lora(
        home / "b", llama, "org/tiny", seed=2, r=6, lora_alpha=9, use_rslora=True, target_modules=["q_proj", "up_proj"]
    )
    return [a, b]


@pytest.fixture(scope="module")
def alike(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three LoRAs of one shape."""
    home = tmp_path_factory.mktemp("alike")
    return [make_lora(home / name, llama, "org/tiny", seed=seed) for seed, name in enumerate("abc", 3)]


def updates(base: Path, *folders: Path, **added: Any) -> dict[str, torch.Tensor]:
    """What adapters add to each weight of the base, by peft itself; with ``added`` as peft combines them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folders[0], "0")
    for number, folder in enumerate(folders[1:], 1):
        model.load_adapter(folder, str(number))
    if added:
        model.add_weighted_adapter([str(n) for n in range(len(folders))], adapter_name="new", **added)
        model.set_adapter("new")
    merged = model.merge_and_unload().state_dict()
    return {name: merged[name] - plain[name] for name in plain if not torch.equal(merged[name], plain[name])}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], error: float = 2e-6) -> None:
    assert set(one) == set(other)
    for name, update in one.items():
        assert float((update - other[name]).abs().max()) < error, name


def test_cat_is_the_weighted_sum_of_updates(llama: Path, parts: list[Path], tmp_path: Path) -> None:
    made = combine([str(part) for part in parts], tmp_path / "ab", weights=[0.5, -2.0])
    assert (made.rank, made.lost, [part.rank for part in made.parts]) == (10, 0.0, [4, 6])
    one, other = (updates(llama, part) for part in parts)
    expected = {name: 0.5 * one.get(name, 0) - 2.0 * other.get(name, 0) for name in {*one, *other}}
    same(updates(llama, tmp_path / "ab"), expected)


@pytest.mark.parametrize("excluded", [["layers.0.self_attn.q_proj"], r".*layers\.0.*q_proj"])
def test_modules_that_the_parts_exclude_stay_excluded(llama: Path, tmp_path: Path, excluded: Any) -> None:
    """The endings of their target modules would name them."""
    parts = [make_lora(tmp_path / n, llama, "org/tiny", seed=s, exclude_modules=excluded) for s, n in enumerate("ab")]
    combine([str(part) for part in parts], tmp_path / "ab")
    one, other = (updates(llama, part) for part in parts)
    assert len(one) == 3
    model, _ = bases.load(bases.resolve(str(llama)), 16, torch.float32)
    attaching.attach(model, tmp_path / "ab")
    same(updates(llama, tmp_path / "ab"), {name: one[name] + other[name] for name in one})


def test_linear_is_the_weighted_mean_and_a_rank_cuts_the_sum(llama: Path, alike: list[Path], tmp_path: Path) -> None:
    names = [str(part) for part in alike]
    combine(names, tmp_path / "mean", how="linear", weights=[1, 2, 1])
    own = [updates(llama, part) for part in alike]
    same(updates(llama, tmp_path / "mean"), {n: (own[0][n] + 2 * own[1][n] + own[2][n]) / 4 for n in own[0]})
    made = combine(names, tmp_path / "cut", weights=[1, 0.5, 2], rank=5)
    theirs = updates(llama, *alike, weights=[1, 0.5, 2], combination_type="svd", svd_rank=5)
    same(updates(llama, tmp_path / "cut"), theirs)
    assert made.rank == 5
    assert 0.01 < made.lost < 1


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_ties_is_that_of_peft_on_whole_updates(llama: Path, alike: list[Path], density: float, tmp_path: Path) -> None:
    made = combine([str(part) for part in alike], tmp_path / "t", how="ties", density=density)
    told = {"combination_type": "ties_svd", "density": density, "svd_rank": 12}
    same(updates(llama, tmp_path / "t"), updates(llama, *alike, weights=[1, 1, 1], **told))
    assert made.density == density


def test_a_rank_above_the_sum_is_used_where_it_holds_more(
    llama: Path, alike: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What TIES and DARE make has no low rank; a sum has that of its parts."""
    from peft.utils.merge_utils import ties

    names = [str(part) for part in alike]
    made = {
        rank: combine(names, tmp_path / f"t{rank}", how="ties", density=0.3, rank=rank) for rank in (None, 20, 64, 99)
    }
    assert [one.rank for one in made.values()] == [12, 20, 64, 64]
    assert made[None].lost > made[20].lost > 0.1
    assert made[64].lost == made[99].lost < 1e-5
    own = [updates(llama, part) for part in alike]
    theirs = {name: ties([one[name] for one in own], torch.ones(3), density=0.3) for name in own[0]}
    same(updates(llama, tmp_path / "t64"), theirs)
    for how in ("dare", "dare_ties"):
        assert combine(names, tmp_path / how, how=how, rank=64).lost < 1e-5
    assert capsys.readouterr().err.count("Rank 64 holds all of it: the rest of 99 would be zeros.") == 1
    assert combine(names, tmp_path / "sum", rank=64).rank == 12
    assert "Rank 12 holds all of it: the rest of 64 would be zeros." in capsys.readouterr().err


def test_the_sign_is_that_of_the_weighted_sum() -> None:
    stacked = torch.tensor([[[1.0, -2.0, 0.0]], [[-3.0, -1.0, 2.0]], [[-0.5, 4.0, 0.0]]])
    assert combining._elected(stacked).tolist() == [[-1.75, 4.0, 2.0]]


def test_dare_keeps_the_expected_update_and_repeats(llama: Path, alike: list[Path], tmp_path: Path) -> None:
    names = [str(part) for part in alike]
    combine(names, tmp_path / "all", how="dare", density=1.0)
    combine(names, tmp_path / "sum", rank=12)
    same(updates(llama, tmp_path / "all"), updates(llama, tmp_path / "sum"))
    one, again, other = (
        combine(names, tmp_path / name, how="dare", density=0.5, rank=64, seed=seed)
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert one.identity == again.identity != other.identity
    factors = [combining._Module(torch.randn(3, 40), torch.randn(40, 3)) for _ in "ab"]
    draws = torch.Generator().manual_seed(0)
    drawn = [combining._update([(f, 1.0) for f in factors], "dare", 0.4, 40, draws)[0] for _ in range(400)]
    mean = sum(module.b @ module.a for module in drawn) / len(drawn)
    whole = sum(factor.b @ factor.a for factor in factors)
    assert float((mean - whole).norm() / whole.norm()) < 0.1


def test_a_large_weight_is_cut_by_random_projection() -> None:
    draw = torch.Generator().manual_seed(0)
    low = torch.randn(1100, 8, generator=draw) @ torch.randn(8, 1200, generator=draw)
    kept, error = combining._cut(low, 8)
    assert error < 1e-3
    assert float((low - kept.b @ kept.a).norm() / low.norm()) == pytest.approx(error, abs=1e-6)
    assert combining._cut(torch.zeros(4, 4), 2)[1] == 0.0


def test_it_is_scored_on_its_base_and_says_what_it_is(llama: Path, parts: list[Path], tmp_path: Path) -> None:
    combine([str(part) for part in parts], tmp_path / "ab", how="ties")
    base = tmp_path / "tiny"
    base.symlink_to(llama)
    stated: dict[str, Any] = {"tasks": ["mini_sentiment"], "limit": 4, "base": str(base)}
    *_, card = evaluator.evaluate(adapter=[str(tmp_path / "ab")], out=tmp_path / "cards", **stated)
    assert (card.subject.method, card.subject.name, card.subject.rank) == ("ties", "ab", 10)
    assert card.subject.adapter == adapters.find(str(tmp_path / "ab")).identity
    text = (tmp_path / "ab" / "README.md").read_text()
    assert text.startswith("---\n")
    assert "| a | 1 | lora | 4 |" in text


def test_merging_goes_by_what_its_record_says(
    llama: Path, parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = combine([str(part) for part in parts], tmp_path / "ab")
    unknown = adapters.read(tmp_path / "ab")
    assert merging.recorded_bits(unknown, 4) == 4  # no part has a record
    capsys.readouterr()
    base = BaseModelId(alias="tiny", source="folder", fingerprint="0" * 64)
    known = replace(unknown, combined=made.model_copy(update={"base": base, "bits": 4, "chat": False}))
    assert merging.recorded_bits(known, None) == 4
    assert capsys.readouterr().err == ""
    with pytest.raises(FinbenchError, match="ab was trained on 4 bits, not on 8"):
        merging.recorded_bits(known, 8)
    on = bases.resolve(str(llama))
    assert exporting._modelfile(known, on) != exporting._modelfile(unknown, on)  # which goes by the base's template


def test_what_was_merged_says_how_the_model_is_scored(
    llama: Path, parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the adapter, which may be gone by then."""
    made = combine([str(part) for part in parts], tmp_path / "ab")
    close: dict[str, Any] = dict.fromkeys(("probes", "positions", "largest_difference", "mean_divergence"), 1)
    report = Merge(adapter=made.identity, onto="bf16", dtype="bfloat16", agreement=1, answers=1, **close)
    on = bases.resolve(str(llama))
    tasks = ["finbench_mini_ner", "mine_that_is_elsewhere", "finbench_mini_headline"]
    for told, said in (
        ({}, "eval --model ./m --tasks mini_sentiment\n"),
        ({"tasks": tasks, "chat": True}, "eval --model ./m --tasks mini_ner,mini_headline --chat\n"),
    ):
        (tmp_path / "ab" / "combined.json").write_text(made.model_copy(update=told).to_json())
        model = merging._record(adapters.find(str(tmp_path / "ab")), on, 16, False, report, tmp_path)
        assert isinstance(model, MergedModel)
        trainings.merged(MergedModel.parse(json.loads(model.to_json()), "merge.json"), Path("m"))
        assert capsys.readouterr().out.endswith(said)


def test_what_it_learnt_by_heart_is_at_most_the_sum() -> None:
    one = Contamination(looked_for={"fpb": 10, "tfns": 5}, found={"fpb": 3}, editions={"fpb": "x", "tfns": "y"})
    other = Contamination(looked_for={"fpb": 10, "tfns": 5}, found={"fpb": 9}, editions={"fpb": "x", "tfns": "z"})
    made = contamination.together([one, other])
    assert made == Contamination(looked_for={"fpb": 10}, found={"fpb": 10}, editions={"fpb": "x"})
    assert contamination.together([one, None]) is None


def test_a_record_of_other_weights_is_refused(parts: list[Path], tmp_path: Path) -> None:
    combine([str(part) for part in parts], tmp_path / "ab")
    record = Combined.parse(json.loads((tmp_path / "ab" / "combined.json").read_text()), "combined.json")
    assert adapters.read(tmp_path / "ab").combined == record
    weights = load_file(tmp_path / "ab" / adapters.WEIGHTS)
    save_file({name: tensor * 2 for name, tensor in weights.items()}, tmp_path / "ab" / adapters.WEIGHTS)
    with pytest.raises(FinbenchError, match="combined.json is of another adapter"):
        adapters.read(tmp_path / "ab")
    (tmp_path / "ab" / "combined.json").write_text("{")
    with pytest.raises(FinbenchError, match="combined.json is torn") as caught:
        adapters.read(tmp_path / "ab")
    assert caught.value.hint == "Merge the adapters again, or fetch it again."


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "b is no plain LoRA: it has DoRA"),
        ({"init_lora_weights": "pissa"}, "starts by 'pissa' changes the base"),
        ({"modules_to_save": ["norm"]}, "b is no plain LoRA: it has whole modules"),
        ({"bias": "all"}, "b is no plain LoRA: it trains biases"),
    ],
)
def test_only_plain_loras_are_combined(
    parts: list[Path], llama: Path, config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    other = make_lora(tmp_path / "b", llama, "org/tiny")
    stated = json.loads((other / "adapter_config.json").read_text()) | config
    (other / "adapter_config.json").write_text(json.dumps(stated))
    with pytest.raises(FinbenchError, match=said):
        combine([str(parts[0]), str(other)], tmp_path / "ab")
    assert not (tmp_path / "ab").exists()


@pytest.mark.parametrize("given", [[], ["one"], "alone"])
def test_one_adapter_is_refused_before_any_work(given: Any, parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="name at least two") as caught:
        combine([str(parts[0])] if given == ["one"] else given, tmp_path / "ab")
    assert caught.value.hint == "To merge one into its base: finbench.merge(adapter, out)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--how", "svd"], "--how is cat, linear, ties, dare, dare_ties, not 'svd'."),
        (["--weights", "1"], "2 adapters have 2 weights"),
        (["--weights", "1,nan"], "numbers other than 0"),
        (["--weights", "1,x"], "numbers with commas between are expected"),
        (["--how", "linear", "--weights", "1,-1"], "whose sum is not 0"),
        (["--density", "0.5"], "takes no --density"),
        (["--how", "ties", "--density", "1.5"], "a share above 0, at most 1"),
        (["--rank", "0"], "--rank is at least 1"),
        (["--weights", "1e39,1"], "numbers other than 0"),
        (["--weights", "1e308,1e308", "--how", "linear"], "numbers other than 0"),
        (["--weights", "1,1e-60"], "numbers other than 0"),
        (["--weights", "1e38,1"], "too large for numbers of 32 bits"),
        (["--weights", "1e30,1", "--how", "ties"], "too large for numbers of 32 bits"),
        (["--weights", "1e-20,1e-20"], "change nothing"),
        (["--how", "dare", "--seed", "9" * 23], "--seed is a whole number from 0 to 4294967295, not 999"),
        (["--how", "dare", "--seed", "-1"], "--seed is a whole number from 0 to 4294967295, not -1"),
        (["--dtype", "float32"], "This makes a LoRA of several: it takes no --dtype."),
    ],
)
def test_what_does_not_fit_is_one_line(parts: list[Path], arguments: list[str], said: str, tmp_path: Path) -> None:
    out = tmp_path / "ab"
    done = CliRunner().invoke(app, ["merge", *map(str, parts), "--out", str(out), *arguments])
    assert done.exit_code == 1
    assert said in str(done.exception)
    assert not out.exists()


@pytest.mark.parametrize("how", ["cat", "ties"])
def test_updates_of_other_sizes_are_one_line(parts: list[Path], wide: Path, how: str, tmp_path: Path) -> None:
    """Two bases of one name, as a folder's is that was made anew."""
    other = make_lora(tmp_path / "other", wide, "org/tiny")
    with pytest.raises(FinbenchError, match=r"a and other .* different bases: .*layers.0.self_attn.q_proj is 64 x 64 "):
        combine([str(parts[0]), str(other)], tmp_path / "ab", how=how)
    assert not (tmp_path / "ab").exists()


def test_other_bases_are_refused_and_one_adapter_takes_no_weights(
    llama: Path, parts: list[Path], tmp_path: Path
) -> None:
    other = make_lora(tmp_path / "other", llama, "org/another")
    with pytest.raises(FinbenchError, match="a and other were trained on different bases: org/tiny and org/another"):
        combine([str(parts[0]), str(other)], tmp_path / "ab")
    done = CliRunner().invoke(app, ["merge", str(parts[0]), "--out", str(tmp_path / "m"), "--how", "ties"])
    assert "it takes no --how" in str(done.exception)


def test_weights_are_numbers_of_32_bits_whatever_they_are_written_as(parts: list[Path], tmp_path: Path) -> None:
    for large in (10**40, 10**400):
        with pytest.raises(FinbenchError, match="weights, numbers other than 0"):
            combine([str(part) for part in parts[:2]], tmp_path / "ab", weights=[large, 1])
    one, other = (
        combine([str(part) for part in parts[:2]], tmp_path / name, how="linear", weights=[size, size])
        for name, size in (("small", 1e-7), ("large", 1))
    )
    assert one.rank == other.rank  # a mean of halves


@pytest.mark.parametrize("stated", [{}, {"rank": 3}, {"how": "ties"}])
def test_what_cancels_out_is_no_adapter(parts: list[Path], stated: dict[str, Any], tmp_path: Path) -> None:
    """Its factors are not zero, but their product is."""
    with pytest.raises(FinbenchError, match="change nothing: their updates cancel out"):
        combine([str(parts[0])] * 2, tmp_path / "ab", weights=[1, -1], **stated)
    assert not (tmp_path / "ab").exists()
    assert combine([str(parts[0])] * 2, tmp_path / "ab", weights=[1, -0.99], **stated).rank


def member(folder: Path, llama: Path, change: Any, **config: Any) -> Path:
    """A LoRA whose tensors, by name, ``change`` has made others, and whose configuration says more."""
    made = make_lora(folder, llama, "org/tiny", seed=7)
    stated = json.loads((made / "adapter_config.json").read_text()) | config
    (made / "adapter_config.json").write_text(json.dumps(stated))
    tensors = load_file(made / adapters.WEIGHTS)
    save_file(dict(change(name, tensor) for name, tensor in tensors.items()), made / adapters.WEIGHTS)
    return made


@pytest.mark.parametrize(
    ("change", "config", "said"),
    [
        (lambda n, t: (n, t), {"lora_alpha": None}, "lora_alpha is None; a scale is a number other than 0"),
        (lambda n, t: (n, t), {"alpha_pattern": {"q_proj": None}}, "alpha_pattern q_proj is None; a scale is a number"),
        (lambda n, t: (n, t.flatten() if "lora_A" in n else t), {}, "b: the factors of .* are 64 x 4 and 256; those"),
        (lambda n, t: (n, t[:, :, None, None].clone()), {}, "b: the factors of .* are 64 x 4 x 1 x 1 and 4 x 64 x 1 x"),
        (lambda n, t: (n.replace("rs.0", "rs.1") if "A" in n else n, t), {}, "B.weight has no other factor beside it"),
        (lambda n, t: (n.replace("base_model.model", "x"), t), {}, r"names that peft does not write \(8 tensors: x\."),
        (
            lambda n, t: (n.replace(".weight", ".default.weight"), t),
            {},
            r"does not write \(8 .*lora_A\.default\.weight",
        ),
    ],
)
def test_a_member_that_nothing_could_load_is_one_line(
    parts: list[Path], llama: Path, change: Any, config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    other = member(tmp_path / "b", llama, change, **config)
    for named in ([parts[0], other], [other, parts[0]]):
        with pytest.raises(FinbenchError, match=said):
            combine([str(one) for one in named], tmp_path / "ab")
    assert not (tmp_path / "ab").exists()


def test_factors_of_an_embedding_are_added_as_peft_names_them(llama: Path, tmp_path: Path) -> None:
    parts = [
        make_lora(tmp_path / n, llama, "org/tiny", seed=s, target_modules=["embed_tokens"]) for s, n in enumerate("ab")
    ]
    for part in parts:  # peft begins with zeros
        made = {name: torch.randn_like(tensor) for name, tensor in load_file(part / adapters.WEIGHTS).items()}
        assert {name.rpartition(".")[2] for name in made} == {"lora_embedding_A", "lora_embedding_B"}
        save_file(made, part / adapters.WEIGHTS)
    combine([str(part) for part in parts], tmp_path / "ab")
    one, other = (updates(llama, part) for part in parts)
    assert one
    same(updates(llama, tmp_path / "ab"), {name: one[name] + other[name] for name in one}, 1e-4)
