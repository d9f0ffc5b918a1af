"""The stand-in's Admin API: what a DB-less Kong 3.9 answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from kong_ai_proxy import resources
from kong_ai_proxy.gateway.declarative import PluginSpec
from kong_ai_proxy.gateway.schema import PluginSchema
from kong_ai_proxy.gateway.server import Gateway

_SPECS = {
    name: PluginSpec(
        name,
        770,
        PluginSchema(json.loads(resources.path("schemas", f"{name}.kong.json").read_text())),
    )
    for name in ("ai-proxy", "ai-proxy-advanced")
}
_UNUSED_ID = "7b1a5b2e-0000-4000-8000-000000000000"
_NO_DATABASE = {"code": 12, "name": "operation unsupported"}

_DECK = """
_format_version: "3.0"
services:
  - name: s
    url: http://ai.invalid
    routes:
      - name: r
        paths: [/x]
        plugins:
          - name: ai-proxy
            config:
              route_type: llm/v1/chat
              auth:
                header_name: Authorization
                header_value: Bearer sk-in-the-file
                param_name: key
                param_value: "{vault://env/sk-secret}"
                param_location: query
              model: {provider: openai}
    plugins:
      - name: key-auth
consumers:
  - username: alice
"""
_ONE_ROUTE = "_format_version: '3.0'\nroutes: [{name: %s, paths: [/%s]}]\n"


@contextlib.asynccontextmanager
async def _admin(deck: str = _DECK) -> AsyncIterator[httpx.AsyncClient]:
    gateway = await Gateway.start(deck, specs=_SPECS, env={"SK_SECRET": "sk-of-the-vault"})
    try:
        async with httpx.AsyncClient(base_url=gateway.admin_url, verify=False) as http:
            yield http
    finally:
        await gateway.stop()


async def test_the_node_says_what_it_is() -> None:
    async with _admin() as http:
        about = (await http.get("/")).json()
        status = await http.get("/status")
    assert "stand-in" in about["tagline"]
    assert about["configuration"] == {"database": "off"}
    assert set(about["plugins"]["available_on_server"]) == {*_SPECS, "key-auth"}
    assert about["plugins"]["enabled_in_cluster"] == ["ai-proxy", "key-auth"]
    assert status.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [("GET", "/nowhere", 404, "Not found"), ("DELETE", "/status", 405, "Method not allowed")],
)
async def test_unknown_paths_and_methods(method: str, path: str, status: int, message: str) -> None:
    async with _admin() as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"message": message})


# -- schemas ---------------------------------------------------------------------------------------

_VALID = {"route_type": "llm/v1/chat", "model": {"provider": "openai"}}


@pytest.mark.parametrize(
    "plugin",
    [
        {"name": "ai-proxy", "config": _VALID},
        {"name": "ai-proxy-advanced", "config": {"targets": [_VALID]}, "enabled": False},
        {"name": "ai-proxy", "config": _VALID, "route": {"id": _UNUSED_ID}, "protocols": ["http"]},
        {"name": "key-auth"},
        {"name": "key-auth", "config": {"key_names": ["apikey"]}},
    ],
)
async def test_a_valid_plugin_passes(plugin: dict[str, Any]) -> None:
    async with _admin() as http:
        answer = await http.post("/schemas/plugins/validate", json=plugin)
    assert answer.status_code == 200
    assert answer.json() == {"message": "schema validation successful"}


_NOT_ENABLED = "plugin 'zz' not enabled; add it to the 'plugins' configuration property"


@pytest.mark.parametrize(
    ("plugin", "message", "fields"),
    [
        (
            {"name": "ai-proxy", "config": {**_VALID, "model": None}},
            "schema violation (config.model: required field missing)",
            {"config": {"model": "required field missing"}},
        ),
        (
            {"name": "ai-proxy", "config": {**_VALID, "model": {"provider": 5}}},
            'schema violation (config.model: {\n  provider = "expected a string"\n})',
            {"config": {"model": {"provider": "expected a string"}}},
        ),
        (
            {"name": "ai-proxy", "config": _VALID, "zz": 1},
            "schema violation (zz: unknown field)",
            {"zz": "unknown field"},
        ),
        (
            {"name": "ai-proxy", "config": _VALID, "route": {"id": "x"}},
            "schema violation (route.id: expected a valid UUID)",
            {"route": {"id": "expected a valid UUID"}},
        ),
        ({"name": "zz"}, f"schema violation (name: {_NOT_ENABLED})", {"name": _NOT_ENABLED}),
        (
            {"config": {}},
            "schema violation (name: required field missing)",
            {"name": "required field missing"},
        ),
        (
            [1],
            "schema violation (name: required field missing)",
            {"name": "required field missing"},
        ),
        (
            {"name": "key-auth", "config": {"zz": 1}},
            "schema violation (config.zz: unknown field)",
            {"config": {"zz": "unknown field"}},
        ),
        (
            {"name": "key-auth", "config": 5},
            "schema violation (config: expected a record)",
            {"config": "expected a record"},
        ),
    ],
)
async def test_a_wrong_plugin_is_refused_with_the_field(
    plugin: Any, message: str, fields: dict[str, Any]
) -> None:
    async with _admin() as http:
        answer = await http.post("/schemas/plugins/validate", json=plugin)
    assert answer.status_code == 400
    expected = {"code": 2, "name": "schema violation", "message": message, "fields": fields}
    assert answer.json() == expected


@pytest.mark.parametrize(
    ("content_type", "body", "status", "message"),
    [
        ("application/json", "{bad", 400, "Cannot parse JSON body"),
        ("application/json", "[" * 100000, 400, "Cannot parse JSON body"),
        (
            "application/x-www-form-urlencoded",
            "name=ai-proxy",
            415,
            "The stand-in takes JSON here: send Content-Type: application/json",
        ),
    ],
)
async def test_a_body_that_is_no_json(
    content_type: str, body: str, status: int, message: str
) -> None:
    headers = {"Content-Type": content_type}
    async with _admin() as http:
        answer = await http.post("/schemas/plugins/validate", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (status, {"message": message})


async def test_a_schema_is_the_document_of_the_plugin_server() -> None:
    async with _admin() as http:
        found = await http.get("/schemas/plugins/ai-proxy")
        missing = await http.get("/schemas/plugins/zz")
    assert found.json() == _SPECS["ai-proxy"].schema.document
    assert (missing.status_code, missing.json()) == (404, {"message": "No plugin named 'zz'"})


# -- entities --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/services", ["s"]),
        ("/routes", ["r"]),
        ("/consumers", ["alice"]),
        ("/plugins", ["key-auth", "ai-proxy"]),
        ("/services/s/routes", ["r"]),
        ("/services/s/plugins", ["key-auth"]),
        ("/routes/r/plugins", ["ai-proxy"]),
        ("/consumers/alice/plugins", []),
    ],
)
async def test_entities_are_listed(path: str, names: list[str]) -> None:
    async with _admin() as http:
        answer = await http.get(path)
    listed = answer.json()
    found = [entity.get("name") or entity["username"] for entity in listed["data"]]
    assert sorted(found) == sorted(names)
    assert listed["next"] is None


async def test_an_entity_is_found_by_id_and_by_name() -> None:
    async with _admin() as http:
        by_name = (await http.get("/services/s")).json()
        by_id = (await http.get(f"/services/{by_name['id']}")).json()
        missing = await http.get("/services/nobody")
    assert by_name == by_id
    assert by_name["host"] == "ai.invalid"
    assert missing.status_code == 404


async def test_no_secret_is_shown() -> None:
    async with _admin() as http:
        answers = [
            await http.get("/plugins"),
            await http.get("/routes/r/plugins"),
            await http.post("/config", content=_DECK, headers={"Content-Type": "text/yaml"}),
        ]
    for answer in answers:
        assert "sk-in-the-file" not in answer.text
        assert "sk-of-the-vault" not in answer.text
        assert "{vault://env/sk-secret}" in answer.text
        assert "REDACTED" in answer.text
        assert "Authorization" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("POST", "/services", "cannot create 'services' entities"),
        ("POST", "/services/s/routes", "cannot create 'routes' entities"),
        ("PUT", "/services/s", "cannot create or update 'services' entities by 'name'"),
        ("PUT", f"/plugins/{_UNUSED_ID}", "cannot create or update 'plugins' entities"),
        ("PATCH", "/routes/r", "cannot update 'routes' entities by 'name'"),
        ("DELETE", "/consumers/alice", "cannot remove 'consumers' entities by 'username'"),
    ],
)
async def test_changes_need_a_database(method: str, path: str, message: str) -> None:
    async with _admin() as http:
        answer = await http.request(method, path, json={})
    assert answer.status_code == 405
    expected = {**_NO_DATABASE, "message": f"{message} when not using a database"}
    assert answer.json() == expected


async def test_a_new_plugin_is_checked_before_it_is_refused() -> None:
    async with _admin() as http:
        wrong = await http.post("/services/s/plugins", json={"name": "ai-proxy", "config": {}})
        right = await http.post("/plugins", json={"name": "ai-proxy", "config": _VALID})
        nowhere = await http.post("/services/no/plugins", json={"name": "ai-proxy"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, 2)
    assert (right.status_code, right.json()["code"]) == (405, 12)
    assert nowhere.status_code == 404


async def test_what_is_not_there_need_not_be_removed() -> None:
    async with _admin() as http:
        assert (await http.delete(f"/plugins/{_UNUSED_ID}")).status_code == 204
        assert (await http.patch(f"/plugins/{_UNUSED_ID}", json={})).status_code == 404


# -- declarative configuration ---------------------------------------------------------------------


async def _post_config(http: httpx.AsyncClient, way: str, deck: str) -> httpx.Response:
    if way == "json":
        return await http.post("/config", json={"config": deck})
    if way == "form":
        return await http.post("/config", data={"config": deck})
    if way == "multipart":
        return await http.post("/config", files={"config": ("kong.yaml", deck)})
    return await http.post("/config", content=deck, headers={"Content-Type": "text/yaml"})


@pytest.mark.parametrize("way", ["json", "form", "multipart", "body"])
async def test_a_file_can_be_sent_in_several_ways(way: str) -> None:
    async with _admin() as http:
        answer = await _post_config(http, way, _ONE_ROUTE % (way, way))
        routes = (await http.get("/routes")).json()["data"]
    assert answer.status_code == 201
    assert [route["name"] for route in answer.json()["routes"].values()] == [way]
    assert [route["name"] for route in routes] == [way]


async def test_a_document_can_be_the_json_body_itself() -> None:
    document = {"_format_version": "3.0", "routes": [{"name": "j", "paths": ["/j"]}]}
    async with _admin() as http:
        assert (await http.post("/config", json=document)).status_code == 201


async def test_a_wrong_file_is_refused_with_entity_and_field_and_the_old_one_stays() -> None:
    async with _admin() as http:
        answer = await http.post(
            "/config", json={"config": _DECK.replace("{provider: openai}", "{provider: 5}")}
        )
        routes = (await http.get("/routes")).json()["data"]
    wrong = {"config": {"model": {"provider": "expected a string"}}}
    fields = {"services": [{"routes": [{"plugins": [wrong]}]}]}
    assert answer.status_code == 400
    assert answer.json() == {
        "code": 14,
        "name": "invalid declarative configuration",
        "message": "declarative config is invalid: {services={{routes={{plugins={{config="
        '{model={provider="expected a string"}}}}}}}}}',
        "fields": fields,
    }
    assert [route["name"] for route in routes] == ["r"]


@pytest.mark.parametrize("text", ["[broken", "5", "\x00"])
async def test_a_file_that_cannot_be_read_is_refused(text: str) -> None:
    async with _admin() as http:
        answer = await http.post("/config", json={"config": text})
    assert (answer.status_code, answer.json()["code"]) == (400, 14)
    assert answer.json()["fields"]["error"]


async def test_a_file_that_is_not_utf8_is_refused() -> None:
    async with _admin() as http:
        answer = await http.post("/config", content=b"\xff", headers={"Content-Type": "text/yaml"})
    assert (answer.status_code, answer.json()["code"]) == (400, 14)


@pytest.mark.parametrize("body", [{}, {"config": ""}, {"config": None}])
async def test_no_file_is_refused(body: dict[str, Any]) -> None:
    async with _admin() as http:
        answer = await http.post("/config", json=body)
    assert answer.status_code == 400
    assert answer.json() == {"message": "expected a declarative configuration"}
