"""Answers kept for the log, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Protocol, TypeVar

import orjson

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.openai.stream import TEXTS, Message, delta, tool_calls

MAX_PAYLOAD = 1 << 20
"""Bytes of an answer, or characters of a stream's texts, that are kept."""
CUT = "... [cut: the rest is not kept]"
"""What the end of a longer text says."""

_T = TypeVar("_T")

_MAX_PARTS = 128  # choices, or tool calls of one, or results
_MAX_NAME = 256
_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier")
_ENDINGS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_RESULTS = (
    "image_generation.completed",
    "image_edit.completed",
    "transcript.text.done",
    "speech.audio.done",
    "thread.message.completed",
    "thread.run.completed",
)
"""Events that repeat all that deltas have told before; of speech, all but the sound."""


class KeptText:
    """An answer in one piece, as text."""

    __slots__ = ("_chunks", "_room", "cut")

    def __init__(self, room: int = MAX_PAYLOAD) -> None:
        self.cut = False
        self._chunks: list[bytes] = []
        self._room = room

    def add(self, chunk: bytes) -> None:
        """Keep what there is room for."""
        if len(chunk) > self._room:
            chunk, self.cut = chunk[: self._room], True
        if chunk:
            self._room -= len(chunk)
            self._chunks.append(chunk)

    def text(self) -> str | None:
        """What was kept; None where it is binary."""
        raw = b"".join(self._chunks)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            # Only the cut may have split a character, which has four bytes at most.
            if not self.cut or error.start < len(raw) - 3:
                return None
            text = raw[: error.start].decode()
        if "\0" in text:
            return None
        return text + CUT if self.cut else text


class KeptLines:
    """Messages, each on a line."""

    __slots__ = ("_lines", "_room")

    def __init__(self) -> None:
        self._lines = StringIO()
        self._room = _Room()

    def add(self, message: str) -> None:
        """Keep what there is room for."""
        self._lines.write(self._room.take(message + "\n"))

    def text(self) -> str | None:
        """What was kept; None for nothing."""
        return self._lines.getvalue() or None


class KeptStream(Protocol):
    """A streamed answer, put together again."""

    def add(self, message: Message) -> None:
        """Keep what an event tells."""

    def text(self) -> str | None:
        """The answer as JSON; None where there was none."""


def kept_stream(route_type: str) -> KeptStream:
    """A new one for a stream of this kind."""
    if route_type == openai.RESPONSES:
        return _KeptResponse()
    if route_type in (openai.CHAT, openai.COMPLETIONS, openai.PRESERVE):
        return _KeptChunks()
    return _KeptResults()


class _Room:
    """How many more characters may be kept."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_PAYLOAD

    def take(self, text: object) -> str:
        """What of `text` is kept. Anything but text is passed over."""
        if not isinstance(text, str) or not text or self.left < 0:
            return ""
        kept = text if len(text) <= self.left else text[: self.left] + CUT
        self.left -= len(text)
        return kept


class _Call:
    """A tool call under way."""

    __slots__ = ("_arguments", "_known")

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._arguments = StringIO()

    def add(self, piece: Mapping[str, object], room: _Room) -> None:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        for name, value in (
            ("id", piece.get("id")),
            ("type", piece.get("type")),
            ("name", function.get("name")),
        ):
            if isinstance(value, str) and value:
                self._known.setdefault(name, value[:_MAX_NAME])
        self._arguments.write(room.take(function.get("arguments")))

    def value(self) -> dict[str, object]:
        known = dict(self._known)
        function = {"name": known.pop("name", ""), "arguments": self._arguments.getvalue()}
        return {**known, "function": function}


class _Choice:
    """A choice under way, of chat or of completions."""

    __slots__ = ("_calls", "_finish_reason", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, StringIO] = {}
        self._calls: dict[int, _Call] = {}
        self._finish_reason: str | None = None

    def add(self, choice: Mapping[str, object], room: _Room) -> None:
        added = delta(choice)
        for name in TEXTS:
            self._write(name, room.take(added.get(name)))
        self._write("text", room.take(choice.get("text")))
        for piece in tool_calls(added):
            call = _numbered(self._calls, piece.get("index"), _Call)
            if call:
                call.add(piece, room)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self._finish_reason = reason[:_MAX_NAME]

    def _write(self, name: str, text: str) -> None:
        if text:
            self._texts.setdefault(name, StringIO()).write(text)

    def value(self, index: int) -> dict[str, object]:
        texts = {name: parts.getvalue() for name, parts in self._texts.items()}
        written = texts.pop("text", None)
        end = {"finish_reason": self._finish_reason}
        if written is not None:
            return {"index": index, "text": written, **end}
        message: dict[str, object] = {"role": "assistant", "content": None, **texts}
        if self._calls:
            message["tool_calls"] = [self._calls[number].value() for number in sorted(self._calls)]
        return {"index": index, "message": message, **end}


class _KeptChunks:
    """One chat.completion or text_completion made of all chunks."""

    def __init__(self) -> None:
        self._head: dict[str, object] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: object = None
        self._object = ""
        self._room = _Room()

    def add(self, message: Message) -> None:
        value = message.value
        if not self._object:
            self._object = str(value.get("object") or "")[:_MAX_NAME]
            self._head = {name: _short(value[name]) for name in _HEAD if name in value}
        if isinstance(value.get("usage"), dict):
            self._usage = value["usage"]
        for each in message.choices:
            choice = _numbered(self._choices, each.get("index"), _Choice)
            if choice:
                choice.add(each, self._room)

    def text(self) -> str | None:
        if not self._choices:
            return None
        choices = [self._choices[index].value(index) for index in sorted(self._choices)]
        whole = {
            **self._head,
            "object": self._object.removesuffix(".chunk"),
            "choices": choices,
            **({"usage": self._usage} if self._usage else {}),
        }
        return _json(whole)


class _KeptResponse:
    """The response that the last event holds; until then, its text so far."""

    def __init__(self) -> None:
        self._final: str | None = None
        self._text = StringIO()
        self._room = _Room()

    def add(self, message: Message) -> None:
        if message.kind in _ENDINGS:
            self._final = _json(message.response)
        elif message.kind == "response.output_text.delta":
            self._text.write(self._room.take(message.value.get("delta")))

    def text(self) -> str | None:
        text = self._text.getvalue()
        if self._final is not None or not text:
            return self._final
        content = [{"type": "output_text", "text": text}]
        output = [{"type": "message", "role": "assistant", "content": content}]
        return _json({"object": "response", "status": "in_progress", "output": output})


class _KeptResults:
    """The events that hold results: one of them, or an array of several."""

    def __init__(self) -> None:
        self._results: list[str] = []
        self._room = _Room()

    def add(self, message: Message) -> None:
        if message.kind in _RESULTS and len(self._results) < _MAX_PARTS:
            self._results.append(self._room.take(_json(message.value)))

    def text(self) -> str | None:
        results = [result for result in self._results if result]
        if len(results) < 2:
            return results[0] if results else None
        return "[" + ",".join(results) + "]"


def _numbered(items: dict[int, _T], index: object, make: Callable[[], _T]) -> _T | None:
    """The item of this number, made when it is new; None beyond the most that are kept."""
    number = index if type(index) is int else 0
    if number not in items:
        if not 0 <= number < _MAX_PARTS:
            return None
        items[number] = make()
    return items[number]


def _short(value: object) -> object:
    if isinstance(value, str):
        return value[:_MAX_NAME]
    return value if type(value) is int else None


def _json(value: object) -> str:
    """`value` as JSON, cut where it is too long."""
    kept = KeptText()
    kept.add(orjson.dumps(value))
    return kept.text() or ""
