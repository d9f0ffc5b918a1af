"""Gemini's own format: generateContent, streamGenerateContent and embeddings.

https://ai.google.dev/api/generate-content, and the same of Vertex AI:
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kong_ai_proxy.formats.codec import (
    ChatCodec,
    Context,
    EmbeddingsCodec,
    EmbeddingsProvider,
    StreamReader,
    StreamWriter,
)
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Answer, Delta
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.gemini import embeddings as gemini_embeddings
from kong_ai_proxy.formats.gemini import errors as gemini_errors
from kong_ai_proxy.formats.gemini import parse as gemini_parse
from kong_ai_proxy.formats.gemini import read as gemini_read
from kong_ai_proxy.formats.gemini import render as gemini_render
from kong_ai_proxy.formats.gemini import write as gemini_write

_SSE = "text/event-stream"
_JSON = "application/json"


class _Generate:
    """generateContent and streamGenerateContent, both sides."""

    stream_types = frozenset({_SSE, _JSON})

    def __init__(self, name: str, framing: Literal["sse", "array"]) -> None:
        self.name = name
        self.stream_type = _SSE if framing == "sse" else _JSON
        self._framing: Literal["sse", "array"] = framing

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        """A client's request. Model and streaming are said by its path. Raises FormatError."""
        return gemini_parse.conversation(body, model, stream)

    def render_request(self, conversation: Conversation) -> Rendered:
        """A provider's request: the model's name only decides how it is said. Raises FormatError,
        with Kong's text for a system prompt that the model does not know."""
        return gemini_render.request(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        """A whole answer. Raises FormatError where it is none."""
        return gemini_read.parse_answer(value)

    def render_answer(self, answer: Answer, context: Context) -> object:
        """A whole answer for a client."""
        return gemini_write.render_answer(answer, context)

    def reader(self) -> StreamReader:
        """For one stream, of events or an array."""
        return gemini_read.Reader()

    def writer(self, context: Context) -> StreamWriter:
        """For one stream to a client."""
        return gemini_write.Writer(context, self._framing)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """A provider's error of any content."""
        return gemini_errors.parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        """An error for a client."""
        return gemini_errors.render_error(error)


GENERATE: ChatCodec = _Generate("gemini/generate", "sse")
GENERATE_ARRAY: ChatCodec = _Generate("gemini/generate", "array")
"""For clients of streamGenerateContent that did not ask `alt=sse`: they get a JSON array. It has
the same name, for it is the same format: from Google such a client gets Google's own array."""

EMBED: EmbeddingsCodec = gemini_embeddings.EMBED
"""batchEmbedContents of the Gemini API."""
EMBED_ONE: EmbeddingsCodec = gemini_embeddings.EMBED_ONE
"""embedContent."""
VERTEX_EMBED: EmbeddingsProvider = gemini_embeddings.VERTEX_EMBED
"""batchEmbedContents of Vertex AI."""
VERTEX_EMBEDDINGS: EmbeddingsProvider = gemini_embeddings.PREDICT
"""predict of Vertex AI's models for embeddings."""
