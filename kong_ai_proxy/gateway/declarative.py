"""A declarative file turned into the configuration in force, or refused as a whole, as by Kong."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from kong_ai_proxy.config.deck import Deck, DeckError
from kong_ai_proxy.gateway import admin, entities, keyauth, vault
from kong_ai_proxy.gateway.configuration import (
    KEY_AUTH,
    KEY_AUTH_PRIORITY,
    Configuration,
    PluginIndex,
    ScopedPlugin,
)
from kong_ai_proxy.gateway.context import PluginEntity
from kong_ai_proxy.gateway.entities import WORKSPACE_ID, EntityError, Fields
from kong_ai_proxy.gateway.router import Router
from kong_ai_proxy.gateway.schema import PluginSchema, SchemaError

Where = tuple[str | int, ...]
"""A place in the file: ("services", 0, "routes", 1)."""

_KEYS = {
    "services": "name",
    "routes": "name",
    "consumers": "username",
    "consumer_groups": "name",
}
_SCOPES = {
    "route": "routes",
    "service": "services",
    "consumer": "consumers",
    "consumer_group": "consumer_groups",
}
_SINGULAR = {kind: scope for scope, kind in _SCOPES.items()}


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """An external plugin as its server describes it."""

    name: str
    priority: int
    schema: PluginSchema


class DeclarativeError(admin.DeclarativeError):
    """A file that Kong would refuse.

    `fields` nests as in the Admin API's answer; the text has one line for each problem, with the
    file's line, the entity and the field.
    """

    def __init__(self, fields: Mapping[str, object], lines: list[str]) -> None:
        super().__init__(fields)
        self.lines = lines

    @override
    def __str__(self) -> str:
        return "\n".join(self.lines)

    @classmethod
    def unreadable(cls, error: DeckError) -> DeclarativeError:
        """For a file that is not even a decK file."""
        return cls({"error": str(error)}, [str(error)])

    @classmethod
    def invalid(
        cls, deck: Deck, problems: list[tuple[Where, Mapping[str, object]]]
    ) -> DeclarativeError:
        """For a file whose entities are wrong: each place with what is wrong with its fields."""
        fields: dict[str, object] = {}
        lines = []
        for where, wrong in problems:
            _nest(fields, where, wrong)
            for path, text in _flat(wrong, where):
                lines.append(f"{deck.name}:{deck.line(path)}: {_place(path)}: {text}")
        return cls(fields, lines)


def _place(where: Where) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return text.removeprefix(".")


def _flat(fields: object, path: Where) -> Iterable[tuple[Where, str]]:
    """Each problem of a nest of them, with its place. Rules between fields are lists of texts."""
    if isinstance(fields, Mapping):
        for name, value in fields.items():
            yield from _flat(value, (*path, name))
    elif isinstance(fields, list):
        for number, value in enumerate(fields):
            yield from _flat(value, path if isinstance(value, str) else (*path, number))
    elif fields is not None:
        yield path, str(fields)


def _nest(tree: dict[str, object], where: Where, fields: Mapping[str, object]) -> None:
    node = tree
    for name, index in zip(where[::2], where[1::2], strict=False):
        items = node.setdefault(str(name), [])
        assert isinstance(items, list)
        assert isinstance(index, int)
        items.extend([None] * (index + 1 - len(items)))
        if items[index] is None:
            items[index] = {}
        node = items[index]
    node.update(fields)


def load(
    deck: Deck,
    *,
    specs: Mapping[str, PluginSpec],
    env: Mapping[str, str],
    next_seq: Callable[[], int],
) -> Configuration:
    """The configuration that a file describes.

    `next_seq` numbers the plugins. What the stand-in does not know is a warning. Raises
    DeclarativeError.
    """
    return _Loader(specs, env, next_seq).load(deck)


class _Loader:
    def __init__(
        self, specs: Mapping[str, PluginSpec], env: Mapping[str, str], next_seq: Callable[[], int]
    ) -> None:
        self._specs = specs
        self._next_seq = next_seq
        self._now = int(time.time())
        self._warnings: list[str] = []
        self._problems: list[tuple[Where, Mapping[str, object]]] = []
        self._entities: dict[str, dict[str, Fields]] = {kind: {} for kind in (*_KEYS, "plugins")}
        self._names: dict[str, dict[str, str]] = {kind: {} for kind in _KEYS}
        self._keys: dict[str, Fields] = {}
        self._groups: dict[str, list[str]] = {}
        self._memberships: list[tuple[Where, object, object]] = []  # consumer, group
        self._plugins: list[ScopedPlugin] = []
        self._scopes_seen: set[tuple[str | None, ...]] = set()
        self._resolve = vault.resolver(env, self._warn)

    def _warn(self, message: str) -> None:
        if message not in self._warnings:
            self._warnings.append(message)

    def _problem(self, where: Where, fields: Mapping[str, object]) -> None:
        self._problems.append((where, fields))

    def load(self, deck: Deck) -> Configuration:
        document: Mapping[str, object] = deck.data
        known = {*_KEYS, "plugins", "keyauth_credentials"}
        for name in document:
            if name not in known and not name.startswith("_"):
                self._warn(f"{name}: the stand-in does not know these entities and ignores them")
        for where, item in _items(document, "services", ()):
            self._service(where, item)
        for where, item in _items(document, "routes", ()):
            self._route(where, item, {})
        for where, item in _items(document, "consumer_groups", ()):
            self._consumer_group(where, item)
        for where, item in _items(document, "consumers", ()):
            self._consumer(where, item)
        self._settle_memberships()
        for where, item in _items(document, "keyauth_credentials", ()):
            self._key(where, item, self._reference(where, "consumer", item.get("consumer")))
        self._all_plugins(document)
        if self._problems:
            raise DeclarativeError.invalid(deck, self._problems)
        return self._configuration()

    # Entities

    def _service(self, where: Where, item: Mapping[str, object]) -> None:
        stored = self._store("services", where, item, entities.service, ("routes", "plugins"))
        for inner, nested in _items(item, "routes", where):
            self._route(inner, nested, stored)

    def _route(self, where: Where, item: Mapping[str, object], parent: Fields) -> None:
        stored = self._store("routes", where, item, entities.route, ("plugins",))
        if stored.get("path_handling") == "v1":
            self._warn(f"{_place(where)}: path_handling v1 counts as v0, as with Kong's router")
        service_id = parent.get("id")
        if service_id is None:
            service_id = self._reference(where, "service", item.get("service"))
        stored.pop("service", None)
        if service_id is not None:
            stored["service"] = {"id": service_id}

    def _consumer_group(self, where: Where, item: Mapping[str, object]) -> None:
        nested = ("plugins", "consumers")
        stored = self._store("consumer_groups", where, item, entities.consumer_group, nested)
        members = item.get("consumers")
        for member in members if isinstance(members, list) else []:
            self._memberships.append((where, member, stored.get("id")))

    def _consumer(self, where: Where, item: Mapping[str, object]) -> None:
        nested = ("plugins", "keyauth_credentials", "groups")
        ignored = [n for n in item if n.endswith(("_credentials", "_secrets")) or n == "acls"]
        ignored = [name for name in ignored if name != "keyauth_credentials"]
        for name in ignored:
            self._warn(f"{_place(where)}.{name}: the stand-in has key-auth only and ignores them")
        stored = self._store("consumers", where, item, entities.consumer, (*nested, *ignored))
        for inner, key in _items(item, "keyauth_credentials", where):
            self._key(inner, key, stored.get("id"))
        groups = item.get("groups")
        for group in groups if isinstance(groups, list) else []:
            self._memberships.append((where, stored.get("id"), group))

    def _settle_memberships(self) -> None:
        for where, consumer, group in self._memberships:
            consumer_id = self._reference(where, "consumer", consumer)
            group_id = self._reference(where, "consumer_group", group)
            if consumer_id and group_id:
                groups = self._groups.setdefault(consumer_id, [])
                groups += [group_id] if group_id not in groups else []

    def _key(self, where: Where, item: Mapping[str, object], consumer_id: object) -> None:
        try:
            stored = entities.key_credential(item)
        except EntityError as error:
            self._problem(where, error.fields)
            return
        key = str(stored["key"])
        if key in self._keys:
            self._problem(where, {"key": _twice("keyauth_credentials", "key", "...")})
            return
        self._complete(stored, entities.entity_id("keyauth_credentials", key))
        self._keys[key] = {**stored, "consumer": {"id": consumer_id}}

    def _store(
        self,
        kind: str,
        where: Where,
        item: Mapping[str, object],
        build: Callable[[Mapping[str, object]], Fields],
        nested: tuple[str, ...],
    ) -> Fields:
        """Build and file an entity; with a problem noted, one that serves to go on checking."""
        own = {name: value for name, value in item.items() if name not in nested}
        try:
            stored = build(own)
        except EntityError as error:
            self._problem(where, error.fields)
            stored = {"id": item["id"]} if isinstance(item.get("id"), str) else {}
        name = item.get(_KEYS[kind])
        key = name if isinstance(name, str) else _place(where)
        self._complete(stored, entities.entity_id(kind, key))
        if isinstance(name, str):
            if name in self._names[kind]:
                self._problem(where, {_KEYS[kind]: _twice(kind, _KEYS[kind], name)})
            self._names[kind][name] = str(stored["id"])
        self._entities[kind][str(stored["id"])] = stored
        return stored

    def _complete(self, stored: Fields, default_id: str) -> None:
        stored.setdefault("id", default_id)
        stored.setdefault("created_at", self._now)
        stored.setdefault("updated_at", self._now)
        stored["ws_id"] = WORKSPACE_ID

    def _reference(self, where: Where, scope: str, given: object) -> str | None:
        """The id of what is named: a name, an id, or an object with one of them."""
        kind = _SCOPES[scope]
        value = given
        if isinstance(given, Mapping):
            value = given.get("id") or given.get(_KEYS[kind]) or given.get("name")
        if value is None:
            return None
        if str(value) in self._entities[kind]:
            return str(value)
        found = self._names[kind].get(str(value))
        if found is None:
            text = f"invalid reference '{scope}: {value}' (no such entry in '{kind}')"
            self._problem(where, {scope: text})
        return found

    # Plugins

    def _all_plugins(self, document: Mapping[str, object]) -> None:
        for where, item in _items(document, "plugins", ()):
            self._plugin(where, item, {})
        for kind in _KEYS:
            for where, parent in _items(document, kind, ()):
                self._plugins_of(kind, where, parent)
                if kind == "services":
                    for inner, route in _items(parent, "routes", where):
                        self._plugins_of("routes", inner, route)

    def _plugins_of(self, kind: str, where: Where, parent: Mapping[str, object]) -> None:
        name = parent.get("id") or parent.get(_KEYS[kind])
        parent_id = self._names[kind].get(str(name), str(name))
        if name is None:
            parent_id = entities.entity_id(kind, _place(where))
        for inner, item in _items(parent, "plugins", where):
            self._plugin(inner, item, {_SINGULAR[kind]: parent_id})

    def _plugin(self, where: Where, item: Mapping[str, object], parent: dict[str, str]) -> None:
        name = item.get("name")
        if not isinstance(name, str):
            self._problem(where, {"name": "required field missing"})
            return
        if name != KEY_AUTH and name not in self._specs:
            self._warn(f"plugin {name}: the stand-in does not run it and ignores it")
            return
        scope: dict[str, str | None] = {**dict.fromkeys(_SCOPES), **parent}
        for field in _SCOPES:
            if field not in parent:
                scope[field] = self._reference(where, field, item.get(field))
        self._add_plugin(where, item, name, scope)

    def _add_plugin(
        self, where: Where, item: Mapping[str, object], name: str, scope: dict[str, str | None]
    ) -> None:
        seen = (name, *scope.values())
        if seen in self._scopes_seen:
            self._problem(where, {"name": _twice("plugins", "name and scope", name)})
            return
        self._scopes_seen.add(seen)
        try:
            stored = self._stored_plugin(name, item, scope)
        except (EntityError, SchemaError) as error:
            self._problem(where, error.fields)
            return
        self._complete(stored, _plugin_id(name, scope))
        self._entities["plugins"][str(stored["id"])] = stored
        if stored["enabled"]:
            entity = self._plugin_entity(stored, scope)
            self._plugins.append(ScopedPlugin(entity, scope["consumer_group"]))

    def _stored_plugin(
        self, name: str, item: Mapping[str, object], scope: Mapping[str, str | None]
    ) -> Fields:
        """The entity with defaults and resolved references, which `refs` names."""
        config = item.get("config")
        if config is not None and not isinstance(config, Mapping):
            raise EntityError({"config": "expected a record"})
        bookkeeping = {"_comment", "_ignore", "ordering", *_SCOPES}
        entity = {key: value for key, value in item.items() if key not in bookkeeping}
        entity |= {key: {"id": value} for key, value in scope.items() if value is not None}
        entity["config"] = config or {}
        if name == KEY_AUTH:
            return keyauth.process_entity(entity)
        schema = self._specs[name].schema
        processed = schema.process_entity(entity)
        resolved, refs = schema.resolve(processed["config"], self._resolve)
        return {**processed, "config": resolved, "refs": refs}

    def _plugin_entity(self, stored: Fields, scope: Mapping[str, str | None]) -> PluginEntity:
        name, config, refs = str(stored["name"]), stored["config"], stored.get("refs", {})
        assert isinstance(config, Mapping)
        assert isinstance(refs, Mapping)
        ids = [scope[field] or "" for field in ("route", "service", "consumer")]
        return PluginEntity(
            name=name,
            id=str(stored["id"]),
            config=config,
            key=":".join(["plugins", name, *ids, "", WORKSPACE_ID]),
            seq=self._next_seq(),
            ws_id=WORKSPACE_ID,
            refs=refs,
            route_id=scope["route"],
            service_id=scope["service"],
            consumer_id=scope["consumer"],
        )

    def _configuration(self) -> Configuration:
        priorities = {name: spec.priority for name, spec in self._specs.items()}
        return Configuration(
            router=Router(self._routes()),
            plugins=PluginIndex(self._plugins, {**priorities, KEY_AUTH: KEY_AUTH_PRIORITY}),
            entities=self._entities,
            keys=self._keys,
            groups={consumer: tuple(groups) for consumer, groups in self._groups.items()},
            warnings=tuple(self._warnings),
        )

    def _routes(self) -> Iterable[tuple[Fields, Fields | None]]:
        """Every Route with its Service, without those of a disabled Service."""
        for route in self._entities["routes"].values():
            owner = route.get("service")
            if not isinstance(owner, Mapping):
                yield route, None
                continue
            service = self._entities["services"][str(owner["id"])]
            if service.get("enabled") is not False:
                yield route, service


def _plugin_id(name: str, scope: Mapping[str, str | None]) -> str:
    ids = [scope[field] or "" for field in ("route", "service", "consumer")]
    group = [scope["consumer_group"]] if scope["consumer_group"] else []
    return entities.entity_id("plugins", ":".join(["plugins", "*", name, *ids, *group]))


def _items(
    parent: Mapping[str, object], kind: str, where: Where
) -> Iterable[tuple[Where, Mapping[str, object]]]:
    """The entities of one kind in a part of the file, each with its place."""
    items = parent.get(kind)
    for number, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, Mapping):
            yield (*where, kind, number), item


def _twice(kind: str, key: str, value: str) -> str:
    return f"uniqueness violation: '{kind}' entity with {key} set to '{value}' already declared"


def sequence() -> Callable[[], int]:
    """Numbers from 1 on, for `next_seq`."""
    numbers = itertools.count(1)
    return lambda: next(numbers)
