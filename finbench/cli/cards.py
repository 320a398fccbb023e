"""The commands about scorecards: compare, verify, report, card, leaderboard; and lm-eval's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench import evaluation, leaderboard
from finbench.cli import command, show
from finbench.cli.command import DataDir, Found, echo
from finbench.cli.evaluation import scored
from finbench.core.errors import FinbenchError, counted
from finbench.core.files import write_atomic

Cards = Annotated[list[Path], "Scorecards (.json), or folders of them."]
CardBase = Annotated[str | None, "The card's base, where bases.yaml does not know it."]
Rerun = Annotated[str, "Documents of each task to ask the model again; auto: as many as it takes."]
Tasks = Annotated[str | None, "Only these tasks, by comma."]
Rates = Annotated[str, "Error rates to find a guaranteed threshold for, by comma."]
Cutoff = Annotated[
    str | None, "Up to when the base has read: 2024 or 2024-08; default: as adapters_zoo/bases.yaml says."
]
Board = Annotated[Path, typer.Argument(help="Leaderboard folder, with scorecards/ in it.")]


def _named(tasks: str | None) -> list[str]:
    return [name.strip() for name in (tasks or "").split(",") if name.strip()]


def _rates(stated: str) -> list[float]:
    try:
        return [float(rate) for rate in _named(stated)]
    except ValueError as fault:
        raise FinbenchError(f"--error {stated}: not numbers.", "Say 0.05 for 5 %: --error 0.05,0.1") from fault


def compare(
    cards: Cards,
    tasks: Tasks = None,
    show: Annotated[int, "Differing documents to list for each task."] = 5,
    across_profiles: Annotated[bool, "--across-profiles", "Compare answers generated in different ways too."] = False,
    data_dir: DataDir = None,
) -> Found:
    """Is the first card's subject better than the others: by how much, how sure, and what would settle it."""

    from finbench.cli.show import scorecards

    found = finbench.compare(cards, tasks=_named(tasks), data_dir=data_dir, across_profiles=across_profiles)
    return Found([pair.as_dict() for pair in found], lambda: scorecards.compared(found, show))


def verify(
    card: Annotated[Path, "Scorecard (.json), its samples beside it."],
    rerun: Rerun = "0",
    adapter: Annotated[str | None, "The card's adapter: for --rerun, and for test texts that it learnt."] = None,
    base: CardBase = None,
    seed: Annotated[int | None, "Seed of an earlier rerun, to repeat it; else drawn when asked."] = None,
    data_dir: DataDir = None,
) -> Found:
    """Recompute everything in a scorecard that can be recomputed; exit 1 and name the field if anything is wrong."""

    found = finbench.verify(card, rerun=rerun, adapter=adapter, base=base, seed=seed, data_dir=data_dir)
    fault = typer.Exit(1) if found.faults else None
    return Found(found.as_dict(), lambda: show.scorecards.verified(found), fault)


def report(
    cards: Cards,
    format_: Annotated[str | None, "--format", "md, latex or html; default: as --out ends, else md."] = None,
    spread: Annotated[str, "interval: 95 % over documents; seeds: mean and deviation."] = "interval",
    tasks: Tasks = None,
    out: Annotated[Path | None, "File to write, with its plots beside it."] = None,
    figures: Annotated[
        str | None, "Formats of the plots, by comma: svg, pdf, png; default: what the report shows."
    ] = None,
) -> Found:
    """A table as in a paper: best in bold only where the difference is significant; with plots."""
    from finbench.cards import format_of

    kind = format_ or format_of(out)
    text = finbench.report(
        cards, format=kind, spread=spread, tasks=_named(tasks), out=out, figures=_named(figures) or None
    )
    value = {"format": kind, "text": text, "out": str(out) if out else None}
    return Found(value, lambda: echo(f"Report: {out}" if out else text.rstrip()))


def risk(
    subject: Annotated[Path, "Adapter folder, or a scorecard of the subject."],
    cards: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Its cards and its base's: files, folders; default: where the card lies, else scorecards/."
        ),
    ] = None,
    out: Annotated[Path, "Page to write: .html, or .md for a model card."] = Path("risk.html"),
    error: Rates = "0.05,0.1,0.2",
    watts: Annotated[float | None, "What the machine draws; default: 700 for each GPU, else 100."] = None,
    cutoff: Cutoff = None,
) -> Found:
    """Would you put it into production: a page of scores, calibration, noise, years, cost, and what is untested."""
    page = finbench.risk(subject, cards or (), out=out, wanted=_rates(error), watts=watts, cutoff=cutoff)
    return Found(page.as_dict() | {"out": str(out)}, lambda: show.sureness.risky(page, out))


def lm_eval(
    arguments: Annotated[list[str] | None, typer.Argument(help="As for lm_eval: run --model finbench ...")] = None,
) -> None:
    """lm-eval's own command line; `--model finbench` is its `hf` with shared prefixes run once."""
    evaluation.run_lm_eval(arguments or ["--help"])


def card_import(
    folder: Annotated[Path, "lm_eval's output folder, inspect's log, or a folder; with --task: a file of answers."],
    out: Annotated[Path, "Folder for the scorecards."] = Path("scorecards"),
    name: Annotated[str | None, "Name of the subject; default: that of the model, or of the file."] = None,
    task: Annotated[str | None, "The task that a file of answers is about: JSON by id, CSV, JSONL."] = None,
    map_: Annotated[
        str | None,
        "--map",
        "With --task: which columns are what, where names do not say it: id=key,answer=reply.",
    ] = None,
    data_dir: DataDir = None,
) -> Found:
    """Scorecards from answers in lm_eval's output, inspect's logs or a file: every answer is scored again by us."""
    columns = command.columns([map_]) if map_ else None
    made = finbench.import_card(folder, out=out, name=name, task=task, columns=columns, data_dir=data_dir)
    return scored(made, out)


def card_export(
    card: Annotated[Path, "Scorecard (.json)."],
    format_: Annotated[str, typer.Option("--format", help="eval-results, model-index, every-eval-ever or lm-eval.")],
    model: Annotated[str | None, "Hub id of the subject, org/name."] = None,
    benchmark: Annotated[str | None, "eval-results: the data set they belong to, hub:org/name[@commit]."] = None,
    source: Annotated[str | None, "eval-results: address at which the card can be seen."] = None,
    out: Annotated[Path, "Folder to write into."] = Path("export"),
    data_dir: DataDir = None,
) -> Found:
    """A scorecard in another format: for the Hub, for Every Eval Ever, or as lm-eval's own results."""
    written = [
        str(path)
        for path in finbench.export_card(
            card, format=format_, out=out, model=model, data_dir=data_dir, benchmark=benchmark, source=source
        )
    ]
    return Found(written, lambda: echo("\n".join(written)))


def card_rescore(
    cards: Cards,
    ask: Annotated[bool, "--ask", "Ask the model where a card holds only the hash of an answer."] = False,
    adapter: Annotated[str | None, "The cards' adapter, for --ask."] = None,
    base: CardBase = None,
    data_dir: DataDir = None,
) -> Found:
    """Score cards of earlier versions of their tasks anew, where they lie, from the answers that they hold."""
    found = evaluation.rescore_cards(cards, data_dir=data_dir, ask=ask, adapter=adapter, base=base)
    fault = typer.Exit(1) if any(one.refused for one in found) else None
    return Found(found, lambda: show.scorecards.rescored(found), fault)


def card_calibration(
    cards: Cards,
    tasks: Tasks = None,
    validation: Annotated[
        Path | None, "Card of the same subject on validation rows, to fit the temperature on."
    ] = None,
    error: Rates = "0.05,0.1,0.2",
) -> Found:
    """How sure subjects were when they were right: calibration, abstaining, thresholds with a guarantee."""
    found = finbench.calibrate(cards, tasks=_named(tasks), validation=validation, wanted=_rates(error))
    return Found(found, lambda: show.sureness.calibrated(found))


def card_noise(
    card: Annotated[Path, "Scorecard of the texts as they are."],
    noisy: Annotated[list[Path], "Cards of the same subject from --metadata noise=..., or folders of them."],
    tasks: Tasks = None,
) -> Found:
    """What noise does to a subject: its score on the same documents, and how many answers flip."""
    from finbench.cards import unreached

    notes = unreached(noisy)
    found = finbench.robustness(card, noisy, tasks=_named(tasks), notes=notes)
    value = [*found, *({"n": 0, "unreached": note} for note in notes)]
    return Found(value, lambda: show.sureness.noises(found, notes))


def card_contextual(
    card: Annotated[Path, "Scorecard of the texts as they are, answers by log-likelihood (fpb_mc)."],
    empty: Annotated[Path, "Card of the same subject from --metadata noise=content-free."],
    tasks: Tasks = None,
) -> Found:
    """The score without what a subject prefers where there is nothing to read (contextual calibration)."""
    found = finbench.contextual(card, empty, tasks=_named(tasks))
    return Found(found, lambda: show.sureness.contextual(found))


def card_years(
    cards: Cards,
    tasks: Tasks = None,
    cutoff: Cutoff = None,
    data_dir: DataDir = None,
) -> Found:
    """A score by the year of its documents, beside the date up to which the base has read."""
    found = finbench.by_year(cards, tasks=_named(tasks), cutoff=cutoff, data_dir=data_dir)
    return Found(found, lambda: show.sureness.by_year(found))


def card_prompts(cards: Cards, tasks: Tasks = None) -> Found:
    """What the prompt does: scores by several of them, the worst, and whether the order of subjects stays."""
    found = finbench.by_prompt(cards, tasks=_named(tasks))
    return Found(found, lambda: show.sureness.by_prompt(found))


def board_add(
    cards: Annotated[list[Path], "Scorecards, folders of them, or lm-eval's output folder."],
    to: Annotated[Path, "Leaderboard folder."] = Path("leaderboards"),
    adapter: Annotated[str | None, "The card's adapter: its training record is added."] = None,
    base: CardBase = None,
    rerun: Rerun = "0",
    key: Annotated[Path | None, "Private key of a maintainer, who vouches for the rerun by it."] = None,
    name: Annotated[str | None, "Name of the subject, for lm-eval's output."] = None,
    owner: Annotated[str | None, "Who brings it: its folder is scorecards/OWNER/SUBJECT."] = None,
    data_dir: DataDir = None,
) -> Found:
    """Verify cards and copy them; refused: whatever cannot be recomputed, and texts that may not be published."""
    added = leaderboard.add(
        cards, to=to, adapter=adapter, base=base, rerun=rerun, key=key, name=name, owner=owner, data_dir=data_dir
    )
    said = [*(f"Added: {path}" for path in added), f"Next: finbench leaderboard build {to}"]
    return Found([str(path) for path in added], lambda: echo("\n".join(said)))


def board_reproduce(
    folder: Board = Path("leaderboards"),
    key: Annotated[Path | None, "Private key of a maintainer, who vouches for each rerun by it."] = None,
    only: Annotated[str | None, "Only these cards, by comma: their files' names without .json."] = None,
    at: Annotated[list[Path] | None, "Folder with adapters that are on no Hub, repeatable; default: runs."] = None,
    base: CardBase = None,
    dry_run: Annotated[bool, "--dry-run", "Show what would be asked; ask nothing."] = False,
    data_dir: DataDir = None,
) -> Found:
    """Ask the models of all rows again that nobody vouches for, and sign. Repeat it: it goes on where it was."""
    done = leaderboard.reproduce(
        folder, key=key, only=_named(only), at=at or [Path("runs")], base=base, data_dir=data_dir, dry_run=dry_run
    )
    failed = not dry_run and any(one.outcome == "not signed" for one in done)
    said = [f"{one.card}: {one.outcome}. {one.said}" for one in done]
    said += [f"Next: finbench leaderboard build {folder}"] if any(one.outcome == "signed" for one in done) else []
    return Found(done, lambda: echo("\n".join(said)), typer.Exit(1) if failed else None)


def board_build(
    folder: Board = Path("leaderboards"),
    check: Annotated[bool, "--check", "Write nothing; exit 1 if a card is unfit or a file is stale."] = False,
    trusted: Annotated[Path | None, "Leaderboard whose keys and order of arrival are believed: of main."] = None,
    pictures: Annotated[Path | None, "Folder for PNGs of score against cost."] = None,
    export: Annotated[
        Path | None, "Folder for what goes to the Hub: dataset/ (cards, table) and space/ (page)."
    ] = None,
) -> Found:
    """Verify every card, then write the board's tables and page; a faulty card is left out and named."""
    made = leaderboard.build(folder, check=check, trusted=trusted)
    drawn = leaderboard.pictures(folder, pictures) if pictures else []
    if export and not made.stale:
        leaderboard.publication(folder, export)
    said = "up to date" if check else f"written to {folder}: {', '.join(made.files[:6])}"
    said = f"{counted(len(made.board.entries), 'card')}, {counted(len(made.board.tests), 'task')}; {said}"
    if made.stale:
        said = f"Stale: {made.stale_named}. Run: finbench leaderboard build {folder}"
    said = "\n".join([*(f"Refused: {line}" for line in made.refusals), said])
    value = made.as_dict() | {"pictures": [str(path) for path in drawn]}
    unfit = bool(made.stale or (check and made.refusals))
    return Found(value, lambda: echo(said, err=unfit), typer.Exit(1) if unfit else None)


def board_review(
    folder: Board,
    against: Annotated[
        Path, typer.Option(help="Leaderboard that it would be merged into, whose keys and order are believed.")
    ],
    comment: Annotated[Path | None, "File for the answer to a pull request, in Markdown."] = None,
) -> Found:
    """Check what a pull request adds to a leaderboard, and where its cards would stand; exit 1 if they are unfit."""
    made = leaderboard.review(folder, against)
    if comment:
        write_atomic(comment, made.comment)
    return Found(made, lambda: echo(made.comment.rstrip()), typer.Exit(1) if made.faults else None)


def board_pack(
    out: Annotated[Path, typer.Argument(help="Folder for the Parquet files; it is replaced.")],
    folder: Board = Path("leaderboards"),
) -> Found:
    """Cards and samples as Parquet files, as `datasets` reads them; build reads them in scorecards/ too."""
    written = [str(path) for path in leaderboard.pack(folder, out)]
    return Found(written, lambda: echo("\n".join(written)))


def board_unpack(
    out: Annotated[Path, typer.Argument(help="Folder for cards and samples; it is replaced.")],
    folder: Board = Path("leaderboards"),
) -> Found:
    """Take cards out of a leaderboard's Parquet files: OUT/OWNER/SUBJECT/CARD.json, with their samples."""
    written = [str(path) for path in leaderboard.unpack(folder, out)]
    return Found(written, lambda: echo("\n".join(written)))


def board_push(
    to: Annotated[str, "hub:org/name, of a data set (cards) and of a static Space (page)."],
    folder: Board = Path("leaderboards"),
    dry_run: Annotated[bool, "--dry-run", "Show what would be sent; send nothing."] = False,
    public: Annotated[bool, "--public", "Make new repositories public; else private."] = False,
    pr: Annotated[bool, "--pr", "Open pull requests instead of changing the repositories."] = False,
) -> Found:
    """Publish cards and page, one commit each; what is stale or unfit is refused. Repeat it safely."""
    done = leaderboard.push(to, folder, dry_run=dry_run, public=public, pr=pr)
    return Found([pushed.as_dict() for pushed in done], lambda: show.publications.pushed(*done))
