"""What a person sees while something runs: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

out = Console()
err = Console(stderr=True)


def say(message: str) -> None:
    """One line for the person who waits; never part of a result."""
    err.print(message, style="dim", highlight=False, markup=False)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr with a free ``note`` column; silent when stderr is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        yield bar


def quiet() -> None:
    """Silence the libraries' own bars and notices: ours say what matters, and faults still raise."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lm_eval", "lm-eval", "bitsandbytes", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)  # before they are imported: some complain at import
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", module=r"(peft|transformers|torch|bitsandbytes|accelerate)\b.*")
