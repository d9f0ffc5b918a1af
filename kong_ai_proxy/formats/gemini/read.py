"""Gemini's answers, whole and streamed, as pieces of the hub.

https://ai.google.dev/api/generate-content#generatecontentresponse. A stream is the same object
again and again, each time with what is new: as server-sent events with `alt=sse`, otherwise as one
JSON array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import orjson

from kong_ai_proxy.formats.conversation import Media, MediaKind
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
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import json_text, object_of, objects_of, text_of
from kong_ai_proxy.formats.gemini import errors as gemini_errors
from kong_ai_proxy.formats.gemini.names import SIGNED
from kong_ai_proxy.formats.gemini.usage import usage
from kong_ai_proxy.formats.json_array import JsonArrayError, JsonArrayReader
from kong_ai_proxy.formats.sse import SseError, SseReader

_Object = Mapping[str, object]

_MAX_EVENT = 32 << 20
"""Bytes of one event: an image in base64 is a part of one."""

_REASONS: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
"""Others, such as MALFORMED_FUNCTION_CALL or OTHER, have no word in OpenAI's format: the answer
ends with `stop` and says as a refusal what happened."""

_TOLD = ("groundingMetadata", "citationMetadata", "urlContextMetadata")
"""What a candidate tells beside its content, for clients that want to know."""
_KINDS: Mapping[str, MediaKind] = {"image": "image", "audio": "audio", "video": "video"}
_BLANKS = b" \t\r\n\xef\xbb\xbf"
_NO_CANDIDATES = "no generation candidates received from Gemini, or max_tokens too short"
_NO_END = "the provider's stream ended before the answer did"


class _Choice:
    """One candidate under way."""

    __slots__ = ("calls", "message", "reason", "said")

    def __init__(self) -> None:
        self.calls = 0
        self.said = False
        self.reason = ""
        """The last one told. Older models tell STOP with every event."""
        self.message = ""


class Answering:
    """Reads the objects of one answer."""

    __slots__ = ("_choices", "_extra", "_feedback", "_started", "_usage", "failed")

    def __init__(self) -> None:
        self.failed = False
        self._started = False
        self._choices: dict[int, _Choice] = {}
        self._usage: _Object = {}
        self._feedback: _Object = {}
        self._extra: dict[str, object] = {}

    @property
    def is_complete(self) -> bool:
        """Whether every candidate has told why it ended, or there will be none."""
        if not self._choices:
            return bool(self._feedback)
        return all(choice.reason for choice in self._choices.values())

    def take(self, value: object, found: list[Delta]) -> None:
        """The pieces of the next object, added to `found`."""
        if self.failed:
            return
        if type(value) is not dict or value.get("error") is not None:
            error = gemini_errors.told(value)
            self.fail(error or ProviderError("the provider sent JSON that is no answer"), found)
            return
        if not self._started:
            self._started = True
            found.append(_started(value))
        counts = value.get("usageMetadata")
        if type(counts) is dict:
            self._usage = {**self._usage, **counts}
        candidates = value.get("candidates")
        if type(candidates) is list:
            for candidate in candidates:
                if type(candidate) is dict:
                    self._candidate(candidate, found)
        if "promptFeedback" in value:
            feedback = object_of(value, "promptFeedback")
            self._feedback = feedback if text_of(feedback, "blockReason") else {}

    def fail(self, error: ProviderError, found: list[Delta]) -> None:
        """Add that it failed, and what it has cost so far."""
        if not self.failed:
            self.failed = True
            self._tell_usage(found)
            found.append(Failed(error))

    def finish(self, found: list[Delta]) -> None:
        """Nothing more comes: add how it ended."""
        if self.failed:
            return
        if not self._choices and self._feedback:
            reason = text_of(self._feedback, "blockReason")
            told = text_of(self._feedback, "blockReasonMessage")
            found.append(RefusalPiece(told or f"the prompt was blocked: {reason}"))
            found.append(Finished("content_filter"))
        for number, choice in self._choices.items():
            _finish(number, choice, found)
        self._tell_usage(found)

    def _tell_usage(self, found: list[Delta]) -> None:
        if self._usage:
            found.append(Used(usage(self._usage), self._extra))

    def _candidate(self, candidate: _Object, found: list[Delta]) -> None:
        index = candidate.get("index", 0)
        number = index if type(index) is int else 0
        choice = self._choices.get(number)
        if choice is None:
            choice = self._choices[number] = _Choice()
        content = candidate.get("content")
        parts = content.get("parts") if type(content) is dict else None
        if type(parts) is list:
            self._parts(parts, choice, number, found)
        reason = candidate.get("finishReason")
        if type(reason) is str:
            choice.reason = reason
            choice.message = text_of(candidate, "finishMessage") or choice.message
        if "logprobsResult" in candidate:
            found.extend(_logprobs(object_of(candidate, "logprobsResult"), number))
        if number == 0:
            self._extra.update((name, candidate[name]) for name in _TOLD if name in candidate)

    def _parts(self, parts: list[object], choice: _Choice, number: int, found: list[Delta]) -> None:
        for part in parts:
            if type(part) is not dict:
                continue
            text = part.get("text")
            # A part of text and nothing else is nearly every part.
            if len(part) != 1 or type(text) is not str:
                self._part(part, choice, number, found)
            elif text:
                found.append(TextPiece(text, number))
                choice.said = True

    def _part(self, part: _Object, choice: _Choice, number: int, found: list[Delta]) -> None:
        """A part that is more than text. A signature comes before the text that carries it: what
        it signs is the thought behind it."""
        signature = text_of(part, "thoughtSignature")
        if "functionCall" in part:
            self._call(object_of(part, "functionCall"), signature, choice, number, found)
            return
        before = len(found)
        read = next((read for name, read in _PARTS.items() if name in part), None)
        if read:
            read(part, number, found)
        choice.said = choice.said or len(found) > before
        if signature:
            place = len(found) if part.get("thought") is True else before
            found.insert(place, ThinkingSigned(SIGNED + signature, number))

    def _call(
        self, call: _Object, signature: str, choice: _Choice, number: int, found: list[Delta]
    ) -> None:
        if "partialArgs" in call or "willContinue" in call:
            message = "streamFunctionCallArguments is on, which is not supported here"
            self.fail(ProviderError(message), found)
            return
        which = choice.calls
        choice.calls += 1
        choice.said = True
        name = text_of(call, "name")
        found.append(CallStarted(which, text_of(call, "id"), name, signature, number))
        arguments = call.get("args")
        if type(arguments) is dict and arguments:
            found.append(CallArguments(which, json_text(arguments), number))


def _started(value: _Object) -> Started:
    created = 0
    told = value.get("createTime")
    if type(told) is str:
        try:
            created = int(datetime.fromisoformat(told).timestamp())
        except (ValueError, OverflowError):
            created = 0
    return Started(text_of(value, "responseId"), text_of(value, "modelVersion"), max(created, 0))


def _finish(number: int, choice: _Choice, found: list[Delta]) -> None:
    told = choice.reason or "STOP"
    reason = _REASONS.get(told, "stop")
    if told not in ("STOP", "MAX_TOKENS"):
        silent = "" if choice.said or told in _REASONS else f"the model broke off: {told}"
        message = choice.message or silent
        if message:
            found.append(RefusalPiece(message, number))
    if choice.calls and reason == "stop":
        reason = "tool_calls"
    found.append(Finished(reason, None, number))


# --- parts ---


def _text(part: _Object, number: int, found: list[Delta]) -> None:
    text = text_of(part, "text")
    if text:
        thought = part.get("thought") is True
        found.append(ThinkingPiece(text, number) if thought else TextPiece(text, number))


def _inline(part: _Object, number: int, found: list[Delta]) -> None:
    data = object_of(part, "inlineData")
    media_type, content = text_of(data, "mimeType"), text_of(data, "data")
    if content and part.get("thought") is not True:  # drafts of an image are thoughts
        media = Media(kind=_kind(media_type), data=content, media_type=media_type)
        found.append(MediaPiece(media, number))


def _file(part: _Object, number: int, found: list[Delta]) -> None:
    data = object_of(part, "fileData")
    media_type, url = text_of(data, "mimeType"), text_of(data, "fileUri")
    if url:
        media = Media(kind=_kind(media_type), url=url, media_type=media_type)
        found.append(MediaPiece(media, number))


def _code(part: _Object, number: int, found: list[Delta]) -> None:
    """What the model ran, and what came of it, is a part of what it says."""
    code = object_of(part, "executableCode")
    language = text_of(code, "language").lower()
    found.append(TextPiece(f"\n```{language}\n{text_of(code, 'code').strip()}\n```\n", number))


def _output(part: _Object, number: int, found: list[Delta]) -> None:
    output = text_of(object_of(part, "codeExecutionResult"), "output")
    found.append(TextPiece(f"\n```\n{output.strip()}\n```\n", number))


_PARTS: Mapping[str, Callable[[_Object, int, list[Delta]], None]] = {
    "text": _text,
    "inlineData": _inline,
    "fileData": _file,
    "executableCode": _code,
    "codeExecutionResult": _output,
}


def _kind(media_type: str) -> MediaKind:
    return _KINDS.get(media_type.partition("/")[0], "file")


def _logprobs(result: _Object, number: int) -> list[Delta]:
    tops = [objects_of(step, "candidates") for step in objects_of(result, "topCandidates")]
    content: list[object] = []
    for place, chosen in enumerate(objects_of(result, "chosenCandidates")):
        top = tops[place] if place < len(tops) else []
        content.append({**_token(chosen), "top_logprobs": [_token(each) for each in top]})
    return [Logprobs(content, number)] if content else []


def _token(candidate: _Object) -> dict[str, object]:
    token = text_of(candidate, "token")
    encoded = token.encode("utf-8", "surrogatepass")
    return {
        "token": token,
        "logprob": candidate.get("logProbability", 0),
        "bytes": list(encoded),
    }


# --- whole answers and streams ---


def parse_answer(value: object) -> list[Delta]:
    """A whole answer, also one that is a stream's array. Raises FormatError where it is none."""
    answering = Answering()
    found: list[Delta] = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            raise FormatError("expected an object with candidates")
        answering.take(each, found)
    answering.finish(found)
    if not any(isinstance(each, Finished | Failed) for each in found):
        raise FormatError(_NO_CANDIDATES)
    return found


class Reader:
    """Reads one stream, of events or an array: which one, its first byte tells."""

    def __init__(self) -> None:
        self._answering = Answering()
        self._sse: SseReader | None = None
        self._array: JsonArrayReader | None = None
        self._is_between = True  # no event is under way
        self._is_lone = False  # one object: an error, or an answer that was not streamed

    def feed(self, chunk: bytes) -> list[Delta]:
        """The pieces that `chunk` completes."""
        found: list[Delta] = []
        if self._answering.failed:
            return found
        try:
            if self._sse is not None:
                for data in self._events(self._sse, chunk):
                    self._take(data, found)
            else:
                for element in self._elements(chunk, found):
                    self._take(element, found)
        except (SseError, JsonArrayError) as error:
            self._fail(str(error), found)
        return found

    def end(self) -> list[Delta]:
        """How it ended. After a body that broke off too: what it has cost, and Failed."""
        found: list[Delta] = []
        fault = self._last(found)
        answering = self._answering
        if answering.is_complete:
            answering.finish(found)
        else:
            self._fail(fault or _NO_END, found)
        return found

    def _last(self, found: list[Delta]) -> str:
        """Read what the end leaves. Returns what is wrong with the framing."""
        if self._answering.failed:
            return ""
        try:
            if self._sse is not None:
                for event in self._sse.end():
                    if event.data is not None:
                        self._take(event.data, found)
            elif self._array is not None:
                for element in self._array.feed(b"]") if self._is_lone else []:
                    self._take(element, found)
                self._array.end()
        except (SseError, JsonArrayError) as error:
            return str(error)
        return ""

    def _events(self, sse: SseReader, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes. Google ends lines with CRLF, and nearly
        every chunk is one event of one line."""
        size = len(chunk)
        if (
            self._is_between
            and chunk.find(b"\r") == size - 4
            and chunk.find(b"\n") == size - 3
            and chunk.startswith(b"data: ")
            and chunk.endswith(b"\r\n\r\n")
            and size <= _MAX_EVENT
        ):
            return [chunk[6:-4]]
        self._is_between = chunk.endswith((b"\r\n\r\n", b"\n\n"))
        return [event.data for event in sse.feed(chunk) if event.data is not None]

    def _elements(self, chunk: bytes, found: list[Delta]) -> list[bytes]:
        if self._array is None:
            chunk = chunk.lstrip(_BLANKS)
            if not chunk:
                return []
            if chunk[0] not in b"[{":
                self._sse = SseReader(_MAX_EVENT)
                found.extend(self.feed(chunk))
                return []
            self._array = JsonArrayReader(_MAX_EVENT)
            self._is_lone = chunk[0] == ord("{")
            if self._is_lone:
                chunk = b"[" + chunk
        return self._array.feed(chunk)

    def _take(self, data: bytes, found: list[Delta]) -> None:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            if data != b"[DONE]":
                self._fail(f"the provider sent an event that is not valid JSON: {error}", found)
            return
        self._answering.take(value, found)

    def _fail(self, message: str, found: list[Delta]) -> None:
        self._answering.fail(ProviderError(message), found)
