"""What a request's head says, before its body is looked at."""

from __future__ import annotations

from functools import lru_cache

from kong_ai_proxy.exchange.errors import BAD_REQUEST, Refused
from kong_ai_proxy.exchange.messages import ClientRequest

MAX_QUERY_FIELDS = 1000

# Kong removes every header that `Connection` names, and does so after the plugins: a client could
# take away a header that was set for the provider, or the length of the body (seen on Kong 3.9.3:
# the body then stands where the provider expects the next request).
_CONNECTION_OPTIONS = frozenset({"", "close", "keep-alive", "upgrade", "te", "http2-settings"})


def check(request: ClientRequest) -> None:
    """Raise Refused (400) for a head that must not reach a provider, whatever the route type."""
    for option in _listed(request, "connection"):
        if option not in _CONNECTION_OPTIONS:
            raise Refused(BAD_REQUEST, "header connection: expected close, keep-alive or upgrade")
    if request.query.count("&") >= MAX_QUERY_FIELDS:
        raise Refused(BAD_REQUEST, f"expected at most {MAX_QUERY_FIELDS} query parameters")


def is_json(request: ClientRequest) -> bool:
    """Whether a body is JSON that everybody reads the same way: one type, UTF-8, not compressed.

    An absent type counts as JSON, as Kong has it.
    """
    headers = request.headers
    return _is_json(headers.get("content-type", ("",)), headers.get("content-encoding", ()))


@lru_cache(maxsize=256)
def _is_json(types: tuple[str, ...], encodings: tuple[str, ...]) -> bool:
    if len(types) > 1 or [e for e in encodings if e.strip().lower() != "identity"]:
        return False
    media_type, *parameters = (part.strip().lower() for part in types[0].split(";"))
    charsets = [p.removeprefix("charset=").strip('"') for p in parameters if "charset" in p]
    known = media_type in ("", "application/json") or media_type.endswith("+json")
    return known and all(charset in ("utf-8", "utf8") for charset in charsets)


def content_length(request: ClientRequest) -> int:
    """The announced length of the body in bytes; 0 where none is announced."""
    length = (request.header("content-length") or "0").strip()
    return int(length) if length.isascii() and length.isdigit() else 0


def asks_upgrade(request: ClientRequest) -> bool:
    """Whether the client wants the connection to become something else than HTTP."""
    return "upgrade" in request.headers or "upgrade" in _listed(request, "connection")


def values(request: ClientRequest, name: str) -> frozenset[str]:
    """The elements of a header that is a list, as they are written."""
    if name not in request.headers:
        return frozenset()
    listed = ",".join(request.headers[name]).split(",")
    return frozenset(each.strip() for each in listed) - {""}


def _listed(request: ClientRequest, name: str) -> tuple[str, ...]:
    """The elements of a header that is a list (RFC 9110 section 5.6.1), in lower case."""
    return _elements(request.headers.get(name, ()))


@lru_cache(maxsize=256)
def _elements(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(element.strip().lower() for element in ",".join(values).split(","))


def is_form(request: ClientRequest) -> bool:
    """Whether the body is a form of several parts (RFC 7578)."""
    types = request.headers.get("content-type", ())
    first = types[0].partition(";")[0].strip().lower() if types else ""
    return len(types) == 1 and first == "multipart/form-data"


def is_encoded(request: ClientRequest) -> bool:
    """Whether the body is compressed, so that nobody here could look at it."""
    encodings = request.headers.get("content-encoding", ())
    return any(each.strip().lower() not in ("", "identity") for each in encodings)
