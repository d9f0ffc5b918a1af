"""The plugins' schemas as Kong's own schema library reads them.

Kong loads such a document at start, enforces it in the Admin API and in declarative files, and
fills in its defaults. Only attributes that Kong has had since 3.4 are used.

Kong makes a record required, and fills it in, unless `required` says otherwise; then an explicit
null, which `deck gateway dump` writes, would be refused. So `required` is always written.
"""

from __future__ import annotations

from kong_ai_proxy.config import shape
from kong_ai_proxy.config.shapes import Shape

DEFAULT_PROTOCOLS = ("grpc", "grpcs", "http", "https")
PROTOCOLS = (*DEFAULT_PROTOCOLS, "ws", "wss")
"""What a plugin may be enabled for. Open-source Kong has no Routes for ws and wss, but loads a
schema that names them (seen on 3.9.3), and files from Enterprise name them for every plugin. They
are no default: on an Enterprise Route for ws the access phase has not been seen to run, so Kong
had better refuse the plugin there. WebSocket upgrades pass on http and https."""

_SCALARS = ("one_of", "between", "gt", "len_min")
_FLAGS = ("required", "referenceable", "encrypted")


def export(plugin: str) -> dict[str, object]:
    """The whole schema document of `plugin`.

    Consumers, groups, Routes and Services have no entry: without one Kong allows the plugin on
    all of them, and open-source Kong has no field `consumer_group` to say anything about.
    """
    config = _field(shape(plugin)) | {"required": True}
    protocols = {
        "type": "set",
        "required": True,
        "default": list(DEFAULT_PROTOCOLS),
        "elements": {"type": "string", "one_of": list(PROTOCOLS)},
    }
    return {
        "name": plugin,
        "fields": [{"protocols": protocols}, {"config": config}],
        "entity_checks": [],
    }


def _field(field: Shape) -> dict[str, object]:
    document: dict[str, object] = {"type": field.kind}
    document |= {name: True for name in _FLAGS if getattr(field, name)}
    for name in _SCALARS:
        value = getattr(field, name)
        if value not in (None, ()):
            document[name] = list(value) if isinstance(value, tuple) else value
    if field.description:
        document["description"] = field.description
    if field.default is not None:
        document["default"] = field.default
    return document | _url(field) | _inside(field)


def _inside(field: Shape) -> dict[str, object]:
    if field.kind == "record":
        checks = [check for rule in field.rules if (check := rule.kong())]
        fields = [{name: _field(inner)} for name, inner in field.fields.items()]
        record: dict[str, object] = {"required": field.required, "fields": fields}
        return record | ({"entity_checks": checks} if checks else {})
    if field.kind == "array" and field.elements:
        return {"elements": _field(field.elements)}
    if field.kind == "map":
        # Kong 3.4 has no type for "any value". Text is what fits all that is known of such maps.
        return {"keys": {"type": "string"}, "values": {"type": "string"}}
    return {}


def _url(field: Shape) -> dict[str, object]:
    """Lua patterns in place of the function by which Kong checks an address."""
    if not field.url:
        return {}
    return {
        "match_all": [
            {"pattern": "^[^/?#]*//[^/?#%s]", "err": "missing host in url"},
            {"pattern": "^[^/?#:]+://", "err": "missing scheme in url"},
        ],
        "match_any": {
            "patterns": ["^https?://", "^wss?://"],
            "err": "expected a url that begins with http:// or https://",
        },
    }
