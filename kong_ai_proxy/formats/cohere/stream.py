"""Streams of Cohere's chat, API v2: https://docs.cohere.com/v2/docs/streaming."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.cohere.common import FAILURES, error_of, failure, usage_object, usage_of
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Logprobs,
    MediaPiece,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    Used,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import object_of, text_of
from kong_ai_proxy.formats.sse import Event, SseError, SseReader
from kong_ai_proxy.formats.usage import Usage

_REASONS: Mapping[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
_THEIR_REASONS: Mapping[FinishReason, str] = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    # The nearest: there is no other word for an answer that was withheld.
    "content_filter": "ERROR",
}

_Value = Mapping[str, object]


def finished(reason: str, has_calls: bool, error: str = "") -> Finished | Failed:
    """What a `finish_reason` means."""
    if reason in FAILURES:
        return Failed(failure(reason, error))
    ours = _REASONS.get(reason, "stop")
    return Finished("tool_calls" if has_calls and ours == "stop" else ours)


def finish_reason(reason: FinishReason, stop_sequence: str | None) -> str:
    """The same for a client."""
    return "STOP_SEQUENCE" if stop_sequence and reason == "stop" else _THEIR_REASONS[reason]


def logprob(item: _Value) -> dict[str, object]:
    """One of Cohere's `logprobs` as OpenAI has them. Where it is of several tokens at once, their
    texts are not told apart, and the entry is that of all together."""
    text = text_of(item, "text")
    logprobs = item.get("logprobs")
    told = logprobs if isinstance(logprobs, list) else []
    numbers = [each for each in told if isinstance(each, int | float)]
    return {
        "token": text,
        "logprob": sum(numbers),
        "bytes": list(text.encode()),
        "top_logprobs": [],
    }


def logprob_item(entry: object) -> dict[str, object]:
    """The same for a client; other providers do not tell the tokens' ids."""
    value = entry if isinstance(entry, dict) else {}
    return {
        "text": text_of(value, "token"),
        "token_ids": [],
        "logprobs": [value.get("logprob", 0.0)],
    }


def _message(event: _Value) -> _Value:
    return object_of(object_of(event, "delta"), "message")


class Reader:
    """Reads one stream. Citations are told with the usage: they come before the text they are of
    is complete, and no other format has a place for them."""

    __slots__ = ("_calls", "_citations", "_out", "_over", "_sse", "_started")

    def __init__(self) -> None:
        self._sse = SseReader()
        self._out: list[Delta] = []
        self._calls: dict[object, int] = {}  # their number by Cohere's index
        self._citations: list[object] = []
        self._started = False
        self._over = False

    def feed(self, chunk: bytes) -> list[Delta]:
        """The pieces that `chunk` completes."""
        if self._over:
            return []
        try:
            for event in self._sse.feed(chunk):
                self._read(event)
        except SseError as error:
            self._fail(ProviderError(str(error)))
        return self._taken()

    def end(self) -> list[Delta]:
        """What the end of the body leaves."""
        if self._over:
            return []
        try:
            for event in self._sse.end():
                self._read(event, "the stream ended within an event")
        except SseError as error:
            self._fail(ProviderError(str(error)))
        if not self._over:
            self._fail(ProviderError("the stream ended before its message-end event"))
        return self._taken()

    def _taken(self) -> list[Delta]:
        out, self._out = self._out, []
        return out

    def _read(self, event: Event, broken: str = "an event of the stream is not JSON") -> None:
        if self._over:
            return
        data = event.data
        if data is None:
            data = event.raw.strip()
            if not data.startswith(b"{"):
                return
        elif data == b"[DONE]":
            return
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._fail(ProviderError(broken))
            return
        if not isinstance(value, dict):
            return
        handle = _EVENTS.get(text_of(value, "type"))
        if handle is not None:
            handle(self, value)
        elif "type" not in value and (error := error_of(value)):
            self._fail(error)

    def _fail(self, error: ProviderError) -> None:
        self._over = True
        self._out.append(Failed(error))

    def _start(self, event: _Value) -> None:
        if not self._started:
            self._started = True
            self._out.append(Started(text_of(event, "id")))

    def _content(self, event: _Value) -> None:
        content = _message(event).get("content")
        if isinstance(content, dict):
            self._text(content.get("text"), TextPiece)
            self._text(content.get("thinking"), ThinkingPiece)
        logprobs = event.get("logprobs")
        if isinstance(logprobs, dict):
            self._out.append(Logprobs([logprob(logprobs)]))

    def _plan(self, event: _Value) -> None:
        self._text(_message(event).get("tool_plan"), TextPiece)

    def _text(self, text: object, piece: type[TextPiece | ThinkingPiece]) -> None:
        if isinstance(text, str) and text:
            self._start({})
            self._out.append(piece(text))

    def _call(self, event: _Value) -> None:
        self._start({})
        call = object_of(_message(event), "tool_calls")
        function = object_of(call, "function")
        number = len(self._calls)
        index = event.get("index")
        self._calls[index if isinstance(index, int) else -1 - number] = number
        self._out.append(CallStarted(number, text_of(call, "id"), text_of(function, "name")))
        if first := text_of(function, "arguments"):
            self._out.append(CallArguments(number, first))

    def _arguments(self, event: _Value) -> None:
        if not self._calls:
            return
        index = event.get("index")
        last = len(self._calls) - 1
        number = self._calls.get(index, last) if isinstance(index, int) else last
        function = object_of(object_of(_message(event), "tool_calls"), "function")
        if more := text_of(function, "arguments"):
            self._out.append(CallArguments(number, more))

    def _citation(self, event: _Value) -> None:
        citation = _message(event).get("citations")
        self._citations += citation if isinstance(citation, list) else [citation]

    def _end(self, event: _Value) -> None:
        self._start({})
        self._over = True
        delta = object_of(event, "delta")
        reason, error = text_of(delta, "finish_reason"), text_of(delta, "error")
        if error and reason not in FAILURES:
            reason = "ERROR"
        self._out += ending(reason, bool(self._calls), error, delta, self._citations)


def ending(
    reason: str, has_calls: bool, error: str, told: _Value, citations: list[object]
) -> list[Delta]:
    """The last pieces of an answer; its usage is `told` in the member of that name."""
    found: list[Delta] = [finished(reason, has_calls, error)]
    usage = usage_of(object_of(told, "usage"))
    if isinstance(found[0], Failed):
        return [*([Used(usage)] if usage else []), *found]
    if usage or citations:
        found.append(Used(usage or Usage(), {"citations": citations} if citations else {}))
    return found


_EVENTS: Mapping[str, Callable[[Reader, _Value], None]] = {
    "message-start": Reader._start,
    "content-start": Reader._content,
    "content-delta": Reader._content,
    "tool-plan-delta": Reader._plan,
    "tool-call-start": Reader._call,
    "tool-call-delta": Reader._arguments,
    "citation-start": Reader._citation,
    "message-end": Reader._end,
}


def _event(kind: str, **members: object) -> bytes:
    data = orjson.dumps({"type": kind, **members})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class _HeldCall:
    """A call that is not written out yet, or not to its end."""

    __slots__ = ("arguments", "delta", "index", "written")

    def __init__(self, delta: CallStarted, index: int) -> None:
        self.delta = delta
        self.index = index
        self.arguments: list[str] = []
        self.written = 0  # how many of these have been

    @property
    def looks_complete(self) -> bool:
        """Whether the arguments so far are a whole JSON value."""
        try:
            orjson.loads("".join(self.arguments))
        except orjson.JSONDecodeError:
            return False
        return True


class Writer:
    """Writes one stream. Calls follow one another, each with its end before the next one's start,
    as the reference has it: one that comes early waits."""

    __slots__ = (
        "_calls",
        "_context",
        "_finished",
        "_index",
        "_kind",
        "_over",
        "_prefix",
        "_started",
        "_usage",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started = False
        self._over = False
        self._index = -1  # of the content block
        self._kind = ""  # of the open one, "" for none
        self._prefix = b""  # of its events
        self._calls: dict[int, _HeldCall] = {}  # those that have not ended, in order
        self._finished = Finished("stop")
        self._usage: Usage | None = None

    def feed(self, deltas: list[Delta]) -> bytes:
        """What the client gets of these."""
        return b"".join([self._write(delta) for delta in deltas])

    def end(self) -> bytes:
        """The rest, once the answer is complete."""
        if self._over:
            return b""
        self._over = True
        reason = finish_reason(self._finished.reason, self._finished.stop_sequence)
        usage = {"usage": usage_object(self._usage)} if self._usage else {}
        end = _event("message-end", delta={"finish_reason": reason, **usage})
        return (
            self._start() + self._close() + self._end_calls(last=True) + end + b"data: [DONE]\n\n"
        )

    def _write(self, delta: Delta) -> bytes:
        if self._over:
            return b""
        kind = type(delta)
        if kind is TextPiece or kind is RefusalPiece:
            return self._content("text", delta)  # type: ignore[arg-type]
        if kind is ThinkingPiece:
            return self._content("thinking", delta)  # type: ignore[arg-type]
        return self._write_other(delta)

    def _write_other(self, delta: Delta) -> bytes:
        match delta:
            case Started(id=identity):
                return self._start(identity)
            case CallStarted(choice=0):
                return self._start() + self._close() + self._open_call(delta)
            case CallArguments(choice=0):
                return self._more(delta)
            case Logprobs(content, 0):
                items = [logprob_item(entry) for entry in content]
                return b"".join(self._logprobs(item) for item in items)
            case Finished(choice=0):
                self._finished = delta
            case Used(usage):
                self._usage = usage
            case Failed(error):
                return self._fail(error.message)
            case MediaPiece(media):
                return self._fail(f"the answer has an {media.kind}, which Cohere's format has not")
        return b""

    def _start(self, identity: str = "") -> bytes:
        if self._started:
            return b""
        self._started = True
        delta = {"message": {"role": "assistant"}}
        return _event("message-start", id=identity or self._context.id, delta=delta)

    def _content(self, kind: str, piece: TextPiece | ThinkingPiece | RefusalPiece) -> bytes:
        if piece.choice or not piece.text:
            return b""
        if self._kind == kind:
            return self._prefix + orjson.dumps(piece.text) + b"}}}}\n\n"
        head = self._start() + self._close()
        self._kind = kind
        self._index += 1
        self._prefix = (
            b'event: content-delta\ndata: {"type":"content-delta","index":%d,'
            b'"delta":{"message":{"content":{"%b":' % (self._index, kind.encode())
        )
        block = {"type": kind, kind: ""}
        head += _event("content-start", index=self._index, delta={"message": {"content": block}})
        return head + self._prefix + orjson.dumps(piece.text) + b"}}}}\n\n"

    def _logprobs(self, item: dict[str, object]) -> bytes:
        content = {"message": {"content": {"text": ""}}}
        return _event("content-delta", index=max(self._index, 0), delta=content, logprobs=item)

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        return _event("content-end", index=self._index)

    def _open_call(self, delta: CallStarted) -> bytes:
        ended = self._end_calls(last=False)
        index = delta.number
        self._calls[index] = call = _HeldCall(delta, index)
        return ended + (self._begin_call(call) if len(self._calls) == 1 else b"")

    def _begin_call(self, call: _HeldCall) -> bytes:
        identity = call.delta.id or f"call_{self._context.id}_{call.index}"
        function = {"name": call.delta.name, "arguments": ""}
        written = {"id": identity, "type": "function", "function": function}
        delta = {"message": {"tool_calls": written}}
        return _event("tool-call-start", index=call.index, delta=delta)

    def _more(self, delta: CallArguments) -> bytes:
        call = self._calls.get(delta.number)
        if call is None:
            return b""
        call.arguments.append(delta.text)
        return self._arguments(call) if call is next(iter(self._calls.values())) else b""

    def _arguments(self, call: _HeldCall) -> bytes:
        """What has come of them since."""
        fresh = call.arguments[call.written :]
        call.written = len(call.arguments)
        return b"".join([_arguments_event(call.index, text) for text in fresh])

    def _end_calls(self, *, last: bool) -> bytes:
        """End those whose arguments are complete, all of them where nothing more can come. The
        next one begins with what has come of it."""
        found = b""
        while self._calls:
            index, call = next(iter(self._calls.items()))
            if not last and not call.looks_complete:
                return found
            if not call.arguments:
                call.arguments.append("{}")
            found += self._arguments(call) + _event("tool-call-end", index=index)
            del self._calls[index]
            if self._calls:
                following = next(iter(self._calls.values()))
                found += self._begin_call(following) + self._arguments(following)
        return found

    def _fail(self, message: str) -> bytes:
        """The reference has `delta.error` for "an error message if an error occurred during the
        generation"."""
        self._over = True
        return _event("message-end", delta={"finish_reason": "ERROR", "error": message})


def _arguments_event(index: int, text: str) -> bytes:
    function = {"function": {"arguments": text}}
    return _event("tool-call-delta", index=index, delta={"message": {"tool_calls": function}})
