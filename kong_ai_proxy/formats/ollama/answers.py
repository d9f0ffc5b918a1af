"""Answers of Ollama's own API: one object, or a stream of objects of which each is a line.

Members: https://github.com/ollama/ollama/blob/main/docs/api.md; errors, also inside a stream:
https://docs.ollama.com/api/errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import orjson

from kong_ai_proxy.formats.conversation import Media
from kong_ai_proxy.formats.deltas import (
    CallArguments,
    CallStarted,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Logprobs,
    MediaPiece,
    Started,
    TextPiece,
    ThinkingPiece,
    Used,
)
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.fields import json_text, object_of, objects_of, text_of
from kong_ai_proxy.formats.json_lines import JsonLinesError, JsonLinesReader
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_MAX_LINE = 32 << 20
"""Bytes. A line may hold images, and the last one of /api/generate the tokens of the prompt."""

Content = Callable[[Mapping[str, object], int], list[Delta]]
"""The pieces of one object, and how many calls came before it."""


class Reader:
    """Reads one answer; see codec.StreamReader."""

    __slots__ = ("_calls", "_content", "_ended", "_lines", "_started")

    def __init__(self, content: Content) -> None:
        self._content = content
        self._lines = JsonLinesReader(_MAX_LINE)
        self._calls = 0
        self._started = False
        self._ended = False

    def feed(self, chunk: bytes) -> list[Delta]:
        """See codec.StreamReader."""
        if self._ended:
            return []
        try:
            lines = self._lines.feed(chunk)
        except JsonLinesError as error:
            return self._failed(str(error))
        found: list[Delta] = []
        for line in lines:
            if not self._ended:
                found += self._line(line)
        return found

    def end(self) -> list[Delta]:
        """See codec.StreamReader. A last line counts without its end too, if it is whole."""
        if self._ended:
            return []
        try:
            lines = self._lines.end()
        except JsonLinesError as error:
            return self._failed(str(error))
        found: list[Delta] = []
        for line in lines:
            if isinstance(value := _parsed(line), dict):
                found += self.pieces(value)
        if not self._ended:
            found += self._failed("the provider's stream ended before the answer was complete")
        return found

    def pieces(self, value: Mapping[str, object]) -> list[Delta]:
        """The pieces of one object."""
        if value.get("error"):
            self._ended = True
            return [Failed(error_of(value))]
        found: list[Delta] = []
        if not self._started:
            self._started = True
            found.append(Started("", text_of(value, "model"), _seconds(value.get("created_at"))))
        content = self._content(value, self._calls)
        self._calls += sum(type(delta) is CallStarted for delta in content)
        found += content
        logprobs = value.get("logprobs")
        if isinstance(logprobs, list) and logprobs:
            found.append(Logprobs(logprobs))
        if value.get("done") is True:
            found += self.finish(value)
        return found

    def finish(self, value: Mapping[str, object]) -> list[Delta]:
        """What the last object tells; nothing the second time."""
        if self._ended:
            return []
        self._ended = True
        found: list[Delta] = [Finished(_reason(value, self._calls))]
        usage = _usage(value)
        return [*found, Used(usage)] if usage else found

    def _line(self, line: bytes) -> list[Delta]:
        value = _parsed(line)
        if not isinstance(value, dict):
            return self._failed("a line of the provider's stream is not a JSON object")
        return self.pieces(value)

    def _failed(self, message: str) -> list[Delta]:
        self._ended = True
        return [Failed(ProviderError(message))]


def chat_content(value: Mapping[str, object], calls: int) -> list[Delta]:
    """Of /api/chat."""
    message = value.get("message")
    if not isinstance(message, dict):
        return []
    found = _texts(message.get("thinking"), message.get("content"))
    if message.get("tool_calls"):
        for number, call in enumerate(objects_of(message, "tool_calls"), calls):
            found += _call(call, number)
    images = message.get("images")
    if isinstance(images, list):
        texts = (image for image in images if isinstance(image, str))
        found += [MediaPiece(Media(kind="image", data=image)) for image in texts]
    return found


def generate_content(value: Mapping[str, object], calls: int) -> list[Delta]:
    """Of /api/generate, which calls nothing."""
    return _texts(value.get("thinking"), value.get("response"))


def _texts(thinking: object, text: object) -> list[Delta]:
    found: list[Delta] = []
    if thinking and isinstance(thinking, str):
        found.append(ThinkingPiece(thinking))
    if text and isinstance(text, str):
        found.append(TextPiece(text))
    return found


def _call(call: Mapping[str, object], number: int) -> list[Delta]:
    """A call comes whole, its arguments as an object. Ids are told by recent versions only."""
    function = object_of(call, "function")
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json_text(arguments or {})
    return [
        CallStarted(number, text_of(call, "id"), text_of(function, "name")),
        CallArguments(number, text or "{}"),
    ]


def error_of(value: Mapping[str, object], status: int = 0) -> ProviderError:
    """The error of a body {"error": "..."}; the endpoints for OpenAI clients send an object."""
    error = value.get("error")
    if isinstance(error, dict):
        message, kind = text_of(error, "message"), text_of(error, "type")
        return ProviderError(message or json_text(error), kind, status)
    return ProviderError(error if isinstance(error, str) else json_text(error), status=status)


def _parsed(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _reason(value: Mapping[str, object], calls: int) -> FinishReason:
    """`stop`, `length`, or why there was nothing to say: `load` and `unload`."""
    if value.get("done_reason") == "length":
        return "length"
    return "tool_calls" if calls else "stop"


def _usage(value: Mapping[str, object]) -> Usage | None:
    """A prompt that is wholly in the cache may have no count (older versions)."""
    if "prompt_eval_count" not in value and "eval_count" not in value:
        return None
    prompt, completion = count(value, "prompt_eval_count"), count(value, "eval_count")
    total = min(prompt + completion, MAX_COUNT)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)


def count(value: Mapping[str, object], name: str) -> int:
    """A number of tokens; 0 where there is none."""
    found = value.get(name)
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return min(found, MAX_COUNT)
    return 0


def _seconds(created_at: object) -> int:
    """Seconds since 1970 of an ISO 8601 time, which has nanoseconds and any offset."""
    if not isinstance(created_at, str):
        return 0
    try:
        moment = datetime.fromisoformat(created_at)
        return max(int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()), 0)
    except (ValueError, OverflowError):
        return 0
