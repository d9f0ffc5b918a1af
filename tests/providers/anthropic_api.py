"""Anthropic's API: messages, counting tokens and the old text completions.

Requests are checked with `anthropic.types` (MessageCreateParams, MessageCountTokensParams), and
answers and events with the response models there. What the API refuses although those types take
it is in `check_conversation` and `_check_sampling`, with its source. Sampling parameters are not in
the types of anthropic 2 although models that came before Claude Opus 4.7 take them, so `_SAMPLING`
names them. Text completions (https://docs.anthropic.com/en/api/complete) left the SDK in version 2:
their request is a TypedDict written from that page.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Required

from anthropic.types import (
    Message,
    MessageTokensCount,
    MetadataParam,
    RawMessageStreamEvent,
    message_count_tokens_params,
    message_create_params,
)
from anthropic.types.shared import ErrorResponse
from pydantic import Field
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
    json_pieces,
    json_reply,
    require_bearer,
    route,
    sse,
    words,
)

# https://docs.anthropic.com/en/api/messages (temperature, top_k, top_p)
_SAMPLING: Final[Mapping[str, Any]] = {
    "temperature": Annotated[float, Field(ge=0, le=1)],
    "top_p": Annotated[float, Field(ge=0, le=1)],
    "top_k": Annotated[int, Field(ge=0)],
}
_CREATE: Final = Validator(message_create_params.MessageCreateParamsNonStreaming, _SAMPLING)
_STREAM: Final = Validator(message_create_params.MessageCreateParamsStreaming, _SAMPLING)
_COUNT: Final = Validator(message_count_tokens_params.MessageCountTokensParams)

# https://platform.claude.com/docs/en/about-claude/models/migration-guide: Claude Opus 4.7 and
# later refuse sampling parameters, thinking budgets and prefill.
NEWER: Final = re.compile(
    r"claude-(opus-4-[7-9]|(opus|sonnet|haiku|fable|mythos)-[5-9](-|\b)|mythos-preview)"
)
# The same guide: Claude 4.1 Opus and the 4.5 models take temperature or top_p, not both.
_ONE_SAMPLER: Final = re.compile(r"claude-(opus-4-[1-6]|sonnet-4-[5-9]|haiku-4-5)")
_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_TOOL_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")

# https://docs.anthropic.com/en/api/errors
_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class _CompletionParams(TypedDict, total=False):
    """https://docs.anthropic.com/en/api/complete"""

    model: Required[str]
    prompt: Required[str]
    max_tokens_to_sample: Required[Annotated[int, Field(ge=1)]]
    stop_sequences: list[str]
    temperature: Annotated[float, Field(ge=0, le=1)]
    top_p: Annotated[float, Field(ge=0, le=1)]
    top_k: Annotated[int, Field(ge=0)]
    metadata: MetadataParam
    stream: bool


class _Completion(TypedDict):
    """https://docs.anthropic.com/en/api/complete"""

    type: Literal["completion"]
    id: str
    completion: str
    stop_reason: str | None
    model: str


_COMPLETE: Final = Validator(_CompletionParams)


class Anthropic(Upstream):
    """api.anthropic.com: `/v1/messages`, `/v1/messages/count_tokens` and `/v1/complete`."""

    name = "anthropic"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "/v1/messages"), "messages"),
        (route("POST", "/v1/messages/count_tokens"), "count_tokens"),
        (route("POST", "/v1/complete"), "complete"),
    )

    @override
    def authorize(self, request: Recorded) -> None:
        """https://docs.anthropic.com/en/api/overview#authentication and /versioning; the key comes
        in x-api-key, or as a bearer as the SDK has sent it since version 2."""
        if not request.headers.get("x-api-key"):
            require_bearer(request, "x-api-key header is required")
        if not request.headers.get("anthropic-version"):
            raise RefusedError("anthropic-version: header is required")
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise RefusedError("content-type: must be application/json")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        return json_reply(_error(_ERRORS.get(status, "api_error"), message), status)

    def messages(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/messages"""
        body = parsed(request.body)
        check_messages(body)
        if body.get("stream"):
            return stream_reply(turn, body["model"])
        return json_reply(message(turn, body["model"]))

    def count_tokens(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/messages/count_tokens"""
        return counted(parsed(request.body), turn)

    def complete(self, request: Recorded, turn: Turn) -> Reply:
        """POST /v1/complete"""
        body = parsed(request.body)
        _COMPLETE.check(body)
        if "\n\nHuman:" not in body["prompt"] or not re.search(
            r"\n\nAssistant:", body["prompt"].rsplit("\n\nHuman:", 1)[-1]
        ):
            raise RefusedError(
                'prompt must start with "\\n\\nHuman:" turn and end with "\\n\\nAssistant:"'
            )
        reason = "max_tokens" if turn.reason == "length" else "stop_sequence"
        if not body.get("stream"):
            return json_reply(made(_Completion, _completion(body, turn.said, reason)))
        pieces: list[tuple[str, str | None]] = [(word, None) for word in words(turn.said)]
        frames = [
            sse(made(_Completion, _completion(body, text, stop)), "completion")
            for text, stop in [*pieces, ("", reason)]
        ]
        return Reply(frames=frames, content_type="text/event-stream", error_frame=error_frame)


def counted(body: Json, turn: Turn) -> Reply:
    """The answer to a request to count tokens. Raises RefusedError."""
    _COUNT.check(body)
    check_conversation(body)
    return json_reply(made(MessageTokensCount, {"input_tokens": turn.usage.input}))


def _completion(body: Json, text: str, reason: str | None) -> Json:
    return {
        "type": "completion",
        "id": "compl_01StandIn",
        "completion": text,
        "stop_reason": reason,
        "model": body["model"],
    }


# ---- requests


def check_messages(body: Json) -> None:
    """The body of a request for a message. Raises RefusedError."""
    (_STREAM if body.get("stream") else _CREATE).check(body)
    _check_limits(body)
    _check_sampling(body, body["model"])
    _check_tools(body.get("tools", ()))
    check_conversation(body)
    last = body["messages"][-1]
    if last["role"] == "assistant" and NEWER.search(body["model"]):
        raise RefusedError("This model does not support assistant message prefill.")


def _check_limits(body: Json) -> None:
    """The members' own descriptions in the SDK's types."""
    if body["max_tokens"] < 0:
        raise RefusedError("max_tokens: Input should be greater than or equal to 0")
    thinking = body.get("thinking", {})
    if thinking.get("type") != "enabled":
        return
    if thinking["budget_tokens"] < 1024:
        raise RefusedError("thinking.enabled.budget_tokens: must be greater than or equal to 1024")
    if thinking["budget_tokens"] >= body["max_tokens"]:
        raise RefusedError("`max_tokens` must be greater than `thinking.budget_tokens`")
    if NEWER.search(body["model"]):
        raise RefusedError('"thinking.type.enabled" is not supported for this model')
    # https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking (feature compatibility)
    if body.get("temperature", 1) != 1:
        raise RefusedError("`temperature` may only be set to 1 when thinking is enabled")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise RefusedError("Thinking may not be enabled when tool_choice forces tool use.")


def _check_sampling(body: Json, model: str) -> None:
    given = [name for name in _SAMPLING if name in body]
    if given and NEWER.search(model):
        raise RefusedError(f"`{given[0]}` is deprecated for this model.")
    if {"temperature", "top_p"} <= set(given) and _ONE_SAMPLER.search(model):
        raise RefusedError("`temperature` and `top_p` cannot both be specified for this model.")


def _check_tools(tools: list[Json]) -> None:
    """https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use"""
    for at, tool in enumerate(tools):
        if not _TOOL_NAME.fullmatch(tool.get("name", "toolset")):
            raise RefusedError(
                f"tools.{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            )
        if "input_schema" in tool and tool["input_schema"].get("type") != "object":
            raise RefusedError(f"tools.{at}.input_schema.type: Input should be 'object'")
    names = [tool["name"] for tool in tools if "name" in tool]
    if len(names) != len(set(names)):
        raise RefusedError("tools: Tool names must be unique.")


def check_conversation(body: Json) -> None:
    """The order of turns, and that tool results answer the calls before them. Raises RefusedError.

    https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use (results stand
    first in the user turn that directly follows), https://docs.anthropic.com/en/api/messages (the
    first turn is the user's; consecutive turns of one role are one turn; no empty text).
    """
    turns = [each for each in body["messages"] if each["role"] != "system"]
    if not turns or turns[0]["role"] != "user":
        raise RefusedError("messages: first message must use the user role")
    asked: set[str] = set()
    for at, (role, group) in enumerate(itertools.groupby(turns, key=lambda each: each["role"])):
        blocks = [block for each in group for block in _blocks(each, at)]
        answered = _results(blocks, at)
        if unknown := answered - asked:
            raise RefusedError(
                f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{sorted(unknown)}. Each must have a `tool_use` block in the previous message."
            )
        if missing := asked - answered:
            raise RefusedError(
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks "
                f"immediately after: {sorted(missing)}"
            )
        asked = {block["id"] for block in blocks if block["type"] == "tool_use"}
        if asked and role == "user":
            raise RefusedError(
                f"messages.{at}: `tool_use` blocks can only be in `assistant` messages"
            )
    if asked:
        raise RefusedError(
            f"`tool_use` ids were found without `tool_result` blocks: {sorted(asked)}"
        )


def _blocks(turn: Json, at: int) -> list[Json]:
    content = turn["content"]
    blocks: list[Json] = (
        [{"type": "text", "text": content}] if isinstance(content, str) else content
    )
    for block in blocks:
        if block["type"] == "text" and not block["text"]:
            raise RefusedError(f"messages.{at}: text content blocks must be non-empty")
        for name in ("id", "tool_use_id"):
            if name in block and not _TOOL_ID.fullmatch(block[name]):
                raise RefusedError(f"messages.{at}.{name}: should match pattern '^[a-zA-Z0-9_-]+$'")
    return blocks


def _results(blocks: list[Json], at: int) -> set[str]:
    kinds = [block["type"] for block in blocks]
    count = kinds.count("tool_result")
    if kinds[:count] != ["tool_result"] * count:
        raise RefusedError(f"messages.{at}: `tool_result` blocks must come first in the content")
    ids = [block["tool_use_id"] for block in blocks[:count]]
    if len(set(ids)) != count:
        raise RefusedError(f"messages.{at}: each tool_use must have a single result")
    return set(ids)


# ---- answers


def _error(kind: str, text: str) -> Json:
    value = {
        "type": "error",
        "error": {"type": kind, "message": text},
        "request_id": "req_011StandIn",
    }
    return made(ErrorResponse, value)


def error_frame(text: str) -> bytes:
    """https://docs.anthropic.com/en/docs/build-with-claude/streaming#error-events"""
    return sse(_error("overloaded_error", text), "error")


def _content(turn: Turn) -> list[Json]:
    blocks: list[Json] = []
    if turn.thinking:
        blocks.append({"type": "thinking", "thinking": turn.thinking, "signature": "c2lnbmVk"})
    if turn.said:
        blocks.append({"type": "text", "text": turn.said})
    for at, call in enumerate(turn.tool_calls):
        name = call.id or f"toolu_01StandIn{at}"
        blocks.append({"type": "tool_use", "id": name, "name": call.name, "input": call.arguments})
    return blocks


def _usage(turn: Turn) -> Json:
    """Input tokens are counted without what the cache gave."""
    usage: Json = {
        "input_tokens": turn.usage.input - turn.usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": turn.usage.cached,
        "output_tokens": turn.usage.output,
    }
    if turn.usage.reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": turn.usage.reasoning}
    return usage


def message(turn: Turn, model: str) -> Json:
    """A whole answer."""
    value = {
        "id": "msg_01StandIn",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _content(turn),
        "stop_reason": _REASONS[turn.reason],
        "stop_sequence": None,
        "usage": {**_usage(turn), "service_tier": "standard"},
    }
    return made(Message, value)


def events(turn: Turn, model: str) -> Iterator[Json]:
    """The same as stream events, in the order of
    https://docs.anthropic.com/en/docs/build-with-claude/streaming"""
    start = {**message(turn, model), "content": [], "stop_reason": None}
    start["usage"] = {**start["usage"], "output_tokens": 1}  # provisional, as the API's is
    start["usage"].pop("output_tokens_details", None)
    yield {"type": "message_start", "message": start}
    for at, block in enumerate(_content(turn)):
        yield from _block_events(at, block)
        if at == 0:
            yield {"type": "ping"}
    delta = {"stop_reason": _REASONS[turn.reason], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": _usage(turn)}
    yield {"type": "message_stop"}


def _block_events(at: int, block: Json) -> Iterator[Json]:
    empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
    start = {**block, **empty.get(block["type"], {"input": {}})}
    yield {"type": "content_block_start", "index": at, "content_block": start}
    for delta in _deltas(block):
        yield {"type": "content_block_delta", "index": at, "delta": delta}
    yield {"type": "content_block_stop", "index": at}


def _deltas(block: Json) -> Iterator[Json]:
    if block["type"] == "text":
        for text in words(block["text"]):
            yield {"type": "text_delta", "text": text}
    elif block["type"] == "thinking":
        for text in words(block["thinking"]):
            yield {"type": "thinking_delta", "thinking": text}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        for text in ["", *json_pieces(block["input"])]:
            yield {"type": "input_json_delta", "partial_json": text}


def checked_events(turn: Turn, model: str) -> Iterator[Json]:
    """The events, each checked with the SDK's union of them (which has no `ping`)."""
    for event in events(turn, model):
        yield event if event["type"] == "ping" else made(RawMessageStreamEvent, event)


def stream_reply(turn: Turn, model: str) -> Reply:
    """The answer as server-sent events."""
    frames = [sse(event, event["type"]) for event in checked_events(turn, model)]
    content_type = "text/event-stream; charset=utf-8"
    return Reply(frames=frames, content_type=content_type, error_frame=error_frame)
