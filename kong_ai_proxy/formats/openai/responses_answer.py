"""OpenAI's Responses, answers in one piece.

https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    Logprobs,
    MediaPiece,
    RefusalPiece,
    Said,
    Started,
    TextPiece,
    ThinkingPiece,
    ThinkingSigned,
    Used,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import object_of, objects_of, text_of
from kong_ai_proxy.formats.openai import responses_items as items
from kong_ai_proxy.formats.openai.answers import number_of
from kong_ai_proxy.formats.openai.errors import error_of
from kong_ai_proxy.formats.openai.responses_tools import Own, input_of, own_names
from kong_ai_proxy.formats.openai.usage import usage

Object = Mapping[str, object]

_BAD_GATEWAY = 502
CODES = frozenset(
    {
        "bio_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_prompt",
        "misalignment_policy_violation",
        "rate_limit_exceeded",
        "server_error",
        "unsupported_image_media_type",
        "vector_store_timeout",
    }
)
"""All codes that the error of a response can have."""
_STATUSES = {"rate_limit_exceeded": 429, "server_error": 500, "vector_store_timeout": 500}
"""Of codes that are not the request's fault."""

# ---- a provider's answer


def parse_answer(value: object) -> list[Delta]:
    """See ChatProvider."""
    if not isinstance(value, dict) or not isinstance(value.get("output"), list):
        error = error_of(value)
        if error is not None:
            return [Failed(error)]
        raise FormatError("'output' is not an array in the response")
    found: list[Delta] = [started(value)]
    calls = 0
    for item in objects_of(value, "output"):
        found += item_pieces(item, calls)
        calls += item.get("type") == "function_call"
    return found + end_pieces(value, calls > 0)


def started(response: Object) -> Started:
    """The beginning of an answer."""
    created = number_of(response.get("created_at"))
    return Started(text_of(response, "id"), text_of(response, "model"), created)


def item_pieces(item: Object, number: int) -> list[Delta]:
    """What a whole output item says; `number`: of the call, should it be one. Items of tools that
    the provider ran itself are part of no other format; what the model made of them stands in its
    text."""
    match item.get("type"):
        case "message":
            return [piece for part in objects_of(item, "content") for piece in _part_pieces(part)]
        case "reasoning":
            text = items.thought_text(item)
            thought: list[Delta] = [ThinkingPiece(text)] if text else []
            return thought + signed(item)
        case "function_call":
            call = CallStarted(number, text_of(item, "call_id"), text_of(item, "name"))
            return [call, CallArguments(number, text_of(item, "arguments") or "{}")]
        case "image_generation_call":
            media = items.image_media(item)
            return [MediaPiece(media)] if media is not None else []
    return []


def _part_pieces(part: Object) -> list[Delta]:
    if part.get("type") == "refusal":
        refusal = text_of(part, "refusal")
        return [RefusalPiece(refusal)] if refusal else []
    text = text_of(part, "text")
    found: list[Delta] = [TextPiece(text)] if text else []
    return found + logprobs_pieces(part)


def logprobs_pieces(holder: Object) -> list[Delta]:
    """Log probabilities of a part, or of a piece of one."""
    content = items.logprobs(objects_of(holder, "logprobs"))
    return [Logprobs(content)] if content else []


def signed(item: Object) -> list[Delta]:
    """What proves a thought, which ends with it."""
    signature = items.own_signature(item)
    return [ThinkingSigned(signature)] if signature else []


def end_pieces(response: Object, called: bool) -> list[Delta]:
    """How a response ended, and its usage."""
    status = response.get("status", "completed")
    if status not in ("completed", "incomplete"):
        return [Failed(failure(response))]
    reason: FinishReason = "tool_calls" if called else "stop"
    if status == "incomplete":
        told = text_of(object_of(response, "incomplete_details"), "reason")
        reason = "content_filter" if told == "content_filter" else "length"
    found: list[Delta] = [Finished(reason)]
    used = usage(response.get("usage"), response.get("service_tier"))
    return [*found, Used(used)] if used is not None else found


def failure(response: Object) -> ProviderError:
    """Why a response failed."""
    error = error_of({"error": response.get("error")}) if response.get("error") else None
    if error is not None:
        return with_status(error)
    told = text_of(response, "status") or "failed"
    return ProviderError(f"the provider's response is {told}", status=_BAD_GATEWAY)


def with_status(error: ProviderError) -> ProviderError:
    """`error` with the status that its code means, where it tells none."""
    if error.status or error.code not in CODES:
        return error
    return error._replace(status=_STATUSES.get(error.code or "", 400))


# ---- an answer for a client


def render_answer(answer: Answer, context: Context) -> dict[str, object]:
    """See ChatClient. Of several alternatives the first: there is room for one."""
    choice = answer.choices[0] if answer.choices else Choice()
    end = Finished(choice.finish_reason, choice.stop_sequence)
    output = _output(choice, context)
    cut = output[-1] if output else {}
    if items.incomplete_reason(end) and "status" in cut and cut["type"] != "image_generation_call":
        cut["status"] = "incomplete"
    begun = Started(answer.id, answer.model, answer.created)
    response = items.response(begun, context, output, "in_progress")
    return items.ended(response, end, answer.usage, answer.extra)


def _output(choice: Choice, context: Context) -> list[items.Item]:
    output: list[items.Item] = []
    last: items.Item | None = None
    for block in choice.said:
        part = _part(block)
        if part is None:
            output += _items(block, context, len(output))
            continue
        said = _say(part, output, context)
        last = said if said["type"] == "output_text" else last
    if last is not None and choice.logprobs:
        last["logprobs"] = items.logprobs(choice.logprobs)
    return output


def _part(block: Said) -> items.Item | None:
    """The part of a message; None for what is an item."""
    if isinstance(block, Text):
        return items.text_part(block.text, [])
    if isinstance(block, Refusal):
        return items.refusal_part(block.text)
    if isinstance(block, Media) and not items.is_image(block):
        return items.text_part(items.media_text(block), [])
    return None


def _say(part: items.Item, output: list[items.Item], context: Context) -> items.Item:
    """Put a part into the message that comes last, or into a new one, and go on with the part
    before where that is of the same kind. Returns the part that it is now in."""
    content = output[-1].get("content") if output else None
    if not isinstance(content, list):
        identity = items.item_id("msg", context, len(output))
        output.append(items.message(identity, "completed", [part]))
        return part
    last: items.Item = content[-1]
    if last["type"] != part["type"]:
        content.append(part)
        return part
    name = "text" if part["type"] == "output_text" else "refusal"
    last[name] = f"{last[name]}{part[name]}"
    return last


def _items(block: Said, context: Context, index: int) -> list[items.Item]:
    match block:
        case Thinking(text, signature, redacted):
            identity = items.item_id("rs", context, index)
            if redacted:
                return [items.reasoning(identity, "", items.sealed_thought(redacted))]
            return [items.reasoning(identity, text, items.sealed_signature(signature))]
        case ToolCall():
            return _call(block, context, index)
        case Media():
            return [items.image(items.item_id("ig", context, index), block)]
    return []


def _call(call: ToolCall, context: Context, index: int) -> list[items.Item]:
    found: list[items.Item] = []
    if call.signature:
        identity = items.item_id("rs", context, index)
        found.append(items.reasoning(identity, "", items.sealed_call(call.signature)))
        index += 1
    own = own_names(context.request).get(call.name) or Own(call.name)
    kind = "ctc" if own.is_custom else "fc"
    ids = items.item_id(kind, context, index), items.call_id(call.id, context, index)
    arguments = call.arguments or "{}"
    said = input_of(arguments) if own.is_custom else arguments
    return [*found, items.call(ids, "completed", own, said)]
