"""docs/leaderboard.png, from leaderboards/index.html in Chromium.

python docs/screenshots.py        needs pip install -e ".[browser]" and Chromium ($FINBENCH_CHROMIUM names another)
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

HERE = Path(__file__).resolve().parent
PAGE = f"file://{HERE.parent / 'leaderboards' / 'index.html'}"


def main() -> None:
    """Financial PhraseBank, of which 74 % are in the data here, on a desktop."""
    with sync_playwright() as api:
        chromium = os.environ.get("FINBENCH_CHROMIUM") or shutil.which("chromium")
        browser = api.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(f"{PAGE}#sentiment")
        page.locator("[data-test]", has_text="fpb, ").first.click()
        expect(page.locator(".plot svg")).to_have_count(2, timeout=30_000)  # the page's policy forbids waiting by eval
        page.screenshot(path=HERE / "leaderboard.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
