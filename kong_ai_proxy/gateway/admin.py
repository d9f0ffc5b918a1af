"""The part of Kong's Admin API that a DB-less node has and that users try first.

`application(node)` is served by the gateway. Texts and statuses are those of a Kong 3.9 without a
database. One thing differs on purpose: `GET /plugins` never shows a secret. Values from a vault are
shown as their reference, other encrypted fields as `REDACTED`.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import orjson
from aiohttp import web

from kong_ai_proxy import __version__
from kong_ai_proxy.gateway import keyauth
from kong_ai_proxy.gateway.configuration import KEY_AUTH
from kong_ai_proxy.gateway.entities import EntityError
from kong_ai_proxy.gateway.schema import PluginSchema, SchemaError
from kong_ai_proxy.gateway.schema.checks import Errors
from kong_ai_proxy.gateway.schema.errors import lua_table

Entity = Mapping[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The name by which each kind of entity can be asked for instead of its id.
_NAMED_BY: Final = {
    "services": "name",
    "routes": "name",
    "consumers": "username",
    "plugins": "instance_name",
}
# Which entities lie below which: GET /services/{service}/routes.
_BELOW: Final = {
    "services": ("service", ("routes", "plugins")),
    "routes": ("route", ("plugins",)),
    "consumers": ("consumer", ("plugins",)),
}
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class DeclarativeError(ValueError):
    """A declarative configuration that Kong would refuse.

    `fields` nests like the file: `{"services": [{"plugins": [{"config": {...}}]}]}`, null for what
    is right; `{"error": text}` where the file could not be read at all.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = dict(fields)
        self.message = f"declarative config is invalid: {_lua(self.fields)}"
        super().__init__(self.message)

    def body(self) -> dict[str, object]:
        """The answer of `POST /config`, which goes with status 400."""
        return {
            "code": 14,
            "name": "invalid declarative configuration",
            "message": self.message,
            "fields": self.fields,
        }


def _lua(fields: object) -> str:
    """Nested errors on one line as Kong prints them; places of an array without error left out."""
    return lua_table(_numbered(fields), space="")


def _numbered(fields: object) -> Any:
    if isinstance(fields, list):
        return {n: _numbered(item) for n, item in enumerate(fields, 1) if item is not None}
    if isinstance(fields, dict):
        return {key: _numbered(value) for key, value in fields.items()}
    return fields


class Node(Protocol):
    """What the Admin API needs of the gateway it belongs to."""

    @property
    def schemas(self) -> Mapping[str, PluginSchema]:
        """The schemas of the plugins that this node has, by name."""

    def entities(self, kind: str) -> Iterable[Entity]:
        """`services`, `routes`, `consumers` or `plugins` as Kong stores them.

        A plugin's `config` may have its vault references resolved; then `refs` beside it says
        which they were (see PluginSchema.resolve).
        """

    async def reload(self, deck: str) -> None:
        """Put a declarative configuration into force. Raises DeclarativeError."""


_NODE: Final = web.AppKey("node", Node)


def application(node: Node) -> web.Application:
    """The Admin API of `node` as an aiohttp application."""
    app = web.Application(middlewares=[_kong_errors], client_max_size=_MAX_BODY_BYTES)
    app[_NODE] = node
    app.router.add_get("/", _about)
    app.router.add_get("/status", _status)
    app.router.add_post("/config", _reload)
    app.router.add_post("/schemas/plugins/validate", _validate)
    app.router.add_get("/schemas/plugins/{name}", _schema)
    for kind in _NAMED_BY:
        app.router.add_get(f"/{kind}", _collection(kind))
        app.router.add_post(f"/{kind}", _creation(kind))
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            app.router.add_route(method, f"/{kind}/{{key}}", _single(kind))
        owner, below = _BELOW.get(kind, ("", ()))
        for child in below:
            app.router.add_get(f"/{kind}/{{key}}/{child}", _collection(child, kind, owner))
            app.router.add_post(f"/{kind}/{{key}}/{child}", _creation(child, kind))
    return app


def _answer(data: object, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(data), status=status, content_type="application/json", charset="utf-8"
    )


class _Refusal(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, data: Mapping[str, object]) -> None:
        super().__init__(data.get("message"))
        self.status = status
        self.data = data


def _not_found() -> _Refusal:
    return _Refusal(404, {"message": "Not found"})


@web.middleware
async def _kong_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except _Refusal as refusal:
        response = _answer(refusal.data, refusal.status)
    except (SchemaError, DeclarativeError) as error:
        response = _answer(error.body(), 400)
    except web.HTTPMethodNotAllowed:
        response = _answer({"message": "Method not allowed"}, 405)
    except web.HTTPNotFound:
        response = _answer({"message": "Not found"}, 404)
    except web.HTTPRequestEntityTooLarge:
        response = _answer({"message": "Payload too large"}, 413)
    response.headers["X-Stand-In"] = "kong-ai-proxy"
    return response


async def _parameters(request: web.Request) -> dict[str, Any]:
    """The fields of a JSON body, none without a body. Kong takes forms too, the stand-in not."""
    raw = await request.read()
    if not raw:
        return {}
    if request.content_type != "application/json":
        message = "The stand-in takes JSON here: send Content-Type: application/json"
        raise _Refusal(415, {"message": message})
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _Refusal(400, {"message": "Cannot parse JSON body"}) from None
    return body if isinstance(body, dict) else {}


# -- the node --------------------------------------------------------------------------------------


async def _about(request: web.Request) -> web.StreamResponse:
    node = request.app[_NODE]
    enabled = {plugin["name"] for plugin in node.entities("plugins")}
    return _answer(
        {
            "tagline": "This is kong-ai-proxy's stand-in for Kong, for development and tests",
            "version": __version__,
            "edition": "stand-in",
            "hostname": platform.node(),
            "configuration": {"database": "off"},
            "plugins": {
                "available_on_server": {name: {} for name in sorted([*node.schemas, KEY_AUTH])},
                "enabled_in_cluster": sorted(enabled),
            },
        }
    )


async def _status(_: web.Request) -> web.StreamResponse:
    return _answer({"server": {"stand_in": True}})


async def _reload(request: web.Request) -> web.StreamResponse:
    """POST /config: the file as the body, or in the field `config` of a form or a JSON object."""
    text = await _declarative_text(request)
    if not text.strip():
        raise _Refusal(400, {"message": "expected a declarative configuration"})
    node = request.app[_NODE]
    await node.reload(text)
    loaded = {
        kind: {str(entity["id"]): _shown(node, kind, entity) for entity in node.entities(kind)}
        for kind in _NAMED_BY
    }
    return _answer({kind: entities for kind, entities in loaded.items() if entities}, 201)


async def _declarative_text(request: web.Request) -> str:
    if request.content_type == "application/json":
        body = await _parameters(request)
        return json.dumps(body) if "_format_version" in body else str(body.get("config") or "")
    if request.content_type not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return _decoded(await request.read())
    config = (await request.post()).get("config", "")
    return _decoded(config.file.read()) if isinstance(config, web.FileField) else str(config)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        text = f"failed parsing declarative configuration: {error}"
        raise DeclarativeError({"error": text}) from None


# -- schemas ---------------------------------------------------------------------------------------


def _check_plugin(node: Node, plugin: Mapping[str, Any]) -> None:
    """Raise SchemaError unless the node would take this plugin."""
    name = plugin.get("name")
    if name is None:
        raise SchemaError({"name": "required field missing"})
    if name == KEY_AUTH:
        _check_key_auth(plugin)
        return
    if name not in node.schemas:
        text = f"plugin '{name}' not enabled; add it to the 'plugins' configuration property"
        raise SchemaError({"name": text})
    node.schemas[name].process_entity(plugin)


def _check_key_auth(plugin: Mapping[str, Any]) -> None:
    config = plugin.get("config")
    if config is not None and not isinstance(config, Mapping):
        raise SchemaError({"config": "expected a record"})
    try:
        keyauth.process_entity({**plugin, "config": config or {}})
    except EntityError as error:
        fields: Errors = dict(error.fields.items())
        raise SchemaError(fields) from None


async def _validate(request: web.Request) -> web.StreamResponse:
    _check_plugin(request.app[_NODE], await _parameters(request))
    return _answer({"message": "schema validation successful"})


async def _schema(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    schema = request.app[_NODE].schemas.get(name)
    if schema is None:
        raise _Refusal(404, {"message": f"No plugin named '{name}'"})
    return _answer(schema.document)


# -- entities --------------------------------------------------------------------------------------


def _shown(node: Node, kind: str, entity: Entity) -> dict[str, Any]:
    """An entity for people to read: no secrets."""
    shown = {key: value for key, value in entity.items() if key != "ws_id"}
    if kind == "plugins":
        refs = shown.pop("refs", {})
        schema = node.schemas.get(shown["name"])
        config = shown.get("config") or {}
        shown["config"] = schema.redact(config, refs) if schema else config
    return shown


def _find(node: Node, kind: str, key: str) -> Entity:
    """The entity with this id or name. Raises the answer 404."""
    for entity in node.entities(kind):
        if key in (entity.get("id"), entity.get(_NAMED_BY[kind])):
            return entity
    raise _not_found()


def _collection(kind: str, owner_kind: str = "", owner: str = "") -> Handler:
    """GET of all entities of a kind, or of those that belong to one other entity."""

    async def handler(request: web.Request) -> web.StreamResponse:
        node = request.app[_NODE]
        found = list(node.entities(kind))
        if owner_kind:
            owner_id = _find(node, owner_kind, request.match_info["key"])["id"]
            found = [entity for entity in found if (entity.get(owner) or {}).get("id") == owner_id]
        return _answer({"data": [_shown(node, kind, entity) for entity in found], "next": None})

    return handler


def _creation(kind: str, owner_kind: str = "") -> Handler:
    """POST of a new entity: checked where it is a plugin, then refused as there is no database."""

    async def handler(request: web.Request) -> web.StreamResponse:
        node = request.app[_NODE]
        if owner_kind:
            _find(node, owner_kind, request.match_info["key"])
        if kind == "plugins":
            _check_plugin(node, await _parameters(request))
        raise _unsupported("create", kind)

    return handler


def _single(kind: str) -> Handler:
    """One entity by id or name: GET shows it, every change is refused."""

    async def handler(request: web.Request) -> web.StreamResponse:
        node, key = request.app[_NODE], request.match_info["key"]
        by = "" if _UUID.fullmatch(key) else _NAMED_BY[kind]
        if request.method == "PUT":
            raise _unsupported("create or update", kind, by)
        try:
            entity = _find(node, kind, key)
        except _Refusal:
            if request.method == "DELETE":  # Kong: what is not there need not be removed
                return web.Response(status=204)
            raise
        if request.method in ("PATCH", "DELETE"):
            verb = "update" if request.method == "PATCH" else "remove"
            raise _unsupported(verb, kind, by)
        return _answer(_shown(node, kind, entity))

    return handler


def _unsupported(verb: str, kind: str, by: str = "") -> _Refusal:
    named = f" by '{by}'" if by else ""
    message = f"cannot {verb} '{kind}' entities{named} when not using a database"
    return _Refusal(405, {"code": 12, "name": "operation unsupported", "message": message})
