"""Who may use which target: the rules of `config.acls`.

A request may use a target when no rule in `deny` holds and, where `allow` has any, one of those
does. All conditions of a rule must hold; of a condition's values one is enough.

Where what a condition looks at can be read in two ways, or cannot be known, a denial takes the one
that it denies, and a permission the one that it does not permit.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from kong_ai_proxy.config import AiProxyAdvanced, Config, Target
from kong_ai_proxy.config.acls import AclMatch, AclRule, Acls, network
from kong_ai_proxy.config.templating import compile_template
from kong_ai_proxy.exchange.errors import FORBIDDEN, Refused
from kong_ai_proxy.exchange.messages import ClientRequest

OF_CONSUMER = frozenset({"consumer", "consumer_group"})
"""The types of conditions on who the consumer is."""

_BODILESS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
_MOST_DECODINGS = 4

Permits = Callable[[Target, str | None], bool]
"""Whether the request may use a target; see `Access.permits`."""

_OfRequest = Callable[[ClientRequest], bool]
_OfTarget = Callable[[ClientRequest, Target, str | None], bool]


class _Rule(NamedTuple):
    """The conditions of one rule, by what they look at."""

    of_request: tuple[_OfRequest, ...]
    of_target: tuple[_OfTarget, ...]

    def concerns(self, request: ClientRequest) -> bool:
        """Whether the rule holds as far as the target does not matter."""
        return all(condition(request) for condition in self.of_request)

    def holds(self, request: ClientRequest, target: Target, model: str | None) -> bool:
        """Whether the rest holds too."""
        for condition in self.of_target:  # noqa: SIM110 - asked for each of many targets
            if not condition(request, target, model):
                return False
        return True


class Access:
    """The rules of one configuration, worked out once."""

    def __init__(self, acls: Acls) -> None:
        self._deny = tuple(_compiled(rule, deny=True) for rule in acls.deny)
        self._allow = tuple(_compiled(rule, deny=False) for rule in acls.allow)
        self.restricts = bool(self._deny or self._allow)
        """Whether there is any rule."""

    def permits(self, request: ClientRequest, target: Target, model: str | None) -> bool:
        """Whether `request` may use `target`. `model` is the target's model for this request: its
        name with the placeholders filled in or, where it has none, what the client named."""
        return self.of(request)(target, model)

    def of(self, request: ClientRequest) -> Permits:
        """`permits` for one request and many targets: what the request alone says is looked at
        once."""
        deny = [rule for rule in self._deny if rule.concerns(request)]
        allow = [rule for rule in self._allow if rule.concerns(request)]
        needs_one = bool(self._allow)

        def permits(target: Target, model: str | None) -> bool:
            for rule in deny:
                if rule.holds(request, target, model):
                    return False
            for rule in allow:
                if rule.holds(request, target, model):
                    return True
            return not needs_one

        return permits


def of(config: Config) -> Access:
    """The rules of `config`; ai-proxy has none."""
    return Access(config.acls if isinstance(config, AiProxyAdvanced) else Acls())


def refusal() -> Refused:
    """What a client is told that may use none of the targets. Says nothing of the rules."""
    return Refused(FORBIDDEN, "this consumer may not use the model")


def kinds(config: Config) -> frozenset[str]:
    """The types of conditions that `config` has."""
    if not isinstance(config, AiProxyAdvanced):
        return frozenset()
    rules = (*config.acls.allow, *config.acls.deny)
    return frozenset(match.type for rule in rules for match in rule.match)


def looks_for_model(config: Config) -> bool:
    """Whether a rule depends on the model that the client names, which its body may have."""
    return "model" in kinds(config) and any(not target.model.name for target in config.targets)


def _compiled(rule: AclRule, *, deny: bool) -> _Rule:
    return _Rule(
        tuple(_OF_REQUEST[m.type](m, deny) for m in rule.match if m.type in _OF_REQUEST),
        tuple(_OF_TARGET[m.type](m, deny) for m in rule.match if m.type in _OF_TARGET),
    )


def _consumer(match: AclMatch, _: bool) -> _OfRequest:
    holds = _identity(match, "username")
    return lambda request: holds(request.consumer.id, request.consumer.username)


def _consumer_group(match: AclMatch, _: bool) -> _OfRequest:
    holds = _identity(match, "name")
    return lambda request: any(holds(*group) for group in request.consumer.groups)


def _identity(match: AclMatch, name_key: str) -> Callable[[str, str], bool]:
    """Whether an entity of this id and name is meant. Kong writes ids in lower case."""
    names = frozenset(match.values) if match.key in (None, name_key) else frozenset()
    ids = frozenset(map(str.lower, match.values)) if match.key in (None, "id") else frozenset()
    return lambda id_, name: id_ in ids or name in names


def _header(match: AclMatch, _: bool) -> _OfRequest:
    name, wanted = str(match.key).lower(), frozenset(match.values)
    return lambda request: not wanted.isdisjoint(_elements(request.headers.get(name, ())))


def _elements(values: tuple[str, ...]) -> Iterable[str]:
    """A header's values, and the elements of those that are lists: several lines mean the same as
    one with commas (RFC 9110 section 5.3)."""
    for value in values:
        yield value.strip()
        if "," in value:
            yield from (element.strip() for element in value.split(","))


def _ip(match: AclMatch, deny: bool) -> _OfRequest:
    networks = [network(value) for value in match.values]

    def holds(request: ClientRequest) -> bool:
        try:
            address = _address(request.address)
        except ValueError:
            return deny
        return any(address in each for each in networks)

    return holds


@lru_cache(maxsize=1024)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _path(match: AclMatch, deny: bool) -> _OfRequest:
    prefixes = [_segments(value) for value in match.values]
    every = any if deny else all

    def holds(request: ClientRequest) -> bool:
        readings = _readings(request.path)
        if readings is None:
            return deny
        return every(any(r[: len(p)] == p for p in prefixes) for r in readings)

    return holds


@lru_cache(maxsize=256)
def _readings(path: str) -> tuple[tuple[str, ...], ...] | None:
    """What the path may be to those who read it after us: taken apart as it is, or only once its
    percent-encoding has been undone once or more often. None: it is encoded more often than anybody
    would."""
    found = [_segments(path)]
    for _ in range(_MOST_DECODINGS):
        decoded = _decoded(path)
        if decoded == path:
            return tuple(dict.fromkeys(found))
        path = decoded
        found.append(_segments(path))
    return None


def _segments(path: str) -> tuple[str, ...]:
    """Decoded, without empty and dot segments (RFC 3986 sections 2.4 and 5.2.4)."""
    segments: list[str] = []
    for segment in map(_decoded, path.split("/")):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return tuple(segments)


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape") if "%" in text else text


def _model(match: AclMatch, deny: bool) -> _OfTarget:
    """A denial also holds for other spellings of a name, some of which providers take, and for
    paths and ARNs that end in it, such as models/NAME."""
    spelled = _spellings if deny else _as_written
    wanted = frozenset(value.strip().casefold() if deny else value for value in match.values)

    def holds(request: ClientRequest, target: Target, model: str | None) -> bool:
        own = target.model
        if own.model_alias and not wanted.isdisjoint(spelled(own.model_alias)):
            return True
        name = own.name if own.name and not _has_placeholders(own.name) else model
        if name is None:
            return deny and _may_name_a_model(request)
        return not wanted.isdisjoint(spelled(name))

    return holds


@lru_cache(maxsize=1024)
def _has_placeholders(name: str) -> bool:
    return compile_template(name) is not None


def _as_written(name: str) -> tuple[str, ...]:
    return (name,)


def _spellings(name: str) -> tuple[str, ...]:
    folded = name.strip().casefold()
    return folded, folded.rpartition("/")[2]


def _may_name_a_model(request: ClientRequest) -> bool:
    """Whether there may be a model in a body, or in the messages of a WebSocket, that nobody here
    has looked at."""
    upgrades = "upgrade" in request.headers
    return upgrades or request.has_body or request.method not in _BODILESS


def _provider(match: AclMatch, _: bool) -> _OfTarget:
    wanted = frozenset(match.values)
    return lambda request, target, model: target.model.provider in wanted


_OF_REQUEST: Mapping[str, Callable[[AclMatch, bool], _OfRequest]] = {
    "consumer": _consumer,
    "consumer_group": _consumer_group,
    "header": _header,
    "ip": _ip,
    "path": _path,
}
_OF_TARGET: Mapping[str, Callable[[AclMatch, bool], _OfTarget]] = {
    "model": _model,
    "provider": _provider,
}
