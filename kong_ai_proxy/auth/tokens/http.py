"""Requests to token endpoints: short, limited, and with errors that hold no secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import aiohttp
from yarl import URL

from kong_ai_proxy.auth.tokens.errors import TokenError
from kong_ai_proxy.auth.trust import shared_context

CONNECT_SECONDS = 3.0
"""Metadata servers are near; where there is none, packets to their address are often dropped."""
TOTAL_SECONDS = 10.0
MAX_ANSWER = 256 * 1024
CONNECTIONS = 16

ProxyFor = Callable[[str, str, int], str | None]
"""Scheme, host and port to the URL of the proxy, None for no proxy."""


class Answer(NamedTuple):
    """A whole answer of a token endpoint."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Http:
    """The connections of one worker to token endpoints."""

    def __init__(self, ca_file: str | None, proxy_for: ProxyFor | None) -> None:
        """Raises OSError or ssl.SSLError for a CA file that cannot be loaded."""
        self._tls = shared_context(ca_file)
        self.proxy_for: ProxyFor = proxy_for or (lambda _scheme, _host, _port: None)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        url: str | URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Answer:
        """The answer to a request, whatever its status. Raises TokenError."""
        try:
            address = URL(url)
            host, port = address.host or "", address.port or 0
        except ValueError:
            raise TokenError("the address of a token endpoint is no URL") from None
        try:
            async with self._opened().request(
                method,
                address,
                headers=headers,
                data=body,
                proxy=self.proxy_for(address.scheme, host, port),
                allow_redirects=False,
            ) as response:
                return Answer(response.status, response.headers, await _read(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            # Texts of exceptions may have a proxy's password or a header in them.
            raise TokenError(f"{address.host}: {_reason(error)}") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS),
                skip_auto_headers=("Accept-Encoding", "Content-Type"),
            )
        return self._session


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_ANSWER:
            raise ValueError("too long")
    return bytes(data)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted (--ca-file adds an authority)"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {type(error.os_error).__name__}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    return f"no usable answer: {type(error).__name__}"
