"""The vendors' own request models, by way of the stand-ins in tests/providers, without their
servers."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override

from kong_ai_proxy.exchange.messages import UpstreamRequest
from tests import providers
from tests.golden.fixture import AWS
from tests.providers import Recorded, Turn, Upstream
from tests.providers.ollama_api import Ollama
from tests.providers.openai_api import OpenAI


class _OpenServer(OpenAI):
    """A server that asks for no key, and takes what those of open models take."""

    def __init__(self) -> None:
        super().__init__(takes={"top_k": int, "reasoning_effort": str})

    @override
    def authorize(self, request: Recorded) -> None:
        """Anybody may."""


def _judge(row: str) -> Upstream | None:
    """The stand-in for a row of the matrix."""
    vendors = {
        "anthropic": providers.anthropic,
        "cohere": providers.cohere,
        "gemini": providers.gemini,
        "huggingface": providers.huggingface,
        "mistral-openai": providers.mistral,
        "vertex": providers.vertex,
    }
    if row == "llama2-raw":
        return providers.huggingface()
    if row in vendors:
        return vendors[row]()
    if row == "bedrock":
        return providers.bedrock(AWS.access_key_id, AWS.secret_access_key)
    if row.endswith("ollama"):
        return Ollama()
    if row == "databricks":
        return providers.openai(refuses=["stream_options"])
    return providers.openai() if row in ("openai", "azure") else _OpenServer()


def check(row: str, upstream: UpstreamRequest, body: bytes, more: Mapping[str, str]) -> None:
    """Raises tests.providers.upstream.RefusedError for what the vendor would refuse. `more` are the
    client's headers that go on."""
    judge = _judge(row)
    if judge is None:
        return
    headers: CIMultiDict[str] = CIMultiDict(more)
    for name, value in upstream.set_headers.items():
        headers[name] = value
    place = upstream.address
    headers["Host"] = place.host
    seen = Recorded(upstream.method, place.path, place.query, CIMultiDictProxy(headers), body)
    judge._answer(seen, Turn())
