"""Which Route a request belongs to: the rules of Kong's `traditional` router, without its indexes.

A Route with several paths counts once per path. Candidates are tried in this order, and the first
one that matches in every attribute wins:

1. more kinds of attributes set (hosts, headers, paths, methods); between equal numbers, hosts
   weigh more than headers, headers more than paths, paths more than methods;
2. plain hosts before wildcards, a regular expression before a plain path;
3. more headers;
4. between regular expressions, the higher `regex_priority`;
5. the longer plain path;
6. the Route that was declared first.

Kong's indexes, which let it try a few likely Routes of one rank before the others, are left out.
TLS attributes (snis) are not looked at: the stand-in listens without TLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kong_ai_proxy.gateway import paths
from kong_ai_proxy.gateway.context import Headers

_HOSTS, _HEADERS, _PATHS, _METHODS = 8, 4, 2, 1
_REGEX_PATH, _PLAIN_HOSTS, _WILDCARD_PORT = 1, 2, 4
_NAMED_GROUP = re.compile(r"\(\?<(?![=!])")


class RouteError(ValueError):
    """A Route that Kong would refuse. The message says which of its values, and why."""


@dataclass(frozen=True, slots=True)
class Match:
    """A Route found for a request, and what its path matched."""

    route: Mapping[str, object]
    service: Mapping[str, object] | None
    upstream_path: str  # escaped, without the query
    prefix: str | None  # the part that strip_path took off; None when nothing is stripped
    captures_named: Mapping[str, str] = field(default_factory=dict)
    captures_unnamed: tuple[str, ...] = ()
    captures_match: str = ""


@dataclass(frozen=True, slots=True)
class _PathMatch:
    prefix: str
    remainder: str
    named: Mapping[str, str] = field(default_factory=dict)
    unnamed: tuple[str, ...] = ()
    whole: str = ""


def compile_path(pattern: str) -> re.Pattern[bytes]:
    """A Route's regular expression, given without its `~`.

    Kong's are PCRE, whose named groups `(?<name>...)` Python spells `(?P<name>...)`; the rest of
    what Routes use is the same. Raises RouteError with the reason.
    """
    try:
        return re.compile(paths.wire(_NAMED_GROUP.sub("(?P<", pattern)))
    except re.error as error:
        raise RouteError(f"invalid regex: '{pattern}' ({error})") from error


class _Candidate:
    """One Route with at most one of its paths."""

    def __init__(
        self,
        route: Mapping[str, object],
        service: Mapping[str, object] | None,
        path: str | None,
        index: int,
    ) -> None:
        self.route = route
        self.service = service
        self._plain_path = path if path is not None and not path.startswith("~") else None
        self._regex = compile_path(path[1:]) if path is not None and path[:1] == "~" else None
        self._methods = frozenset(_strings(route, "methods"))
        self._hosts = [_Host(host) for host in _strings(route, "hosts")]
        self._headers = _header_rules(route)
        self.order = self._sort_key(path, index)

    def _sort_key(self, path: str | None, index: int) -> tuple[int, ...]:
        rules = _HOSTS * bool(self._hosts) | _HEADERS * bool(self._headers)
        rules |= _PATHS * (path is not None) | _METHODS * bool(self._methods)
        sub = _REGEX_PATH * (self._regex is not None)
        if self._hosts:
            sub |= _PLAIN_HOSTS * all(host.pattern is None for host in self._hosts)
            sub |= _WILDCARD_PORT * any(host.wildcard_with_port for host in self._hosts)
        priority = _integer(self.route, "regex_priority") if self._regex is not None else 0
        length = len(paths.wire(self._plain_path)) if self._plain_path is not None else 0
        return (-rules.bit_count(), -rules, -sub, -len(self._headers), -priority, -length, index)

    def match(self, request: _Request) -> Match | None:
        if self._methods and request.method not in self._methods:
            return None
        if self._hosts and not any(host.matches(request) for host in self._hosts):
            return None
        if not all(rule.matches(request.headers) for rule in self._headers):
            return None
        found = self._match_path(request.path)
        return self._result(request.path, found) if found is not None else None

    def _match_path(self, path: str) -> _PathMatch | None:
        if self._regex is not None:
            return _match_regex(self._regex, path)
        if self._plain_path is None:
            return _PathMatch("", path[1:])
        if not path.startswith(self._plain_path):
            return None
        remainder = path[len(self._plain_path) :]
        return _PathMatch(self._plain_path, paths.sanitize_postfix(remainder))

    def _result(self, path: str, found: _PathMatch) -> Match:
        strip = self.route.get("strip_path") is True
        has_path = self._regex is not None or self._plain_path is not None
        upstream = paths.join(
            str((self.service or {}).get("path") or "/"),
            path,
            found.remainder,
            strip=strip,
            handling=str(self.route.get("path_handling", "v0")),
        )
        return Match(
            route=self.route,
            service=self.service,
            upstream_path=paths.escape(upstream),
            prefix=found.prefix if strip and has_path else None,
            captures_named=found.named,
            captures_unnamed=found.unnamed,
            captures_match=found.whole,
        )


def _match_regex(regex: re.Pattern[bytes], path: str) -> _PathMatch | None:
    data = paths.wire(path)
    match = regex.match(data)
    if match is None:
        return None
    prefix, remainder = paths.text(data[: match.end()]), paths.text(data[match.end() :])
    if not match.groups():
        return _PathMatch(prefix, paths.sanitize_postfix(remainder))
    return _PathMatch(
        prefix,
        paths.sanitize_postfix(remainder),
        named={k: paths.text(v) for k, v in match.groupdict().items() if v is not None},
        unnamed=tuple(paths.text(group or b"") for group in match.groups()),
        whole=path,
    )


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    host: str  # as the client sent it
    host_with_port: str
    host_without_port: str
    headers: Mapping[str, Sequence[str]]


class _Host:
    """One entry of `hosts`: a name, perhaps with a `*` at one end, perhaps with a port."""

    def __init__(self, host: str) -> None:
        self._name = host
        self.pattern: re.Pattern[str] | None = None
        has_port = split_port(host)[1] is not None
        self.wildcard_with_port = "*" in host and has_port
        if "*" in host:
            body = ".+".join(re.escape(part) for part in host.split("*"))
            self.pattern = re.compile(body + ("" if has_port else r"(?::\d+)?") + r"\Z")

    def matches(self, request: _Request) -> bool:
        if self.pattern is not None:
            return self.pattern.match(request.host_with_port) is not None
        return self._name in (request.host, request.host_without_port)


class _HeaderRule:
    """One of a Route's `headers`: any of the values, or one pattern written `~*regex`."""

    def __init__(self, name: str, values: Sequence[str]) -> None:
        self._name = name.lower()
        self._values = frozenset(value.lower() for value in values)
        self._pattern: re.Pattern[str] | None = None
        if len(values) == 1 and values[0].startswith("~*"):
            self._pattern = re.compile(values[0][2:])

    def matches(self, headers: Mapping[str, Sequence[str]]) -> bool:
        return any(self._matches_value(value.lower()) for value in headers.get(self._name, ()))

    def _matches_value(self, value: str) -> bool:
        if value in self._values:
            return True
        return self._pattern is not None and self._pattern.search(value) is not None


def _header_rules(route: Mapping[str, object]) -> list[_HeaderRule]:
    headers = route.get("headers")
    if not isinstance(headers, Mapping):
        return []
    return [_HeaderRule(name, values) for name, values in headers.items()]


def _strings(route: Mapping[str, object], name: str) -> list[str]:
    value = route.get(name)
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _integer(route: Mapping[str, object], name: str) -> int:
    value = route.get(name)
    return value if isinstance(value, int) else 0


def split_port(host: str) -> tuple[str, int | None]:
    """The name and the port of a Host header; brackets of an IPv6 address are taken off."""
    name, separator, port = host.rpartition(":")
    if separator and port.isdigit() and (":" not in name or name.endswith("]")):
        return name.strip("[]"), int(port)
    return host.removesuffix(":").strip("[]"), None


class Router:
    """The routing table of one configuration."""

    def __init__(
        self, routes: Iterable[tuple[Mapping[str, object], Mapping[str, object] | None]]
    ) -> None:
        candidates: list[_Candidate] = []
        for route, service in routes:
            each: list[str | None] = [*_strings(route, "paths")]
            for path in each or [None]:
                candidates.append(_Candidate(route, service, path, len(candidates)))
        self._candidates = sorted(candidates, key=lambda candidate: candidate.order)

    def find(
        self, method: str, path: str, headers: Headers, *, scheme: str = "http"
    ) -> Match | None:
        """The Route of a request; `path` as the client sent it, without the query.

        A path that is not UTF-8 when decoded has none: Kong's router since 3.0 takes only text.
        """
        normal = paths.normalize(path)
        if any("\udc80" <= letter <= "\udcff" for letter in normal):
            return None
        host = next((value for name, value in headers if name.lower() == "host"), "")
        name, port = split_port(host)
        default = 443 if scheme == "https" else 80
        request = _Request(
            method=method,
            path=normal,
            host=host,
            host_with_port=host if port is not None else f"{host}:{default}",
            host_without_port=name,
            headers=_by_name(headers),
        )
        for candidate in self._candidates:
            match = candidate.match(request)
            if match is not None:
                return match
        return None


def _by_name(headers: Headers) -> Mapping[str, Sequence[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append(value)
    return grouped
