"""Kong's key-auth plugin: who the consumer is, by a key in a header or in the query."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote_plus, unquote_to_bytes

from kong_ai_proxy.gateway import answers, forward
from kong_ai_proxy.gateway.configuration import Configuration, Entity
from kong_ai_proxy.gateway.context import Exit, Headers, PluginEntity, RequestContext
from kong_ai_proxy.gateway.entities import EntityError, Fields
from kong_ai_proxy.gateway.paths import text

_DUPLICATE = "Duplicate API key found"
_MISSING = "No API key found in request"
_UNKNOWN = "Unauthorized"

DEFAULTS: Mapping[str, object] = {
    "key_names": ["apikey"],
    "hide_credentials": False,
    "key_in_header": True,
    "key_in_query": True,
    "key_in_body": False,
    "run_on_preflight": True,
}


_PROTOCOLS = ["grpc", "grpcs", "http", "https"]
_ENTITY = {"id", "name", "instance_name", "protocols", "enabled", "tags", "config"}


def process_entity(entity: Mapping[str, object]) -> Fields:
    """A plugin entity as Kong stores it, with its defaults. Raises EntityError.

    What the stand-in lacks is an error too: it would let in whom Kong keeps out.
    """
    problems: dict[str, object] = dict.fromkeys(
        entity.keys() - _ENTITY - {"route", "service"}, "unknown field"
    )
    if "consumer" in entity:
        problems["consumer"] = "value must be null"
    if not isinstance(entity.get("enabled", True), bool):
        problems["enabled"] = "expected a boolean"
    if problems:
        raise EntityError(problems)
    config = entity["config"]
    assert isinstance(config, Mapping)
    return {"enabled": True, "protocols": _PROTOCOLS, **entity, "config": _process(config)}


def _process(config: Mapping[str, object]) -> Fields:
    problems: dict[str, object] = {}
    for name, value in config.items():
        if name in ("realm", "anonymous"):
            problems |= {} if isinstance(value, str | None) else {name: "expected a string"}
        elif name not in DEFAULTS:
            problems[name] = "unknown field"
        elif value is not None and not isinstance(value, type(DEFAULTS[name])):
            problems[name] = f"expected {_ARTICLES[type(DEFAULTS[name])]}"
    if config.get("key_in_body"):
        problems["key_in_body"] = "the stand-in reads keys from headers and the query only"
    if config.get("anonymous"):
        problems["anonymous"] = "the stand-in has no anonymous access"
    if problems:
        raise EntityError({"config": problems})
    given = {name: value for name, value in config.items() if value is not None}
    return {**DEFAULTS, **given}


_ARTICLES = {list: "an array", bool: "a boolean"}


def access(entity: PluginEntity, ctx: RequestContext, configuration: Configuration) -> None:
    """Authenticate a request: sets consumer, credential and the X-Consumer-* headers, or
    `ctx.exit` with Kong's 401."""
    config = entity.config
    if ctx.client.method == "OPTIONS" and not config["run_on_preflight"]:
        return
    key, problem = _find_key(config, ctx)
    credential = configuration.keys.get(key) if key is not None else None
    if problem is None and credential is None:
        problem = _UNKNOWN if key else _MISSING
    if problem is not None or credential is None:
        ctx.exit = _unauthorized(config, ctx, problem or _UNKNOWN)
        return
    _authenticate(ctx, configuration, credential)


def _find_key(config: Mapping[str, object], ctx: RequestContext) -> tuple[str | None, str | None]:
    """The key, or why there is none; both None: nothing was given."""
    names = config["key_names"]
    assert isinstance(names, list)
    for name in names:
        found: list[str] = []
        if config["key_in_header"]:
            found = [v for k, v in ctx.client.headers if k.lower() == str(name).lower()]
        if not found and config["key_in_query"]:
            found = _query_values(ctx.client.query, str(name))
        if len(found) > 1:
            return None, _DUPLICATE
        if found:
            if config["hide_credentials"]:
                _hide(ctx, str(name))
            return found[0], None
    return None, None


def _query_values(query: str, name: str) -> list[str]:
    return [value for key, value in _arguments(query) if key == name]


def _arguments(query: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in query.split("&") if part]
    return [(_decoded(key), _decoded(value)) for key, _, value in pairs]


def _encoded(value: str) -> str:
    return quote_plus(value, errors="surrogateescape")


def _decoded(value: str) -> str:
    return text(unquote_to_bytes(value.replace("+", " ").encode("utf-8", "surrogateescape")))


def _hide(ctx: RequestContext, name: str) -> None:
    """Take the key out of what goes upstream, and out of what later plugins see."""
    _set_header(ctx, name, None)
    pairs = _arguments(ctx.upstream.query)
    if any(key == name for key, _ in pairs):
        kept = [f"{_encoded(key)}={_encoded(value)}" for key, value in pairs if key != name]
        ctx.upstream.query = ctx.request_query = "&".join(kept)


def _set_header(ctx: RequestContext, name: str, value: str | None) -> None:
    """For the upstream, and for plugins that look at the request afterwards."""
    if ctx.request_headers is None:
        ctx.request_headers = list(ctx.client.headers)
    for headers in (ctx.request_headers, ctx.upstream.headers):
        _replace(headers, name, value)


def _replace(headers: Headers, name: str, value: str | None) -> None:
    headers[:] = [item for item in headers if item[0].lower() != name.lower()]
    if value is not None:
        headers.append((name, value))


def _authenticate(ctx: RequestContext, configuration: Configuration, credential: Entity) -> None:
    owner = credential["consumer"]
    assert isinstance(owner, Mapping)
    consumer = configuration.consumer(str(owner["id"])) or {}
    ctx.consumer, ctx.credential = consumer, credential
    for header, entity, field in (
        ("X-Consumer-ID", consumer, "id"),
        ("X-Consumer-Custom-ID", consumer, "custom_id"),
        ("X-Consumer-Username", consumer, "username"),
        ("X-Credential-Identifier", credential, "id"),
    ):
        value = entity.get(field)
        _set_header(ctx, header, None if value is None else str(value))
    _set_header(ctx, "X-Anonymous-Consumer", None)


def _unauthorized(config: Mapping[str, object], ctx: RequestContext, message: str) -> Exit:
    realm = config.get("realm")
    challenge = f'Key realm="{realm}"' if realm else "Key"
    return answers.error(
        401,
        message,
        request_id=ctx.request_id,
        accept=forward.get(ctx.client.headers, "accept") or "*/*",
        headers=[("WWW-Authenticate", challenge)],
    )
