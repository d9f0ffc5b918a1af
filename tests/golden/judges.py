"""The vendors' own request models, by way of the stand-ins in tests/providers, without their
servers."""

from __future__ import annotations

import time

from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override

from tests import providers
from tests.golden.fixture import AWS, Golden
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


def _judge(row: str) -> Upstream:
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


def check(row: str, golden: Golden) -> None:
    """Raises tests.providers.upstream.RefusedError for what the vendor would refuse of a fixture's
    request. Stand-ins look at a signature's time, so that it is made now."""
    _, upstream = golden.attempt(now=time.time())
    body = upstream.body if isinstance(upstream.body, bytes) else golden.sent
    place = upstream.address
    headers: CIMultiDict[str] = CIMultiDict(upstream.set_headers)
    headers["Host"] = place.host
    headers.setdefault("Content-Type", "application/json")
    seen = Recorded(upstream.method, place.path, place.query, CIMultiDictProxy(headers), body)
    _judge(row)._answer(seen, Turn())
