"""``finbench try``: a page on this machine that asks an adapter and its base, side by side."""

from __future__ import annotations

import os
import threading
from typing import Any

from finbench.core.catalog import PREFIX
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.evaluation import Asker

_LONGEST = 20_000  # characters of a question


def build(asker: Asker) -> Any:
    """The page as gradio has it; asking is one at a time, for there is one model in memory."""
    gradio = _gradio()
    at_work = threading.Lock()

    def answer(text: str) -> list[Any]:
        try:
            with at_work:
                replies = asker.ask(text[:_LONGEST])
        except FinbenchError as fault:
            raise gradio.Error(str(fault)) from fault
        shown: list[Any] = []
        for reply in replies:
            shown += [reply.probabilities] if asker.labels else []
            shown.append(reply.answer or "(nothing)")
        return shown

    plain = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # no font from elsewhere
    made = {"title": "finbench try", "analytics_enabled": False}
    with gradio.Blocks(**made) as page:
        gradio.Markdown(f"## {asker.task.name.removeprefix(PREFIX)}: the base and the adapter, side by side")
        text = gradio.Textbox(label="Sentence", lines=3, max_length=_LONGEST)
        button = gradio.Button("Ask", variant="primary")
        outputs: list[Any] = []
        with gradio.Row():
            for name in asker.names:
                with gradio.Column(min_width=280):
                    if asker.labels:
                        outputs.append(gradio.Label(label=name))
                    outputs.append(gradio.Textbox(label=f"answer of {name}"))
        examples = [[str(row["text"])] for row in asker.task.examples if row.get("text")]
        if examples:
            gradio.Examples(examples, inputs=text, cache_examples=False)
        gradio.on([button.click, text.submit], answer, inputs=text, outputs=outputs, api_name="ask")
    page.finbench_theme = plain
    return page


def try_page(
    adapter: str, *, task: str | None = None, base: str | None = None, host: str = "127.0.0.1", port: int = 7861
) -> None:
    """Load an adapter and its base, and serve the page until Ctrl-C. FinbenchError without gradio."""
    gradio = _gradio()
    asker = Asker(adapter, task, base=base)
    try:
        page = build(asker)
        where = {"server_name": host, "server_port": port or None, "share": False, "quiet": True, "inbrowser": False}
        try:
            _, url, _ = page.launch(**where, **_themed(gradio, page), prevent_thread_lock=True)
        except OSError as fault:
            raise FinbenchError(f"Port {port} of {host} cannot be taken: {fault}.", "Name another: --port 0") from fault
        say(f"Ask at {url}  (Ctrl-C ends it)")
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)
    finally:
        asker.close()


def _themed(gradio: Any, page: Any) -> dict[str, Any]:
    """Since version 6 a page gets its theme when it is launched."""
    return {"theme": page.finbench_theme} if int(gradio.__version__.partition(".")[0]) >= 6 else {}


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as fault:
        raise FinbenchError("The page needs gradio, which is not installed.", install("try")) from fault
    return gradio
