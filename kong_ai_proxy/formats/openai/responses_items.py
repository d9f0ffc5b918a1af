"""What requests, answers and streams of OpenAI's Responses have in common: output items, usage, and
how thoughts keep what proves them.

https://platform.openai.com/docs/api-reference/responses/object.

A reasoning item has an `encrypted_content`, opaque to the client, that has to come back. For a
client it holds the signature of another provider's thought, marked as what it is. OpenAI's own is
bound to the item's id: the hub's signature of such a thought is "ID:ENCRYPTED", which no other
provider's looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Media, Thinking
from kong_ai_proxy.formats.deltas import Finished, Started
from kong_ai_proxy.formats.fields import data_url, objects_of, text_of
from kong_ai_proxy.formats.openai.responses_tools import Own
from kong_ai_proxy.formats.usage import Usage

Object = Mapping[str, object]
Item = dict[str, object]

_SIGNATURE, _REDACTED, _CALL = "signature:", "redacted:", "call:"
_IMAGES = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
    "image/gif": "gif",
}
_LIFETIMES = ("30m", "12h")

# ---- thoughts


def thought_text(item: Object) -> str:
    """What can be read of a reasoning item: the thoughts themselves, of models that show them, or
    else their summary."""
    texts = [text_of(part, "text") for part in objects_of(item, "content")]
    if not any(texts):
        texts = [text_of(part, "text") for part in objects_of(item, "summary")]
    return "\n\n".join(text for text in texts if text)


def thought(item: Object) -> Thinking:
    """A reasoning item of a client's conversation; see `call_signature` for what is none. What
    OpenAI encrypted, before the conversation came here, proves nothing to the others, which refuse
    a signature that is not theirs: of that the text is left."""
    sealed = text_of(item, "encrypted_content")
    if sealed.startswith(_REDACTED):
        return Thinking("", redacted=sealed.removeprefix(_REDACTED))
    signature = sealed.removeprefix(_SIGNATURE) if sealed.startswith(_SIGNATURE) else ""
    return Thinking(thought_text(item), signature)


def own_signature(item: Object) -> str:
    """The signature of a thought of OpenAI's; "" where it came without one."""
    sealed = text_of(item, "encrypted_content")
    return f"{text_of(item, 'id')}:{sealed}" if sealed else ""


def call_signature(item: Object) -> str:
    """What Google signed of the call that follows, for which a call has no member; "" for none."""
    sealed = text_of(item, "encrypted_content")
    return sealed.removeprefix(_CALL) if sealed.startswith(_CALL) else ""


def own_reasoning(thinking: Thinking) -> Item | None:
    """A thought of OpenAI's as it wants it back; None for another provider's, which it refuses."""
    identity, colon, sealed = thinking.signature.rpartition(":")
    if not colon:
        return None
    item: Item = {"type": "reasoning", "summary": _summary(thinking.text)}
    if identity:
        item["id"] = identity
    return {**item, "encrypted_content": sealed}


# ---- output items


def item_id(kind: str, context: Context, index: int) -> str:
    """The id of the output item with an index; `kind`: msg, rs, fc, ctc or ig."""
    return f"{kind}_{context.id}{index}"


def call_id(told: str, context: Context, index: int) -> str:
    """The id by which a call's result refers to it."""
    return told or f"call_{context.id}{index}"


def text_part(text: str, logprobs: list[object]) -> Item:
    """Something said."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def refusal_part(text: str) -> Item:
    """Why the model declined."""
    return {"type": "refusal", "refusal": text}


def message(identity: str, status: str, content: list[object]) -> Item:
    """What the model says."""
    return {
        "id": identity,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def reasoning(identity: str, text: str, sealed: str) -> Item:
    """What it thinks; `sealed`: see `sealed_signature` and `sealed_thought`."""
    item: Item = {"id": identity, "type": "reasoning", "summary": _summary(text)}
    return {**item, "encrypted_content": sealed} if sealed else item


def _summary(text: str) -> list[object]:
    return [summary_part(text)] if text else []


def summary_part(text: str) -> Item:
    """A part of a summary of thoughts."""
    return {"type": "summary_text", "text": text}


def sealed_signature(signature: str) -> str:
    """A thought's signature for a client to keep."""
    return f"{_SIGNATURE}{signature}" if signature else ""


def sealed_thought(redacted: str) -> str:
    """A thought that only the provider can read, for a client to keep."""
    return f"{_REDACTED}{redacted}"


def sealed_call(signature: str) -> str:
    """The signature of the call that follows, for a client to keep."""
    return f"{_CALL}{signature}"


def call(ids: tuple[str, str], status: str, own: Own, arguments: str) -> Item:
    """A call; `ids`: the item's and the call's. `arguments`: of a custom tool its input."""
    item: Item = {
        "id": ids[0],
        "type": "custom_tool_call" if own.is_custom else "function_call",
        "status": status,
        "input" if own.is_custom else "arguments": arguments,
        "call_id": ids[1],
        "name": own.name,
    }
    return {**item, "namespace": own.namespace} if own.namespace else item


def image(identity: str, media: Media) -> Item:
    """An image that the model made."""
    item: Item = {
        "id": identity,
        "type": "image_generation_call",
        "status": "completed",
        "result": media.data,
    }
    named = _IMAGES.get(media.media_type)
    return {**item, "output_format": named} if named else item


def is_image(media: Media) -> bool:
    """Whether there is an item for it."""
    return media.kind == "image" and bool(media.data)


def media_text(media: Media) -> str:
    """Something for which there is no item, as Markdown."""
    return f"![{media.kind}]({data_url(media)})"


def image_media(item: Object) -> Media | None:
    """The image of an item; None where it has none."""
    data = text_of(item, "result")
    if not data:
        return None
    named = text_of(item, "output_format")
    return Media(kind="image", data=data, media_type=f"image/{named or 'png'}")


# ---- the response


def logprobs(content: Sequence[object]) -> list[object]:
    """Log probabilities with every member that they have to have, of chat or of Responses."""
    return [_logprob(entry, tops=True) for entry in content if isinstance(entry, dict)]


def _logprob(entry: Object, *, tops: bool) -> Item:
    token, told = text_of(entry, "token"), entry.get("bytes")
    found: Item = {
        "token": token,
        "bytes": told if isinstance(told, list) else list(token.encode("utf-8", "surrogatepass")),
        "logprob": entry.get("logprob"),
    }
    if tops:
        found["top_logprobs"] = [
            _logprob(each, tops=False) for each in objects_of(entry, "top_logprobs")
        ]
    return found


def usage_object(usage: Usage) -> Item:
    """`usage` for a client."""
    written = usage.cache_writes
    prompt: Item = {
        "cached_tokens": 0,
        "cache_write_tokens": sum(written.values()),
        **usage.prompt_details,
    }
    if any(written.get(name) for name in _LIFETIMES):
        by_lifetime = {f"ttl_{name}_tokens": written.get(name, 0) for name in _LIFETIMES}
        prompt["cache_write_tokens_details"] = by_lifetime
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": prompt,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0, **usage.completion_details},
        "total_tokens": usage.total_tokens,
    }


def response(started: Started, context: Context, output: list[Item], status: str) -> Item:
    """A response. What it repeats of the request has OpenAI's defaults, or null, where the request
    does not say it."""
    told = started.id
    own = told if told.startswith("resp_") else f"resp_{told or context.id}"
    return {
        "id": own,
        "object": "response",
        "created_at": started.created or context.now,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": started.model or context.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
        "metadata": {},
        **_repeated(context.request),
    }


_REPEATED = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)


def _repeated(request: Object) -> Item:
    """What a response repeats of its request."""
    return {name: request[name] for name in _REPEATED if request.get(name) is not None}


_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def incomplete_reason(end: Finished) -> str:
    """Why a response is incomplete; "" for one that is complete."""
    return _INCOMPLETE.get(end.reason, "")


def ended(response: Item, end: Finished, usage: Usage | None, extra: Object) -> Item:
    """`response` with how it ended."""
    reason = incomplete_reason(end)
    response["status"] = "incomplete" if reason else "completed"
    response["incomplete_details"] = {"reason": reason} if reason else None
    response["usage"] = usage_object(usage) if usage is not None else None
    return {**extra, **response}
