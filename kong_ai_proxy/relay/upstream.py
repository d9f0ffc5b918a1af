"""The relay's way to providers: one pool of connections, TLS that is verified, and errors that say
what went wrong in the words of `failover_criteria`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.parse
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from kong_ai_proxy.exchange.messages import Address, Lost, ResponseHead
from kong_ai_proxy.relay.settings import RelaySettings

MAX_HEADERS = 256
MAX_HEADER_BYTES = 16 * 1024
"""Of one header line of a provider's answer; there are at most MAX_HEADERS of them."""
MAX_REFUSAL_BYTES = 1024 * 1024
"""Of the body of a refused WebSocket handshake."""

CLOSE_SECONDS = 5.0
"""What the other side of a WebSocket has to answer a close."""

KEPT_SECONDS = 15.0
"""How long an unused connection is kept. Less than providers do (60 s and more at the large ones),
since a request that meets a connection just being closed fails."""

_URL_SAFE = "!#$%&'()*+,/:;=?@[]~-._"
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

Body = bytes | AsyncGenerator[bytes] | None


class UpstreamLost(Exception):  # noqa: N818 - a result, told to the attempt
    """No answer, or no more of it."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.reason)
        self.lost = lost


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a connection, and for every single write and read."""

    connect: float
    write: float
    read: float


class _WriteLimit:
    """Ends the wait for an answer when the provider takes no more of the request."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._waiting = False

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._waiting = True

    async def __aexit__(self, *problem: Any) -> None:
        self._waiting = False
        await self._timeout.__aexit__(*problem)

    async def watch(self, body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """The pieces of `body`, each to be written in time. Waiting for the next one is free."""
        loop = asyncio.get_running_loop()
        async with contextlib.aclosing(body):
            async for piece in body:
                self._set(loop.time() + self._seconds)
                yield piece
                self._set(None)

    def _set(self, when: float | None) -> None:
        if self._waiting and not self._timeout.expired():
            self._timeout.reschedule(when)


class Call:
    """A request that was sent and is answered; `head` has arrived."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.head = ResponseHead(
            response.status,
            tuple(
                (name.decode("ascii", "replace").lower(), _text(value))
                for name, value in response.raw_headers
            ),
        )

    async def read(self) -> bytes:
        """The next piece of the body as it comes, b"" at its end. Raises UpstreamLost."""
        with _told():
            return await self._response.content.readany()

    def release(self) -> None:
        """Keep the connection if the answer is complete, else close it at once."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _text(value: bytes) -> str:
    """RFC 9110 section 5.5: what is not ASCII is opaque; in practice UTF-8, or else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Upstream:
    """Connections to providers, of one worker."""

    def __init__(self, settings: RelaySettings) -> None:
        """Raises OSError or ssl.SSLError for a CA file that cannot be loaded."""
        self._settings = settings
        self._tls = ssl.create_default_context()
        if settings.ca_file:
            self._tls.load_verify_locations(settings.ca_file)
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_raise_refusal)
        connector = aiohttp.TCPConnector(
            limit=0, ssl=self._tls, keepalive_timeout=KEPT_SECONDS, enable_cleanup_closed=False
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            max_headers=MAX_HEADERS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self._handshakes = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTOMATIC,
            max_headers=MAX_HEADERS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            trace_configs=[trace],
        )

    async def close(self) -> None:
        """Close what is kept."""
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
        limit = aiohttp.ClientTimeout(
            total=None, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        writing = _WriteLimit(timeouts.write)
        with _told():
            async with writing:
                response = await self._session.request(
                    method,
                    url_of(address),
                    headers=headers,
                    data=writing.watch(body) if isinstance(body, AsyncGenerator) else body,
                    proxy=self._settings.proxy_for(address.scheme, address.host, address.port),
                    allow_redirects=False,
                    timeout=limit,
                )
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
        with _told():
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


class HandshakeRefused(Exception):  # noqa: N818 - a result, passed on to the client
    """The provider answered a WebSocket handshake with something else."""

    def __init__(self, head: ResponseHead, body: bytes) -> None:
        super().__init__(str(head.status))
        self.head = head
        self.body = body


async def _raise_refusal(
    _session: aiohttp.ClientSession, _context: object, params: aiohttp.TraceRequestEndParams
) -> None:
    """aiohttp's own error for a refused handshake has no body."""
    response = params.response
    if response.status == 101:
        return
    try:
        body = await response.content.read(MAX_REFUSAL_BYTES)
    finally:
        response.close()
    raise HandshakeRefused(Call(response).head, body)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what aiohttp raises into UpstreamLost. Texts are made here, since those of exceptions
    may have a proxy's password in them."""
    try:
        yield
    except TimeoutError as error:
        raise UpstreamLost(Lost("timeout", type(error).__name__)) from None
    except aiohttp.ClientConnectorError as error:
        raise UpstreamLost(Lost("error", f"cannot connect: {_reason(error)}")) from None
    except aiohttp.ClientHttpProxyError as error:
        raise UpstreamLost(Lost("error", f"the proxy answered {error.status}")) from None
    except aiohttp.ClientResponseError as error:
        raise UpstreamLost(Lost("invalid_header", f"no valid HTTP: {error.status}")) from None
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamLost(Lost("error", type(error).__name__)) from None


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    return type(error.os_error).__name__ if error.os_error else type(error).__name__


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
