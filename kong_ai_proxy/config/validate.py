"""`kong-ai-proxy validate FILE...`: checks decK files without a Kong.

Beside the plugins' configurations it checks the Services they are on, because a Service's own
settings decide what happens when the plugin server fails: the host that Kong would send the
request to unchanged, the retries that would repeat it, the timeout that would cut it.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kong_ai_proxy.config import PLUGINS, ConfigError, parse
from kong_ai_proxy.config.deck import Deck, DeckError, DeckPath, read
from kong_ai_proxy.config.hints import hints

READ_TIMEOUT = 600_000
"""Shortest read_timeout of a Service, in ms: models may think for minutes."""

_UPLOADS = (
    "audio/v1/audio/transcriptions",
    "audio/v1/audio/translations",
    "image/v1/images/edits",
    "llm/v1/files",
    "video/v1/videos/generations",
)
_OBJECTS = ("llm/v1/assistants", "llm/v1/batches", "llm/v1/files", "video/v1/videos/generations")
"""Route types whose clients ask for single objects again: /files/{id}/content."""

_DESCRIPTION = """\
Check the plugins ai-proxy and ai-proxy-advanced in decK files (_format_version 3.0), wherever they
stand, disabled ones too, and the Services and Routes they apply to. Prints one line for each
mistake: file:line: field: what was expected. No Kong is needed, nothing is changed or sent.
"""
_EPILOG = """\
Environment variables (${{ env "DECK_X" }}) are read where they are set. One that is not set is a
warning and its value is not checked, so this works in CI without secrets. {vault://...} is
accepted wherever Kong accepts it.

exit status: 0 no errors (warnings do not count), 1 errors, 2 wrong usage
"""


@dataclass(frozen=True, order=True)
class Finding:
    """One line of the report. A warning does not fail the check."""

    line: int
    where: str
    message: str
    warning: bool = False

    def text(self, file: str) -> str:
        kind = "warning: " if self.warning else ""
        return f"{file}:{self.line}: {kind}{self.where}: {self.message}"


@dataclass(frozen=True)
class _Entity:
    """A Service, Route or plugin in the file; `service` and `route` say what it belongs to."""

    path: DeckPath
    data: Mapping[str, Any]
    service: _Entity | None = None
    route: _Entity | None = None


def main(argv: list[str]) -> int:
    """The command. Returns its exit status; wrong usage ends in SystemExit(2)."""
    parser = argparse.ArgumentParser(
        prog="kong-ai-proxy validate",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a decK file, YAML or JSON")
    files = parser.parse_args(argv).files
    plugins = errors = warnings = 0
    for file in files:
        count, findings = check_file(file, os.environ)
        for finding in findings:
            print(finding.text(file))
        plugins += count
        warnings += sum(finding.warning for finding in findings)
        errors += sum(not finding.warning for finding in findings)
    print(
        f"{_count(len(files), 'file')}, {_count(plugins, 'plugin')}: "
        f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    )
    return 1 if errors else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def check_file(file: str, env: Mapping[str, str]) -> tuple[int, list[Finding]]:
    """How many of the plugins are in `file`, and what was found, by line."""
    try:
        deck = read(file, env, allow_unset=True)
    except DeckError as error:
        return 0, [Finding(error.line, "file", error.message)]
    plugins = [plugin for plugin in _plugins(deck) if plugin.data.get("name") in PLUGINS]
    findings = set(_unset(deck))
    for plugin in plugins:
        findings |= set(_check_plugin(deck, plugin))
    findings |= set(_check_scopes(deck, plugins))
    findings |= set(_check_both(deck, plugins))
    return len(plugins), sorted(findings)


def _unset(deck: Deck) -> Iterator[Finding]:
    first = {name: path for path, name in reversed(list(deck.unset.items()))}
    for name, path in first.items():
        message = "this environment variable is not set, so what it fills in is not checked"
        yield Finding(deck.line(path), name, message, warning=True)


# The plugins' configurations


def _check_plugin(deck: Deck, plugin: _Entity) -> Iterator[Finding]:
    if plugin.data.get("partials"):
        message = "cannot be used with a plugin server: write what they hold into config"
        yield Finding(deck.line((*plugin.path, "partials")), "partials", message)
    shared = _shared(deck, plugin)
    own = plugin.data.get("config")
    config = {**shared, **own} if isinstance(own, dict) else (own or shared)
    for field, message, warning in _remarks(str(plugin.data["name"]), config):
        path = _path(field)
        base: DeckPath = (*plugin.path, "config")
        if path[:1] and path[0] in shared and not (isinstance(own, dict) and path[0] in own):
            base = ("_plugin_configs", str(plugin.data["_config"]))
        if not _is_unset(deck, (*base, *path)):
            yield Finding(deck.line((*base, *path)), field, message, warning)


def _shared(deck: Deck, plugin: _Entity) -> Mapping[str, object]:
    """What decK adds from `_plugin_configs` to the plugin's own configuration."""
    shared = deck.data.get("_plugin_configs")
    config = shared.get(str(plugin.data.get("_config"))) if isinstance(shared, dict) else None
    return config if isinstance(config, dict) else {}


def _remarks(plugin: str, config: Any) -> Iterator[tuple[str, str, bool]]:
    """Field and message of all there is to say about a `config`, and whether it only warns."""
    try:
        parsed = parse(plugin, config)
    except ConfigError as error:
        yield from ((problem.field, problem.message, False) for problem in error.problems)
        return
    for field, message in hints(parsed):
        yield field, message, True


def _path(field: str) -> DeckPath:
    """`config.targets[0].model` as `("targets", 0, "model")`."""
    parts = re.findall(r"\[(\d+)\]|\.([^.\[]+)", field)
    return tuple(int(index) if index else name for index, name in parts)


def _is_unset(deck: Deck, path: DeckPath) -> bool:
    return any(path[:length] in deck.unset for length in range(1, len(path) + 1))


# What the plugins apply to


def _check_scopes(deck: Deck, plugins: list[_Entity]) -> Iterator[Finding]:
    for plugin in plugins:
        if plugin.data.get("enabled") is False:
            continue
        elsewhere = list(_elsewhere(deck, plugin))
        yield from elsewhere
        if elsewhere:
            continue
        routes = list(_routes_of(deck, plugin))
        services = [plugin.service, *(route.service for route in routes)]
        for service in services:
            if service:
                yield from _check_service(deck, service, encrypted=_is_encrypted(plugin))
        for route in routes:
            yield from _check_route(deck, route, has=_route_types(plugin))


def _check_both(deck: Deck, plugins: list[_Entity]) -> Iterator[Finding]:
    """Both plugins at one place would mix their credentials, so the second answers 500."""
    first: dict[object, _Entity] = {}
    for plugin in plugins:
        if plugin.data.get("enabled") is False:
            continue
        other = first.setdefault(_scope(plugin), plugin)
        if other.data["name"] != plugin.data["name"]:
            message = (
                f"{' and '.join(PLUGINS)} both apply to the same requests (the other one is in "
                f"line {deck.line(other.path)}): remove one"
            )
            yield Finding(deck.line(plugin.path), "name", message)


def _scope(plugin: _Entity) -> tuple[object, ...]:
    """The same for two plugins that apply to the same Service, Route and consumer, or to all."""
    entity = plugin.route or plugin.service
    kinds = ("consumer", "consumer_group", *(() if entity else ("service", "route")))
    owner = () if plugin.path[0] in ("services", "routes") else plugin.path[:-2]
    names = tuple(str(plugin.data.get(kind)) for kind in kinds)
    return (entity and entity.path, owner, *names)


def _elsewhere(deck: Deck, plugin: _Entity) -> Iterator[Finding]:
    """What the plugin applies to by name and this file does not have."""
    for kind, found in (("service", plugin.service), ("route", plugin.route)):
        if plugin.data.get(kind) is not None and found is None:
            line = deck.line((*plugin.path, kind))
            yield Finding(line, kind, "not in this file, so it is not checked", warning=True)


def _routes_of(deck: Deck, plugin: _Entity) -> Iterator[_Entity]:
    """The Routes in the file that the plugin runs on: one, those of a Service, or all."""
    for route in _routes(deck):
        if plugin.route:
            if _same(route, plugin.route):
                yield route
        elif plugin.service is None or (
            route.service and route.service.path == plugin.service.path
        ):
            yield route


def _same(one: _Entity | None, other: _Entity) -> bool:
    return one is not None and one.path == other.path


def _route_types(plugin: _Entity) -> set[str]:
    config = plugin.data.get("config")
    if not isinstance(config, dict):
        return set()
    targets = [config, *(target for _, target in _items(config, "targets"))]
    return {str(target.get("route_type")) for target in targets}


def _is_encrypted(plugin: _Entity) -> bool:
    """Whether a provider of this plugin is reached over TLS."""
    config = plugin.data.get("config")
    if not isinstance(config, dict):
        return True
    targets = [target for _, target in _items(config, "targets")] or [config]
    return not all(_upstream_url(target).startswith("http://") for target in targets)


def _upstream_url(target: dict[str, Any]) -> str:
    options: Any = target
    for key in ("model", "options"):
        options = options.get(key) if isinstance(options, dict) else None
    return str(options.get("upstream_url")) if isinstance(options, dict) else ""


def _check_service(deck: Deck, service: _Entity, *, encrypted: bool) -> Iterator[Finding]:
    yield from _check_host(deck, service)
    retries, path = _setting(deck, service, "service", "retries", 5)
    if retries != 0 and not _is_unset(deck, path):
        message = "must be 0: Kong would send a request again that the provider has already had"
        yield _finding(deck, service, path, "retries", message)
    timeout, path = _setting(deck, service, "service", "read_timeout", 60_000)
    long_enough = isinstance(timeout, int | float) and timeout >= READ_TIMEOUT
    if not long_enough and not _is_unset(deck, path):
        message = f"must be at least {READ_TIMEOUT}: Kong would cut off a slow answer"
        yield _finding(deck, service, path, "read_timeout", message)
    verify, path = _setting(deck, service, "service", "tls_verify", None)
    if encrypted and verify is not True and not _is_unset(deck, path):
        message = (
            "Kong does not verify the provider's certificate: "
            "use url: https://ai.invalid with tls_verify: true and ca_certificates"
        )
        yield _finding(deck, service, path, "tls_verify", message, warning=True)


def _check_host(deck: Deck, service: _Entity) -> Iterator[Finding]:
    name = "url" if service.data.get("url") else "host"
    value, path = _setting(deck, service, "service", name, None)
    if _is_unset(deck, path):
        return
    message = _host_mistake(deck, _host(name, value))
    if message:
        yield _finding(deck, service, path, name, f"{message}: use url: http://ai.invalid")


def _host(name: str, value: object) -> str:
    if name == "host":
        return str(value or "")
    try:
        return urlsplit(str(value)).hostname or ""
    except ValueError:
        return ""


def _host_mistake(deck: Deck, host: str) -> str | None:
    if not host:
        return "the host is missing"
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return (
            "Kong answers 500 when a plugin sets the target of a Service whose host is an address"
        )
    upstreams = [upstream.get("name") for _, upstream in _items(deck.data, "upstreams")]
    if host in upstreams:
        return f"the Upstream {host} makes this name resolve, so requests would fail open"
    if not host.lower().rstrip(".").endswith(".invalid"):
        return (
            "the host must be a name that never resolves, or requests reach it unchanged "
            "when the plugin does not run"
        )
    return None


def _check_route(deck: Deck, route: _Entity, *, has: set[str]) -> Iterator[Finding]:
    if route.service is None and not route.data.get("service"):
        message = "a Route without a Service answers 503: give it one with url: http://ai.invalid"
        yield _finding(deck, route, route.path, "service", message)
    uploads = not has.isdisjoint(_UPLOADS)
    names = ["response_buffering", "request_buffering"] if uploads else ["response_buffering"]
    for name in names:
        value, path = _setting(deck, route, "route", name, True)
        if value is not False and not _is_unset(deck, path):
            what = "streamed answers" if name == "response_buffering" else "uploads"
            message = f"set it to false, or Kong holds {what} back"
            yield _finding(deck, route, path, name, message, warning=True)
    if not has.isdisjoint(_OBJECTS):
        yield from _check_objects(deck, route)


def _check_objects(deck: Deck, route: _Entity) -> Iterator[Finding]:
    """Whether a client can ask for an object again that it has made."""
    paths, methods = route.data.get("paths"), route.data.get("methods")
    if isinstance(paths, list) and paths and all(str(each).endswith("$") for each in paths):
        message = "an expression that ends with $ matches no /{id}: what is made cannot be fetched"
        yield _finding(deck, route, (*route.path, "paths"), "paths", message, warning=True)
    if isinstance(methods, list) and methods and "GET" not in methods:
        message = "add GET: what is made cannot be fetched"
        yield _finding(deck, route, (*route.path, "methods"), "methods", message, warning=True)


def _setting(
    deck: Deck, entity: _Entity, kind: str, name: str, default: object
) -> tuple[Any, DeckPath]:
    """A Service's or Route's setting and where it stands, `_info.defaults` included."""
    if entity.data.get(name) is not None:
        return entity.data[name], (*entity.path, name)
    found: Any = deck.data
    path: DeckPath = ("_info", "defaults", kind, name)
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return (default, (*entity.path, name)) if found is None else (found, path)


def _finding(
    deck: Deck, entity: _Entity, path: DeckPath, name: str, message: str, *, warning: bool = False
) -> Finding:
    kind = "route" if "routes" in entity.path else "service"
    who = entity.data.get("name")
    where = f"{kind} {who}: {name}" if who else f"{kind}: {name}"
    return Finding(deck.line(path), where, message, warning)


# Where things stand in the file


def _items(data: Mapping[str, Any], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    items = data.get(name)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield index, item


def _services(deck: Deck) -> Iterator[_Entity]:
    for index, service in _items(deck.data, "services"):
        yield _Entity(("services", index), service)


def _routes(deck: Deck) -> Iterator[_Entity]:
    services = list(_services(deck))
    for service in services:
        for index, route in _items(service.data, "routes"):
            yield _Entity((*service.path, "routes", index), route, service)
    for index, route in _items(deck.data, "routes"):
        yield _Entity(("routes", index), route, _named(services, route.get("service")))


def _plugins(deck: Deck) -> Iterator[_Entity]:
    """Every plugin in the file, wherever it stands."""
    services, routes = list(_services(deck)), list(_routes(deck))
    for owner in [*services, *routes]:
        is_route = "routes" in owner.path
        for index, plugin in _items(owner.data, "plugins"):
            path = (*owner.path, "plugins", index)
            service, route = (owner.service, owner) if is_route else (owner, None)
            yield _Entity(path, plugin, service, route)
    for owner_path, data in _loose_owners(deck):
        for index, plugin in _items(data, "plugins"):
            route = _named(routes, plugin.get("route"))
            service = _named(services, plugin.get("service")) or (route and route.service)
            yield _Entity((*owner_path, "plugins", index), plugin, service, route)


def _loose_owners(deck: Deck) -> Iterator[tuple[DeckPath, Mapping[str, Any]]]:
    """What has plugins that name their Service and Route themselves, if any."""
    yield (), deck.data
    for kind in ("consumers", "consumer_groups"):
        for index, owner in _items(deck.data, kind):
            yield (kind, index), owner


def _named(entities: list[_Entity], reference: object) -> _Entity | None:
    """The entity that `reference` means: a name or id, or a mapping with one of them."""
    if isinstance(reference, dict):
        reference = reference.get("name") or reference.get("id")
    if reference is None:
        return None
    for entity in entities:
        if reference in (entity.data.get("name"), entity.data.get("id")):
            return entity
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
