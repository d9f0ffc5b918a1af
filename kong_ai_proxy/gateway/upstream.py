"""Connections to upstreams: name resolution, TLS, and a pool of kept-alive ones."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections import defaultdict, deque
from dataclasses import dataclass

from kong_ai_proxy.gateway.stream import Stream

_POOL_SIZE = 512  # Kong: upstream_keepalive_pool_size
_IDLE_SECONDS = 60.0  # Kong: upstream_keepalive_idle_timeout
_NAME_SECONDS = 5.0
_MOST_NAMES = 1000


class NameResolutionFailed(Exception):  # noqa: N818 - Kong's words
    """The upstream's host has no address."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, and for TLS with which name."""

    ip: str
    port: int
    tls: bool
    server_name: str = ""
    verify: bool = False


class Resolver:
    """The machine's name resolution, with answers kept for a moment."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[list[str], float]] = {}

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a host, IPv4 first as Kong has it. Raises NameResolutionFailed.

        Names below `.invalid` never resolve (RFC 6761), whatever the machine's resolver says.
        """
        if is_ip(host):
            return [host.strip("[]")]
        now = asyncio.get_running_loop().time()
        known, until = self._known.get(host, ([], 0.0))
        if now < until:
            return known
        found = await _look_up(host)
        if len(self._known) >= _MOST_NAMES:  # a plugin may choose hosts at a client's word
            self._known.clear()
        self._known[host] = found, now + _NAME_SECONDS
        return found


async def _look_up(host: str) -> list[str]:
    if host.rstrip(".").lower().rpartition(".")[2] == "invalid" or not host:
        raise NameResolutionFailed(host)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NameResolutionFailed(host) from error
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def is_ip(host: str) -> bool:
    """Whether a host is an address; then Kong cannot make it a name later on."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.strip("[]"))
        return True
    return False


class Pool:
    """Kept-alive connections, by address. Never shared between verified and unverified TLS."""

    def __init__(self) -> None:
        self._idle: defaultdict[Address, deque[tuple[Stream, float]]] = defaultdict(deque)
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def take(self, address: Address) -> Stream | None:
        """A kept connection that is still open, if there is one."""
        idle = self._idle.get(address, deque())
        now = asyncio.get_running_loop().time()
        while idle:
            stream, until = idle.pop()
            if stream.usable and now < until:
                return stream
            stream.close()
        self._idle.pop(address, None)
        return None

    def give_back(self, address: Address, stream: Stream) -> None:
        """Keep a connection whose last response is complete."""
        idle = self._idle[address]
        if not stream.usable or len(idle) >= _POOL_SIZE:
            stream.close()
            return
        idle.append((stream, asyncio.get_running_loop().time() + _IDLE_SECONDS))

    async def connect(self, address: Address, timeout: float) -> Stream:  # noqa: ASYNC109
        """A new connection. Raises OSError (ssl.SSLError among them) or TimeoutError."""
        context = self._context(address.verify) if address.tls else None
        async with asyncio.timeout(timeout):
            _, stream = await asyncio.get_running_loop().create_connection(
                Stream,
                address.ip,
                address.port,
                ssl=context,
                server_hostname=address.server_name if address.tls else None,
            )
        return stream

    def _context(self, verify: bool) -> ssl.SSLContext:
        if verify not in self._contexts:
            context = ssl.create_default_context()
            if not verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._contexts[verify] = context
        return self._contexts[verify]

    def close(self) -> None:
        """Close what is idle."""
        for idle in self._idle.values():
            for stream, _ in idle:
                stream.close()
        self._idle.clear()
