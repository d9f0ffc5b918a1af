"""What is to be learnt from a provider's answer while it passes: usage, model, errors.

The answer goes on to the client as it is; only a stream of which the relay itself asked for usage
loses the usage again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kong_ai_proxy.exchange.kept import KeptText
from kong_ai_proxy.exchange.realtime_reading import LiveReading, RealtimeReading, SessionReading
from kong_ai_proxy.exchange.stream_reading import StreamReading
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.json_members import MemberReader
from kong_ai_proxy.formats.openai.stream import error_text
from kong_ai_proxy.formats.openai.usage import usage
from kong_ai_proxy.formats.usage import Usage

_COUNTED = frozenset(openai.OPERATIONS) - {openai.FILES, openai.BATCHES, openai.VIDEOS}
"""Route types whose answers tell what making them took. A batch does too, but it is asked for again
and again until it is done."""


class Known(Protocol):
    """What is known of one answer."""

    @property
    def has_content(self) -> bool:
        """Of a stream: the model said, thought, called or drew something, or the reading has
        stopped and cannot tell. Otherwise: anything came."""

    @property
    def usage(self) -> Usage | None:
        """The tokens so far."""

    @property
    def model(self) -> str | None:
        """The model that answers, as the provider names it."""

    @property
    def error(self) -> str | None:
        """What went wrong, said inside an answer of status 200."""

    @property
    def failed(self) -> ProviderError | None:
        """The same of a stream, with the status that it means."""

    @property
    def problem(self) -> str | None:
        """Why the answer is not read any further. It passes on all the same."""

    def payload(self) -> str | None:
        """The answer for the log, at most about kept.MAX_PAYLOAD long; None when not kept."""


class Reading(Known, Protocol):
    """One answer. Its bytes come in without content coding."""

    def feed(self, chunk: bytes) -> bytes:
        """What goes to the client: the same object where nothing changes."""

    def end(self) -> bytes:
        """What is left for the client when the answer has ended, well or not."""


def one_shot(
    route_type: str, *, keep: bool, method: str = "POST", content_type: str | None = None
) -> Reading:
    """The reading of an answer in one piece, of any size in constant memory.

    Only what a POST makes is counted: to GET a response again tells its usage once more. Nothing
    that `content_type` says is neither JSON nor text is read, nor speech.
    """
    if route_type == openai.SPEECH or not _may_be_text(content_type):
        return Unread()
    counts = method == "POST" and route_type in _COUNTED
    return OneShotReading(keep=keep, counts=counts)


def stream(
    route_type: str,
    *,
    keep: bool,
    strip_usage: bool,
    method: str = "POST",
    prompt_estimate: Callable[[], int] | None = None,
) -> Reading:
    """The reading of an answer that is server-sent events.

    `strip_usage`: the relay asked for usage and the client did not. `prompt_estimate` gives the
    prompt's tokens for an answer of chat or completions that ends without usage; it is called
    once, if ever.
    """
    return StreamReading(
        route_type,
        keep=keep,
        strip_usage=strip_usage,
        counts=method == "POST",
        prompt_estimate=prompt_estimate,
    )


def realtime(*, keep: bool, count: bool = True, is_live: bool = False) -> SessionReading:
    """The reading of a WebSocket session, of Gemini Live or else of OpenAI's. With neither `keep`
    nor `count` it looks at nothing."""
    kind = LiveReading if is_live else RealtimeReading
    return kind(keep=keep, count=count)


class Unread:
    """An answer that is not looked at: binary content."""

    __slots__ = ("has_content",)

    usage: Usage | None = None
    model: str | None = None
    error: str | None = None
    failed: ProviderError | None = None
    problem: str | None = None

    def __init__(self) -> None:
        self.has_content = False

    def feed(self, chunk: bytes) -> bytes:
        """`chunk`."""
        self.has_content = self.has_content or bool(chunk)
        return chunk

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def payload(self) -> None:
        """Nothing."""


class OneShotReading:
    """An answer in one piece. One that is not a JSON object tells nothing."""

    __slots__ = ("_counts", "_kept", "_members", "has_content", "problem")

    failed: ProviderError | None = None

    def __init__(self, *, keep: bool, counts: bool) -> None:
        names = ("model", "usage", "service_tier", "error") if counts else ("model",)
        self.has_content = False
        self.problem: str | None = None
        self._counts = counts
        self._members = MemberReader(names)
        self._kept = KeptText() if keep else None

    def feed(self, chunk: bytes) -> bytes:
        """`chunk`."""
        self.has_content = self.has_content or bool(chunk)
        if not self._members.broken:
            self._members.feed(chunk)
        if self._kept:
            self._kept.add(chunk)
        return chunk

    def end(self) -> bytes:
        """Nothing."""
        return b""

    @property
    def usage(self) -> Usage | None:
        """See Reading."""
        members = self._members.members
        return usage(members.get("usage"), members.get("service_tier"))

    @property
    def model(self) -> str | None:
        """See Reading."""
        model = self._members.members.get("model")
        return model if isinstance(model, str) else None

    @property
    def error(self) -> str | None:
        """See Reading."""
        return error_text(self._members.members.get("error"))

    def payload(self) -> str | None:
        """The answer's text; None for what is no text."""
        return self._kept.text() if self._kept else None


def _may_be_text(content_type: str | None) -> bool:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if not media_type or media_type.startswith("text/"):
        return True
    return media_type == "application/json" or media_type.endswith("+json")
