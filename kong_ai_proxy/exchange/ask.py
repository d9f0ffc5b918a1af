"""One client's request, understood: which targets can answer it, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kong_ai_proxy.exchange.asking import Asked
from kong_ai_proxy.exchange.attempt import Content
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.formats.conversation import Conversation, Message, Text
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import JsonObject

_PROMPTS = ("prompt", "input", "query", "instructions")
"""Members that say what is wanted, in requests that are no conversations."""


class Ask(NamedTuple):
    """What every attempt at it starts from. Never changed by one."""

    request: ClientRequest
    content: Content
    native: Asked | None
    """What is asked for in a native format; None in OpenAI's, where the route type says it."""
    asked: Asked
    """The same, or what the first candidate's route type says."""
    candidates: tuple[int, ...]
    """Indexes of the targets among which may be chosen. At least one."""

    @property
    def method(self) -> str:
        """What providers are asked with."""
        return self.asked.method(self.request.method)

    def prompt(self) -> str:
        """The text that says what is wanted: of a conversation the user's last words. "" where
        there is none."""
        conversation = self._conversation()
        if conversation is None:
            return self._text()
        spoken = (_text(m) for m in reversed(conversation.messages) if m.role == "user")
        return next(filter(None, spoken), "")

    def opening(self) -> str:
        """How the conversation began: what stays the same from one of its requests to the next, so
        that a provider has it in its prompt cache. "" where there is none."""
        conversation = self._conversation()
        if conversation is None:
            return self._text()
        parts: list[str] = []
        for message in conversation.messages:
            parts.append(_text(message))
            if message.role == "user":
                break
        return "\n".join(parts)

    def _conversation(self) -> Conversation | None:
        parse: Callable[..., object] | None = getattr(self.asked.codec, "parse_request", None)
        if parse is None or not isinstance(self.content, JsonObject):
            return None
        if not isinstance(self.content.value, dict):
            return None
        try:
            parsed = parse(self.content.value)
        except FormatError:
            return None
        return parsed if isinstance(parsed, Conversation) else None

    def _text(self) -> str:
        if not isinstance(self.content, JsonObject):
            return ""
        for name in _PROMPTS:
            value = self.content.value.get(name)
            if isinstance(value, str) and value:
                return value
            if isinstance(value, list) and value and isinstance(value[0], str):
                return value[0]
        return ""


def _text(message: Message) -> str:
    return "\n".join(block.text for block in message.blocks if isinstance(block, Text))
