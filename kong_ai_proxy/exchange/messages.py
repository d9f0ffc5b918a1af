"""The frozen values that go in and out of the exchange.

Text that came off the wire is `str` decoded as UTF-8 with `surrogateescape`. Header names are in
lower case; a header that was repeated has several values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Headers = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """What the client sent, but for its body."""

    method: str
    path: str = ""
    """Percent-encoded, without the query; "" where it is not needed."""
    query: str = ""
    """Raw, without "?"."""
    headers: Headers = field(default_factory=dict)
    captures: Mapping[str, str] = field(default_factory=dict)
    """The named captures of the route's path."""

    def header(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        values = self.headers.get(name)
        return values[0] if values else None

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head (RFC 9112 section 6.3)."""
        length = self.header("content-length")
        return "transfer-encoding" in self.headers or (length is not None and length.strip() != "0")


class Address(NamedTuple):
    """Where a provider is reached."""

    scheme: str
    host: str
    port: int
    path: str
    """Percent-encoded; starts with "/"."""
    query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """What goes to the provider, told as changes to what the client sent.

    Kong, or whoever carries it, sends the client's request with these changes. `body` is None
    where the client's body goes on as it is.
    """

    method: str
    address: Address
    set_headers: Mapping[str, str]
    drop_headers: frozenset[str]
    """Lower-case names that the client sent and the provider must not see."""
    body: bytes | None = None
    secret_headers: frozenset[str] = frozenset()
    """Names in `set_headers` whose value must not be logged."""
    secret_query: frozenset[str] = frozenset()
    """Names in the query whose value must not be logged."""
    response_headers: Mapping[str, str] = field(default_factory=dict)
    """Headers to add to the answer."""
