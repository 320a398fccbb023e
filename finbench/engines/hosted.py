"""Hosted models by LiteLLM: it knows every provider's way of asking, and their prices; requests go out by our wire.

LiteLLM writes the request and reads the answer. What it would send comes by ``_sent``, so that redirects, sizes,
time, retries and keys are the same as for any other endpoint, and nothing is sent that is not a request to the model.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from finbench.core.errors import FinbenchError, reason, shortened
from finbench.core.installing import install
from finbench.engines.http import NoConnection, Passing, Rejected, Wire, checked_address
from finbench.engines.spending import Prices

_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)  # in a variable's name ...
_LOOKS_SO = re.compile(r"(?=\S*\d)\S{12,}")  # ... whose value looks like one
_LOOKUPS = ("/api/show", "/config.json", "/raw/main/config.json")  # of facts about the model, which nobody needs
_here = threading.local()  # the ``LiteLLMWire`` that asks in this thread, and what came of it


def installed() -> bool:
    """Whether LiteLLM can be imported."""
    return importlib.util.find_spec("litellm") is not None


@functools.cache
def _litellm() -> Any:
    """LiteLLM, silent, without calls to anybody but the model, and sending by our wire."""
    if not installed():
        raise FinbenchError("Hosted models are asked by LiteLLM, which is not installed.", install("api"))
    os.environ.update(
        LITELLM_OFFLINE_MODE="true",  # else it fetches prices, and more, when it is imported
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_MODE="PRODUCTION",  # else it reads the .env of the current folder
        LITELLM_LOG="CRITICAL",  # DEBUG writes requests with their keys
    )
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "openai", "openai._base_client"):
        logging.getLogger(name).disabled = True
    import httpx
    import litellm
    from litellm.llms.custom_httpx import http_handler

    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).disabled = True

    class OurWire(httpx.BaseTransport):
        def handle_request(self, request: Any) -> Any:
            state, text = _sent(request.method, str(request.url), request.headers, request.read())
            return httpx.Response(state, headers={"Content-Type": "application/json"}, content=text, request=request)

    def client(*_: Any) -> Any:
        return httpx.Client(transport=OurWire(), trust_env=False)

    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.client_session = client()
    http_handler.HTTPHandler.create_client = client
    return litellm


def _sent(method: str, url: str, headers: Mapping[str, str], content: bytes) -> tuple[int, bytes]:
    """What LiteLLM is given for a request; a fault is kept for ``once``, and is 400, which no library tries again."""
    wire: LiteLLMWire | None = getattr(_here, "wire", None)
    if wire is None or method != "POST" or urlsplit(url).path.endswith(_LOOKUPS):
        return 404, b"{}"
    left = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
    left = {name: value for name, value in left.items() if name.lower() not in ("accept-encoding", "connection")}
    try:
        keyed = any(name.lower() in ("authorization", "x-api-key", "x-goog-api-key", "api-key") for name in left)
        checked_address(url.partition("?")[0], keyed)
        _here.found, _here.sent = wire.exchange(method, url, left, content), True
    except (Passing, FinbenchError, NoConnection) as fault:
        _here.fault = fault
        return 400, json.dumps({"error": {"message": "finbench has told it"}}).encode()
    return 200, json.dumps(_here.found).encode("ascii")


class LiteLLMWire(Wire):
    """``model`` as LiteLLM names it, "anthropic/claude-..."; ``url`` where it is not the provider's own address."""

    def __init__(self, model: str, url: str | None = None, **how: Any) -> None:
        library = _litellm()
        try:
            self.model, self.provider, _, _ = library.get_llm_provider(model)
        except Exception as fault:
            raise FinbenchError(
                f"LiteLLM knows no provider of {shortened(model)!r}.",
                "Name it: --model openai/NAME, anthropic/NAME, gemini/NAME, huggingface/OWNER/NAME, ...",
            ) from fault
        self.asked, self.url, self.library = model, url.rstrip("/") if url else None, library
        own = checked_address(url, keyed=False) if url else False
        secrets = {value for name, value in os.environ.items() if _SECRET.search(name) and _LOOKS_SO.fullmatch(value)}
        longest_first = sorted(secrets, key=len, reverse=True)
        super().__init__(self.provider, tuple(longest_first), own=own, **how)
        missing = self._missing()
        if missing:
            raise FinbenchError(
                f"No key for {self.provider}: {' or '.join(missing)} is not set.", f"export {missing[0]}=..."
            )
        self.takes = frozenset(library.get_supported_openai_params(self.model, self.provider) or ())

    def _missing(self) -> list[str]:
        """Environment variables without which the provider cannot be asked."""
        stated = self.library.validate_environment(self.asked, api_base=self.url)
        missing = [] if stated.get("keys_in_environment") else list(stated.get("missing_keys") or ())
        if self.provider == "huggingface" and os.environ.get("HF_TOKEN"):
            return []
        return [name for name in missing if name not in os.environ and not (self.url and name.endswith("_BASE"))]

    @property
    def key_hint(self) -> str:  # type: ignore[override]
        """What to type where the provider does not know the key."""
        names = self.library.validate_environment(self.asked).get("missing_keys") or [
            f"{self.provider.upper()}_API_KEY"
        ]
        return f"Set the key of {self.provider}: export {names[0]}=..."

    def prices(self) -> Prices | None:
        """By LiteLLM's table; None for a model that it does not have, or has at no price."""
        try:
            known = self.library.get_model_info(self.model, self.provider)
        except Exception:  # noqa: BLE001  it raises what it likes for a model that it does not know
            return None
        prompt, answer = known.get("input_cost_per_token"), known.get("output_cost_per_token")
        thought = known.get("output_cost_per_reasoning_token") or 0.0
        if not (prompt or answer):
            return None
        version = importlib.metadata.version("litellm")
        return Prices(1e6 * (prompt or 0.0), 1e6 * max(answer or 0.0, thought), f"LiteLLM {version}")

    def once(self, path: str, body: dict[str, Any] | None) -> Any:
        """One completion, in OpenAI's shape; name and fingerprint are those of the provider's own answer."""
        _here.wire, _here.sent, _here.found, _here.fault = self, False, None, None
        try:
            said = self.library.completion(
                **{**(body or {}), "model": self.asked}, api_base=self.url, timeout=self.timeout
            )
            answer = said.model_dump()
        except Exception as fault:
            if _here.fault is None and not _here.sent:  # it never came to a request
                raise self._unasked(fault) from fault
            if _here.fault is None:
                raise self.no_answer("with something that is no completion") from fault
            raise _here.fault from None
        finally:
            _here.wire = None
        if not _here.sent:
            raise FinbenchError(
                f"LiteLLM asks {self.provider} in a way that finbench cannot watch.",
                "Ask an OpenAI-compatible address of it: --engine server --arg url=https://...",
            )
        return self._as_answered(answer, _here.found)

    def _unasked(self, fault: Exception) -> FinbenchError:
        """LiteLLM's own refusal of a request, before anything was sent."""
        said = shortened(self.hidden(reason(fault)))
        param = next((name for name in re.findall(r"\w+", said) if name in (*self.takes, "max_tokens")), "")
        return Rejected(f"LiteLLM cannot ask {self.provider}: {said}", install("api"), 400, said, param)

    def _as_answered(self, answer: dict[str, Any], found: Any) -> dict[str, Any]:
        """LiteLLM fills in what a provider leaves out and smooths what is odd; the provider's own words count."""
        if isinstance(found, dict):
            for name, own in (("model", "model"), ("model", "modelVersion"), ("system_fingerprint",) * 2):
                if own in found:
                    answer[name] = found[own]
            if "model" not in found and "modelVersion" not in found:
                answer["model"] = None
            choices = found.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict) and answer.get("choices"):
                answer["choices"][0]["finish_reason"] = choices[0].get("finish_reason")
        return answer
