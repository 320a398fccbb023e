"""What a person sees while something runs: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.prompt import Confirm
from rich.text import Text

from finbench.core.errors import harmless


class _Console(Console):
    """A console on which texts of strangers are only texts: what a terminal would obey is shown as its escape."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is printed, and every cell of a table, comes by here."""
        return super().render_str(harmless(text), **options)


_TELL = 30.0  # seconds between two lines about what takes its time, off a terminal

out = _Console()
err = _Console(stderr=True)


_told: set[str] | None = None  # what was said within ``once``


def say(message: str) -> None:
    """One line for the person who waits; never part of a result."""
    if _told is not None:
        if message in _told:
            return
        _told.add(message)
    err.print(message, style="dim", highlight=False, markup=False, soft_wrap=True)  # a command in it stays whole


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Say no line twice: of work that is done again and again, under other conditions."""
    global _told
    before, _told = _told, _told or set()
    try:
        yield
    finally:
        _told = before


def agreed(question: str) -> bool:
    """Whether the person at the terminal says yes; False where there is none."""
    return err.is_terminal and sys.stdin.isatty() and Confirm.ask(question, console=err, default=False)


@contextlib.contextmanager
def progress() -> Iterator[Any]:
    """A progress bar on stderr with a free ``note`` column; where stderr is no terminal, a line now and then."""
    if not err.is_terminal:
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        yield bar


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what takes its time, and how long it has taken, while the block runs in this thread or in another process."""
    say(f"{what} ...")
    started, over = time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(_TELL):
            say(f"  still at it, {time.monotonic() - started:.0f} s so far ...")

    if err.is_terminal:
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err,
                      transient=True) as bar:  # fmt: skip
            bar.add_task(what)
            yield
        return
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def duration(seconds: float) -> str:
    """A time as people say it: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Lines(Progress):
    """Progress in logs: one line for each task every half minute."""

    def __init__(self, every: float = 30.0) -> None:
        super().__init__(disable=True)
        self.every, self.said = every, dict[int, float]()

    def update(self, task_id: TaskID, **changed: Any) -> None:
        super().update(task_id, **changed)
        task, now = next(task for task in self.tasks if task.id == task_id), time.monotonic()
        if now - self.said.get(task_id, task.start_time or now) > self.every:
            self.said[task_id] = now
            left = "" if task.time_remaining is None else f"  {duration(task.time_remaining)} left"
            say(f"{task.description}: {task.completed} of {task.total}  {task.fields.get('note', '')}{left}")

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        self.update(task_id, advance=advance)


def quiet() -> None:
    """Silence the libraries' own bars and notices: ours say what matters, and faults still raise."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lm_eval", "lm-eval", "bitsandbytes", "kernels", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)  # before they are imported: some complain at import
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    warnings.filterwarnings("ignore", module=r"(peft|transformers|torch|bitsandbytes|accelerate)\b.*")
