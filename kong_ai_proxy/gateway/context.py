"""What a request is while it passes through the stand-in: the state that the PDK reads and changes.

Text that came off the wire (paths, queries, header values) is `str` decoded as UTF-8 with
`surrogateescape`, so no byte is lost and `encode("utf-8", "surrogateescape")` gives it back.

Who writes what: the HTTP side fills in `Client`, `Upstream` and the entities before the first
plugin runs; the PDK changes `Upstream`, the `response_*` and log fields and `exit`. Optional
fields the HTTP side should know of:

- `Upstream.timeouts`, `retries`, `tls_verify`: set by a plugin, they win over the Service's.
- `RequestContext.forwarded_prefix`: what strip_path took off, sent as X-Forwarded-Prefix.
- `RequestContext.request_headers`: what `kong.request.get_headers` sees once a plugin has changed
  a header; the upstream gets `Upstream.headers`, which is changed along with it.
- `RequestContext.response`: set before the log phase.
- `Exit.headers` is complete: it has the response headers that plugins set before, and
  Content-Length; `response_headers` is empty then.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Headers = list[tuple[str, str]]
"""Header lines in order, names as they were written."""


@dataclass(frozen=True, slots=True)
class PluginEntity:
    """One plugin of the declarative configuration, as Kong hands it to a plugin server.

    `config` has the schema's defaults filled in and vault references resolved; `refs` says which
    fields were references (Kong's `$refs`), by field path.
    """

    name: str
    id: str
    config: Mapping[str, object]
    key: str  # Kong's cache key, sent as __key__
    seq: int  # changes with every declarative reload, sent as __seq__
    ws_id: str  # sent as __ws_id
    refs: Mapping[str, str] = field(default_factory=dict)
    route_id: str | None = None
    service_id: str | None = None
    consumer_id: str | None = None


@dataclass(slots=True)
class Body:
    """The client's request body: in memory up to nginx's buffer (8 kB), else in a file.

    Where the Route has `request_buffering: false` it is still on its way when plugins run: `load`
    reads it to its end, and must be awaited before `content` or `file` is looked at.
    """

    content: bytes = b""
    file: Path | None = None
    pending: Callable[[], Awaitable[None]] | None = None

    async def load(self) -> None:
        """Wait until the whole body is here; at once when it already is."""
        if self.pending is not None:
            await self.pending()


@dataclass(slots=True)
class Client:
    """The request as the client sent it. Never changed by a plugin."""

    method: str
    path: str  # percent-encoding kept, without the query
    query: str  # raw, without "?"
    headers: Headers
    bare_question_mark: bool = False  # the target ends with "?": Kong keeps it
    http_version: float = 1.1
    scheme: str = "http"
    host: str = "localhost"
    port: int = 80
    ip: str = "127.0.0.1"
    ip_port: int = 0
    body: Body = field(default_factory=Body)


@dataclass(slots=True)
class Upstream:
    """Where Kong will send the request and with what; starts from the Service and the client.

    `path` is what nginx calls upstream_uri without its query. `headers` are the client's without
    the hop-by-hop ones. `body` None: the client's own.
    """

    scheme: str
    host: str
    port: int
    method: str
    path: str
    query: str
    headers: Headers
    body: bytes | None = None
    host_header: str | None = None  # None: `host` (and the port unless it is the scheme's own)
    target_set: bool = False  # set_target was called: balancing is over
    timeouts: tuple[int, int, int] | None = None  # connect, write, read in ms
    retries: int | None = None
    tls_verify: bool | None = None
    tls_verify_depth: int | None = None
    buffered: bool = False  # enable_buffering was called


@dataclass(slots=True)
class Exit:
    """An answer of Kong's own, from `kong.response.exit` or for a failure."""

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=list)


@dataclass(slots=True)
class Response:
    """What the client was answered with, for the log phase."""

    status: int
    headers: Headers
    source: str = "service"  # "service", "exit" or "error"
    size: int = 0  # bytes sent


@dataclass(slots=True)
class RequestContext:
    """One request on its way through the phases."""

    client: Client
    upstream: Upstream
    request_id: str
    service: Mapping[str, object] | None = None  # entities as Kong stores them
    route: Mapping[str, object] | None = None
    consumer: Mapping[str, object] | None = None
    credential: Mapping[str, object] | None = None
    captures_named: Mapping[str, str] = field(default_factory=dict)
    captures_unnamed: tuple[str, ...] = ()  # from capture 1 on
    captures_match: str = ""  # the whole match: capture 0, which MsgPack:1 sends too
    shared: dict[str, object] = field(default_factory=dict)  # kong.ctx.shared
    serialize_values: dict[str, object] = field(default_factory=dict)
    serialize_modes: dict[str, str] = field(default_factory=dict)  # keys that are not just "set"
    response_headers: Headers = field(default_factory=list)  # set in access, sent with the answer
    exit: Exit | None = None
    log: list[str] = field(default_factory=list)  # lines for Kong's error log
    started_at: float = field(default_factory=time.time)  # seconds since 1970
    forwarded_prefix: str | None = None
    request_headers: Headers | None = None  # None: `client.headers`
    request_method: str | None = None  # set by set_method; None: `client.method`
    request_query: str | None = None  # set by set_raw_query, set_query; None: `client.query`
    ngx_ctx: dict[str, object] = field(default_factory=dict)  # kong.nginx.set_ctx, get_ctx
    consumers: Sequence[Mapping[str, object]] = ()  # what load_consumer can find
    response: Response | None = None
