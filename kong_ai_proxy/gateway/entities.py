"""Services, Routes, consumers and credentials as Kong stores them: defaults, checks, ids.

The fields, defaults and ranges are those of Kong's Admin API documentation (3.10); the texts of
errors are Kong's.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from kong_ai_proxy.gateway.paths import normalize
from kong_ai_proxy.gateway.router import RouteError, compile_path

WORKSPACE_ID = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
"""The default workspace of every Kong without a database."""

_ENTITIES = uuid.UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")  # seen: Kong's ids derive from it

Fields = dict[str, object]
Check = Callable[[object], str | None]
"""Says what is wrong with a value; None: nothing."""


class EntityError(ValueError):
    """What is wrong with an entity, by field."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.fields = dict(fields)
        super().__init__(str(self.fields))


def entity_id(kind: str, key: str) -> str:
    """The id that Kong's declarative loader derives from an entity's unique key."""
    return str(uuid.uuid5(uuid.uuid5(_ENTITIES, kind), key))


def _string(value: object) -> str | None:
    return None if isinstance(value, str) and value else "expected a string"


def _boolean(value: object) -> str | None:
    return None if isinstance(value, bool) else "expected a boolean"


def _integer(low: int, high: int) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "expected an integer"
        return None if low <= value <= high else f"value should be between {low} and {high}"

    return check


def _one_of(*choices: object) -> Check:
    def check(value: object) -> str | None:
        text = ", ".join(str(choice) for choice in choices)
        return None if value in choices else f"expected one of: {text}"

    return check


def _list(element: Check) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return "expected an array"
        problems = (problem for item in value if (problem := element(item)))
        return next(problems, None)

    return check


def _uuid(value: object) -> str | None:
    try:
        uuid.UUID(str(value))
    except ValueError:
        return "expected a valid UUID"
    return None


def _path(value: object) -> str | None:
    if not isinstance(value, str) or not value.startswith("/"):
        return "should start with: /"
    if "//" in value:
        return "must not have empty segments"
    if re.search(r"[^A-Za-z0-9\-._~%!$&'()*+,;=:@/]", value):
        return f"invalid path: '{value}' (characters outside of the reserved list of RFC 3986)"
    return None


def _route_path(value: object) -> str | None:
    if not isinstance(value, str) or not value.startswith(("/", "~/")):
        return "should start with: / (fixed path) or ~/ (regexed path)"
    if value.startswith("~"):
        return _regex(value[1:])
    if value != (normal := normalize(value)):
        return f"non-normalized path, consider use '{normal}' instead"
    return None


def _regex(pattern: str) -> str | None:
    try:
        compile_path(pattern)
    except RouteError as error:
        return str(error)
    return None


def _method(value: object) -> str | None:
    valid = isinstance(value, str) and re.fullmatch(r"[A-Z]+", value)
    return None if valid else f"invalid value: {value}"


def _host(value: object) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9\-._*\[\]:]+", value):
        return f"invalid value: {value}"
    if value.count("*") > 1 or ("*" in value and not re.match(r"\*\.|.*\.\*(:\d+)?$", value)):
        return f"invalid wildcard: must be placed at leftmost or rightmost label: {value}"
    return None


def _header_values(value: object) -> str | None:
    if not isinstance(value, Mapping):
        return "expected a map"
    for name, values in value.items():
        if str(name).lower() == "host":
            return "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
        if problem := _list(_string)(values):
            return f"{name}: {problem}"
    return None


_TIMEOUT = _integer(1, 2**31 - 2)
_PROTOCOLS = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
_COMMON: dict[str, Check] = {
    "id": _uuid,
    "tags": _list(_string),
    "created_at": _integer(0, 2**53),
    "updated_at": _integer(0, 2**53),
}
_SERVICE: dict[str, Check] = {
    **_COMMON,
    "name": _string,
    "protocol": _one_of("http", "https"),
    "host": _string,
    "port": _integer(0, 65535),
    "path": _path,
    "retries": _integer(0, 32767),
    "connect_timeout": _TIMEOUT,
    "write_timeout": _TIMEOUT,
    "read_timeout": _TIMEOUT,
    "enabled": _boolean,
    "tls_verify": _boolean,
    "tls_verify_depth": _integer(0, 64),
    "ca_certificates": _list(_uuid),
    "client_certificate": lambda _: None,
}
_SERVICE_DEFAULTS: Fields = {
    "protocol": "http",
    "port": 80,
    "retries": 5,
    "connect_timeout": 60000,
    "write_timeout": 60000,
    "read_timeout": 60000,
    "enabled": True,
}
_ROUTE: dict[str, Check] = {
    **_COMMON,
    "name": _string,
    "service": lambda _: None,
    "protocols": _list(_one_of(*_PROTOCOLS)),
    "methods": _list(_method),
    "hosts": _list(_host),
    "paths": _list(_route_path),
    "headers": _header_values,
    "snis": _list(_string),
    "https_redirect_status_code": _one_of(426, 301, 302, 307, 308),
    "strip_path": _boolean,
    "preserve_host": _boolean,
    "request_buffering": _boolean,
    "response_buffering": _boolean,
    "regex_priority": _integer(-(2**31), 2**31),
    "path_handling": _one_of("v0", "v1"),
}
_ROUTE_DEFAULTS: Fields = {
    "protocols": ["http", "https"],
    "https_redirect_status_code": 426,
    "strip_path": True,
    "preserve_host": False,
    "request_buffering": True,
    "response_buffering": True,
    "regex_priority": 0,
    "path_handling": "v0",
}
_CONSUMER: dict[str, Check] = {**_COMMON, "username": _string, "custom_id": _string}
_GROUP: dict[str, Check] = {**_COMMON, "name": _string}
_KEY: dict[str, Check] = {
    **_COMMON,
    "consumer": lambda _: None,
    "key": _string,
    "ttl": _integer(0, 2**31),
}


def service(given: Mapping[str, object]) -> Fields:
    """A Service, `url` taken apart. Raises EntityError."""
    fields = {name: value for name, value in given.items() if name != "url"}
    problems: dict[str, object] = {}
    if given.get("url") is not None:
        try:
            fields |= _take_apart(str(given["url"]))
        except ValueError:
            problems["url"] = f"invalid url: {given['url']}"
    return _checked(fields, _SERVICE, _SERVICE_DEFAULTS, required=("host",), problems=problems)


def _take_apart(url: str) -> Fields:
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError(url)
    default = 443 if parts.scheme == "https" else 80
    scheme = parts.scheme or ("https" if parts.port == 443 else "http")
    fields: Fields = {"protocol": scheme, "host": parts.hostname, "port": parts.port or default}
    return {**fields, "path": parts.path} if parts.path else fields


def route(given: Mapping[str, object]) -> Fields:
    """A Route; `service` is left as it is. Raises EntityError."""
    stored = _checked(given, _ROUTE, _ROUTE_DEFAULTS)
    if not any(stored.get(name) for name in ("methods", "hosts", "headers", "paths")):
        attributes = "'methods', 'hosts', 'headers', 'paths'"
        raise EntityError({"@entity": [f"must set one of {attributes} when 'protocols' is 'http'"]})
    return stored


def consumer(given: Mapping[str, object]) -> Fields:
    """A consumer. Raises EntityError."""
    stored = _checked(given, _CONSUMER, {})
    if not (stored.get("username") or stored.get("custom_id")):
        message = "at least one of these fields must be non-empty: 'custom_id', 'username'"
        raise EntityError({"@entity": [message]})
    return stored


def consumer_group(given: Mapping[str, object]) -> Fields:
    """A consumer group. Raises EntityError."""
    return _checked(given, _GROUP, {}, required=("name",))


def key_credential(given: Mapping[str, object]) -> Fields:
    """A key of key-auth; `consumer` is left as it is. Raises EntityError."""
    return _checked(given, _KEY, {}, required=("key",))


def _checked(
    given: Mapping[str, object],
    checks: Mapping[str, Check],
    defaults: Fields,
    *,
    required: tuple[str, ...] = (),
    problems: dict[str, object] | None = None,
) -> Fields:
    found = dict(problems or {})
    fields = {name: value for name, value in given.items() if value is not None}
    for name, value in fields.items():
        if name.startswith("_"):  # Kong's _comment and _ignore
            continue
        problem = checks[name](value) if name in checks else "unknown field"
        if problem:
            found[name] = problem
    for name in required:
        if name not in fields:
            found.setdefault(name, "required field missing")
    if found:
        raise EntityError(found)
    return {**defaults, **{name: v for name, v in fields.items() if name in checks}}
