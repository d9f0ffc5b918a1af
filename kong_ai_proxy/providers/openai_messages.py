"""Messages as OpenAI's clients write them, for providers that do not know all of OpenAI's roles."""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.providers.base import Call


def without_developer(body: Mapping[str, object], call: Call) -> dict[str, object]:
    """`developer`, which OpenAI made of `system` in 2024, is `system` again. Messages that are none
    are left to the provider."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_is_developers, messages)):
        return {}
    return {"messages": [{**m, "role": "system"} if _is_developers(m) else m for m in messages]}


def _is_developers(message: object) -> bool:
    role = message.get("role") if isinstance(message, dict) else None
    return isinstance(role, str) and role.lower() == "developer"
