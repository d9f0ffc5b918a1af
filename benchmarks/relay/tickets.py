"""Tickets for requests that reach the relay without Kong's access phase."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator

from benchmarks.relay import cases
from kong_ai_proxy.relay import ticket
from kong_ai_proxy.relay.once import Once

MARKER = "x-kong-ai-proxy-marker"


class Tickets:
    """Signs with the secret in a shared memory."""

    def __init__(self, descriptor: int) -> None:
        once = Once(descriptor)
        self._issuer = ticket.Issuer(once.secret, once.numbers(0), port=0)

    def lines(self, name: str, ahead: int) -> Iterator[bytes]:
        """Header lines, one item a request: `ahead` are signed now, further ones when needed.

        Empty ones with `ahead` 0.
        """
        if not ahead:
            return itertools.repeat(b"")
        ready = [self._line(name) for _ in range(ahead)]
        return itertools.chain(ready, (self._line(name) for _ in itertools.count()))

    def _line(self, name: str) -> bytes:
        claims = ticket.Claims(
            instance=cases.INSTANCES.index(name) + 1,
            digest=cases.DIGEST,
            client_address="192.0.2.7",
            request_id=cases.CLIENT_HEADERS["X-Kong-Request-Id"],
            route_path=f"/{name}",
        )
        issued = self._issuer.issue(claims, *cases.target(name))
        return f"{ticket.HEADER}: {issued}\r\n{MARKER}: {secrets.token_hex(16)}\r\n".encode()
