"""Faults put into finbench on purpose, and what they did: the table of docs/reliability.md.

    python benchmarks/faults.py run [NAME ...]     goes on where it was stopped; --count kills each, --hours at most
    python benchmarks/faults.py page               writes the table of what was run

A campaign is one fault and one command, with seeded cases of which each is a line of OUT/<campaign>.jsonl. Its command
runs in a fork of this process, which has imported everything once, so that a case takes what the command takes. After
the fault the same command is given again without one and must end with the files of a run that nothing disturbed.
``lost``: it does not, or a file of the user's beside them is gone. ``traced``: a trace was shown. ``silent``: it failed
and said neither why nor that it stopped. The rows R1-R25 that need a server, a GPU or an oracle are tests.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PAGE = ROOT / "docs" / "reliability.md"
START, END = "<!-- counted by benchmarks/faults.py -->", "<!-- end -->"
PATIENCE = 120  # seconds after which a command that has not ended hangs
SMALL = ["--task", "mini_sentiment", "--limit", "64", "--rank", "4", "--lr", "0.01"]
SMALL += ["--set", "dtype=float32", "--set", "batch_size=8"]


@dataclass(frozen=True)
class Work:
    """A command, where it writes, and what of that a second run must write alike."""

    arguments: Callable[[Path], list[str]]
    results: str  # pattern of the files that nothing may change
    again: tuple[str, ...] = ()  # options with which it goes on, once there is something to go on from
    began: str = ""  # the file or folder that shows that there is


def works(world: Path) -> dict[str, Work]:
    """The commands, on the small things that ``made`` has put into ``world``."""
    base, adapter, card = world / "base", world / "adapter", world / "cards" / "adapter.json"
    source, data = world / "sources" / "tfns", ["--data-dir", str(world / "data")]
    asked = ["--base", str(base), "--tasks", "tfns", "--limit", "24", "--arg", "dtype=float32", *data]
    return {
        "import": Work(lambda at: ["data", "import", "tfns", str(source), "--data-dir", str(at)], "tfns/*.jsonl"),
        "train": Work(
            lambda at: ["train", "--base", str(base), *SMALL, "--out", str(at / "a")],
            "a/adapter_model.safetensors", ("--resume",), "a/checkpoints",
        ),
        "eval": Work(lambda at: ["eval", "--adapter", str(adapter), *asked, "--out", str(at)], "*.samples.jsonl.zst"),
        "export": Work(
            lambda at: ["card", "export", str(card), "--format", "lm-eval", "--out", str(at / "e")], "e/**/*.json*"
        ),
        "leaderboard": Work(lambda at: ["leaderboard", "add", str(card), "--to", str(at / "b"), *data], "b/*cards/*"),
    }  # fmt: skip


def made(world: Path) -> Path:
    """A tiny base, an adapter on it, its card, and sources of a data set: once."""
    if (world / "done").is_file():
        return world
    import conftest
    import make_data

    shutil.rmtree(world, ignore_errors=True)
    conftest.make_llama(world / "base")
    conftest.make_lora(world / "adapter", world / "base", "org/tiny-llama", seed=1)
    for name, files in make_data.write_sources(world / "given").items():
        (world / "sources" / name).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, world / "sources" / name)
    for name, place in (("import", world / "data"), ("eval", world / "cards")):
        code, said, _ = ended(started(works(world)[name].arguments(place)))
        if code:
            sys.exit(f"The small world could not be made: {said}")
    (world / "done").touch()
    return world


# ---------------------------------------------------------------- one command in a fork


def started(arguments: list[str], before: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Fork, and run a command of finbench there: (process, pipe of what it says). ``before`` puts a fault in place."""
    hearing, saying = os.pipe()  # no file: a disk that is full would keep what is said
    child = os.fork()
    if child:
        os.close(saying)
        return child, hearing
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(saying, 1)
        os.dup2(saying, 2)
        os.closerange(3, 256)
        from finbench.cli import main

        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["finbench", *arguments]
        before()
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  a child must never go on as its parent
        os.write(2, traceback.format_exc().encode())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


def ended(running: tuple[int, int], fault: Callable[[int], None] | None = None) -> tuple[int, str, Any]:
    """Wait for a command: (exit code, minus the signal that ended it; what it said; what it used)."""
    child, hearing = running
    if fault:
        threading.Thread(target=fault, args=(child,), daemon=True).start()
    until, text = time.monotonic() + PATIENCE, b""
    while True:
        ready, _, _ = select.select([hearing], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            os.killpg(child, signal.SIGKILL)
        if not (piece := os.read(hearing, 2**16)):
            break
        text += piece
    os.close(hearing)
    _, status, used = os.wait4(child, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, text.decode("utf-8", "replace"), used


def found(work: Work, at: Path) -> str:
    """The digest of what a command wrote; of samples the rows, for times stand beside them."""
    made = hashlib.sha256()
    for path in sorted(at.glob(work.results)):
        content = path.read_bytes()
        if path.suffix == ".json" and path.parent.name == "scorecards":
            content = json.dumps(json.loads(content).get("scores")).encode()
        made.update(path.name.encode() + b"\0" + hashlib.sha256(content).digest())
    return made.hexdigest() if list(at.glob(work.results)) else ""


# ---------------------------------------------------------------- faults


def _limited(kind: int, most: int) -> Callable[[], None]:
    def put() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(kind, (most, most))

    return put


def _clock(rng: random.Random) -> Callable[[], None]:
    steps = [rng.choice((-86_400, -3_600, 3_600, 86_400)) for _ in range(4)]

    def put() -> None:
        real, asked = time.time, iter(range(10**9))
        time.time = lambda: real() + steps[next(asked) // 7 % 4]

    return put


def _no_scratch() -> None:
    import tempfile

    os.environ["TMPDIR"] = "/nonexistent"
    tempfile.tempdir = None


def _closed_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


Fault = Callable[[random.Random, float], tuple[Callable[[], None], Callable[[int], None] | None]]


def _later(which: int) -> Fault:
    def fault(rng: random.Random, seconds: float) -> tuple[Callable[[], None], Callable[[int], None]]:
        moment = rng.uniform(0.0, seconds)

        def send(child: int) -> None:
            time.sleep(moment)
            with contextlib.suppress(ProcessLookupError):  # it may have ended before
                os.kill(child, which)

        return (lambda: None), send

    return fault


FAULTS: dict[str, tuple[Fault, str]] = {
    "kill -9": (_later(signal.SIGKILL), "R1, R3"),
    "Ctrl-C": (_later(signal.SIGINT), "R1, R3"),
    "a full disk": (lambda rng, _: (_limited(resource.RLIMIT_FSIZE, int(2 ** rng.uniform(0, 17))), None), "R5"),
    "few open files": (lambda rng, _: (_limited(resource.RLIMIT_NOFILE, rng.randint(3, 20)), None), "R19"),
    "a clock that jumps": (lambda rng, _: (_clock(rng), None), "R24"),
    "no temporary folder": (lambda *_: (_no_scratch, None), "R24"),
    "a closed pipe": (lambda *_: (_closed_pipe, None), "R24"),
}
RARE = {"no temporary folder": 1, "a closed pipe": 1}  # nothing in them is drawn
SLOW_SHARE = 0.25  # of the cases of kills that other faults get


def disturbed(work: Work, fault: Fault, rng: random.Random, at: Path, whole: str, seconds: float) -> dict[str, Any]:
    """One case: the fault, then the command again until it ends well; what it did."""
    shutil.rmtree(at, ignore_errors=True)
    own = at / ".a.backup" / "mine"  # a file of the user's, under a name like those of what is being written
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    os.utime(own.parent, (0, 0))
    begun = time.monotonic()
    before, send = fault(rng, seconds)
    code, text, used = ended(started(work.arguments(at), before), send)
    odd = dict[str, Any]()
    odd["traced"] = int("Traceback (most recent" in text or code == 70)
    odd["silent"] = int(code > 0 and "error: " not in text and "Stopped" not in text)
    odd |= {
        "code": code,
        "memory": used.ru_maxrss * 1024,
        "said": text[-600:] if odd["traced"] or odd["silent"] else "",
    }
    for _ in range(3):
        more = work.again if work.began and (at / work.began).is_dir() else ()
        last, text, _ = ended(started([*work.arguments(at), *more]))
        if not last:
            break
    odd["lost"] = int(bool(last) or found(work, at) != whole or own.read_text() != "mine")
    if odd["lost"]:
        odd["said"] = text[-600:]
    return {**odd, "seconds": round(time.monotonic() - begun, 2)}


def campaign(name: str, work: Work, what: str, count: int, seed: int, out: Path) -> Iterator[dict[str, Any]]:
    """The cases of one fault and one command that are not there yet."""
    log = out / f"{name} {what}.jsonl".replace(" ", "-")
    there = len(log.read_text().splitlines()) if log.is_file() else 0
    count = RARE.get(what, count if what == "kill -9" else max(1, int(count * SLOW_SHARE)))
    if there >= count:
        return
    at = out / "cases" / f"{name}-{os.getpid()}"
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    begun = time.monotonic()
    code, text, _ = ended(started(work.arguments(at)))
    whole, seconds = found(work, at), time.monotonic() - begun
    if code or not whole:
        sys.exit(f"finbench {name} does not end well without any fault: {text[-600:]}")
    for number in range(there, count):
        rng = random.Random(f"{seed} {name} {what} {number}")
        line = disturbed(work, FAULTS[what][0], rng, at, whole, seconds)
        with log.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"case": number, **line}) + "\n")
        yield line
    shutil.rmtree(at, ignore_errors=True)


# ---------------------------------------------------------------- rows that are tests

TESTS: dict[str, tuple[str, list[str]]] = {
    "R2 torn checkpoints": ("", ["tests/test_checkpointing.py"]),
    "R4 stale answers": ("", ["tests/test_journal.py::test_no_part_of_the_key_may_differ"]),
    "R6 corrupted weights": ("truncations or flipped or headers_that_lie", ["tests/test_security.py"]),
    "R7 NaN, Inf, no effect": ("not_finite or damaged_adapter", ["tests/test_security.py", "tests/test_evaluation.py"]),
    "R8, R9 wrong base": ("another_base or damaged_base", ["tests/test_evaluation.py"]),
    "R8 a base that was changed": ("", ["tests/test_fingerprint.py"]),
    "R10 faults of the Hub": ("", ["tests/test_fetch.py"]),
    "R11 kills at every request of a push": ("", ["tests/e2e/test_kills.py"]),
    "R12 hostile names": ("", ["tests/test_refs.py"]),
    "R13 code in files": ("", ["tests/test_security.py", "tests/test_own_tasks.py"]),
    "R14 bombs": ("", ["tests/test_jail.py", "tests/xbrl/test_xbrl_hostile.py", "tests/test_strangers.py"]),
    "R16, R17, R18 malformed rows": ("", ["tests/test_bad_input.py"]),
    "R19 two processes": ("two_processes or two_push", ["tests/test_journal.py", "tests/test_push.py"]),
    "R20, R21 serving": ("", ["tests/test_server.py"]),
    "R22 forged cards": ("", ["tests/test_hostile_cards.py", "tests/test_verification.py"]),
    "R22 forged evidence": ("", ["tests/test_evidence.py"]),
    "R23 the same twice": ("batch or threads or twice", ["tests/test_engines.py", "tests/test_regression.py"]),
    "R25 keys and tokens": ("token or key", ["tests/test_security.py", "tests/test_endpoints.py"]),
    "shapes of endpoints": ("shape or field or probabilities or echoes", ["tests/test_endpoints.py"]),
    "kills of a sweep": ("kill", ["tests/test_grid.py"]),
}  # fmt: skip


def tested(name: str, out: Path) -> dict[str, Any] | None:
    """Run the tests of a row, once; what they counted."""
    log = out / f"tests {name}.jsonl".replace(" ", "-").replace(",", "")
    if log.is_file():
        return None
    chosen, files = TESTS[name]
    report = out / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
    subprocess.run([*command, *(["-k", chosen] if chosen else [])], cwd=ROOT, capture_output=True, check=False)
    suite = next(ET.parse(report).getroot().iter("testsuite")).attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    line = {"cases": int(suite["tests"]) - int(suite["skipped"]), "failed": failed, "seconds": float(suite["time"])}
    log.write_text(json.dumps(line) + "\n")
    return line


# ---------------------------------------------------------------- run, page


def run(names: list[str], count: int, seed: int, hours: float, out: Path) -> None:
    """Every campaign, or those whose name holds one of ``names``; goes on where an earlier run was stopped."""
    import fuzzed  # beside this file
    import lm_eval.models.huggingface  # noqa: F401  imported once, for all forks
    import peft  # noqa: F401

    until = time.monotonic() + 3_600 * hours
    out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["FINBENCH_CACHE"] = str((out / "cache").resolve())
    wanted = lambda title: not names or any(name in title for name in names)  # noqa: E731
    for what in FAULTS:
        for name, work in works(made(out.resolve() / "world")).items():
            if not wanted(f"{name} {what}"):
                continue
            for line in campaign(name, work, what, count, seed, out.resolve()):
                if line["lost"] or line["traced"] or line["silent"]:
                    print(f"{name}, {what}: {line}", flush=True)
                if time.monotonic() > until:
                    sys.exit("The time is over; the same command goes on.")
            print(f"{name}, {what}: done", flush=True)
    for reader in fuzzed.READERS:
        if wanted(f"fuzz {reader}"):
            print(f"fuzz {reader}: {fuzzed.campaign(reader, 20 * count, seed, out.resolve())}", flush=True)
    for name in TESTS:
        if wanted(f"tests {name}") and time.monotonic() < until:
            print(f"{name}: {tested(name, out.resolve())}", flush=True)


def page(out: Path) -> None:
    """Write the table of what lies in ``out``."""
    rows = [
        "| fault | on | cases | lost | traced | silent | longest, s | most memory, GB |",
        "|--|--|--:|--:|--:|--:|--:|--:|",
    ]
    for what in FAULTS:
        for log in sorted(out.glob(f"*-{what.replace(' ', '-')}.jsonl")):
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            total = [sum(line[key] for line in lines) for key in ("lost", "traced", "silent")]
            most = f"{max(line['seconds'] for line in lines):.1f} | {max(line['memory'] for line in lines) / 2**30:.2f}"
            on = log.stem.removesuffix("-" + what.replace(" ", "-"))
            rows.append(
                f"| {what} ({FAULTS[what][1]}) | {on} | {len(lines)} | {' | '.join(map(str, total))} | {most} |"
            )
    rows += ["", "| reader | inputs | traced | longest, s | most memory, GB |", "|--|--:|--:|--:|--:|"]
    for log in sorted(out.glob("fuzz-*.json")):
        line = json.loads(log.read_text())
        shown = f"{line['seconds']:.2f} | {line['memory'] / 2**30:.2f}"
        rows.append(f"| {line['reader']} | {line['inputs']} | {line['traced']} | {shown} |")
    rows += ["", "| what | tests | failed | seconds |", "|--|--:|--:|--:|"]
    for name in TESTS:
        log = out / f"tests {name}.jsonl".replace(" ", "-").replace(",", "")
        if log.is_file():
            line = json.loads(log.read_text())
            rows.append(f"| {name} | {line['cases']} | {line['failed']} | {line['seconds']:.0f} |")
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(START)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n" + "\n".join(rows) + f"\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("names", nargs="*", help="campaigns whose name holds one of these; all")
    parser.add_argument("--count", type=int, default=100, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "faults")
    given = parser.parse_args()
    if given.what == "run":
        run(given.names, given.count, given.seed, given.hours, given.out)
    else:
        page(given.out)
