"""Amazon Bedrock's runtime: Converse and InvokeModel, streamed and not.

Requests are checked with botocore's model of bedrock-runtime, signatures are recomputed by
botocore, and answers are read back by its parsers. The bodies of InvokeModel are the models' own
and not in that model: Claude's are checked with `anthropic.types`, the others with the TypedDicts
below, written from the pages they cite. Rules of Converse that the model does not hold are in
`_check_conversation` and `_check_model`, with their sources.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Required

import orjson
from anthropic._constants import ANTHROPIC_API_VERSION
from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]
from botocore.model import OperationModel  # type: ignore[import-untyped, unused-ignore]
from pydantic import Field
from typing_extensions import TypedDict, override

from tests.providers import anthropic_api, aws, bedrock_images_api
from tests.providers.strict import Validator, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    Upstream,
    json_pieces,
    json_reply,
    route,
    vector,
    words,
)

_MODEL: Final = aws.service("bedrock-runtime")
_CONVERSE: Final = _MODEL.operation_model("Converse")
_CONVERSE_STREAM: Final = _MODEL.operation_model("ConverseStream")
_INVOKE: Final = _MODEL.operation_model("InvokeModel")
_INVOKE_STREAM: Final = _MODEL.operation_model("InvokeModelWithResponseStream")

_EVENT_STREAM: Final = "application/vnd.amazon.eventstream"
_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
}
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html, and the operations'
_ERRORS: Final = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
# https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
_NO_SYSTEM: Final = re.compile(
    r"amazon\.titan-text|cohere\.command-(light-)?text|ai21\.j2|mistral-7b"
)


# The page of _check_claude, and what the anthropic package sends for Bedrock since its version 2.
_CLAUDE_VERSIONS: Final = ("bedrock-2023-05-31", ANTHROPIC_API_VERSION)


class _TitanEmbed(TypedDict, total=False):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html"""

    inputText: Required[str]
    dimensions: Literal[256, 512, 1024]
    normalize: bool
    embeddingTypes: list[Literal["float", "binary"]]


class _TitanEmbedV1(TypedDict):
    """The same page, G1."""

    inputText: str


class _CohereEmbed(TypedDict, total=False):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html"""

    texts: Annotated[list[str], Field(max_length=96)]
    images: list[str]
    input_type: Required[
        Literal["search_document", "search_query", "classification", "clustering", "image"]
    ]
    truncate: Literal["NONE", "START", "END", "LEFT", "RIGHT"]
    embedding_types: list[Literal["float", "int8", "uint8", "binary", "ubinary"]]
    output_dimension: int
    max_tokens: int


class _TitanConfig(TypedDict, total=False):
    temperature: Annotated[float, Field(ge=0, le=1)]
    topP: Annotated[float, Field(ge=0, le=1)]
    maxTokenCount: Annotated[int, Field(ge=0)]
    stopSequences: list[str]


class _TitanText(TypedDict, total=False):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html"""

    inputText: Required[str]
    textGenerationConfig: _TitanConfig


class _Llama(TypedDict, total=False):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html"""

    prompt: Required[str]
    temperature: Annotated[float, Field(ge=0, le=1)]
    top_p: Annotated[float, Field(ge=0, le=1)]
    max_gen_len: Annotated[int, Field(ge=1, le=8192)]
    images: list[str]


class Bedrock(Upstream):
    """bedrock-runtime.{region}.amazonaws.com. Signatures are checked against the credentials
    given here; a bearer key is accepted too."""

    name = "bedrock"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "/model/{modelId}/converse"), "converse"),
        (route("POST", "/model/{modelId}/converse-stream"), "converse_stream"),
        (route("POST", "/model/{modelId}/invoke"), "invoke"),
        (route("POST", "/model/{modelId}/invoke-with-response-stream"), "invoke_stream"),
    )

    def __init__(
        self,
        access_key: str = "AKIASTANDIN",
        secret_key: str = "stand-in-secret",
        token: str | None = None,
        region: str = "us-east-1",
    ) -> None:
        super().__init__()
        self.credentials = Credentials(access_key, secret_key, token)
        self.region = region

    @override
    def authorize(self, request: Recorded) -> None:
        """Bearer: https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-use.html"""
        if re.fullmatch(r"Bearer \S+", request.headers.get("Authorization", "")):
            return
        aws.check_signature(request, self.credentials, self.region, "bedrock")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html (errors)"""
        kind = _ERRORS.get(status, "InternalServerException" if status > 500 else _ERRORS[400])
        reply = json_reply({"message": message}, status)
        headers = {"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/coral/"}
        return Reply(reply.body, status=status, headers=headers)

    def converse(self, request: Recorded, turn: Turn, **path: str) -> Reply:
        """POST /model/{modelId}/converse"""
        _check(aws.request_params(_CONVERSE, request, path))
        return Reply(aws.answer(_CONVERSE, converse_answer(turn)))

    def converse_stream(self, request: Recorded, turn: Turn, **path: str) -> Reply:
        """POST /model/{modelId}/converse-stream"""
        _check(aws.request_params(_CONVERSE_STREAM, request, path))
        frames = [
            aws.event(_CONVERSE_STREAM, kind, value, "abcdefghijklmnop"[: 4 + at % 12])
            for at, (kind, value) in enumerate(_events(turn))
        ]
        return _stream_reply(_CONVERSE_STREAM, frames)

    def invoke(self, request: Recorded, turn: Turn, **path: str) -> Reply:
        """POST /model/{modelId}/invoke"""
        params = aws.request_params(_INVOKE, request, path)
        model, body = params["modelId"], parsed(params["body"])
        _check_content_type(params)
        headers = {
            "X-Amzn-Bedrock-Input-Token-Count": str(turn.usage.input),
            "X-Amzn-Bedrock-Output-Token-Count": str(turn.usage.output),
        }
        if "anthropic.claude" in model:
            _check_claude(body, model)
            answer = anthropic_api.message(turn, model)
        elif bedrock_images_api.makes_images(model):
            answer = bedrock_images_api.invoked(body, model, turn)
        else:
            answer = _invoked(body, model, turn)
        return Reply(orjson.dumps(answer), headers=headers)

    def invoke_stream(self, request: Recorded, turn: Turn, **path: str) -> Reply:
        """POST /model/{modelId}/invoke-with-response-stream"""
        params = aws.request_params(_INVOKE_STREAM, request, path)
        model, body = params["modelId"], parsed(params["body"])
        _check_content_type(params)
        if "anthropic.claude" not in model:
            raise RefusedError(f"the stand-in streams invocations of Claude only, not {model}")
        _check_claude(body, model)
        frames = []
        for each in anthropic_api.checked_events(turn, model):
            if each["type"] == "message_stop":
                each = {**each, "amazon-bedrock-invocationMetrics": _metrics(turn)}
            part = {"bytes": base64.b64encode(orjson.dumps(each)).decode()}
            frames.append(aws.event(_INVOKE_STREAM, "chunk", part, "abcdefgh"))
        return _stream_reply(_INVOKE_STREAM, frames)


def converse_answer(turn: Turn) -> Json:
    """What Converse answers, for batches too."""
    return {
        "output": {"message": {"role": "assistant", "content": _content(turn)}},
        "stopReason": _REASONS[turn.reason],
        "usage": _usage(turn),
        "metrics": {"latencyMs": 42},
    }


def _stream_reply(operation: OperationModel, frames: list[bytes]) -> Reply:
    def broken(text: str) -> bytes:
        return aws.exception(operation, "modelStreamErrorException", text)

    return Reply(frames=frames, content_type=_EVENT_STREAM, error_frame=broken)


# ---- requests


def _check(params: Json) -> None:
    _check_model(params)
    _check_tools(params)
    _check_conversation(params)


def _check_model(params: Json) -> None:
    model, config = params["modelId"], params.get("inferenceConfig", {})
    if params.get("system") and _NO_SYSTEM.search(model):
        raise RefusedError("This model doesn't support the system field.")
    if {"temperature", "topP"} & set(config) and anthropic_api.NEWER.search(model):
        raise RefusedError("The model returned the following errors: `temperature` is deprecated")


def _check_tools(params: Json) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/tool-use-inference-call.html"""
    tools = params.get("toolConfig", {}).get("tools", [])
    for at, tool in enumerate(tools):
        schema = tool.get("toolSpec", {}).get("inputSchema", {}).get("json")
        if schema is not None and schema.get("type") != "object":
            raise RefusedError(
                f"The value at toolConfig.tools.{at}.toolSpec.inputSchema.json.type must be one of "
                "the following: object."
            )
    names = {tool["toolSpec"]["name"] for tool in tools if "toolSpec" in tool}
    wanted = params.get("toolConfig", {}).get("toolChoice", {}).get("tool", {}).get("name")
    if wanted is not None and wanted not in names:
        raise RefusedError(f"toolChoice names {wanted}, which is no tool of the request")


def _check_conversation(params: Json) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html (turns)
    and https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html (a
    union; ParamValidator does not see that in this version of the model)."""
    asked: list[str] = []
    messages = [each for each in params.get("messages", []) if each["role"] != "system"]
    if not messages or messages[0]["role"] != "user":
        raise RefusedError("A conversation must start with a user message.")
    for at, each in enumerate(messages):
        if each["role"] != ("user", "assistant")[at % 2]:
            raise RefusedError("A conversation must alternate between user and assistant roles.")
        _check_blocks(each["content"], at)
        results = _ids(each["content"], "toolResult")
        if sorted(results) != sorted(asked):
            raise RefusedError(
                f"Expected toolResult blocks at messages.{at}.content for the following Ids: "
                f"{asked}, not {results}"
            )
        asked = _ids(each["content"], "toolUse")
        if (asked or results) and not params.get("toolConfig", {}).get("tools"):
            raise RefusedError(
                "The toolConfig field must be defined when using toolUse and toolResult content "
                "blocks."
            )
    if asked:
        raise RefusedError(f"Expected toolResult blocks for the following Ids: {asked}")


def _ids(content: list[Json], kind: str) -> list[str]:
    return [block[kind]["toolUseId"] for block in content if kind in block]


def _check_blocks(content: list[Json], at: int) -> None:
    for number, block in enumerate(content):
        if len(block) != 1:
            raise RefusedError(f"messages.{at}.content.{number}: one member, not {list(block)}")
        if not block.get("text", "x").strip():
            raise RefusedError(
                f"The text field in the ContentBlock object at messages.{at}.content.{number} is "
                "blank. Add text to the text field, and try again."
            )


def _check_content_type(params: Json) -> None:
    if params.get("contentType", "application/json") != "application/json":
        raise RefusedError("Content-Type must be application/json")


def _check_claude(body: Json, model: str) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html"""
    if body.get("anthropic_version") not in _CLAUDE_VERSIONS:
        raise RefusedError("anthropic_version: must be bedrock-2023-05-31")
    for name in ("model", "stream"):
        if name in body:
            raise RefusedError(f"{name}: Extra inputs are not permitted")
    betas = body.get("anthropic_beta", [])
    if not isinstance(betas, list) or not all(isinstance(each, str) for each in betas):
        raise RefusedError("anthropic_beta: Input should be a list of strings")
    own = {name: body[name] for name in body if name not in ("anthropic_version", "anthropic_beta")}
    anthropic_api.check_messages({**own, "model": model})


_BODIES: Final[tuple[tuple[str, Validator], ...]] = (
    ("amazon.titan-embed-text-v1", Validator(_TitanEmbedV1)),
    ("amazon.titan-embed-text", Validator(_TitanEmbed)),
    ("cohere.embed", Validator(_CohereEmbed)),
    ("amazon.titan-text", Validator(_TitanText)),
    ("meta.llama", Validator(_Llama)),
)


def _invoked(body: Json, model: str, turn: Turn) -> Json:
    """The answer of a model that is not Claude, in the form of its page above."""
    for name, validator in _BODIES:
        if name in model:
            validator.check(body)
            return _native(name, body, turn)
    raise RefusedError(f"the stand-in has no model {model}")


def _native(name: str, body: Json, turn: Turn) -> Json:
    if name.startswith("amazon.titan-embed"):
        values = vector(body["inputText"], body.get("dimensions", 8))
        return {"embedding": values, "inputTextTokenCount": turn.usage.input}
    if name == "cohere.embed":
        texts: list[str] = body.get("texts") or body.get("images") or []
        floats = [vector(text, body.get("output_dimension", 8)) for text in texts]
        answer: Json = {"id": "stand-in", "response_type": "embeddings_floats", "texts": texts}
        if "embedding_types" in body:
            answer["response_type"] = "embeddings_by_type"
            return {**answer, "embeddings": dict.fromkeys(body["embedding_types"], floats)}
        return {**answer, "embeddings": floats}
    if name == "amazon.titan-text":
        reason = "LENGTH" if turn.reason == "length" else "FINISH"
        result = {
            "tokenCount": turn.usage.output,
            "outputText": turn.said,
            "completionReason": reason,
        }
        return {"inputTextTokenCount": turn.usage.input, "results": [result]}
    return {
        "generation": turn.said,
        "prompt_token_count": turn.usage.input,
        "generation_token_count": turn.usage.output,
        "stop_reason": "length" if turn.reason == "length" else "stop",
    }


# ---- answers


def _usage(turn: Turn) -> Json:
    """Input tokens are counted without what the cache gave; the total holds both."""
    usage = {
        "inputTokens": turn.usage.input - turn.usage.cached,
        "outputTokens": turn.usage.output,
        "totalTokens": turn.usage.input + turn.usage.output,
    }
    if turn.usage.cached:
        usage |= {"cacheReadInputTokens": turn.usage.cached, "cacheWriteInputTokens": 0}
    return usage


def _metrics(turn: Turn) -> Json:
    return {
        "inputTokenCount": turn.usage.input,
        "outputTokenCount": turn.usage.output,
        "invocationLatency": 42,
        "firstByteLatency": 21,
    }


def _content(turn: Turn) -> list[Json]:
    blocks: list[Json] = []
    if turn.thinking:
        text = {"text": turn.thinking, "signature": "c2lnbmVk"}
        blocks.append({"reasoningContent": {"reasoningText": text}})
    if turn.said:
        blocks.append({"text": turn.said})
    for at, call in enumerate(turn.tool_calls):
        name = call.id or f"tooluse_StandIn{at}"
        use = {"toolUseId": name, "name": call.name, "input": call.arguments}
        blocks.append({"toolUse": use})
    return blocks


def _events(turn: Turn) -> Iterator[tuple[str, Json]]:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html; only
    blocks of tool use have a start."""
    yield "messageStart", {"role": "assistant"}
    for at, block in enumerate(_content(turn)):
        if use := block.get("toolUse"):
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            yield "contentBlockStart", {"start": start, "contentBlockIndex": at}
        for delta in _deltas(block):
            yield "contentBlockDelta", {"delta": delta, "contentBlockIndex": at}
        yield "contentBlockStop", {"contentBlockIndex": at}
    yield "messageStop", {"stopReason": _REASONS[turn.reason]}
    yield "metadata", {"usage": _usage(turn), "metrics": {"latencyMs": 42}}


def _deltas(block: Json) -> Iterator[Json]:
    if "text" in block:
        for text in words(block["text"]):
            yield {"text": text}
    elif use := block.get("toolUse"):
        for text in json_pieces(use["input"]):
            yield {"toolUse": {"input": text}}
    else:
        reasoning: Any = block["reasoningContent"]["reasoningText"]
        for text in words(reasoning["text"]):
            yield {"reasoningContent": {"text": text}}
        yield {"reasoningContent": {"signature": reasoning["signature"]}}
