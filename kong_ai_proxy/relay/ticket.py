"""The ticket: what the access phase tells the relay about a request, in a header of its own.

The relay is a port of the machine that anybody on it can connect to. It takes a request only with a
ticket, which says who the client is and which configuration is meant, is bound to the request's
method and target, and is honoured once.

A ticket is base64url (RFC 4648 section 5, without padding) of an HMAC-SHA256 (RFC 2104) and what
it covers: number, time of expiry, instance, digest, and the claims' texts with a NUL between two.
The HMAC covers method and target too.
"""

from __future__ import annotations

import binascii
import hmac
import struct
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from kong_ai_proxy.relay.once import ClaimError

HEADER: Final = "x-kong-ai-proxy-ticket"

LIFETIME: Final = 3600.0
"""Seconds. Access runs before a slow upload has arrived."""

MAX_BYTES: Final = 16_384
"""The longest ticket that is issued or read."""

DIGEST_BYTES: Final = 32

_MAC_BYTES: Final = 32
_FIXED: Final = struct.Struct("!QdI32s")
_MAX_TEXTS: Final = MAX_BYTES * 3 // 4 - _MAC_BYTES - _FIXED.size
_SIZES: Final = struct.Struct("!II")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")  # the other alphabet is none


class Numbers(Protocol):
    """Where an Issuer gets its tickets' numbers, none of them twice."""

    def take(self) -> int: ...


class Claimer(Protocol):
    """Where a Verifier sees to it that a number is honoured once; raises ClaimError otherwise."""

    def claim(self, number: int, /) -> None: ...


class Claims(NamedTuple):
    """What the access phase knows of a request and the relay needs.

    Text that came off the wire is decoded as UTF-8 with `surrogateescape`.
    """

    instance: int
    """The instance's id, which is positive and below 2^31."""
    digest: bytes
    """Of the instance's configuration, 32 bytes."""
    consumer_id: str = ""
    consumer_name: str = ""
    client_address: str = ""
    request_id: str = ""
    """Kong's; "" on a Kong that gives none."""
    route_path: str = ""
    """The path prefix of the route that matched; "" where it is not needed."""
    origin: str = ""
    """Scheme, host and port as the client wrote them; "" where they are not needed."""
    captures: Mapping[str, str] = MappingProxyType({})
    """The named captures of the route's path, only where they are needed."""
    groups: tuple[tuple[str, str], ...] = ()
    """Id and name of each consumer group, only where they are needed."""


class TicketError(Exception):
    """A ticket that is not honoured, or cannot be issued for such claims.

    The text is for logs and never holds any of the ticket. `expired` tells a ticket of ours that
    came too late from all others.
    """

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class Issuer:
    """Makes tickets, in one worker.

    `port` is where the relay of this generation listens, on 127.0.0.1. `now` is a clock that all
    processes of the machine share and nobody sets.
    """

    def __init__(
        self,
        secret: bytes,
        numbers: Numbers,
        port: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = port
        self._secret = secret
        self._numbers = numbers
        self._now = now

    def issue(self, claims: Claims, method: str, target: str) -> str:
        """A ticket for one request that will reach the relay with this method and request target
        (`/path?query`, as Kong sends it). Raises TicketError for claims that are too long or have a
        NUL in them."""
        if len(claims.digest) != DIGEST_BYTES:
            raise ValueError(f"expected a digest of {DIGEST_BYTES} bytes, got {len(claims.digest)}")
        texts = _pack(claims)
        if len(texts) > _MAX_TEXTS:
            raise TicketError(f"claims of {len(texts)} bytes: expected at most {_MAX_TEXTS}")
        number, expiry = self._numbers.take(), self._now() + LIFETIME
        covered = _FIXED.pack(number, expiry, claims.instance, claims.digest) + texts
        mac = _mac(self._secret, covered, method, target)
        ticket = binascii.b2a_base64(mac + covered, newline=False).translate(_TO_URL).rstrip(b"=")
        return ticket.decode("ascii")


class Verifier:
    """Takes tickets, in any worker of the generation that issued them."""

    def __init__(
        self, secret: bytes, once: Claimer, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._secret = secret
        self._once = once
        self._now = now

    def verify(self, ticket: str | None, method: str, target: str) -> Claims:
        """The claims of a ticket that came with a request of this method and request target (as it
        was received). Uses the ticket up. Raises TicketError."""
        covered = self._covered(ticket, method, target)
        number, expiry, instance, digest = _FIXED.unpack_from(covered)
        late = self._now() - expiry
        if late >= 0:
            raise TicketError(f"the ticket expired {late:.0f} s ago", expired=True)
        try:
            self._once.claim(number)
        except ClaimError as error:
            raise TicketError(f"the ticket has {error}") from None
        return _unpack(instance, digest, covered)

    def _covered(self, ticket: str | None, method: str, target: str) -> bytes:
        """What the ticket's HMAC covers, once that has been found right."""
        if not ticket:
            raise TicketError("there is no ticket")
        try:
            raw = _decode(ticket)
        except ValueError:
            raise TicketError("the ticket is no ticket") from None
        covered = raw[_MAC_BYTES:]
        if not hmac.compare_digest(raw[:_MAC_BYTES], _mac(self._secret, covered, method, target)):
            raise TicketError("the ticket was not issued here for this request")
        return covered


def _mac(secret: bytes, covered: bytes, method: str, target: str) -> bytes:
    how, what = _bytes(method), _bytes(target)
    return hmac.digest(secret, _SIZES.pack(len(how), len(what)) + how + what + covered, "sha256")


def _decode(ticket: str) -> bytes:
    """Raises ValueError for what is not base64url."""
    if len(ticket) > MAX_BYTES:
        raise ValueError
    text = ticket.encode("ascii").translate(_FROM_URL)
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)


def _pack(claims: Claims) -> bytes:
    texts = [
        claims.consumer_id,
        claims.consumer_name,
        claims.client_address,
        claims.request_id,
        claims.route_path,
        claims.origin,
        str(len(claims.groups)),
    ]
    for name, value in (*claims.groups, *claims.captures.items()):
        texts += name, value
    packed = "\0".join(texts)
    if packed.count("\0") != len(texts) - 1:
        raise TicketError("a claim has a NUL character")
    return _bytes(packed)


def _unpack(instance: int, digest: bytes, covered: bytes) -> Claims:
    packed = covered[_FIXED.size :].decode("utf-8", "surrogateescape")
    texts = packed.split("\0")
    consumer_id, consumer_name, client_address, request_id, route_path, origin, count, *rest = texts
    pairs = list(zip(rest[::2], rest[1::2], strict=True))
    return Claims(
        instance=instance,
        digest=digest,
        consumer_id=consumer_id,
        consumer_name=consumer_name,
        client_address=client_address,
        request_id=request_id,
        route_path=route_path,
        origin=origin,
        captures=dict(pairs[int(count) :]),
        groups=tuple(pairs[: int(count)]),
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
