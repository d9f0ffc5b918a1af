"""Reading an answer that is server-sent events."""

from __future__ import annotations

import re
from collections.abc import Callable

from kong_ai_proxy.exchange.kept import KeptStream, kept_stream
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai.stream import (
    DONE,
    Message,
    MessageError,
    characters,
    without_null_usage,
)
from kong_ai_proxy.formats.openai.usage import estimate
from kong_ai_proxy.formats.sse import Event, SseError, SseReader
from kong_ai_proxy.formats.usage import Usage

MAX_EVENT = 1 << 20
MAX_WHOLE_EVENT = 32 << 20
"""Bytes of one event that holds a whole answer: an image, or a response with all its output."""

_WHOLE = frozenset({openai.IMAGE_GENERATIONS, openai.IMAGE_EDITS, openai.RESPONSES})
_ESTIMATED = frozenset({openai.CHAT, openai.COMPLETIONS})
_BLANK_LINE = (b"\n\n", b"\r\n\r\n")
_TELLS_USAGE = re.compile(rb'"usage"\s*+:\s*+\{')
_BATCH = 16 * 1024


class StreamReading:
    """One stream. Its chunks pass on at once and unchanged, unless usage has to be taken out.

    Until the first content every event is parsed. From then on events are only searched for what
    could be usage or an error: hundreds of them make up an answer.
    """

    __slots__ = (
        "_aligned",
        "_counts",
        "_estimate_prompt",
        "_estimated_prompt",
        "_estimates",
        "_kept",
        "_quick",
        "_reader",
        "_strip",
        "_usage",
        "_waiting",
        "_waiting_bytes",
        "_written",
        "error",
        "failed",
        "has_content",
        "model",
        "problem",
    )

    def __init__(
        self,
        route_type: str,
        *,
        keep: bool,
        strip_usage: bool,
        counts: bool = True,
        prompt_estimate: Callable[[], int] | None = None,
    ) -> None:
        """See reading.stream."""
        self.has_content = False
        self.model: str | None = None
        self.error: str | None = None
        self.failed: ProviderError | None = None
        self.problem: str | None = None
        self._usage: Usage | None = None
        self._counts = counts
        self._strip = strip_usage
        self._reader = SseReader(MAX_WHOLE_EVENT if route_type in _WHOLE else MAX_EVENT)
        self._kept: KeptStream | None = kept_stream(route_type) if keep else None
        self._aligned = True  # the last chunk ended an event
        self._quick = False  # it did, and not every event has to be parsed
        self._estimates = counts and route_type in _ESTIMATED
        self._estimate_prompt = prompt_estimate
        self._estimated_prompt = 0
        self._waiting: list[bytes] = []  # events whose characters are not counted yet
        self._waiting_bytes = 0
        self._written = 0  # characters counted

    @property
    def usage(self) -> Usage | None:
        """What the provider told last. Without that, of chat and completions an estimate."""
        if self._usage is None and self._estimates:
            self._count_characters()
            return estimate(self._written, self._prompt_tokens()) if self._written else None
        return self._usage

    def _prompt_tokens(self) -> int:
        """The estimate of them, made once: it takes a look at the whole prompt."""
        if self._estimate_prompt is not None:
            self._estimated_prompt = self._estimate_prompt()
            self._estimate_prompt = None
        return self._estimated_prompt

    def payload(self) -> str | None:
        """See Reading."""
        return self._kept.text() if self._kept else None

    def feed(self, chunk: bytes) -> bytes:
        """See Reading."""
        if self._quick and b"error" not in chunk and chunk.endswith(_BLANK_LINE):
            at = chunk.find(b'"usage"')
            if at < 0 or not _TELLS_USAGE.search(chunk, at):
                if not self._strip or at < 0:
                    self._await_count(chunk)
                    return chunk
                passed = _without_null_usages(chunk)
                if passed is not None:
                    self._await_count(chunk)
                    return passed
        if self.problem is not None:
            return chunk
        return self._read(chunk)

    def _read(self, chunk: bytes) -> bytes:
        if not chunk:
            return chunk
        whole = self._aligned and chunk.endswith(_BLANK_LINE)
        self._aligned = chunk.endswith(_BLANK_LINE)
        self._quick = False
        try:
            events = self._reader.feed(chunk)
        except SseError as error:
            self._stop(str(error))
            return error.raw if self._strip else chunk
        passed = self._pass(events)
        self._quick = (
            self._aligned and self.has_content and self._kept is None and self.problem is None
        )
        if not self._strip or (whole and len(passed) == len(chunk)):
            return chunk  # only ever made shorter
        return passed

    def end(self) -> bytes:
        """See Reading. An event whose blank line never came counts as one."""
        if self.problem is not None:
            return b""
        try:
            events = self._reader.end()
        except SseError as error:
            self.problem = str(error)
            return error.raw if self._strip else b""
        seen = self.has_content
        passed = self._pass(events)
        if self.problem is not None:
            self.has_content = seen
        return passed if self._strip else b""

    def _pass(self, events: list[Event]) -> bytes:
        """Read the events. Returns what of their bytes goes on, in case usage is taken out."""
        parts: list[bytes] = []
        for index, event in enumerate(events):
            try:
                parts.append(self._look(event))
            except MessageError as error:
                self._stop(str(error))
                parts.extend(each.raw for each in events[index:])
                parts.append(self._held())
                break
        return b"".join(parts) if self._strip else b""

    def _held(self) -> bytes:
        """What belongs to no event yet."""
        try:
            return b"".join(event.raw for event in self._reader.end())
        except SseError as error:
            return error.raw

    def _look(self, event: Event) -> bytes:
        """Learn from one event. Returns what of it goes on. Raises MessageError."""
        self._await_count(event.raw)
        if event.data is None or event.data.strip() == DONE:
            return event.raw
        if not self.has_content or self._kept or _may_tell(event.raw):
            message = Message(event)
            self._learn(message)
            if self._kept:
                self._kept.add(message)
            if self._strip and message.is_only_usage:
                return b""
            if self._strip and message.choices and isinstance(message.value.get("usage"), dict):
                return message.without_usage()
        return without_null_usage(event.raw) if self._strip else event.raw

    def _learn(self, message: Message) -> None:
        self.has_content = self.has_content or message.has_content
        self.model = message.model or self.model
        if error := message.error:
            self.error = error
            self.failed = message.failed or ProviderError(error)
        if self._counts:
            self._usage = message.usage or self._usage

    def _stop(self, why: str) -> None:
        """The stream goes on unread. What the client gets now may well be content."""
        self.problem = why
        self.has_content = True
        self._quick = False

    def _await_count(self, events: bytes) -> None:
        if self._estimates and self._usage is None:
            self._waiting.append(events)
            self._waiting_bytes += len(events)
            if self._waiting_bytes > _BATCH:
                self._count_characters()

    def _count_characters(self) -> None:
        """Many events at once: it is ten times quicker, and at the end most answers tell usage."""
        self._written += characters(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0


def _without_null_usages(chunk: bytes) -> bytes | None:
    """Whole events of one line each without their null usage; None where each needs a look.

    Where a line ends with `}`, that brace ends the event's data, so a null usage right before it is
    a member of the outermost object.
    """
    if chunk.find(b"\n") == len(chunk) - 2:
        return without_null_usage(chunk)
    if chunk.count(b"\n") != 2 * chunk.count(b"\n\n"):
        return None
    passed = chunk.replace(b',"usage":null}\n\n', b"}\n\n")
    return None if b'"usage"' in passed else passed


def _may_tell(raw: bytes) -> bool:
    """Whether an event after the first content may be more than another piece of it. `feed` asks
    the same of a whole chunk, so that it does not matter how the stream is cut."""
    return b"error" in raw or _TELLS_USAGE.search(raw) is not None
