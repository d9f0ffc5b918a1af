"""Cohere's older completions of prompts: https://docs.cohere.com/v1/reference/generate.

A stream is one JSON object a line (application/stream+json).
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.cohere.common import (
    FAILURES,
    SAME,
    error_of,
    failure,
    parse_error,
    render_error,
    render_settings,
    settings_from,
    usage_object,
    usage_of,
)
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Message,
    Refusal,
    Rendered,
    Text,
    Thinking,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    Delta,
    Failed,
    Finished,
    FinishReason,
    MediaPiece,
    RefusalPiece,
    Started,
    TextPiece,
    Used,
    pieces,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import (
    a_text,
    an_array,
    an_object,
    object_of,
    objects,
    objects_of,
    text_of,
)
from kong_ai_proxy.formats.json_lines import JsonLinesError, JsonLinesReader
from kong_ai_proxy.formats.usage import Usage

_KNOWN = frozenset({"end_sequences", "extra_body", "model", "prompt", "stop_sequences", "stream"})
_NAMES = {"p": "top_p", "k": "top_k", "num_generations": "n"}
# "The sequence will be excluded from the text", as OpenAI's `stop` is; `stop_sequences` would stay.
_THEIR_NAMES = {"top_k": "k", "n": "num_generations", "stop": "end_sequences"}
_TAKEN = SAME | _THEIR_NAMES.keys() | {"preset", "raw_prompting", "return_likelihoods", "truncate"}

_REASONS: Mapping[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "ERROR_TOXIC": "content_filter",
}
_THEIR_REASONS: Mapping[FinishReason, str] = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "COMPLETE",
    "content_filter": "ERROR_TOXIC",
}


def _ended(reason: str, choice: int) -> Finished | Failed:
    if reason in FAILURES:
        return Failed(failure(reason))
    return Finished(_REASONS.get(reason, "stop"), choice=choice)


def _index(value: Mapping[str, object], otherwise: int) -> int:
    index = value.get("index")
    return index if type(index) is int and index >= 0 else otherwise


class _Generate:
    name = "cohere/generate"
    stream_type = "application/stream+json"
    stream_types = frozenset({"application/stream+json", "application/x-ndjson"})

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        settings = settings_from(body, _KNOWN, _NAMES)
        if stops := [*_stops(body, "end_sequences"), *_stops(body, "stop_sequences")]:
            settings["stop"] = stops
        prompt = Text(a_text(body.get("prompt"), "prompt"))
        return Conversation(
            messages=(Message("user", (prompt,)),),
            model=text_of(body, "model") or model,
            stream=body.get("stream") is True if stream is None else stream,
            wants_usage=True,
            settings=settings,
            extra=object_of(body, "extra_body"),
            is_completion=True,
        )

    def render_request(self, conversation: Conversation) -> Rendered:
        body: dict[str, object] = {"model": conversation.model} if conversation.model else {}
        body["prompt"] = prompt_of(conversation)
        body["stream"] = conversation.stream
        dropped = render_settings(conversation.settings, body, _THEIR_NAMES, _takes)
        dropped += dropped_knobs(conversation)
        body.update(conversation.extra)
        return Rendered(body, tuple(dropped))

    def parse_answer(self, value: object) -> list[Delta]:
        answer = an_object(value, "answer")
        if "generations" not in answer and (error := error_of(answer)):
            return [Failed(error)]
        found: list[Delta] = [Started(text_of(answer, "id"))]
        for place, each in objects(answer.get("generations"), "answer.generations"):
            choice = _index(each, len(found) // 2)
            found.append(TextPiece(a_text(each.get("text"), f"{place}.text"), choice))
            found.append(_ended(text_of(each, "finish_reason"), choice))
        if usage := usage_of(object_of(answer, "meta")):
            found.append(Used(usage))
        return found

    def render_answer(self, answer: Answer, context: Context) -> object:
        writer = _Writer(context)
        for delta in pieces(answer):
            writer.take(delta)
        if writer.failure:
            raise FormatError(writer.failure)
        return writer.whole(with_reasons=False)

    def reader(self) -> StreamReader:
        return _Reader()

    def writer(self, context: Context) -> StreamWriter:
        return _Writer(context)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return render_error(error)


def _takes(name: str, value: object) -> bool:
    return name in _TAKEN


def _stops(body: Mapping[str, object], name: str) -> list[str]:
    value = body.get(name)
    return [] if value is None else [a_text(each, name) for each in an_array(value, name)]


def prompt_of(conversation: Conversation) -> str:
    """The prompt to be continued, in which thoughts have no part. Raises FormatError for a
    conversation that is more than text."""
    if conversation.tools or conversation.native_tools:
        raise FormatError("tools: expected none: this model only continues a text")
    for index, message in enumerate(conversation.messages):
        for number, block in enumerate(message.blocks):
            if not isinstance(block, Text | Refusal | Thinking):
                place = f"messages[{index}].content[{number}]"
                raise FormatError(f"{place}: expected text: this model only continues a text")
    return conversation.prompt


def dropped_knobs(conversation: Conversation) -> list[str]:
    """What completions of prompts cannot be told."""
    asked = {
        "reasoning_effort": conversation.reasoning,
        "response_format": conversation.output,
        "cache_control": conversation.has_cache_points or None,
        "name": conversation.has_names or None,
    }
    return [name for name, value in asked.items() if value is not None]


class _Reader:
    """Reads one stream, line by line."""

    __slots__ = ("_choices", "_lines", "_over", "_started")

    def __init__(self) -> None:
        self._lines = JsonLinesReader()
        self._choices: set[int] = set()  # those that have said something
        self._started = False
        self._over = False

    def feed(self, chunk: bytes) -> list[Delta]:
        if self._over:
            return []
        try:
            return self._read(self._lines.feed(chunk), "a line of the stream is not JSON")
        except JsonLinesError as error:
            return [self._fail(ProviderError(str(error)))]

    def end(self) -> list[Delta]:
        if self._over:
            return []
        try:
            found = self._read(self._lines.end(), "the stream ended within a line")
        except JsonLinesError as error:
            return [self._fail(ProviderError(str(error)))]
        if not self._over:
            found.append(self._fail(ProviderError("the stream ended before its last event")))
        return found

    def _fail(self, error: ProviderError) -> Failed:
        self._over = True
        return Failed(error)

    def _read(self, lines: list[bytes], broken: str) -> list[Delta]:
        return [delta for line in lines for delta in self._line(line, broken)]

    def _line(self, line: bytes, broken: str) -> list[Delta]:
        if self._over:
            return []
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return [self._fail(ProviderError(broken))]
        return self._event(value) if isinstance(value, dict) else []

    def _event(self, event: Mapping[str, object]) -> list[Delta]:
        kind = event.get("event_type")
        if kind == "stream-error":
            reason = text_of(event, "finish_reason")
            return [self._fail(failure(reason, text_of(event, "err")))]
        if kind == "stream-end" or event.get("is_finished") is True:
            return self._ended(event)
        if isinstance(text := event.get("text"), str):
            choice = _index(event, 0)
            self._choices.add(choice)
            return [*self._begin(""), TextPiece(text, choice)] if text else []
        error = error_of(event) if kind is None else None
        return [self._fail(error)] if error else []

    def _begin(self, identity: str) -> list[Delta]:
        if self._started:
            return []
        self._started = True
        return [Started(identity)]

    def _ended(self, event: Mapping[str, object]) -> list[Delta]:
        response = object_of(event, "response")
        found = self._begin(text_of(response, "id"))
        self._over = True
        reasons = dict.fromkeys(self._choices or {0}, text_of(event, "finish_reason"))
        for number, each in enumerate(objects_of(response, "generations")):
            choice = _index(each, number)
            if choice not in self._choices and (text := text_of(each, "text")):
                found.append(TextPiece(text, choice))
            reasons[choice] = text_of(each, "finish_reason") or reasons.get(choice, "")
        endings = [_ended(reason, choice) for choice, reason in sorted(reasons.items())]
        failed = [each for each in endings if isinstance(each, Failed)]
        usage = usage_of(object_of(response, "meta")) or usage_of(object_of(event, "meta"))
        return [*found, *(failed[:1] or endings), *([Used(usage)] if usage and not failed else [])]


class _Writer:
    """Writes one stream. Its last event has the whole answer again, so that is held."""

    __slots__ = ("_context", "_finished", "_identity", "_over", "_texts", "_usage", "failure")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._identity = context.id
        self._over = False
        self._texts: dict[int, list[str]] = {}
        self._finished: dict[int, Finished] = {}
        self._usage: Usage | None = None
        self.failure = ""
        """Why the answer cannot be told any more; "" while it can."""

    def feed(self, deltas: list[Delta]) -> bytes:
        return b"".join([self.take(delta) for delta in deltas])

    def end(self) -> bytes:
        if self._over:
            return b""
        self._over = True
        first = self._finished.get(0, Finished("stop"))
        return _line(
            is_finished=True,
            event_type="stream-end",
            finish_reason=_reason(first),
            response=self.whole(with_reasons=True),
        )

    def take(self, delta: Delta) -> bytes:
        """What the client gets of this piece. There is no place for thoughts."""
        if self._over:
            return b""
        match delta:
            case TextPiece(text, choice) | RefusalPiece(text, choice):
                return self._text(text, choice)
            case Started(id=identity):
                self._identity = identity or self._identity
            case Finished(choice=choice):
                self._finished[choice] = delta
            case Used(usage):
                self._usage = usage
            case Failed(error):
                return self._fail(error.message)
            case MediaPiece(media):
                return self._fail(f"the answer has an {media.kind}, which Cohere's format has not")
        return b""

    def _text(self, text: str, choice: int) -> bytes:
        if choice not in self._texts:
            self._texts[choice] = []
            text = self._context.prefix + text
        if not text:
            return b""
        self._texts[choice].append(text)
        return _line(text=text, is_finished=False, event_type="text-generation", index=choice)

    def _fail(self, message: str) -> bytes:
        self._over = True
        self.failure = message
        return _line(
            is_finished=True, event_type="stream-error", finish_reason="ERROR", err=message
        )

    def whole(self, *, with_reasons: bool) -> dict[str, object]:
        """The whole answer; the reasons why it ended are told in streams only."""
        choices = sorted({*self._texts, *self._finished}) or [0]
        generations = [self._generation(choice, with_reasons) for choice in choices]
        meta: dict[str, object] = {"api_version": {"version": "1"}}
        if self._usage:
            meta |= usage_object(self._usage)
        return {"id": self._identity, "generations": generations, "meta": meta}

    def _generation(self, choice: int, with_reason: bool) -> dict[str, object]:
        finished = self._finished.get(choice, Finished("stop"))
        return {
            "id": f"{self._identity}-{choice}",
            "text": "".join(self._texts.get(choice, ())),
            "index": choice,
            **({"finish_reason": _reason(finished)} if with_reason else {}),
        }


def _reason(finished: Finished) -> str:
    stopped = finished.stop_sequence and finished.reason == "stop"
    return "STOP_SEQUENCE" if stopped else _THEIR_REASONS[finished.reason]


def _line(**event: object) -> bytes:
    return orjson.dumps(event) + b"\n"


GENERATE: ChatCodec = _Generate()
