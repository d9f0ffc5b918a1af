"""OpenAI's API and those that copy it: chat completions, completions and embeddings.

Requests are checked with the request types of `openai.types`, answers and chunks with its response
models. What the API refuses although those types take it is in `_check_conversation`,
`_check_ranges` and `_check_model`, with its source. Providers that copy the API differ in members
they take or refuse at the top level: `takes` and `refuses` say so.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    completion_create_params,
    embedding_create_params,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat import completion_create_params as chat
from typing_extensions import override

from tests.providers.strict import Validator, made, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    ToolCall,
    Turn,
    Upstream,
    json_pieces,
    json_reply,
    route,
    sse,
    vector,
    words,
)

CREATED: Final = 1_760_000_000
DONE: Final = sse("[DONE]")

# https://platform.openai.com/docs/guides/error-codes/api-errors
_ERRORS: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
# https://platform.openai.com/docs/guides/reasoning: no max_tokens, no sampling parameters
_REASONING_MODEL: Final = re.compile(r"(o[134](-|$)|gpt-[5-9](?!.*-chat))")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# https://platform.openai.com/docs/api-reference/chat/create
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "n": (1, 128),
    "top_logprobs": (0, 20),
    "max_tokens": (1, float("inf")),
    "max_completion_tokens": (1, float("inf")),
}


class OpenAI(Upstream):
    """api.openai.com below any prefix: `/chat/completions`, `/completions`, `/embeddings`.

    takes: top-level members of chat that this provider has and OpenAI has not, with their types.
    refuses: members that it answers with 400.
    reasoning: the member of messages and deltas that shows a Turn's thinking, such as
        DeepSeek's `reasoning_content`, which is then taken back in messages too; None shows none.
    """

    name = "openai"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "(?:/.*)?/deployments/{deployment}/chat/completions"), "chat"),
        (route("POST", "(?:/.*)?/deployments/{deployment}/completions"), "complete"),
        (route("POST", "(?:/.*)?/deployments/{deployment}/embeddings"), "embed"),
        (route("POST", "(?:/.*)?/chat/completions"), "chat"),
        (route("POST", "(?:/.*)?/completions"), "complete"),
        (route("POST", "(?:/.*)?/embeddings"), "embed"),
    )

    def __init__(
        self,
        takes: Mapping[str, Any] | None = None,
        refuses: Collection[str] = (),
        reasoning: str | None = None,
    ) -> None:
        super().__init__()
        self._refuses = refuses
        self._reasoning = reasoning
        self._chat = Validator(chat.CompletionCreateParamsNonStreaming, takes)
        self._chat_stream = Validator(chat.CompletionCreateParamsStreaming, takes)
        self._complete = Validator(completion_create_params.CompletionCreateParamsNonStreaming)
        self._complete_stream = Validator(completion_create_params.CompletionCreateParamsStreaming)
        self._embed = Validator(embedding_create_params.EmbeddingCreateParams)

    @override
    def authorize(self, request: Recorded) -> None:
        """A bearer, or the header `api-key` as on Azure.
        https://platform.openai.com/docs/api-reference/authentication"""
        if not re.fullmatch(r"Bearer \S+", request.headers.get("Authorization", "")) and not (
            request.headers.get("api-key")
        ):
            raise RefusedError("You didn't provide an API key.", 401)

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        return json_reply(error_body(status, message), status)

    def chat(self, request: Recorded, turn: Turn, deployment: str | None = None) -> Reply:
        """POST /chat/completions"""
        body = self._read(request, deployment)
        (self._chat_stream if body.get("stream") else self._chat).check(self._plain(body))
        _check_chat(body)
        if not body.get("stream"):
            answer = completion(turn, body["model"], body.get("n") or 1)
            made(ChatCompletion, answer)
            self._think(answer, turn)
            return json_reply(answer)
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        frames = [
            sse(made(ChatCompletionChunk, each)) for each in chunks(turn, body["model"], usage)
        ]
        frames[1:1] = self._thoughts(turn, body["model"])
        return event_stream([*frames, DONE])

    def complete(self, request: Recorded, turn: Turn, deployment: str | None = None) -> Reply:
        """POST /completions"""
        body = self._read(request, deployment)
        (self._complete_stream if body.get("stream") else self._complete).check(body)
        _check_ranges(body)
        if not body.get("stream"):
            prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
            count = 1 if prompts and isinstance(prompts[0], int) else len(prompts)
            return json_reply(made(Completion, _text_completion(turn, body["model"], count)))
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        frames = [sse(each) for each in _text_chunks(turn, body["model"], usage)]
        return event_stream([*frames, DONE])

    def embed(self, request: Recorded, turn: Turn, deployment: str | None = None) -> Reply:
        """POST /embeddings"""
        body = self._read(request, deployment)
        self._embed.check(body)
        return json_reply(embeddings(body, turn, body.get("encoding_format") == "base64"))

    def _read(self, request: Recorded, deployment: str | None) -> Json:
        body = parsed(request.body)
        for name in self._refuses:
            if name in body:
                raise RefusedError(f"Unrecognized request argument supplied: {name}")
        if deployment is not None:
            body.setdefault("model", deployment)  # Azure has it in the path
        return body

    def _plain(self, body: Json) -> Json:
        """The body without the reasoning of turns before."""
        if self._reasoning is None or not isinstance(body.get("messages"), list):
            return body
        messages = [
            {name: each[name] for name in each if name != self._reasoning}
            for each in body["messages"]
        ]
        return {**body, "messages": messages}

    def _think(self, answer: Json, turn: Turn) -> None:
        if self._reasoning and turn.thinking:
            for choice in answer["choices"]:
                choice["message"][self._reasoning] = turn.thinking

    def _thoughts(self, turn: Turn, model: str) -> list[bytes]:
        if not self._reasoning or not turn.thinking:
            return []
        deltas = [{self._reasoning: text, "content": None} for text in words(turn.thinking)]
        return [sse(chunk(model, delta)) for delta in deltas]


def event_stream(frames: Sequence[bytes]) -> Reply:
    """Server-sent events with OpenAI's errors in them."""

    def broken(text: str) -> bytes:
        return sse(error_body(500, text))

    content_type = "text/event-stream; charset=utf-8"
    return Reply(frames=frames, content_type=content_type, error_frame=broken)


def error_body(status: int, message: str) -> Json:
    """https://platform.openai.com/docs/guides/error-codes"""
    kind = _ERRORS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


# ---- requests


def _check_chat(body: Json) -> None:
    if not body["messages"]:
        raise RefusedError("Invalid 'messages': empty array.")
    _check_ranges(body)
    _check_model(body)
    check_tools(body)
    check_results(body["messages"])


def _check_ranges(body: Json) -> None:
    for name, (least, most) in _RANGES.items():
        value = body.get(name)
        if value is not None and not least <= value <= most:
            raise RefusedError(f"Invalid '{name}': expected {least} to {most}, got {value}.")
    if body.get("stream_options") is not None and not body.get("stream"):
        raise RefusedError("'stream_options' is only allowed when 'stream' is enabled.")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise RefusedError("'top_logprobs' is only allowed when 'logprobs' is enabled.")


def _check_model(body: Json) -> None:
    if not _REASONING_MODEL.match(body["model"]):
        return
    if body.get("max_tokens") is not None:
        raise RefusedError(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        )
    for name, default in (("temperature", 1), ("top_p", 1)):
        if body.get(name, default) not in (default, None):
            raise RefusedError(f"Unsupported value: '{name}' does not support {body[name]}.")


def check_tools(body: Json) -> None:
    """https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools"""
    tools = body.get("tools")
    if tools is not None and not tools:
        raise RefusedError("Invalid 'tools': empty array.")
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not tools:
            raise RefusedError(f"'{name}' is only allowed when 'tools' are specified.")
    for at, tool in enumerate(tools or ()):
        if tool["type"] == "function" and not _NAME.fullmatch(tool["function"]["name"]):
            raise RefusedError(
                f"Invalid 'tools[{at}].function.name': does not match '^[a-zA-Z0-9_-]+$'."
            )


def check_results(messages: list[Json]) -> None:
    """Every tool call is answered at once, and nothing else is.
    https://platform.openai.com/docs/guides/function-calling"""
    open_calls: list[str] = []
    for at, each in enumerate(messages):
        if each["role"] == "tool":
            if each["tool_call_id"] not in open_calls:
                raise RefusedError(
                    f"Invalid parameter: messages[{at}] with role 'tool' must be a response to a "
                    "preceding message with 'tool_calls'."
                )
            open_calls.remove(each["tool_call_id"])
            continue
        if open_calls:
            break
        open_calls = [call["id"] for call in each.get("tool_calls") or ()]
    if open_calls:
        raise RefusedError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            f"to each 'tool_call_id'. These did not have response messages: {open_calls}"
        )


# ---- answers


def usage(turn: Turn) -> Json:
    """Token counts with details."""
    return {
        "prompt_tokens": turn.usage.input,
        "completion_tokens": turn.usage.output,
        "total_tokens": turn.usage.input + turn.usage.output,
        "prompt_tokens_details": {"cached_tokens": turn.usage.cached},
        "completion_tokens_details": {"reasoning_tokens": turn.usage.reasoning},
    }


def call_id(call: ToolCall, at: int) -> str:
    """The id of a call in OpenAI's form."""
    return call.id or f"call_StandIn{at}"


def completion(turn: Turn, model: str, count: int = 1) -> Json:
    """A chat completion with `count` choices."""
    message: Json = {"role": "assistant", "content": turn.said or None, "refusal": None}
    if turn.tool_calls:
        message["tool_calls"] = calls(turn)
    return {
        "id": "chatcmpl-StandIn",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [
            {"index": at, "message": {**message}, "logprobs": None, "finish_reason": turn.reason}
            for at in range(count)
        ],
        "usage": usage(turn),
    }


def calls(turn: Turn) -> list[Json]:
    """The tool calls of a message."""
    return [
        {"id": call_id(call, at), "type": "function", "function": _function(call)}
        for at, call in enumerate(turn.tool_calls)
    ]


def _function(call: ToolCall) -> Json:
    return {"name": call.name, "arguments": "".join(json_pieces(call.arguments))}


def chunk(model: str, delta: Json, reason: str | None = None) -> Json:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {
        "id": "chatcmpl-StandIn",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "choices": [choice],
    }


def deltas(turn: Turn) -> Iterator[Json]:
    """What the model says, piece by piece, after the role."""
    for text in words(turn.said) if turn.said else []:
        yield {"content": text}
    for at, call in enumerate(turn.tool_calls):
        start = {"name": call.name, "arguments": ""}
        yield {
            "tool_calls": [
                {"index": at, "id": call_id(call, at), "type": "function", "function": start}
            ]
        }
        for text in json_pieces(call.arguments):
            yield {"tool_calls": [{"index": at, "function": {"arguments": text}}]}


def chunks(turn: Turn, model: str, with_usage: bool) -> Iterator[Json]:
    """The role, what is said, why it ended, and usage if asked for.
    https://platform.openai.com/docs/api-reference/chat-streaming"""
    every: Json = {"usage": None} if with_usage else {}
    yield {**chunk(model, {"role": "assistant", "content": "", "refusal": None}), **every}
    for delta in deltas(turn):
        yield {**chunk(model, delta), **every}
    yield {**chunk(model, {}, turn.reason), **every}
    if with_usage:
        yield {**chunk(model, {}), "choices": [], "usage": usage(turn)}


def _text_completion(turn: Turn, model: str, count: int) -> Json:
    choices = [
        {"index": at, "text": turn.said, "logprobs": None, "finish_reason": _text_reason(turn)}
        for at in range(count)
    ]
    return {**_text_envelope(model), "choices": choices, "usage": usage(turn)}


def _text_reason(turn: Turn) -> str:
    return "stop" if turn.reason == "tool_calls" else turn.reason


def _text_envelope(model: str) -> Json:
    return {
        "id": "cmpl-StandIn",
        "object": "text_completion",
        "created": CREATED,
        "model": model,
    }


def _text_chunks(turn: Turn, model: str, with_usage: bool) -> Iterator[Json]:
    texts: list[tuple[str, str | None]] = [(text, None) for text in words(turn.said)]
    for text, reason in [*texts, ("", _text_reason(turn))]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason or "stop"}
        made(Completion, {**_text_envelope(model), "choices": [choice]})
        # The SDK's model wants a reason in each choice; the API gives null until the last.
        yield {**_text_envelope(model), "choices": [{**choice, "finish_reason": reason}]}
    if with_usage:
        yield {**_text_envelope(model), "choices": [], "usage": usage(turn)}


def embeddings(body: Json, turn: Turn, packed: bool) -> Json:
    """The answer for embeddings; `packed` are little-endian floats in base64."""
    inputs = body["input"]
    if not inputs:
        raise RefusedError("'$.input' is invalid: it is empty.")
    if isinstance(inputs, str) or isinstance(inputs[0], int):
        inputs = [inputs]
    vectors = [vector(str(each), body.get("dimensions") or 8) for each in inputs]
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": each}
            for at, each in enumerate(vectors)
        ],
        "model": body["model"],
        "usage": {"prompt_tokens": turn.usage.input, "total_tokens": turn.usage.input},
    }
    made(CreateEmbeddingResponse, answer)
    for each in answer["data"] if packed else []:
        raw = struct.pack(f"<{len(each['embedding'])}f", *each["embedding"])
        each["embedding"] = base64.b64encode(raw).decode()
    return answer
