"""The methods of Kong's plugin development kit (PDK) that a plugin server can call.

Names and shapes are those of the service in Kong's kong/include/kong/pluginsocket.proto
(ProtoBuf:1), followed by those that only MsgPack:1 reaches: there Kong looks the name up in its
PDK tables and passes the arguments on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from kong_ai_proxy.pluginserver.wire import WireError

Protocol = Literal["protobuf", "msgpack"]

WIRE_NAMES: Final[Mapping[Protocol, str]] = {"protobuf": "ProtoBuf:1", "msgpack": "MsgPack:1"}
"""What Kong calls the protocols, in a dump's key `Protocol`."""

Argument = Literal[
    "none",
    "text",  # one str
    "int",  # one int32
    "bool",  # one bool
    "bytes",  # bytes, or str sent as UTF-8
    "pair",  # key, value
    "map",  # a mapping of names to values
    "list",  # any number of values
    "target",  # host, port
    "exit",  # status, body, headers
    "consumer",  # id, whether it may be a username
    "authenticate",  # consumer, credential
    "any",  # whatever the method takes, passed on
]

Result = Literal[
    "empty",  # a setter
    "never",  # ends the event
    "text",
    "text or none",
    "int",
    "int or none",
    "number",
    "bool",
    "bytes",
    "value",  # any JSON value
    "headers",  # a mapping to str, list[str] or True
    "raw body",
    "captures",
    "route",
    "service",
    "consumer",
    "credential",
    "memory",
]


class Method(NamedTuple):
    """One PDK method: its full name, what it takes, what it gives, which protocols have it."""

    name: str
    argument: Argument
    result: Result
    protocols: frozenset[Protocol]


_BOTH: Final[tuple[tuple[str, Argument, Result], ...]] = (
    ("kong.client.get_ip", "none", "text"),
    ("kong.client.get_forwarded_ip", "none", "text"),
    ("kong.client.get_port", "none", "int"),
    ("kong.client.get_forwarded_port", "none", "int"),
    ("kong.client.get_credential", "none", "credential"),
    ("kong.client.load_consumer", "consumer", "consumer"),
    ("kong.client.get_consumer", "none", "consumer"),
    ("kong.client.authenticate", "authenticate", "empty"),
    ("kong.client.get_protocol", "bool", "text or none"),
    ("kong.ctx.shared.set", "pair", "empty"),
    ("kong.ctx.shared.get", "text", "value"),
    ("kong.ip.is_trusted", "text", "bool"),
    ("kong.log.alert", "list", "empty"),
    ("kong.log.crit", "list", "empty"),
    ("kong.log.err", "list", "empty"),
    ("kong.log.warn", "list", "empty"),
    ("kong.log.notice", "list", "empty"),
    ("kong.log.info", "list", "empty"),
    ("kong.log.debug", "list", "empty"),
    ("kong.log.set_serialize_value", "pair", "empty"),
    ("kong.log.serialize", "none", "text"),
    ("kong.nginx.get_var", "text", "text or none"),
    ("kong.nginx.get_tls1_version_str", "none", "text or none"),
    # Declared to return a String, but it returns nothing.
    ("kong.nginx.set_ctx", "pair", "empty"),
    ("kong.nginx.get_ctx", "text", "value"),
    ("kong.nginx.req_start_time", "none", "number"),
    ("kong.nginx.get_subsystem", "none", "text"),
    ("kong.node.get_id", "none", "text"),
    ("kong.node.get_memory_stats", "none", "memory"),
    ("kong.request.get_scheme", "none", "text"),
    ("kong.request.get_host", "none", "text"),
    ("kong.request.get_port", "none", "int"),
    ("kong.request.get_forwarded_scheme", "none", "text"),
    ("kong.request.get_forwarded_host", "none", "text"),
    ("kong.request.get_forwarded_port", "none", "int"),
    ("kong.request.get_http_version", "none", "number"),
    ("kong.request.get_method", "none", "text"),
    ("kong.request.get_path", "none", "text"),
    ("kong.request.get_path_with_query", "none", "text"),
    ("kong.request.get_raw_query", "none", "text"),
    ("kong.request.get_query_arg", "text", "text or none"),
    ("kong.request.get_query", "int", "headers"),
    ("kong.request.get_header", "text", "text or none"),
    ("kong.request.get_headers", "int", "headers"),
    ("kong.request.get_raw_body", "none", "raw body"),
    ("kong.request.get_uri_captures", "none", "captures"),
    ("kong.response.get_status", "none", "int"),
    ("kong.response.get_header", "text", "text or none"),
    ("kong.response.get_headers", "int", "headers"),
    ("kong.response.get_source", "none", "text"),
    ("kong.response.set_status", "int", "empty"),
    ("kong.response.set_header", "pair", "empty"),
    ("kong.response.add_header", "pair", "empty"),
    ("kong.response.clear_header", "text", "empty"),
    ("kong.response.set_headers", "map", "empty"),
    ("kong.response.exit", "exit", "never"),
    ("kong.router.get_route", "none", "route"),
    ("kong.router.get_service", "none", "service"),
    ("kong.service.set_upstream", "text", "bool"),
    ("kong.service.set_target", "target", "empty"),
    ("kong.service.request.set_scheme", "text", "empty"),
    ("kong.service.request.set_path", "text", "empty"),
    ("kong.service.request.set_raw_query", "text", "empty"),
    ("kong.service.request.set_method", "text", "empty"),
    ("kong.service.request.set_query", "map", "empty"),
    ("kong.service.request.set_header", "pair", "empty"),
    ("kong.service.request.add_header", "pair", "empty"),
    ("kong.service.request.clear_header", "text", "empty"),
    ("kong.service.request.set_headers", "map", "empty"),
    ("kong.service.request.set_raw_body", "bytes", "empty"),
    ("kong.service.response.get_status", "none", "int or none"),
    ("kong.service.response.get_header", "text", "text or none"),
    ("kong.service.response.get_headers", "int", "headers"),
    ("kong.service.response.get_raw_body", "none", "bytes"),
)

_MSGPACK_ONLY: Final[tuple[tuple[str, Argument, Result], ...]] = (
    ("kong.node.get_hostname", "any", "text"),
    ("kong.plugin.get_id", "any", "text or none"),
    ("kong.request.get_body", "any", "value"),
    ("kong.request.get_forwarded_path", "any", "text"),
    ("kong.request.get_forwarded_prefix", "any", "text or none"),
    ("kong.request.get_raw_path", "any", "text"),
    ("kong.request.get_start_time", "any", "number"),
    ("kong.response.error", "any", "never"),
    ("kong.response.get_raw_body", "any", "bytes"),
    ("kong.response.set_raw_body", "any", "empty"),
    ("kong.service.request.enable_buffering", "any", "empty"),
    ("kong.service.request.set_body", "any", "empty"),
    ("kong.service.set_retries", "any", "empty"),
    ("kong.service.set_timeouts", "any", "empty"),
    ("kong.service.set_tls_verify", "any", "empty"),
    ("kong.service.set_tls_verify_depth", "any", "empty"),
    ("kong.vault.get", "any", "text or none"),
    ("kong.vault.is_reference", "any", "bool"),
)


_TEXT: Final = (str, bytes, bytearray, memoryview)
_VALUE: Final = (object,)
_OPTIONAL_MAP: Final = (Mapping, type(None))

_SHAPES: Final[Mapping[Argument, tuple[int, tuple[tuple[type, ...], ...]]]] = {
    "none": (0, ()),
    "text": (1, (_TEXT,)),
    "int": (0, ((int,),)),
    "bool": (0, ((bool,),)),
    "bytes": (1, (_TEXT,)),
    "pair": (2, (_TEXT, _VALUE)),
    "map": (1, ((Mapping,),)),
    "target": (2, (_TEXT, (int,))),
    "exit": (1, ((int,), (*_TEXT, Mapping, list, tuple, type(None)), _OPTIONAL_MAP)),
    "consumer": (1, (_TEXT, (bool,))),
    "authenticate": (2, (_OPTIONAL_MAP, _OPTIONAL_MAP)),
}


def check_arguments(method: Method, args: tuple[object, ...]) -> None:
    """Raise WireError where arguments do not fit: Kong would answer 500 and not tell us."""
    if method.argument in ("list", "any"):
        return
    least, shape = _SHAPES[method.argument]
    if not least <= len(args) <= len(shape):
        raise WireError(f"{len(args)} arguments do not fit")
    for number, (value, types) in enumerate(zip(args, shape, strict=False), 1):
        wrong_bool = isinstance(value, bool) and types == (int,)
        if wrong_bool or not isinstance(value, types):
            expected = " or ".join(kind.__name__ for kind in types)
            got = type(value).__name__
            raise WireError(f"argument {number}: expected {expected}, got {got}")


def _table() -> dict[str, Method]:
    both: frozenset[Protocol] = frozenset(("protobuf", "msgpack"))
    msgpack: frozenset[Protocol] = frozenset(("msgpack",))
    methods = [Method(*row, both) for row in _BOTH] + [
        Method(*row, msgpack) for row in _MSGPACK_ONLY
    ]
    return {method.name: method for method in methods}


METHODS: Final[Mapping[str, Method]] = _table()
"""Every PDK method by its full name."""
