"""Whole answers in Anthropic's Messages format, and what streams share with them: reasons to stop
and usage. https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from kong_ai_proxy.formats.anthropic import errors as anthropic_errors
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
    RefusalPiece,
    Said,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingRedacted,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import data_url, json_text, object_of, objects_of, text_of
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    # The turn is not over: it goes on when the answer is sent back. Not "stop", which says it is.
    "pause_turn": "length",
    "refusal": "content_filter",
}

_TIERS = {"standard": "standard", "priority": "priority", "batch": "batch", "default": "standard"}


def finished(reason: object, stop_sequence: object, has_calls: bool) -> Finished:
    """Why the answer ends, of Anthropic's `stop_reason` and `stop_sequence`."""
    found = _REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
    if found == "stop" and has_calls:
        found = "tool_calls"
    return Finished(found, stop_sequence if isinstance(stop_sequence, str) else None)


def stop_reason(end: Finished, refused: bool) -> str:
    """Anthropic's word for why the answer ends. `refused`: the model has declined."""
    if end.reason == "length":
        return "max_tokens"
    if end.reason == "tool_calls":
        return "tool_use"
    if refused or end.reason == "content_filter":
        return "refusal"
    return "end_turn" if end.stop_sequence is None else "stop_sequence"


def refusal(details: object) -> list[Delta]:
    """What `stop_details` say of a refusal."""
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return [RefusalPiece(explanation)] if explanation and isinstance(explanation, str) else []


# --- usage ---


def usage(value: object) -> Usage | None:
    """The counts of a `usage` object; None where it has none.

    Where it lists iterations, the totals beside them leave out what compaction cost, so they are
    summed; those of an advisor are another model's.
    https://platform.claude.com/docs/en/build-with-claude/compaction#understanding-usage
    """
    if not isinstance(value, dict) or not ("input_tokens" in value or "output_tokens" in value):
        return None
    rounds = [r for r in objects_of(value, "iterations") if r.get("type") != "advisor_message"]
    if not rounds:
        return _counts(value, value)
    total = Usage()
    for each in rounds:
        total += _counts(each, {})
    details = _counts(value, value)
    return Usage(
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        total_tokens=total.total_tokens,
        prompt_details=total.prompt_details,
        completion_details=details.completion_details,
        cache_writes=total.cache_writes,
        service_tier=details.service_tier,
    )


def _counts(value: Mapping[str, object], whole: Mapping[str, object]) -> Usage:
    read, written = _count(value, "cache_read_input_tokens"), _cache_writes(value)
    prompt = _count(value, "input_tokens") + read + sum(written.values())
    completion = _count(value, "output_tokens")
    reasoning = object_of(whole, "output_tokens_details")
    tier = whole.get("service_tier")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_details={"cached_tokens": read} if "cache_read_input_tokens" in value else {},
        completion_details={"reasoning_tokens": _count(reasoning, "thinking_tokens")}
        if "thinking_tokens" in reasoning
        else {},
        cache_writes=written,
        service_tier=tier if isinstance(tier, str) else None,
    )


def _cache_writes(value: Mapping[str, object]) -> dict[str, int]:
    lifetimes = object_of(value, "cache_creation")
    written = {ttl: _count(lifetimes, f"ephemeral_{ttl}_input_tokens") for ttl in ("5m", "1h")}
    written[""] = _count(value, "cache_creation_input_tokens") - sum(written.values())
    return {ttl: count for ttl, count in written.items() if count > 0}


def _count(value: Mapping[str, object], name: str) -> int:
    found = value.get(name)
    return found if type(found) is int and 0 <= found <= MAX_COUNT else 0


def render_usage(told: Usage | None) -> dict[str, object]:
    """A `usage` object for a client."""
    found = told or Usage()
    read = found.prompt_details.get("cached_tokens", 0)
    written = sum(found.cache_writes.values())
    rendered: dict[str, object] = {
        "input_tokens": max(found.prompt_tokens - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": found.completion_tokens,
    }
    lifetimes = {ttl: found.cache_writes.get(ttl, 0) for ttl in ("5m", "1h")}
    if any(lifetimes.values()):
        names = {f"ephemeral_{ttl}_input_tokens": count for ttl, count in lifetimes.items()}
        rendered["cache_creation"] = names
    if "reasoning_tokens" in found.completion_details:
        thinking = found.completion_details["reasoning_tokens"]
        rendered["output_tokens_details"] = {"thinking_tokens": thinking}
    if found.service_tier in _TIERS:
        rendered["service_tier"] = _TIERS[found.service_tier]
    return rendered


# --- a provider's answer ---


def parse(value: object) -> list[Delta]:
    """The pieces of a whole answer. Raises FormatError where it is none."""
    if not isinstance(value, dict):
        raise FormatError("the answer is not an object of type message")
    if value.get("type") == "error":
        return [Failed(anthropic_errors.of_object(value))]
    if not isinstance(value.get("content"), list):
        raise FormatError("'content' is not an array in the answer")
    found: list[Delta] = [Started(text_of(value, "id"), text_of(value, "model"))]
    calls = 0
    for block in objects_of(value, "content"):
        if block.get("type") == "tool_use":
            found.append(CallStarted(calls, text_of(block, "id"), text_of(block, "name")))
            found.append(CallArguments(calls, json_text(object_of(block, "input"))))
            calls += 1
        else:
            found += _block(block)
    found += refusal(value.get("stop_details"))
    found.append(finished(value.get("stop_reason"), value.get("stop_sequence"), calls > 0))
    told = usage(value.get("usage"))
    return [*found, Used(told)] if told else found


def _block(block: Mapping[str, object]) -> list[Delta]:
    """What a block says. Those of tools that the provider ran itself are part of no other format;
    what the model made of them stands in its text."""
    match block.get("type"):
        case "text":
            return [TextPiece(text_of(block, "text"))]
        case "thinking":
            signature = text_of(block, "signature")
            signed: list[Delta] = [ThinkingSigned(signature)] if signature else []
            return [ThinkingPiece(text_of(block, "thinking")), *signed]
        case "redacted_thinking":
            return [ThinkingRedacted(text_of(block, "data"))]
    return []


# --- an answer for a client ---


def message(
    started: tuple[str, str], context: Context, content: list[object], told: Usage | None
) -> dict[str, object]:
    """A `message` object before its end is known. `started`: id and model as the provider told
    them."""
    identity, model = started
    return {
        "id": identity or f"msg_{context.id}",
        "type": "message",
        "role": "assistant",
        "model": model or context.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": render_usage(told),
    }


def render(answer: Answer, context: Context) -> dict[str, object]:
    """A whole answer for a client. Of several alternatives the first: there is room for one."""
    choice = answer.choices[0] if answer.choices else Choice()
    content: list[object] = []
    calls = 0
    for block in choice.said:
        content.append(_rendered(block, context, calls))
        calls += isinstance(block, ToolCall)
    rendered = message((answer.id, answer.model), context, content, answer.usage)
    end = Finished(choice.finish_reason, choice.stop_sequence)
    rendered["stop_reason"] = stop_reason(end, bool(choice.refusal))
    if rendered["stop_reason"] == "stop_sequence":
        rendered["stop_sequence"] = choice.stop_sequence
    return rendered


def call_id(told: str, context: Context, number: int) -> str:
    """The id of a call, made up where the provider told none."""
    return told or f"toolu_{context.id}{number:02}"


def picture(media: Media) -> str:
    """An image or sound that the model made, as Markdown: there is no block for it."""
    return f"![{media.kind}]({data_url(media)})"


def _rendered(block: Said, context: Context, calls: int) -> dict[str, object]:
    match block:
        case Text(text) | Refusal(text):
            return {"type": "text", "text": text}
        case Media():
            return {"type": "text", "text": picture(block)}
        case ToolCall(identity, name, arguments):
            return {
                "type": "tool_use",
                "id": call_id(identity, context, calls),
                "name": name,
                "input": _input(arguments),
            }
        case Thinking(text, signature, redacted):
            if redacted:
                return {"type": "redacted_thinking", "data": redacted}
            return {"type": "thinking", "thinking": text, "signature": signature}


def _input(arguments: str) -> dict[str, object]:
    """The arguments of a call. Models do write JSON that is none: it is kept as a text, since an
    input has to be an object."""
    try:
        found = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {"arguments": arguments}
    return found if isinstance(found, dict) else {"arguments": arguments}
