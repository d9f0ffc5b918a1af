"""Which Route a request belongs to: the rules of `traditional_compatible`, Kong's default router.

A Route's paths count in groups, all regular expressions together and plain ones by length. The
first candidate that matches in every attribute it has wins, in this order:

1. all four kinds of attributes (methods, hosts, headers, paths);
2. hosts, none with a wildcard;
3. a regular expression;
4. more kinds of attributes;
5. more headers, and the higher `regex_priority` (two of it weigh as much as one header);
6. the longer plain path;
7. the greater id: Kong has no order of declaration.

This is how Kong 3.9 and 3.10 route (seen). Its documentation puts the number of kinds first; but
the rank is put together with shifts of 32 bits where 64 are meant, and `_rank` repeats that.

TLS attributes (snis) are not looked at: the stand-in listens without TLS.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kong_ai_proxy.gateway import paths
from kong_ai_proxy.gateway.context import Headers

_NAMED_GROUP = re.compile(r"\(\?<(?![=!])")
_SPLIT_ROUTES = uuid.UUID("7f145bf9-0dce-4f91-98eb-debbce4b9f6b")  # seen: orders equal candidates


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
    prefix: str = ""
    named: Mapping[str, str] = field(default_factory=dict)
    unnamed: tuple[str, ...] = ()


def compile_path(pattern: str) -> re.Pattern[str]:
    """A Route's regular expression, given without its `~`.

    Named groups are `(?<name>...)` as in PCRE, which Python spells `(?P<name>...)`; the rest of
    what Routes use is the same. Raises RouteError with the reason.
    """
    try:
        return re.compile(_NAMED_GROUP.sub("(?P<", pattern))
    except re.error as error:
        raise RouteError(f"invalid regex: '{pattern}' ({error})") from error


class _Candidate:
    """One Route with one group of its paths, or without any."""

    def __init__(
        self,
        route: Mapping[str, object],
        service: Mapping[str, object] | None,
        group: Sequence[str],
        id_: str,
    ) -> None:
        self.route = route
        self.service = service
        self._prefixes = [path for path in group if not path.startswith("~")]
        self._regexes = [compile_path(path[1:]) for path in group if path.startswith("~")]
        self._methods = frozenset(_strings(route, "methods"))
        self._hosts = [_Host(host) for host in _strings(route, "hosts")]
        self._headers = _header_rules(route)
        self.rank = (self._priority(), id_)

    def _priority(self) -> int:
        attributes = (self._methods, self._hosts, self._headers, self._prefixes or self._regexes)
        plain_hosts = bool(self._hosts) and not any(host.wildcard for host in self._hosts)
        low = sum(map(bool, attributes)) << 29
        low |= min(len(self._headers), 255) << 20
        low |= (_integer(self.route, "regex_priority") if self._regexes else 0) << 19
        low |= len(paths.wire(self._prefixes[0])) & 0x7FFFF if self._prefixes else 0
        low &= 0xFFFFFFFF
        high = plain_hosts << 60 | bool(self._regexes) << 51
        if low < 1 << 31:
            return high | low
        # A negative number of 32 bits: as an unsigned one of 64 it is 2^63, whatever it was.
        return 1 << 63 | (high | low & 0x1FFFFFFF if high else 0)

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
        if not self._prefixes and not self._regexes:
            return _PathMatch()
        for prefix in self._prefixes:
            if path.startswith(prefix):
                return _PathMatch(prefix)
        for regex in self._regexes:
            if match := regex.match(path):
                named = {k: v for k, v in match.groupdict().items() if v is not None}
                unnamed = tuple(group or "" for group in match.groups())
                return _PathMatch(match[0], named, unnamed)
        return None

    def _result(self, path: str, found: _PathMatch) -> Match:
        strip = self.route.get("strip_path") is True
        remainder = paths.sanitize_postfix(path[len(found.prefix) or 1 :])
        base = str((self.service or {}).get("path") or "/")
        return Match(
            route=self.route,
            service=self.service,
            upstream_path=paths.escape(paths.join(base, path, remainder, strip=strip)),
            prefix=(found.prefix or None) if strip else None,
            captures_named=found.named,
            captures_unnamed=found.unnamed,
            captures_match=found.prefix if found.unnamed else "",
        )


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    host: str  # without a port
    port: int  # the Host header's, or where the gateway listens
    headers: Mapping[str, Sequence[str]]


class _Host:
    """One entry of `hosts`: a name, perhaps with a `*` at one end, perhaps with a port."""

    def __init__(self, host: str) -> None:
        self._name, self._port = split_port(host)
        self.wildcard = "*" in host

    def matches(self, request: _Request) -> bool:
        if self._port is not None and self._port != request.port:
            return False
        if self._name.startswith("*"):
            return request.host.endswith(self._name[1:])
        if self._name.endswith("*"):
            return request.host.startswith(self._name[:-1])
        return request.host == self._name


class _HeaderRule:
    """One of a Route's `headers`: any of the values, `~*` marking regular expressions."""

    def __init__(self, name: str, values: Sequence[str]) -> None:
        self._name = name.lower()
        lowered = [str(value).lower() for value in values]
        self._values = frozenset(value for value in lowered if not value.startswith("~*"))
        self._patterns = [re.compile(value[2:]) for value in lowered if value.startswith("~*")]

    def matches(self, headers: Mapping[str, Sequence[str]]) -> bool:
        return any(self._matches_value(value.lower()) for value in headers.get(self._name, ()))

    def _matches_value(self, value: str) -> bool:
        return value in self._values or any(rule.search(value) for rule in self._patterns)


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
        candidates = [
            _Candidate(route, service, group, id_)
            for route, service in routes
            for id_, group in _groups(route)
        ]
        self._candidates = sorted(candidates, key=lambda each: each.rank, reverse=True)

    def find(self, method: str, path: str, headers: Headers, *, port: int) -> Match | None:
        """The Route of a request; `path` as the client sent it, without the query; `port` where
        the gateway listens.

        A path that is not UTF-8 when decoded has none, as with Kong.
        """
        normal = paths.normalize(path)
        if any("\udc80" <= letter <= "\udcff" for letter in normal):
            return None
        host = next((value for name, value in headers if name.lower() == "host"), "")
        name, given = split_port(host)
        request = _Request(method, normal, name, given or port, _by_name(headers))
        for candidate in self._candidates:
            match = candidate.match(request)
            if match is not None:
                return match
        return None


def _groups(route: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """A Route's paths in groups, and the id by which Kong orders each."""
    by_length: dict[int, list[str]] = {}
    for path in _strings(route, "paths"):
        key = 0 if path.startswith("~") else len(paths.wire(path))
        by_length.setdefault(key, []).append(path)
    id_ = str(route["id"])
    if len(by_length) <= 1:
        return [(id_, next(iter(by_length.values()), []))]
    return [
        (str(uuid.uuid5(_SPLIT_ROUTES, f"{id_}#{number}")), group)
        for number, group in enumerate(by_length.values(), 1)
    ]


def _by_name(headers: Headers) -> Mapping[str, Sequence[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append(value)
    return grouped
