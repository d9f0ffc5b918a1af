"""Writes streams in Anthropic's Messages format, for its clients.

Events: https://platform.claude.com/docs/en/build-with-claude/streaming. An answer is a row of
blocks, of which one is open at a time and none is opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from kong_ai_proxy.formats.anthropic import answer as anthropic_answer
from kong_ai_proxy.formats.anthropic import errors as anthropic_errors
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

_TEXT = {"type": "text", "text": ""}
_THINKING = {"type": "thinking", "thinking": "", "signature": ""}

_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
)
_TAIL = b"}}\n\n"


def event(value: Mapping[str, object]) -> bytes:
    """One event, named as its `type` says."""
    name = str(value["type"]).encode()
    return b"event: " + name + b"\ndata: " + orjson.dumps(value) + b"\n\n"


class Writer:
    """Writes one stream.

    Pieces of a block that cannot be open yet are held back: where calls come interleaved, all that
    does not belong to the open one waits until the answer is finished, since nobody says before
    that its arguments are complete. Calls one after another, which is how nearly all come, do not
    wait: the arguments of the one before are whole JSON then.
    """

    __slots__ = (
        "_arguments",
        "_begun",
        "_call",
        "_calls",
        "_context",
        "_end",
        "_handlers",
        "_head",
        "_held",
        "_index",
        "_kind",
        "_out",
        "_over",
        "_queue",
        "_refused",
        "_usage",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self._out: list[bytes] = []
        self._begun = self._over = self._refused = False
        self._end = Finished("stop")
        self._usage: Usage | None = None
        self._index = -1
        self._kind = ""  # of the open block; "" for none
        self._head = b""  # what comes before each piece of it
        self._call = -1  # whose block is open
        self._calls = 0
        self._arguments: list[str] = []
        self._queue: list[Delta] = []
        self._held: dict[int, list[str]] = {}  # arguments of calls in the queue
        self._handlers: dict[type, Callable[[Delta], None]] = {
            CallArguments: self._on_arguments,
            CallStarted: self._on_call,
            Failed: self._on_failed,
            Finished: self._on_finished,
            Logprobs: self._pass,
            MediaPiece: self._on_media,
            RefusalPiece: self._on_refusal,
            Started: self._pass,
            TextPiece: self._on_text,
            ThinkingPiece: self._on_thinking,
            ThinkingRedacted: self._on_redacted,
            ThinkingSigned: self._on_signed,
            Used: self._on_used,
        }

    def feed(self, deltas: list[Delta]) -> bytes:
        """The events that say `deltas`."""
        if self._over or not deltas:
            return b""
        if not self._begun and type(deltas[0]) is not Failed:
            self._begin(deltas)
        for delta in deltas:
            self._handlers[type(delta)](delta)
            if self._over:
                break
        return self._written()

    def end(self) -> bytes:
        """Why the answer ended, its usage, and the end."""
        if self._over:
            return b""
        if not self._begun:
            self._begin([])
        self._drain()
        self._close()
        self._over = True
        reason = anthropic_answer.stop_reason(self._end, self._refused)
        sequence = self._end.stop_sequence if reason == "stop_sequence" else None
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        usage = anthropic_answer.render_usage(self._usage)
        self._out.append(event({"type": "message_delta", "delta": delta, "usage": usage}))
        self._out.append(event({"type": "message_stop"}))
        return self._written()

    def _written(self) -> bytes:
        out = self._out
        written = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return written

    def _begin(self, deltas: list[Delta]) -> None:
        """message_start, with the usage if the provider tells it before it says anything. What it
        tells later is not looked for: that would depend on how the network cut the stream."""
        self._begun = True
        identity = model = ""
        for delta in deltas:
            if isinstance(delta, Started):
                identity, model = delta.id, delta.model
            elif isinstance(delta, Used):
                self._usage = delta.usage
            else:
                break
        message = anthropic_answer.message((identity, model), self._context, [], self._usage)
        self._out.append(event({"type": "message_start", "message": message}))

    # --- blocks ---

    def _open(self, kind: str, block: Mapping[str, object], piece: tuple[bytes, bytes]) -> None:
        self._close()
        self._index += 1
        self._kind = kind
        self._head = _DELTA % (self._index, *piece)
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        self._out.append(event(start))

    def _close(self) -> None:
        if self._kind:
            self._out.append(event({"type": "content_block_stop", "index": self._index}))
        self._kind = ""
        self._call = -1

    def _say(self, text: str) -> None:
        """One piece of the open block."""
        if text:
            self._out.append(self._head + orjson.dumps(text) + _TAIL)

    def _must_wait(self, delta: Delta) -> bool:
        """Whether a block cannot be opened for `delta` yet, which then waits."""
        if not self._queue and (self._kind != "call" or self._is_complete()):
            return False
        self._queue.append(delta)
        return True

    def _is_complete(self) -> bool:
        try:
            return isinstance(orjson.loads("".join(self._arguments)), dict)
        except orjson.JSONDecodeError:
            return False

    def _drain(self) -> None:
        """What waits, now that nothing more comes for the open call."""
        if not self._queue:
            return
        queue, self._queue = self._queue, []
        self._close()
        for delta in queue:
            self._handlers[type(delta)](delta)
            if isinstance(delta, CallStarted):
                self._say("".join(self._held.pop(delta.number, ())))
                self._close()

    # --- pieces ---

    def _pass(self, delta: Delta) -> None:
        """A format without alternatives and log probabilities has no place for them."""

    def _on_text(self, delta: Delta) -> None:
        assert isinstance(delta, TextPiece)
        self._spoken("text", delta)

    def _on_refusal(self, delta: Delta) -> None:
        assert isinstance(delta, RefusalPiece)
        self._refused = True
        self._spoken("refusal", delta)

    def _spoken(self, kind: str, delta: TextPiece | RefusalPiece) -> None:
        if delta.choice or not delta.text:
            return
        if self._kind != kind:
            if self._must_wait(delta):
                return
            self._open(kind, _TEXT, (b"text_delta", b"text"))
        self._out.append(self._head + orjson.dumps(delta.text) + _TAIL)

    def _on_media(self, delta: Delta) -> None:
        assert isinstance(delta, MediaPiece)
        if not delta.choice and not self._must_wait(delta):
            self._open("media", _TEXT, (b"text_delta", b"text"))
            self._say(anthropic_answer.picture(delta.media))
            self._close()

    def _on_thinking(self, delta: Delta) -> None:
        assert isinstance(delta, ThinkingPiece)
        if delta.choice:
            return
        if self._kind != "thinking":
            if self._must_wait(delta):
                return
            self._open("thinking", _THINKING, (b"thinking_delta", b"thinking"))
        self._say(delta.text)

    def _on_signed(self, delta: Delta) -> None:
        assert isinstance(delta, ThinkingSigned)
        if delta.choice:
            return
        if self._kind != "thinking":
            if self._must_wait(delta):
                return
            self._open("thinking", _THINKING, (b"thinking_delta", b"thinking"))
        self._head = _DELTA % (self._index, b"signature_delta", b"signature")
        self._say(delta.signature)
        self._close()

    def _on_redacted(self, delta: Delta) -> None:
        assert isinstance(delta, ThinkingRedacted)
        if not delta.choice and not self._must_wait(delta):
            self._open("thinking", {"type": "redacted_thinking", "data": delta.data}, (b"", b""))
            self._close()

    def _on_call(self, delta: Delta) -> None:
        assert isinstance(delta, CallStarted)
        if delta.choice:
            return
        if self._must_wait(delta):
            self._held[delta.number] = []
            return
        identity = anthropic_answer.call_id(delta.id, self._context, self._calls)
        block = {"type": "tool_use", "id": identity, "name": delta.name, "input": {}}
        self._open("call", block, (b"input_json_delta", b"partial_json"))
        self._calls += 1
        self._call = delta.number
        self._arguments = []

    def _on_arguments(self, delta: Delta) -> None:
        assert isinstance(delta, CallArguments)
        if delta.choice:
            return
        if delta.number == self._call:
            self._arguments.append(delta.text)
            self._say(delta.text)
        elif delta.number in self._held:
            self._held[delta.number].append(delta.text)

    # --- the end ---

    def _on_used(self, delta: Delta) -> None:
        assert isinstance(delta, Used)
        self._usage = delta.usage

    def _on_finished(self, delta: Delta) -> None:
        assert isinstance(delta, Finished)
        if not delta.choice:
            self._end = delta
            self._drain()

    def _on_failed(self, delta: Delta) -> None:
        assert isinstance(delta, Failed)
        self._over = True
        self._out.append(event(anthropic_errors.render(delta.error)))
