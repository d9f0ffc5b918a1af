"""Reads streams in Anthropic's Messages format.

Events: https://platform.claude.com/docs/en/build-with-claude/streaming. `Events` takes them
parsed, for whoever frames them otherwise (Bedrock's InvokeModelWithResponseStream); `Reader` reads
them as server-sent events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import orjson

from kong_ai_proxy.formats.anthropic import answer as anthropic_answer
from kong_ai_proxy.formats.anthropic import errors as anthropic_errors
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import json_text, object_of, parsed, text_of
from kong_ai_proxy.formats.sse import Event, SseError, SseReader

# What a tool of the provider found, such as a PDF in base64, comes as one event.
_MAX_EVENT = 32 << 20

BROKE_OFF = "the provider's stream ended before its answer did"
NO_JSON = "the provider's stream has an event that is not a JSON object"


class _Call:
    """A tool call whose block is open."""

    __slots__ = ("input", "is_empty", "number")

    def __init__(self, number: int, given: Mapping[str, object]) -> None:
        self.number = number
        self.input = given
        self.is_empty = True

    def rest(self) -> list[Delta]:
        """Its arguments where no piece of them came."""
        return [CallArguments(self.number, json_text(self.input))] if self.is_empty else []


class Events:
    """Makes pieces of the parsed events of one stream. Never raises."""

    __slots__ = ("_calls", "_count", "_finished", "_handlers", "_usage", "is_over", "is_started")

    def __init__(self) -> None:
        self.is_over = False
        """Nothing more comes: the answer is complete, or has failed."""
        self.is_started = False
        self._finished = False
        self._calls: dict[int, _Call] = {}
        self._count = 0
        self._usage: dict[str, object] = {}
        self._handlers: dict[object, Callable[[Mapping[str, object]], list[Delta]]] = {
            "content_block_delta": self._delta,
            "content_block_start": self._block_start,
            "content_block_stop": self._block_stop,
            "message_start": self._message_start,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
            "error": self._error,
        }

    def read(self, event: Mapping[str, object]) -> list[Delta]:
        """The pieces in one event. Events of unknown types, and `ping`, have none."""
        if self.is_over:
            return []
        kind = event.get("type")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        return handler(event) if handler else []

    def end(self) -> list[Delta]:
        """What the end of the stream leaves: Failed unless the model's reason to stop had come."""
        if self.is_over:
            return []
        self.is_over = True
        return [] if self._finished else [Failed(ProviderError(BROKE_OFF))]

    def _message_start(self, event: Mapping[str, object]) -> list[Delta]:
        if self.is_started:
            return []
        self.is_started = True
        message = object_of(event, "message")
        started = Started(text_of(message, "id"), text_of(message, "model"))
        return [started, *self._used(message)]

    def _used(self, holder: Mapping[str, object]) -> list[Delta]:
        """What is told replaces what was told before: the counts are totals so far."""
        told = object_of(holder, "usage")
        self._usage |= {name: value for name, value in told.items() if value is not None}
        found = anthropic_answer.usage(self._usage) if told else None
        return [Used(found)] if found else []

    def _block_start(self, event: Mapping[str, object]) -> list[Delta]:
        block, index = object_of(event, "content_block"), event.get("index")
        match block.get("type"):
            case "text":
                text = text_of(block, "text")
                return [TextPiece(text)] if text else []
            case "thinking":
                # Also without a text: a signed thought may have none that can be read.
                return [ThinkingPiece(text_of(block, "thinking"))]
            case "redacted_thinking":
                return [ThinkingRedacted(text_of(block, "data"))]
            case "tool_use" if isinstance(index, int):
                call = _Call(self._count, object_of(block, "input"))
                self._count += 1
                before = self._close(index)
                self._calls[index] = call
                name = text_of(block, "name")
                return [*before, CallStarted(call.number, text_of(block, "id"), name)]
        return []

    def _delta(self, event: Mapping[str, object]) -> list[Delta]:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            return []
        kind = delta.get("type")
        if kind == "text_delta":
            text = delta.get("text")
            return [TextPiece(text)] if text and isinstance(text, str) else []
        if kind == "input_json_delta":
            return self._arguments(event.get("index"), delta.get("partial_json"))
        if kind == "thinking_delta":
            text = delta.get("thinking")
            return [ThinkingPiece(text)] if text and isinstance(text, str) else []
        if kind == "signature_delta":
            signature = text_of(delta, "signature")
            return [ThinkingSigned(signature)] if signature else []
        return []

    def _arguments(self, index: object, text: object) -> list[Delta]:
        call = self._calls.get(index) if isinstance(index, int) else None
        if call is None or not text or not isinstance(text, str):
            return []  # of a tool that the provider runs itself
        call.is_empty = False
        return [CallArguments(call.number, text)]

    def _block_stop(self, event: Mapping[str, object]) -> list[Delta]:
        index = event.get("index")
        return self._close(index) if isinstance(index, int) else []

    def _close(self, index: int) -> list[Delta]:
        call = self._calls.pop(index, None)
        return call.rest() if call else []

    def _message_delta(self, event: Mapping[str, object]) -> list[Delta]:
        delta = object_of(event, "delta")
        found: list[Delta] = []
        if delta.get("stop_reason") is not None and not self._finished:
            self._finished = True
            found += [piece for index in [*self._calls] for piece in self._close(index)]
            found += anthropic_answer.refusal(delta.get("stop_details"))
            found.append(self._reason(delta))
        return found + self._used(event)

    def _reason(self, delta: Mapping[str, object]) -> Finished:
        reason, sequence = delta.get("stop_reason"), delta.get("stop_sequence")
        return anthropic_answer.finished(reason, sequence, self._count > 0)

    def _message_stop(self, event: Mapping[str, object]) -> list[Delta]:
        return self.end()

    def _error(self, event: Mapping[str, object]) -> list[Delta]:
        self.is_over = True
        error = anthropic_errors.of_object(event)
        unnamed = error.message or "the provider's stream has an error without a message"
        return [Failed(error._replace(message=unnamed))]


class AnyEvents(Protocol):
    """See Events."""

    is_over: bool
    is_started: bool

    def read(self, event: Mapping[str, object]) -> list[Delta]:
        """See Events."""

    def end(self) -> list[Delta]:
        """See Events."""


class Reader:
    """Reads one stream of server-sent events."""

    __slots__ = ("_events", "_parse", "_sse")

    def __init__(self, events: AnyEvents, parse: Callable[[object], list[Delta]]) -> None:
        """`parse` reads a whole answer, which a server that does not stream may send instead."""
        self._sse = SseReader(_MAX_EVENT)
        self._events = events
        self._parse = parse

    def feed(self, chunk: bytes) -> list[Delta]:
        """The pieces that `chunk` completes."""
        if self._events.is_over:
            return []
        try:
            events = self._sse.feed(chunk)
        except SseError as error:
            return self._fail(str(error))
        if len(events) == 1:
            return self._event(events[0])
        return [delta for event in events for delta in self._event(event)]

    def end(self) -> list[Delta]:
        """What the end of the body leaves."""
        if self._events.is_over:
            return []
        try:
            events = self._sse.end()
        except SseError as error:
            return self._fail(str(error))
        # Half an event is what a stream that broke off ends with.
        found = [delta for event in events for delta in self._event(event, BROKE_OFF)]
        return found + self._events.end()

    def _event(self, event: Event, otherwise: str = NO_JSON) -> list[Delta]:
        """The pieces in one event. `otherwise`: what to say of one that is no JSON object."""
        if event.data is None:
            return self._whole(event.raw, otherwise)
        try:
            value = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            return self._events.read(value)
        # Which API versions before 2023-06-01 ended with, and some servers still do.
        return [] if event.data == b"[DONE]" else self._fail(otherwise)

    def _whole(self, raw: bytes, otherwise: str) -> list[Delta]:
        """No event, but perhaps an error or a whole answer, of a server that does not stream."""
        if self._events.is_started or not raw.lstrip().startswith(b"{"):
            return []
        try:
            found = self._parse(parsed(raw))
        except FormatError:
            return self._fail(otherwise)
        self._events.is_over = True
        return found

    def _fail(self, message: str) -> list[Delta]:
        if self._events.is_over:
            return []
        self._events.is_over = True
        return [Failed(ProviderError(message))]
