"""OpenAI's Responses, a stream for a client written.

Events: https://platform.openai.com/docs/api-reference/responses-streaming. Every event says which
item it belongs to, so that calls may come interleaved. A message, and a thought, end where
something else begins; a call does too where its arguments are whole JSON then, and with the answer
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    Logprobs,
    MediaPiece,
    RefusalPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai import responses_items as items
from kong_ai_proxy.formats.openai.responses_answer import CODES
from kong_ai_proxy.formats.openai.responses_items import Item
from kong_ai_proxy.formats.openai.responses_tools import Own, input_of, own_names
from kong_ai_proxy.formats.usage import Usage

_dumps = orjson.dumps

_CODES = {400: "invalid_prompt", 422: "invalid_prompt", 429: "rate_limit_exceeded"}


def response_error(error: ProviderError) -> Item:
    """The error of a response that failed."""
    code = error.code if error.code in CODES else _CODES.get(error.status, "server_error")
    return {
        "code": code,
        "message": error.message,
        "type": error.type or None,
        "param": error.param,
    }


class _Open:
    """An item under way."""

    __slots__ = ("head", "id", "index", "kind", "logprobs", "parts", "texts")

    def __init__(self, kind: str, identity: str, index: int) -> None:
        self.kind = kind
        """Of its open part: output_text, refusal, reasoning_summary_text; "" for none."""
        self.id = identity
        self.index = index
        self.parts: list[object] = []
        self.texts: list[str] = []
        """Of the open part, or of a call's arguments."""
        self.logprobs: list[object] = []
        self.head = b""
        """What comes before each piece of it."""


class _Call(_Open):
    """A call under way."""

    __slots__ = ("call_id", "own")

    def __init__(self, ids: tuple[str, str], index: int, own: Own) -> None:
        kind = "custom_tool_call_input" if own.is_custom else "function_call_arguments"
        super().__init__(kind, ids[0], index)
        self.call_id = ids[1]
        self.own = own

    def item(self, status: str, arguments: str) -> Item:
        """The call as it is told."""
        return items.call((self.id, self.call_id), status, self.own, arguments)

    def is_whole(self) -> bool:
        """Whether its arguments can be complete."""
        try:
            return isinstance(orjson.loads("".join(self.texts)), dict)
        except orjson.JSONDecodeError:
            return False


class ResponsesWriter:
    """Writes one stream; see StreamWriter."""

    __slots__ = (
        "_begun",
        "_calls",
        "_context",
        "_end",
        "_extra",
        "_finished",
        "_last_text",
        "_message",
        "_out",
        "_output",
        "_over",
        "_own",
        "_sequence",
        "_started",
        "_thought",
        "_usage",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self._out: list[bytes] = []
        self._sequence = 0
        self._begun = self._finished = self._over = False
        self._started = Started()
        self._end = Finished("stop")
        self._usage: Usage | None = None
        self._extra: Mapping[str, object] = {}
        self._output: list[Item | None] = []  # None for an item that is not done
        self._message: _Open | None = None
        self._thought: _Open | None = None
        self._calls: dict[int, _Call] = {}
        self._own: Mapping[str, Own] | None = None
        self._last_text: Item = {}  # the last part of a message that is done

    def feed(self, deltas: list[Delta]) -> bytes:
        """See StreamWriter."""
        if self._over or not deltas:
            return b""
        if not self._begun:
            self._begin(deltas)
        for delta in deltas:
            _WRITE[type(delta)](self, delta)
            if self._over:
                break
        return self._written()

    def end(self) -> bytes:
        """See StreamWriter. An answer that has not finished is finished."""
        if self._over:
            return b""
        if not self._begun:
            self._begin([])
        if not self._finished:
            self._finish(Finished("stop"))
        self._over = True
        response = items.ended(self._response("completed"), self._end, self._usage, self._extra)
        self._event(f"response.{response['status']}", response=response)
        return self._written()

    def _written(self) -> bytes:
        out = self._out
        written = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return written

    def _event(self, name: str, **members: object) -> None:
        value = {"type": name, "sequence_number": self._sequence, **members}
        self._sequence += 1
        self._out.append(b"event: " + name.encode() + b"\ndata: " + _dumps(value) + b"\n\n")

    def _begin(self, deltas: list[Delta]) -> None:
        self._begun = True
        self._started = next((each for each in deltas if isinstance(each, Started)), self._started)
        response = self._response("in_progress")
        self._event("response.created", response=response)
        self._event("response.in_progress", response=response)

    def _response(self, status: str) -> Item:
        done = [item for item in self._output if item is not None]
        return items.response(self._started, self._context, done, status)

    # ---- items

    def _new(self, kind: str) -> tuple[int, str]:
        """Index and id of the next item."""
        index = len(self._output)
        self._output.append(None)
        return index, items.item_id(kind, self._context, index)

    def _add(self, index: int, item: Item) -> None:
        self._event("response.output_item.added", output_index=index, item=item)

    def _done(self, index: int, item: Item) -> None:
        self._output[index] = item
        self._event("response.output_item.done", output_index=index, item=item)

    def _whole(self, index: int, begun: Item, done: Item) -> None:
        self._add(index, begun)
        self._done(index, done)

    def _head(self, item: _Open, where: bytes = b"") -> None:
        """Prepare what comes before each piece."""
        event = b"response." + item.kind.encode() + b".delta"
        same = b'event: %b\ndata: {"type":"%b","item_id":%b,"output_index":%d%b,'
        item.head = same % (event, event, _dumps(item.id), item.index, where)

    def _piece(self, item: _Open, text: str) -> None:
        item.texts.append(text)
        sequence = self._sequence
        self._sequence = sequence + 1
        self._out.append(
            b'%b"sequence_number":%d,"delta":%b}\n\n' % (item.head, sequence, _dumps(text))
        )

    def _close(self) -> None:
        """End what is open, so that something else can begin."""
        if self._thought is not None:
            self._close_thought(self._thought, "")
        if self._message is not None:
            self._close_message(self._message, "completed")
        for number in [number for number, call in self._calls.items() if call.is_whole()]:
            self._close_call(self._calls.pop(number), "completed")

    # ---- messages

    def _part(self, kind: str, empty: Item) -> _Open:
        """The message with its part of this kind open."""
        item = self._message
        if item is None:
            self._close()
            index, identity = self._new("msg")
            item = self._message = _Open("", identity, index)
            self._add(index, items.message(identity, "in_progress", []))
        elif item.kind == kind:
            return item
        self._close_part(item)
        item.kind = kind
        where = b',"content_index":%d' % len(item.parts)
        self._head(item, where + (b',"logprobs":[]' if kind == "output_text" else b""))
        self._event("response.content_part.added", **_place(item), part=empty)
        return item

    def _close_part(self, item: _Open) -> None:
        if not item.kind:
            return
        text, place = "".join(item.texts), _place(item)
        if item.kind == "output_text":
            self._event("response.output_text.done", **place, text=text, logprobs=item.logprobs)
            part = self._last_text = items.text_part(text, item.logprobs)
        else:
            self._event("response.refusal.done", **place, refusal=text)
            part = items.refusal_part(text)
        self._event("response.content_part.done", **place, part=part)
        item.parts.append(part)
        item.kind, item.texts, item.logprobs = "", [], []

    def _close_message(self, item: _Open, status: str) -> None:
        self._close_part(item)
        self._message = None
        self._done(item.index, items.message(item.id, status, item.parts))

    def _text(self, delta: TextPiece) -> None:
        if delta.choice or not delta.text or self._finished:
            return
        item = self._message
        if item is None or item.kind != "output_text":
            item = self._part("output_text", items.text_part("", []))
        self._piece(item, delta.text)

    def _refusal(self, delta: RefusalPiece) -> None:
        if not delta.choice and delta.text and not self._finished:
            self._piece(self._part("refusal", items.refusal_part("")), delta.text)

    def _logprobs(self, delta: Logprobs) -> None:
        """They come behind their text, so the piece that has them has no text of its own; behind
        the whole text, they are only in the response at the end."""
        if delta.choice or self._finished:
            return
        told = items.logprobs(delta.content)
        item = self._message
        if item is not None and item.kind == "output_text":
            item.logprobs += told
            self._event("response.output_text.delta", **_place(item), delta="", logprobs=told)
        elif isinstance(had := self._last_text.get("logprobs"), list):
            had += told

    def _media(self, delta: MediaPiece) -> None:
        if delta.choice or self._finished:
            return
        if not items.is_image(delta.media):
            self._text(TextPiece(items.media_text(delta.media)))
            return
        self._close()
        index, identity = self._new("ig")
        done = items.image(identity, delta.media)
        self._whole(index, {**done, "status": "in_progress", "result": None}, done)

    # ---- thoughts

    def _open_thought(self) -> _Open:
        item = self._thought
        if item is None:
            self._close()
            index, identity = self._new("rs")
            item = self._thought = _Open("", identity, index)
            self._add(index, items.reasoning(identity, "", ""))
        return item

    def _thinking(self, delta: ThinkingPiece) -> None:
        if delta.choice or self._finished:
            return
        item = self._thought or self._open_thought()
        if not delta.text:
            return
        if not item.kind:
            item.kind = "reasoning_summary_text"
            self._head(item, b',"summary_index":0')
            part = items.summary_part("")
            self._event("response.reasoning_summary_part.added", **_summary(item), part=part)
        self._piece(item, delta.text)

    def _close_thought(self, item: _Open, sealed: str) -> None:
        text = "".join(item.texts)
        if item.kind:
            self._event("response.reasoning_summary_text.done", **_summary(item), text=text)
            part = items.summary_part(text)
            self._event("response.reasoning_summary_part.done", **_summary(item), part=part)
        self._thought = None
        self._done(item.index, items.reasoning(item.id, text, sealed))

    def _signed(self, delta: ThinkingSigned) -> None:
        if not delta.choice and not self._finished:
            self._close_thought(self._open_thought(), items.sealed_signature(delta.signature))

    def _redacted(self, delta: ThinkingRedacted) -> None:
        if not delta.choice and not self._finished:
            self._close()
            self._close_thought(self._open_thought(), items.sealed_thought(delta.data))

    # ---- calls

    def _call_started(self, delta: CallStarted) -> None:
        if delta.choice or self._finished or delta.number in self._calls:
            return
        self._close()
        if delta.signature:
            self._close_thought(self._open_thought(), items.sealed_call(delta.signature))
        if self._own is None:
            self._own = own_names(self._context.request)
        own = self._own.get(delta.name) or Own(delta.name)
        index, identity = self._new("ctc" if own.is_custom else "fc")
        ids = identity, items.call_id(delta.id, self._context, index)
        call = self._calls[delta.number] = _Call(ids, index, own)
        self._head(call)
        self._add(index, call.item("in_progress", ""))

    def _call_arguments(self, delta: CallArguments) -> None:
        """The input of a custom tool stands in JSON, so that it can be told once that is whole."""
        call = self._calls.get(delta.number)
        if call is None or not delta.text or delta.choice:
            return
        if call.own.is_custom:
            call.texts.append(delta.text)
        else:
            self._piece(call, delta.text)

    def _close_call(self, call: _Call, status: str) -> None:
        arguments = "".join(call.texts) or "{}"
        if call.own.is_custom:
            arguments = input_of(arguments)
            self._piece(call, arguments)
        elif not call.texts:
            self._piece(call, arguments)
        self._event(
            f"response.{call.kind}.done",
            item_id=call.id,
            output_index=call.index,
            **{"input" if call.own.is_custom else "arguments": arguments},
        )
        self._done(call.index, call.item(status, arguments))

    # ---- the end

    def _pass(self, _: Started) -> None:
        """Told at the beginning, or too late."""

    def _finish(self, delta: Finished) -> None:
        if delta.choice or self._finished:
            return
        self._finished = True
        self._end = delta
        last = "incomplete" if items.incomplete_reason(delta) else "completed"
        if self._thought is not None:
            self._close_thought(self._thought, "")
        if self._message is not None:
            self._close_message(self._message, last)
        end = len(self._output) - 1
        for call in self._calls.values():
            self._close_call(call, last if call.index == end else "completed")
        self._calls.clear()

    def _used(self, delta: Used) -> None:
        self._usage = delta.usage
        self._extra = delta.extra

    def _fail(self, delta: Failed) -> None:
        self._over = True
        response = self._response("failed")
        response["error"] = response_error(delta.error)
        self._event("response.failed", response=response)


def _place(item: _Open) -> dict[str, Any]:
    """Where the open part of a message is."""
    return {"item_id": item.id, "output_index": item.index, "content_index": len(item.parts)}


def _summary(item: _Open) -> dict[str, Any]:
    """Where the open part of a thought is."""
    return {"item_id": item.id, "output_index": item.index, "summary_index": 0}


_WRITE: Mapping[type[Delta], Callable[[ResponsesWriter, Any], None]] = {
    Started: ResponsesWriter._pass,
    TextPiece: ResponsesWriter._text,
    ThinkingPiece: ResponsesWriter._thinking,
    ThinkingSigned: ResponsesWriter._signed,
    ThinkingRedacted: ResponsesWriter._redacted,
    RefusalPiece: ResponsesWriter._refusal,
    CallStarted: ResponsesWriter._call_started,
    CallArguments: ResponsesWriter._call_arguments,
    MediaPiece: ResponsesWriter._media,
    Logprobs: ResponsesWriter._logprobs,
    Finished: ResponsesWriter._finish,
    Used: ResponsesWriter._used,
    Failed: ResponsesWriter._fail,
}
