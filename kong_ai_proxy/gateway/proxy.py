"""A request's way through the stand-in: route, authenticate, run the plugins, proxy or answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kong_ai_proxy.gateway import answers, forward, http1, keyauth, spool
from kong_ai_proxy.gateway.configuration import KEY_AUTH, Configuration
from kong_ai_proxy.gateway.context import Body, Client, Exit, PluginEntity, RequestContext, Upstream
from kong_ai_proxy.gateway.exchange import (
    ClientFailed,
    Outgoing,
    Response,
    Timeouts,
    UpstreamFailed,
    exchange,
)
from kong_ai_proxy.gateway.listener import ClientExchange, ClientGone, own_headers
from kong_ai_proxy.gateway.paths import text
from kong_ai_proxy.gateway.router import Match, split_port
from kong_ai_proxy.gateway.tunnel import tunnel
from kong_ai_proxy.gateway.upstream import Address, NameResolutionFailed, Pool, Resolver, is_ip

_CONSUMER_GROUPS = "ai_proxy_consumer_groups"


class PluginRunner(Protocol):
    """What runs external plugins: gateway/plugins.py, or a stand-in for it in tests."""

    async def run(self, entity: PluginEntity, phase: str, ctx: RequestContext) -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Request:
    """One request: its state for the PDK, and what only the proxy needs."""

    client: ClientExchange
    ctx: RequestContext
    match: Match
    configuration: Configuration
    began: float = field(default_factory=time.monotonic)
    body_loaded: bool = False
    body_failure: Exception | None = None

    @property
    def milliseconds(self) -> int:
        return int((time.monotonic() - self.began) * 1000)


class Proxy:
    """Answers the requests of one gateway."""

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        runner: PluginRunner,
        log: Callable[[str], None],
    ) -> None:
        self._configuration = configuration
        self._runner = runner
        self._log = log
        self._pool = Pool()
        self._resolver = Resolver()
        self._spool = spool.Spool()

    def close(self) -> None:
        """Close idle connections and remove the bodies' directory."""
        self._pool.close()
        self._spool.remove()

    async def handle(self, client: ClientExchange) -> None:
        """Answer one request. Whatever fails, the client gets an answer or a broken connection,
        never a request that passed a plugin by."""
        request_id = secrets.token_hex(16)
        try:
            await self._handle(client, request_id)
        except ClientGone:
            client.stream.abort()
        except (EOFError, OSError):
            client.stream.abort()
        except http1.BadMessage as failure:
            await self._fail(client, request_id, failure.status)
        except Exception:
            self._log(f"[error] request {request_id}: {traceback.format_exc()}")
            await self._fail(client, request_id, 500)

    async def _fail(self, client: ClientExchange, request_id: str, status: int) -> None:
        if client.started:
            client.stream.abort()
            return
        client.keep_alive = False
        exit_ = answers.error(status, request_id=request_id)
        with contextlib.suppress(ClientGone):
            await client.answer(exit_, own_headers(request_id, 0))

    async def _handle(self, client: ClientExchange, request_id: str) -> None:
        configuration = self._configuration()
        began = time.monotonic()
        seen = _client(client)
        match = configuration.router.find(seen.method, seen.path, seen.headers, port=seen.port)
        if match is None:
            exit_ = _error(404, "no Route matched with those values", seen, request_id)
            await client.answer(exit_, own_headers(request_id, 0))
            return
        ctx = _context(seen, match, request_id, configuration)
        request = _Request(client, ctx, match, configuration, began)
        try:
            await self._phases(request)
        finally:
            for line in ctx.log:
                self._log(line)
            spool.discard(ctx.client.body)

    async def _phases(self, request: _Request) -> None:
        ctx = request.ctx
        await self._access(request)
        if ctx.exit is None and ctx.service is None:
            ctx.exit = _error(503, "no Service found with those values", ctx.client, ctx.request_id)
        addresses: list[Address] = []
        if ctx.exit is None:
            addresses = await self._balance(request)
        if ctx.exit is not None:
            exit_ = ctx.exit
            own = own_headers(ctx.request_id, request.milliseconds)
            set_before = forward.set_in_access(ctx, (name for name, _ in exit_.headers))
            await request.client.answer(exit_, set_before + own)
            return
        await self._proxy(request, addresses)

    async def _access(self, request: _Request) -> None:
        ctx, index = request.ctx, request.configuration.plugins
        if _https_only(request.match.route):
            ctx.exit = _upgrade_required(ctx)
            return
        for name in index.names:
            entity = _applicable(request, name)
            if entity is None:
                continue
            if name == KEY_AUTH:
                keyauth.access(entity, ctx, request.configuration)
            else:
                await self._run_external(entity, request)
            if ctx.exit is not None:
                return

    async def _run_external(self, entity: PluginEntity, request: _Request) -> None:
        """A plugin sees a whole body, unless the Route lets bodies stream: then it waits for it
        (`Body.load`) only when it asks. What the shim tells it of a Kong that has consumer groups,
        it is told here."""
        request.ctx.shared[_CONSUMER_GROUPS] = _consumer_groups(request)
        body = request.ctx.client.body

        async def load() -> None:
            await self._load(request)

        body.pending = load
        if request.match.route.get("request_buffering") is not False:
            await body.load()
        await self._runner.run(entity, "access", request.ctx)
        if request.body_failure is not None:  # whatever the plugin made of it
            raise request.body_failure

    async def _load(self, request: _Request) -> None:
        if request.body_failure is not None:
            raise request.body_failure
        if request.body_loaded:
            return
        request.body_loaded = True
        try:
            await self._spool.receive(request.client.body, request.ctx.client.body)
        except (EOFError, OSError, http1.BadMessage) as failure:
            request.body_failure = failure
            raise

    async def _balance(self, request: _Request) -> list[Address]:
        """The addresses of the upstream. Sets ctx.exit where Kong answers by itself."""
        ctx = request.ctx
        service, upstream = ctx.service or {}, ctx.upstream
        if is_ip(str(service.get("host"))) and not is_ip(upstream.host):
            # Kong takes the Service's address for an address for ever: a name set in its place
            # is not looked up, and connecting fails.
            ctx.log.append(f"[error] failed to set the current peer (address: {upstream.host})")
            ctx.exit = _error(500, None, ctx.client, ctx.request_id)
            return []
        try:
            found = await self._resolver.resolve(upstream.host)
        except NameResolutionFailed:
            ctx.log.append(f"[error] DNS resolution failed for {upstream.host}")
            ctx.exit = _error(503, "name resolution failed", ctx.client, ctx.request_id)
            return []
        tls = upstream.scheme == "https"
        name = split_port(forward.host_header(ctx))[0] if tls else ""
        verify = upstream.tls_verify
        if verify is None:
            verify = service.get("tls_verify") is True
        return [Address(ip, upstream.port, tls, name, tls and verify) for ip in found]

    async def _proxy(self, request: _Request, addresses: list[Address]) -> None:
        ctx = request.ctx
        if request.match.route.get("request_buffering") is not False:
            await self._load(request)
        outgoing = self._outgoing(request)
        proxy_ms = request.milliseconds
        retries = ctx.upstream.retries
        if retries is None:
            retries = _number(ctx.service or {}, "retries", 5)
        try:
            response = await exchange(self._pool, addresses, outgoing, _timeouts(ctx), retries)
        except UpstreamFailed as failure:
            self._log(f"[error] {ctx.request_id}: upstream {ctx.upstream.host}: {failure}")
            exit_ = _nginx_error(failure.status, ctx)
            waited = request.milliseconds - proxy_ms
            await request.client.answer(exit_, forward.failed_headers(ctx, waited, proxy_ms))
            return
        except ClientFailed as failure:
            raise http1.BadMessage(str(failure), failure.status) from failure
        await self._relay(request, response, proxy_ms)

    def _outgoing(self, request: _Request) -> Outgoing:
        ctx, client = request.ctx, request.client
        upgrade = forward.wants_websocket(ctx.client.headers)
        method = ctx.upstream.method
        if ctx.upstream.body is not None:
            content = ctx.upstream.body
            framing: http1.Framing | None = http1.Framing(length=len(content))
            head = forward.request_head(ctx, framing)
            body = Body(content)
            return Outgoing(method, head, lambda: spool.pieces(body), upgrade=upgrade)
        if request.body_loaded:
            received = ctx.client.body
            framing = http1.Framing(length=spool.size(received)) if _has_body(client) else None
            head = forward.request_head(ctx, framing)
            return Outgoing(method, head, lambda: spool.pieces(received), upgrade=upgrade)
        framing = client.body.framing if _has_body(client) else None
        head = forward.request_head(ctx, framing)
        return Outgoing(
            method,
            head,
            lambda: _passing(client),
            chunked=client.body.framing.chunked,
            repeatable=client.body.complete,
            upgrade=upgrade,
        )

    async def _relay(self, request: _Request, response: Response, proxy_ms: int) -> None:
        client, ctx = request.client, request.ctx
        head = response.head
        waited = request.milliseconds - proxy_ms
        first, rest = forward.response_headers(ctx, head, waited, proxy_ms)
        length = next(iter(http1.values(head.headers, b"content-length")), None)
        seconds = _timeouts(ctx).read
        try:
            piece = await response.first_piece()
            await client.start(
                head.status, head.reason, first, rest, response.framing, length=length, piece=piece
            )
            if head.status == 101:
                client.tunnelling = True
                await tunnel(client.stream, response.stream, seconds)
                return
            await _pass_body(response, client, seconds)
        except (TimeoutError, EOFError, OSError, http1.BadMessage) as failure:
            # The head is sent: a broken connection is the only way left to say so.
            self._log(f"[error] {ctx.request_id}: the upstream's answer broke off: {failure}")
            client.stream.abort()
        finally:
            response.release()


async def _pass_body(response: Response, client: ClientExchange, seconds: float) -> None:
    while not response.reader.complete:
        async with asyncio.timeout(seconds):
            piece = await response.reader.read()
        if piece:
            await client.send(piece)
    await client.finish()


async def _passing(client: ClientExchange) -> AsyncGenerator[bytes]:
    """The client's body as it arrives. Raises ClientFailed."""
    try:
        while piece := await client.body.read():
            yield piece
    except http1.BadMessage as failure:
        raise ClientFailed(failure.status, str(failure)) from failure
    except (EOFError, OSError) as failure:
        raise ClientFailed(400, "the client left during its upload") from failure


def _client(client: ClientExchange) -> Client:
    head = client.head
    path, question_mark, query = text(head.target).partition("?")
    headers = [(text(name), text(value)) for name, value in head.headers]
    ip, port = client.peer
    return Client(
        method=head.method,
        path=path,
        query=query,
        headers=headers,
        bare_question_mark=bool(question_mark) and not query,
        http_version=head.version,
        host=_host(forward.get(headers, "host")),
        port=int(client.stream.transport.get_extra_info("sockname")[1]),
        ip=ip,
        ip_port=port,
    )


def _host(header: str | None) -> str:
    """nginx's `$host`: small letters, no port, brackets kept; the server's name without a Host."""
    if not header:
        return "kong"
    port = split_port(header)[1]
    return header.lower().removesuffix(f":{port}").removesuffix(":")


def _context(
    client: Client, match: Match, request_id: str, configuration: Configuration
) -> RequestContext:
    service = match.service or {}
    scheme = str(service.get("protocol", "http"))
    preserved = forward.get(client.headers, "host") if match.route.get("preserve_host") else None
    upstream = Upstream(
        scheme=scheme,
        host=str(service.get("host", "")),
        port=_number(service, "port", 443 if scheme == "https" else 80),
        method=client.method,
        path=match.upstream_path,
        query=client.query,
        headers=forward.forwardable(client.headers),
        host_header=preserved,
    )
    return RequestContext(
        client=client,
        upstream=upstream,
        request_id=request_id,
        service=match.service,
        route=match.route,
        captures_named=match.captures_named,
        captures_unnamed=match.captures_unnamed,
        captures_match=match.captures_match,
        forwarded_prefix=match.prefix if match.prefix != "/" else None,
        consumers=list(configuration.entities.get("consumers", {}).values()),
    )


def _applicable(request: _Request, name: str) -> PluginEntity | None:
    ctx, configuration = request.ctx, request.configuration
    consumer_id = _id(ctx.consumer)
    return configuration.plugins.find(
        name,
        route_id=_id(ctx.route),
        service_id=_id(ctx.service),
        consumer_id=consumer_id,
        group_ids=configuration.groups.get(consumer_id or "", ()),
    )


def _consumer_groups(request: _Request) -> str:
    configuration = request.configuration
    stored = configuration.entities.get("consumer_groups", {})
    ids = configuration.groups.get(_id(request.ctx.consumer) or "", ())
    return json.dumps([{"id": each, "name": stored[each].get("name")} for each in ids])


def _id(entity: Mapping[str, object] | None) -> str | None:
    return str(entity["id"]) if entity else None


def _has_body(client: ClientExchange) -> bool:
    """Whether the request says anything of a body, be it that it is empty."""
    framing = client.body.framing
    return framing.chunked or bool(http1.values(client.head.headers, b"content-length"))


def _number(entity: Mapping[str, object], name: str, default: int) -> int:
    value = entity.get(name)
    return value if isinstance(value, int) else default


def _timeouts(ctx: RequestContext) -> Timeouts:
    names = ("connect_timeout", "write_timeout", "read_timeout")
    given = ctx.upstream.timeouts or [_number(ctx.service or {}, name, 60_000) for name in names]
    return Timeouts(*(milliseconds / 1000 for milliseconds in given))


def _https_only(route: Mapping[str, object]) -> bool:
    protocols = route.get("protocols")
    return isinstance(protocols, list) and "https" in protocols and "http" not in protocols


def _upgrade_required(ctx: RequestContext) -> Exit:
    headers = [("Connection", "Upgrade"), ("Upgrade", "TLS/1.2, HTTP/1.1")]
    return answers.error(
        426, "Please use HTTPS protocol", request_id=ctx.request_id, headers=headers
    )


def _error(status: int, message: str | None, client: Client, request_id: str) -> Exit:
    accept = forward.get(client.headers, "accept") or "*/*"
    return answers.error(status, message, request_id=request_id, accept=accept)


def _nginx_error(status: int, ctx: RequestContext) -> Exit:
    """Errors that nginx raises go by Content-Type where the client accepts nothing in particular,
    and are plain text in the end."""
    headers = ctx.client.headers
    accept = forward.get(headers, "accept") or forward.get(headers, "content-type")
    return answers.error(status, request_id=ctx.request_id, accept=accept or "text/plain")
