"""A request that takes several calls: the flow says which, here is what comes of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import orjson

from kong_ai_proxy.exchange import client_errors, privacy
from kong_ai_proxy.exchange.answer import BROKE_OFF, MODEL_HEADER, no_answer
from kong_ai_proxy.exchange.errors import (
    BAD_GATEWAY,
    BAD_REQUEST,
    FIRST_CLIENT_ERROR,
    FIRST_ERROR,
    LAST_ERROR,
    OK,
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
    Event,
    Fail,
    Finish,
    Head,
    Lost,
    NextCall,
    Pause,
    Received,
    ResponseHead,
    Take,
    Woken,
)
from kong_ai_proxy.formats import coding
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.providers.flow import (
    Passed,
    ProviderFailed,
    Receive,
    Reply,
    Result,
    Send,
    Step,
    Steps,
)

MAX_ERROR = 1 << 20
"""Bytes of a provider's error that are looked at: what follows is not waited for."""
MAX_MESSAGE = 4096
"""Characters of what a client is told of it."""

_AT_ONCE = 16 << 10
"""Bytes of a download that are changed in one go: other requests wait meanwhile."""

_JSON = "application/json"
_FIELD = re.compile(r"([a-z][\w.\[\]]*): ")  # what is said of a member begins with its name
_RETRY_LATER = frozenset({429, 503})
_PLAIN = re.compile(r"[A-Za-z0-9 ,:+-]{1,40}")  # seconds or a date (RFC 9110 section 10.2.3)
_MAX_DIGITS = 18  # of a length: fewer than 2**63 bytes

# What tells of a download; all else in the head is between us and the provider.
_PASSED_HEADERS = frozenset(
    {"accept-ranges", "content-disposition", "content-range", "content-type", "last-modified"}
)


class Flowing:
    """One flow under way. It is the attempt's answer: see answer.Answer for what is alike."""

    is_stream = False
    direct = None

    def __init__(
        self,
        steps: Steps,
        added: Callable[[tuple[str, ...]], Mapping[str, str]],
        learned: Learned,
        secrets: Callable[[], tuple[str, ...]],
    ) -> None:
        """`added` gives the headers for the client's answer, told what was dropped; `secrets` what
        must not be in an error."""
        self.status = 0
        self.failure: str | None = None
        self.reading = learned
        self._steps = steps
        self._added = added
        self._secrets = secrets
        self._reply: _Reply | None = None
        self._retry_after: str | None = None
        self._most = 0
        self._loss: Fail | None = None  # while the flow puts its things in order
        self._abandoned = False
        self._passed: Passed | None = None
        self._committed = False
        self.is_over = False

    def begin(self) -> Iterator[Action]:
        """The first step."""
        yield from self._advance(None)

    def feed(self, event: Event) -> Iterator[Action]:
        """What comes next."""
        if self.is_over:
            return
        try:
            match event:
                case Head(head):
                    yield from self._head(head)
                case Data(chunk):
                    yield from self._data(chunk)
                case End():
                    yield from self._end()
                case Received(chunk):
                    yield from self._advance(chunk)
                case Woken(now):
                    yield from self._advance(now)
                case Lost():
                    yield from self._lost(event)
        except coding.CodingError as error:
            yield from self._failed(ProviderError(f"{BROKE_OFF}: content-encoding: {error}"))
        except ProviderFailed as failed:
            yield from self._failed(failed.error)

    def close(self) -> None:
        """Nothing more will come."""
        self._steps.close()

    # ---- the flow's steps

    def _advance(self, value: object) -> Iterator[Action]:
        yield from self._stepped(lambda: self._steps.send(value))

    def _stepped(self, step_on: Callable[[], Step]) -> Iterator[Action]:
        try:
            step = step_on()
        except StopIteration as stop:
            yield from self._ended(stop.value)
        except FormatError as error:
            named = _FIELD.match(str(error))
            param = named[1] if named else None
            yield from self._failed(ProviderError(str(error), status=BAD_REQUEST, param=param))
        except ProviderFailed as failed:
            yield from self._failed(failed.error)
        except orjson.JSONEncodeError:  # deeper than it writes, though it has read it
            nested = "the request body is nested too deeply"
            yield from self._failed(ProviderError(nested, status=BAD_REQUEST))
        else:
            if isinstance(step, Send):
                self._most = step.most
                yield NextCall(step)
            else:
                yield Take() if isinstance(step, Receive) else Pause(step.seconds)

    def _ended(self, result: Result | Passed) -> Iterator[Action]:
        if self._abandoned:
            self.is_over = True
            return
        if isinstance(result, Passed):
            self._passed = result
            yield NextCall(result.send)
            return
        self.reading.note_usage(result.usage, "")
        try:
            body = result.body if isinstance(result.body, bytes) else orjson.dumps(result.body)
        except orjson.JSONEncodeError:  # a number, or a depth, of the provider's
            yield from self._failed(
                ProviderError("the provider's answer cannot be written as JSON")
            )
            return
        headers = {"content-type": result.media_type, **self._added(result.dropped)}
        yield from self._whole(body, ResponseHead(result.status, tuple(headers.items())))

    # ---- the answers of the provider

    def _head(self, head: ResponseHead) -> Iterator[Action]:
        head = privacy.masked_head(head, self._secrets())
        if self._passed is None or head.status >= FIRST_ERROR:
            self._reply = _Reply(head, self._most)
        else:
            self._reply = None
            yield from self._commit_passed(self._passed, head)

    def _commit_passed(self, passed: Passed, head: ResponseHead) -> Iterator[Action]:
        encoding = head.header("content-encoding")
        if encoding and encoding.strip().lower() != "identity":  # it was not asked for
            raise ProviderFailed(ProviderError("the provider's answer came compressed"))
        kept = {name: value for name, value in head.headers if name in _PASSED_HEADERS}
        if passed.media_type:
            kept["content-type"] = passed.media_type
        length = _length(head) if passed.filter is None else None
        if length is not None:
            kept["content-length"] = str(length)
        headers = {**kept, **self._added(())}
        self._committed, self.status = True, head.status
        self.reading.has_content = True
        yield Commit(ResponseHead(head.status, tuple(headers.items())), length)

    def _data(self, chunk: bytes) -> Iterator[Action]:
        if self._reply is not None:
            self._reply.add(chunk)
            if self._reply.is_full:
                yield from self._end()
        elif self._passed is not None:
            if self._passed.filter is None:
                yield Emit(chunk)
                return
            for start in range(0, len(chunk), _AT_ONCE):
                changed = self._passed.filter.feed(chunk[start : start + _AT_ONCE])
                yield Emit(changed)

    def _end(self) -> Iterator[Action]:
        if self._reply is None:
            rest = self._passed.filter.end() if self._passed and self._passed.filter else b""
            if rest:
                yield Emit(rest)
            self.is_over = True
            yield Finish()
            return
        reply, self._reply = self._reply.whole(), None
        if reply.status >= FIRST_ERROR:  # and not what puts things in order after it
            self._retry_after = reply.headers.get("retry-after") or self._retry_after
        if self._passed is not None:
            raise ProviderFailed(self._passed.errors(reply.status, reply.body))
        yield from self._advance(reply)

    def _lost(self, lost: Lost) -> Iterator[Action]:
        if self._committed:
            self.close()
            self.is_over = True
            self.failure = lost.reason
            yield Abort()
            return
        if self._loss is None:
            broke_off = Fail(lost.criterion, lost.reason, Refused(BAD_GATEWAY, BROKE_OFF))
            has_some = self._reply is not None and lost.criterion != "timeout"
            self._loss = broke_off if has_some else no_answer(lost)
        self._reply = None
        error = ProviderFailed(ProviderError(self._loss.answer.message))
        yield from self._stepped(lambda: self._steps.throw(error))

    def broken(self, refused: Refused) -> Iterator[Action]:
        """What to do when the client's body has broken off."""
        yield from self._stepped(lambda: self._steps.throw(FormatError(refused.message)))

    def abandon(self) -> Iterator[Action]:
        """What to do when the client has left: the flow puts its things in order."""
        if self.is_over or self._passed is not None:
            self.close()
            return
        self._abandoned = True
        self._reply = None
        yield from self._stepped(lambda: self._steps.throw(FormatError("the client left")))

    # ---- the answer to the client

    def _failed(self, error: ProviderError) -> Iterator[Action]:
        """An error, as the client knows them."""
        self.close()
        self.is_over = True
        if self._abandoned:
            return
        if self._loss is not None:
            yield self._loss
            return
        if len(error.message) > MAX_MESSAGE:
            error = error._replace(message=f"{error.message[:MAX_MESSAGE]}...")
        error = privacy.masked_error(error, self._secrets())
        self.reading.note_error(error.message)
        if self._committed:
            self.failure = error.message
            yield Abort()
            return
        known = FIRST_CLIENT_ERROR <= error.status <= LAST_ERROR
        status = error.status if known else BAD_GATEWAY
        body = client_errors.error_body("openai", error._replace(status=status), openai_chat.CHAT)
        headers = {"content-type": _JSON, **self._added(())}
        if status in _RETRY_LATER and _PLAIN.fullmatch(self._retry_after or ""):
            headers["retry-after"] = str(self._retry_after)
        yield from self._whole(body, ResponseHead(status, tuple(headers.items())))

    def _whole(self, body: bytes, head: ResponseHead) -> Iterator[Action]:
        self.is_over, self._committed = True, True
        self.status = head.status
        self.reading.keep(body)
        headers = dict(head.headers)
        if head.status != OK:  # as with Kong's own plugin
            headers.pop(MODEL_HEADER, None)
        yield Commit(ResponseHead(head.status, tuple(headers.items())), len(body))
        if body:
            yield Emit(body)
        yield Finish()


def _length(head: ResponseHead) -> int | None:
    told = head.header("content-length") or ""
    return int(told) if told.isascii() and told.isdigit() and len(told) <= _MAX_DIGITS else None


class _Reply:
    """One answer of the provider's on its way to the flow."""

    def __init__(self, head: ResponseHead, most: int) -> None:
        """Raises ProviderFailed for a content coding that nobody here can read."""
        self._head = head
        self._is_error = head.status >= FIRST_ERROR
        self._most = MAX_ERROR if self._is_error else most
        self._pieces: list[bytes] = []
        self._size = 0
        encoding = head.header("content-encoding")
        try:
            self._decoder = coding.decoder(encoding) if encoding else None
        except coding.UnknownCoding as error:
            text = f"the provider's answer cannot be read: {error}"
            raise ProviderFailed(ProviderError(text)) from None

    def add(self, chunk: bytes) -> None:
        """Keep it. Raises CodingError, or ProviderFailed for too much."""
        for piece in self._decoder.feed(chunk) if self._decoder else (chunk,):
            self._keep(piece)

    def whole(self) -> Reply:
        """All of it. Raises as `add` does."""
        for piece in self._decoder.end() if self._decoder else ():
            self._keep(piece)
        headers = dict(reversed(self._head.headers))
        return Reply(self._head.status, b"".join(self._pieces), headers)

    @property
    def is_full(self) -> bool:
        """Whether it is an error of which more would not be looked at."""
        return self._is_error and self._size >= self._most

    def _keep(self, piece: bytes) -> None:
        if self.is_full:
            return
        self._size += len(piece)
        if self._size > self._most and not self._is_error:
            text = f"the provider's answer is longer than {self._most} bytes"
            raise ProviderFailed(ProviderError(text))
        self._pieces.append(piece)
