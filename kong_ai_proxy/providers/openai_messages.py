"""What OpenAI's clients say, for providers that speak its format but do not know all its words."""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.providers.base import Call


def without_developer(body: Mapping[str, object], call: Call) -> dict[str, object]:
    """`developer`, which OpenAI made of `system` in 2024, is `system` again. Messages that are none
    are left to the provider."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_is_developers, messages)):
        return {}
    return {"messages": [{**m, "role": "system"} if _is_developers(m) else m for m in messages]}


def without_thoughts(body: Mapping[str, object], call: Call) -> dict[str, object]:
    """Thoughts of earlier turns, which no API but DeepSeek's wants back, stay behind where they are
    unknown."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_has_thoughts, messages)):
        return {}
    return {"messages": [_without_thoughts(m) if _has_thoughts(m) else m for m in messages]}


def _has_thoughts(message: object) -> bool:
    return isinstance(message, dict) and "reasoning_content" in message


def _without_thoughts(message: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in message.items() if name != "reasoning_content"}


def renamed(body: Mapping[str, object], name: str, theirs: str) -> dict[str, object]:
    """A member under the provider's name, unless it is there already."""
    if name not in body:
        return {}
    if body[name] is None or body.get(theirs) is not None:
        return {name: REMOVED}
    return {name: REMOVED, theirs: body[name]}


def _is_developers(message: object) -> bool:
    role = message.get("role") if isinstance(message, dict) else None
    return isinstance(role, str) and role.lower() == "developer"
