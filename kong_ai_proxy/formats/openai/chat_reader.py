"""Streams of chat completions and of completions, read.

https://platform.openai.com/docs/api-reference/chat/streaming. A stream is complete with `[DONE]`,
or where every choice has told why it finished: not every server sends both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from kong_ai_proxy.formats.deltas import Delta, Failed, Used
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import parsed
from kong_ai_proxy.formats.openai.answers import number_of
from kong_ai_proxy.formats.openai.chat_pieces import ChoiceReader, started
from kong_ai_proxy.formats.openai.errors import error_of
from kong_ai_proxy.formats.openai.usage import usage
from kong_ai_proxy.formats.sse import Event, SseError, SseReader

_MAX_EVENT = 32 << 20  # an image is one event
_MAX_CHOICES = 128  # https://platform.openai.com/docs/api-reference/chat/create: `n`
_BAD_GATEWAY = 502
_UNNAMED = (b"", b"message", b"error")
"""Names of events whose data has to be JSON; others are somebody's own."""


class ChunkReader:
    """Reads one stream; see StreamReader."""

    __slots__ = ("_choices", "_new", "_over", "_sse", "_started")

    def __init__(self, choice: Callable[[int], ChoiceReader]) -> None:
        """`choice` makes the reader of the choice with a number."""
        self._sse = SseReader(_MAX_EVENT)
        self._new = choice
        self._choices: dict[int, ChoiceReader] = {}
        self._started = False
        self._over = False

    def feed(self, chunk: bytes) -> list[Delta]:
        """See StreamReader."""
        out: list[Delta] = []
        if self._over:
            return out
        try:
            events = self._sse.feed(chunk)
        except SseError as error:
            self._fail(out, str(error))
            return out
        for event in events:
            self._event(event, out)
            if self._over:
                break
        return out

    def end(self) -> list[Delta]:
        """See StreamReader. A last event that was cut counts only where it can be read."""
        out: list[Delta] = []
        if self._over:
            return out
        try:
            for event in self._sse.end():
                if parsed(event.data or b"") is not None or event.data in (None, b"[DONE]"):
                    self._event(event, out)
        except SseError as error:
            self._fail(out, str(error))
        if self._over:
            return out
        if self._choices and all(choice.finished for choice in self._choices.values()):
            self._over = True
        else:
            self._fail(out, "the provider's stream ended before its answer was complete")
        return out

    def _event(self, event: Event, out: list[Delta]) -> None:
        data = event.data
        if data is None:
            self._without_data(event.raw, out)
            return
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._no_json(event, out)
            return
        if type(value) is dict and event.name != b"error":
            self._chunk(value, out)
        elif error := error_of(value):
            self._failed(out, error)
        elif event.name == b"error":
            self._fail(out, "the provider's stream failed")

    def _no_json(self, event: Event, out: list[Delta]) -> None:
        data = (event.data or b"").strip()
        if data == b"[DONE]":
            self._done(out)
        elif data and event.name in _UNNAMED:
            self._fail(out, "an event of the provider's stream is not JSON")

    def _without_data(self, raw: bytes, out: list[Delta]) -> None:
        """A comment, or a body that is no stream at all: an error, or an answer in one piece."""
        if raw.lstrip()[:1] in (b"{", b"["):
            value = parsed(raw)
            if isinstance(value, dict):
                self._chunk(value, out)
            elif error := error_of(value):
                self._failed(out, error)

    def _chunk(self, value: Mapping[str, object], out: list[Delta]) -> None:
        choices = value.get("choices")
        if value.get("error") or (not choices and value.get("object") == "error"):
            self._failed(out, error_of(value) or ProviderError("unknown error"))
            return
        if choices and type(choices) is list:
            if not self._started:
                self._started = True
                out.append(started(value))
            for choice in choices:
                if type(choice) is dict:
                    self._read(choice, out)
        told = value.get("usage")
        if told and not self._over:
            used = usage(told, value.get("service_tier"))
            if used is not None:
                out.append(Used(used))

    def _read(self, choice: Mapping[str, object], out: list[Delta]) -> None:
        index = choice.get("index")
        reader = self._choices.get(index) if type(index) is int else None
        if reader is None:
            reader = self._choice(number_of(index))
            if reader is None:
                return
        before = len(out)
        reader.read(choice, out)
        if len(out) > before and type(out[-1]) is Failed:
            self._over = True

    def _choice(self, number: int) -> ChoiceReader | None:
        reader = self._choices.get(number)
        if reader is None and len(self._choices) < _MAX_CHOICES:
            reader = self._choices[number] = self._new(number)
        return reader

    def _done(self, out: list[Delta]) -> None:
        if not self._choices:
            self._fail(out, "the provider's stream has no answer in it")
            return
        for choice in self._choices.values():
            choice.end(out)
        self._over = True

    def _fail(self, out: list[Delta], message: str) -> None:
        self._failed(out, ProviderError(message, status=_BAD_GATEWAY))

    def _failed(self, out: list[Delta], error: ProviderError) -> None:
        out.append(Failed(error))
        self._over = True
