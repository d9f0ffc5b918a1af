"""What providers say on the wire, as short as it can be: whole answers, streams and errors.

The stand-ins of `tests.providers` check what they are asked. These check nothing: they say their
words to anybody, in the format of the path that was asked.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson
from typing_extensions import override

from tests.providers import aws
from tests.recorder import Received

Json = dict[str, Any]

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


def sse(value: object, event: str = "") -> bytes:
    """One server-sent event."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(value) + b"\n\n"


class Vendor(abc.ABC):
    """How one API says things. A stream is `opening`, any number of `content`, `closing`."""

    stream_type: ClassVar[str] = EVENT_STREAM

    @abc.abstractmethod
    def whole(self, text: str) -> Json:
        """An answer in one piece."""

    @abc.abstractmethod
    def opening(self) -> Sequence[bytes]:
        """What comes before the first content."""

    @abc.abstractmethod
    def content(self, text: str) -> bytes:
        """An event with a piece of text."""

    @abc.abstractmethod
    def closing(self) -> Sequence[bytes]:
        """How a stream ends that is complete."""

    @abc.abstractmethod
    def error(self, status: int, message: str) -> Json:
        """The body of an error."""

    def failing(self, status: int, message: str) -> bytes:
        """An error inside a stream."""
        return sse(self.error(status, message))


class OpenAI(Vendor):
    """https://platform.openai.com/docs/api-reference/chat-streaming; the errors inside a stream are
    those of https://platform.openai.com/docs/guides/error-codes in an event, as its SDK reads; a
    status as `code` is what compatible servers send."""

    _TYPES: ClassVar[Mapping[int, tuple[str, str | None]]] = {
        400: ("invalid_request_error", None),
        429: ("requests", "rate_limit_exceeded"),
        500: ("server_error", None),
        503: ("server_error", "503"),
        529: ("overloaded_error", None),
    }

    @override
    def whole(self, text: str) -> Json:
        message = {"role": "assistant", "content": text}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "gpt-4o-2024-08-06",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }

    @override
    def opening(self) -> Sequence[bytes]:
        return [self._chunk({"role": "assistant", "content": ""})]

    @override
    def content(self, text: str) -> bytes:
        return self._chunk({"content": text})

    @override
    def closing(self) -> Sequence[bytes]:
        return [self._chunk({}, "stop"), b"data: [DONE]\n\n"]

    @override
    def error(self, status: int, message: str) -> Json:
        kind, code = self._TYPES.get(status, ("server_error", None))
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    @staticmethod
    def _chunk(delta: Json, finish: str | None = None) -> bytes:
        return sse(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1_700_000_000,
                "model": "gpt-4o-2024-08-06",
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }
        )


class Responses(OpenAI):
    """https://platform.openai.com/docs/api-reference/responses-streaming"""

    @override
    def whole(self, text: str) -> Json:
        part = {"type": "output_text", "text": text, "annotations": []}
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }
        return self._response("completed", [message])

    @override
    def opening(self) -> Sequence[bytes]:
        created = {"response": self._response("in_progress", []), "sequence_number": 0}
        return [sse({"type": "response.created", **created}, "response.created")]

    @override
    def content(self, text: str) -> bytes:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": 1}
        kind = "response.output_text.delta"
        return sse({"type": kind, **place, "delta": text}, kind)

    @override
    def closing(self) -> Sequence[bytes]:
        kind, response = "response.completed", self._response("completed", [])
        return [sse({"type": kind, "response": response, "sequence_number": 2}, kind)]

    @override
    def failing(self, status: int, message: str) -> bytes:
        told = self.error(status, message)["error"]
        code = told["code"] or told["type"]
        event = {"type": "error", "code": code, "message": message, "param": None}
        return sse({**event, "sequence_number": 1}, "error")

    @staticmethod
    def _response(status: str, output: list[Json]) -> Json:
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": status,
            "model": "gpt-4o-2024-08-06",
            "output": output,
            "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
        }


class Anthropic(Vendor):
    """https://platform.claude.com/docs/en/build-with-claude/streaming"""

    _TYPES: ClassVar[Mapping[int, str]] = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
        529: "overloaded_error",
    }

    @override
    def whole(self, text: str) -> Json:
        return self._message([{"type": "text", "text": text}], "end_turn")

    @override
    def opening(self) -> Sequence[bytes]:
        block = {"type": "text", "text": ""}
        return [
            self._event("message_start", message=self._message([], None)),
            self._event("ping"),
            self._event("content_block_start", index=0, content_block=block),
        ]

    @override
    def content(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return self._event("content_block_delta", index=0, delta=delta)

    @override
    def closing(self) -> Sequence[bytes]:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return [
            self._event("content_block_stop", index=0),
            self._event("message_delta", delta=delta, usage={"output_tokens": 2}),
            self._event("message_stop"),
        ]

    @override
    def error(self, status: int, message: str) -> Json:
        kind = self._TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}

    @override
    def failing(self, status: int, message: str) -> bytes:
        return sse(self.error(status, message), "error")

    @staticmethod
    def _event(kind: str, **members: object) -> bytes:
        return sse({"type": kind, **members}, kind)

    @staticmethod
    def _message(content: list[Json], reason: str | None) -> Json:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5-20250929",
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }


class Gemini(Vendor):
    """https://ai.google.dev/api/generate-content and https://ai.google.dev/gemini-api/docs/troubleshooting"""

    _TYPES: ClassVar[Mapping[int, str]] = {
        400: "INVALID_ARGUMENT",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        500: "INTERNAL",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }

    @override
    def whole(self, text: str) -> Json:
        return self._answer(text, finishReason="STOP")

    @override
    def opening(self) -> Sequence[bytes]:
        return [sse({"usageMetadata": {"promptTokenCount": 3}, "modelVersion": "gemini-2.5-flash"})]

    @override
    def content(self, text: str) -> bytes:
        return sse(self._answer(text))

    @override
    def closing(self) -> Sequence[bytes]:
        return [sse(self._answer("", finishReason="STOP"))]

    @override
    def error(self, status: int, message: str) -> Json:
        kind = self._TYPES.get(status, "UNKNOWN")
        return {"error": {"code": status, "message": message, "status": kind}}

    @staticmethod
    def _answer(text: str, **more: object) -> Json:
        content = {"role": "model", "parts": [{"text": text}] if text else []}
        return {
            "candidates": [{"index": 0, "content": content, **more}],
            "usageMetadata": {
                "promptTokenCount": 3,
                "candidatesTokenCount": 2,
                "totalTokenCount": 5,
            },
            "modelVersion": "gemini-2.5-flash",
        }


class Bedrock(Vendor):
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html"""

    stream_type: ClassVar[str] = "application/vnd.amazon.eventstream"
    _TYPES: ClassVar[Mapping[int, str]] = {
        400: "validationException",
        424: "modelStreamErrorException",
        429: "throttlingException",
        503: "serviceUnavailableException",
        529: "serviceUnavailableException",
    }
    _USAGE: ClassVar[Json] = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}

    @override
    def whole(self, text: str) -> Json:
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn",
            "usage": self._USAGE,
            "metrics": {"latencyMs": 1},
        }

    @override
    def opening(self) -> Sequence[bytes]:
        return [self._event("messageStart", {"role": "assistant"})]

    @override
    def content(self, text: str) -> bytes:
        return self._event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})

    @override
    def closing(self) -> Sequence[bytes]:
        return [
            self._event("contentBlockStop", {"contentBlockIndex": 0}),
            self._event("messageStop", {"stopReason": "end_turn"}),
            self._event("metadata", {"usage": self._USAGE, "metrics": {"latencyMs": 1}}),
        ]

    @override
    def error(self, status: int, message: str) -> Json:
        return {"message": message}

    @override
    def failing(self, status: int, message: str) -> bytes:
        headers = {
            ":exception-type": self._TYPES.get(status, "internalServerException"),
            ":content-type": JSON,
            ":message-type": "exception",
        }
        return aws.frame(headers, orjson.dumps({"message": message}))

    @staticmethod
    def _event(kind: str, value: Json) -> bytes:
        headers = {":event-type": kind, ":content-type": JSON, ":message-type": "event"}
        return aws.frame(headers, orjson.dumps(value))


class Objects(OpenAI):
    """What has no text: lists of files and the like. https://platform.openai.com/docs/api-reference/files"""

    @override
    def whole(self, text: str) -> Json:
        return {"object": "list", "data": [], "has_more": False, "first_id": text}


_BY_END: Mapping[str, Vendor] = {
    "/chat/completions": OpenAI(),
    "/responses": Responses(),
    "/messages": Anthropic(),
    ":generateContent": Gemini(),
    ":streamGenerateContent": Gemini(),
    "/converse": Bedrock(),
    "/converse-stream": Bedrock(),
}
_OBJECTS = Objects()


def vendor_of(asked: Received) -> Vendor:
    """Whose path it is."""
    path = asked.target.partition("?")[0].replace("%3A", ":")
    return next((found for end, found in _BY_END.items() if path.endswith(end)), _OBJECTS)


def wants_stream(asked: Received) -> bool:
    """Whether the request is for a stream, in its vendor's way of saying it."""
    path = asked.target.partition("?")[0]
    if path.endswith((":streamGenerateContent", "/converse-stream")):
        return True
    try:
        body = orjson.loads(asked.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and body.get("stream") is True
