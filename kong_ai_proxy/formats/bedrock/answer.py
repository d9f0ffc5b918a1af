"""Whole answers of Bedrock's Converse, and what streams share with them: reasons to stop and usage.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. An answer has no
id, and does not name its model.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.bedrock import errors as bedrock_errors
from kong_ai_proxy.formats.bedrock import media as bedrock_media
from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media, Refusal, Text, Thinking, ToolCall
from kong_ai_proxy.formats.deltas import (
    Answer,
    CallArguments,
    CallStarted,
    Choice,
    Delta,
    Failed,
    Finished,
    FinishReason,
    MediaPiece,
    Said,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import (
    data_url,
    json_text,
    object_of,
    objects_of,
    text_of,
)
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_UNFINISHED = frozenset({"malformed_model_output", "malformed_tool_use"})
_STOP_REASONS: Mapping[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
}
_EXTRA = ("trace", "additionalModelResponseFields")

Json = Mapping[str, object]


def finished(reason: object, fields: object, has_calls: bool) -> Finished:
    """Why the answer ends. What the model wrote and Bedrock could not read has just stopped: no
    client should run a call of it. `fields`: `additionalModelResponseFields`, where the client may
    have asked for the stop sequence."""
    told = reason if isinstance(reason, str) else ""
    found = _REASONS.get(told, "stop")
    if found == "stop" and has_calls and told not in _UNFINISHED:
        found = "tool_calls"
    sequence = fields.get("stop_sequence") if isinstance(fields, dict) else None
    return Finished(found, sequence if isinstance(sequence, str) else None)


def stop_reason(end: Finished) -> str:
    """Bedrock's word for why the answer ends."""
    if end.reason == "stop" and end.stop_sequence is not None:
        return "stop_sequence"
    return _STOP_REASONS[end.reason]


# --- usage ---


def usage(value: Json, tier: object = None) -> Usage:
    """The counts of a `usage` object. `inputTokens` are those that were neither read from a cache
    nor written to one: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html.
    `tier`: `serviceTier`, which stands beside it."""
    read, written = _count(value, "cacheReadInputTokens"), _cache_writes(value)
    prompt = _count(value, "inputTokens") + read + sum(written.values())
    completion = _count(value, "outputTokens")
    kind = tier.get("type") if isinstance(tier, dict) else None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_details={"cached_tokens": read} if "cacheReadInputTokens" in value else {},
        cache_writes=written,
        service_tier=kind if isinstance(kind, str) else None,
    )


def _cache_writes(value: Json) -> dict[str, int]:
    written = {
        text_of(each, "ttl"): _count(each, "inputTokens")
        for each in objects_of(value, "cacheDetails")
    }
    rest = _count(value, "cacheWriteInputTokens") - sum(written.values())
    written[""] = written.get("", 0) + max(rest, 0)
    return {lifetime: count for lifetime, count in written.items() if count}


def _count(value: Json, name: str) -> int:
    found = value.get(name)
    return found if type(found) is int and 0 <= found <= MAX_COUNT else 0


def render_usage(told: Usage | None) -> dict[str, object]:
    """A `usage` object for a client."""
    found = told or Usage()
    read = found.prompt_details.get("cached_tokens", 0)
    written = sum(found.cache_writes.values())
    rendered: dict[str, object] = {
        "inputTokens": max(found.prompt_tokens - read - written, 0),
        "outputTokens": found.completion_tokens,
        "totalTokens": found.total_tokens,
    }
    if read or written:
        rendered |= {"cacheReadInputTokens": read, "cacheWriteInputTokens": written}
    details = [
        {"ttl": lifetime, "inputTokens": found.cache_writes[lifetime]}
        for lifetime in ("1h", "5m")
        if lifetime in found.cache_writes
    ]
    return {**rendered, "cacheDetails": details} if details else rendered


def told_beside(holder: Json) -> dict[str, object]:
    """What an answer tells beside itself; see deltas.Used."""
    return {name: holder[name] for name in _EXTRA if holder.get(name) is not None}


# --- a provider's answer ---


def parse(value: object) -> list[Delta]:
    """The pieces of a whole answer. Raises FormatError where it is none."""
    if not isinstance(value, dict):
        raise FormatError("the answer is not an object")
    content = object_of(object_of(value, "output"), "message").get("content")
    if not isinstance(content, list):
        if text_of(value, "message") or text_of(value, "__type"):
            return [Failed(bedrock_errors.parse(0, orjson.dumps(value)))]
        raise FormatError(
            "no generation candidates received from Bedrock, or max_tokens too short: "
            "'output.message.content' is not an array"
        )
    found: list[Delta] = [Started()]
    calls = 0
    for block in content:
        if isinstance(block, dict):
            pieces = _block(block, calls)
            calls += bool(pieces) and isinstance(pieces[0], CallStarted)
            found += pieces
    fields = value.get("additionalModelResponseFields")
    found.append(finished(value.get("stopReason"), fields, calls > 0))
    told = value.get("usage")
    if isinstance(told, dict):
        found.append(Used(usage(told, value.get("serviceTier")), told_beside(value)))
    return found


def _block(block: Json, calls: int) -> list[Delta]:
    """What a block says. Those of tools that the provider ran itself are part of no other format;
    what the model made of them stands in its text."""
    name = next((name for name, value in block.items() if value is not None), "")
    value = block[name] if name else None
    if name == "text" and isinstance(value, str):
        return [TextPiece(value)]
    if not isinstance(value, dict):
        return []
    if name == "reasoningContent":
        return thought(value)
    if name == "toolUse":
        return _call(value, calls)
    if name == "citationsContent":
        texts = (text_of(part, "text") for part in objects_of(value, "content"))
        return [TextPiece("".join(texts))]
    if name in bedrock_media.BLOCKS and isinstance(value.get("source"), dict):
        return [MediaPiece(bedrock_media.parsed(name, value, f"content.{name}"))]
    return []


def thought(content: Json) -> list[Delta]:
    """What a whole `reasoningContent` tells."""
    redacted = text_of(content, "redactedContent")
    if redacted:
        return [ThinkingRedacted(redacted)]
    told = object_of(content, "reasoningText")
    signature = text_of(told, "signature")
    signed: list[Delta] = [ThinkingSigned(signature)] if signature else []
    return [ThinkingPiece(text_of(told, "text")), *signed]


def _call(call: Json, number: int) -> list[Delta]:
    if call.get("type") == "server_tool_use":
        return []
    started = CallStarted(number, text_of(call, "toolUseId"), text_of(call, "name"))
    given = call.get("input")
    return [started, CallArguments(number, json_text({} if given is None else given))]


# --- an answer for a client ---


def render(answer: Answer, context: Context) -> dict[str, object]:
    """A whole answer for a client. Of several alternatives the first: there is room for one. How
    long the model took is not known here; the member has to be there."""
    choice = answer.choices[0] if answer.choices else Choice()
    content: list[dict[str, object]] = []
    calls = 0
    for block in choice.said:
        content.append(_rendered(block, context, calls))
        calls += isinstance(block, ToolCall)
    end = Finished(choice.finish_reason, choice.stop_sequence)
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop_reason(end),
        "usage": render_usage(answer.usage),
        "metrics": {"latencyMs": 0},
        **told_beside(answer.extra),
    }


def call_id(told: str, context: Context, number: int) -> str:
    """The id of a call, made up where the provider told none."""
    return told or f"tooluse_{context.id}{number:02}"


def _rendered(block: Said, context: Context, calls: int) -> dict[str, object]:
    match block:
        case Text(text) | Refusal(text):
            return {"text": text}
        case Media():
            return picture(block)
        case ToolCall(identity, name, arguments):
            given = _input(arguments)
            identity = call_id(identity, context, calls)
            return {"toolUse": {"toolUseId": identity, "name": name, "input": given}}
        case Thinking(text, signature, redacted):
            if redacted:
                return {"reasoningContent": {"redactedContent": redacted}}
            signed = {"signature": signature} if signature else {}
            return {"reasoningContent": {"reasoningText": {"text": text, **signed}}}


def picture(media: Media) -> dict[str, object]:
    """Something that the model made: an image as a block of its own, anything else, and an image
    that is somewhere else, as a link."""
    try:
        if media.kind == "image":
            return bedrock_media.rendered(media, "content", set())
    except FormatError:
        pass
    return {"text": f"![{media.kind}]({data_url(media)})"}


def _input(arguments: str) -> object:
    """The arguments of a call. Models do write JSON that is none: it is kept as a text."""
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return arguments
