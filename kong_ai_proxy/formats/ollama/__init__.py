"""Ollama's own API: /api/chat, /api/generate and /api/embed, as a provider.

Clients of this format cannot be configured, so there is no client's half.
Reference: https://github.com/ollama/ollama/blob/main/docs/api.md.
"""

from __future__ import annotations

from typing import Final

from kong_ai_proxy.formats.codec import ChatProvider, EmbeddingsProvider
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Delta
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import an_array, an_object, parsed, plain_error, text_of
from kong_ai_proxy.formats.ollama import answers as answers
from kong_ai_proxy.formats.ollama import requests as requests
from kong_ai_proxy.formats.usage import Usage

# Ollama itself says application/x-ndjson; the others are what gateways before it make of that.
STREAM_TYPES: Final = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/stream+json",
        "application/json",
    }
)


class _Chat:
    name = "ollama/chat"
    stream_types = STREAM_TYPES

    def render_request(self, conversation: Conversation) -> Rendered:
        """See ChatProvider. Images have to be data, for Ollama fetches nothing."""
        return requests.chat(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        """See ChatProvider."""
        return _pieces(value, "message", self.reader())

    def reader(self) -> answers.Reader:
        """See ChatProvider."""
        return answers.Reader(answers.chat_content)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """See ChatProvider. Ollama has no names for kinds of errors."""
        return _error(status, body)


class _Generate:
    name = "ollama/generate"
    stream_types = STREAM_TYPES

    def render_request(self, conversation: Conversation) -> Rendered:
        """See ChatProvider. One prompt, with system texts and images; no calls, no turns."""
        return requests.generate(conversation)

    def parse_answer(self, value: object) -> list[Delta]:
        """See ChatProvider."""
        return _pieces(value, "response", self.reader())

    def reader(self) -> answers.Reader:
        """See ChatProvider."""
        return answers.Reader(answers.generate_content)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """See ChatProvider."""
        return _error(status, body)


class _Embed:
    name = "ollama/embed"

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        """See EmbeddingsProvider."""
        return requests.embed(request)

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        """See EmbeddingsProvider."""
        answer = an_object(value, "answer")
        if "error" in answer:
            raise FormatError(answers.error_of(answer).message)
        vectors = an_array(answer.get("embeddings"), "answer.embeddings")
        prompt = answers.count(answer, "prompt_eval_count")
        told = "prompt_eval_count" in answer
        return EmbeddingsAnswer(
            vectors=tuple(
                an_array(vector, f"answer.embeddings[{index}]")  # type: ignore[misc]
                for index, vector in enumerate(vectors)
            ),
            model=text_of(answer, "model"),
            usage=Usage(prompt_tokens=prompt, total_tokens=prompt) if told else None,
        )

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        """See EmbeddingsProvider."""
        return _error(status, body)


def _pieces(value: object, member: str, reader: answers.Reader) -> list[Delta]:
    answer = an_object(value, "answer")
    if member not in answer and not answer.get("error"):
        raise FormatError(f"answer: expected an object with '{member}'")
    return reader.pieces(answer) + reader.finish(answer)


def _error(status: int, body: bytes) -> ProviderError:
    value = parsed(body)
    if isinstance(value, dict) and value.get("error"):
        return answers.error_of(value, status)
    return plain_error(status, body)


CHAT: Final[ChatProvider] = _Chat()
GENERATE: Final[ChatProvider] = _Generate()
EMBED: Final[EmbeddingsProvider] = _Embed()
