"""Messages as OpenAI's clients write them, made into what Mistral's API takes.

Its rules are those of its own validator, https://github.com/mistralai/mistral-common
(mistral_common/protocol/instruct/validator.py): which role may follow which, and the form of ids.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

Message = dict[str, object]

_ID = re.compile(r"[a-zA-Z0-9]{9}")

# Thoughts are a kind of content at Mistral's; those of other models are nothing to it.
_UNKNOWN = frozenset({"annotations", "reasoning", "reasoning_content", "refusal"})
_UNKNOWN_AS_NULL = frozenset({"audio", "function_call", "name", "tool_calls", "tool_call_id"})


def cleaned(messages: Sequence[Message]) -> list[Message] | None:
    """The messages, changed where Mistral would refuse them; None where nothing has to change.

    What it would not know is taken out, `developer` is `system`, ids of other providers' calls
    become ids of its form, what the user says straight after a tool's result is added to the
    result, and an assistant's message at the end is the beginning of the answer.
    """
    found: list[Message] = []
    is_changed = False
    for old in messages:
        new = _known(_with_ids(old))
        if found and _is_folded(found[-1], new):
            found[-1] = {**found[-1], "content": _joined(found[-1], new)}
            is_changed = True
            continue
        is_changed = is_changed or new is not old
        found.append(new)
    if found and _is_begun(found[-1]):
        found[-1] = {**found[-1], "prefix": True}
        is_changed = True
    return found if is_changed else None


def _known(message: Message) -> Message:
    role = message.get("role")
    is_developer = isinstance(role, str) and role.lower() == "developer"
    gone = {name for name in message if name in _UNKNOWN}
    gone |= {name for name in _UNKNOWN_AS_NULL if name in message and message[name] is None}
    if role != "tool" and "name" in message:
        gone.add("name")
    if not gone and not is_developer:
        return message
    known = {name: value for name, value in message.items() if name not in gone}
    if is_developer:
        known["role"] = "system"
    if message.get("refusal") and not message.get("content"):
        known["content"] = message["refusal"]
    return known


def _with_ids(message: Message) -> Message:
    answered = message.get("tool_call_id")
    if isinstance(answered, str) and not _ID.fullmatch(answered):
        message = {**message, "tool_call_id": _id(answered)}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and any(map(_has_other_id, calls)):
        message = {**message, "tool_calls": [_with_id(call) for call in calls]}
    return message


def _has_other_id(call: object) -> bool:
    return (
        isinstance(call, dict) and isinstance(call.get("id"), str) and not _ID.fullmatch(call["id"])
    )


def _with_id(call: Message) -> Message:
    return {**call, "id": _id(str(call["id"]))} if _has_other_id(call) else call


def _id(other: str) -> str:
    """The same for the same id, so that calls and results still find each other."""
    return hashlib.sha256(other.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _is_folded(last: Message, message: Message) -> bool:
    """After a tool's result only the assistant may speak. Images stay for Mistral to refuse."""
    return (
        last.get("role") == "tool"
        and message.get("role") in ("user", "system")
        and _parts(message) is not None
        and _parts(last) is not None
    )


def _joined(last: Message, message: Message) -> list[object]:
    return [*(_parts(last) or ()), *(_parts(message) or ())]


def _parts(message: Message) -> list[object] | None:
    """The content as text parts; None where it is not all text."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        return None
    texts = all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content if texts else None


def _is_begun(message: Message) -> bool:
    return (
        message.get("role") == "assistant"
        and not message.get("tool_calls")
        and "prefix" not in message
    )
