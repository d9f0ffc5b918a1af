"""The `kong` object that a plugin's handler gets: Kong's PDK in kong-pdk's synchronous style.

Getters return data, setters return None; both raise `PDKException` when the call cannot be made
or Kong says that it failed. Over ProtoBuf:1 setters wait for the next getter, exit or the end of
the event, and leave together.

Text from the client (paths, queries, headers, captures) is `str` decoded as UTF-8 with
`surrogateescape`: bytes that are not UTF-8 pass through unchanged when set again. A header or
query map gives `str`, a `list[str]` where the name was repeated, and True for a query name
without a value. What Kong itself cannot tell apart over ProtoBuf:1 comes as None: a missing
header and an empty one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

from kong_pdk.exception import PDKException

__all__ = ["BodyTooLarge", "HeaderMap", "Kong", "PDKException", "Record", "UriCaptures"]

T = TypeVar("T")

HeaderMap = dict[str, Any]
"""Names to `str`, `list[str]` or True."""

Record = dict[str, Any]
"""A Kong entity: the fields that Kong sent."""

UriCaptures = dict[str, Any]
"""`{"named": {name: str}, "unnamed": [str of capture 1, ...]}`."""

Headers = Mapping[str, object]
"""Header or query values to set: str, bytes, number, bool, or a list of those."""


class BodyTooLarge(PDKException):  # type: ignore[misc]  # kong-pdk has no types
    """The request's body is longer than the handler allowed. `size` in bytes, `limit` likewise."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the request body has {size} bytes, more than the {limit} allowed")
        self.size = size
        self.limit = limit


class Caller(Protocol):
    """What carries PDK calls to Kong: an event."""

    def call(self, name: str, *args: object) -> Any:
        """The result of a PDK method. Raises PDKException."""

    def raw_body(self, max_bytes: int | None) -> bytes:
        """The request's body. Raises PDKException, BodyTooLarge."""

    def exit(self, name: str, *args: object) -> NoReturn:
        """Call a method that ends the event."""

    def wait(self, awaitable: Awaitable[T]) -> T:
        """The result of something awaited on the loop."""


class _Namespace:
    __slots__ = ("_event",)

    def __init__(self, event: Caller) -> None:
        self._event = event

    def _set(self, name: str, *args: object) -> None:
        self._event.call(name, *args)

    def _text(self, name: str, *args: object) -> str:
        result: str = self._event.call(name, *args)
        return result

    def _maybe_text(self, name: str, *args: object) -> str | None:
        result: str | None = self._event.call(name, *args)
        return result

    def _int(self, name: str, *args: object) -> int:
        result: int = self._event.call(name, *args)
        return result

    def _number(self, name: str, *args: object) -> float:
        result: float = self._event.call(name, *args)
        return result

    def _bool(self, name: str, *args: object) -> bool:
        result: bool = self._event.call(name, *args)
        return result

    def _bytes(self, name: str, *args: object) -> bytes:
        result: bytes = self._event.call(name, *args)
        return result

    def _map(self, name: str, *args: object) -> HeaderMap:
        result: HeaderMap = self._event.call(name, *args)
        return result

    def _record(self, name: str, *args: object) -> Record | None:
        result: Record | None = self._event.call(name, *args)
        return result


class Client(_Namespace):
    """`kong.client`"""

    __slots__ = ()

    def get_ip(self) -> str:
        return self._text("kong.client.get_ip")

    def get_forwarded_ip(self) -> str:
        return self._text("kong.client.get_forwarded_ip")

    def get_port(self) -> int:
        return self._int("kong.client.get_port")

    def get_forwarded_port(self) -> int:
        return self._int("kong.client.get_forwarded_port")

    def get_credential(self) -> Record | None:
        """The credential that authenticated the client; over ProtoBuf:1 only its `id`."""
        return self._record("kong.client.get_credential")

    def load_consumer(self, consumer_id: str, by_username: bool = False) -> Record | None:
        return self._record("kong.client.load_consumer", consumer_id, by_username)

    def get_consumer(self) -> Record | None:
        """The authenticated consumer; None when there is none."""
        return self._record("kong.client.get_consumer")

    def authenticate(self, consumer: Record | None, credential: Record | None) -> None:
        self._set("kong.client.authenticate", consumer, credential)

    def get_protocol(self, allow_terminated: bool = False) -> str | None:
        return self._maybe_text("kong.client.get_protocol", allow_terminated)


class Shared(_Namespace):
    """`kong.ctx.shared`: values that live as long as the request. False reads back as None."""

    __slots__ = ()

    def get(self, key: str) -> Any:
        return self._event.call("kong.ctx.shared.get", key)

    def set(self, key: str, value: object) -> None:
        self._set("kong.ctx.shared.set", key, value)


class Ctx(_Namespace):
    """`kong.ctx`"""

    __slots__ = ()

    @property
    def shared(self) -> Shared:
        return Shared(self._event)


class Ip(_Namespace):
    """`kong.ip`"""

    __slots__ = ()

    def is_trusted(self, address: str) -> bool:
        return self._bool("kong.ip.is_trusted", address)


class Log(_Namespace):
    """`kong.log`: Kong's error log, and the record that Kong's log plugins write.

    The caller keeps secrets out of what it logs.
    """

    __slots__ = ()

    def alert(self, *args: object) -> None:
        self._set("kong.log.alert", *args)

    def crit(self, *args: object) -> None:
        self._set("kong.log.crit", *args)

    def err(self, *args: object) -> None:
        self._set("kong.log.err", *args)

    def warn(self, *args: object) -> None:
        self._set("kong.log.warn", *args)

    def notice(self, *args: object) -> None:
        self._set("kong.log.notice", *args)

    def info(self, *args: object) -> None:
        self._set("kong.log.info", *args)

    def debug(self, *args: object) -> None:
        self._set("kong.log.debug", *args)

    def set_serialize_value(self, key: str, value: object) -> None:
        """Put a value into the log record. Dots in `key` nest; False and None are lost."""
        self._set("kong.log.set_serialize_value", key, value)

    def serialize(self) -> str:
        """The log record as JSON text."""
        return self._text("kong.log.serialize")


class Nginx(_Namespace):
    """`kong.nginx`"""

    __slots__ = ()

    def get_var(self, name: str) -> str | None:
        return self._maybe_text("kong.nginx.get_var", name)

    def get_tls1_version_str(self) -> str | None:
        return self._maybe_text("kong.nginx.get_tls1_version_str")

    def set_ctx(self, key: str, value: object) -> None:
        self._set("kong.nginx.set_ctx", key, value)

    def get_ctx(self, key: str) -> Any:
        return self._event.call("kong.nginx.get_ctx", key)

    def req_start_time(self) -> float:
        """Seconds since the epoch."""
        return self._number("kong.nginx.req_start_time")

    def get_subsystem(self) -> str:
        return self._text("kong.nginx.get_subsystem")


class Node(_Namespace):
    """`kong.node`"""

    __slots__ = ()

    def get_id(self) -> str:
        return self._text("kong.node.get_id")

    def get_hostname(self) -> str:
        """MsgPack:1 only."""
        return self._text("kong.node.get_hostname")

    def get_memory_stats(self) -> Record | None:
        return self._record("kong.node.get_memory_stats")


class Plugin(_Namespace):
    """`kong.plugin`"""

    __slots__ = ()

    def get_id(self) -> str | None:
        """MsgPack:1 only."""
        return self._maybe_text("kong.plugin.get_id")


class Request(_Namespace):
    """`kong.request`: the request as the client sent it."""

    __slots__ = ()

    def get_scheme(self) -> str:
        return self._text("kong.request.get_scheme")

    def get_host(self) -> str:
        return self._text("kong.request.get_host")

    def get_port(self) -> int:
        return self._int("kong.request.get_port")

    def get_forwarded_scheme(self) -> str:
        return self._text("kong.request.get_forwarded_scheme")

    def get_forwarded_host(self) -> str:
        return self._text("kong.request.get_forwarded_host")

    def get_forwarded_port(self) -> int:
        return self._int("kong.request.get_forwarded_port")

    def get_forwarded_path(self) -> str:
        """MsgPack:1 only."""
        return self._text("kong.request.get_forwarded_path")

    def get_forwarded_prefix(self) -> str | None:
        """MsgPack:1 only."""
        return self._maybe_text("kong.request.get_forwarded_prefix")

    def get_http_version(self) -> float:
        return self._number("kong.request.get_http_version")

    def get_method(self) -> str:
        return self._text("kong.request.get_method")

    def get_path(self) -> str:
        """The path, normalised and percent-decoded."""
        return self._text("kong.request.get_path")

    def get_raw_path(self) -> str:
        """MsgPack:1 only."""
        return self._text("kong.request.get_raw_path")

    def get_path_with_query(self) -> str:
        return self._text("kong.request.get_path_with_query")

    def get_raw_query(self) -> str:
        return self._text("kong.request.get_raw_query")

    def get_query_arg(self, name: str) -> str | None:
        """Avoid it: over ProtoBuf:1 `?name` without a value makes Kong answer 500, over MsgPack:1
        it gives True. `get_query` is safe."""
        return self._maybe_text("kong.request.get_query_arg", name)

    def get_query(self, max_args: int = 100) -> HeaderMap:
        """Query arguments, decoded; `max_args` from 1 to 1000."""
        return self._map("kong.request.get_query", max_args)

    def get_header(self, name: str) -> str | None:
        return self._maybe_text("kong.request.get_header", name)

    def get_headers(self, max_headers: int = 100) -> HeaderMap:
        """Headers by lower-case name; `max_headers` from 1 to 1000."""
        return self._map("kong.request.get_headers", max_headers)

    def get_raw_body(self, max_bytes: int | None = None) -> bytes:
        """The body. `max_bytes`: the most to accept, None or 0 for no limit.

        Raises BodyTooLarge above it. Over ProtoBuf:1 Kong names the file when it has spooled the
        body, and the file is read here; over MsgPack:1 Kong reads it, which needs `max_bytes`
        given (0 too) and Kong 3.8: without it, and above it, Kong answers 500 itself.
        """
        return self._event.raw_body(max_bytes)

    def get_body(self, mimetype: str | None = None, max_args: int | None = None) -> Any:
        """MsgPack:1 only: the body as Kong parsed it."""
        return self._event.call("kong.request.get_body", mimetype, max_args)

    def get_uri_captures(self) -> UriCaptures:
        """Captures of the Route's path: `{"named": {...}, "unnamed": [capture 1, ...]}`."""
        return self._map("kong.request.get_uri_captures")

    def get_start_time(self) -> float:
        """MsgPack:1 only: milliseconds since the epoch."""
        return self._number("kong.request.get_start_time")


class Response(_Namespace):
    """`kong.response`: what the client gets."""

    __slots__ = ()

    def get_status(self) -> int:
        return self._int("kong.response.get_status")

    def get_header(self, name: str) -> str | None:
        return self._maybe_text("kong.response.get_header", name)

    def get_headers(self, max_headers: int = 100) -> HeaderMap:
        return self._map("kong.response.get_headers", max_headers)

    def get_source(self) -> str:
        """`service`, `exit` or `error`."""
        return self._text("kong.response.get_source")

    def set_status(self, status: int) -> None:
        self._set("kong.response.set_status", status)

    def set_header(self, name: str, value: object) -> None:
        self._set("kong.response.set_header", name, value)

    def add_header(self, name: str, value: object) -> None:
        self._set("kong.response.add_header", name, value)

    def clear_header(self, name: str) -> None:
        self._set("kong.response.clear_header", name)

    def set_headers(self, headers: Headers) -> None:
        self._set("kong.response.set_headers", headers)

    def get_raw_body(self) -> bytes:
        """MsgPack:1 only."""
        return self._bytes("kong.response.get_raw_body")

    def set_raw_body(self, body: str | bytes) -> None:
        """MsgPack:1 only."""
        self._set("kong.response.set_raw_body", body)

    def exit(
        self,
        status: int,
        body: str | bytes | Mapping[str, object] | Sequence[object] | None = None,
        headers: Headers | None = None,
    ) -> NoReturn:
        """Answer the client. Ends the handler: nothing after this call runs.

        A mapping or list as `body` is sent as JSON.
        """
        self._event.exit("kong.response.exit", status, body, headers)

    def error(
        self, status: int, message: str | None = None, headers: Headers | None = None
    ) -> NoReturn:
        """MsgPack:1 only: answer with Kong's own error page. Ends the handler."""
        self._event.exit("kong.response.error", status, message, headers)


class Router(_Namespace):
    """`kong.router`"""

    __slots__ = ()

    def get_route(self) -> Record | None:
        return self._record("kong.router.get_route")

    def get_service(self) -> Record | None:
        return self._record("kong.router.get_service")


class ServiceRequest(_Namespace):
    """`kong.service.request`: what goes to the provider."""

    __slots__ = ()

    def set_scheme(self, scheme: str) -> None:
        self._set("kong.service.request.set_scheme", scheme)

    def set_path(self, path: str) -> None:
        self._set("kong.service.request.set_path", path)

    def set_raw_query(self, query: str) -> None:
        self._set("kong.service.request.set_raw_query", query)

    def set_method(self, method: str) -> None:
        self._set("kong.service.request.set_method", method)

    def set_query(self, args: Headers) -> None:
        self._set("kong.service.request.set_query", args)

    def set_header(self, name: str, value: object) -> None:
        self._set("kong.service.request.set_header", name, value)

    def add_header(self, name: str, value: object) -> None:
        self._set("kong.service.request.add_header", name, value)

    def clear_header(self, name: str) -> None:
        self._set("kong.service.request.clear_header", name)

    def set_headers(self, headers: Headers) -> None:
        self._set("kong.service.request.set_headers", headers)

    def set_raw_body(self, body: str | bytes) -> None:
        self._set("kong.service.request.set_raw_body", body)

    def set_body(self, args: Headers, mimetype: str | None = None) -> None:
        """MsgPack:1 only."""
        self._set("kong.service.request.set_body", args, mimetype)

    def enable_buffering(self) -> None:
        """MsgPack:1 only. Ends streaming for this request."""
        self._set("kong.service.request.enable_buffering")


class ServiceResponse(_Namespace):
    """`kong.service.response`: what the provider answered."""

    __slots__ = ()

    def get_status(self) -> int | None:
        result: int | None = self._event.call("kong.service.response.get_status")
        return result

    def get_header(self, name: str) -> str | None:
        return self._maybe_text("kong.service.response.get_header", name)

    def get_headers(self, max_headers: int = 100) -> HeaderMap:
        return self._map("kong.service.response.get_headers", max_headers)

    def get_raw_body(self) -> bytes:
        return self._bytes("kong.service.response.get_raw_body")


class Service(_Namespace):
    """`kong.service`: where Kong connects to."""

    __slots__ = ()

    @property
    def request(self) -> ServiceRequest:
        return ServiceRequest(self._event)

    @property
    def response(self) -> ServiceResponse:
        return ServiceResponse(self._event)

    def set_upstream(self, host: str) -> bool:
        """False when there is no such upstream; Kong's reason does not reach us."""
        return self._bool("kong.service.set_upstream", host)

    def set_target(self, host: str, port: int) -> None:
        """Also sets the Host header and the SNI. A port above 65535 makes Kong answer 500."""
        self._set("kong.service.set_target", host, port)

    def set_retries(self, retries: int) -> None:
        """MsgPack:1 only."""
        self._set("kong.service.set_retries", retries)

    def set_timeouts(self, connect: int, write: int, read: int) -> None:
        """MsgPack:1 only. Milliseconds."""
        self._set("kong.service.set_timeouts", connect, write, read)

    def set_tls_verify(self, on: bool) -> None:
        """MsgPack:1 only."""
        self._set("kong.service.set_tls_verify", on)

    def set_tls_verify_depth(self, depth: int) -> None:
        """MsgPack:1 only."""
        self._set("kong.service.set_tls_verify_depth", depth)


class Vault(_Namespace):
    """`kong.vault`"""

    __slots__ = ()

    def get(self, reference: str) -> str | None:
        """MsgPack:1 only."""
        return self._maybe_text("kong.vault.get", reference)

    def is_reference(self, reference: str) -> bool:
        """MsgPack:1 only."""
        return self._bool("kong.vault.is_reference", reference)


class Kong(_Namespace):
    """Kong's PDK for one event. Methods that the event's protocol lacks raise PDKException."""

    __slots__ = ()

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Await something while other events go on: how a handler does I/O.

        Not part of Kong's PDK. The event's time limit goes on counting.
        """
        return self._event.wait(awaitable)

    @property
    def client(self) -> Client:
        return Client(self._event)

    @property
    def ctx(self) -> Ctx:
        return Ctx(self._event)

    @property
    def ip(self) -> Ip:
        return Ip(self._event)

    @property
    def log(self) -> Log:
        return Log(self._event)

    @property
    def nginx(self) -> Nginx:
        return Nginx(self._event)

    @property
    def node(self) -> Node:
        return Node(self._event)

    @property
    def plugin(self) -> Plugin:
        return Plugin(self._event)

    @property
    def request(self) -> Request:
        return Request(self._event)

    @property
    def response(self) -> Response:
        return Response(self._event)

    @property
    def router(self) -> Router:
        return Router(self._event)

    @property
    def service(self) -> Service:
        return Service(self._event)

    @property
    def vault(self) -> Vault:
        return Vault(self._event)
