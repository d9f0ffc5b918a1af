"""Cohere's rerank, of which no other provider's format is a version: only what an answer tells of
its costs is read. https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kong_ai_proxy.formats.codec import EmbeddingsProvider
from kong_ai_proxy.formats.cohere.common import count, parse_error, usage_of
from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import an_object, object_of, text_of
from kong_ai_proxy.formats.usage import Usage


class _Rerank:
    name = "cohere/rerank"

    def render_request(self, request: EmbeddingsRequest) -> Rendered:
        raise FormatError("expected a request of Cohere's own format: texts to be ranked")

    def parse_answer(self, value: object) -> EmbeddingsAnswer:
        answer = an_object(value, "answer")
        usage = _usage(object_of(answer, "meta"))
        return EmbeddingsAnswer(vectors=(), id=text_of(answer, "id"), usage=usage)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return parse_error(status, body)


def _usage(meta: Mapping[str, object]) -> Usage | None:
    """What is billed are searches: one for up to 100 documents."""
    searches = count(object_of(meta, "billed_units").get("search_units"))
    usage = usage_of(meta)
    if not searches:
        return usage
    usage = usage or Usage()
    return replace(usage, prompt_details={**usage.prompt_details, "search_units": searches})


RERANK: EmbeddingsProvider = _Rerank()
"""Cohere's rerank, as far as its answers are read."""
