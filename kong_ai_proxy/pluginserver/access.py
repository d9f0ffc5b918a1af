"""The access phase: what the plugins do with a request, told through Kong's PDK.

Written in kong-pdk's shape (a class with `__init__(config)` and `access(kong)`), so that the stock
`kong-python-pluginserver --no-lua-style` can load it as well.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from kong_ai_proxy import config
from kong_ai_proxy.exchange.address import DEFAULT_PORTS
from kong_ai_proxy.exchange.errors import HEADERS_TOO_LARGE, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import Address, ClientRequest, UpstreamRequest
from kong_ai_proxy.exchange.plan import Plan, too_large
from kong_ai_proxy.exchange.privacy import first_values, redacted
from kong_ai_proxy.pluginserver.instances import own_config
from kong_ai_proxy.pluginserver.pdk import BodyTooLarge

PRIORITY = 770
"""That of Kong's own ai-proxy and ai-proxy-advanced."""

MAX_HEADERS = 1000
"""The most that Kong's PDK gives out; with as many there may be more that nobody saw."""

REDACTED = "REDACTED"
# Kong redacts these in its log record by itself.
_KONG_REDACTS = frozenset({"authorization", "proxy-authorization"})

_log = logging.getLogger(__name__)


class AccessPlugin:
    """One instance of a plugin: one configuration, many requests."""

    plugin: ClassVar[str]

    def __init__(self, kong_config: Mapping[str, Any]) -> None:
        """Never raises: a configuration that is not valid answers each request with its error,
        because Kong would repeat a failing start for every request."""
        self._plan: Plan | None = None
        self._refusal: Refused | None = None
        try:
            self._plan = Plan(config.parse(self.plugin, own_config(kong_config)))
            self._plan.check_available()
        except config.ConfigError as error:
            self._refusal = Refused(SERVER_ERROR, f"{self.plugin} is not configured: {error}")
        except Refused as refused:
            self._refusal = refused
        if self._refusal:
            _log.error("%s", self._refusal)
        self.prefetch = self._prefetch()

    def _prefetch(self) -> tuple[tuple[str | int, ...], ...]:
        """The getters that one round trip to Kong brings together."""
        if self._plan is None or self._refusal:
            return ()
        calls: list[tuple[str | int, ...]] = [
            ("kong.request.get_method",),
            ("kong.request.get_raw_query",),
            ("kong.request.get_headers", MAX_HEADERS),
        ]
        if self._plan.uses_path:
            calls.append(("kong.request.get_path",))
        if self._plan.uses_captures:
            calls.append(("kong.request.get_uri_captures",))
        if self._plan.reads_body:
            calls.append(("kong.request.get_raw_body", self._plan.max_body))
        return tuple(calls)

    def access(self, kong: Any) -> None:
        """Answer the request or point Kong at the provider."""
        try:
            _apply(kong, self._request(kong))
        except Refused as refused:
            kong.response.exit(*refused.answer())

    def _request(self, kong: Any) -> tuple[ClientRequest, UpstreamRequest]:
        if self._plan is None or self._refusal:
            raise self._refusal or Refused(SERVER_ERROR, "no configuration")
        request = _client_request(kong.request, self._plan)
        self._plan.check_head(request)
        body = _body(kong, self._plan.max_body) if self._plan.reads_body else None
        attempt = self._plan.attempt(request, body)
        return request, attempt.start()


def _client_request(request: Any, plan: Plan) -> ClientRequest:
    sent: Mapping[str, Any] = request.get_headers(MAX_HEADERS)
    headers = {name.lower(): _values(value) for name, value in sent.items()}
    if sum(map(len, headers.values())) >= MAX_HEADERS:
        raise Refused(HEADERS_TOO_LARGE, f"expected fewer than {MAX_HEADERS} headers")
    return ClientRequest(
        method=request.get_method(),
        path=request.get_path() if plan.uses_path else "",
        query=request.get_raw_query() or "",
        headers=headers,
        captures=_named(request.get_uri_captures()) if plan.uses_captures else {},
    )


def _values(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _named(captures: Mapping[str, Any] | None) -> dict[str, str]:
    named = (captures or {}).get("named") or {}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _body(kong: Any, limit: int) -> bytes:
    try:
        body = kong.request.get_raw_body(limit)
    except BodyTooLarge:
        raise too_large() from None
    if isinstance(body, str):  # the stock server decodes what it can
        return body.encode("utf-8", "surrogateescape")
    return body or b""


def _apply(kong: Any, exchange: tuple[ClientRequest, UpstreamRequest]) -> None:
    request, upstream = exchange
    _redact(kong, upstream)
    target, outgoing = upstream.address, kong.service.request
    kong.service.set_target(target.host, target.port)
    outgoing.set_scheme(target.scheme)
    outgoing.set_path(target.path or "/")
    if upstream.method != request.method:
        outgoing.set_method(upstream.method)
    if target.query != request.query:
        outgoing.set_raw_query(target.query)
    for name in sorted(upstream.drop_headers):
        outgoing.clear_header(name)
    for name, value in {**_host_header(target), **upstream.set_headers}.items():
        outgoing.set_header(name, value)
    if upstream.body is not None:
        outgoing.set_raw_body(upstream.body)
    for name, value in upstream.response_headers.items():
        kong.response.set_header(name, value)


def _host_header(target: Address) -> dict[str, str]:
    """set_target makes a Host header without the port (RFC 9110 section 7.2 wants it there)."""
    if target.port == DEFAULT_PORTS[target.scheme]:
        return {}
    return {"host": f"{target.host}:{target.port}"}


def _redact(kong: Any, upstream: UpstreamRequest) -> None:
    """Keep what we set out of the records of Kong's log plugins."""
    for name in sorted(upstream.secret_headers - _KONG_REDACTS):
        if "." in name:  # the dots of a log value's name lead into tables
            raise Refused(
                SERVER_ERROR,
                f"auth.header_name {name!r}: a name with a '.' cannot be kept out of Kong's logs",
            )
        kong.log.set_serialize_value(f"request.headers.{name}", REDACTED)
    if upstream.secret_query:
        query = redacted(upstream.address.query, upstream.secret_query, REDACTED)
        kong.log.set_serialize_value("request.querystring", first_values(query))
        kong.log.set_serialize_value("upstream_uri", f"{upstream.address.path}?{query}")
