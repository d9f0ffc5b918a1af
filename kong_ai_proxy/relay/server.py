"""The relay: carries what Kong alone cannot, between Kong and the provider.

It listens on loopback and takes a request only with a ticket of the access phase. What it does with
the request and its answer is decided by the same core as there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import weakref
from collections.abc import Awaitable, Callable

from aiohttp import web
from typing_extensions import override

from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.balancer.states import Table
from kong_ai_proxy.config import AiProxyAdvanced
from kong_ai_proxy.exchange.errors import (
    FORBIDDEN,
    SERVER_ERROR,
    SERVICE_UNAVAILABLE,
    Refused,
)
from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.relay.balancing import Balancing
from kong_ai_proxy.relay.downstream import SERVER
from kong_ai_proxy.relay.driver import Driver
from kong_ai_proxy.relay.guards import Guards
from kong_ai_proxy.relay.incoming import MAX_HEADERS, client_request
from kong_ai_proxy.relay.semantic import Semantic, semantic
from kong_ai_proxy.relay.settings import RelaySettings
from kong_ai_proxy.relay.ticket import HEADER, Claims, TicketError, Verifier
from kong_ai_proxy.relay.upstream import Upstream
from kong_ai_proxy.telemetry.failures import UNEXPECTED, frames_of

MAX_REQUESTS = 4096
"""Requests at a time in one worker; more are refused with 503."""
MAX_HEADER_BYTES = 32 * 1024
"""Of one header line: more than Kong takes, so that a ticket fits."""
KEPT_SECONDS = 3600.0
"""Longer than Kong keeps an idle connection: who closes first makes the other's request fail."""
BACKLOG = 4096
TIDY_SECONDS = 60.0
IDLE_SECONDS = 600.0
"""After which a configuration that nobody has used keeps no connections."""

_log = logging.getLogger(__name__)


class _WithoutContents(logging.Filter):
    """aiohttp's own complaints are about what came in, and quote it, credentials and all."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Leave of the exception nothing but its type."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            record.msg = f"{record.msg}: {type(error).__name__}"
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_WithoutContents())

FindPlan = Callable[[int, bytes], Awaitable[Plan | None]]


class _Connection(web.RequestHandler):
    """One of Kong's connections. What is not HTTP gets an error in our shape: aiohttp's own quotes
    the line and tells its version."""

    _is_last = False  # what is under way is the last that it carries

    def retire(self) -> None:
        """Close it: at once where it waits for a request, else after the next answer. aiohttp's own
        `close` keeps idle ones open, and leaves unread what still comes on others: the rest of a
        body, a session's messages."""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()
        else:
            self._is_last = True

    @override
    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._is_last:
            resp.force_close()
        server = self._manager
        assert isinstance(server, _Server)
        server.answering += 1
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            server.answering -= 1

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        response = _own(Refused(status, "the request is not valid HTTP"))
        response.force_close()
        return response


class _Server(web.Server):
    answering = 0
    """Whole answers that are on their way to Kong, which may be slow to take them."""

    @override
    def __call__(self) -> _Connection:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Relay:
    """The relay of one worker."""

    def __init__(
        self, find_plan: FindPlan, verifier: Verifier, settings: RelaySettings, table: Table
    ) -> None:
        """`find_plan(instance, digest)` gives what an instance does with requests, None for one
        that is not known here; `table` has what is known of their targets."""
        self._find_plan = find_plan
        self._verifier = verifier
        self._settings = settings
        self._table = table
        self._requests = 0
        self._guards = Guards(
            settings.first_token_timeout, settings.min_stream_rate, settings.time_budget
        )
        self._semantics: weakref.WeakKeyDictionary[Plan, Semantic] = weakref.WeakKeyDictionary()
        self._balancings: weakref.WeakKeyDictionary[Plan, Balancing] = weakref.WeakKeyDictionary()

    async def start(self, sock: socket.socket) -> None:
        """Accept on a listening socket. Raises OSError for a CA file that cannot be loaded."""
        self._upstream = Upstream(self._settings)
        self._tokens = Tokens(ca_file=self._settings.ca_file, proxy_for=self._settings.proxy_for)
        self._server = _Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            logger=_http_log,
            auto_decompress=False,
            keepalive_timeout=KEPT_SECONDS,
            max_headers=2 * MAX_HEADERS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        loop = asyncio.get_running_loop()
        self._tidying = loop.create_task(self._tidy())
        self._listening = await loop.create_server(self._server, sock=sock, backlog=BACKLOG)

    @property
    def requests(self) -> int:
        """Those under way, streams and WebSockets among them."""
        return self._requests + self._server.answering

    def stop(self) -> None:
        """Accept no more connections. Idle ones are closed, busy ones after their answer."""
        self._listening.close()
        for connection in self._server.connections:
            assert isinstance(connection, _Connection)
            connection.retire()

    async def close(self) -> None:
        """End what is left."""
        await self._server.shutdown(timeout=0.1)
        self._tidying.cancel()
        await asyncio.gather(*(each.close() for each in list(self._semantics.values())))
        await self._upstream.close()
        await self._tokens.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._requests += 1
        try:
            return await self._answer(request)
        except Refused as refused:
            return _own(refused)
        except Exception as error:
            _log.error("a request failed\n%s", frames_of(error))
            return _own(Refused(SERVER_ERROR, UNEXPECTED))
        finally:
            self._requests -= 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        claims = self._claims(request)
        _log.debug("carrying %s %s", request.method, request.raw_path.partition("?")[0])
        if self._requests > MAX_REQUESTS:
            raise Refused(SERVICE_UNAVAILABLE, "too many requests at a time", {"retry-after": "1"})
        plan = await self._find_plan(claims.instance, claims.digest)
        if plan is None:
            raise Refused(SERVER_ERROR, "the configuration of this request is not known any more")
        client = client_request(request, claims)
        driver = Driver(
            request,
            client,
            claims,
            plan,
            self._upstream,
            self._tokens,
            self._balancing(plan),
            self._guards,
        )
        return await driver.run()

    def _balancing(self, plan: Plan) -> Balancing | None:
        """What a configuration with several targets, or a breaker, is balanced with."""
        config = plan.config
        if not isinstance(config, AiProxyAdvanced):
            return None
        if len(config.targets) == 1 and not plan.balances:
            return None
        found = self._balancings.get(plan)
        if found is None:
            found = self._balancings[plan] = Balancing(
                config,
                self._table.states(plan.plugin_id or "", config),
                self._semantic(plan, config),
                by_opening=self._settings.prompt_affinity,
                ahead=self._table.slot,
            )
        found.used_at = found.now()
        return found

    def _semantic(self, plan: Plan, config: AiProxyAdvanced) -> Semantic | None:
        """Who finds the targets that a prompt is for, where that decides. Closed with the plan."""
        if config.balancer.algorithm != "semantic":
            return None
        ca_file = self._settings.ca_file
        made = semantic(config, self._upstream, self._tokens, os.environ, ca_file)
        self._semantics[plan] = made
        weakref.finalize(plan, self._close_later, made).atexit = False
        return made

    def _close_later(self, made: Semantic) -> None:
        self._upstream.later(made.close())

    async def _tidy(self) -> None:
        """Forget what configurations are balanced with that nobody uses: most were replaced. What
        is known of their targets stays in the table."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            for plan, balancing in list(self._balancings.items()):
                if balancing.now() - balancing.used_at > IDLE_SECONDS:
                    del self._balancings[plan]
                    if made := self._semantics.pop(plan, None):
                        await made.close()

    def _claims(self, request: web.BaseRequest) -> Claims:
        try:
            ticket = request.headers.getall(HEADER, [])
            only = ticket[0] if len(ticket) == 1 else None
            # Kong writes a "?" also where nothing follows it.
            path, _, query = request.raw_path.partition("?")
            return self._verifier.verify(only, request.method, request.raw_path if query else path)
        except TicketError as error:
            _log.warning("a request was refused: %s", error)
            if error.expired:
                text = "the request took longer than an hour to arrive"
            else:
                text = "the relay takes requests only from Kong, each with a ticket of its own"
            raise Refused(FORBIDDEN, text) from None


def _own(refused: Refused) -> web.Response:
    """An answer of the relay's own. Without a name aiohttp would give its and Python's versions."""
    status, body, headers = refused.answer()
    return web.Response(status=status, body=body, headers={**headers, "server": SERVER})
