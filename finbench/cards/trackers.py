"""Experiment trackers, each an extra and off by default: trackio, W&B, MLflow, TensorBoard.

They are driven by transformers' own callbacks, in a training by its Trainer and for scorecards by hand. Each gets the
recipe or the card's subject as its settings, not this machine's paths. What a tracker raises ends that tracker with one
line, and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from transformers import TrainerCallback, TrainerControl, TrainerState

from finbench.core.console import say
from finbench.core.errors import reason
from finbench.core.files import write_atomic
from finbench.core.records import Scorecard

PROJECT = "finbench"
RUNS = "trackers.json"  # which runs of theirs a training is
_RESUMED = {"wandb": "WANDB_RUN_ID", "mlflow": "MLFLOW_RUN_ID"}
# Where the user has not said otherwise: a server that is down is noticed in seconds, not in the minutes of their own.
_SETTINGS = {
    "WANDB_PROJECT": PROJECT,
    "WANDB_RESUME": "allow",
    "WANDB_SILENT": "true",
    "WANDB_INIT_TIMEOUT": "20",
    "WANDB_FINISH_TIMEOUT": "60",  # else it waits until all is sent, and the adapter is not saved yet
    "MLFLOW_EXPERIMENT_NAME": PROJECT,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS": "5",  # else a request a step: they pile up where nobody answers
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def facts(**parts: Any) -> dict[str, Any]:
    """Settings as trackers show them: nested ones flat, ``recipe/rank``."""
    found: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{key}": part for key, part in facts(**{str(k): v for k, v in value.items()}).items()}
        elif value is not None:
            found[name] = value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
    return found


class Tracker(TrainerCallback):
    """One of transformers' callbacks, which may fail. ``place``: folder in which a run's numbers there are kept."""

    def __init__(self, name: str, run: str, known: Mapping[str, Any], place: Path, logs: Path) -> None:
        self.name, self.place, self.open = name, place, True
        self.own: Any = None
        self.stated = SimpleNamespace(
            run_name=run,
            project=PROJECT,
            output_dir=PROJECT,
            trackio_space_id=os.environ.get("TRACKIO_SPACE_ID"),
            trackio_bucket_id=None,
            trackio_static_space_id=False,
            hub_private_repo=True,
            to_dict=lambda: dict(known),
            to_json_string=lambda: json.dumps(dict(known), indent=1),
        )
        self.logs = logs
        self.last: tuple[Any, Any] = (TrainerState(), TrainerControl())

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin its run, or go on with the one that was begun before a stop."""
        if not state.is_world_process_zero:
            self.open = False
            return
        with self._guarded(), _environment(self._earlier()):
            from transformers.integrations import integration_utils

            self.own = integration_utils.INTEGRATION_TO_CALLBACK[self.name]()
            if self.name == "tensorboard" and self.own.logging_dir is None:
                self.own.logging_dir = str(self.logs / self.stated.run_name)
            self.own.on_train_begin(self.stated, state, control, model=None)
            self._remember()
        if self.open:
            say(f"{self.name}: {self._where()}")

    def _where(self) -> str:
        """How a person sees the run."""
        if self.name == "mlflow":
            return f"experiment {os.environ['MLFLOW_EXPERIMENT_NAME']} at {self.own._ml_flow.get_tracking_uri()}"
        if self.name == "tensorboard":
            return f"tensorboard --logdir {Path(self.own.logging_dir).parent}"
        if self.name == "wandb":
            run = self.own._wandb.run
            return run.url or f"offline; send it with: wandb sync {Path(run.dir).parent}"
        return f"trackio show --project {PROJECT}"

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """What is logged, numbers alone."""
        self.last = (state, control)
        if self.open and self.own is not None:
            numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, int | float)}
            with self._guarded():
                self.own.on_log(self.stated, state, control, logs=numbers, model=None)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End its run."""
        self.last = (state, control)
        self.close()

    def close(self) -> None:
        """End its run, if it has one, also where training was stopped."""
        if self.open and self.own is not None:
            with self._guarded():
                self.own.on_train_end(self.stated, *self.last, model=None)
                if self.name == "wandb" and self.own._wandb.run is not None:
                    self.own._wandb.finish()
        self.open = False

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # results are ours to print
                yield
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # noqa: BLE001  some trackers raise SystemExit: none may end a training
            self.open = False
            say(f"{self.name} takes nothing ({reason(fault)[:160]}): it goes on without it.")

    def _earlier(self) -> dict[str, str]:
        path = self.place / RUNS
        runs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        found = {_RESUMED[name]: run for name, run in runs.items() if name == self.name}
        if self.name == "wandb" and "WANDB_MODE" not in os.environ and not _wandb_key():
            found["WANDB_MODE"] = "offline"
        return found

    def _remember(self) -> None:
        assert self.own is not None
        if self.name == "wandb":
            run = self.own._wandb.run.id
        elif self.name == "mlflow":
            run = self.own._ml_flow.active_run().info.run_id
        else:
            return
        path = self.place / RUNS
        runs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_atomic(path, json.dumps({**runs, self.name: run}) + "\n")


def _wandb_key() -> bool:
    """Whether W&B's server may be asked: without a key it would ask the terminal for one."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return bool(os.environ.get("WANDB_API_KEY") or netrc.netrc().authenticators(host))
    return False


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Trackers read the environment; what the user has set there stands."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update({name: value for name, value in changes.items() if before[name] is None})
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                os.environ.pop(name, None)


def report_cards(names: Sequence[str], cards: Sequence[Scorecard], place: Path) -> None:
    """Log scorecards, each as a run of its own, named as its subject."""
    for card in cards if names else ():
        known = facts(subject=card.subject.model_dump(), engine=card.engine, dtype=card.dtype, shots=card.shots)
        logs: dict[str, float] = {}
        for score in card.scores:
            logs |= {f"eval_{score.task}_{name}": found.value for name, found in score.metrics.items()}
            logs |= {f"eval_{score.task}_parse_rate": score.parse_rate.value, f"eval_{score.task}_n": score.n}
            if score.main.interval:
                low, high = score.main.interval
                logs |= {f"eval_{score.task}_low": low, f"eval_{score.task}_high": high}
        for name in names:
            one = Tracker(
                name, card.subject.name, known, place / ".trackers" / card.run_key[:16], place / "tensorboard"
            )
            state, control = TrainerState(), TrainerControl()
            one.on_train_begin(None, state, control)
            one.on_log(None, state, control, logs)
            one.on_train_end(None, state, control)
