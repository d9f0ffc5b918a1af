"""kong.client, router, node, nginx, ip, plugin and ctx.shared: who, where and what is known."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import uuid
from collections.abc import Callable, Mapping

from kong_ai_proxy.gateway.pdk.base import (
    ANY,
    AUTH_AND_LATER,
    Call,
    LuaError,
    lua_type,
    method,
    text,
    to_string,
)
from kong_ai_proxy.gateway.pdk.headers import find
from kong_ai_proxy.gateway.pdk.request import (
    get_path,
    get_path_with_query,
    headers_of,
    query_of,
)

_ACCESS = ("access",)
_DICT_CAPACITY = 5 * 1024 * 1024  # Kong's shared dict `kong`
Entity = Mapping[str, object]


@method("client.get_ip")
@method("client.get_forwarded_ip")
def get_ip(call: Call) -> str:
    return call.ctx.client.ip


@method("client.get_port")
@method("client.get_forwarded_port")
def get_port(call: Call) -> int:
    return call.ctx.client.ip_port


@method("client.get_credential", AUTH_AND_LATER, in_timer=True)
def get_credential(call: Call) -> Entity | None:
    return call.ctx.credential


@method("client.get_consumer", AUTH_AND_LATER, in_timer=True)
def get_consumer(call: Call) -> Entity | None:
    return call.ctx.consumer


@method("client.load_consumer", AUTH_AND_LATER, in_timer=True)
def load_consumer(
    call: Call, consumer_id: object = None, by_username: object = None
) -> Entity | None:
    wanted = text(consumer_id, "consumer_id must be a string")
    try:
        uuid.UUID(wanted)
    except ValueError:
        if not by_username:
            raise LuaError("cannot load a consumer with an id that is not a uuid") from None
    keys = ("id", "username") if by_username else ("id",)
    for consumer in call.ctx.consumers:
        if any(consumer.get(key) == wanted for key in keys):
            return consumer
    return None


@method("client.authenticate", _ACCESS)
def authenticate(call: Call, consumer: object = None, credential: object = None) -> None:
    for name, value in (("consumer", consumer), ("credential", credential)):
        if lua_type(value) not in ("table", "nil"):
            raise LuaError(f"{name} must be a table or nil")
    if consumer is None and credential is None:
        raise LuaError("either credential or consumer must be provided")
    call.ctx.consumer = consumer if isinstance(consumer, dict) else None
    call.ctx.credential = credential if isinstance(credential, dict) else None


@method("client.get_protocol", AUTH_AND_LATER)
def get_protocol(call: Call, allow_terminated: object = None) -> str | None:
    route = call.ctx.route
    if route is None:
        return None
    protocols = route.get("protocols")
    if isinstance(protocols, list) and len(protocols) == 1:
        return str(protocols[0])
    return "https" if call.ctx.client.scheme == "https" else "http"


@method("router.get_route", AUTH_AND_LATER, in_timer=True)
def get_route(call: Call) -> Entity | None:
    return call.ctx.route


@method("router.get_service", AUTH_AND_LATER, in_timer=True)
def get_service(call: Call) -> Entity | None:
    return call.ctx.service


@method("ip.is_trusted", in_timer=True)
def is_trusted(call: Call, ip: object = None) -> bool:
    """No: `trusted_ips` is empty by default."""
    return False


@method("plugin.get_id", in_timer=True)
def get_plugin_id(call: Call) -> str:
    return call.entity.id


@method("node.get_id", in_timer=True)
def get_node_id(call: Call) -> str:
    return call.node_id


@method("node.get_hostname", in_timer=True)
def get_hostname(call: Call) -> str:
    return socket.gethostname()


@method("node.get_memory_stats", in_timer=True)
def get_memory_stats(call: Call, unit: object = None, scale: object = None) -> dict[str, object]:
    """This process's memory in the place of a worker's Lua VM; in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    dictionary = {"allocated_slabs": 0, "capacity": _DICT_CAPACITY}
    return {
        "workers_lua_vms": [{"pid": os.getpid(), "http_allocated_gc": used}],
        "lua_shared_dicts": {"kong": dictionary, "kong_db_cache": dictionary},
    }


@method("ctx.shared.get", in_timer=True)
def shared_get(call: Call, key: object = None) -> object:
    return call.ctx.shared.get(to_string(key))


@method("ctx.shared.set", in_timer=True)
def shared_set(call: Call, key: object = None, value: object = None) -> None:
    if key is None:
        raise LuaError("table index is nil")
    if value is None:
        call.ctx.shared.pop(to_string(key), None)
    else:
        call.ctx.shared[to_string(key)] = value


@method("nginx.get_ctx", in_timer=True)
def get_ctx(call: Call, key: object = None) -> object:
    ctx = call.ctx
    if key in ("KONG_PROCESSING_START", "KONG_ACCESS_START"):
        return int(ctx.started_at * 1000)
    return ctx.ngx_ctx.get(to_string(key))


@method("nginx.set_ctx", in_timer=True)
def set_ctx(call: Call, key: object = None, value: object = None) -> None:
    if key is None:
        raise LuaError("table index is nil")
    call.ctx.ngx_ctx[to_string(key)] = value


@method("nginx.req_start_time", in_timer=True)
def req_start_time(call: Call) -> float:
    return int(call.ctx.started_at * 1000) / 1000


@method("nginx.get_subsystem", in_timer=True)
def get_subsystem(call: Call) -> str:
    return "http"


@method("nginx.get_tls1_version_str", in_timer=True)
def get_tls1_version_str(call: Call) -> str | None:
    return "TLSv1.3" if call.ctx.client.scheme == "https" else None


def _nginx_request_id(call: Call) -> str:
    """nginx's own id of the request is another one than Kong's."""
    return hashlib.blake2b(call.ctx.request_id.encode(), digest_size=16).hexdigest()


def _query(call: Call) -> str | None:
    return query_of(call) or None


_VARIABLES: dict[str, Callable[[Call], object]] = {
    "args": _query,
    "query_string": _query,
    "is_args": lambda call: "?" if query_of(call) else "",
    "request_uri": get_path_with_query,
    "uri": get_path,
    "document_uri": get_path,
    "request_method": lambda call: call.ctx.request_method or call.ctx.client.method,
    "request_id": _nginx_request_id,
    "kong_request_id": lambda call: call.ctx.request_id,
    "remote_addr": get_ip,
    "remote_port": lambda call: str(call.ctx.client.ip_port),
    "realip_remote_addr": get_ip,
    "realip_remote_port": lambda call: str(call.ctx.client.ip_port),
    "scheme": lambda call: call.ctx.client.scheme,
    "https": lambda call: "on" if call.ctx.client.scheme == "https" else "",
    "host": lambda call: call.ctx.client.host,
    "hostname": get_hostname,
    "server_name": lambda call: "kong",
    "server_port": lambda call: str(call.ctx.client.port),
    "server_protocol": lambda call: f"HTTP/{call.ctx.client.http_version:g}",
    "content_type": lambda call: _header(call, "content-type"),
    "content_length": lambda call: _header(call, "content-length"),
    "upstream_scheme": lambda call: call.ctx.upstream.scheme,
    "upstream_host": lambda call: call.ctx.upstream.host_header or "",
    "upstream_uri": lambda call: call.ctx.upstream.path,
    "upstream_x_forwarded_proto": lambda call: call.ctx.client.scheme,
    "upstream_x_forwarded_host": lambda call: call.ctx.client.host,
    "upstream_x_forwarded_port": lambda call: str(call.ctx.client.port),
    "upstream_x_forwarded_path": lambda call: call.ctx.client.path,
    "upstream_x_forwarded_prefix": lambda call: call.ctx.forwarded_prefix,
}


def _header(call: Call, name: str) -> str | None:
    found = find(headers_of(call), name)
    return ", ".join(found) if found else None


def _argument(call: Call, name: str) -> str | None:
    """nginx's `arg_`: the raw value of the first such argument."""
    for part in query_of(call).split("&"):
        key, equals, value = part.partition("=")
        if equals and key.lower() == name.lower():
            return value
    return None


def _cookie(call: Call, name: str) -> str | None:
    for line in find(headers_of(call), "cookie"):
        for part in line.split(";"):
            key, equals, value = part.strip().partition("=")
            if equals and key == name:
                return value
    return None


@method("nginx.get_var", ANY)
def get_var(call: Call, name: object = None) -> object:
    """An nginx variable of the request, None for one that is not set or not known here."""
    wanted = text(name, "bad variable name")
    known = _VARIABLES.get(wanted)
    if known is not None:
        return known(call)
    prefix, _, rest = wanted.partition("_")
    if prefix == "http":
        return _header(call, rest)
    if prefix == "arg":
        return _argument(call, rest)
    if prefix == "cookie":
        return _cookie(call, rest)
    return None
