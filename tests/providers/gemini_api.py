"""Gemini's API, public and on Vertex.

Requests are checked with `google.genai.types`, which forbid unknown members; the bodies that have
no type of their own there are put together from those types below. The SDK's own converters then
say which members only Vertex takes. Both spellings of names are taken, as Google's JSON mapping
does (the SDK itself sends `mime_type` inside `inlineData`). Answers are checked with the response
types. Rules that the types do not hold are in `_check_contents` and `_check_config`, with sources.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import orjson
from anthropic._constants import ANTHROPIC_API_VERSION
from google.genai import Client, models, types
from google.genai._common import BaseModel
from pydantic import ValidationError
from typing_extensions import override

from tests.providers import anthropic_api
from tests.providers.strict import parsed
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


class _GenerationConfig(types.GenerationConfig):
    """https://ai.google.dev/api/generate-content#generationconfig"""

    image_config: types.ImageConfig | None = None


class _GenerateContent(BaseModel):
    """https://ai.google.dev/api/generate-content#request-body"""

    model: str | None = None
    contents: list[types.Content]
    tools: list[types.Tool] | None = None
    tool_config: types.ToolConfig | None = None
    safety_settings: list[types.SafetySetting] | None = None
    system_instruction: types.Content | None = None
    generation_config: _GenerationConfig | None = None
    cached_content: str | None = None
    labels: dict[str, str] | None = None
    service_tier: types.ServiceTier | None = None
    store: bool | None = None


class _CountTokens(BaseModel):
    """https://ai.google.dev/api/tokens#method:-models.counttokens"""

    contents: list[types.Content] | None = None
    generate_content_request: _GenerateContent | None = None


class _VertexCountTokens(BaseModel):
    """https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/count-tokens"""

    contents: list[types.Content]
    system_instruction: types.Content | None = None
    tools: list[types.Tool] | None = None
    generation_config: _GenerationConfig | None = None


class _EmbedContent(BaseModel):
    """https://ai.google.dev/api/embeddings#method:-models.embedcontent"""

    model: str | None = None
    content: types.Content
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: int | None = None


class _BatchEmbedContents(BaseModel):
    """https://ai.google.dev/api/embeddings#method:-models.batchembedcontents"""

    requests: list[_EmbedContent]


class _VertexEmbedContent(BaseModel):
    """What the SDK sends to Vertex: `_EmbedContentConfig_to_vertex` of google.genai.models."""

    content: types.Content
    embed_content_config: types.EmbedContentConfig | None = None


class _Instance(BaseModel):
    content: str
    task_type: str | None = None
    title: str | None = None


class _PredictParameters(BaseModel):
    auto_truncate: bool | None = None
    output_dimensionality: int | None = None


class _Predict(BaseModel):
    """https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api"""

    instances: list[_Instance]
    parameters: _PredictParameters | None = None


class _BatchEmbedContentsResponse(BaseModel):
    """https://ai.google.dev/api/embeddings#response-body_1"""

    embeddings: list[types.ContentEmbedding]


# https://cloud.google.com/apis/design/errors#handling_errors
_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_REASONS: Final = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",  # calls do not have a reason of their own
    "content_filter": "SAFETY",
}
_CONFIG_ONLY: Final = {"enable_affective_dialog", "response_format", "translation_config"}
# types.FunctionDeclaration.name
_FUNCTION_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
# The page of Vertex.claude, and what the anthropic package sends for Vertex since its version 2.
_CLAUDE_VERSIONS: Final = ("vertex-2023-10-16", ANTHROPIC_API_VERSION)
_SIGNATURE: Final = "c3RhbmQtaW4tc2lnbmF0dXJl"
_DIMENSIONS: Final = 8


class Gemini(Upstream):
    """generativelanguage.googleapis.com: `/v1beta/models/{model}:{method}`, and `/v1`."""

    name = "gemini"
    vertex = False
    _converter = Client(api_key="unused")
    ROUTES: ClassVar[Routes] = (
        (route("POST", "/v1(?:beta)?/models/{model}:generateContent"), "generate"),
        (route("POST", "/v1(?:beta)?/models/{model}:streamGenerateContent"), "stream"),
        (route("POST", "/v1(?:beta)?/models/{model}:countTokens"), "count_tokens"),
        (route("POST", "/v1(?:beta)?/models/{model}:embedContent"), "embed"),
        (route("POST", "/v1(?:beta)?/models/{model}:batchEmbedContents"), "embed_batch"),
    )

    @override
    def authorize(self, request: Recorded) -> None:
        """https://ai.google.dev/gemini-api/docs/api-key"""
        if not (request.headers.get("x-goog-api-key") or request.params.get("key")):
            text = "Method doesn't allow unregistered callers. Please use API Key."
            raise RefusedError(text, 403)

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://cloud.google.com/apis/design/errors#http_mapping; in a streamed JSON array it is
        an element."""
        value = _error(status, message)
        streamed = request.path.endswith((":streamGenerateContent", ":streamRawPredict"))
        wrapped = streamed and request.params.get("alt") != "sse"
        return json_reply([value] if wrapped else value, status)

    def generate(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:generateContent"""
        self.check(parsed(request.body), model)
        return json_reply(_made(types.GenerateContentResponse, _answer(turn, model)))

    def stream(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:streamGenerateContent, as server-sent events with alt=sse, else as a JSON array."""
        self.check(parsed(request.body), model)
        chunks = [_made(types.GenerateContentResponse, each) for each in _chunks(turn, model)]
        if request.params.get("alt") == "sse":
            frames = [sse(chunk).replace(b"\n\n", b"\r\n\r\n") for chunk in chunks]
            return Reply(frames=frames, content_type="text/event-stream", error_frame=_sse_error)
        frames = [b",\r\n" + orjson.dumps(chunk) for chunk in chunks]
        frames[0] = b"[" + frames[0].removeprefix(b",\r\n")
        return Reply(frames=[*frames, b"\n]"], error_frame=_array_error)

    def count_tokens(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:countTokens"""
        body = parsed(request.body)
        given = _valid(_VertexCountTokens if self.vertex else _CountTokens, body)
        inner = getattr(given, "generate_content_request", None)
        if inner is not None:
            self.check(
                body.get("generateContentRequest") or body["generate_content_request"], model
            )
        else:
            _check_contents(given.contents or [], model)
        return json_reply(_made(types.CountTokensResponse, {"totalTokens": turn.usage.input}))

    def embed(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:embedContent"""
        body = parsed(request.body)
        if self.vertex:
            given: Any = _valid(_VertexEmbedContent, body)
            config = given.embed_content_config
        else:
            given = config = _valid(_EmbedContent, body)
            _check_model(given.model, model, required=False)
        size = (config and config.output_dimensionality) or _DIMENSIONS
        value = {"embedding": {"values": vector(_texts(given.content), size)}}
        return json_reply(_made(types.SingleEmbedContentResponse, value))

    def embed_batch(self, request: Recorded, turn: Turn, model: str) -> Reply:
        """:batchEmbedContents"""
        given = _valid(_BatchEmbedContents, parsed(request.body))
        if not 1 <= len(given.requests) <= 100:  # the page of _BatchEmbedContents
            raise RefusedError("* BatchEmbedContentsRequest.requests: 1 to 100 are allowed")
        for each in given.requests:
            _check_model(each.model, model, required=True)
        embeddings = [
            {"values": vector(_texts(each.content), each.output_dimensionality or _DIMENSIONS)}
            for each in given.requests
        ]
        return json_reply(_made(_BatchEmbedContentsResponse, {"embeddings": embeddings}))

    def check(self, body: Json, model: str) -> None:
        """A request for content. Raises RefusedError."""
        given = _valid(_GenerateContent, body)
        if self.vertex or given.model is not None:
            _check_model(given.model, model, required=False)
        self._check_with_sdk(given, model)
        _check_contents(given.contents, model)
        if given.system_instruction and not given.system_instruction.parts:
            raise RefusedError("* GenerateContentRequest.system_instruction.parts: is empty")
        _check_config(given)

    def _check_with_sdk(self, given: _GenerateContent, model: str) -> None:
        """The SDK's converters know members that only one of the two APIs takes."""
        config = (given.generation_config or _GenerationConfig()).model_dump(exclude_none=True)
        for name in type(given).model_fields:
            if name not in ("model", "contents", "generation_config"):
                config[name] = getattr(given, name)
        known = {name: value for name, value in config.items() if name not in _CONFIG_ONLY}
        parameters = types._GenerateContentParameters(
            model=model,
            contents=list(given.contents),
            config=types.GenerateContentConfig.model_validate(known),
        )
        convert = (
            models._GenerateContentParameters_to_vertex
            if self.vertex
            else models._GenerateContentParameters_to_mldev
        )
        try:
            convert(self._converter._api_client, parameters)
        except ValueError as error:
            raise RefusedError(f"Invalid JSON payload received. {error}") from None


class Vertex(Gemini):
    """{region}-aiplatform.googleapis.com: `/v1/projects/{p}/locations/{l}/publishers/{publisher}/
    models/{model}:{method}`, of the publishers google and anthropic."""

    name = "vertex"
    vertex = True
    _BASE = "/v1(?:beta1)?/projects/{project}/locations/{location}/publishers/"
    ROUTES: ClassVar[Routes] = (
        (route("POST", _BASE + "google/models/{model}:generateContent"), "generate"),
        (route("POST", _BASE + "google/models/{model}:streamGenerateContent"), "stream"),
        (route("POST", _BASE + "google/models/{model}:countTokens"), "count_tokens"),
        (route("POST", _BASE + "google/models/{model}:embedContent"), "embed"),
        (route("POST", _BASE + "google/models/{model}:predict"), "predict"),
        (route("POST", _BASE + "anthropic/models/count-tokens:rawPredict"), "claude_tokens"),
        (route("POST", _BASE + "anthropic/models/{model}:rawPredict"), "claude"),
        (route("POST", _BASE + "anthropic/models/{model}:streamRawPredict"), "claude"),
    )

    @override
    def authorize(self, request: Recorded) -> None:
        """https://cloud.google.com/vertex-ai/docs/authentication"""
        if not request.headers.get("x-goog-api-key"):
            require_bearer(request, "Request is missing required authentication credential.")

    def predict(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:predict of a text embedding model"""
        given = _valid(_Predict, parsed(request.body))
        if not 1 <= len(given.instances) <= 250:  # the page of _Predict
            raise RefusedError("1 to 250 instances are allowed")
        size = (given.parameters and given.parameters.output_dimensionality) or _DIMENSIONS
        count = turn.usage.input
        for each in given.instances:
            if each.title and each.task_type != "RETRIEVAL_DOCUMENT":
                raise RefusedError("title is only valid with task_type=RETRIEVAL_DOCUMENT")
        predictions = [
            {
                "embeddings": {
                    "values": vector(each.content, size),
                    "statistics": {"token_count": count, "truncated": False},
                }
            }
            for each in given.instances
        ]
        for each in predictions:
            _made(types.ContentEmbedding, each["embeddings"])
        metadata = {"billableCharacterCount": sum(len(each.content) for each in given.instances)}
        _made(types.EmbedContentMetadata, metadata)
        return json_reply({"predictions": predictions, "metadata": metadata})

    def claude(self, request: Recorded, turn: Turn, model: str, **_: str) -> Reply:
        """:rawPredict and :streamRawPredict: Anthropic's body with `anthropic_version` in it and
        the model in the path. https://platform.claude.com/docs/en/api/claude-on-vertex-ai"""
        body = parsed(request.body)
        if body.pop("anthropic_version", None) not in _CLAUDE_VERSIONS:
            raise RefusedError("anthropic_version: must be vertex-2023-10-16")
        if "model" in body:
            raise RefusedError("model: Extra inputs are not permitted")
        streamed = request.path.endswith(":streamRawPredict")
        if streamed != bool(body.get("stream")):
            raise RefusedError("stream: must be true for :streamRawPredict and only there")
        anthropic_api.check_messages({**body, "model": model})
        if streamed:
            return anthropic_api.stream_reply(turn, model)
        return json_reply(anthropic_api.message(turn, model))

    def claude_tokens(self, request: Recorded, turn: Turn, **_: str) -> Reply:
        """Claude's tokens; the model is in the body, the version may be. https://cloud.google.com/
        vertex-ai/generative-ai/docs/partner-models/claude/count-tokens"""
        body = parsed(request.body)
        if body.pop("anthropic_version", _CLAUDE_VERSIONS[0]) not in _CLAUDE_VERSIONS:
            raise RefusedError("anthropic_version: must be vertex-2023-10-16")
        return anthropic_api.counted(body, turn)


# ---- requests


def _valid(kind: Any, body: Json) -> Any:
    """The body as one of the types. Raises RefusedError; the SDK warns of unknown enum values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return kind.model_validate_json(orjson.dumps(body))
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise RefusedError("Invalid JSON payload received. " + "; ".join(lines[:4])) from None
    except UserWarning as warning:
        raise RefusedError(f"Invalid value: {warning}") from None


def _check_model(given: str | None, model: str, *, required: bool) -> None:
    if given is None and not required:
        return
    if given is None or given.removeprefix("models/") != model or not given.startswith("models/"):
        raise RefusedError(f"* model: must be models/{model} as in the path, not {given}")


def _check_contents(contents: Sequence[types.Content], model: str) -> None:
    """https://ai.google.dev/api/caching#Content (roles, parts) and
    https://ai.google.dev/gemini-api/docs/function-calling (order of calls and responses)"""
    if not contents:
        raise RefusedError("* GenerateContentRequest.contents: contents is not specified")
    calls: list[types.FunctionCall] = []
    for at, content in enumerate(contents):
        if content.role not in ("user", "model", None):
            raise RefusedError(f"contents[{at}]: Please use a valid role: user, model.")
        _check_parts(content, at)
        parts = content.parts or []
        responses = [each.function_response for each in parts if each.function_response]
        if len(responses) != len(calls):
            raise RefusedError(
                f"contents[{at}]: Please ensure that the number of function response parts is "
                "equal to the number of function call parts of the function call turn."
            )
        _check_answers(calls, responses, at)
        calls = [each.function_call for each in parts if each.function_call]
        if calls and (at == 0 or contents[at - 1].role == "model"):
            raise RefusedError(
                f"contents[{at}]: Please ensure that function call turn comes immediately after a "
                "user turn or after a function response turn."
            )
    if calls:
        raise RefusedError("contents: the last turn calls functions that nothing answers")
    _check_signatures(contents, model)


def _check_answers(
    calls: list[types.FunctionCall], responses: list[types.FunctionResponse], at: int
) -> None:
    wanted = sorted(call.name or "" for call in calls)
    if sorted(each.name or "" for each in responses) != wanted:
        raise RefusedError(f"contents[{at}]: function responses must be named {wanted}")
    ids = {call.id for call in calls} - {None}
    if ids and any(each.id is not None and each.id not in ids for each in responses):
        raise RefusedError(f"contents[{at}]: function responses must have the ids {ids}")
    if any(each.response is None for each in responses):
        raise RefusedError(f"contents[{at}]: function_response.response is required")


_DATA: Final = (
    "text",
    "inline_data",
    "file_data",
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
    "tool_call",
    "tool_response",
)


def _check_parts(content: types.Content, at: int) -> None:
    """https://ai.google.dev/api/caching#Part: `data` is a union."""
    if not content.parts:
        raise RefusedError(f"* GenerateContentRequest.contents[{at}].parts: must not be empty")
    for number, part in enumerate(content.parts):
        data = [name for name in _DATA if getattr(part, name) is not None]
        if len(data) != 1 and not (part.thought_signature and not data):
            raise RefusedError(
                f"contents[{at}].parts[{number}].data: required oneof field 'data' must have one "
                f"initialized field, not {data}"
            )


def _check_signatures(contents: Sequence[types.Content], model: str) -> None:
    """https://ai.google.dev/gemini-api/docs/thought-signatures: Gemini 3 wants the signature of the
    first call of each step of the current turn, which began with the user's last text."""
    if not model.startswith("gemini-3"):
        return
    for content in reversed(contents):
        parts = content.parts or []
        if content.role != "model" and not any(part.function_response for part in parts):
            return
        first = next((part for part in parts if part.function_call), None)
        if first is not None and not first.thought_signature:
            raise RefusedError("Function call is missing a thought_signature.")


def _check_config(given: _GenerateContent) -> None:
    """https://ai.google.dev/api/generate-content#generationconfig (structured answers, stop
    sequences) and types.FunctionDeclaration (names)"""
    config = given.generation_config or _GenerationConfig()
    schema = config.response_schema or config.response_json_schema
    if schema and config.response_mime_type not in ("application/json", "text/x.enum"):
        raise RefusedError("response_schema needs response_mime_type application/json")
    if config.response_schema and config.response_json_schema:
        raise RefusedError("response_schema and response_json_schema exclude each other")
    if len(config.stop_sequences or ()) > 5:
        raise RefusedError("stop_sequences: up to 5 are allowed")
    if config.temperature is not None and not 0 <= config.temperature <= 2:
        raise RefusedError("temperature: must be in the range [0.0, 2.0]")
    for tool in given.tools or ():
        for function in tool.function_declarations or ():
            if not _FUNCTION_NAME.fullmatch(function.name or ""):
                raise RefusedError(f"function_declarations: invalid name {function.name!r}")
            if function.parameters and function.parameters_json_schema:
                raise RefusedError("parameters and parameters_json_schema exclude each other")
    calling = given.tool_config and given.tool_config.function_calling_config
    if calling and calling.allowed_function_names and calling.mode not in ("ANY", "VALIDATED"):
        raise RefusedError("allowed_function_names needs the mode ANY or VALIDATED")


# ---- answers


def _made(kind: Any, value: Json) -> Json:
    """An answer that the SDK's type takes. Raises AssertionError."""
    try:
        _valid(kind, value)
    except RefusedError as refused:
        raise AssertionError(f"no {kind}: {refused.message}") from None
    return value


def _texts(content: types.Content) -> str:
    return " ".join(part.text or "" for part in content.parts or ())


def _error(status: int, text: str) -> Json:
    kind = _STATUSES.get(status, "INTERNAL" if status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": status, "message": text, "status": kind}}


def _sse_error(text: str) -> bytes:
    return sse(_error(503, text))


def _array_error(text: str) -> bytes:
    return b",\r\n" + orjson.dumps(_error(503, text)) + b"\n]"


def _usage(turn: Turn, output: int) -> Json:
    """Candidates' tokens are counted without thoughts; the totals are running ones."""
    thoughts = turn.usage.reasoning
    usage: Json = {
        "promptTokenCount": turn.usage.input,
        "candidatesTokenCount": max(output - thoughts, 0),
        "totalTokenCount": turn.usage.input + output,
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    if turn.usage.cached:
        usage["cachedContentTokenCount"] = turn.usage.cached
    return usage


def _calls(turn: Turn) -> Iterator[Json]:
    for at, call in enumerate(turn.tool_calls):
        part: Json = {"functionCall": {"name": call.name, "args": call.arguments}}
        if call.id:
            part["functionCall"]["id"] = call.id
        if at == 0:
            part["thoughtSignature"] = _SIGNATURE
        yield part


def _envelope(turn: Turn, model: str, candidate: Json | None, output: int) -> Json:
    value: Json = {
        "usageMetadata": _usage(turn, output),
        "modelVersion": model,
        "responseId": "stand-in-response",
    }
    if candidate is None:
        return {"promptFeedback": {"blockReason": "SAFETY"}, **value}
    return {"candidates": [{**candidate, "index": 0}], **value}


def _answer(turn: Turn, model: str) -> Json:
    if turn.reason == "content_filter" and turn.text == "":
        return _envelope(turn, model, None, 0)  # the prompt was blocked
    parts: list[Json] = [{"text": turn.thinking, "thought": True}] if turn.thinking else []
    parts += [{"text": turn.said}] if turn.said else []
    parts += _calls(turn)
    content = {"role": "model", "parts": parts}
    candidate = {"content": content, "finishReason": _REASONS[turn.reason]}
    return _envelope(turn, model, candidate, turn.usage.output)


def _chunks(turn: Turn, model: str) -> Iterator[Json]:
    """Each word of text is a chunk, each call is one; the last says why it ended."""
    if turn.reason == "content_filter" and turn.text == "":
        yield _envelope(turn, model, None, 0)
        return
    thoughts = words(turn.thinking) if turn.thinking else []
    parts: list[Json] = [{"text": text, "thought": True} for text in thoughts]
    parts += [{"text": text} for text in (words(turn.said) if turn.said else [])]
    parts += _calls(turn)
    for at, part in enumerate(parts or [{"text": ""}]):
        candidate: Json = {"content": {"role": "model", "parts": [part]}}
        last = at >= len(parts) - 1
        if last:
            candidate["finishReason"] = _REASONS[turn.reason]
        yield _envelope(turn, model, candidate, turn.usage.output if last else at + 1)
