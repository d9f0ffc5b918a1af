"""The access phase: what the plugins do with a request, told through Kong's PDK.

Written in kong-pdk's shape (a class with `__init__(config)` and `access(kong)`), so that the stock
`kong-python-pluginserver --no-lua-style` can load it as well, for what Kong alone can carry.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from kong_ai_proxy import config
from kong_ai_proxy.exchange import client_errors, led_back
from kong_ai_proxy.exchange.address import DEFAULT_PORTS
from kong_ai_proxy.exchange.errors import BAD_REQUEST, HEADERS_TOO_LARGE, SERVER_ERROR, Refused
from kong_ai_proxy.exchange.messages import (
    NOBODY,
    Address,
    ClientRequest,
    Consumer,
    UpstreamRequest,
)
from kong_ai_proxy.exchange.plan import Body, Plan, too_large
from kong_ai_proxy.exchange.privacy import (
    CREDENTIAL_QUERY,
    first_values,
    is_credential,
    redacted,
)
from kong_ai_proxy.exchange.privacy import names as query_names
from kong_ai_proxy.pluginserver.instances import own_config
from kong_ai_proxy.pluginserver.pdk import BodyTooLarge
from kong_ai_proxy.relay.ticket import HEADER, Claims, Issuer, TicketError

PRIORITY = 770
"""That of Kong's own ai-proxy and ai-proxy-advanced."""

MAX_HEADERS = 1000
"""The most that Kong's PDK gives out; with as many there may be more that nobody saw."""

CONSUMER_GROUPS = "ai_proxy_consumer_groups"
"""Where the shim puts the consumer groups into `kong.ctx.shared`: JSON, a list of objects with `id`
and `name`. A plugin server cannot ask Kong for them."""

REDACTED = "REDACTED"
_PORT = re.compile(r":[0-9]+\Z")
_PLACE = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PRIVATE_PREFIX = "x-kong-ai-proxy-"
# Kong redacts these in its log record by itself.
_KONG_REDACTS = frozenset({"authorization", "proxy-authorization"})

_log = logging.getLogger(__name__)


class AccessPlugin:
    """One instance of a plugin: one configuration, many requests."""

    plugin: ClassVar[str]

    def __init__(self, kong_config: Mapping[str, Any], relay: Issuer | None = None) -> None:
        """Never raises: a configuration that is not valid answers each request with its error,
        because Kong would repeat a failing start for every request. `relay` is where requests go
        that Kong alone cannot carry."""
        self.plan: Plan | None = None
        self._relay = relay
        self._identity = (0, b"")
        self._refusal: Refused | None = None
        self._llm_format = str(kong_config.get("llm_format") or "openai")
        try:
            parsed = config.parse(self.plugin, own_config(kong_config))
            plan = Plan(parsed, kong_config.get("__plugin_id"), os.environ)
            plan.check_available()
            if plan.needs_response and relay is None:
                raise _no_relay()
            self.plan = plan
        except config.ConfigError as error:
            self._refusal = Refused(SERVER_ERROR, f"{self.plugin} is not configured: {error}")
        except Refused as refused:
            self._refusal = refused
        if self._refusal:
            _log.error("%s", self._refusal)
        self.prefetch = self._prefetch()

    def started(self, number: int, digest: bytes) -> None:
        """Be told which instance of which configuration this is, for the relay to find it."""
        self._identity = (number, digest)

    def _prefetch(self) -> tuple[tuple[str | int, ...], ...]:
        """The getters that one round trip to Kong brings together."""
        plan = self.plan
        if plan is None:
            return ()
        by_relay = plan.prefers_relay and self._relay is not None
        calls: list[tuple[str | int, ...]] = [
            ("kong.request.get_method",),
            ("kong.request.get_raw_query",),
            ("kong.request.get_headers", MAX_HEADERS),
        ]
        if plan.uses_path or by_relay:
            calls.append(("kong.request.get_path",))
        if plan.uses_captures:
            calls.append(("kong.request.get_uri_captures",))
        if plan.uses_route:
            calls.append(("kong.router.get_route",))
        if by_relay or plan.uses_consumer:
            calls.append(("kong.client.get_consumer",))
        if by_relay or plan.uses_address:
            calls.append(("kong.client.get_forwarded_ip",))
        if plan.uses_groups:
            calls.append(("kong.ctx.shared.get", CONSUMER_GROUPS))
        if plan.reads_body and not by_relay:
            calls.append(("kong.request.get_raw_body", plan.max_body))
        return tuple(calls)

    def access(self, kong: Any) -> None:
        """Answer the request, or point Kong at the provider or at the relay."""
        try:
            if self.plan is None:
                raise self._refusal or Refused(SERVER_ERROR, "no configuration")
            request = _client_request(kong, self.plan)
            _redact_credentials(kong, request, led_back.secret_query(self._llm_format, request))
            self.plan.check_head(request)
            outgoing = None
            if not self._goes_by_relay(self.plan, request):
                outgoing = self._upstream(kong, self.plan, request)
            if outgoing is None:
                self._hand_over(kong, request)
            else:
                _apply(kong, request, outgoing)
        except Refused as refused:
            kong.response.exit(*client_errors.refusal(self._llm_format, refused))

    def _goes_by_relay(self, plan: Plan, request: ClientRequest) -> bool:
        if plan.needs_relay(request) and self._relay is None:
            raise _no_relay()
        return self._relay is not None and (plan.prefers_relay or plan.needs_relay(request))

    def _upstream(self, kong: Any, plan: Plan, request: ClientRequest) -> UpstreamRequest | None:
        """What Kong sends to the provider; None where several targets can answer. Raises
        Refused."""
        body = _body(kong, plan.max_body) if plan.body(request) is Body.READ else None
        ask = plan.ask(request, body)
        if len(ask.candidates) == 1:
            return plan.attempt_at(ask).start()
        if self._relay is None:
            raise _no_relay()
        return None

    def _hand_over(self, kong: Any, request: ClientRequest) -> None:
        """Point Kong at the relay, which does the rest. Nothing of the request is changed."""
        assert self._relay is not None
        path = request.path or kong.request.get_path()
        query = _escaped(request.query)
        target = f"{_escaped(path)}?{query}" if query else _escaped(path)
        if query != request.query:
            kong.service.request.set_raw_query(query)
        for name in sorted(n for n in request.headers if n.startswith(_PRIVATE_PREFIX)):
            kong.service.request.clear_header(name)
        kong.service.request.set_scheme("http")
        kong.service.request.set_path(path)
        kong.log.set_serialize_value(f"request.headers.{HEADER}", REDACTED)
        for name in led_back.secrets_in_answers(self._llm_format, request):
            kong.log.set_serialize_value(f"response.headers.{name}", REDACTED)
        # Late, because an ending generation waits for the tickets that it has issued.
        kong.service.request.set_header(HEADER, self._ticket(kong, request, target))
        kong.service.set_target("127.0.0.1", self._relay.port)

    def _ticket(self, kong: Any, request: ClientRequest, target: str) -> str:
        assert self._relay is not None
        try:
            return self._relay.issue(self._claims(kong, request), request.method, target)
        except TicketError as error:  # captures of the path, or a consumer's name
            raise Refused(BAD_REQUEST, f"this request cannot be handed over: {error}") from None

    def _claims(self, kong: Any, request: ClientRequest) -> Claims:
        number, digest = self._identity
        consumer = _consumer(kong, request.consumer.groups)
        return Claims(
            instance=number,
            digest=digest,
            consumer_id=consumer.id,
            consumer_name=consumer.username,
            client_address=kong.client.get_forwarded_ip() or "",
            request_id="",
            route_path=_escaped(request.route_path),
            origin=_origin(kong, request) if led_back.leads_back(self._llm_format, request) else "",
            captures=request.captures,
            groups=consumer.groups,
        )


# What Kong leaves as it is when it writes a path into a request (RFC 3986 section 2: reserved and
# unreserved characters, and the "%" of what is encoded already).
_PLAIN = "!#$&'()*+,/:;=?@[]-_.~%"


def _origin(kong: Any, request: ClientRequest) -> str:
    """Where the client has reached Kong, or what is in front of it and trusted (trusted_ips)."""
    asked = kong.request
    scheme, host = asked.get_forwarded_scheme(), asked.get_forwarded_host()
    port, own_port = asked.get_forwarded_port(), asked.get_port()
    written = (request.header("host") or "").lower()
    name = _PORT.sub("", written)
    if name == host.lower() and (name != written or port == own_port):
        place = written  # Kong's own port may be mapped to another one
    else:
        place = host if port == DEFAULT_PORTS.get(scheme) else f"{host}:{port}"
    if not _PLACE.fullmatch(place):
        raise Refused(BAD_REQUEST, "header host: expected a host name, and a port or none")
    return f"{scheme}://{place}"


def _escaped(text: str) -> str:
    """A path or query as it stands in the request that Kong sends."""
    return quote(text, safe=_PLAIN, errors="surrogateescape")


def _no_relay() -> Refused:
    return Refused(
        SERVER_ERROR,
        "this configuration needs the relay of kong-ai-proxy serve, and another plugin server runs "
        "here",
    )


def _client_request(kong: Any, plan: Plan) -> ClientRequest:
    request = kong.request
    sent: Mapping[str, Any] = request.get_headers(MAX_HEADERS)
    headers = {name.lower(): _values(value) for name, value in sent.items()}
    if sum(map(len, headers.values())) >= MAX_HEADERS:
        raise Refused(HEADERS_TOO_LARGE, f"expected fewer than {MAX_HEADERS} headers")
    path = request.get_path() if plan.uses_path else ""
    return ClientRequest(
        method=request.get_method(),
        path=path,
        query=request.get_raw_query() or "",
        headers=headers,
        captures=_named(request.get_uri_captures()) if plan.uses_captures else {},
        route_path=_route_path(kong.router.get_route(), path) if plan.uses_route else "",
        consumer=_consumer(kong, _groups(kong, plan)) if plan.uses_consumer else NOBODY,
        address=(kong.client.get_forwarded_ip() or "") if plan.uses_address else "",
    )


def _consumer(kong: Any, groups: tuple[tuple[str, str], ...]) -> Consumer:
    """Who Kong's authentication plugins say it is. The X-Consumer-* headers may be the client's."""
    found: Mapping[str, Any] = kong.client.get_consumer() or {}
    return Consumer(found.get("id") or "", found.get("username") or "", groups)


def _groups(kong: Any, plan: Plan) -> tuple[tuple[str, str], ...]:
    if not plan.uses_groups:
        return ()
    told = kong.ctx.shared.get(CONSUMER_GROUPS)
    if not isinstance(told, str):
        raise Refused(SERVER_ERROR, _NO_GROUPS)
    found = json.loads(told) or ()  # Lua writes an empty list as {}
    return tuple((group.get("id") or "", group.get("name") or "") for group in found)


_NO_GROUPS = (
    "config.acls has rules for consumer_group, and Kong does not say here which groups a consumer "
    "is in: that takes a Kong Gateway that has consumer groups, and the Lua files of "
    "kong-ai-proxy lua-path in its lua_package_path"
)


def _values(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _named(captures: Mapping[str, Any] | None) -> dict[str, str]:
    named = (captures or {}).get("named") or {}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _route_path(route: Mapping[str, Any] | None, path: str) -> str:
    """The longest of the route's prefixes that `path` starts with; expressions (~) are none."""
    paths = (route or {}).get("paths") or ()
    return max((each for each in paths if path.startswith(each)), key=len, default="")


def _body(kong: Any, limit: int) -> bytes:
    try:
        body = kong.request.get_raw_body(limit)
    except BodyTooLarge:
        raise too_large() from None
    if isinstance(body, str):  # the stock server decodes what it can
        return body.encode("utf-8", "surrogateescape")
    return body or b""


def _apply(kong: Any, request: ClientRequest, upstream: UpstreamRequest) -> None:
    """The target comes last: should this process end half-way, Kong has nowhere to send what is
    half done. (Over MsgPack it would send it.)"""
    _redact(kong, upstream)
    target, outgoing = upstream.address, kong.service.request
    outgoing.set_scheme(target.scheme)
    outgoing.set_path(target.path or "/")
    if upstream.method != request.method:
        outgoing.set_method(upstream.method)
    if target.query != request.query:
        outgoing.set_raw_query(target.query)
    for name in sorted(upstream.drop_headers):
        outgoing.clear_header(name)
    for name, value in upstream.set_headers.items():
        outgoing.set_header(name, value)
    if isinstance(upstream.body, bytes):
        outgoing.set_raw_body(upstream.body)
    elif upstream.body is not None:
        raise _no_relay()
    for name, value in upstream.response_headers.items():
        kong.response.set_header(name, value)
    kong.service.set_target(target.host, target.port)
    for name, value in _host_header(target).items():
        outgoing.set_header(name, value)


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


def _redact_credentials(kong: Any, request: ClientRequest, more: frozenset[str]) -> None:
    """The same for the client's own, whatever becomes of the request; `more` are names of its query
    that are as good as a key."""
    secret = CREDENTIAL_QUERY | more if more else CREDENTIAL_QUERY
    for name in sorted(filter(is_credential, request.headers.keys() - _KONG_REDACTS)):
        kong.log.set_serialize_value(f"request.headers.{name}", REDACTED)
    if request.query and not secret.isdisjoint(query_names(request.query)):
        query = redacted(request.query, secret, REDACTED)
        place = f"{request.path or kong.request.get_path()}?{query}"
        kong.log.set_serialize_value("request.querystring", _first(query))
        for name in ("request.uri", "request.url", "upstream_uri"):
            kong.log.set_serialize_value(name, place)


def _first(query: str) -> dict[str, str]:
    """As Kong logs a query; nothing of one that has too many parameters."""
    try:
        return first_values(query)
    except ValueError:
        return {}
