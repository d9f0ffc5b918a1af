"""Streams of chat completions, written.

https://platform.openai.com/docs/api-reference/chat/streaming. What is the same in each chunk is
made into bytes once; a chunk costs the dump of what is new in it.

Thoughts are `reasoning_content`. One that is signed, or that only the provider can read, comes
whole in `thinking_blocks` as well when it ends, so that a client that sends the message back keeps
what the provider wants back. Entries have an `index`: clients put lists together by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Thinking
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
from kong_ai_proxy.formats.openai.answers import call_id, chat_logprobs, image_part, usage_object
from kong_ai_proxy.formats.openai.chat_answer import (
    THOUGHT,
    THOUGHT_END,
    call_object,
    thinking_block,
)
from kong_ai_proxy.formats.openai.errors import render_error

DONE = b"data: [DONE]\n\n"
_MAX_THOUGHT = 1 << 20
"""Characters of a thought that are held until its signature comes."""

_dumps = orjson.dumps


def head(kind: str, identity: str, created: int, model: str) -> bytes:
    """The beginning of each chunk of a stream, up to the value of `choices`."""
    same = {"id": identity, "object": kind, "created": created, "model": model}
    return b"data: " + _dumps(same)[:-1] + b',"choices":'


def usage_chunk(beginning: bytes, used: Used) -> bytes:
    """The chunk that `stream_options.include_usage` adds to a stream, with what only this provider
    tells."""
    more = {"usage": usage_object(used.usage), **used.extra}
    return beginning + b"[]," + _dumps(more)[1:] + b"\n\n"


def error_event(failed: Failed) -> bytes:
    """What a client gets in place of the rest."""
    return b"data: " + _dumps(render_error(failed.error)) + b"\n\n"


class _Choice:
    """One choice under way."""

    __slots__ = (
        "arguments",
        "blocks",
        "calls",
        "content",
        "delta",
        "finished",
        "images",
        "tagged",
        "thought",
        "thought_size",
    )

    def __init__(self, delta: bytes) -> None:
        self.delta = delta
        """A chunk up to the value of `delta`."""
        self.content = delta + b'{"content":'
        self.calls: set[int] = set()
        self.arguments: set[int] = set()
        """Calls of which arguments came."""
        self.blocks = 0
        self.images = 0
        self.thought: list[str] = []
        self.thought_size = 0
        self.tagged = False
        self.finished = False


class ChatWriter:
    """Writes one stream; see StreamWriter."""

    __slots__ = (
        "_choices",
        "_context",
        "_failed",
        "_head",
        "_rest",
        "_tail",
        "_tail_text",
        "_used_last",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self._choices: dict[int, _Choice] = {}
        self._used_last: Used | None = None
        self._failed = False
        self._rest = (b',"usage":null' if context.wants_usage else b"") + b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + self._rest
        self._tail_text = b"}" + self._tail
        self._head = b""
        self._start(Started())

    def feed(self, deltas: list[Delta]) -> bytes:
        """See StreamWriter."""
        out: list[bytes] = []
        for delta in deltas:
            if self._failed:
                break
            _WRITE[type(delta)](self, delta, out)
        return b"".join(out)

    def end(self) -> bytes:
        """See StreamWriter. A choice that has not finished is finished."""
        if self._failed:
            return b""
        out: list[bytes] = []
        if not self._choices:
            self._choice(0, out, b'""')
        for number, choice in self._choices.items():
            if not choice.finished:
                reason = Finished("tool_calls" if choice.calls else "stop", None, number)
                self._finished(reason, out)
        if self._context.wants_usage and self._used_last is not None:
            out.append(usage_chunk(self._head, self._used_last))
        out.append(DONE)
        return b"".join(out)

    def _start(self, delta: Started) -> None:
        context = self._context
        self._head = head(
            "chat.completion.chunk",
            delta.id or f"chatcmpl-{context.id}",
            delta.created or context.now,
            delta.model or context.model,
        )

    def _started(self, delta: Started, _: list[bytes]) -> None:
        if not self._choices:
            self._start(delta)

    def _choice(self, number: int, out: list[bytes], content: bytes = b"null") -> _Choice:
        """The choice, with the chunk that begins its message. Its `content` is null until a text
        comes, so that a message of calls alone has none."""
        choice = self._choices.get(number)
        if choice is None:
            delta = self._head + b'[{"index":%d,"delta":' % number
            choice = self._choices[number] = _Choice(delta)
            role = b'{"role":"assistant","content":' + content + b"}"
            out.append(delta + role + self._tail)
        return choice

    def _text(self, delta: TextPiece, out: list[bytes]) -> None:
        choice = self._choices.get(delta.choice)
        if choice is None:
            choice = self._choice(delta.choice, out, b'""')
        if choice.finished:
            return
        if choice.thought or choice.tagged:
            self._close_thought(choice, out)
        out.append(choice.content + _dumps(delta.text) + self._tail_text)

    def _add(self, choice: _Choice, added: Mapping[str, object], out: list[bytes]) -> None:
        if not choice.finished:
            out.append(choice.delta + _dumps(added) + self._tail)

    # ---- thoughts

    def _thinking(self, delta: ThinkingPiece, out: list[bytes]) -> None:
        tags = self._context.thought_tags
        choice = self._choice(delta.choice, out, b'""' if tags else b"null")
        if choice.thought_size <= _MAX_THOUGHT:
            choice.thought.append(delta.text)
            choice.thought_size += len(delta.text)
        if not tags:
            self._add(choice, {"reasoning_content": delta.text}, out)
            return
        text = delta.text if choice.tagged else THOUGHT + delta.text
        choice.tagged = True
        self._add(choice, {"content": text}, out)

    def _signed(self, delta: ThinkingSigned, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)
        if choice.thought_size <= _MAX_THOUGHT:
            self._block(choice, Thinking("".join(choice.thought), delta.signature), out)
        choice.thought, choice.thought_size = [], 0

    def _redacted(self, delta: ThinkingRedacted, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)
        choice.thought, choice.thought_size = [], 0
        self._block(choice, Thinking("", redacted=delta.data), out)

    def _block(self, choice: _Choice, thinking: Thinking, out: list[bytes]) -> None:
        block = {"index": choice.blocks, **thinking_block(thinking)}
        choice.blocks += 1
        self._add(choice, {"thinking_blocks": [block]}, out)

    def _close_thought(self, choice: _Choice, out: list[bytes]) -> None:
        choice.thought, choice.thought_size = [], 0
        if choice.tagged:
            choice.tagged = False
            self._add(choice, {"content": THOUGHT_END}, out)

    def _spoken(self, number: int, out: list[bytes]) -> _Choice:
        """The choice, for something that is no thought."""
        choice = self._choice(number, out)
        self._close_thought(choice, out)
        return choice

    # ---- other content

    def _refusal(self, delta: RefusalPiece, out: list[bytes]) -> None:
        self._add(self._spoken(delta.choice, out), {"refusal": delta.text}, out)

    def _media(self, delta: MediaPiece, out: list[bytes]) -> None:
        choice = self._spoken(delta.choice, out)
        image = {"index": choice.images, **image_part(delta.media)}
        choice.images += 1
        self._add(choice, {"images": [image]}, out)

    def _call_started(self, delta: CallStarted, out: list[bytes]) -> None:
        choice = self._spoken(delta.choice, out)
        choice.calls.add(delta.number)
        identity = delta.id or call_id(self._context, delta.choice, delta.number)
        function = {"name": delta.name, "arguments": ""}
        call = {"index": delta.number, **call_object(identity, function, delta.signature)}
        self._add(choice, {"tool_calls": [call]}, out)

    def _call_arguments(self, delta: CallArguments, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)
        if delta.number in choice.calls and not choice.finished:
            choice.arguments.add(delta.number)
            self._arguments(choice, delta.number, delta.text, out)

    def _arguments(self, choice: _Choice, number: int, text: str, out: list[bytes]) -> None:
        out.append(
            choice.delta
            + b'{"tool_calls":[{"index":%d,"function":{"arguments":' % number
            + _dumps(text)
            + b"}}]}"
            + self._tail
        )

    def _logprobs(self, delta: Logprobs, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out)
        if not choice.finished:
            told = _dumps(chat_logprobs(delta.content))
            out.append(
                choice.delta + b'{},"logprobs":' + told + b',"finish_reason":null}]' + self._rest
            )

    # ---- the end

    def _finished(self, delta: Finished, out: list[bytes]) -> None:
        choice = self._choice(delta.choice, out, b'""')
        self._close_thought(choice, out)
        if choice.finished:
            return
        for number in sorted(choice.calls - choice.arguments):
            self._arguments(choice, number, "{}", out)
        choice.finished = True
        reason = _dumps(delta.reason)
        out.append(
            choice.delta + b'{},"logprobs":null,"finish_reason":' + reason + b"}]" + self._rest
        )

    def _used(self, delta: Used, _: list[bytes]) -> None:
        self._used_last = delta

    def _fail(self, delta: Failed, out: list[bytes]) -> None:
        self._failed = True
        out.append(error_event(delta))


_WRITE: Mapping[type[Delta], Callable[[ChatWriter, Any, list[bytes]], None]] = {
    Started: ChatWriter._started,
    TextPiece: ChatWriter._text,
    ThinkingPiece: ChatWriter._thinking,
    ThinkingSigned: ChatWriter._signed,
    ThinkingRedacted: ChatWriter._redacted,
    RefusalPiece: ChatWriter._refusal,
    CallStarted: ChatWriter._call_started,
    CallArguments: ChatWriter._call_arguments,
    MediaPiece: ChatWriter._media,
    Logprobs: ChatWriter._logprobs,
    Finished: ChatWriter._finished,
    Used: ChatWriter._used,
    Failed: ChatWriter._fail,
}
