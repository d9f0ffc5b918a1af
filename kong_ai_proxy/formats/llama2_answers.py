"""Answers of servers that only continue text.

An answer is {"generated_text"}, alone or in a list, or in a list called `data` beside `usage`; a
stream has one event for each token, the last one with the whole text:
https://huggingface.co/docs/text-generation-inference/reference/api_reference.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.deltas import (
    Delta,
    Failed,
    Finished,
    FinishReason,
    Started,
    TextPiece,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import object_of, parsed, plain_error, text_of
from kong_ai_proxy.formats.sse import Event, SseError, SseReader
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_END_OF_PROMPT = "[/INST]"
_END = "</s>"
_MAX_EVENT = 8 << 20
"""Bytes. The last event of a stream has the whole text once more."""

# What a server's names for errors mean where the status cannot say it, inside a stream.
_STATUSES = {
    "generation": 424,
    "incomplete_generation": 500,
    "overloaded": 429,
    "validation": 422,
}


def whole(value: object) -> list[Delta]:
    """An answer in one piece. Raises FormatError, with Kong's texts."""
    if isinstance(value, dict) and value.get("error"):
        return [Failed(error_of(value))]
    outer: Mapping[str, object] = value if isinstance(value, dict) else {}
    items = outer.get("data") if "data" in outer else value
    if isinstance(items, list) and not items:
        raise FormatError("response data is empty from llama2 endpoint")
    item = items[0] if isinstance(items, list) else items
    if not isinstance(item, dict):
        raise FormatError("cannot parse response from llama2 endpoint")
    text = item.get("generated_text")
    if not isinstance(text, str):
        raise FormatError("response did not contain a system reply")
    answer = text.rpartition(_END_OF_PROMPT)[2].strip().removesuffix(_END).rstrip()
    said: list[Delta] = [TextPiece(answer)] if answer else []
    started = Started(text_of(outer, "id"), text_of(outer, "model"))
    return [started, *said, *_ended(object_of(item, "details"), object_of(outer, "usage"))]


class Reader:
    """Reads one stream; see codec.StreamReader."""

    __slots__ = ("_ended", "_events", "_said", "_started")

    def __init__(self) -> None:
        self._events = SseReader(_MAX_EVENT)
        self._started = False
        self._said = False
        self._ended = False

    def feed(self, chunk: bytes) -> list[Delta]:
        """See codec.StreamReader."""
        if self._ended:
            return []
        try:
            events = self._events.feed(chunk)
        except SseError as error:
            return self._failed(str(error))
        found: list[Delta] = []
        for event in events:
            if event.data is not None and not self._ended:
                found += self._event(event.data)
        return found

    def end(self) -> list[Delta]:
        """See codec.StreamReader. A last event counts without its blank line, if it is whole."""
        if self._ended:
            return []
        try:
            events: list[Event] = self._events.end()
        except SseError as error:
            return self._failed(str(error))
        found: list[Delta] = []
        for event in events:
            if event.data is not None and isinstance(parsed(event.data), dict):
                found += self._event(event.data)
        if not self._ended:
            found += self._failed("the provider's stream ended before the answer was complete")
        return found

    def _event(self, data: bytes) -> list[Delta]:
        if data == b"[DONE]":
            return []
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            return self._failed("an event of the provider's stream is not a JSON object")
        if value.get("error"):
            self._ended = True
            return [Failed(error_of(value))]
        found: list[Delta] = []
        if not self._started:
            self._started = True
            found.append(Started())
        found += self._token(value)
        if isinstance(value.get("generated_text"), str):
            self._ended = True
            found += _ended(object_of(value, "details"), {})
        return found

    def _token(self, value: Mapping[str, object]) -> list[Delta]:
        """Tokens that only end or separate texts are special. Llama's first one is a space."""
        token = object_of(value, "token")
        text = token.get("text")
        if not isinstance(text, str) or token.get("special") is True:
            return []
        if not self._said:
            text = text.lstrip()
        if not text:
            return []
        self._said = True
        return [TextPiece(text)]

    def _failed(self, message: str) -> list[Delta]:
        self._ended = True
        return [Failed(ProviderError(message))]


def _ended(details: Mapping[str, object], usage: Mapping[str, object]) -> list[Delta]:
    reason: FinishReason = "length" if details.get("finish_reason") == "length" else "stop"
    prefill = details.get("prefill")
    prompt = _count(usage.get("prompt_tokens")) or _count(details.get("prompt_tokens"))
    prompt = prompt or (len(prefill) if isinstance(prefill, list) else 0)
    generated = usage.get("completion_tokens", details.get("generated_tokens"))
    completion = _count(generated)
    if generated is None and not prompt:
        return [Finished(reason)]
    total = _count(usage.get("total_tokens")) or min(prompt + completion, MAX_COUNT)
    used = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)
    return [Finished(reason), Used(used)]


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return min(value, MAX_COUNT)
    return 0


def error_of(value: Mapping[str, object], status: int = 0) -> ProviderError:
    """The error of a body {"error", "error_type"}."""
    kind = text_of(value, "error_type")
    found = value.get("error")
    if isinstance(found, dict):
        found = text_of(found, "message") or orjson.dumps(found).decode()
    message = found if isinstance(found, str) else orjson.dumps(found).decode()
    return ProviderError(message, kind, status or _STATUSES.get(kind, 0))


def error(status: int, body: bytes) -> ProviderError:
    """An error of any content."""
    value = parsed(body)
    if isinstance(value, dict) and value.get("error"):
        return error_of(value, status)
    return plain_error(status, body)
