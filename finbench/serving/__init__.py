"""An OpenAI-compatible server of a base and its adapters, by vLLM; and a page to try one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.serving import remote
    from finbench.serving.page import try_page
    from finbench.serving.vllm_server import Server, serve
else:
    __getattr__ = face(__name__)

__all__ = ["Server", "remote", "serve", "try_page"]
