"""Reading the messages of a realtime session.

Events: https://platform.openai.com/docs/api-reference/realtime-server-events. Most of them are
pieces of sound, so a message is only parsed when it holds the name of one that tells something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from kong_ai_proxy.exchange.kept import KeptLines
from kong_ai_proxy.formats.openai.stream import error_text
from kong_ai_proxy.formats.openai.usage import usage
from kong_ai_proxy.formats.usage import Usage

MAX_MESSAGE = 4 << 20
"""Longest message in characters that is parsed: one at the end of an answer repeats its text."""

_TELLING = re.compile(r'"(?:response\.done|session\.created|session\.updated)"')
_SOUND = '"input_audio_buffer.append"'


class RealtimeReading:
    """One session: its answers' usage is added up.

    `error` is what made an answer fail, the last one that did; that the provider refused a message
    of the client's is no failure of the session.
    """

    __slots__ = ("_answers", "_reads", "_requests", "error", "model", "usage")

    def __init__(self, *, keep: bool, count: bool) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.error: str | None = None
        self._reads = count or keep
        self._requests = KeptLines() if keep else None
        self._answers = KeptLines() if keep else None

    def feed_client(self, text: str) -> None:
        """A text message of the client's. Sound is not kept."""
        if self._requests and _SOUND not in text:
            self._requests.add(text)

    def feed_provider(self, text: str) -> None:
        """A text message of the provider's. What is no message of the API tells nothing."""
        if not self._reads or len(text) > MAX_MESSAGE or not _TELLING.search(text):
            return
        message = _object(text)
        if message.get("type") == "response.done":
            self._answer(_member(message, "response"))
            if self._answers:
                self._answers.add(text)
        elif message.get("type") in ("session.created", "session.updated"):
            model = _member(message, "session").get("model")
            self.model = model if isinstance(model, str) else self.model

    def _answer(self, response: Mapping[str, object]) -> None:
        tokens = usage(response.get("usage"))
        if tokens is not None:
            self.usage = self.usage + tokens if self.usage else tokens
        if response.get("status") == "failed":
            details = _member(response, "status_details")
            self.error = error_text(details.get("error") or "failed")

    def request_payload(self) -> str | None:
        """What the client sent, one message a line; None when not kept."""
        return self._requests.text() if self._requests else None

    def payload(self) -> str | None:
        """The provider's answers, the event that ends each of them a line; None when not kept."""
        return self._answers.text() if self._answers else None


def _object(text: str) -> Mapping[str, object]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _member(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    member = value.get(name)
    return member if isinstance(member, dict) else {}
