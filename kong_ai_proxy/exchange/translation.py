"""header_filter and body_filter of an answer that changes its format on the way to the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, cast

import orjson
from typing_extensions import override

from kong_ai_proxy.exchange import client_errors, privacy
from kong_ai_proxy.exchange.answer import BROKE_OFF, MODEL_HEADER, no_answer
from kong_ai_proxy.exchange.errors import (
    BAD_GATEWAY,
    FIRST_CLIENT_ERROR,
    FIRST_ERROR,
    LAST_ERROR,
    OK,
    SERVER_ERROR,
    Refused,
)
from kong_ai_proxy.exchange.learned import Learned
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    Commit,
    Data,
    Emit,
    End,
    Fail,
    Finish,
    Lost,
    ResponseHead,
)
from kong_ai_proxy.exchange.privacy import masked_error
from kong_ai_proxy.formats import coding
from kong_ai_proxy.formats.codec import (
    Carrier,
    ChatClient,
    ChatProvider,
    Context,
    EmbeddingsClient,
    EmbeddingsProvider,
    StreamReader,
)
from kong_ai_proxy.formats.deltas import (
    Answer,
    AnswerFailed,
    Collector,
    Delta,
    Failed,
    Used,
    collect,
    pieces,
)
from kong_ai_proxy.formats.embeddings import EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError

MAX_WHOLE = 64 << 20
"""Bytes of an answer in one piece that is converted: it has to be held as a whole."""
MAX_UNPACKED = 16 << 20
"""The same of one that comes compressed."""
MAX_ERROR = 1 << 20
"""Bytes of a provider's error that are looked at."""
MAX_HELD = 64 << 10
"""Bytes for the client that wait for the first content, so that an error before it is a status."""

_JSON = "application/json"

# What tells of the body as the provider sent it.
_BODY_HEADERS = frozenset(
    {
        "accept-ranges",
        "content-digest",
        "content-disposition",
        "content-encoding",
        "content-length",
        "content-md5",
        "content-range",
        "content-type",
        "digest",
        "etag",
        "last-modified",
        "location",
        "refresh",
        "repr-digest",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """What is the same of every answer."""

    secrets: tuple[str, ...] = ()
    """The operator's keys, which providers quote in errors."""

    def masked(self, error: ProviderError) -> ProviderError:
        """The error without the operator's keys."""
        return masked_error(error, self.secrets)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWay(_Way):
    """A conversation's answer: from which format into which one."""

    llm_format: str
    """The client's format, as a configuration names it."""
    client: ChatClient
    provider: ChatProvider
    context: Context
    source: str
    """Provider and route type, such as gemini://llm/v1/chat, for Kong's error texts."""
    wants_stream: bool = False
    is_carried: bool = False
    """The provider's format carries the client's own: whole answers stay as they are, streams are
    unwrapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsWay(_Way):
    """The same of embeddings."""

    llm_format: str
    client: EmbeddingsClient
    provider: EmbeddingsProvider
    context: Context
    source: str
    request: EmbeddingsRequest


Way = ChatWay | EmbeddingsWay


class _Unanswerable(Exception):  # noqa: N818 - an outcome for the client
    """There is no answer to give but `error`, whose status is the client's."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error.message)
        self.error = error


class TranslatedAnswer:
    """One answer. It is committed late: when the first content has come, or all of it."""

    def __init__(
        self, head: ResponseHead, way: Way, added: Mapping[str, str], learned: Learned
    ) -> None:
        """Raises Refused for a content coding that nobody here can read."""
        self.status = head.status
        self.failure: str | None = None
        self.reading = learned
        self.direct: Callable[[bytes], bytes] | None = None
        """The short way past `feed` for the pieces of a stream: there once it is committed, and
        gone when it has failed, so that the next event for `feed` ends it."""
        self._head = head
        self._added = added
        self._way = way
        self._held: list[bytes] = []
        self._committed = False
        self._over = False
        self._unpacked = 0
        self._decoder = _decoder(head)
        self._body = _body(head, way, learned)
        self.is_stream = self._body.is_stream

    def commit(self) -> Iterator[Action]:
        """Nothing yet: what comes first decides about the head."""
        return iter(())

    def feed(self, event: Data | End | Lost) -> Iterator[Action]:
        """What to do about it. Lazily: nothing is decompressed before it is asked for."""
        if self._over:
            return
        try:
            match event:
                case Data(chunk):
                    pieces_of = self._decoder.feed(chunk) if self._decoder else (chunk,)
                    for piece in pieces_of:
                        yield from self._pass(self._body.feed(piece))
                        self._bound(piece)
                        if isinstance(self._body, _ErrorBody) and self._body.is_full:
                            yield from self._end()
                            return
                case End():
                    for piece in self._decoder.end() if self._decoder else ():
                        yield from self._pass(self._body.feed(piece))
                    yield from self._end()
                case Lost():
                    yield from self._lost(event)
        except coding.CodingError as error:
            yield from self._fail(ProviderError(f"{BROKE_OFF}: content-encoding: {error}"))
        except _Unanswerable as unanswerable:
            yield from self._fail(unanswerable.error)

    def _bound(self, piece: bytes) -> None:
        """Raises _Unanswerable for too much that came compressed: a few bytes can become seconds
        of work."""
        if self._decoder is None or self._body.is_stream:
            return
        self._unpacked += len(piece)
        if self._unpacked > MAX_UNPACKED:
            raise _Unanswerable(
                ProviderError(f"the provider's answer unpacks to more than {MAX_UNPACKED} bytes")
            )

    def _pass(self, written: bytes) -> Iterator[Action]:
        """Send what was written, or hold it until the head is decided."""
        if self._over:
            return
        failed = self._body.failed
        if failed and not self._committed and not self.reading.has_content:
            yield from self._refuse(failed)
            return
        if self._committed:
            if written:
                yield Emit(written)
        elif written:
            self._held.append(written)
            if self.reading.has_content or sum(map(len, self._held)) > MAX_HELD:
                yield from self._commit()
        if failed:
            yield from self._commit()
            self._over, self.direct = True, None
            yield Finish()

    def _commit(self) -> Iterator[Action]:
        if self._committed:
            return
        self._committed = True
        yield Commit(self._new_head(OK, self._body.media_type), None)
        if self._held:
            yield Emit(b"".join(self._held))
        self._held = []
        if self._decoder is None and not self._over:
            self.direct = self._pass_directly

    def _pass_directly(self, chunk: bytes) -> bytes:
        written = self._body.feed(chunk)
        if self._body.failed:
            self.direct = None
        return written

    def _end(self) -> Iterator[Action]:
        if self._over:
            return
        written = self._body.end()
        if self._body.is_stream:
            yield from self._pass(written)
            if not self._over:
                yield from self._commit()
        elif self._body.error is not None:
            yield from self._error(self._body.error, self._body.status)
        else:
            yield from self._whole(written, self._new_head(self._body.status, _JSON))
        if not self._over:
            self._over, self.direct = True, None  # a circle would keep what has been read
            yield Finish()

    def _whole(self, body: bytes, head: ResponseHead) -> Iterator[Action]:
        self._committed = True
        self.reading.keep(body)
        yield Commit(head, len(body))
        if body:
            yield Emit(body)

    def _error(self, error: ProviderError, status: int) -> Iterator[Action]:
        way = self._way
        head = self._new_head(status, _JSON)
        more = client_errors.error_headers(way.llm_format, error)
        head = head._replace(headers=(*head.headers, *more.items()))
        body = client_errors.error_body(way.llm_format, way.masked(error), way.client)
        yield from self._whole(body, head)

    def _lost(self, lost: Lost) -> Iterator[Action]:
        has_some = self._body.is_stream and self.reading.has_content
        if not self._committed and not has_some:
            self._over = True
            broke_off = Fail(lost.criterion, lost.reason, Refused(BAD_GATEWAY, BROKE_OFF))
            yield no_answer(lost) if lost.criterion == "timeout" else broke_off
            return
        self.failure = lost.reason
        yield from self._break_off(ProviderError(BROKE_OFF))
        yield Abort()

    def _fail(self, error: ProviderError) -> Iterator[Action]:
        """What came cannot be read any further."""
        self.reading.note_error(error.message)
        if not self._committed:
            yield from self._refuse(error)
            return
        yield from self._break_off(error)
        yield Finish()

    def _break_off(self, error: ProviderError) -> Iterator[Action]:
        """An error that the client of a stream sees, and no end that looks like one."""
        self._over = True
        yield from self._commit()
        written = self._body.fail(error)
        if written:
            yield Emit(written)

    def _refuse(self, error: ProviderError) -> Iterator[Action]:
        """An error in place of the answer, as ordinary JSON."""
        self._over = True
        status = error.status if error.status >= FIRST_ERROR else BAD_GATEWAY
        yield from self._error(error._replace(status=status), status)
        yield Finish()

    def _new_head(self, status: int, media_type: str) -> ResponseHead:
        headers = [
            (name, value)
            for name, value in self._head.headers
            if not privacy.stays_behind(name)
            and name not in _BODY_HEADERS
            and name not in self._added
        ]
        headers.append(("content-type", media_type))
        named = self._added.items()
        headers.extend((n, value) for n, value in named if status == OK or n != MODEL_HEADER)
        return ResponseHead(status, tuple(headers))


def _decoder(head: ResponseHead) -> coding.Decoder | None:
    encoding = head.header("content-encoding")
    try:
        return coding.decoder(encoding) if encoding else None
    except coding.UnknownCoding as error:
        raise Refused(BAD_GATEWAY, f"the provider's answer cannot be read: {error}") from None


class _Body(Protocol):
    """How the bytes of one answer are converted."""

    is_stream: bool
    """Whether the client gets pieces."""
    media_type: str
    status: int
    failed: ProviderError | None
    """Set once nothing more is to be expected."""
    error: ProviderError | None
    """What a whole answer is that is an error."""

    def feed(self, piece: bytes) -> bytes:
        """What the client gets of this piece. Raises _Unanswerable."""

    def end(self) -> bytes:
        """The rest. Raises _Unanswerable."""

    def fail(self, error: ProviderError) -> bytes:
        """What a client that has a part of the answer is told."""


def _body(head: ResponseHead, way: Way, learned: Learned) -> _Body:
    if head.status >= FIRST_ERROR:
        return _ErrorBody(way, head.status, learned)
    if isinstance(way, EmbeddingsWay):
        return _EmbeddingsBody(way, learned)
    media_type = (head.header("content-type") or "").partition(";")[0].strip().lower()
    is_stream = media_type in way.provider.stream_types
    if media_type == _JSON and not way.wants_stream:
        is_stream = False
    if way.is_carried:
        carried = _CarriedStream if is_stream else _CarriedWhole
        return carried(way, learned)
    if is_stream and way.wants_stream:
        return _StreamBody(way, way.provider.reader(), learned)
    if is_stream:
        return _GatheredBody(way, way.provider.reader(), learned)
    return _PiecesBody(way, learned) if way.wants_stream else _WholeBody(way, learned)


class _StreamBody:
    """A stream that stays one."""

    is_stream = True
    status = OK
    error: ProviderError | None = None

    def __init__(self, way: ChatWay, reader: StreamReader, learned: Learned) -> None:
        self.media_type = way.client.stream_type
        self.failed: ProviderError | None = None
        self._reader = reader
        self._writer = way.client.writer(way.context)
        self._way = way
        self._learned = learned
        self._wants_usage = way.context.wants_usage

    def feed(self, piece: bytes) -> bytes:
        deltas = self._reader.feed(piece)
        return self._written(deltas) if deltas else b""

    def end(self) -> bytes:
        written = self._written(self._reader.end())
        if self.failed:
            return written
        return written + self._writer.feed(self._estimated()) + self._writer.end()

    def _estimated(self) -> list[Delta]:
        """The usage that the provider did not tell and the client waits for."""
        usage = self._learned.usage if self._wants_usage else None
        return [Used(usage)] if usage is not None and usage.estimated else []

    def fail(self, error: ProviderError) -> bytes:
        if self.failed:
            return b""
        # What has been used so far, some readers keep to the end.
        self._learned.note([each for each in self._reader.end() if isinstance(each, Used)])
        return self._written([Failed(error)])

    def _written(self, deltas: list[Delta]) -> bytes:
        self._learned.note(deltas)
        if deltas and isinstance(deltas[-1], Failed):
            self.failed = self._way.masked(deltas[-1].error)
            deltas[-1] = Failed(self.failed)
        return self._writer.feed(deltas)


class _Collected:
    """An answer that goes to the client as a whole."""

    is_stream = False
    media_type = _JSON
    status = OK
    error: ProviderError | None = None

    def __init__(self) -> None:
        self.failed: ProviderError | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        """Hold it."""
        self._size += len(piece)
        if self._size > MAX_WHOLE:
            raise _Unanswerable(
                ProviderError(f"the provider's answer is longer than {MAX_WHOLE} bytes")
            )
        self._chunks.append(piece)
        return b""

    def fail(self, error: ProviderError) -> bytes:
        """Nothing: there is a whole error in its place."""
        return b""

    def _parsed(self, source: str) -> object:
        try:
            return orjson.loads(b"".join(self._chunks))
        except orjson.JSONDecodeError as error:
            raise _untranslatable(source, f"not valid JSON: {error}") from None


class _WholeBody(_Collected):
    """An answer in one piece that stays one."""

    def __init__(self, way: ChatWay, learned: Learned) -> None:
        super().__init__()
        self._way = way
        self._learned = learned

    def end(self) -> bytes:
        """The answer in the client's format."""
        answer = _with_usage(_collected(self._deltas()), self._learned)
        return _dumped(self._way.client.render_answer(answer, self._way.context), self._way.source)

    def _deltas(self) -> list[Delta]:
        try:
            deltas = self._way.provider.parse_answer(self._parsed(self._way.source))
        except FormatError as error:
            raise _untranslatable(self._way.source, str(error)) from None
        self._learned.note(deltas)
        if deltas and isinstance(deltas[-1], Failed):
            raise _Unanswerable(deltas[-1].error)
        return deltas


class _PiecesBody(_WholeBody):
    """An answer in one piece for a client that wants a stream."""

    is_stream = True

    def __init__(self, way: ChatWay, learned: Learned) -> None:
        super().__init__(way, learned)
        self.media_type = way.client.stream_type

    @override
    def end(self) -> bytes:
        """The whole stream."""
        deltas = pieces(_with_usage(_collected(self._deltas()), self._learned))
        writer = self._way.client.writer(self._way.context)
        return writer.feed(list(deltas)) + writer.end()


class _CarriedWhole(_WholeBody):
    """An answer in one piece that is the client's format already."""

    @override
    def end(self) -> bytes:
        """The answer as it came."""
        self._deltas()
        return b"".join(self._chunks)


class _CarriedStream:
    """A stream whose events are the client's, in other frames."""

    is_stream = True
    status = OK
    error: ProviderError | None = None

    def __init__(self, way: ChatWay, learned: Learned) -> None:
        carrier = cast(Carrier, way.provider)
        self.media_type = way.client.stream_type
        self.failed: ProviderError | None = None
        self._reader = way.provider.reader()
        self._unwrapper = carrier.unwrapper()
        self._learned = learned
        self._client = way.client.writer(way.context)

    def feed(self, piece: bytes) -> bytes:
        self._learn(self._reader.feed(piece))
        return self._unwrapper.feed(piece)

    def end(self) -> bytes:
        self._learn(self._reader.end())
        return self._unwrapper.end()

    def fail(self, error: ProviderError) -> bytes:
        return b"" if self.failed else self._client.feed([Failed(error)])

    def _learn(self, deltas: list[Delta]) -> None:
        self._learned.note(deltas)
        if deltas and isinstance(deltas[-1], Failed):
            self.failed = deltas[-1].error


class _GatheredBody:
    """A stream for a client that wants the answer in one piece."""

    is_stream = False
    media_type = _JSON
    status = OK
    error: ProviderError | None = None

    def __init__(self, way: ChatWay, reader: StreamReader, learned: Learned) -> None:
        self.failed: ProviderError | None = None
        self._way = way
        self._reader = reader
        self._learned = learned
        self._collector = Collector()
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        """Take what it tells."""
        self._size += len(piece)
        if self._size > MAX_WHOLE:
            raise _Unanswerable(
                ProviderError(f"the provider's answer is longer than {MAX_WHOLE} bytes")
            )
        self._add(self._reader.feed(piece))
        return b""

    def end(self) -> bytes:
        """The answer in the client's format."""
        self._add(self._reader.end())
        answer = _with_usage(self._collector.answer(), self._learned)
        return _dumped(self._way.client.render_answer(answer, self._way.context), self._way.source)

    def fail(self, error: ProviderError) -> bytes:
        """Nothing: there is a whole error in its place."""
        return b""

    def _add(self, deltas: list[Delta]) -> None:
        self._learned.note(deltas)
        try:
            for delta in deltas:
                self._collector.add(delta)
        except AnswerFailed as failed:
            raise _Unanswerable(failed.error) from None


class _EmbeddingsBody(_Collected):
    """Embeddings."""

    def __init__(self, way: EmbeddingsWay, learned: Learned) -> None:
        super().__init__()
        self._way = way
        self._learned = learned

    def end(self) -> bytes:
        """The answer in the client's format."""
        way = self._way
        try:
            answer = way.provider.parse_answer(self._parsed(way.source))
        except FormatError as error:
            raise _untranslatable(way.source, str(error)) from None
        self._learned.note_usage(answer.usage, answer.model)
        return _dumped(way.client.render_answer(answer, way.request, way.context), way.source)


class _ErrorBody(_Collected):
    """An error of the provider."""

    def __init__(self, way: Way, status: int, learned: Learned) -> None:
        super().__init__()
        self.status = status
        self._way = way
        self._learned = learned

    @override
    def feed(self, piece: bytes) -> bytes:
        """Hold it, as much of it as is looked at."""
        if self._size < MAX_ERROR:
            super().feed(piece)
        return b""

    @property
    def is_full(self) -> bool:
        """Whether more of it would not be looked at."""
        return self._size >= MAX_ERROR

    def end(self) -> bytes:
        """Nothing beside the error."""
        if self.status < FIRST_CLIENT_ERROR or self.status > LAST_ERROR:
            self.error = ProviderError(f"the provider answered with status {self.status}")
            self.status = BAD_GATEWAY  # a client would follow it past the gateway, key and all
        else:
            self.error = self._way.provider.parse_error(self.status, b"".join(self._chunks))
        self._learned.note_error(self.error.message)
        return b""


def _collected(deltas: list[Delta]) -> Answer:
    try:
        return collect(deltas)
    except AnswerFailed as failed:
        raise _Unanswerable(failed.error) from None


def _with_usage(answer: Answer, learned: Learned) -> Answer:
    """With an estimate where the provider told no usage, or only what it wrote."""
    return replace(answer, usage=learned.usage)


def _dumped(value: object, source: str) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # deeper than it writes, though it has read it
        raise _untranslatable(source, "nested too deeply") from None


def _untranslatable(source: str, reason: str) -> _Unanswerable:
    """With Kong's text."""
    message = f"transformation failed from type {source}: {reason}"
    return _Unanswerable(ProviderError(message, status=SERVER_ERROR))
