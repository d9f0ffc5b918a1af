"""Ollama's own API: chat, generate and embed; what it answers is a JSON object a line.

No package of the vendor's is needed for it: the models below are written from the parameters and
examples of https://github.com/ollama/ollama/blob/main/docs/api.md, member by member. Unknown
members are refused although Ollama ignores them, since one that is not on that page does nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, Literal, NotRequired, Required

import orjson
from pydantic import ConfigDict
from typing_extensions import TypedDict, override

from tests.providers.strict import Validator, made, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    Upstream,
    json_reply,
    route,
    vector,
    words,
)


class _Options(TypedDict, total=False):
    """Valid parameters: https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx, and the
    example "Generate request (With options)" of the API's page."""

    num_keep: int
    seed: int
    num_predict: int
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_last_n: int
    temperature: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalize_newline: bool
    stop: list[str]
    numa: bool
    num_ctx: int
    num_batch: int
    num_gpu: int
    main_gpu: int
    use_mmap: bool
    num_thread: int


class _Function(TypedDict, total=False):
    index: int
    name: Required[str]
    arguments: Required[dict[str, Any]]


class _ToolCall(TypedDict, total=False):
    id: str
    function: Required[_Function]


class _Message(TypedDict, total=False):
    role: Required[Literal["system", "user", "assistant", "tool"]]
    content: str
    thinking: str
    images: list[str] | None
    tool_calls: list[_ToolCall] | None
    tool_name: str
    tool_call_id: str


class _Parameters(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    type: Required[Literal["object"]]
    properties: dict[str, Any]
    required: list[str]


class _ToolFunction(TypedDict, total=False):
    name: Required[str]
    description: str
    parameters: Required[_Parameters]


class _Tool(TypedDict):
    type: Literal["function"]
    function: _ToolFunction


class _Shared(TypedDict, total=False):
    model: Required[str]
    stream: bool
    format: Literal["", "json"] | dict[str, Any]
    options: _Options
    keep_alive: str | int | float
    think: bool | Literal["low", "medium", "high", "max"]
    logprobs: bool
    top_logprobs: int


class _ChatRequest(_Shared, total=False):
    messages: Required[list[_Message]]
    tools: list[_Tool]


class _GenerateRequest(_Shared, total=False):
    prompt: str
    suffix: str
    images: list[str]
    system: str
    template: str
    raw: bool
    context: list[int]


class _EmbedRequest(TypedDict, total=False):
    model: Required[str]
    input: Required[str | list[str]]
    truncate: bool
    options: _Options
    keep_alive: str | int | float
    dimensions: int


class _Answer(TypedDict):
    model: str
    created_at: str
    done: bool
    done_reason: NotRequired[Literal["stop", "length", "load", "unload"]]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]


class _ChatAnswer(_Answer):
    message: _Message


class _GenerateAnswer(_Answer):
    response: str
    thinking: NotRequired[str]
    context: NotRequired[list[int]]


class _EmbedAnswer(TypedDict):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


_CHAT: Final = Validator(_ChatRequest)
_GENERATE: Final = Validator(_GenerateRequest)
_EMBED: Final = Validator(_EmbedRequest)


class Ollama(Upstream):
    """Ollama below any prefix: `/api/chat`, `/api/generate` and `/api/embed`. No key is needed."""

    name = "ollama"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "(?:/.*)?/api/chat"), "chat"),
        (route("POST", "(?:/.*)?/api/generate"), "generate"),
        (route("POST", "(?:/.*)?/api/embed"), "embed"),
    )

    @override
    def authorize(self, request: Recorded) -> None:
        """https://github.com/ollama/ollama/blob/main/docs/api/authentication.mdx: none locally"""

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://github.com/ollama/ollama/blob/main/docs/api/errors.mdx"""
        return json_reply({"error": message}, status)

    def chat(self, request: Recorded, turn: Turn) -> Reply:
        """POST /api/chat"""
        body = parsed(request.body)
        _CHAT.check(body)
        for message in body["messages"]:
            _check_images(message.get("images"))

        def answer(value: Json, **last: Any) -> Json:
            return made(_ChatAnswer, {**_envelope(body), "message": value, **last})

        return _reply(body, turn, _message(turn), _messages(turn), answer)

    def generate(self, request: Recorded, turn: Turn) -> Reply:
        """POST /api/generate"""
        body = parsed(request.body)
        _GENERATE.check(body)
        _check_images(body.get("images"))

        def answer(value: Json, **last: Any) -> Json:
            said = {"response": value.get("content", "")}
            if value.get("thinking"):
                said["thinking"] = value["thinking"]
            return made(_GenerateAnswer, {**_envelope(body), **said, **last})

        return _reply(body, turn, _message(turn), _messages(turn), answer)

    def embed(self, request: Recorded, turn: Turn) -> Reply:
        """POST /api/embed"""
        body = parsed(request.body)
        _EMBED.check(body)
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = [vector(text, body.get("dimensions") or 8) for text in inputs]
        answer = {
            "model": body["model"],
            "embeddings": vectors,
            "total_duration": 14143917,
            "load_duration": 1019500,
            "prompt_eval_count": turn.usage.input,
        }
        return json_reply(made(_EmbedAnswer, answer))


def _reply(
    body: Json, turn: Turn, whole: Json, pieces: Iterator[Json], answer: Callable[..., Json]
) -> Reply:
    """Streaming is what a request without `stream` gets."""
    if body.get("stream") is False:
        return json_reply(answer(whole, **_last(turn)))
    values = [answer(each, done=False) for each in pieces]
    values.append(answer({"role": "assistant", "content": ""}, **_last(turn)))
    return Reply(
        frames=[orjson.dumps(value) + b"\n" for value in values],
        content_type="application/x-ndjson",
        error_frame=_error_frame,
    )


def _error_frame(text: str) -> bytes:
    return orjson.dumps({"error": text}) + b"\n"


def _check_images(images: list[str] | None) -> None:
    for image in images or ():
        try:
            base64.b64decode(image, validate=True)
        except binascii.Error as error:
            raise RefusedError(f"images: {error}: base64 without a prefix is expected") from None


def _envelope(body: Json) -> Json:
    return {"model": body["model"], "created_at": "2025-10-09T08:53:20.123456789Z"}


def _last(turn: Turn) -> Json:
    return {
        "done": True,
        "done_reason": "length" if turn.reason == "length" else "stop",
        "total_duration": 4883583458,
        "load_duration": 1334875,
        "prompt_eval_count": turn.usage.input,
        "prompt_eval_duration": 342546000,
        "eval_count": turn.usage.output,
        "eval_duration": 4535599000,
    }


def _calls(turn: Turn) -> list[Json]:
    return [
        {"function": {"name": call.name, "arguments": call.arguments}} for call in turn.tool_calls
    ]


def _message(turn: Turn) -> Json:
    message: Json = {"role": "assistant", "content": turn.said}
    if turn.thinking:
        message["thinking"] = turn.thinking
    if turn.tool_calls:
        message["tool_calls"] = _calls(turn)
    return message


def _messages(turn: Turn) -> Iterator[Json]:
    """Calls come whole, each in a message of its own."""
    for text in words(turn.thinking) if turn.thinking else []:
        yield {"role": "assistant", "content": "", "thinking": text}
    for text in words(turn.said) if turn.said else []:
        yield {"role": "assistant", "content": text}
    for call in _calls(turn):
        yield {"role": "assistant", "content": "", "tool_calls": [call]}
