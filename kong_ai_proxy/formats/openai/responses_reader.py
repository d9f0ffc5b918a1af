"""OpenAI's Responses, a provider's stream read.

Events: https://platform.openai.com/docs/api-reference/responses-streaming. What comes in pieces is
passed on in pieces; an item of which none came counts as it is told when it is done. Where a server
tells no items at all before the end, those of the response at the end count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    RefusalPiece,
    TextPiece,
    ThinkingPiece,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import object_of, objects_of, parsed, text_of
from kong_ai_proxy.formats.openai.errors import error_of
from kong_ai_proxy.formats.openai.responses_answer import (
    end_pieces,
    failure,
    item_pieces,
    logprobs_pieces,
    parse_answer,
    signed,
    started,
    with_status,
)
from kong_ai_proxy.formats.sse import Event, SseError, SseReader

Object = Mapping[str, object]

_MAX_EVENT = 32 << 20  # an image is one event
_BAD_GATEWAY = 502
_BROKE_OFF = "the provider's stream ended before its answer was complete"


class ResponsesReader:
    """Reads one stream; see StreamReader."""

    __slots__ = ("_calls", "_done", "_over", "_said", "_sse", "_started", "_thought")

    def __init__(self) -> None:
        self._sse = SseReader(_MAX_EVENT)
        self._over = False
        self._started = False
        self._calls: dict[int | str, int] = {}  # numbers of calls by item
        self._said: set[int | str] = set()  # items of which pieces came
        self._done: set[int | str] = set()
        self._thought: tuple[object, ...] = ()  # which part of which thought came last

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
                if event.data is None or parsed(event.data) is not None:
                    self._event(event, out)
        except SseError as error:
            self._fail(out, str(error))
        if not self._over:
            self._fail(out, _BROKE_OFF)
        return out

    def _event(self, event: Event, out: list[Delta]) -> None:
        if event.data is None:
            self._whole(event.raw, out)
            return
        try:
            value = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            value = None
        if type(value) is not dict:
            if event.data != b"[DONE]":  # of servers that end all their streams alike
                self._fail(out, "an event of the provider's stream is not a JSON object")
            return
        kind = value.get("type")
        handler = _HANDLERS.get(kind) if type(kind) is str else None
        if handler is not None:
            handler(self, value, out)
        elif kind is None and value.get("error"):
            self._error(value, out)

    def _whole(self, raw: bytes, out: list[Delta]) -> None:
        """No event, but perhaps an error or a whole answer, of a server that does not stream."""
        if self._started or not raw.lstrip().startswith(b"{"):
            return
        try:
            out += parse_answer(parsed(raw))
            self._over = True
        except FormatError:
            self._fail(out, "the provider answered with JSON that is no response")

    # ---- items

    def _begin(self, value: Object, out: list[Delta]) -> None:
        if not self._started:
            self._started = True
            out.append(started(object_of(value, "response")))

    def _added(self, value: Object, out: list[Delta]) -> None:
        item = object_of(value, "item")
        if item.get("type") == "function_call":
            self._call(item, _key(value), out)

    def _call(self, item: Object, key: int | str, out: list[Delta]) -> int:
        """The number of a call, which begins unless it has."""
        if key not in self._calls:
            self._calls[key] = len(self._calls)
            call = CallStarted(self._calls[key], text_of(item, "call_id"), text_of(item, "name"))
            out.append(call)
        return self._calls[key]

    def _item_done(self, value: Object, out: list[Delta]) -> None:
        self._item(object_of(value, "item"), _key(value), out)

    def _item(self, item: Object, key: int | str, out: list[Delta]) -> None:
        """The end of an item: all of it, where no pieces came."""
        if key in self._done:
            return
        self._done.add(key)
        number = 0
        is_call = item.get("type") == "function_call"
        if is_call:
            number = self._call(item, key, out)
        if key not in self._said:
            pieces = item_pieces(item, number)
            out += pieces[1:] if is_call else pieces
        elif item.get("type") == "reasoning":
            out += signed(item)

    # ---- pieces

    def _text(self, value: Object, out: list[Delta]) -> None:
        text = value.get("delta")
        if text and type(text) is str:
            self._said.add(_key(value))
            out.append(TextPiece(text))
        if value.get("logprobs"):
            out += logprobs_pieces(value)

    def _refusal(self, value: Object, out: list[Delta]) -> None:
        if text := text_of(value, "delta"):
            self._said.add(_key(value))
            out.append(RefusalPiece(text))

    def _arguments(self, value: Object, out: list[Delta]) -> None:
        key, text = _key(value), text_of(value, "delta")
        if text and key in self._calls:
            self._said.add(key)
            out.append(CallArguments(self._calls[key], text))

    def _summary(self, value: Object, out: list[Delta]) -> None:
        self._think(value, ("summary", value.get("summary_index")), out)

    def _thoughts(self, value: Object, out: list[Delta]) -> None:
        self._think(value, ("text", value.get("content_index")), out)

    def _think(self, value: Object, part: tuple[str, object], out: list[Delta]) -> None:
        """Where a server tells both the thoughts and their summary, what comes first counts."""
        text = text_of(value, "delta")
        if not text:
            return
        key = _key(value)
        last, self._thought = self._thought, (key, *part)
        if last[:1] == (key,) and last != self._thought:
            if last[1] != part[0]:
                self._thought = last
                return
            text = f"\n\n{text}"
        self._said.add(key)
        out.append(ThinkingPiece(text))

    # ---- the end

    def _end(self, value: Object, out: list[Delta]) -> None:
        self._begin(value, out)
        response = object_of(value, "response")
        if not self._said and not self._done:
            for index, item in enumerate(objects_of(response, "output")):
                self._item(item, index, out)
        status = text_of(value, "type").removeprefix("response.")
        out += end_pieces({**response, "status": status}, bool(self._calls))
        self._over = True

    def _failed(self, value: Object, out: list[Delta]) -> None:
        self._begin(value, out)
        out.append(Failed(failure(object_of(value, "response"))))
        self._over = True

    def _error(self, value: Object, out: list[Delta]) -> None:
        """The reference has the error's members in the event itself, some servers in `error`."""
        told = value if value.get("error") else {"error": {**value, "type": None}}
        error = error_of(told) or ProviderError("unknown error")
        out.append(Failed(with_status(error)))
        self._over = True

    def _fail(self, out: list[Delta], message: str) -> None:
        out.append(Failed(ProviderError(message, status=_BAD_GATEWAY)))
        self._over = True


def _key(value: Object) -> int | str:
    """Which item an event is of: its output index, or its id where a server leaves that out."""
    index = value.get("output_index")
    if type(index) is int:
        return index
    return text_of(value, "item_id") or text_of(object_of(value, "item"), "id")


_HANDLERS: Mapping[str, Callable[[ResponsesReader, Object, list[Delta]], None]] = {
    "response.output_text.delta": ResponsesReader._text,
    "response.refusal.delta": ResponsesReader._refusal,
    "response.function_call_arguments.delta": ResponsesReader._arguments,
    "response.reasoning_summary_text.delta": ResponsesReader._summary,
    "response.reasoning_text.delta": ResponsesReader._thoughts,
    "response.output_item.added": ResponsesReader._added,
    "response.output_item.done": ResponsesReader._item_done,
    "response.created": ResponsesReader._begin,
    "response.queued": ResponsesReader._begin,
    "response.in_progress": ResponsesReader._begin,
    "response.completed": ResponsesReader._end,
    "response.incomplete": ResponsesReader._end,
    "response.failed": ResponsesReader._failed,
    "response.cancelled": ResponsesReader._failed,
    "error": ResponsesReader._error,
}
