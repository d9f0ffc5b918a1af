"""One configuration in force: immutable, so a request keeps the one it began with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kong_ai_proxy.gateway.context import PluginEntity
from kong_ai_proxy.gateway.router import Router

Entity = Mapping[str, object]

KEY_AUTH = "key-auth"
KEY_AUTH_PRIORITY = 1250


@dataclass(frozen=True, slots=True)
class ScopedPlugin:
    """A plugin and the consumer group it is limited to, which the PDK knows nothing of."""

    entity: PluginEntity
    consumer_group_id: str | None = None


_Scope = tuple[str | None, str | None, str | None, str | None]  # route, service, consumer, group


class PluginIndex:
    """Which plugin of a name applies to a request: one at most, the most specific.

    Kong's order of precedence ("Plugin precedence" in its documentation): consumer, route and
    service together; consumer group, route and service; consumer and route; consumer and service;
    group and route; group and service; route and service; consumer; group; route; service; global.
    """

    def __init__(self, plugins: Iterable[ScopedPlugin], priorities: Mapping[str, int]) -> None:
        self._scopes: dict[str, dict[_Scope, PluginEntity]] = {}
        for plugin in plugins:
            entity = plugin.entity
            scope = (
                entity.route_id,
                entity.service_id,
                entity.consumer_id,
                plugin.consumer_group_id,
            )
            self._scopes.setdefault(entity.name, {})[scope] = entity
        # Equal priorities: the later name first, as Kong sorts them.
        self.names = sorted(
            self._scopes, key=lambda name: (priorities.get(name, 0), name), reverse=True
        )

    def find(
        self,
        name: str,
        *,
        route_id: str | None,
        service_id: str | None,
        consumer_id: str | None = None,
        group_ids: Iterable[str] = (),
    ) -> PluginEntity | None:
        """The plugin of this name that applies, or None."""
        scopes = self._scopes.get(name, {})
        for scope in _by_precedence(route_id, service_id, consumer_id, list(group_ids)):
            if scope in scopes:
                return scopes[scope]
        return None


def _by_precedence(
    route: str | None, service: str | None, consumer: str | None, groups: list[str]
) -> Iterator[_Scope]:
    if consumer:
        yield route, service, consumer, None
    yield from ((route, service, None, group) for group in groups)
    if consumer:
        yield route, None, consumer, None
        yield None, service, consumer, None
    yield from ((route, None, None, group) for group in groups)
    yield from ((None, service, None, group) for group in groups)
    yield route, service, None, None
    if consumer:
        yield None, None, consumer, None
    yield from ((None, None, None, group) for group in groups)
    yield route, None, None, None
    yield None, service, None, None
    yield None, None, None, None


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything a request is decided by, made from one declarative file."""

    router: Router
    plugins: PluginIndex
    entities: Mapping[str, Mapping[str, Entity]]  # by kind, then by id, as Kong stores them
    keys: Mapping[str, Entity] = field(default_factory=dict)  # key-auth credentials by key
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # group ids by consumer id
    warnings: tuple[str, ...] = ()

    def consumer(self, consumer_id: str) -> Entity | None:
        return self.entities.get("consumers", {}).get(consumer_id)
