"""OpenAI's own Python package as the judge of what is sent to a provider and to a client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from openai.lib.streaming._deltas import accumulate_delta
from openai.types import Completion, CreateEmbeddingResponse, EmbeddingCreateParams
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from openai.types.completion_create_params import (
    CompletionCreateParamsNonStreaming as PromptNonStreaming,
)
from openai.types.completion_create_params import CompletionCreateParamsStreaming as PromptStreaming
from pydantic import TypeAdapter

_CHAT = {
    True: TypeAdapter[Any](CompletionCreateParamsStreaming),
    False: TypeAdapter[Any](CompletionCreateParamsNonStreaming),
}
_PROMPT = {True: TypeAdapter[Any](PromptStreaming), False: TypeAdapter[Any](PromptNonStreaming)}
_EMBEDDINGS = TypeAdapter[Any](EmbeddingCreateParams)
FOREIGN = frozenset({"top_k", "reasoning_content"})
"""Members that a request may have though they are not OpenAI's own."""


def check_chat_request(body: dict[str, Any]) -> None:
    """Every member is OpenAI's, and of its type."""
    _check(_CHAT[bool(body.get("stream"))], body)


def check_prompt_request(body: dict[str, Any]) -> None:
    """The same for completions."""
    _check(_PROMPT[bool(body.get("stream"))], body)


def check_embeddings_request(body: dict[str, Any]) -> None:
    """The same for embeddings."""
    _check(_EMBEDDINGS, body)


def _check(adapter: TypeAdapter[Any], body: dict[str, Any]) -> None:
    # Members that the types do not know are gone from what they return; arrays are generators.
    assert _read(adapter.validate_python(body)) == _own(body)


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _read(each) for name, each in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [_read(each) for each in value]


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _own(each) for name, each in value.items() if name not in FOREIGN}
    return [_own(each) for each in value] if isinstance(value, list) else value


def check_chat_answer(value: object) -> None:
    """A whole answer as the client reads it."""
    ChatCompletion.model_validate(value)


def check_prompt_answer(value: object) -> None:
    """The same for completions."""
    Completion.model_validate(value)


def check_embeddings_answer(value: object) -> None:
    """The same for embeddings."""
    CreateEmbeddingResponse.model_validate(value)


def chunks(written: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that ends well."""
    found = list(_events(written))
    assert found.pop() == b"[DONE]"
    assert b"[DONE]" not in found
    return [orjson.loads(data) for data in found]


def _events(written: bytes) -> Iterator[bytes]:
    assert written.endswith(b"\n\n")
    for event in written[:-2].split(b"\n\n"):
        assert event.startswith(b"data: ")
        assert b"\n" not in event
        yield event[6:]


def messages(written: bytes) -> list[dict[str, Any]]:
    """The messages that OpenAI's client puts together of a stream of chat, with their finish
    reasons; each chunk is validated."""
    found: dict[int, dict[object, object]] = {}
    for chunk in chunks(written):
        ChatCompletionChunk.model_validate(chunk)
        for choice in chunk["choices"]:
            message = found.setdefault(choice["index"], {})
            assert "finish_reason" not in message, "a choice goes on after its end"
            assert ("role" in choice["delta"]) == (not message), "the role comes once, and first"
            accumulate_delta(message, choice["delta"])
            if choice["finish_reason"]:
                message["finish_reason"] = choice["finish_reason"]
    assert all("finish_reason" in message for message in found.values())
    return [_plain(found[number]) for number in sorted(found)]


def _plain(message: dict[object, object]) -> dict[str, Any]:
    """Without the indexes of lists."""

    def plain(value: object) -> object:
        if isinstance(value, list):
            return [{k: v for k, v in each.items() if k != "index"} for each in value]
        return value

    return {str(name): plain(value) for name, value in message.items() if value is not None}
