"""Errors in the client's format, whichever side they come from."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from kong_ai_proxy.exchange.answer import MODEL_HEADER
from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.errors import (
    BAD_GATEWAY,
    FIRST_CLIENT_ERROR,
    LAST_ERROR,
    Refused,
    printable,
)
from kong_ai_proxy.exchange.messages import Commit, Emit, Finish, ResponseHead
from kong_ai_proxy.formats import anthropic, bedrock, cohere, gemini, huggingface
from kong_ai_proxy.formats.codec import ClientCodec
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai import chat as openai_chat

_CODECS: Mapping[str, ClientCodec] = {
    "anthropic": anthropic.MESSAGES,
    "bedrock": bedrock.CONVERSE,
    "cohere": cohere.CHAT,
    "gemini": gemini.GENERATE,
    "huggingface": huggingface.GENERATE,
}


def refusal(llm_format: str, refused: Refused) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer of our own."""
    if llm_format == "openai":
        return refused.answer()
    error = ProviderError(printable(refused.message), status=refused.status)
    headers = {"content-type": "application/json", **error_headers(llm_format, error)}
    return refused.status, error_body(llm_format, error), {**headers, **refused.headers}


def error_body(llm_format: str, error: ProviderError, codec: ClientCodec | None = None) -> bytes:
    """An error as JSON."""
    codec = codec or _CODECS[llm_format]
    return orjson.dumps(codec.render_error(error))


def told(
    asked: Asked, error: ProviderError, added: Mapping[str, str]
) -> tuple[Commit, Emit, Finish]:
    """An error in place of an answer, as the client knows them of this operation; `added` are
    headers for it."""
    status = error.status if FIRST_CLIENT_ERROR <= error.status <= LAST_ERROR else BAD_GATEWAY
    error = error._replace(status=status)
    render = getattr(asked.codec, "render_error", None) or openai_chat.CHAT.render_error
    body = orjson.dumps(render(error))
    headers = {name: value for name, value in added.items() if name != MODEL_HEADER}
    headers |= {"content-type": "application/json", **error_headers(asked.client, error)}
    head = ResponseHead(status, tuple(headers.items()))
    return Commit(head, len(body)), Emit(body), Finish()


def error_headers(llm_format: str, error: ProviderError) -> dict[str, str]:
    """Headers without which clients of a format do not know an error's kind."""
    if llm_format != "bedrock":
        return {}
    return {"x-amzn-errortype": bedrock.exception_name(error)}
