"""Writes streams of Bedrock's ConverseStream, for its clients.

Events: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html. An
answer is a row of blocks, of which one is open at a time and none is opened again.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from kong_ai_proxy.formats.aws_event_stream import encoded_headers, framed
from kong_ai_proxy.formats.bedrock import answer as bedrock_answer
from kong_ai_proxy.formats.bedrock import errors as bedrock_errors
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
from kong_ai_proxy.formats.usage import Usage


def _headers(event: str) -> bytes:
    return encoded_headers(
        {":event-type": event, ":content-type": "application/json", ":message-type": "event"}
    )


_HEADERS = {
    name: _headers(name)
    for name in (
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    )
}
_DELTA = _HEADERS["contentBlockDelta"]
_TEXT = (b'{"text":', b"}}")
_THOUGHT = (b'{"reasoningContent":{"text":', b"}}}")
_SIGNATURE = (b'{"reasoningContent":{"signature":', b"}}}")
_REDACTED = (b'{"reasoningContent":{"redactedContent":', b"}}}")
_INPUT = (b'{"toolUse":{"input":', b"}}}")


class Row:
    """Puts pieces in the order in which blocks have room for them.

    What comes while a call's arguments are not complete waits until the answer is finished, since
    nobody says before that they are. Calls one after another, which is how nearly all come, do not
    wait: the arguments of the one before are whole JSON then.
    """

    __slots__ = ("_call", "_held", "_parts", "_queue")

    def __init__(self) -> None:
        self._call = -1
        self._parts: list[str] = []
        self._queue: list[Delta] = []
        self._held: dict[int, list[str]] = {}

    def content(self, delta: Delta) -> bool:
        """Whether `delta`, which belongs to another block than an open call, has its turn now. If
        not, `rest` gives it back."""
        if self._queue or (self._call >= 0 and not self._is_complete()):
            self._queue.append(delta)
            if isinstance(delta, CallStarted):
                self._held[delta.number] = []
            return False
        self._call = delta.number if isinstance(delta, CallStarted) else -1
        self._parts = []
        return True

    def arguments(self, delta: CallArguments) -> bool:
        """The same for arguments."""
        if delta.number == self._call:
            self._parts.append(delta.text)
            return True
        if delta.number in self._held:
            self._held[delta.number].append(delta.text)
        return False

    def rest(self) -> list[Delta]:
        """What has waited, each call with its arguments. Nothing more comes."""
        found: list[Delta] = []
        for delta in self._queue:
            found.append(delta)
            if isinstance(delta, CallStarted):
                text = "".join(self._held[delta.number]) or "{}"
                found.append(CallArguments(delta.number, text))
        self._queue, self._call = [], -1
        return found

    def _is_complete(self) -> bool:
        try:
            return isinstance(orjson.loads("".join(self._parts)), dict)
        except orjson.JSONDecodeError:
            return False


class Writer:
    """Writes one stream."""

    __slots__ = (
        "_begun",
        "_calls",
        "_context",
        "_end",
        "_extra",
        "_handlers",
        "_head",
        "_index",
        "_kind",
        "_out",
        "_over",
        "_row",
        "_tail",
        "_usage",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self._out: list[bytes] = []
        self._begun = self._over = False
        self._row = Row()
        self._index = -1
        self._kind = ""  # of the open block; "" for none
        self._head = self._tail = b""  # what stands around each piece of it
        self._calls = 0
        self._end = Finished("stop")
        self._usage: Usage | None = None
        self._extra: dict[str, object] = {}
        self._handlers: dict[type, Callable[[Delta], None]] = {
            CallArguments: self._on_arguments,
            CallStarted: self._on_content,
            Failed: self._on_failed,
            Finished: self._on_finished,
            Logprobs: self._pass,
            MediaPiece: self._on_content,
            RefusalPiece: self._on_content,
            Started: self._pass,
            TextPiece: self._on_text,
            ThinkingPiece: self._on_content,
            ThinkingRedacted: self._on_content,
            ThinkingSigned: self._on_content,
            Used: self._on_used,
        }

    def feed(self, deltas: list[Delta]) -> bytes:
        """The events that say `deltas`."""
        if self._over or not deltas:
            return b""
        if not self._begun and type(deltas[0]) is not Failed:
            self._begin()
        for delta in deltas:
            self._handlers[type(delta)](delta)
            if self._over:
                break
        return self._written()

    def end(self) -> bytes:
        """Why the answer ended, and its usage. How long it took is not known here."""
        if self._over:
            return b""
        if not self._begun:
            self._begin()
        self._drain()
        self._over = True
        stop: dict[str, object] = {"stopReason": bedrock_answer.stop_reason(self._end)}
        if "additionalModelResponseFields" in self._extra:
            fields = self._extra.pop("additionalModelResponseFields")
            stop["additionalModelResponseFields"] = fields
        self._event("messageStop", stop)
        usage = bedrock_answer.render_usage(self._usage)
        self._event("metadata", {"usage": usage, "metrics": {"latencyMs": 0}, **self._extra})
        return self._written()

    def _written(self) -> bytes:
        out = self._out
        written = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return written

    def _begin(self) -> None:
        self._begun = True
        self._event("messageStart", {"role": "assistant"})

    def _event(self, name: str, value: dict[str, object]) -> None:
        self._out.append(framed(_HEADERS[name], orjson.dumps(value)))

    # --- blocks ---

    def _open(self, kind: str, around: tuple[bytes, bytes], start: object = None) -> None:
        """A new block. Only those of calls and images begin with an event."""
        self._close()
        self._index += 1
        self._kind = kind
        self._around(around)
        if start is not None:
            self._event("contentBlockStart", {"start": start, "contentBlockIndex": self._index})

    def _around(self, around: tuple[bytes, bytes]) -> None:
        head, self._tail = around
        self._head = b'{"contentBlockIndex":%d,"delta":' % self._index + head

    def _close(self) -> None:
        if self._kind:
            self._event("contentBlockStop", {"contentBlockIndex": self._index})
        self._kind = ""

    def _say(self, text: str) -> None:
        """One piece of the open block."""
        self._out.append(framed(_DELTA, self._head + orjson.dumps(text) + self._tail))

    def _drain(self) -> None:
        for delta in self._row.rest():
            if isinstance(delta, CallArguments):
                self._say(delta.text)
            else:
                self._write(delta)
        self._close()

    # --- pieces ---

    def _pass(self, delta: Delta) -> None:
        """A format without alternatives and log probabilities has no place for them."""

    def _on_text(self, delta: Delta) -> None:
        assert isinstance(delta, TextPiece)
        if self._kind == "text" and delta.text and not delta.choice:
            self._say(delta.text)
        else:
            self._on_content(delta)

    def _on_content(self, delta: Delta) -> None:
        if not getattr(delta, "choice", 0) and self._row.content(delta):
            self._write(delta)

    def _on_arguments(self, delta: Delta) -> None:
        assert isinstance(delta, CallArguments)
        if not delta.choice and self._row.arguments(delta) and delta.text:
            self._say(delta.text)

    def _write(self, delta: Delta) -> None:
        """A piece whose turn has come."""
        match delta:
            case TextPiece(text) | RefusalPiece(text):
                self._more("text", _TEXT, text)
            case ThinkingPiece(text):
                self._more("thought", _THOUGHT, text)
            case ThinkingSigned(signature):
                self._more("thought", _THOUGHT, "")
                self._around(_SIGNATURE)
                self._say(signature)
                self._close()
            case ThinkingRedacted(data):
                self._open("thought", _REDACTED)
                self._say(data)
                self._close()
            case CallStarted(_, told, name):
                identity = bedrock_answer.call_id(told, self._context, self._calls)
                self._calls += 1
                self._open("call", _INPUT, {"toolUse": {"toolUseId": identity, "name": name}})
            case MediaPiece():
                self._media(delta)

    def _more(self, kind: str, around: tuple[bytes, bytes], text: str) -> None:
        if self._kind != kind:
            self._open(kind, around)
        if text:
            self._say(text)

    def _media(self, piece: MediaPiece) -> None:
        block = bedrock_answer.picture(piece.media)
        image = block.get("image")
        if not isinstance(image, dict):
            self._open("media", _TEXT)
            self._say(str(block["text"]))
        else:
            self._open("media", _TEXT, {"image": {"format": image["format"]}})
            delta = {"image": {"source": image["source"]}}
            self._event("contentBlockDelta", {"delta": delta, "contentBlockIndex": self._index})
        self._close()

    # --- the end ---

    def _on_used(self, delta: Delta) -> None:
        assert isinstance(delta, Used)
        self._usage = delta.usage
        self._extra = bedrock_answer.told_beside(delta.extra)

    def _on_finished(self, delta: Delta) -> None:
        assert isinstance(delta, Finished)
        if not delta.choice:
            self._end = delta
            self._drain()

    def _on_failed(self, delta: Delta) -> None:
        assert isinstance(delta, Failed)
        self._over = True
        self._out.append(bedrock_errors.encoded(delta.error))
