"""Anthropic's Messages format as Bedrock's InvokeModel carries it.

A request is Anthropic's but for the model and `stream`, which the path says, and its version, which
the body says; a whole answer is Anthropic's. A stream comes as an AWS event stream of `chunk`
events, each with the base64 of one of Anthropic's events.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.anthropic import MESSAGES
from kong_ai_proxy.formats.anthropic import errors as anthropic_errors
from kong_ai_proxy.formats.anthropic import reader as anthropic_reader
from kong_ai_proxy.formats.anthropic import writer as anthropic_writer
from kong_ai_proxy.formats.aws_event_stream import (
    MEDIA_TYPE,
    EventStreamError,
    EventStreamReader,
    Message,
    encoded_headers,
    framed,
)
from kong_ai_proxy.formats.bedrock import errors as bedrock_errors
from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.conversation import Conversation, Rendered
from kong_ai_proxy.formats.deltas import Answer, Delta, Failed
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.sse import SseReader

VERSION = "bedrock-2023-05-31"
_HEADERS = encoded_headers(
    {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
)
_METRICS = "amazon-bedrock-invocationMetrics"
"""Of Bedrock's own in message_stop; no client of Anthropic's knows it."""


class AnthropicOnBedrock:
    """The codec."""

    name = "bedrock/anthropic"
    stream_type = MEDIA_TYPE
    stream_types = frozenset({MEDIA_TYPE})
    carries = MESSAGES
    """The codec whose requests these are but for a few members, and whose whole answers these are;
    its streams come of `events_of`."""

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        said = {name: value for name, value in body.items() if name != "anthropic_version"}
        return MESSAGES.parse_request(said, model=model, stream=stream)

    def render_request(self, conversation: Conversation) -> Rendered:
        body, dropped = MESSAGES.render_request(conversation)
        kept = {name: value for name, value in body.items() if name not in ("model", "stream")}
        return Rendered({"anthropic_version": VERSION, **kept}, dropped)

    def parse_answer(self, value: object) -> list[Delta]:
        return MESSAGES.parse_answer(value)

    def render_answer(self, answer: Answer, context: Context) -> object:
        return MESSAGES.render_answer(answer, context)

    def reader(self) -> StreamReader:
        return _Reader()

    def writer(self, context: Context) -> StreamWriter:
        return _Writer(context)

    def unwrapper(self) -> ServerSentEvents:
        """See codec.Carrier."""
        return ServerSentEvents()

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return bedrock_errors.parse(status, body)

    def render_error(self, error: ProviderError) -> object:
        return bedrock_errors.render(error)


ANTHROPIC: ChatCodec = AnthropicOnBedrock()


class _Events:
    """The parsed events of Anthropic's in one stream, or the error that ends it."""

    __slots__ = ("_frames", "failed")

    def __init__(self) -> None:
        self._frames = EventStreamReader()
        self.failed: ProviderError | None = None

    def feed(self, chunk: bytes) -> list[Mapping[str, object]]:
        if self.failed:
            return []
        try:
            messages = self._frames.feed(chunk)
        except EventStreamError as problem:
            self.failed = ProviderError(str(problem))
            return []
        found = (self._event(message) for message in messages)
        return [event for event in found if event is not None]

    def end(self) -> None:
        if self.failed:
            return
        try:
            self._frames.end()
        except EventStreamError as problem:
            self.failed = ProviderError(str(problem))

    def _event(self, message: Message) -> Mapping[str, object] | None:
        if self.failed:
            return None
        if message.headers.get(":event-type") != "chunk":
            self.failed = bedrock_errors.of_message(message)
            return None
        try:
            event = orjson.loads(b64decode(orjson.loads(message.payload)["bytes"]))
        except (orjson.JSONDecodeError, Base64Error, KeyError, TypeError):
            event = None
        if not isinstance(event, dict):
            self.failed = ProviderError(anthropic_reader.NO_JSON)
            return None
        return event


class _Reader:
    """See codec.StreamReader."""

    __slots__ = ("_frames", "_pieces")

    def __init__(self) -> None:
        self._frames = _Events()
        self._pieces = anthropic_reader.Events()

    def feed(self, chunk: bytes) -> list[Delta]:
        if self._pieces.is_over:
            return []
        events = self._frames.feed(chunk)
        found = [piece for event in events for piece in self._pieces.read(event)]
        return found + self._failed()

    def end(self) -> list[Delta]:
        if self._pieces.is_over:
            return []
        left = self._pieces.end()
        if left:  # incomplete: because of what, the frames may know better
            self._frames.end()
            self._pieces.is_over = False
            return self._failed() or self._over(left)
        return left

    def _over(self, left: list[Delta]) -> list[Delta]:
        self._pieces.is_over = True
        return left

    def _failed(self) -> list[Delta]:
        error = self._frames.failed
        if error is None or self._pieces.is_over:
            return []
        return self._over([Failed(error)])


class ServerSentEvents:
    """Turns a stream into the server-sent events that Anthropic itself would have sent: for its
    clients, whom nothing is lost by that. `feed` and `end` return bytes; never raises."""

    __slots__ = ("_frames", "_is_over")

    def __init__(self) -> None:
        self._frames = _Events()
        self._is_over = False

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` completes."""
        if self._is_over:
            return b""
        found = b"".join(self._event(event) for event in self._frames.feed(chunk))
        return found + self._failed()

    def end(self) -> bytes:
        """An error event where the stream broke off within a message."""
        if self._is_over:
            return b""
        self._frames.end()
        return self._failed()

    def _event(self, event: Mapping[str, object]) -> bytes:
        if event.get("type") == "message_stop":
            event = {name: value for name, value in event.items() if name != _METRICS}
        return anthropic_writer.event({"type": "", **event})

    def _failed(self) -> bytes:
        if self._frames.failed is None:
            return b""
        self._is_over = True
        return anthropic_writer.event(anthropic_errors.render(self._frames.failed))


class _Writer:
    """See codec.StreamWriter."""

    __slots__ = ("_events", "_is_over", "_sse")

    def __init__(self, context: Context) -> None:
        self._events = MESSAGES.writer(context)
        self._sse = SseReader(1 << 30)  # of our own making
        self._is_over = False

    def feed(self, deltas: list[Delta]) -> bytes:
        if self._is_over:
            return b""
        last = deltas[-1] if deltas else None
        if not isinstance(last, Failed):
            return self._framed(self._events.feed(deltas))
        before = self._framed(self._events.feed(deltas[:-1]))
        self._is_over = True
        return before + bedrock_errors.encoded(last.error)

    def end(self) -> bytes:
        return b"" if self._is_over else self._framed(self._events.end())

    def _framed(self, events: bytes) -> bytes:
        return b"".join(
            framed(_HEADERS, b'{"bytes":"' + b64encode(event.data) + b'"}')
            for event in self._sse.feed(events)
            if event.data is not None
        )
