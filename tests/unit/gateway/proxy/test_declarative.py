"""decK files as Kong takes or refuses them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from kong_ai_proxy.config import deck as deck_files
from kong_ai_proxy.gateway import declarative, vault
from kong_ai_proxy.gateway.configuration import Configuration
from kong_ai_proxy.gateway.declarative import DeclarativeError
from kong_ai_proxy.gateway.entities import WORKSPACE_ID
from tests.unit.gateway.proxy.support import spec

_ALICE = "b32379d9-3d28-5683-a79c-72139be6e34f"  # a real Kong's id for the name


def _load(text: str, env: Mapping[str, str] | None = None) -> Configuration:
    deck = deck_files.parse_text('_format_version: "3.0"\n' + text, "kong.yml", env or {})
    specs = {each.name: each for each in (spec("ai-proxy"), spec("ai-proxy-advanced"))}
    numbers = count(1)
    return declarative.load(deck, specs=specs, env=env or {}, next_seq=lambda: next(numbers))


def _only(configuration: Configuration, kind: str) -> dict[str, Any]:
    entities = list(configuration.entities[kind].values())
    assert len(entities) == 1
    return dict(entities[0])


def _refused(text: str) -> DeclarativeError:
    with pytest.raises(DeclarativeError) as caught:
        _load(text)
    return caught.value


def test_a_service_gets_kongs_defaults_and_id() -> None:
    stored = _only(
        _load("services: [{name: capture-service, url: 'http://h:81/base'}]"), "services"
    )
    assert stored.pop("created_at") == stored.pop("updated_at")
    assert stored == {
        "id": "adf3dfdb-1110-5221-9fbf-cf8d66bc842c",
        "name": "capture-service",
        "protocol": "http",
        "host": "h",
        "port": 81,
        "path": "/base",
        "retries": 5,
        "connect_timeout": 60000,
        "write_timeout": 60000,
        "read_timeout": 60000,
        "enabled": True,
        "ws_id": WORKSPACE_ID,
    }


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("https://h", {"protocol": "https", "host": "h", "port": 443}),
        ("http://h", {"protocol": "http", "host": "h", "port": 80}),
        ("https://h:8443/p/q", {"protocol": "https", "host": "h", "port": 8443, "path": "/p/q"}),
    ],
)
def test_the_url_shorthand(url: str, fields: dict[str, object]) -> None:
    stored = _only(_load(f"services: [{{name: s, url: '{url}'}}]"), "services")
    assert fields.items() <= stored.items()
    assert ("path" in stored) is ("path" in fields)


def test_a_route_gets_kongs_defaults_and_id() -> None:
    text = """
services:
- name: capture-service
  host: h
  routes:
  - name: capture-route
    paths: [/cap]
"""
    stored = _only(_load(text), "routes")
    assert stored.pop("created_at") == stored.pop("updated_at")
    assert stored == {
        "id": "22b05121-cc20-5803-84a0-27c12a3e12d4",
        "name": "capture-route",
        "service": {"id": "adf3dfdb-1110-5221-9fbf-cf8d66bc842c"},
        "paths": ["/cap"],
        "protocols": ["http", "https"],
        "https_redirect_status_code": 426,
        "strip_path": True,
        "preserve_host": False,
        "request_buffering": True,
        "response_buffering": True,
        "regex_priority": 0,
        "path_handling": "v0",
        "ws_id": WORKSPACE_ID,
    }


@pytest.mark.parametrize(
    "reference", ["s", "{name: s}", "{id: 5c0f6a3e-0000-4000-8000-000000000001}"]
)
def test_a_route_names_its_service(reference: str) -> None:
    text = f"""
services: [{{name: s, id: 5c0f6a3e-0000-4000-8000-000000000001, host: h}}]
routes: [{{name: r, paths: [/], service: {reference}}}]
"""
    assert _only(_load(text), "routes")["service"] == {"id": "5c0f6a3e-0000-4000-8000-000000000001"}


def test_ids_stay_the_same_from_one_load_to_the_next() -> None:
    text = """
services: [{host: h, routes: [{paths: [/]}], plugins: [{name: ai-proxy, config: {}}]}]
consumers: [{custom_id: c, keyauth_credentials: [{key: k}]}]
"""
    first, second = _load(text), _load(text)
    for kind, entities in first.entities.items():
        assert list(entities) == list(second.entities[kind])
    assert first.keys["k"]["id"] == second.keys["k"]["id"]


def test_a_consumer_with_a_key() -> None:
    text = "consumers: [{username: alice, custom_id: c-1, keyauth_credentials: [{key: k}]}]"
    configuration = _load(text)
    assert configuration.keys["k"]["consumer"] == {"id": _ALICE}
    assert (configuration.consumer(_ALICE) or {})["custom_id"] == "c-1"


def test_a_key_beside_its_consumer() -> None:
    text = """
keyauth_credentials: [{consumer: alice, key: k}]
consumers: [{username: alice}]
"""
    assert _load(text).keys["k"]["consumer"] == {"id": _ALICE}


@pytest.mark.parametrize(
    "text",
    [
        "consumer_groups: [{name: gold}]\nconsumers: [{username: alice, groups: [{name: gold}]}]",
        "consumer_groups: [{name: gold, consumers: [{username: alice}]}]\n"
        "consumers: [{username: alice}]",
    ],
)
def test_consumer_groups(text: str) -> None:
    configuration = _load(text)
    assert configuration.groups == {_ALICE: (str(_only(configuration, "consumer_groups")["id"]),)}


_SCOPES = """
services:
- name: s
  host: h
  routes:
  - {name: r, paths: [/r], plugins: [{name: ai-proxy, config: {mark: route}}]}
  - {name: q, paths: [/q]}
  plugins: [{name: ai-proxy, config: {mark: service}}]
consumer_groups: [{name: g, plugins: [{name: ai-proxy, config: {mark: group}}]}]
consumers:
- {username: alice, plugins: [{name: ai-proxy, config: {mark: consumer}}]}
plugins:
- {name: ai-proxy, config: {mark: global}}
- {name: ai-proxy, route: r, consumer: alice, config: {mark: route+consumer}}
- {name: ai-proxy, service: {name: s}, consumer_group: {name: g}, config: {mark: service+group}}
"""


@pytest.mark.parametrize(
    ("route", "consumer", "groups", "mark"),
    [
        ("r", None, (), "route"),
        ("q", None, (), "service"),
        ("r", "alice", (), "route+consumer"),
        ("q", "alice", (), "consumer"),
        ("q", "alice", ("g",), "service+group"),
        ("r", None, ("g",), "service+group"),
        (None, None, ("g",), "group"),
        (None, "alice", ("g",), "consumer"),
        (None, None, (), "global"),
    ],
)
def test_the_most_specific_plugin_applies(
    route: str | None, consumer: str | None, groups: tuple[str, ...], mark: str
) -> None:
    configuration = _load(_SCOPES)

    def id_of(kind: str, key: str, name: str | None) -> str | None:
        found = (e for e in configuration.entities[kind].values() if e.get(key) == name)
        return str(next(found)["id"]) if name else None

    plugin = configuration.plugins.find(
        "ai-proxy",
        route_id=id_of("routes", "name", route),
        service_id=id_of("services", "name", "s") if route else None,
        consumer_id=id_of("consumers", "username", consumer),
        group_ids=[str(id_of("consumer_groups", "name", group)) for group in groups],
    )
    assert plugin is not None
    assert plugin.config["mark"] == mark


def test_no_plugin_of_another_scope_applies() -> None:
    text = "services: [{name: s, host: h, plugins: [{name: ai-proxy, config: {}}]}]"
    assert _load(text).plugins.find("ai-proxy", route_id="x", service_id="y") is None


def test_plugins_run_by_priority_then_by_the_later_name() -> None:
    text = "plugins: [{name: ai-proxy}, {name: key-auth}, {name: ai-proxy-advanced}]"
    assert _load(text).plugins.names == ["key-auth", "ai-proxy-advanced", "ai-proxy"]


def test_a_plugin_as_the_plugin_server_gets_to_know_it() -> None:
    text = """
services:
- name: capture-service
  host: h
  plugins: [{name: ai-proxy, id: 3f1c0b5e-7a1d-4c55-9b3e-0d6f5a1b2c3d, config: {number: 1}}]
"""
    service = "adf3dfdb-1110-5221-9fbf-cf8d66bc842c"
    plugin = _load(text).plugins.find("ai-proxy", route_id=None, service_id=service)
    assert plugin is not None
    assert plugin.id == "3f1c0b5e-7a1d-4c55-9b3e-0d6f5a1b2c3d"
    assert plugin.key == f"plugins:ai-proxy::{service}:::{WORKSPACE_ID}"
    assert (plugin.service_id, plugin.route_id, plugin.ws_id) == (service, None, WORKSPACE_ID)
    assert plugin.config["mark"] == "none"  # a default
    assert plugin.config["number"] == 1


def test_a_disabled_plugin_is_checked_but_does_not_run() -> None:
    configuration = _load("plugins: [{name: ai-proxy, enabled: false, config: {}}]")
    assert configuration.plugins.names == []
    assert _only(configuration, "plugins")["enabled"] is False
    _refused("plugins: [{name: ai-proxy, enabled: false, config: {number: 99}}]")


def test_a_disabled_service_has_no_routes() -> None:
    text = "services: [{name: s, host: h, enabled: false, routes: [{paths: [/]}]}]"
    assert _load(text).router.find("GET", "/", [("Host", "h")], port=80) is None


def test_references_are_resolved_and_remembered() -> None:
    configuration = _load(
        "plugins: [{name: ai-proxy, config: {auth: {key: '{vault://env/my-key}'}}}]",
        {"MY_KEY": "secret"},
    )
    plugin = configuration.plugins.find("ai-proxy", route_id=None, service_id=None)
    assert plugin is not None
    assert plugin.config["auth"] == {"key": "secret"}
    assert plugin.refs == {"auth.key": "{vault://env/my-key}"}
    assert configuration.warnings == ()


def test_what_cannot_be_resolved_is_a_warning_and_empty() -> None:
    configuration = _load("plugins: [{name: ai-proxy, config: {auth: {key: '{vault://env/x}'}}}]")
    plugin = configuration.plugins.find("ai-proxy", route_id=None, service_id=None)
    assert plugin is not None
    assert plugin.config["auth"] == {"key": ""}
    expected = "unable to resolve reference {vault://env/x} (no value found)"
    assert configuration.warnings == (expected,)


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("{vault://env/my-key}", "plain"),
        ("{vault://env/MY_KEY}", "plain"),
        ("{vault://env/key?prefix=my-}", "plain"),
        ("{vault://env/my-json/a}", "b"),
    ],
)
def test_the_env_vault(reference: str, value: str) -> None:
    env = {"MY_KEY": "plain", "MY_JSON": '{"a": "b", "n": 1}'}
    assert vault.lookup(reference, env) == value


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("{vault://env/other}", "no value found"),
        ("{vault://env/my-json/x}", "subfield x not found"),
        ("{vault://env/my-json/n}", "subfield n is not a string"),
        ("{vault://env/my-key/a}", "unable to json decode"),
        ("{vault://hcv/a}", "could not find vault"),
    ],
)
def test_the_env_vault_says_why_it_has_no_value(reference: str, reason: str) -> None:
    env = {"MY_KEY": "plain", "MY_JSON": '{"a": "b", "n": 1}'}
    with pytest.raises(vault.Unresolved, match=reason):
        vault.lookup(reference, env)


def test_what_the_stand_in_does_not_know_is_a_warning() -> None:
    warnings = _load(
        """
upstreams: [{name: u}]
plugins: [{name: cors, config: {anything: 1}}]
consumers: [{username: alice, basicauth_credentials: [{username: a, password: b}]}]
routes: [{paths: [/], path_handling: v1}]
"""
    ).warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        *("upstreams", "routes[0]", "consumers[0].basicauth_credentials", "plugin cors")
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("services: [{name: s}]", "services[0].host: required field missing"),
        ("services: [{host: h, port: 70000}]", "services[0].port: value should be between 0 and"),
        ("services: [{host: h, retries: x}]", "services[0].retries: expected an integer"),
        ("services: [{host: h, read_timeout: 0}]", "services[0].read_timeout: value should be"),
        ("services: [{host: h, colour: red}]", "services[0].colour: unknown field"),
        ("services: [{host: h, path: x}]", "services[0].path: should start with: /"),
        ("services: [{url: nonsense}]", "services[0].url: invalid url: nonsense"),
        ("services: [{host: h, protocol: ws}]", "services[0].protocol: expected one of: http"),
        ("routes: [{name: r}]", "routes[0].@entity: must set one of 'methods', 'hosts'"),
        ("routes: [{paths: [x]}]", "routes[0].paths: should start with: / (fixed path) or ~/"),
        ("routes: [{paths: [/a/../b]}]", "routes[0].paths: non-normalized path, consider use '/b'"),
        ("routes: [{paths: ['~/(']}]", "routes[0].paths: invalid regex: '/('"),
        ("routes: [{hosts: ['a.*.b']}]", "routes[0].hosts: invalid wildcard"),
        ("routes: [{methods: [get]}]", "routes[0].methods: invalid value: get"),
        ("routes: [{headers: {Host: [a]}}]", "routes[0].headers: cannot contain 'host' header"),
        ("routes: [{paths: [/], service: no}]", "routes[0].service: invalid reference"),
        ("consumers: [{}]", "consumers[0].@entity: at least one of these fields"),
        ("plugins: [{config: {}}]", "plugins[0].name: required field missing"),
        ("plugins: [{name: ai-proxy, config: {number: 10}}]", "plugins[0].config.number: value"),
        ("plugins: [{name: ai-proxy, config: {no: 1}}]", "plugins[0].config.no: unknown field"),
        ("plugins: [{name: ai-proxy, config: 1}]", "plugins[0].config: expected a record"),
        ("plugins: [{name: ai-proxy, route: r}]", "plugins[0].route: invalid reference 'route: r'"),
        ("plugins: [{name: ai-proxy}, {name: ai-proxy}]", "plugins[1].name: uniqueness violation"),
        ("services: [{name: s, host: h}, {name: s, host: h}]", "services[1].name: uniqueness"),
        ("services: [{host: h, id: x}]", "services[0].id: expected a valid UUID"),
    ],
)
def test_a_wrong_file_is_refused_with_line_entity_and_field(text: str, line: str) -> None:
    assert str(_refused(text)).startswith(f"kong.yml:2: {line}")


def test_all_problems_are_told_at_once_and_nest_like_the_file() -> None:
    error = _refused(
        """
services:
- {name: a, host: h}
- name: b
  port: -1
  routes:
  - paths: [x]
    plugins: [{name: ai-proxy, config: {number: 99}}]
"""
    )
    assert error.fields == {
        "services": [
            None,
            {
                "host": "required field missing",
                "port": "value should be between 0 and 65535",
                "routes": [
                    {
                        "paths": "should start with: / (fixed path) or ~/ (regexed path)",
                        "plugins": [{"config": {"number": "value should be between 0 and 9"}}],
                    }
                ],
            },
        ]
    }
    assert sorted(line.split(": ")[0] for line in str(error).splitlines()) == [
        *("kong.yml:5", "kong.yml:6", "kong.yml:8", "kong.yml:9")
    ]
