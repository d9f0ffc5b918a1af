"""Reading the messages of a realtime session.

Most of them are pieces of sound, so a message is only parsed when it holds the name of one that
tells something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import orjson

from kong_ai_proxy.exchange.kept import KeptLines
from kong_ai_proxy.formats.gemini import live
from kong_ai_proxy.formats.openai.stream import error_text
from kong_ai_proxy.formats.openai.usage import usage
from kong_ai_proxy.formats.usage import Usage

MAX_MESSAGE = 4 << 20
"""Longest message, in characters or bytes, that is parsed: one at the end of an answer repeats its
text."""

Message = str | bytes
"""A message's text, or the bytes of a binary one."""


class SessionReading(Protocol):
    """What is known of a session, whatever format it is in."""

    usage: Usage | None
    """Of the answers so far, added up."""
    model: str | None
    """As the provider calls it."""
    error: str | None
    """What made an answer fail, the last one that did. That the provider refused a message of the
    client's is no failure of the session."""

    def feed_client(self, message: Message) -> None:
        """A message of the client's."""

    def feed_provider(self, message: Message) -> None:
        """A message of the provider's. What is no message of the API tells nothing."""

    def request_payload(self) -> str | None:
        """What the client sent but for its sound, one message a line; None when not kept."""

    def payload(self) -> str | None:
        """What the provider answered but for its sound, one message a line; None when not kept."""


class _Kept:
    """Both sides' messages, where they are kept."""

    __slots__ = ("_answers", "_reads", "_requests")

    def __init__(self, *, keep: bool, count: bool) -> None:
        self._reads = count or keep
        self._requests = KeptLines() if keep else None
        self._answers = KeptLines() if keep else None

    def request_payload(self) -> str | None:
        """See SessionReading."""
        return self._requests.text() if self._requests else None

    def payload(self) -> str | None:
        """See SessionReading."""
        return self._answers.text() if self._answers else None


# ---- OpenAI

_TELLING = re.compile(
    r'"(?:response\.done|(?:transcription_)?session\.(?:created|updated)'
    r'|conversation\.item\.input_audio_transcription\.completed)"'
)
# With `session.` it is that of translations: https://platform.openai.com/docs/guides/realtime-translation.
_SOUND = re.compile(r'"(?:session\.)?input_audio_buffer\.append"')
_SESSION = re.compile(r"(?P<transcribes>transcription_)?session\.(?:created|updated)")
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


class RealtimeReading(_Kept):
    """A session of OpenAI's Realtime API, and of its beta.

    Events: https://platform.openai.com/docs/api-reference/realtime-server-events. What a
    transcription of the user's words has used counts where the session is for transcriptions. In
    others it is the work of a second model beside the session's, with a price of its own ("billed
    according to the ASR model's pricing", says the reference of that event), and does not count.
    """

    __slots__ = ("_transcribes", "error", "model", "usage")

    def __init__(self, *, keep: bool, count: bool) -> None:
        super().__init__(keep=keep, count=count)
        self.usage: Usage | None = None
        self.model: str | None = None
        self.error: str | None = None
        self._transcribes = False

    def feed_client(self, message: Message) -> None:
        """See SessionReading."""
        if self._requests:
            text = _text(message)
            if not _SOUND.search(text):
                self._requests.add(text)

    def feed_provider(self, message: Message) -> None:
        """See SessionReading."""
        if not self._reads or len(message) > MAX_MESSAGE:
            return
        text = _text(message)
        if not _TELLING.search(text):
            return
        event = _object(text)
        kind = event.get("type")
        if kind == "response.done":
            self._answer(_member(event, "response"))
            self._keep(text)
        elif kind == _TRANSCRIBED and self._transcribes:
            self._add(usage(event.get("usage")))
            self._keep(text)
        elif isinstance(kind, str) and (found := _SESSION.fullmatch(kind)):
            self._session(_member(event, "session"), bool(found["transcribes"]))

    def _session(self, session: Mapping[str, object], transcribes: bool) -> None:
        self._transcribes = transcribes or session.get("type") == "transcription"
        model = session.get("model")
        if self._transcribes and model is None:
            sound = _member(_member(session, "audio"), "input")
            model = (
                _member(sound, "transcription") or _member(session, "input_audio_transcription")
            ).get("model")
        self.model = model if isinstance(model, str) else self.model

    def _answer(self, response: Mapping[str, object]) -> None:
        self._add(usage(response.get("usage")))
        if response.get("status") == "failed":
            details = _member(response, "status_details")
            self.error = error_text(details.get("error") or "failed")

    def _add(self, tokens: Usage | None) -> None:
        if tokens is not None:
            self.usage = self.usage + tokens if self.usage else tokens

    def _keep(self, text: str) -> None:
        if self._answers:
            self._answers.add(text)


# ---- Gemini Live

_USED = re.compile('"usageMetadata"')
_USED_BYTES = re.compile(b'"usageMetadata"')
# Sound and pictures, and what continues another session.
_UNKEPT = re.compile(r'"(?:data|sessionResumptionUpdate)"')


class LiveReading(_Kept):
    """A session of Gemini Live. Its answers do not name the model, and it ends with a close code
    where it fails."""

    __slots__ = ("error", "model", "usage")

    def __init__(self, *, keep: bool, count: bool) -> None:
        super().__init__(keep=keep, count=count)
        self.usage: Usage | None = None
        self.model: str | None = None
        self.error: str | None = None

    def feed_client(self, message: Message) -> None:
        """See SessionReading."""
        _keep(self._requests, message)

    def feed_provider(self, message: Message) -> None:
        """See SessionReading."""
        if not self._reads:
            return
        _keep(self._answers, message)
        if len(message) > MAX_MESSAGE:
            return
        if _USED.search(message) if isinstance(message, str) else _USED_BYTES.search(message):
            tokens = live.usage(_object(message))
            if tokens is not None:
                self.usage = self.usage + tokens if self.usage else tokens


def _keep(lines: KeptLines | None, message: Message) -> None:
    if lines:
        text = _text(message)
        if not _UNKEPT.search(text):
            lines.add(text)


def _text(message: Message) -> str:
    return message if isinstance(message, str) else message.decode("utf-8", "replace")


def _object(message: Message) -> Mapping[str, object]:
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _member(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    member = value.get(name)
    return member if isinstance(member, dict) else {}
