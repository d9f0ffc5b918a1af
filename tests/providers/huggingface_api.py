"""Hugging Face: a Text Generation Inference server, and the router's paths.

Requests are checked with huggingface_hub's types, which Hugging Face generates from the servers'
own specifications, and answers with the response types there. The specification of chat names the
members of a tool call as those of a tool's definition and leaves out `tool_call_id`, an image's
`detail` and the `type` of a tool choice, while the server takes OpenAI's form (https://huggingface.co/docs/text-generation-inference/messages_api):
`_as_specified` puts the one for the other before the check.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import orjson
from huggingface_hub import (
    ChatCompletionInput,
    ChatCompletionOutput,
    ChatCompletionStreamOutput,
    FeatureExtractionInput,
    TextGenerationInput,
    TextGenerationOutput,
    TextGenerationStreamOutput,
)
from typing_extensions import override

from tests.providers import openai_api
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
    require_bearer,
    route,
    sse,
    vector,
    words,
)

_CHAT: Final = Validator(ChatCompletionInput)
_GENERATE: Final = Validator(TextGenerationInput)
_FEATURES: Final = Validator(FeatureExtractionInput)
_REASONS: Final = {"length": "length", "content_filter": "stop_sequence"}


class HuggingFace(Upstream):
    """TGI: `/`, `/generate`, `/generate_stream`, `/v1/chat/completions`; the router:
    `/v1/chat/completions` and `/hf-inference/models/{model}/pipeline/feature-extraction`."""

    name = "huggingface"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "(?:/.*)?/v1/chat/completions"), "chat"),
        (route("POST", "/generate"), "generate"),
        (route("POST", "/generate_stream"), "generate_stream"),
        (route("POST", "(?:/hf-inference)?/models/[^/]+(?:/[^/]+)?"), "compatible"),
        (route("POST", "/"), "compatible"),
        (
            route("POST", "/hf-inference/models/.+/pipeline/feature-extraction"),
            "features",
        ),
    )

    @override
    def authorize(self, request: Recorded) -> None:
        require_bearer(request, "Invalid username or password.")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://huggingface.github.io/text-generation-inference: ErrorResponse; what does not
        validate is 422."""
        if status == 400:
            return json_reply({"error": message, "error_type": "validation"}, 422)
        kinds = {429: "overloaded", 424: "generation"}
        return json_reply({"error": message, "error_type": kinds.get(status, "generation")}, status)

    def chat(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/chat/completions"""
        body = parsed(request.body)
        _CHAT.check(_as_specified(body))
        if not body["messages"]:
            raise RefusedError("Input validation error: messages cannot be empty")
        openai_api.check_results(body["messages"])
        _check_ranges(body)
        model = body.get("model") or "tgi"
        if not body.get("stream"):
            answer = made(ChatCompletionOutput, _completion(turn, model))
            return json_reply({"object": "chat.completion", **answer})
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        frames = [
            sse({"object": "chat.completion.chunk", **made(ChatCompletionStreamOutput, each)})
            for each in _chunks(turn, model, usage)
        ]
        return Reply(
            frames=[*frames, openai_api.DONE],
            content_type="text/event-stream",
            error_frame=_error_frame,
        )

    def compatible(self, request: Recorded, turn: Turn) -> Reply:
        """POST /: /generate or /generate_stream, as `stream` says; not streamed it is a list."""
        if parsed(request.body).get("stream"):
            return self.generate_stream(request, turn)
        reply = self.generate(request, turn)
        return Reply(b"[" + reply.body + b"]")

    def generate(self, request: Recorded, turn: Turn) -> Reply:
        """POST /generate"""
        parameters = _check_generate(parsed(request.body))
        answer: Json = {"generated_text": turn.said}
        if parameters.get("details"):
            answer["details"] = {
                "finish_reason": _REASONS.get(turn.reason, "eos_token"),
                "generated_tokens": turn.usage.output,
                "prefill": [],
                "tokens": [_token(text, at) for at, text in enumerate(words(turn.said))],
            }
        return json_reply(made(TextGenerationOutput, answer))

    def generate_stream(self, request: Recorded, turn: Turn) -> Reply:
        """POST /generate_stream; there is no space after `data:`."""
        _check_generate(parsed(request.body))
        frames = [
            b"data:" + orjson.dumps(made(TextGenerationStreamOutput, each)) + b"\n\n"
            for each in _tokens(turn)
        ]
        return Reply(frames=frames, content_type="text/event-stream", error_frame=_error_frame)

    def features(self, request: Recorded, turn: Turn) -> Reply:
        """POST .../pipeline/feature-extraction: one vector for a text, a list for a list."""
        body = parsed(request.body)
        _FEATURES.check(body)
        inputs = body["inputs"]
        if isinstance(inputs, str):
            return json_reply(vector(inputs, 8))
        if not inputs:
            raise RefusedError("`inputs` cannot be empty")
        return json_reply([vector(text, 8) for text in inputs])


def _as_specified(body: Json) -> Json:
    if isinstance(body.get("tool_choice"), dict):
        choice = {name: value for name, value in body["tool_choice"].items() if name != "type"}
        body = {**body, "tool_choice": choice}
    if not isinstance(body.get("messages"), list):
        return body
    messages = []
    for each in body["messages"]:
        message = {name: value for name, value in each.items() if name != "tool_call_id"}
        if isinstance(message.get("tool_calls"), list):
            message["tool_calls"] = [_call_as_specified(call) for call in message["tool_calls"]]
        if isinstance(message.get("content"), list):
            message["content"] = [_part_as_specified(part) for part in message["content"]]
        messages.append(message)
    return {**body, "messages": messages}


def _call_as_specified(call: Json) -> Json:
    function = dict(call.get("function") or {})
    if "arguments" in function:
        function["parameters"] = function.pop("arguments")
    return {**call, "function": function}


def _part_as_specified(part: Json) -> Json:
    image = part.get("image_url")
    if not isinstance(image, dict):
        return part
    return {**part, "image_url": {name: image[name] for name in image if name != "detail"}}


def _check_ranges(body: Json) -> None:
    """ChatCompletionInput's own descriptions, and TGI's validation of temperature and top_p:
    https://huggingface.co/docs/text-generation-inference/reference/api_reference"""
    if len(body.get("stop") or ()) > 4:
        raise RefusedError("Input validation error: `stop` supports up to 4 stop sequences")
    temperature, top_p = body.get("temperature"), body.get("top_p")
    if temperature is not None and temperature < 0:
        raise RefusedError("Input validation error: `temperature` must be positive")
    if top_p is not None and not 0 < top_p < 1:
        raise RefusedError("Input validation error: `top_p` must be > 0.0 and < 1.0")


def _check_generate(body: Json) -> Json:
    _GENERATE.check(body)
    if not body["inputs"]:
        raise RefusedError("Input validation error: `inputs` cannot be empty")
    parameters: Json = body.get("parameters") or {}
    _check_ranges(parameters)
    if parameters.get("max_new_tokens", 1) is not None and parameters.get("max_new_tokens", 1) < 1:
        raise RefusedError("Input validation error: `max_new_tokens` must be strictly positive")
    return parameters


def _error_frame(text: str) -> bytes:
    return sse({"error": text, "error_type": "generation"})


def _token(text: str, at: int) -> Json:
    return {"id": 100 + at, "text": text, "logprob": -0.1, "special": False}


def _tokens(turn: Turn) -> Iterator[Json]:
    texts = words(turn.said)
    for at, text in enumerate(texts):
        value: Json = {"index": at + 1, "token": _token(text, at), "generated_text": None}
        if at == len(texts) - 1:
            value["generated_text"] = turn.said
            value["details"] = {
                "finish_reason": _REASONS.get(turn.reason, "eos_token"),
                "generated_tokens": turn.usage.output,
                "input_length": turn.usage.input,
            }
        yield value


def _usage(turn: Turn) -> Json:
    return {
        "prompt_tokens": turn.usage.input,
        "completion_tokens": turn.usage.output,
        "total_tokens": turn.usage.input + turn.usage.output,
    }


def _envelope(model: str) -> Json:
    """What is common to answers and chunks, but for `object`, which the types do not name."""
    fingerprint = "3.3.6-stand-in"
    return {
        "id": "",
        "created": openai_api.CREATED,
        "model": model,
        "system_fingerprint": fingerprint,
    }


def _completion(turn: Turn, model: str) -> Json:
    message: Json = {"role": "assistant", "content": turn.said}
    if turn.tool_calls:
        message = {"role": "assistant", "tool_calls": openai_api.calls(turn)}
    if turn.thinking:
        message["reasoning"] = turn.thinking
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": turn.reason}
    return {**_envelope(model), "choices": [choice], "usage": _usage(turn)}


def _chunks(turn: Turn, model: str, with_usage: bool) -> Iterator[Json]:
    """Every delta has the role, and every delta of a call its id."""

    def chunk(delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**_envelope(model), "choices": [choice]}

    for text in words(turn.thinking) if turn.thinking else []:
        yield chunk({"role": "assistant", "reasoning": text})
    for delta in openai_api.deltas(turn):
        yield chunk({"role": "assistant", **_with_ids(delta, turn)})
    yield chunk({"role": "assistant", "content": ""}, turn.reason)
    if with_usage:
        yield {**chunk({}), "choices": [], "usage": _usage(turn)}


def _with_ids(delta: Json, turn: Turn) -> Json:
    calls: list[Any] = [
        {
            "id": openai_api.call_id(turn.tool_calls[each["index"]], each["index"]),
            "type": "function",
            **each,
        }
        for each in delta.get("tool_calls", ())
    ]
    return {**delta, "tool_calls": calls} if calls else delta
