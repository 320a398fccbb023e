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
import ctypes
import functools
import gc
import hashlib
import importlib
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
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PAGE, COUNTS = ROOT / "docs" / "reliability.md", ROOT / "benchmarks" / "faults.json"
START, END = "<!-- counted by benchmarks/faults.py -->", "<!-- end -->"
PATIENCE = 300  # seconds after which a command that has not ended hangs

from fault_world import Work, hub, made, published, works  # noqa: E402  beside this file, as is fuzzed

# ---------------------------------------------------------------- one command in a fork


def started(
    arguments: list[str], *before: Callable[[], None], after: Callable[[], None] = lambda: None
) -> tuple[int, int]:
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
        for put in before:
            put()
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  a child must never go on as its parent
        os.write(2, traceback.format_exc().encode())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            after()
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
    """The digest of what a command wrote; of cards the scores, for times stand beside them. Empty without any."""
    if not work.results:
        there = published(at)
        return hashlib.sha256("\n".join(there).encode()).hexdigest() if there else ""
    digest, paths = hashlib.sha256(), sorted(path for one in work.results.split() for path in at.glob(one))
    paths = [path for path in paths if path.name[0] != "."]  # that is how a file is called that is being written
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".json" and path.parent.name == "scorecards":
            content = json.dumps(json.loads(content).get("scores")).encode()
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest() if paths else ""


# ---------------------------------------------------------------- faults


@dataclass(frozen=True)
class Put:
    """One drawn fault: what is done in the command's process before it begins, to it while it runs, and to the Hub."""

    before: Callable[[], None] = lambda: None
    send: Callable[[int], None] | None = None
    hub: tuple[str, ...] = ()
    after: Callable[[], None] = lambda: None


Fault = Callable[[random.Random, float, Path], Put]  # drawn by: chance, seconds that the command takes, its folder


def _signal(which: int) -> Fault:
    def fault(rng: random.Random, seconds: float, at: Path) -> Put:
        # programs start for most of their time, and write at its end: every other signal comes in the last fifth
        moment = seconds * rng.uniform(rng.choice((0.0, 0.8)), 1.0)

        def send(child: int) -> None:
            time.sleep(moment)
            with contextlib.suppress(ProcessLookupError):  # it may have ended before
                os.kill(child, which)

        return Put(send=send)

    return fault


def _limited(kind: int, most: int) -> Put:
    def put() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(kind, (most, most))

    return Put(put)


def _clock(rng: random.Random, seconds: float, at: Path) -> Put:
    steps = [rng.choice((-86_400, -3_600, 3_600, 86_400)) for _ in range(4)]

    def put() -> None:
        real, asked = time.time, iter(range(10**9))
        time.time = lambda: real() + steps[next(asked) // 7 % 4]

    return Put(put)


def _read_only(rng: random.Random, seconds: float, at: Path) -> Put:
    places = rng.choice(([at], [Path(os.environ["FINBENCH_CACHE"])], [at, Path(os.environ["FINBENCH_CACHE"])]))

    def put() -> None:
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o555)
        powers = ctypes.c_uint32 * 6  # version and process; then none: not even root writes where it may not
        ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), powers())

    return Put(put)


def _no_scratch() -> None:
    import tempfile

    os.environ["TMPDIR"] = "/nonexistent"
    tempfile.tempdir = None


def _closed_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


def _twice(rng: random.Random, seconds: float, at: Path) -> Put:
    later = rng.uniform(0.0, seconds)
    return Put(lambda: None if os.fork() else time.sleep(later))


def _network(rng: random.Random, seconds: float, at: Path) -> Put:
    kinds = ("429", "429=1", "500", "502", "503", "504", "401", "403", "404", "reset", "short", "wrong", "loop", "lost")
    drawn = [f"{rng.choice(kinds)}*{rng.randint(1, 8)}" for _ in range(rng.randint(1, 3))]
    slow = rng.random() < 0.2
    return Put(_no_pauses, hub=(*drawn, *(("slow=0.05*4",) if slow else ())))


def _no_pauses() -> None:
    """A Hub that fails is asked again at once, and not within half a minute."""
    import huggingface_hub.utils._http as http

    from finbench.hub import pushing

    http.time = SimpleNamespace(sleep=lambda seconds: None)
    pushing.wait = lambda seconds: None


FAULTS: dict[str, tuple[Fault, str]] = {
    "kill -9": (_signal(signal.SIGKILL), "R1, R3, R11"),
    "Ctrl-C": (_signal(signal.SIGINT), "R1, R3"),
    "SIGTERM": (_signal(signal.SIGTERM), "R1, R3"),
    "a full disk": (lambda rng, *_: _limited(resource.RLIMIT_FSIZE, int(2 ** rng.uniform(0, 17))), "R5"),
    "a read-only folder": (_read_only, "R24"),
    "few open files": (lambda rng, *_: _limited(resource.RLIMIT_NOFILE, rng.randint(3, 20)), "R19"),
    "a clock that jumps": (_clock, "R24"),
    "two processes": (_twice, "R19"),
    "a Hub that fails": (_network, "R10"),
    "no temporary folder": (lambda *_: Put(_no_scratch), "R24"),
    "a closed pipe": (lambda *_: Put(_closed_pipe), "R24"),
}
RARE = {"no temporary folder": 1, "a closed pipe": 1}  # nothing in them is drawn
KILLS = ("kill -9",)  # of which those that came after the end of the command do not count
SLOW_SHARE = 0.25  # of the cases of kills that other faults get


def fresh(at: Path, world: Path) -> None:
    """An empty folder for a case, with a Hub beside and a file of the user's, named like what is being written."""
    shutil.rmtree(at, ignore_errors=True)
    shutil.copytree(world / "hub", at / "hub")
    own = at / ".a.backup" / "mine"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    os.utime(own.parent, (0, 0))


def one(work: Work, at: Path, put: Put = Put(), more: tuple[str, ...] = ()) -> tuple[int, str, Any]:
    """The command once, beside its Hub if it asks one."""
    with hub(at, put.hub) if work.online else contextlib.nullcontext():
        running = started([*work.arguments(at), *more], work.before, put.before, after=put.after)
        return ended(running, put.send)


def disturbed(work: Work, what: str, rng: random.Random, at: Path, whole: str, seconds: float) -> dict[str, Any]:
    """One case: the fault, then the command again until it ends well; what it did."""
    begun = time.monotonic()
    code, text, used = one(work, at, FAULTS[what][0](rng, seconds, at))
    for place in (at, Path(os.environ["FINBENCH_CACHE"])):
        place.chmod(0o755)
    odd: dict[str, Any] = {"traced": int("Traceback (most recent" in text or code == 70)}
    odd["silent"] = int(code > 0 and "error: " not in text and "Stopped" not in text)
    odd["silent"] |= int(what == "Ctrl-C" and code not in (0, 130))
    if what == "a closed pipe":  # nobody is there to be told: the exit code of SIGPIPE says it, as of any program
        odd["silent"] = int(code not in (0, 141))
    half = work.whole and found(work, at) not in ("", whole)
    odd |= {
        "code": code,
        "memory": used.ru_maxrss * 1024,
        "said": text[-600:] if odd["traced"] or odd["silent"] or half else "",
    }
    for _ in range(3):
        last, text, _ = one(work, at, more=work.again if work.began and (at / work.began).is_dir() else ())
        if not last:
            break
    mine = at / ".a.backup" / "mine"
    odd["lost"] = int(half or bool(last) or found(work, at) != whole or not mine.is_file())
    if odd["lost"]:
        odd["said"] += f"\n{'half of it was there' if half else ''}; again: {text[-600:]}"
    return {**odd, "seconds": round(time.monotonic() - begun, 2)}


def _imported(listed: Path) -> None:
    listed.write_text("\n".join(sys.modules))


@functools.cache
def undisturbed(name: str, work: Work, at: Path, world: Path) -> tuple[str, float]:
    """What a command writes without any fault, and the seconds it takes once all that it imports is imported here."""
    from finbench.core import catalog

    for _ in range(2):  # the second has what the first may have put into a cache, and what it imported
        fresh(at, world)
        begun = time.monotonic()
        code, text, _ = one(work, at, Put(after=functools.partial(_imported, at / "modules")))
        whole, seconds = found(work, at), time.monotonic() - begun
        if code or not whole:
            sys.exit(f"finbench {name} does not end well without any fault: {text[-600:]}")
        for module in (at / "modules").read_text().splitlines():
            with contextlib.suppress(Exception):  # some only exist inside of others
                importlib.import_module(module)
    catalog.tasks(), catalog.groups()
    gc.collect()
    gc.freeze()  # children do not look for garbage among what was imported
    return whole, seconds


def campaign(name: str, work: Work, what: str, count: int, seed: int, out: Path) -> Iterator[dict[str, Any]]:
    """The cases of one fault and one command that are not there yet."""
    log = out / f"{name} {what}.jsonl".replace(" ", "-")
    before = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    count = RARE.get(what, count if what == "kill -9" else max(1, int(count * SLOW_SHARE)))
    met = sum(1 for line in before if line["code"] or what not in KILLS)
    if met >= count or (what == "a Hub that fails" and not work.online):
        return
    at, world = out / "cases" / f"{name}-{os.getpid()}".replace(" ", "-"), out / "world"
    whole, seconds = undisturbed(name, work, at, world)
    for number in range(len(before), 4 * count):
        rng = random.Random(f"{seed} {name} {what} {number}")
        fresh(at, world)
        line = disturbed(work, what, rng, at, whole, seconds)
        with log.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"case": number, **line}) + "\n")
        yield line
        met += bool(line["code"] or what not in KILLS)
        if met >= count:
            break
    shutil.rmtree(at, ignore_errors=True)


# ---------------------------------------------------------------- rows that are tests

TESTS: dict[str, tuple[str, list[str]]] = {
    "R2 torn checkpoints": ("", ["tests/test_checkpointing.py"]),
    "R4 stale answers": ("", ["tests/test_journal.py::test_no_part_of_the_key_may_differ"]),
    "R4 stale steps of a sweep": ("another_base or moved_on", ["tests/test_grid.py"]),
    "R6 corrupted weights": ("truncations or flipped or headers_that_lie", ["tests/test_security.py"]),
    "R6 factors and their structure": ("structure or stranger or outside", ["tests/test_structured_storage.py"]),
    "R7 NaN, Inf, no effect": ("not_finite or damaged_adapter", ["tests/test_security.py", "tests/test_evaluation.py"]),
    "R8, R9 wrong base": ("another_base or damaged_base", ["tests/test_evaluation.py"]),
    "R8 a base that was changed": ("", ["tests/test_fingerprint.py"]),
    "R10 faults of the Hub": ("", ["tests/test_fetch.py"]),
    "R11 kills at every request of a push": ("", ["tests/e2e/test_kills.py"]),
    "R12 hostile names": (
        "refs or outside_the_caches or hostile",
        [*(f"tests/test_{name}.py" for name in ("refs", "security", "fetch"))],
    ),
    "R13 code in files": ("", ["tests/test_security.py", "tests/test_own_tasks.py", "tests/test_pickles.py"]),
    "R14 bombs": ("", ["tests/test_jail.py", "tests/xbrl/test_xbrl_hostile.py", "tests/test_strangers.py"]),
    "R16, R17, R18 malformed rows": ("", ["tests/test_bad_input.py"]),
    "R19 two processes": (
        "two_processes or twice_at_once or builds_at_once",
        [
            *(f"tests/test_{name}.py" for name in ("journal", "bases", "cardfiles")),
            *(f"tests/test_leaderboard_{name}.py" for name in ("parts", "workflow")),
        ],
    ),
    "R20, R21 serving": ("", ["tests/test_server.py"]),
    "R22 forged cards": ("", ["tests/test_hostile_cards.py", "tests/test_verification.py"]),
    "R22 forged evidence": ("", ["tests/test_evidence.py"]),
    "R23 the same twice": ("batch or equal_requests", ["tests/test_engines.py"]),
    "R25 keys and tokens": (
        "token or key or password or litellm or may_not_be_published",
        [*(f"tests/test_{name}.py" for name in ("security", "endpoints", "hosted", "strangers", "push"))],
    ),
    "shapes of endpoints": ("shape or field or probabilities or echoes", ["tests/test_endpoints.py"]),
    "endpoints": ("", ["tests/test_endpoints.py", "tests/test_hosted.py"]),
    "text shown as text": (
        "text_of_strangers or steer_no_terminal or is_markup",
        [*(f"tests/test_{name}.py" for name in ("security", "strangers", "hostile_cards"))],
    ),
    "your files": (
        "removes or swept or somebody_elses",
        [*(f"tests/test_{name}.py" for name in ("files", "strangers", "bad_input"))],
    ),
    "kills of a sweep": ("kill", ["tests/test_grid.py"]),
}  # fmt: skip


MARKED = "not browser and not network and not vllm and not gpu"  # slow ones, too


def tested(name: str, out: Path) -> dict[str, Any] | None:
    """Run the tests of a row, once; what they counted."""
    log = out / f"tests {name}.jsonl".replace(" ", "-").replace(",", "")
    if log.is_file():
        return None
    chosen, files = TESTS[name]
    report = out / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        MARKED,
        f"--junitxml={report}",
        *files,
    ]
    subprocess.run([*command, *(["-k", chosen] if chosen else [])], cwd=ROOT, capture_output=True, check=False)
    suite = next(ET.parse(report).getroot().iter("testsuite")).attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    line = {"cases": int(suite["tests"]) - int(suite["skipped"]), "failed": failed, "seconds": float(suite["time"])}
    log.write_text(json.dumps(line) + "\n")
    return line


# ---------------------------------------------------------------- run, page


def done(arguments: list[str]) -> None:
    """A command, without any fault."""
    code, said, _ = ended(started(arguments))
    if code:
        sys.exit(f"The small world could not be made: {said}")


def run(names: list[str], count: int, seed: int, hours: float, out: Path) -> None:
    """Every campaign, or those whose name holds one of ``names``; goes on where an earlier run was stopped."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_XET": "1"}  # read when the Hub's client is imported
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    import fuzzed
    import lm_eval.models.huggingface  # noqa: F401  imported once, for all forks
    import peft  # noqa: F401

    until = time.monotonic() + 3_600 * hours
    out.mkdir(parents=True, exist_ok=True)
    os.environ["FINBENCH_CACHE"] = str((out / "cache").resolve())
    wanted = lambda title: not names or any(name in title for name in names)  # noqa: E731
    world = made(out.resolve() / "world", done)
    commands = works(world)
    titles = [f"{name} {what}" for what in FAULTS for name in commands]
    titles += [*(f"fuzz {reader}" for reader in fuzzed.READERS), *(f"tests {name}" for name in TESTS)]
    for name in names:
        if not any(name in title for title in titles):
            sys.exit(f"No campaign's name holds {name!r}: COMMAND FAULT, fuzz READER or tests ROW, as in {PAGE.name}.")
    for what in FAULTS:
        for name, work in commands.items():
            if not wanted(f"{name} {what}"):
                continue
            if work.without:
                print(f"{name}, {what}: not run, {work.without} is not installed here", flush=True)
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


def counted(out: Path) -> dict[str, Any]:
    """What lies in ``out`` in few numbers, laid over what was counted before; kept in ``COUNTS``."""
    whole = json.loads(COUNTS.read_text()) if COUNTS.is_file() else {"faults": {}, "readers": {}, "tests": {}}
    for what in FAULTS:
        for log in sorted(out.glob(f"*-{what.replace(' ', '-')}.jsonl")):
            if log.name.startswith("tests-"):  # those of R19 are called like a fault
                continue
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            row = {key: sum(line[key] for line in lines) for key in ("lost", "traced", "silent")}
            row |= {"cases": len(lines), "seconds": max(line["seconds"] for line in lines)}
            row["stopped"] = sum(1 for line in lines if line["code"])
            row["memory"] = max(line["memory"] for line in lines)
            whole["faults"].setdefault(what, {})[log.stem.removesuffix("-" + what.replace(" ", "-"))] = row
    for log in sorted(out.glob("fuzz-*.json")):
        line = json.loads(log.read_text())
        whole["readers"][line["reader"]] = {key: line[key] for key in ("inputs", "traced", "seconds", "memory")}
    for name in TESTS:
        log = out / f"tests {name}.jsonl".replace(" ", "-").replace(",", "")
        if log.is_file():
            whole["tests"][name] = json.loads(log.read_text())
    COUNTS.write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def tables(whole: dict[str, Any]) -> str:
    """The tables of the page."""
    rows = [
        "| fault | on | cases | stopped it | lost | traced | silent | longest, s | most memory, GB |",
        "|--|--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for what, (_, which) in FAULTS.items():
        for on, row in sorted(whole["faults"].get(what, {}).items()):
            numbers = " | ".join(str(row[key]) for key in ("cases", "stopped", "lost", "traced", "silent"))
            most = f"{row['seconds']:.1f} | {row['memory'] / 2**30:.2f}"
            rows.append(f"| {what} ({which}) | {on.replace('-', ' ')} | {numbers} | {most} |")
    rows += ["", "| reader | inputs | traced | longest, s | most memory, GB |", "|--|--:|--:|--:|--:|"]
    for reader, row in sorted(whole["readers"].items()):
        shown = f"{row['seconds']:.2f} | {row['memory'] / 2**30:.2f}"
        rows.append(f"| {reader} | {row['inputs']} | {row['traced']} | {shown} |")
    rows += ["", "| what | tests | failed | seconds |", "|--|--:|--:|--:|"]
    for name in TESTS:
        row = whole["tests"].get(name)
        rows.append(
            f"| {name} | {row['cases']} | {row['failed']} | {row['seconds']:.0f} |"
            if row
            else f"| {name} | not run | | |"
        )
    return "\n".join(rows)


def page(out: Path) -> None:
    """Write the tables of what was counted here and before."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(START)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n{tables(counted(out))}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("names", nargs="*", help="campaigns whose name holds one of these; all")
    parser.add_argument("--count", type=int, default=100, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "faults")
    given = parser.parse_args()
    if given.what == "run":
        run(given.names, given.count, given.seed, given.hours, given.out)
    else:
        page(given.out)
