"""Where a sweep's results lie: a folder that every node sees, or any URL that fsspec knows (s3://, gs://, ...).

    sweep.yaml            the file as it was given
    steps/<key>.json      one finished or failed step: the only state that decides what is done
    progress.json         what the driver is doing, for `finbench sweep status`
    searches/ adapters/   what the steps made, each folder named by its cell
    scorecards/           a card with its samples for every adapter and base
    logs/<key>.txt        the trace of a step that failed by a bug

A folder is worked in as it is. At a URL, a worker works in a folder of its own node and sends what it made when
the step is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core.errors import FinbenchError
from finbench.core.files import digest, write_atomic


class Place:
    """The results of one sweep, at a path or URL."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as fault:
            raise FinbenchError(f"{url} is no place for results ({fault}).", "A folder, or a URL of fsspec.") from fault
        self.url = url
        protocols = self.files.protocol if isinstance(self.files.protocol, tuple) else (self.files.protocol,)
        self.folder = Path(self.root) if "file" in protocols else None
        if self.folder is not None and any(map(os.path.isfile, (self.folder, *self.folder.parents))):
            raise FinbenchError(f"{url} is no folder.", "Name one for the results: runs/NAME, or a URL of fsspec.")

    def work(self) -> Path:
        """Where a worker of this node works."""
        if self.folder is not None:
            return self.folder
        return Path(tempfile.gettempdir()) / f"finbench-sweep-{digest(self.url)[:12]}"

    def write(self, name: str, text: str) -> None:
        """One small file, whole or not at all."""
        if self.folder is not None:
            write_atomic(self.folder / name, text)
            return
        with self._said(name):
            self.files.pipe_file(f"{self.root}/{name}", text.encode("utf-8"))  # an object is there when it is whole

    def read(self, name: str) -> str | None:
        """The text of a small file; None if it is not there."""
        with self._said(name):
            try:
                return str(self.files.cat_file(f"{self.root}/{name}").decode("utf-8"))
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Remove a small file, if it is there."""
        with self._said(name), contextlib.suppress(FileNotFoundError):
            self.files.rm_file(f"{self.root}/{name}")

    def running(self) -> list[dict[str, Any]]:
        """What workers say they are doing: [{name, since, pid, keys}], oldest first. A killed worker's mark stays."""
        return sorted(self._all("running").values(), key=lambda mark: str(mark.get("since")))

    def clear(self) -> None:
        """Remove the marks of workers that were killed with an earlier driver."""
        for key in self._all("running"):
            self.remove(f"running/{key}.json")

    def steps(self) -> dict[str, dict[str, Any]]:
        """Every finished or failed step by its key; a torn file is passed over, so that its step is done again."""
        return self._all("steps")

    def _all(self, folder: str) -> dict[str, dict[str, Any]]:
        with self._said(folder):
            try:
                found = self.files.ls(f"{self.root}/{folder}", detail=False, refresh=True)
            except FileNotFoundError:
                return {}
            names = [name for name in found if name.endswith(".json")]
            texts = self.files.cat(names, on_error="omit") if names else {}
        read = {}
        for name, text in ({names[0]: texts} if isinstance(texts, bytes) else texts).items():
            with contextlib.suppress(ValueError, TypeError):
                read[Path(name).stem] = dict(json.loads(text))
        return read

    def folders(self) -> dict[str, str]:
        """Every folder of an adapter or a search, by kind and the digits at its end: what a person calls it may change.

        ``{"adapters/0a1b2c3d": "adapters/fpb-lora-s0-0a1b2c3d"}``
        """
        found = {}
        for kind in ("adapters", "searches"):
            with self._said(kind), contextlib.suppress(FileNotFoundError):
                for path in self.files.ls(f"{self.root}/{kind}", detail=False, refresh=True):
                    name = path.rstrip("/").rsplit("/", 1)[-1]
                    found[f"{kind}/{name[-8:]}"] = f"{kind}/{name}"
        return found

    def has(self, name: str) -> bool:
        """Whether a file of the results is there."""
        with self._said(name):
            return bool(self.files.exists(f"{self.root}/{name}"))

    def fetch(self, name: str) -> Path:
        """An adapter's folder of the results, on this node; what a killed training left here is no adapter."""
        target = self.work() / name
        if self.folder is None and not (target / "finbench.json").is_file():
            half = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
            with self._said(name):
                self.files.get(f"{self.root}/{name}/", f"{half}/", recursive=True)
                shutil.rmtree(target, ignore_errors=True)
                half.rename(target)
        return target

    def send(self, name: str) -> None:
        """A folder that was made on this node, to the results."""
        if self.folder is None:
            with self._said(name):
                self.files.put(f"{self.work() / name}/", f"{self.root}/{name}/", recursive=True)

    def fetch_cards(self, target: Path, wanted: Collection[str] | None = None) -> int:
        """Copy the scorecards into a folder, those of one run as one; return how many. FinbenchError without any.

        ``wanted``: names of files; what is not there is passed over.
        """
        with tempfile.TemporaryDirectory() as scratch:
            with self._said("scorecards"):
                try:
                    names = self.files.ls(f"{self.root}/scorecards", detail=False, refresh=True)
                except FileNotFoundError:
                    names = []
                for name in names:
                    if name.endswith((".json", ".samples.jsonl.zst")) and (wanted is None or Path(name).name in wanted):
                        (Path(scratch) / Path(name).name).write_bytes(bytes(self.files.cat_file(name)))
            cards = sorted(Path(scratch).glob("*.json"))
            if not cards and wanted is None:
                raise FinbenchError(f"No scorecard is in {self.url} yet.", f"finbench sweep status {self.url}")
            return len(cardfiles.gather(cards, target))

    def send_file(self, path: Path, name: str) -> None:
        """A file that was made on this node, to the results at a URL."""
        with self._said(name):
            self.files.pipe_file(f"{self.root}/{name}", path.read_bytes())

    @contextlib.contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """A store's own faults, whatever their kind, as one line."""
        try:
            yield
        except FinbenchError:
            raise
        except Exception as fault:
            what = f"{self.url.rstrip('/')}/{name}"
            text = " ".join(str(fault).split())[:200] or type(fault).__name__
            message = f"{what} cannot be read or written ({text})."
            raise FinbenchError(message, "The same command goes on.") from fault


_LEASE, _LAPSES, _SETTLES = "lease.json", 120.0, 1.0  # seconds after which a lease that nobody renews is no one's


class Lease:
    """Who works at a URL: a store has no locks, so a small file says it, and is renewed as long as that is so.

    Of two that begin at one moment the last to write has it; the other sees that after a second, or when it renews.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.own = place, uuid.uuid4().hex

    def take(self) -> None:
        """FinbenchError if somebody else works there."""
        self.renew()
        time.sleep(_SETTLES)
        self.renew()

    def renew(self) -> None:
        """Still here. FinbenchError if somebody else is, too."""
        by, renewed = self._held()
        if by != self.own and time.time() - renewed < _LAPSES:
            raise FinbenchError(f"Another sweep works in {self.place.url}.", "Wait for it (two minutes after a kill).")
        self.place.write(_LEASE, json.dumps({"by": self.own, "renewed": time.time()}))

    def release(self) -> None:
        """Let the next one in at once."""
        if self._held()[0] == self.own:
            self.place.remove(_LEASE)

    def _held(self) -> tuple[str, float]:
        """(by whom, when renewed); a torn or foreign file is nobody's."""
        try:
            found = json.loads(self.place.read(_LEASE) or "{}")
            return str(found.get("by", "")), float(found.get("renewed", 0))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return "", 0.0
