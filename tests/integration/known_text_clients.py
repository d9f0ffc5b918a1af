"""Clients of every format: what each sends for a greeting, and what it reads out of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import orjson
from anthropic.types.shared import ErrorResponse
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped, unused-ignore]
from typing_extensions import override

from tests.integration.known_text_vendors import Vendor

Json = dict[str, Any]

HELLO = "Hello"


def events(body: bytes) -> list[Any]:
    """The data of each server-sent event that is JSON."""
    lines = (line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:"))
    return [orjson.loads(line) for line in lines if line.startswith(b"{")]


class Client:
    """OpenAI's format; the others differ in what is below."""

    llm_format = "openai"
    ending: ClassVar[bytes] = b"data: [DONE]\n\n"
    """What only a stream that ended well has."""
    media_type: ClassVar[str] = "text/event-stream"

    def request(self, vendor: Vendor, stream: bool, **more: Any) -> tuple[str, Json]:
        """Path and body of a greeting."""
        messages = [{"role": "user", "content": HELLO}]
        return "/chat", {"messages": messages, "stream": stream, **more}

    def whole(self, body: bytes) -> str:
        """The text of a whole answer."""
        text: str = orjson.loads(body)["choices"][0]["message"]["content"]
        return text

    def text(self, body: bytes) -> str:
        """The text of a stream, as far as it came."""
        choices = [each["choices"] for each in events(body) if each.get("choices")]
        return "".join(each[0]["delta"].get("content") or "" for each in choices)

    def said(self, body: bytes, stream: bool) -> str:
        """The text of either."""
        return self.text(body) if stream else self.whole(body)

    def error(self, body: bytes) -> str:
        """The message of an error."""
        message: str = orjson.loads(body)["error"]["message"]
        return message

    def late_error(self, body: bytes) -> str:
        """The message of an error that ends a stream."""
        return self.error(orjson.dumps(events(body)[-1]))


class _Anthropic(Client):
    llm_format = "anthropic"
    ending = b'"message_stop"'

    @override
    def request(self, vendor: Vendor, stream: bool, **more: Any) -> tuple[str, Json]:
        return "/v1/messages", {**super().request(vendor, stream, **more)[1], "max_tokens": 100}

    @override
    def whole(self, body: bytes) -> str:
        return "".join(each.get("text", "") for each in orjson.loads(body)["content"])

    @override
    def text(self, body: bytes) -> str:
        deltas = (each.get("delta", {}) for each in events(body))
        return "".join(each.get("text", "") for each in deltas)

    @override
    def error(self, body: bytes) -> str:
        return ErrorResponse.model_validate_json(body).error.message


class _Gemini(Client):
    llm_format = "gemini"
    ending = b'"finishReason":"STOP"'

    @override
    def request(self, vendor: Vendor, stream: bool, **more: Any) -> tuple[str, Json]:
        operation = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = f"/v1beta/models/{quote(vendor.model, safe='')}:{operation}"
        return path, {"contents": [{"role": "user", "parts": [{"text": HELLO}]}], **more}

    @override
    def whole(self, body: bytes) -> str:
        return _parts(orjson.loads(body))

    @override
    def text(self, body: bytes) -> str:
        return "".join(map(_parts, events(body)))

    @override
    def error(self, body: bytes) -> str:
        error = orjson.loads(body)["error"]
        assert isinstance(error["code"], int)
        assert error["status"].isupper()
        message: str = error["message"]
        return message


def _parts(answer: Json) -> str:
    candidates = answer.get("candidates") or [{}]
    parts = candidates[0].get("content", {}).get("parts", [])
    return "".join(each.get("text", "") for each in parts)


class _Bedrock(Client):
    llm_format = "bedrock"
    ending = b"messageStop"
    media_type = "application/vnd.amazon.eventstream"

    @override
    def request(self, vendor: Vendor, stream: bool, **more: Any) -> tuple[str, Json]:
        operation = "converse-stream" if stream else "converse"
        messages = [{"role": "user", "content": [{"text": HELLO}]}]
        return f"/model/{quote(vendor.model, safe='')}/{operation}", {"messages": messages, **more}

    @override
    def whole(self, body: bytes) -> str:
        content = orjson.loads(body)["output"]["message"]["content"]
        return "".join(each.get("text", "") for each in content)

    @override
    def text(self, body: bytes) -> str:
        deltas = (value.get("delta", {}) for _, value in _messages(body))
        return "".join(each.get("text", "") for each in deltas)

    @override
    def error(self, body: bytes) -> str:
        message: str = orjson.loads(body)["message"]
        return message

    @override
    def late_error(self, body: bytes) -> str:
        *_, (headers, value) = _messages(body)
        assert headers[":message-type"] == "exception"
        message: str = value["message"]
        return message


def _messages(body: bytes) -> Iterator[tuple[Mapping[str, Any], Json]]:
    """What botocore reads, which checks the checksums too."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    for message in buffer:
        yield message.headers, orjson.loads(message.payload)


class _Cohere(Client):
    llm_format = "cohere"
    ending = b'"message-end"'

    @override
    def request(self, vendor: Vendor, stream: bool, **more: Any) -> tuple[str, Json]:
        return "/v2/chat", {**super().request(vendor, stream, **more)[1], "model": vendor.model}

    @override
    def whole(self, body: bytes) -> str:
        content = orjson.loads(body)["message"]["content"]
        return "".join(each.get("text", "") for each in content)

    @override
    def text(self, body: bytes) -> str:
        deltas = (each["delta"] for each in events(body) if each["type"] == "content-delta")
        return "".join(each["message"]["content"]["text"] for each in deltas)

    @override
    def error(self, body: bytes) -> str:
        message: str = orjson.loads(body)["message"]
        return message

    @override
    def late_error(self, body: bytes) -> str:
        last = events(body)[-1]
        assert last["type"] == "message-end"
        assert last["delta"]["finish_reason"] == "ERROR"
        message: str = last["delta"]["error"]
        return message


CLIENTS: Mapping[str, Client] = {
    each.llm_format: each for each in (Client(), _Anthropic(), _Gemini(), _Bedrock(), _Cohere())
}
