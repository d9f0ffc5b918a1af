"""Reads streams of Bedrock's ConverseStream.

Events: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html.
Each is a message of an AWS event stream; a text has no contentBlockStart, and the usage comes after
messageStop.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping

import orjson

from kong_ai_proxy.formats.aws_event_stream import EventStreamError, EventStreamReader, Message
from kong_ai_proxy.formats.bedrock import answer as bedrock_answer
from kong_ai_proxy.formats.bedrock import errors as bedrock_errors
from kong_ai_proxy.formats.conversation import Media
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    MediaPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import object_of, text_of

BROKE_OFF = "Bedrock's stream ended before its answer did"

Json = Mapping[str, object]


class _Image:
    """An image whose block is open."""

    __slots__ = ("media_type", "parts")

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type
        self.parts: list[str] = []

    def whole(self) -> list[Delta]:
        """The image, if all of it can be read."""
        data = self.parts[0] if len(self.parts) == 1 else ""
        try:
            data = data or b64encode(b"".join(map(b64decode, self.parts))).decode()
        except Base64Error:
            return []
        media = Media(kind="image", data=data, media_type=self.media_type)
        return [MediaPiece(media)] if data else []


class Reader:
    """Reads one stream."""

    __slots__ = (
        "_calls",
        "_count",
        "_fields",
        "_finished",
        "_frames",
        "_handlers",
        "_images",
        "_over",
        "_silent",
    )

    def __init__(self) -> None:
        self._frames = EventStreamReader()
        self._over = self._finished = False
        self._calls: dict[int, int] = {}  # number by contentBlockIndex, of open blocks
        self._silent: set[int] = set()  # those of them that have told no arguments yet
        self._images: dict[int, _Image] = {}
        self._count = 0
        self._fields: object = None
        self._handlers: dict[object, Callable[[Json], list[Delta]]] = {
            "contentBlockDelta": self._delta,
            "contentBlockStart": self._block_start,
            "contentBlockStop": self._block_stop,
            "messageStart": self._message_start,
            "messageStop": self._message_stop,
            "metadata": self._metadata,
        }

    def feed(self, chunk: bytes) -> list[Delta]:
        """The pieces that `chunk` completes."""
        if self._over:
            return []
        try:
            messages = self._frames.feed(chunk)
        except EventStreamError as problem:
            return self._fail(ProviderError(str(problem)))
        if len(messages) == 1:
            return self._message(messages[0])
        return [delta for message in messages for delta in self._message(message)]

    def end(self) -> list[Delta]:
        """What the end of the body leaves: Failed unless the model's reason to stop had come."""
        if self._over or self._finished:
            return []
        try:
            self._frames.end()
        except EventStreamError as problem:
            return self._fail(ProviderError(f"{BROKE_OFF}: {problem}"))
        return self._fail(ProviderError(BROKE_OFF))

    def _message(self, message: Message) -> list[Delta]:
        if self._over:
            return []
        handler = self._handlers.get(message.headers.get(":event-type"))
        if handler is None:
            error = bedrock_errors.of_message(message)
            return self._fail(error) if error else []
        try:
            value = orjson.loads(message.payload)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            return self._fail(ProviderError("Bedrock's stream has an event that is no JSON object"))
        return handler(value)

    def _fail(self, error: ProviderError) -> list[Delta]:
        self._over = True
        return [Failed(error)]

    def _message_start(self, event: Json) -> list[Delta]:
        return [Started()]

    def _delta(self, event: Json) -> list[Delta]:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            return []
        text = delta.get("text")
        if text is not None:
            return [TextPiece(text)] if text and isinstance(text, str) else []
        if "toolUse" in delta:
            return self._arguments(_index(event), object_of(delta, "toolUse"))
        if "reasoningContent" in delta:
            return _thought(object_of(delta, "reasoningContent"))
        image = self._images.get(_index(event))
        if image and "image" in delta:
            image.parts.append(text_of(object_of(object_of(delta, "image"), "source"), "bytes"))
        return []

    def _arguments(self, index: int, delta: Json) -> list[Delta]:
        text = text_of(delta, "input")
        if index not in self._calls or not text:
            return []  # of a tool that the provider runs itself
        self._silent.discard(index)
        return [CallArguments(self._calls[index], text)]

    def _block_start(self, event: Json) -> list[Delta]:
        start, index = object_of(event, "start"), _index(event)
        if "image" in start:
            self._images[index] = _Image(f"image/{text_of(object_of(start, 'image'), 'format')}")
        call = object_of(start, "toolUse")
        if not call or call.get("type") == "server_tool_use":
            return []
        before = self._close(index)
        number = self._calls[index] = self._count
        self._silent.add(index)
        self._count += 1
        return [*before, CallStarted(number, text_of(call, "toolUseId"), text_of(call, "name"))]

    def _block_stop(self, event: Json) -> list[Delta]:
        return self._close(_index(event))

    def _close(self, index: int) -> list[Delta]:
        """The end of a block: of a call that told no arguments, that it has none."""
        image = self._images.pop(index, None)
        number = self._calls.pop(index, None)
        if number is not None and index in self._silent:
            self._silent.discard(index)
            return [CallArguments(number, "{}")]
        return image.whole() if image else []

    def _message_stop(self, event: Json) -> list[Delta]:
        if self._finished:
            return []
        self._finished = True
        self._fields = event.get("additionalModelResponseFields")
        closed = [piece for index in [*self._calls, *self._images] for piece in self._close(index)]
        has_calls = self._count > 0
        end = bedrock_answer.finished(event.get("stopReason"), self._fields, has_calls)
        return [*closed, end]

    def _metadata(self, event: Json) -> list[Delta]:
        told = event.get("usage")
        if not isinstance(told, dict):
            return []
        counts = bedrock_answer.usage(told, event.get("serviceTier"))
        fields = {"additionalModelResponseFields": self._fields, "trace": event.get("trace")}
        return [Used(counts, bedrock_answer.told_beside(fields))]


def _index(event: Json) -> int:
    index = event.get("contentBlockIndex")
    return index if isinstance(index, int) else -1


def _thought(content: Json) -> list[Delta]:
    text = text_of(content, "text")
    if text:
        return [ThinkingPiece(text)]
    signature = text_of(content, "signature")
    if signature:
        return [ThinkingSigned(signature)]
    redacted = text_of(content, "redactedContent")
    return [ThinkingRedacted(redacted)] if redacted else []
