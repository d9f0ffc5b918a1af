"""A whole exchange in memory: a client's request goes through an attempt to a provider's stand-in,
which judges it, and the answer comes back through the same attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from kong_ai_proxy import config
from kong_ai_proxy.auth.sigv4 import AwsCredentials
from kong_ai_proxy.exchange.address import DEFAULT_PORTS
from kong_ai_proxy.exchange.attempt import Attempt
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import (
    Abort,
    Action,
    ClientRequest,
    Commit,
    Data,
    Emit,
    End,
    Env,
    Fail,
    Finish,
    Head,
    Lost,
    ResponseHead,
    UpstreamRequest,
)
from kong_ai_proxy.exchange.plan import Body, Plan
from kong_ai_proxy.relay.incoming import outgoing_headers
from tests.integration.known_text_vendors import ACCESS_KEY, SECRET_KEY, Vendor
from tests.providers import Recorded, Turn, Upstream
from tests.providers.upstream import Reply

Json = dict[str, Any]

ID = "0123456789abcdefABCDEFGH"

Split = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> list[bytes]:
    """All at once."""
    return [data]


def at(place: int) -> Split:
    """In two, cut there."""
    return lambda data: [data[:place], data[place:]]


@dataclass
class Client:
    """What a client gets, action by action."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    ending: Action | None = None

    def take(self, actions: Iterable[Action]) -> None:
        """Do what the attempt says."""
        for action in actions:
            assert self.ending is None, f"{action} after the end"
            match action:
                case Commit(head, length):
                    assert not self.status, "two heads"
                    self.status, self.headers = head.status, dict(head.headers)
                    self.length = length
                case Emit(chunk):
                    assert self.status, "a body before its head"
                    assert chunk
                    self.pieces.append(chunk)
                case Finish() | Abort() | Fail():
                    self.ending = action

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of a stream of server-sent events, [DONE] as it is."""
        return list(sse_data(self.body))

    @property
    def dropped(self) -> set[str]:
        """What X-Kong-AI-Dropped-Params lists."""
        return _listed(self.headers)


def _listed(headers: Mapping[str, str]) -> set[str]:
    listed = headers.get("x-kong-ai-dropped-params", "")
    return {name.strip() for name in listed.split(",") if name.strip()}


def sse_data(body: bytes) -> Iterator[Any]:
    """Each event's data, parsed where it is JSON."""
    for event in body.split(b"\n\n"):
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                data = line[5:].strip()
                yield orjson.loads(data) if data[:1] in b"{[" and data != b"[DONE]" else data


@lru_cache(maxsize=64)
def _plan(configuration: bytes) -> Plan:
    """Ready for many exchanges, as in the relay."""
    plan = Plan(config.parse("ai-proxy", orjson.loads(configuration)))
    plan.check_available()
    return plan


class Exchange:
    """One request of a client, up to the provider."""

    def __init__(
        self,
        vendor: Vendor,
        body: Json | bytes | None,
        *,
        path: str = "/chat",
        method: str = "POST",
        query: str = "",
        headers: Mapping[str, str] | None = None,
        captures: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> None:
        """`changes` are the configuration's, see Vendor.config. Raises Refused."""
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        changes.setdefault("logging", {"log_statistics": True})
        self.plan = _plan(orjson.dumps(vendor.config(None, **changes)))
        own = {name: (value,) for name, value in (headers or {}).items()}
        if raw:
            own |= {"content-type": ("application/json",), "content-length": (str(len(raw)),)}
        self.request = ClientRequest(method, path, query, own, captures or {}, "/chat")
        self.plan.check_head(self.request)
        read = raw if self.plan.body(self.request) is Body.READ else None
        self.attempt: Attempt = self.plan.attempt(self.request, read, relayed=True)
        credential = AwsCredentials(ACCESS_KEY, SECRET_KEY) if self.attempt.identity else None
        self.upstream: UpstreamRequest = self.attempt.start(Env(time.time(), ID, credential))
        self.client = Client()
        self.raw = raw

    @property
    def sent(self) -> Recorded:
        """The request as the provider sees it."""
        place = self.upstream.address
        headers = outgoing_headers(self.request, self.upstream)
        default = DEFAULT_PORTS[place.scheme] == place.port
        headers["Host"] = place.host if default else f"{place.host}:{place.port}"
        own = self.upstream.body
        assert own is None or isinstance(own, bytes)
        body = self.raw if own is None else own
        return Recorded(self.upstream.method, place.path, place.query, headers, body)  # type: ignore[arg-type]

    @property
    def dropped(self) -> set[str]:
        """What X-Kong-AI-Dropped-Params will list."""
        return _listed(self.upstream.response_headers)

    def head(self, status: int = 200, **headers: str) -> None:
        """The provider answers with this head."""
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        self.client.take(self.attempt.feed(Head(ResponseHead(status, named))))

    def data(self, *chunks: bytes) -> None:
        """Pieces of the body arrive."""
        for chunk in chunks:
            self.client.take(self.attempt.feed(Data(chunk)))

    def end(self) -> Client:
        """The body is complete."""
        self.client.take(self.attempt.feed(End()))
        return self.client

    def lost(self, criterion: Any = "error") -> Client:
        """The connection breaks off."""
        self.client.take(self.attempt.feed(Lost(criterion, "connection reset")))
        return self.client

    def answered(self, reply: Reply, split: Split = whole) -> Client:
        """The provider answers like that, its body cut by `split`."""
        headers = {"content-type": reply.content_type}
        headers |= {name.lower(): value for name, value in reply.headers.items()}
        self.head(reply.status, **headers)
        frames = [reply.body] if reply.frames is None else reply.frames
        self.data(*(piece for piece in split(b"".join(frames)) if piece))
        return self.end()

    def judged(self, vendor: Vendor, turn: Turn | None = None) -> Reply:
        """What the vendor's stand-in answers. Fails where it finds the request wrong."""
        stand_in = vendor.stand_in()
        reply = judge(stand_in, self.sent, turn or Turn())
        assert not stand_in.failures, stand_in.failures
        return reply


def judge(stand_in: Upstream, sent: Recorded, turn: Turn) -> Reply:
    """What a stand-in answers, without a socket."""
    return stand_in._reply(sent, turn)


def exchanged(
    vendor: Vendor, body: Json | bytes | None, turn: Turn | None = None, **more: Any
) -> tuple[Recorded, Client]:
    """One request and its answer: what the provider got, and the client. Raises Refused."""
    split: Split = more.pop("split", whole)
    exchange = Exchange(vendor, body, **more)
    reply = exchange.judged(vendor, turn)
    return exchange.sent, exchange.answered(reply, split)


def attempted(vendor: Vendor, body: Json | bytes | None, **more: Any) -> Exchange | Refused:
    """A request up to the provider, or why it does not get there."""
    try:
        return Exchange(vendor, body, **more)
    except Refused as refused:
        return refused


def refusal(vendor: Vendor, body: Json | bytes | None, **more: Any) -> Refused:
    """Why a request does not reach the provider. Fails where it does."""
    found = attempted(vendor, body, **more)
    assert isinstance(found, Refused), f"went to {found.sent.path}"
    return found
