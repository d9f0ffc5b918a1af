"""Answers for clients that speak Gemini's generateContent, whole and streamed.

https://ai.google.dev/api/generate-content#generatecontentresponse
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, Literal

import orjson

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media
from kong_ai_proxy.formats.deltas import (
    Answer,
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
    pieces,
)
from kong_ai_proxy.formats.fields import parsed
from kong_ai_proxy.formats.gemini import errors as gemini_errors
from kong_ai_proxy.formats.gemini.names import SIGNED
from kong_ai_proxy.formats.gemini.usage import metadata
from kong_ai_proxy.formats.usage import Usage

_Json = dict[str, object]

_REASONS: dict[FinishReason, str] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
}
_MAX_SHOWN = 200  # characters of arguments that are no JSON object


class _Candidate:
    """One alternative under way."""

    __slots__ = ("_calls", "_held_from", "fault", "logprobs", "parts", "reason", "signature")

    def __init__(self) -> None:
        self.parts: list[_Json] = []  # not written yet
        self.logprobs: list[object] = []  # the same
        self.signature = ""  # for the next part
        self.reason: FinishReason = "stop"
        self.fault = ""
        self._calls: dict[int, tuple[_Json, list[str]]] = {}
        self._held_from: int | None = None

    def add(self, part: _Json) -> None:
        """The signature of the thought before belongs to the text after it."""
        if self.signature and "text" in part and "thought" not in part:
            part["thoughtSignature"] = self.signature
            self.signature = ""
        elif self.signature:
            self.sign("")
        self.parts.append(part)

    def sign(self, signature: str) -> None:
        """Sign the next part. One that no part has come for gets an empty one."""
        if self.signature:
            self.parts.append({"text": "", "thoughtSignature": self.signature})
        self.signature = signature

    def call(self, call: CallStarted) -> None:
        """Gemini has arguments as an object. Whether all of them have come is only known at the
        end, so the call waits until then, and what follows it behind it."""
        function: _Json = {"name": call.name, "args": {}}
        if call.id:
            function["id"] = call.id
        part: _Json = {"functionCall": function}
        if call.signature:
            part["thoughtSignature"] = call.signature
        self.add(part)
        if self._held_from is None:
            self._held_from = len(self.parts) - 1
        self._calls[call.number] = (part, [])

    def arguments(self, piece: CallArguments) -> None:
        if piece.number in self._calls:
            self._calls[piece.number][1].append(piece.text)

    def end(self) -> None:
        """Nothing more comes."""
        self._held_from = None
        if self.signature:
            self.add({"text": ""})
        calls, self._calls = self._calls, {}
        for part, texts in calls.values():
            function = part["functionCall"]
            assert isinstance(function, dict)
            text = "".join(texts) or "{}"
            arguments = parsed(text.encode("utf-8", "surrogatepass"))
            if isinstance(arguments, dict):
                function["args"] = arguments
                continue
            self.parts = [each for each in self.parts if each is not part]
            shown = text[:_MAX_SHOWN]
            self.fault = f"the arguments of {function['name']} are not a JSON object: {shown}"

    def written(self) -> _Json | None:
        """The next `content`, with what is beside it; None for nothing."""
        held = len(self.parts) if self._held_from is None else self._held_from
        if not held:
            return None
        found: _Json = {"content": {"parts": self.parts[:held], "role": "model"}}
        self.parts = self.parts[held:]
        if self._held_from is not None:
            self._held_from = 0
        if self.logprobs:
            found["logprobsResult"] = _logprobs_result(self.logprobs)
            self.logprobs = []
        return found


class _Candidates:
    """All alternatives of one answer."""

    __slots__ = ("_head", "_usage", "candidates", "context", "failed")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.candidates: dict[int, _Candidate] = {}
        self.failed: Failed | None = None
        self._usage: Usage | None = None
        self._head: _Json = {"modelVersion": context.model, "responseId": context.id}

    def take(self, delta: Delta) -> None:
        """Nothing may be taken after a Failed."""
        kind = type(delta)
        if kind is Started:
            identity, model, _ = delta  # type: ignore[misc]
            context = self.context
            self._head = {
                "modelVersion": model or context.model,
                "responseId": identity or context.id,
            }
        elif kind is Used:
            assert isinstance(delta, Used)
            self._usage = delta.usage
        elif kind is Failed:
            assert isinstance(delta, Failed)
            self.failed = delta
        else:
            self._take(delta)

    def _take(self, delta: Delta) -> None:
        number: int = delta.choice  # type: ignore[union-attr]
        candidate = self.candidates.get(number)
        if candidate is None:
            candidate = self.candidates[number] = _Candidate()
        _WRITE.get(type(delta), _nothing)(candidate, delta)

    def so_far(self) -> _Json | None:
        """What is new, as a chunk of a stream; None for nothing."""
        found = []
        for number, candidate in self.candidates.items():
            written = candidate.written()
            if written:
                written["index"] = number
                found.append(written)
        return {"candidates": found, **self._head} if found else None

    def last(self) -> _Json:
        """The rest: why each one ended, and the usage. Never without a part: the Python client
        takes such an answer for a broken one, and Google's own has an empty text there."""
        found = []
        for number, candidate in sorted((self.candidates or {0: _Candidate()}).items()):
            candidate.end()
            candidate.parts = candidate.parts or [{"text": ""}]
            ended: _Json = {"finishReason": _REASONS[candidate.reason], "index": number}
            if candidate.fault:
                ended["finishMessage"] = candidate.fault
                if candidate.reason != "length":
                    ended["finishReason"] = "MALFORMED_FUNCTION_CALL"
            found.append({**(candidate.written() or {}), **ended})
        usage = {"usageMetadata": metadata(self._usage)} if self._usage else {}
        return {"candidates": found, **usage, **self._head}


def _end(candidate: _Candidate, delta: Finished) -> None:
    candidate.end()
    candidate.reason = delta.reason


def _nothing(candidate: _Candidate, delta: Delta) -> None:
    """A thought that only its provider can read has no place here."""


_WRITE: Mapping[type, Callable[[_Candidate, Any], None]] = {
    TextPiece: lambda candidate, delta: candidate.add({"text": delta.text}),
    RefusalPiece: lambda candidate, delta: candidate.add({"text": delta.text}),
    ThinkingPiece: lambda candidate, delta: candidate.add({"text": delta.text, "thought": True}),
    ThinkingSigned: lambda candidate, delta: candidate.sign(delta.signature.removeprefix(SIGNED)),
    CallStarted: lambda candidate, delta: candidate.call(delta),
    CallArguments: lambda candidate, delta: candidate.arguments(delta),
    MediaPiece: lambda candidate, delta: candidate.add(_media(delta.media)),
    Logprobs: lambda candidate, delta: candidate.logprobs.extend(delta.content),
    Finished: _end,
}


def _media(media: Media) -> _Json:
    if media.data:
        return {"inlineData": {"mimeType": media.media_type, "data": media.data}}
    return {"fileData": {"mimeType": media.media_type, "fileUri": media.url or media.file_id}}


def _logprobs_result(content: list[object]) -> _Json:
    steps = [step for step in content if isinstance(step, dict)]
    chosen = [_token(step) for step in steps]
    tops = [
        {"candidates": [_token(each) for each in step.get("top_logprobs") or ()]} for step in steps
    ]
    return {"chosenCandidates": chosen, "topCandidates": tops}


def _token(step: object) -> _Json:
    found = step if isinstance(step, dict) else {}
    return {"token": found.get("token", ""), "logProbability": found.get("logprob", 0)}


def render_answer(answer: Answer, context: Context) -> _Json:
    """A whole answer."""
    candidates = _Candidates(context)
    for delta in pieces(answer):
        candidates.take(delta)
    return candidates.last()


class Writer:
    """Writes one stream: as events, or as a JSON array where the client did not ask `alt=sse`."""

    def __init__(self, context: Context, framing: Literal["sse", "array"]) -> None:
        self._candidates = _Candidates(context)
        self._is_sse = framing == "sse"
        self._begun = False
        self._over = False

    def feed(self, deltas: list[Delta]) -> bytes:
        """A chunk for each piece with its log probabilities, however many came at once; b"" for
        nothing."""
        if self._over:
            return b""
        candidates, written = self._candidates, b""
        for delta, after in zip_longest(deltas, deltas[1:]):
            candidates.take(delta)
            new = None if type(after) is Logprobs else candidates.so_far()
            if new:
                written += self._framed(new)
            if candidates.failed:
                self._over = True
                return written + self._closed(gemini_errors.render_error(candidates.failed.error))
        return written

    def end(self) -> bytes:
        """The last chunk, with reasons and usage."""
        if self._over:
            return b""
        self._over = True
        return self._closed(self._candidates.last())

    def _closed(self, value: _Json) -> bytes:
        return self._framed(value) + (b"" if self._is_sse else b"\n]")

    def _framed(self, value: _Json) -> bytes:
        if self._is_sse:
            return b"data: " + orjson.dumps(value) + b"\r\n\r\n"
        begin = b",\r\n" if self._begun else b"["
        self._begun = True
        return begin + orjson.dumps(value) + b"\n"
