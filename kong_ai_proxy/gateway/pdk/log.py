"""kong.log: lines for the error log, and the record that Kong's log plugins write."""

from __future__ import annotations

import copy
import json
import re

from kong_ai_proxy.gateway.pdk.base import Call, LuaError, log, method, text, to_string
from kong_ai_proxy.gateway.pdk.headers import table
from kong_ai_proxy.gateway.pdk.request import get_path_with_query, headers_of, query_of
from kong_ai_proxy.gateway.pdk.uri import parse

_WITH_CTX = (
    "rewrite",
    "access",
    "balancer",
    "response",
    "header_filter",
    "body_filter",
    "log",
)
_MODES = ("set", "add", "replace")
_DOT = re.compile(r"(?<!\\)\.")
_SOURCES = {"service": "upstream", "exit": "kong", "error": "kong"}
_REDACTED = ("authorization", "proxy-authorization")


def _message(args: tuple[object, ...]) -> str:
    if not args:
        raise LuaError("bad argument #1 to 'select' (index out of range)")
    return "".join(to_string(arg) for arg in args)


@method("log.alert", in_timer=True)
def alert(call: Call, *args: object) -> None:
    log(call, "alert", _message(args))


@method("log.crit", in_timer=True)
def crit(call: Call, *args: object) -> None:
    log(call, "crit", _message(args))


@method("log.err", in_timer=True)
def err(call: Call, *args: object) -> None:
    log(call, "error", _message(args))


@method("log.warn", in_timer=True)
def warn(call: Call, *args: object) -> None:
    log(call, "warn", _message(args))


@method("log.notice", in_timer=True)
def notice(call: Call, *args: object) -> None:
    log(call, "notice", _message(args))


@method("log.info", in_timer=True)
@method("log.debug", in_timer=True)
def below_the_log_level(call: Call, *args: object) -> None:
    """Kong's `log_level` is `notice` by default."""


@method("log.set_serialize_value", _WITH_CTX, in_timer=True)
def set_serialize_value(
    call: Call, key: object = None, value: object = None, options: object = None
) -> None:
    """Keep a value for `serialize`; `key` is a dotted path, `\\.` a dot in a name."""
    name = text(key, "key must be a string")
    mode = options.get("mode", "set") if isinstance(options, dict) else "set"
    if mode not in _MODES:
        raise LuaError("mode must be 'set', 'add' or 'replace'")
    ctx = call.ctx
    if mode == "add" and name in ctx.serialize_values:
        return
    ctx.serialize_values[name] = value
    if mode == "set":
        ctx.serialize_modes.pop(name, None)
    else:
        ctx.serialize_modes[name] = str(mode)


def _apply(root: dict[str, object], key: str, value: object, mode: str) -> None:
    *parents, last = (part.replace("\\.", ".") for part in _DOT.split(key))
    node = root
    for part in parents:
        child = node.get(part)
        if child is None:
            if mode == "replace":
                return
            child = node[part] = {}
        if not isinstance(child, dict):
            raise LuaError(
                f"The key '{key}' could not be used as a serialize value. "
                f"Subkey '{part}' is not a table. It's {to_string(child)}"
            )
        node = child
    there = node.get(last) is not None
    if mode == "set" or there == (mode == "replace"):
        node[last] = value


def _request_headers(call: Call) -> dict[str, object]:
    headers = table(headers_of(call))
    for name in _REDACTED:
        if name in headers:
            headers[name] = "REDACTED"
    return headers


def record(call: Call) -> dict[str, object]:
    """What `kong.log.serialize` makes: the request, the answer, the entities, plugins' values.

    Latencies and `tries` are left out. Lua has no null: keys without a value are absent.
    """
    ctx = call.ctx
    client, upstream, response = ctx.client, ctx.upstream, ctx.response
    uri = get_path_with_query(call)
    query = query_of(call)
    root: dict[str, object] = {
        "request": {
            "id": ctx.request_id,
            "uri": uri,
            "url": f"{client.scheme}://{client.host}:{client.port}{uri}",
            "querystring": parse(query, 100),
            "method": ctx.request_method or client.method,
            "headers": _request_headers(call),
        },
        "upstream_uri": f"{upstream.path}?{upstream.query}" if upstream.query else upstream.path,
        "client_ip": client.ip,
        "started_at": int(ctx.started_at * 1000),
        "route": copy.deepcopy(ctx.route),
        "service": copy.deepcopy(ctx.service),
        "consumer": copy.deepcopy(ctx.consumer),
        "workspace": call.entity.ws_id,
        "workspace_name": "default",
    }
    if ctx.credential is not None:
        root["authenticated_entity"] = {"id": ctx.credential.get("id")}
    if response is not None:
        headers = table(response.headers)
        root["response"] = {"status": response.status, "headers": headers, "size": response.size}
        root["source"] = _SOURCES.get(response.source, "kong")
        root["upstream_status"] = str(response.status) if response.source == "service" else ""
    for key, value in ctx.serialize_values.items():
        _apply(root, key, value, ctx.serialize_modes.get(key, "set"))
    return root


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return value


@method("log.serialize", ("log",), in_timer=True)
def serialize(call: Call) -> str:
    """The record as JSON text."""
    encoded = json.dumps(_without_null(record(call)), separators=(",", ":"), ensure_ascii=False)
    return encoded.replace("/", "\\/")
