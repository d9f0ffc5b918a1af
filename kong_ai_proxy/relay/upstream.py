"""The relay's way to providers: one pool of connections, TLS that is verified, and errors that say
what went wrong in the words of `failover_criteria`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import urllib.parse
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import aiohttp
from aiohttp.connector import Connection
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

from kong_ai_proxy.auth.trust import shared_context
from kong_ai_proxy.exchange.messages import Address, End, Lost, ResponseHead
from kong_ai_proxy.relay.settings import RelaySettings
from kong_ai_proxy.telemetry.failures import frames_of

_log = logging.getLogger(__name__)

MAX_HEADERS = 256
MAX_HEADER_BYTES = 16 * 1024
"""Of one header line of a provider's answer; there are at most MAX_HEADERS of them."""
MAX_REFUSAL_BYTES = 1024 * 1024
"""Of the body of a refused WebSocket handshake."""

LATER_SECONDS = 10.0
"""What a request may still do once its client has left: such as to abort an upload."""

CLOSE_SECONDS = 5.0
"""What the other side of a WebSocket has to answer a close."""

KEPT_SECONDS = 15.0
"""How long an unused connection is kept. Less than providers do (60 s and more at the large ones),
since a request that meets a connection just being closed fails."""

OK = 200
SWITCHING_PROTOCOLS = 101
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_URL_SAFE = "!#$%&'()*+,/:;=?@[]~-._"
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

WHOLE = 64 * 1024
"""The largest body that is handed to aiohttp whole: less never waits for the provider."""
PIECE = 256 * 1024

Piece = bytes | memoryview
Body = bytes | AsyncGenerator[Piece] | None


class UpstreamLost(Exception):  # noqa: N818 - a result, told to the attempt
    """No answer, or no more of it."""

    def __init__(self, lost: Lost, *, sent: bool = True) -> None:
        """`sent`: whether anything of the request may have reached the provider."""
        super().__init__(lost.reason)
        self.lost = lost
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a connection, and for every single write and read."""

    connect: float
    write: float
    read: float


class _HeadLimit:
    """Ends the wait for an answer's head when the provider takes no more of the request, or keeps
    us waiting with anything but a head: interim answers, or a byte now and then, start aiohttp's
    own limit anew each time."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._timeout = asyncio.timeout(None)
        self._waiting = False

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._waiting = True
        return self

    async def __aexit__(self, *problem: Any) -> None:
        self._waiting = False
        await self._timeout.__aexit__(*problem)

    def watch(self, body: Body) -> bytes | AsyncGenerator[Piece] | None:
        """`body`, watched while it is sent."""
        if isinstance(body, bytes) and len(body) > WHOLE:
            body = _pieces(body)
        if isinstance(body, AsyncGenerator):
            return self._watch(body)
        limits = self._timeouts
        self._set(limits.connect + limits.write + limits.read)
        return body

    async def _watch(self, body: AsyncGenerator[Piece]) -> AsyncGenerator[Piece]:
        """Each piece is to be written in time. Waiting for the next one is free."""
        async with contextlib.aclosing(body):
            async for piece in body:
                self._set(self._timeouts.write)
                yield piece
                self._set(None)
        # What aiohttp writes after the last piece has no limit of its own.
        self._set(self._timeouts.write + self._timeouts.read)

    def _set(self, seconds: float | None) -> None:
        if self._waiting and not self._timeout.expired():
            now = asyncio.get_running_loop().time()
            self._timeout.reschedule(None if seconds is None else now + seconds)


async def _pieces(body: bytes) -> AsyncGenerator[Piece]:
    """A body that may not leave at once: only between its pieces can be seen whether it does."""
    view = memoryview(body)
    for start in range(0, len(body), PIECE):
        yield view[start : start + PIECE]


class _Response(aiohttp.ClientResponse):
    """Knows whom it is from when it has given its connection back too, as a short answer has at
    once."""

    ip: str | None = None

    @override
    async def start(self, connection: Connection) -> Self:
        peer = connection.transport.get_extra_info("peername") if connection.transport else None
        self.ip = peer[0] if peer else None
        await super().start(connection)
        return self


class Call:
    """A request that was sent and is answered; `head` has arrived."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Raises UpstreamLost for a head that cannot be passed on."""
        self._response = response
        self.ip = response.ip if isinstance(response, _Response) else None
        """The address that it is connected to; None where that is not known."""
        try:
            self.head = _head(response)
        except UpstreamLost:
            response.close()
            raise

    async def read(self) -> bytes:
        """The next piece of the body as it comes, b"" at its end. Raises UpstreamLost."""
        try:
            return await self._response.content.readany()
        except _FAILURES as error:
            raise _lost(error) from None

    def release(self) -> None:
        """Keep the connection if the answer is complete, else close it at once."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _head(response: aiohttp.ClientResponse) -> ResponseHead:
    """aiohttp takes heads that it would not send: it is lenient to servers (llhttp)."""
    if response.status < OK:
        raise UpstreamLost(Lost("invalid_header", f"status {response.status}"))
    headers = tuple(
        (name.decode("ascii", "replace").lower(), _text(value))
        for name, value in response.raw_headers
    )
    for name, value in headers:
        if _CONTROL.search(value):
            raise UpstreamLost(Lost("invalid_header", f"a control character in {name[:64]}"))
    return ResponseHead(response.status, headers)


def _text(value: bytes) -> str:
    """RFC 9110 section 5.5: what is not ASCII is opaque; in practice UTF-8, or else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, without two habits of it."""

    @override
    async def _get(self, key: Any, traces: Any) -> Any:
        """A kept connection on which nothing has come since: else it would be taken for the answer
        to the next request."""
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol  # false as a queue without messages is
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None

    @override
    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        """What is not kept is ended at once. Closing would first wait until the provider has taken
        what was not sent yet, which it may never do, and with TLS for its farewell."""
        if should_close or protocol.should_close:
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)


class Upstream:
    """Connections to providers, of one worker."""

    def __init__(self, settings: RelaySettings) -> None:
        """Raises OSError or ssl.SSLError for a CA file that cannot be loaded."""
        self._settings = settings
        self._later: set[asyncio.Task[None]] = set()
        tls = shared_context(settings.ca_file)
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_raise_refusal)
        trace.on_request_redirect.append(_raise_refusal)  # ws_connect would follow it
        connector = _Connector(
            limit=0, ssl=tls, keepalive_timeout=KEPT_SECONDS, enable_cleanup_closed=False
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            max_headers=MAX_HEADERS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        # aiohttp sends requests of idempotent methods twice, on new connections too. Whether there
        # is another try is not decided down here.
        self._session._retry_connection = False
        self._handshakes = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            max_headers=MAX_HEADERS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            trace_configs=[trace],
        )
        self._handshakes._retry_connection = False

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that nobody waits for, within LATER_SECONDS."""
        task = asyncio.create_task(_bounded(work))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def close(self) -> None:
        """Close what is kept, once nothing is to be done later."""
        await asyncio.gather(*self._later)
        await self._handshakes.close()
        await self._session.close()

    async def send(
        self,
        method: str,
        address: Address,
        headers: CIMultiDict[str],
        body: Body,
        timeouts: Timeouts,
    ) -> Call:
        """Send a request and wait for the head of its answer. Raises UpstreamLost."""
        limit = aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=timeouts.read)
        if isinstance(body, bytes) and body:
            headers["content-length"] = str(len(body))
        try:
            async with _HeadLimit(timeouts) as waiting:
                response = await self._session.request(
                    method,
                    url_of(address),
                    headers=headers,
                    data=waiting.watch(body),
                    proxy=self._settings.proxy_for(address.scheme, address.host, address.port),
                    allow_redirects=False,
                    timeout=limit,
                )
        except _FAILURES as error:
            raise _lost(error) from None
        return Call(response)

    async def websocket(
        self,
        address: Address,
        headers: CIMultiDict[str],
        protocols: list[str],
        timeouts: Timeouts,
        max_message: int,
    ) -> aiohttp.ClientWebSocketResponse[bool]:
        """Open a WebSocket. Raises UpstreamLost, or HandshakeRefused with the answer."""
        try:
            async with asyncio.timeout(timeouts.connect + timeouts.read):
                return await self._handshakes.ws_connect(
                    url_of(address),
                    headers=headers,
                    protocols=protocols,
                    proxy=self._settings.proxy_for(address.scheme, address.host, address.port),
                    autoclose=False,
                    autoping=False,
                    max_msg_size=max_message,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except _FAILURES as error:
            raise _lost(error) from None


async def _bounded(work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(LATER_SECONDS):
            await work
    except Exception as error:  # nobody is there to be told
        _log.warning("what an ended request left could not be put in order: %s", frames_of(error))


class HandshakeRefused(Exception):  # noqa: N818 - a result, passed on to the client
    """The provider answered a WebSocket handshake with something else."""

    def __init__(self, head: ResponseHead, body: bytes, end: End | Lost) -> None:
        super().__init__(str(head.status))
        self.head = head
        self.body = body
        self.end = end


async def _raise_refusal(
    _session: aiohttp.ClientSession,
    _context: object,
    params: aiohttp.TraceRequestEndParams | aiohttp.TraceRequestRedirectParams,
) -> None:
    """aiohttp's own error for a refused handshake has no body."""
    response = params.response
    if response.status == SWITCHING_PROTOCOLS:
        return
    try:
        head = _head(response)
        # A client that follows takes what it shows to the gateway past it.
        kept = tuple(each for each in head.headers if each[0] != "location")
        head = head._replace(headers=kept)
        pieces: list[bytes] = []
        left = MAX_REFUSAL_BYTES
        while left > 0 and (piece := await response.content.read(left)):
            pieces.append(piece)
            left -= len(piece)
    finally:
        response.close()
    end = End() if left else Lost("error", f"more than {MAX_REFUSAL_BYTES - 1} bytes")
    raise HandshakeRefused(head, b"".join(pieces), end)


_FAILURES = (aiohttp.ClientError, OSError)  # TimeoutError is an OSError


def _lost(error: BaseException) -> UpstreamLost:
    """What aiohttp's error means. Texts are made here, since those of exceptions may have a
    proxy's password in them."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamLost(Lost("timeout", "no connection in time"), sent=False)
    if isinstance(error, TimeoutError):
        return UpstreamLost(Lost("timeout", type(error).__name__))
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamLost(Lost("error", f"cannot connect: {_reason(error)}"), sent=False)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return UpstreamLost(Lost("error", f"the proxy answered {error.status}"), sent=False)
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamLost(Lost("invalid_header", f"no valid HTTP: {error.status}"))
    return UpstreamLost(Lost("error", type(error).__name__))


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted (--ca-file adds an authority)"
    return type(error.os_error).__name__ if error.os_error else type(error).__name__


@lru_cache(maxsize=1024)
def url_of(address: Address) -> URL:
    """The URL, with every byte that is not ASCII percent-encoded and all else as it is."""
    return URL.build(
        scheme=address.scheme,
        host=address.host.strip("[]"),
        port=address.port,
        path=_ascii(address.path or "/"),
        query_string=_ascii(address.query),
        encoded=True,
    )


def _ascii(text: str) -> str:
    return text if text.isascii() else urllib.parse.quote(text, _URL_SAFE, errors="surrogateescape")
