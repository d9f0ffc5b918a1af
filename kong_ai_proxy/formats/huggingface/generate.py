"""Hugging Face's text-generation-inference: https://huggingface.github.io/text-generation-inference/.

/generate answers with one object, a POST to / with an array of one, /generate_stream and a stream
of / with server-sent events. The model's name is in none of them: the server has one model.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.codec import ChatCodec, Context, StreamReader, StreamWriter
from kong_ai_proxy.formats.conversation import (
    Conversation,
    Message,
    OutputFormat,
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
    objects_of,
    text_of,
    wrong,
)
from kong_ai_proxy.formats.huggingface.common import error_of, parse_error, render_error
from kong_ai_proxy.formats.sse import Event, SseError, SseReader
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_KNOWN = frozenset({"extra_body", "inputs", "model", "parameters", "stream"})
_NAMES = {"max_new_tokens": "max_tokens", "return_full_text": "echo"}
_THEIR_NAMES = {"max_tokens": "max_new_tokens"}
_ANSWER_ONLY = frozenset({"decoder_input_details", "details"})
"""Parameters that only ask to be told more, of what other providers do not tell."""
_TAKEN = frozenset(
    {
        "adapter_id",
        "best_of",
        "do_sample",
        "frequency_penalty",
        "grammar",
        "max_tokens",
        "repetition_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_n_tokens",
        "top_p",
        "truncate",
        "typical_p",
        "watermark",
    }
)

_REASONS: Mapping[str, FinishReason] = {
    "eos_token": "stop",
    "length": "length",
    "stop_sequence": "stop",
}


class _Generate:
    name = "huggingface/generate"
    stream_type = "text/event-stream"
    stream_types = frozenset({"text/event-stream"})

    def __init__(self, *, in_array: bool = False) -> None:
        self._in_array = in_array

    def parse_request(
        self, body: Mapping[str, object], *, model: str = "", stream: bool | None = None
    ) -> Conversation:
        parameters = body.get("parameters")
        told = {} if parameters is None else an_object(parameters, "parameters")
        settings = {name: body[name] for name in body.keys() - _KNOWN if body[name] is not None}
        for name, value in told.items():
            if value is not None and name not in _ANSWER_ONLY:
                settings[_NAMES.get(name, name)] = value
        if "stop" in settings:
            stops = an_array(settings["stop"], "parameters.stop")
            settings["stop"] = [a_text(each, "parameters.stop") for each in stops]
        output = _output(settings.get("grammar"))
        if output:
            del settings["grammar"]
        prompt = Text(a_text(body.get("inputs"), "inputs"))
        return Conversation(
            messages=(Message("user", (prompt,)),),
            model=text_of(body, "model") or model,
            stream=body.get("stream") is True if stream is None else stream,
            wants_usage=True,
            output=output,
            settings=settings,
            extra=object_of(body, "extra_body"),
            is_completion=True,
        )

    def render_request(self, conversation: Conversation) -> Rendered:
        # Without `details` a stream's end says neither why it ended nor how long it was.
        parameters: dict[str, object] = {"details": True, "return_full_text": False}
        dropped = _render_settings(conversation.settings, parameters)
        if conversation.output:
            schema = conversation.output.schema
            value = {"type": "object"} if schema is None else schema
            parameters["grammar"] = {"type": "json", "value": value}
        if conversation.reasoning:
            dropped.append("reasoning_effort")
        if conversation.has_cache_points:
            dropped.append("cache_control")
        if conversation.has_names:
            dropped.append("name")
        body: dict[str, object] = {
            "inputs": _prompt(conversation),
            "parameters": parameters,
            "stream": conversation.stream,
            **conversation.extra,
        }
        return Rendered(body, tuple(dropped))

    def parse_answer(self, value: object) -> list[Delta]:
        if error := error_of(value):
            return [Failed(error)]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        answer = an_object(value, "answer")
        text = a_text(answer.get("generated_text"), "answer.generated_text")
        details = object_of(answer, "details")
        found: list[Delta] = [Started(), TextPiece(text)] if text else [Started()]
        return found + _ending(details, len(objects_of(details, "prefill")))

    def render_answer(self, answer: Answer, context: Context) -> object:
        writer = _Writer(context)
        for delta in pieces(answer):
            writer.take(delta)
        if writer.failure:
            raise FormatError(writer.failure)
        whole = writer.whole()
        return [whole] if self._in_array else whole

    def reader(self) -> StreamReader:
        return _Reader()

    def writer(self, context: Context) -> StreamWriter:
        return _Writer(context)

    def parse_error(self, status: int, body: bytes) -> ProviderError:
        return parse_error(status, body)

    def render_error(self, error: ProviderError) -> object:
        return render_error(error)


def _output(grammar: object) -> OutputFormat | None:
    """A JSON schema; other grammars have no counterpart elsewhere."""
    if not isinstance(grammar, dict):
        return None
    value = grammar.get("value")
    if grammar.get("type") == "json_schema" and isinstance(value, dict):
        schema = an_object(value.get("schema"), "parameters.grammar.value.schema")
        return OutputFormat(schema=schema, name=text_of(value, "name"))
    if grammar.get("type") == "json" and isinstance(value, dict):
        return OutputFormat(schema=value)
    return None


def _prompt(conversation: Conversation) -> str:
    """All texts; thoughts have no part in it."""
    if conversation.tools or conversation.native_tools:
        wrong("tools", "none: this server only continues a text")
    for index, message in enumerate(conversation.messages):
        for number, block in enumerate(message.blocks):
            if not isinstance(block, Text | Refusal | Thinking):
                place = f"messages[{index}].content[{number}]"
                wrong(place, "text: this server only continues a text")
    return conversation.prompt


def _render_settings(settings: Mapping[str, object], parameters: dict[str, object]) -> list[str]:
    """Returns those that the server does not know.

    It refuses a temperature of 0 and a top_p of 1, which ask for what it does without them; and to
    begin with the prompt again is done for the client, if for anybody.
    """
    dropped = []
    for name, value in settings.items():
        if name in _TAKEN:
            parameters[_THEIR_NAMES.get(name, name)] = value
        elif name != "echo" and not (name == "n" and value == 1):
            dropped.append(name)
    if parameters.get("temperature") == 0:
        del parameters["temperature"]
        parameters["do_sample"] = False
    if parameters.get("top_p") == 1:
        del parameters["top_p"]
    return dropped


def _ending(details: Mapping[str, object], prompt_tokens: int) -> list[Delta]:
    finished = Finished(_REASONS.get(text_of(details, "finish_reason"), "stop"))
    completion = _count(details.get("generated_tokens"))
    if completion is None:
        return [finished]
    usage = Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion,
        total_tokens=prompt_tokens + completion,
    )
    return [finished, Used(usage)]


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


class _Reader:
    """Reads one stream. The event with `generated_text` is the last."""

    __slots__ = ("_has_text", "_out", "_over", "_sse", "_started")

    def __init__(self) -> None:
        self._sse = SseReader()
        self._out: list[Delta] = []
        self._started = False
        self._has_text = False
        self._over = False

    def feed(self, chunk: bytes) -> list[Delta]:
        if self._over:
            return []
        try:
            for event in self._sse.feed(chunk):
                self._read(event)
        except SseError as error:
            self._fail(ProviderError(str(error)))
        return self._taken()

    def end(self) -> list[Delta]:
        if self._over:
            return []
        try:
            for event in self._sse.end():
                self._read(event, "the stream ended within an event")
        except SseError as error:
            self._fail(ProviderError(str(error)))
        if not self._over:
            self._fail(ProviderError("the stream ended before its generated_text"))
        return self._taken()

    def _taken(self) -> list[Delta]:
        out, self._out = self._out, []
        return out

    def _fail(self, error: ProviderError) -> None:
        self._over = True
        self._out.append(Failed(error))

    def _read(self, event: Event, broken: str = "an event of the stream is not JSON") -> None:
        if self._over:
            return
        data = event.data
        if data is None:
            data = event.raw.strip()
            if not data.startswith((b"{", b"[")):
                return
        elif data == b"[DONE]":
            return
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._fail(ProviderError(broken))
            return
        if isinstance(value, dict) and "token" in value:
            self._token(value)
        elif error := error_of(value):
            self._fail(error)

    def _token(self, value: Mapping[str, object]) -> None:
        if not self._started:
            self._started = True
            self._out.append(Started())
        token = object_of(value, "token")
        text = token.get("text")
        if isinstance(text, str) and text and token.get("special") is not True:
            self._has_text = True
            self._out.append(TextPiece(text))
        whole = value.get("generated_text")
        if isinstance(whole, str):
            if whole and not self._has_text:
                self._out.append(TextPiece(whole))
            self._over = True
            details = object_of(value, "details")
            self._out += _ending(details, _count(details.get("input_length")) or 0)


class _Writer:
    """Writes one stream. Its last event has the whole text again, so that is held."""

    __slots__ = ("_finished", "_over", "_texts", "_usage", "failure")

    def __init__(self, context: Context) -> None:
        self._texts = [context.prefix] if context.prefix else []
        self._finished = Finished("stop")
        self._usage: Usage | None = None
        self._over = False
        self.failure = ""
        """Why the answer cannot be told any more; "" while it can."""

    def feed(self, deltas: list[Delta]) -> bytes:
        return b"".join([self.take(delta) for delta in deltas])

    def end(self) -> bytes:
        if self._over:
            return b""
        self._over = True
        usage = self._usage or Usage()
        details = {
            "finish_reason": self._reason(),
            "generated_tokens": usage.completion_tokens,
            "input_length": usage.prompt_tokens,
            "seed": None,
        }
        return self._event("", special=True, generated_text="".join(self._texts), details=details)

    def take(self, delta: Delta) -> bytes:
        """What the client gets of this piece. There is no place for thoughts, nor for more than
        one alternative."""
        if self._over:
            return b""
        match delta:
            case TextPiece(text, 0) | RefusalPiece(text, 0):
                if text:
                    written = self._event(text)
                    self._texts.append(text)
                    return written
            case Finished(choice=0):
                self._finished = delta
            case Used(usage):
                self._usage = usage
            case Failed(error):
                self._fail(error.message)
                return b"data:" + orjson.dumps(render_error(error)) + b"\n\n"
            case MediaPiece(media):
                error = self._fail(f"the answer has an {media.kind}, which this format has not")
                return b"data:" + orjson.dumps(render_error(error)) + b"\n\n"
        return b""

    def _fail(self, message: str) -> ProviderError:
        self._over = True
        self.failure = message
        return ProviderError(message)

    def _event(
        self,
        text: str,
        *,
        special: bool = False,
        generated_text: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> bytes:
        """Other providers tell neither a token's id nor its probability here."""
        event = {
            "index": len(self._texts) + 1,
            "token": {"id": 0, "text": text, "logprob": None, "special": special},
            "generated_text": generated_text,
            "details": details,
        }
        return b"data:" + orjson.dumps(event) + b"\n\n"

    def _reason(self) -> str:
        if self._finished.reason == "length":
            return "length"
        return "stop_sequence" if self._finished.stop_sequence else "eos_token"

    def whole(self) -> dict[str, object]:
        """The whole answer."""
        details = {
            "finish_reason": self._reason(),
            "generated_tokens": self._usage.completion_tokens if self._usage else 0,
            "seed": None,
            "prefill": [],
            "tokens": [],
        }
        return {"generated_text": "".join(self._texts), "details": details}


GENERATE: ChatCodec = _Generate()
"""Of /generate and /generate_stream."""
GENERATE_ARRAY: ChatCodec = _Generate(in_array=True)
"""Of a POST to /."""
