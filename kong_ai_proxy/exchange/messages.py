"""The frozen values that go in and out of the exchange. Named tuples: many are made for each
request, and a frozen dataclass takes longer to make.

Text that came off the wire is `str` decoded as UTF-8 with `surrogateescape`. Header names are in
lower case; a header that was repeated has several values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from kong_ai_proxy.auth.identity import Credential
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.providers.flow import Send

Headers = Mapping[str, tuple[str, ...]]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Env(NamedTuple):
    """What a request needs of the world, told by whoever drives the exchange."""

    now: float = 0.0
    """Seconds since 1970."""
    id: str = ""
    """Random, 24 letters and digits."""
    credential: Credential | None = None
    """Of the attempt's `identity`."""


NO_ENV = Env()


class Consumer(NamedTuple):
    """Who Kong has found the client to be. Never what the client says of itself in a header."""

    id: str = ""
    username: str = ""
    groups: tuple[tuple[str, str], ...] = ()
    """Id and name of each consumer group, where they are needed."""


NOBODY = Consumer()


class ClientRequest(NamedTuple):
    """What the client sent, but for its body."""

    method: str
    path: str = ""
    """Percent-encoded, without the query; "" where it is not needed."""
    query: str = ""
    """Raw, without "?"."""
    headers: Headers = NOTHING
    captures: Mapping[str, str] = NOTHING
    """The named captures of the route's path."""
    route_path: str = ""
    """The route's path prefix that matched, where it is needed; "" for none."""
    origin: str = ""
    """Scheme, host and port as the client wrote them, where they are needed."""
    consumer: Consumer = NOBODY
    """Where it is needed; NOBODY also where nobody was authenticated."""
    address: str = ""
    """Where the client connects from, as Kong knows it, where it is needed."""

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


class BodyFilter(Protocol):
    """Looks at a body piece by piece, and may change it."""

    @property
    def may_change(self) -> bool:
        """Whether the body may get another length."""

    def feed(self, chunk: bytes) -> bytes:
        """What goes on of this piece and of what was held back before. Raises Refused."""

    def end(self) -> bytes:
        """What is left once the client has sent all. Raises Refused."""


class UpstreamRequest(NamedTuple):
    """What goes to the provider, told as changes to what the client sent.

    Kong, or whoever carries it, sends the client's request with these changes. `body` is None
    where the client's body goes on as it is; a filter changes it while it passes.
    """

    method: str
    address: Address
    set_headers: Mapping[str, str]
    drop_headers: frozenset[str]
    """Lower-case names that the client sent and the provider must not see."""
    body: bytes | BodyFilter | None = None
    secret_headers: frozenset[str] = frozenset()
    """Names in `set_headers` whose value must not be logged."""
    secret_query: frozenset[str] = frozenset()
    """Names in the query whose value must not be logged."""
    response_headers: Mapping[str, str] = NOTHING
    """Headers to add to the answer."""


class ResponseHead(NamedTuple):
    """Status and headers of an answer, in their order; names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


Criterion = Literal["error", "timeout", "invalid_header"]
"""What went wrong between us and the provider, in the words of `failover_criteria`."""


# What happens to a request that was sent, in this order: Head, Data any number of times, End; or
# Lost in place of any of them.


class Head(NamedTuple):
    """The provider has answered."""

    head: ResponseHead


class Data(NamedTuple):
    """A piece of the answer's body, as it came off the wire."""

    chunk: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The answer is complete."""


class Lost(NamedTuple):
    """There will be no answer, or no more of it."""

    criterion: Criterion
    reason: str
    """For logs. Holds no secret."""


class Received(NamedTuple):
    """After a Take: the next of the client's body, b"" at its end."""

    chunk: bytes


class Woken(NamedTuple):
    """After a Pause: it is over."""

    now: float
    """Seconds since 1970."""


Event = Head | Data | End | Lost | Received | Woken


# What is to be done then, in this order: Commit, Emit any number of times, Finish or Abort; or Fail
# in place of all.


class Commit(NamedTuple):
    """Answer the client with this head. From here on there is no other target."""

    head: ResponseHead
    length: int | None
    """Of the body in bytes, where it is known."""


class Emit(NamedTuple):
    """Send this to the client."""

    chunk: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete."""


@dataclass(frozen=True, slots=True)
class Abort:
    """The answer breaks off: the client must not take it for complete."""


class Fail(NamedTuple):
    """This target did not do. `answer` is for the client if there is no other one."""

    criterion: str
    """In the words of `failover_criteria`: a Criterion, or http_ and a status."""
    reason: str
    answer: Refused
    told: tuple[Action, ...] = ()
    """What the provider's own answer is to the client, where it has given one: in place of
    `answer`."""
    also: str = ""
    """Another word for it; "" for none."""


# A request that takes several calls asks for them, each in place of what the one before would
# still bring: to be followed by the events of that call, or by Received or Woken.


class NextCall(NamedTuple):
    """Call the provider: `Attempt.request` makes the request of it, when it is due."""

    send: Send


@dataclass(frozen=True, slots=True)
class Take:
    """Read what the client sends next."""


class Pause(NamedTuple):
    """Let time pass."""

    seconds: float


Action = Commit | Emit | Finish | Abort | Fail | NextCall | Take | Pause
