"""Upstream stand-ins for the text providers, on free ports of this machine.

Each checks every request with the vendor's own machine-readable models, answers one that does not
validate with 400 in the vendor's error shape and notes why in `failures`, and answers the others
with objects that the same models take. They know no model: what is answered is scripted.

    async with providers.anthropic() as upstream:
        upstream.script(text="Hello.")  # for all requests from now on
        upstream.script(Turn(tool_calls=[ToolCall("add", {"a": 1})]), Turn(text="Two."))
        ...  # point the plugin at upstream.url
        assert upstream.failures == []
        assert upstream.requests[-1].headers["x-api-key"] == "secret"
        assert upstream.requests[-1].json["max_tokens"] == 100

`upstream.url` has no path: `upstream_url` is `upstream.url + "/v1/messages"`, and so on. A `Turn`
says what the model answers (text, parallel tool calls, thinking, why it stopped, usage), how it
fails (`status=529`, `stream_error="Overloaded"`, `body=b"<html>"`) and how the bytes leave
(`encoding="gzip"`, `piece=7`, `delay=0.01`, `cut=300`, `hold=asyncio.Event()`). A request that
breaks a rule is refused before a scripted failure is given, and a failure scripted for an embedding
or a count works as well. `await upstream.wait_for(lambda: upstream.disconnects == 1)` waits for a
client to leave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tests.providers.upstream import Recorded, ToolCall, Turn, Upstream, Usage

if TYPE_CHECKING:  # the vendors' packages are loaded by those who use them
    from tests.providers.anthropic_api import Anthropic
    from tests.providers.bedrock_api import Bedrock
    from tests.providers.cohere_api import Cohere
    from tests.providers.gemini_api import Gemini, Vertex
    from tests.providers.huggingface_api import HuggingFace
    from tests.providers.mistral_api import Mistral
    from tests.providers.ollama_api import Ollama
    from tests.providers.openai_api import OpenAI

__all__ = [
    "Recorded",
    "ToolCall",
    "Turn",
    "Upstream",
    "Usage",
    "anthropic",
    "bedrock",
    "cohere",
    "gemini",
    "huggingface",
    "mistral",
    "ollama",
    "openai",
    "vertex",
]


def anthropic() -> Anthropic:
    """Anthropic: messages, counting tokens, text completions."""
    from tests.providers.anthropic_api import Anthropic

    return Anthropic()


def gemini() -> Gemini:
    """Gemini's public API: content, embeddings, counting tokens."""
    from tests.providers.gemini_api import Gemini

    return Gemini()


def vertex() -> Vertex:
    """Vertex: Gemini's content and embeddings, and Claude."""
    from tests.providers.gemini_api import Vertex

    return Vertex()


def bedrock(
    access_key: str = "AKIASTANDIN",
    secret_key: str = "stand-in-secret",
    token: str | None = None,
    region: str = "us-east-1",
) -> Bedrock:
    """Bedrock's runtime, which checks signatures made with these credentials in this region."""
    from tests.providers.bedrock_api import Bedrock

    return Bedrock(access_key, secret_key, token, region)


def cohere() -> Cohere:
    """Cohere: chat, embed and rerank of version 2, generate of version 1."""
    from tests.providers.cohere_api import Cohere

    return Cohere()


def mistral() -> Mistral:
    """Mistral: chat and embeddings."""
    from tests.providers.mistral_api import Mistral

    return Mistral()


def openai(
    takes: Mapping[str, Any] | None = None,
    refuses: Collection[str] = (),
    reasoning: str | None = None,
) -> OpenAI:
    """OpenAI, Azure and providers that copy OpenAI: chat, completions and embeddings.

    Databricks is `openai(refuses=["stream_options"])`, DeepSeek
    `openai(reasoning="reasoning_content")`, a vLLM `openai(takes={"top_k": int})`.
    """
    from tests.providers.openai_api import OpenAI

    return OpenAI(takes, refuses, reasoning)


def ollama() -> Ollama:
    """Ollama's own API: chat, generate, embed. Its copy of OpenAI's is `openai()`."""
    from tests.providers.ollama_api import Ollama

    return Ollama()


def huggingface() -> HuggingFace:
    """Hugging Face: TGI and the router's chat and feature extraction."""
    from tests.providers.huggingface_api import HuggingFace

    return HuggingFace()
