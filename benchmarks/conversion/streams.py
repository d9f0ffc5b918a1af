"""Streams as providers send them, of any number of chunks.

The shapes are those of the API references:
https://platform.claude.com/docs/en/build-with-claude/streaming,
https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from kong_ai_proxy.formats import anthropic, bedrock, gemini
from kong_ai_proxy.formats.aws_event_stream import MEDIA_TYPE, encode
from kong_ai_proxy.formats.codec import ChatProvider

SSE = "text/event-stream"
_ANTHROPIC_FRAME, _GEMINI_FRAME, _BEDROCK_FRAME = 5, 1, 4


@dataclass(frozen=True)
class Streams:
    """One provider's."""

    name: str
    """The provider's, as a configuration has it."""
    label: str
    codec: ChatProvider
    media_type: str
    make: Callable[[int], tuple[bytes, ...]]
    """A stream of so many chunks, ten at least."""
    frame: int
    """How many of them say nothing."""
    options: dict[str, Any] = field(default_factory=dict)
    """What a configuration has to have in `model.options`."""
    auth: dict[str, str] = field(default_factory=dict)
    """In `auth`, where a header is not enough."""

    def says(self, chunks: int) -> str:
        """All that a stream of so many chunks says."""
        return "".join(_words(chunks - self.frame))


def _words(count: int) -> Iterable[str]:
    return (f" token{n:05}" for n in range(count))


def _anthropic(chunks: int) -> tuple[bytes, ...]:
    count = chunks - _ANTHROPIC_FRAME
    message: dict[str, object] = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-sonnet-4-5-20250929",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 19, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return (
        _event("message_start", message=message),
        _event("content_block_start", index=0, content_block=block),
        *(
            _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
            for word in _words(count)
        ),
        _event("content_block_stop", index=0),
        _event("message_delta", delta=end, usage={"output_tokens": count}),
        _event("message_stop"),
    )


def _event(kind: str, **members: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **members}))


def _gemini(chunks: int) -> tuple[bytes, ...]:
    count = chunks - _GEMINI_FRAME
    said = (_candidate(n, text=word) for n, word in enumerate(_words(count), 1))
    return (*said, _candidate(count, text="", finishReason="STOP"))


def _candidate(tokens: int, *, text: str, **members: object) -> bytes:
    content = {"parts": [{"text": text}], "role": "model"}
    usage = {
        "promptTokenCount": 19,
        "candidatesTokenCount": tokens,
        "totalTokenCount": 19 + tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 19}],
    }
    value = {
        "candidates": [{"content": content, "index": 0, **members}],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "mK6iaI-xH9aTmecP1qCxyAQ",
    }
    return b"data: " + orjson.dumps(value) + b"\r\n\r\n"


def _bedrock(chunks: int) -> tuple[bytes, ...]:
    count = chunks - _BEDROCK_FRAME
    usage = {"inputTokens": 19, "outputTokens": count, "totalTokens": 19 + count}
    return (
        _message("messageStart", role="assistant"),
        *(
            # `p` pads every event to a random length.
            _message(
                "contentBlockDelta", contentBlockIndex=0, delta={"text": word}, p="abcdefghijkl"
            )
            for word in _words(count)
        ),
        _message("contentBlockStop", contentBlockIndex=0),
        _message("messageStop", stopReason="end_turn"),
        _message("metadata", usage=usage, metrics={"latencyMs": 1100}),
    )


def _message(kind: str, **members: object) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, orjson.dumps(members))


ANTHROPIC = Streams(
    "anthropic",
    "Anthropic",
    anthropic.MESSAGES,
    SSE,
    _anthropic,
    _ANTHROPIC_FRAME,
    {"anthropic_version": "2023-06-01"},
)
GEMINI = Streams("gemini", "Gemini", gemini.GENERATE, SSE, _gemini, _GEMINI_FRAME)
BEDROCK = Streams(
    "bedrock",
    "Bedrock",
    bedrock.CONVERSE,
    MEDIA_TYPE,
    _bedrock,
    _BEDROCK_FRAME,
    {"bedrock": {"aws_region": "us-east-1"}},
    {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "bench"},
)
ALL = (ANTHROPIC, GEMINI, BEDROCK)
