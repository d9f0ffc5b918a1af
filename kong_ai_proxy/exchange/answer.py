"""header_filter and body_filter: what the client gets of the provider's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kong_ai_proxy.exchange import privacy
from kong_ai_proxy.exchange.errors import BAD_GATEWAY, GATEWAY_TIMEOUT, Refused, error_body
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    ClientRequest,
    Commit,
    Data,
    Emit,
    End,
    Fail,
    Finish,
    Lost,
    ResponseHead,
)
from kong_ai_proxy.exchange.reading import Reading
from kong_ai_proxy.formats import coding

MAX_READ = 64 * 1024 * 1024
"""Bytes of a decompressed answer that are read for its usage while it passes compressed."""

EVENT_STREAM = "text/event-stream"
BODILESS = frozenset({204, 205, 304})
"""Statuses whose answers have no body (RFC 9110 section 15)."""
MODEL_HEADER = "x-kong-llm-model"
"""Names the model, on answers of status 200."""
BROKE_OFF = "the provider's answer broke off"
_BROKEN = b"\n\ndata: " + error_body(BROKE_OFF) + b"\n\n"
_LENGTH_GONE = frozenset({"content-length", "content-encoding"})


class Answer:
    """One answer on its way to the client. A body that need not change is the same bytes object
    that came; only `reading` looks at it."""

    def __init__(
        self,
        head: ResponseHead,
        request: ClientRequest,
        reading: Reading | None,
        added: Mapping[str, str],
        broken: bytes | None = None,
    ) -> None:
        """`reading` is None where nobody wants to know anything; `added` headers are set on it.
        `broken` is not None for streams that are no server-sent events of OpenAI's: what a client
        is told when its stream breaks off."""
        self.is_stream = broken is not None or is_event_stream(head)
        self._broken = _BROKEN if broken is None else broken
        self.status = head.status
        self.reading = reading
        self.failure: str | None = None
        self._head = head
        self._added = added
        self._has_body = request.method != "HEAD" and head.status not in BODILESS
        self._decoder: coding.Decoder | None = None
        self._passes_encoded = True
        self._read = 0
        self._decide_coding(request)

    def _decide_coding(self, request: ClientRequest) -> None:
        """A stream is never sent compressed: each event would wait for the next ones."""
        encoding = self._head.header("content-encoding")
        if not encoding or not self._has_body:
            return
        accepted = _accepts_all(request.header("accept-encoding"), encoding)
        self._passes_encoded = accepted and not self.is_stream
        if self._passes_encoded and self.reading is None:
            return
        try:
            self._decoder = coding.decoder(encoding)
        except coding.UnknownCoding as error:
            self.reading = None
            if not accepted:
                raise Refused(
                    BAD_GATEWAY, f"the provider's answer cannot be read: {error}"
                ) from None
            self._passes_encoded = True

    def commit(self) -> Iterator[Action]:
        """The head for the client."""
        changed = self._changes_length
        headers = [
            (name, value)
            for name, value in self._head.headers
            if not privacy.stays_behind(name)
            and name not in self._added
            and not (changed and name in _LENGTH_GONE)
        ]
        headers.extend(self._added.items())
        yield Commit(ResponseHead(self._head.status, tuple(headers)), self._length())

    @property
    def _changes_length(self) -> bool:
        """Whether the body may get another length on its way."""
        decoded = self._decoder is not None and not self._passes_encoded
        return decoded or (self.is_stream and self.reading is not None)

    def _length(self) -> int | None:
        if not self._has_body:
            return 0
        length = self._head.header("content-length")
        known = length is not None and length.isascii() and length.isdigit()
        return int(length) if known and length and not self._changes_length else None

    @property
    def direct(self) -> Callable[[bytes], bytes] | None:
        """What happens to a chunk that need not be decompressed."""
        if self._decoder is not None:
            return None
        return self.reading.feed if self.reading else _same

    def feed(self, event: Data | End | Lost) -> Iterator[Action]:
        """What to do about it. Lazily: nothing is decompressed before it is asked for."""
        match event:
            case Data(chunk):
                yield from self._data(chunk)
            case End():
                yield from self._end()
            case Lost(_, reason):
                yield from self._break_off(reason)

    def _data(self, chunk: bytes) -> Iterator[Action]:
        if self._decoder is None:
            yield from _emit(self.reading.feed(chunk) if self.reading else chunk)
        elif self._passes_encoded:
            self._read_beside(chunk)
            yield Emit(chunk)
        else:
            try:
                for piece in self._decoder.feed(chunk):
                    yield from _emit(self.reading.feed(piece) if self.reading else piece)
            except coding.CodingError as error:
                yield from self._break_off(f"content-encoding: {error}")

    def _read_beside(self, chunk: bytes) -> None:
        """Have a decompressed copy read, until it is too much or no longer makes sense."""
        if self.reading is None or self._decoder is None:
            return
        try:
            for piece in self._decoder.feed(chunk):
                self.reading.feed(piece)
                self._read += len(piece)
                if self._read > MAX_READ:
                    raise coding.CodingError(f"more than {MAX_READ} bytes")
        except coding.CodingError:
            self._decoder = None
            self.reading = None

    def _end(self) -> Iterator[Action]:
        if self.failure:
            return
        try:
            if self._decoder is not None and not self._passes_encoded:
                for piece in self._decoder.end():
                    yield from _emit(self.reading.feed(piece) if self.reading else piece)
        except coding.CodingError as error:
            yield from self._break_off(f"content-encoding: {error}")
            return
        if self.reading:
            rest = self.reading.end()
            if not (self._decoder and self._passes_encoded):
                yield from _emit(rest)
        yield Finish()

    def _break_off(self, reason: str) -> Iterator[Action]:
        """An error that a client of an event stream sees, and no end that looks like one."""
        if self.failure:
            return
        self.failure = reason
        if self.is_stream:
            if self.reading:
                yield from _emit(self.reading.end())
            if self._broken:
                yield Emit(self._broken)
        yield Abort()


def is_event_stream(head: ResponseHead) -> bool:
    """Whether the body is server-sent events."""
    media_type = (head.header("content-type") or "").partition(";")[0]
    return media_type.strip().lower() == EVENT_STREAM


def no_answer(lost: Lost) -> Fail:
    """What to do when the provider was lost before it had answered."""
    if lost.criterion == "timeout":
        answer = Refused(GATEWAY_TIMEOUT, "the provider did not answer in time")
    elif lost.criterion == "invalid_header":
        answer = Refused(BAD_GATEWAY, "the provider's answer is not valid HTTP")
    else:
        answer = Refused(BAD_GATEWAY, "the provider cannot be reached")
    return Fail(lost.criterion, lost.reason, answer)


def _same(chunk: bytes) -> bytes:
    return chunk


def _emit(chunk: bytes) -> Iterator[Action]:
    if chunk:
        yield Emit(chunk)


def _accepts_all(accepted: str | None, encoding: str) -> bool:
    """Whether the client takes all of several codings in a row."""
    return all(coding.accepts(accepted, each.strip()) for each in encoding.split(","))
