"""A built leaderboard in Chromium: bytes of the first screen, time to interactive, search, filters, scrolling.

    python benchmarks/board_browser.py FOLDER [FOLDER ...]     folders with an index.html, as finbench leaderboard build
                                                               or benchmarks/board_scale.py makes them

Everything is opened from disk, in a window of 1360 x 900, and in one of a phone for the time to interactive. Times are
of the clock, so of the machine; "interactive" is when rows are there and the last task of over 50 ms is done.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

FIRST = ("index.html", "page/board.css", "page/board.js", "page/heads.js")
RUNS = 5
WORDS = ("s", "subject-1", "lora", "7", "nobody", "")
WATCH = """() => {
  window.seen = { rows: null, busy: 0 };
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) seen.busy = Math.max(seen.busy, task.startTime + task.duration);
  }).observe({ type: "longtask", buffered: true });
  new MutationObserver((_, observer) => {
    if (!document.querySelector("tbody .open")) return;
    seen.rows = performance.now();
    observer.disconnect();
  }).observe(document, { childList: true, subtree: true });
}"""
TYPED = """async ([id, word]) => {
  const before = performance.now();
  const input = document.getElementById(id);
  input.value = word;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - before;
}"""
SCROLLED = """async () => {
  const frame = document.querySelector(".windowed");
  if (!frame) return null;
  const times = [];
  let before = performance.now();
  for (let step = 0; step < 150; step++) {
    frame.scrollTop += 300;
    await new Promise((done) => requestAnimationFrame(done));
    times.push(performance.now() - before);
    before = performance.now();
  }
  return times;
}"""


def interactive(browser: Any, url: str, **window: Any) -> list[float]:
    """Milliseconds from the start of navigation until the page of ``url`` is interactive, each time anew."""
    times = []
    for _ in range(RUNS):
        context = browser.new_context(**window)
        context.add_init_script(f"({WATCH})()")
        page = context.new_page()
        page.goto(url)
        page.locator("tbody .open").first.wait_for()
        page.wait_for_timeout(1500)
        seen = page.evaluate("window.seen")
        times.append(max(seen["rows"], seen["busy"]))
        context.close()
    return times


def latency(page: Any) -> dict[str, float]:
    """Milliseconds until a search or a filter is drawn: the median and the longest."""
    method = page.evaluate("document.getElementById('f-method').options[1].value")
    asked = [("q", word) for word in WORDS] + [("f-method", method), ("f-method", "")]
    times = [page.evaluate(TYPED, list(one)) for one in asked for _ in range(2)]
    return {"median": round(statistics.median(times)), "longest": round(max(times))}


def measured(folder: Path) -> dict[str, Any]:
    """All numbers of a folder."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {"first_bytes": sum((folder / name).stat().st_size for name in FIRST)}
    found["page_files"] = sum(path.is_file() for path in (folder / "page").rglob("*"))
    url = (folder.resolve() / "index.html").as_uri()
    with sync_playwright() as api:
        chromium = os.environ.get("FINBENCH_CHROMIUM") or shutil.which("chromium")
        browser = api.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        desktop: dict[str, Any] = {"viewport": {"width": 1360, "height": 900}}
        phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
        for name, window in (("desktop", desktop), ("phone", phone)):
            found[f"interactive_ms_{name}"] = round(statistics.median(interactive(browser, url, **window)))
        page = browser.new_page(**desktop)
        page.goto(url)
        family = page.locator("[role=tab]").nth(1).get_attribute("data-tab")
        for tab in ("overview", family):
            page.locator(f"#tab-{tab}").click()
            page.locator("tbody .open").first.wait_for()
            page.wait_for_timeout(1000)
            where = "overview" if tab == "overview" else "task"
            found[f"search_ms_{where}"] = latency(page)
            if times := page.evaluate(SCROLLED):
                found[f"frame_ms_{where}"] = {
                    "median": round(statistics.median(times), 1),
                    "p95": round(sorted(times)[int(0.95 * len(times))], 1),
                    "longest": round(max(times), 1),
                }
        browser.close()
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, json.dumps(measured(Path(name)), indent=1), flush=True)
