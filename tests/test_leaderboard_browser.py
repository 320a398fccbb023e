"""The leaderboard's page in Chromium: from disk and served, on desktop and phone, by mouse, keyboard and axe."""

from __future__ import annotations

import functools
import http.server
import itertools
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import boards
import finbench
from finbench import leaderboard
from finbench.data.sources import import_data
from finbench.leaderboard import published
from finbench.leaderboard.board import Board
from make_data import as_whole, write_sources

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason='no playwright: pip install -e ".[browser]"')

ROOT = Path(__file__).parent.parent
DESKTOP: dict[str, Any] = {"viewport": {"width": 1360, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Chromium of $FINBENCH_CHROMIUM or of the system."""
    found = os.environ.get("FINBENCH_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in FINBENCH_CHROMIUM")
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small leaderboard of real cards with the published numbers; do not write into it."""
    data = tmp_path_factory.mktemp("data")
    sources = write_sources(data / "sources")
    for name in ("fpb", "headlines", "fin_ner", "fiqa_sa"):
        import_data(name, sources[name], data)
    as_whole(data)
    place = boards.folder(tmp_path_factory.mktemp("site") / "leaderboards", data)
    shutil.copy(ROOT / "leaderboards" / published.FILE, place / published.FILE)
    leaderboard.build(place)
    return place


def write(folder: Path, board: Board) -> Path:
    for name, text in boards.texts(board).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def large(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 1,000 cards on eight tasks each."""
    board = boards.many(site / "scorecards" / "guess.json", 1000, tasks=8)
    return write(tmp_path_factory.mktemp("large"), board)


@pytest.fixture(scope="module")
def hostile(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cards whose every name is markup, script and Markdown at once."""
    board = boards.many(site / "scorecards" / "guess.json", 3, tasks=4, name=boards.HOSTILE)
    for entry in board.entries:
        entry.found.notes.append(boards.HOSTILE)
        entry.card.provenance.packages[boards.HOSTILE] = boards.HOSTILE
    return write(tmp_path_factory.mktemp("hostile"), board)


class Visit:
    """A page in a context of its own, with everything it says and asks for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on(
            "console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def heard(self, said: Any) -> None:
        """Errors and warnings of the console count as faults."""
        if said.type in ("error", "warning"):
            self.faults.append(said.text)

    def open(self, where: Path | str, fragment: str = "") -> Any:
        url = where if isinstance(where, str) else f"file://{where / 'index.html'}"
        self.page.goto(url + (f"#{fragment}" if fragment else ""))
        return self.page

    def beyond(self, home: str) -> list[str]:
        """Requests to anywhere else than below ``home``; data: URLs are none."""
        return [url for url in self.asked if not url.startswith((home, "data:"))]


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    """Opens visits and closes them; none may end with a message in the console."""
    visits: list[Visit] = []

    def new(**options: Any) -> Visit:
        visits.append(Visit(chromium, **options))
        return visits[-1]

    yield new
    faults = [fault for one in visits for fault in one.faults]
    for one in visits:
        one.context.close()
    assert faults == []


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("tbody .open").all_inner_texts()]


def drawn(page: Any) -> None:
    """Wait for both charts: by a locator, since the page's policy forbids the eval by which wait_for_function polls."""
    playwright.expect(page.locator(".plot svg, .plot .note")).to_have_count(2, timeout=30_000)


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_visit_from_disk(device: dict[str, Any], site: Path, visit: Any) -> None:
    one = visit(**device)
    page = one.open(site)
    assert page.title() == "finbench leaderboard"
    assert page.locator("#count").inner_text() == "3 subjects"
    assert page.locator("details.partial summary").inner_text().startswith("Partial results: not the whole test")
    page.locator("#tab-sentiment").click()
    page.locator(".pill", has_text="fpb").first.click()
    drawn(page)
    assert names(page)[0] == "adapter-2"
    assert page.locator("tbody .group").first.inner_text() == "1"

    page.locator("#q").fill("adapter")
    assert names(page) == ["adapter-2", "adapter-1"]
    assert page.locator("#count").inner_text() == "2 of 3 subjects"
    page.locator("#f-method").select_option("lora")
    assert names(page) == ["adapter-1"]
    page.locator("#q").fill("nobody")
    assert names(page) == []
    assert page.locator("#count").inner_text() == "0 of 3 subjects"
    page.evaluate("document.getElementById('filters').reset()")
    playwright.expect(page.locator("#count")).to_have_text("3 subjects")

    page.locator('[data-sort="score"]').click()
    assert page.locator("th[aria-sort=descending]").count() == 1
    page.locator('[data-sort="score"]').click()
    assert names(page)[-1] == "adapter-2"
    page.locator('[data-sort="name"]').click()
    assert names(page) == sorted(names(page))

    page.locator("tbody .open", has_text="adapter-2").click()
    drawer = page.locator("#drawer")
    assert drawer.is_visible()
    drawer.locator(".heat tbody tr").first.wait_for()  # a subject's details come as a script of their own
    text = drawer.inner_text()
    assert "finbench verify leaderboards/scorecards/gold.json" in text
    assert "samples-attached" in text
    assert drawer.locator(".heat tbody tr").count() == 3
    page.keyboard.press("Escape")
    assert not drawer.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "adapter-2"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert one.beyond(f"file://{site}") == []


def test_every_tab_by_keyboard(site: Path, visit: Any) -> None:
    page = visit(**DESKTOP).open(site)
    page.locator("#tab-overview").focus()
    seen = []
    for _ in range(page.locator("[role=tab]").count()):
        seen.append(page.evaluate("document.activeElement.textContent"))
        assert page.locator("[role=tabpanel]:visible").count() == 1
        page.keyboard.press("ArrowRight")
    assert seen[:4] == ["Overview", "Sentiment", "Headlines", "Entities"]
    assert seen[-2:] == ["Published by others", "How to read this"]
    assert page.evaluate("document.activeElement.textContent") == "Overview"


def test_an_address_names_tab_and_test(site: Path, visit: Any) -> None:
    page = visit(**DESKTOP).open(site, "ner")
    assert page.locator("h2").first.inner_text() == "fin_ner"
    page.locator(".pill.partial").click()
    page.locator("h2", has_text="partial: a sample of 10 rows").wait_for()  # its rows are read first
    address = page.url
    again = visit(**DESKTOP)
    again.open(address)
    again.page.locator("h2", has_text="partial: a sample of 10 rows").wait_for()


def test_served_it_asks_for_nothing_else(site: Path, large: Path, visit: Any) -> None:
    first = {"", "page/board.css", "page/board.js", "page/heads.js"}
    for folder in (site, large):
        handler = functools.partial(Quiet, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            home = f"http://127.0.0.1:{server.server_port}/"
            one = visit(**DESKTOP)
            page = one.open(home)
            page.locator("tbody .open").first.click()
            page.locator("#drawer h3", has_text="Reproduce it").wait_for()
            assert one.beyond(home) == []
            asked = {url.removeprefix(home) for url in one.asked if not url.startswith("data:")}
            assert first <= asked
            later = {name.split("/")[1] for name in asked - first}
            assert later == {"overview.js", "cards.js", "task", "details"}  # no charts, no other subject, no other task
            assert len(asked) == len(first) + 4
            server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_details_beside_the_page_are_read_when_asked_for_from_disk_too(large: Path, visit: Any) -> None:
    one = visit(**DESKTOP)
    page = one.open(large)
    assert not any("/details/" in url or "charts.js" in url for url in one.asked)
    page.locator("#q").fill("subject-2")
    page.locator("tbody .open", has_text="subject-2").first.click()
    page.locator("#drawer h3", has_text="Reproduce it").wait_for()
    assert sum("/details/" in url for url in one.asked) == 1
    assert not any("charts.js" in url for url in one.asked)


def test_a_thousand_cards_answer_a_filter_at_once(large: Path, visit: Any) -> None:
    """A keystroke takes the page less than 100 ms of processor time: script, layout and paint."""
    one = visit(**DESKTOP)
    page = one.open(large)
    session = one.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration"))

    typed = """async (word) => {
        document.getElementById("q").value = word;
        document.getElementById("q").dispatchEvent(new Event("input", {bubbles: true}));
        await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    }"""
    for tab in ("overview", "sentiment"):
        page.locator(f"#tab-{tab}").click()
        page.wait_for_timeout(500)
        times = []
        for word in ("subject-1", "7", "lora", "subject-99", ""):
            before = busy()
            page.evaluate(typed, word)
            times.append(busy() - before)
        print(f"{tab}: {', '.join(f'{time:.0f}' for time in times)} ms")
        assert sorted(times)[2] < 100, times
        assert page.locator("#count").inner_text() == "1,000 subjects"
        assert page.locator("tbody .open").count() < 100
    page.evaluate(typed, "subject-1")
    assert page.locator("#count").inner_text() == "111 of 1,000 subjects"
    assert page.locator("tbody .open").count() < 100  # of a wide table fewer rows are drawn as a whole
    page.evaluate(typed, "")
    page.get_by_role("button", name="Draw all 1,000 rows").click()
    assert page.locator("tbody .open").count() == 1000


def test_every_row_of_a_long_table_is_reached(large: Path, visit: Any) -> None:
    """By wheel, by keyboard, by search and by address; what is out of sight is counted and not drawn."""
    page = visit(**DESKTOP).open(large, "sentiment")
    frame = page.locator(".windowed")
    assert page.locator("table").get_attribute("aria-rowcount") == str(1001 + page.locator("tr.baseline").count())
    seen: dict[int, str] = {}
    height = frame.evaluate("place => place.clientHeight")
    for step in range(1000):
        lines = page.evaluate(
            "[...document.querySelectorAll('tr[aria-rowindex]')].map((row) => [row.ariaRowIndex, row.innerText])"
        )
        seen |= {int(at): text.split("\n")[1] for at, text in lines}
        assert len(lines) < 60
        before = frame.evaluate("place => place.scrollTop")
        frame.evaluate("(place, to) => { place.scrollTop = to }", (step + 1) * height)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if frame.evaluate("place => place.scrollTop") == before:
            break
    assert sorted(seen) == list(range(2, 1002))
    assert len(set(seen.values())) == 1000
    # the browser's search sees the rows in sight only, so that its key goes to ours
    frame.focus()
    page.keyboard.press("Control+f")
    assert page.evaluate("document.activeElement.id") == "q"
    last = seen[1001]
    page.keyboard.type(last)
    assert last in names(page)
    assert f"q={last}" in page.url
    again = visit(**DESKTOP)
    assert names(again.open(page.url)) == names(page)
    # by Tab, from the first row on, past what was drawn at first
    page.locator("#q").fill("")
    page.locator("tbody .open").first.focus()
    for _ in range(50):
        page.keyboard.press("Tab")
        page.wait_for_timeout(10)
    at = page.evaluate("document.activeElement.closest('tr').ariaRowIndex")
    assert int(at) == 52


def test_a_row_a_subject_and_two_subjects_have_addresses(site: Path, visit: Any) -> None:
    one = visit(**DESKTOP)
    page = one.open(site, "sentiment")
    page.locator("tbody .open", has_text="adapter-1").click()
    row, whole, compare = (page.locator(".links a").nth(at).evaluate("a => a.href") for at in (2, 0, 1))
    other = visit(**DESKTOP)
    other.page.goto(row)
    playwright.expect(other.page.locator("tr.here .open")).to_have_text("adapter-1")
    other.page.goto(whole)
    assert other.page.locator("h2").first.inner_text().startswith("adapter-1")
    assert other.page.title() == "adapter-1 – finbench leaderboard"
    assert "fpb" in other.page.locator("tbody").inner_text()
    assert other.page.locator("img").evaluate("image => image.naturalWidth") > 100
    other.page.get_by_role("button", name="Details: fpb").first.click()
    other.page.locator("#drawer h3", has_text="Reproduce it").wait_for()
    other.page.goto(compare)
    other.page.locator("#subject-2").fill("adapter-2")
    other.page.keyboard.press("Tab")
    step = other.page.locator(".step pre")
    assert "finbench compare 'leaderboards/scorecards/guess.json'" in step.inner_text()
    assert "both in group 1" in other.page.locator("tbody").inner_text()
    address = other.page.url
    third = visit(**PHONE)
    third.page.goto(address)
    third.page.locator(".step pre").wait_for()
    assert third.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for visited in (one, other, third):
        assert visited.beyond(f"file://{site}") == []


def test_what_is_not_beside_the_page_is_named(site: Path, tmp_path: Path, chromium: Any) -> None:
    place = tmp_path / "torn"
    shutil.copytree(site, place)
    shutil.rmtree(place / "page" / "task")
    one = Visit(chromium, **DESKTOP)
    page = one.open(place, "sentiment")
    assert "page/task/" in page.locator("[role=alert]").inner_text()
    one.context.close()


def test_hostile_names_are_only_names(hostile: Path, visit: Any) -> None:
    one = visit(**DESKTOP)
    page = one.open(hostile)
    assert names(page)[0].startswith("</script><img src=x onerror=")
    for tab in page.locator("[role=tab]").all():
        tab.click()
    page.locator("#tab-sentiment").click()
    drawn(page)
    page.locator(".plot svg .mark-symbol path").first.hover()
    page.locator("#vg-tooltip-element.visible").wait_for()
    assert page.locator("#vg-tooltip-element img").count() == 0
    page.locator("tbody .open").first.click()
    page.locator("#drawer h3", has_text="What could not be checked").wait_for()
    assert page.locator("body img").count() == 0
    assert page.evaluate("window.hacked") is None
    subjects = sorted((hostile / "page" / "subject").glob("*.html"))
    for path in [*subjects, *(hostile / "page" / "task").glob("*.html")]:
        page.goto(path.as_uri())
        page.locator("tbody th").first.wait_for()
        assert page.locator("body img[onerror]").count() == 0
        assert page.evaluate("window.hacked") is None
    page.goto(f"{(hostile / 'page' / 'compare.html').as_uri()}#a={subjects[0].stem}&b={subjects[1].stem}")
    page.locator(".step pre").wait_for()
    assert page.locator("body img").count() == 0
    for path in (hostile / "page" / "subject").glob("*.svg"):
        page.goto(path.as_uri())
        assert page.evaluate("document.querySelector('img, script') === null && !window.hacked")


def test_a_script_that_does_not_belong_to_the_page_does_not_run(site: Path, chromium: Any) -> None:
    one = Visit(chromium)
    page = one.open(site)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.alien = 1'}))"
    )
    assert page.evaluate("window.alien") is None
    refused = page.evaluate("fetch('https://example.org/').then(() => false, () => true)")
    assert refused
    assert sum("Content Security Policy" in fault for fault in one.faults) >= 2
    one.context.close()


def test_on_a_phone_what_thinking_cost_stands_beside_its_subject(site: Path, tmp_path: Path, visit: Any) -> None:
    """Strict, lenient, cut off, reasoning and price: scrolled to the last of them, the names are still there."""
    made = write(tmp_path / "thinking", boards.thinking(site / "scorecards" / "gold.json"))
    page = visit(**PHONE).open(made, "ner")
    heads = [text.split("\n")[0] for text in page.locator("thead th:visible").all_inner_texts()]
    assert heads == ["Group", "Subject", "Entity F1", "Parsed", "Lenient", "Cut off", "Thought", "Price"]
    region = page.locator(".scroll").first
    region.evaluate("place => place.scrollLeft = place.scrollWidth")
    frame, price = region.bounding_box(), page.locator("thead th:visible").last.bounding_box()
    assert price["x"] + price["width"] <= frame["x"] + frame["width"] + 1
    for name in page.locator("tbody .open").all():
        assert name.bounding_box()["x"] >= frame["x"] - 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    playwright.expect(page.locator(".plot svg, .plot .note")).to_have_count(4, timeout=30_000)
    shown = page.locator("figure:has(.plot svg) figcaption").all_inner_texts()
    assert [text.split(";")[0] for text in shown] == ["Score against reasoning", "Score against price"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(scheme: str, device: dict[str, Any], site: Path, large: Path, visit: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[browser]"').Axe()
    page = visit(color_scheme=scheme, reduced_motion="reduce", **device).open(site)

    def serious() -> list[Any]:
        # the page's policy forbids axe to fetch the style sheet, which only an experimental rule of it reads
        found = axe.run(page, options={"preload": False}).response["violations"]
        return [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]

    for tab in page.locator("[role=tab]").all():
        tab.click()
        if page.locator(".plot").count():
            drawn(page)
        assert serious() == [], tab.inner_text()
    page.locator("#tab-ner").click()
    page.locator("tbody .open").first.click()
    page.locator("#drawer h3", has_text="Reproduce it").wait_for()
    assert serious() == [], "drawer"
    subjects = sorted((site / "page" / "subject").glob("*.html"))
    both = f"a={subjects[0].stem}&b={subjects[1].stem}"
    addresses = [subjects[0].as_uri(), next((site / "page" / "task").glob("*.html")).as_uri()]
    for address in [*addresses, f"{(site / 'page' / 'compare.html').as_uri()}#{both}"]:
        page.goto(address)
        page.locator("tbody th").first.wait_for()
        assert serious() == [], address
    page.goto(f"file://{large / 'index.html'}#sentiment")
    page.locator(".windowed tbody .open").first.wait_for()
    assert serious() == [], "a long table"


def test_print_leaves_out_what_paper_cannot_do(site: Path, visit: Any) -> None:
    page = visit(**DESKTOP).open(site, "sentiment")
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator("tbody .open").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


def test_without_scripts_it_says_where_the_tables_are(site: Path, visit: Any) -> None:
    page = visit(java_script_enabled=False).open(site)
    assert "leaderboard.md" in page.locator("noscript").inner_text()


_BOXES = """plot => [...plot.querySelectorAll(".layer_3_marks text, .layer_4_marks text")].map(text => {
    const { left, right, top, bottom } = text.getBoundingClientRect();
    return { left, right, top, bottom };
})"""


def _overlap(one: Any, other: Any) -> bool:
    return all(
        one[low] < other[high] and other[low] < one[high] for low, high in (("left", "right"), ("top", "bottom"))
    )


def test_the_committed_page(visit: Any) -> None:
    one = visit(**DESKTOP)
    page = one.open(ROOT / "leaderboards")
    for tab in page.locator("[role=tab]").all():
        tab.click()
        if page.locator(".plot").count():
            drawn(page)
            for plot in page.locator(".plot").all():  # no name covers another
                boxes = plot.evaluate(_BOXES)
                assert boxes  # the best one's, at least
                assert not [pair for pair in itertools.combinations(boxes, 2) if _overlap(*pair)]
    page.locator("#tab-overview").click()
    page.locator("tbody .open", has_text=re.compile("^smollm2-135m$")).first.click()  # of one card
    page.locator("#drawer h3", has_text="Reproduce it").wait_for()
    assert one.beyond(f"file://{ROOT / 'leaderboards'}") == []


def test_plots_of_a_report_are_whole_on_a_phone(chromium: Any, tmp_path: Path) -> None:
    """What lay beyond the edge was where the adapters' dots are."""
    cards = [ROOT / "leaderboards" / "scorecards" / f"fpb-smollm2-135m{name}.json" for name in ("", "-lora-s0")]
    finbench.report(cards, format="html", out=tmp_path / "report.html")
    page = chromium.new_page(**PHONE)
    page.goto((tmp_path / "report.html").as_uri())
    wide = "[...document.querySelectorAll('.plots svg')].map((one) => one.getBoundingClientRect().right)"
    ends = page.evaluate(wide)
    page.close()
    assert len(ends) == 2
    assert max(ends) <= PHONE["viewport"]["width"]


def test_a_report_fits_a_phone_or_shows_that_it_goes_on(chromium: Any, tmp_path: Path) -> None:
    cards = ROOT / "leaderboards" / "scorecards"
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    for tasks, fits in ((["fpb"], True), ([], False)):
        out = tmp_path / f"{fits}.html"
        shown = [cards / "fpb-smollm2-135m.json", *sorted(cards.glob("fpb-smollm2-135m-lora-s*.json"))]
        finbench.report(shown, tasks=tasks, out=out)
        page.goto(out.as_uri())
        table = page.locator(".scroll").first
        assert (table.evaluate("one => one.scrollWidth <= one.clientWidth")) == fits
        assert table.evaluate("one => getComputedStyle(one).backgroundImage").count("linear-gradient") == 4
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
