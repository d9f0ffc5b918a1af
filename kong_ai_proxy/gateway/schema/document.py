"""An interpreter of Kong schema documents: what Kong does with a plugin's configuration.

A document is the JSON that a plugin server prints for Kong (`{name, fields, entity_checks}`). The
interpreter fills in defaults, checks every value and every rule between fields, and reports errors
with Kong's texts and Kong's nesting. It is written from Kong's documentation and observed
behaviour and knows nothing of this project's own configuration models, so that one mistake cannot
hide in both.

Kong's rules that surprise:

- The records of a plugin's configuration are required unless they say otherwise, so the defaults
  of an absent record are filled in, at every depth. The records inside an array's elements are
  not: there an absent record stays absent.
- An explicit null is not absent: no default is filled in, and the field ends up unset.
- Duplicates in a set are dropped without a word.
- `{}` and `[]` are both an empty table, hence an empty array, map or record.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from kong_ai_proxy.gateway.schema.checks import Field, is_reference
from kong_ai_proxy.gateway.schema.errors import SchemaError
from kong_ai_proxy.gateway.schema.record import (
    compiled,
    fill_fields,
    named,
    require_records,
    stored,
    validate_record,
)

__all__ = ["REDACTED", "PluginSchema", "SchemaError"]

REDACTED: Final = "REDACTED"

_PROTOCOLS: Final = ["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]

# The fields of every plugin entity (Kong's Admin API documentation, "Plugin object").
_PLUGIN_FIELDS: Final[list[dict[str, Field]]] = [
    {"id": {"type": "string", "uuid": True}},
    {"name": {"type": "string", "required": True}},
    {"instance_name": {"type": "string"}},
    {"created_at": {"type": "integer"}},
    {"updated_at": {"type": "integer"}},
    {"route": {"type": "foreign", "reference": "routes"}},
    {"service": {"type": "foreign", "reference": "services"}},
    {"consumer": {"type": "foreign", "reference": "consumers"}},
    {"consumer_group": {"type": "foreign", "reference": "consumer_groups"}},
    {"config": {"type": "record", "fields": []}},
    {
        "protocols": {
            "type": "set",
            "required": True,
            "default": ["grpc", "grpcs", "http", "https"],
            "elements": {
                "type": "string",
                "one_of": _PROTOCOLS,
            },
        }
    },
    {"enabled": {"type": "boolean", "required": True, "default": True}},
    {"tags": {"type": "set", "elements": {"type": "string", "not_match": "[,/]"}}},
]


class PluginSchema:
    """One plugin's schema document, ready to process configurations.

    Raises ValueError when the document uses what the stand-in does not understand: better than
    passing a rule over in silence.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.name = str(document["name"])
        self.document: dict[str, Any] = copy.deepcopy(dict(document))
        fields = named(_PLUGIN_FIELDS, "plugin") | named(document["fields"], self.name)
        if "config" not in fields or fields["config"]["type"] != "record":
            raise ValueError(f"schema of {self.name}: no record named config")
        for field in fields.values():
            if field["type"] == "record":
                require_records(field)
        checks = document.get("entity_checks", [])
        self._plugin = compiled({"type": "record", "fields": [], "entity_checks": checks}, "plugin")
        self._plugin["fields"] = fields
        self._config = fields["config"]

    def process(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration as Kong keeps it: defaults filled in, unset fields absent.

        Raises SchemaError, whose `fields` begin with `config` or are an `@entity` list.
        """
        stored = self.process_entity({"name": self.name, "config": config})
        return dict(stored["config"])

    def process_entity(self, entity: Mapping[str, Any]) -> dict[str, Any]:
        """A whole plugin entity as Kong keeps it (name, config, protocols, enabled, tags, ...).

        `route`, `service` and `consumer` are objects with an `id`, as in the Admin API. Raises
        SchemaError.
        """
        filled = fill_fields(self._plugin["fields"], copy.deepcopy(dict(entity)))
        errors = validate_record(self._plugin, filled)
        if errors:
            raise SchemaError(errors)
        return dict(stored(self._plugin, filled))

    def references(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Vault references in fields that may hold one, by dotted path, elements counted from 0.

        `{"targets.0.auth.header_value": "{vault://env/key}"}`. A text that looks like a reference
        in another field is only a text, as with Kong.
        """
        found: dict[str, str] = {}

        def note(field: Field, path: str, value: str) -> str:
            if field.get("referenceable") and is_reference(value):
                found[path] = value
            return value

        _walk(self._config, config, "", note)
        return found

    def resolve(
        self, config: Mapping[str, Any], lookup: Callable[[str], str]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The configuration with its vault references replaced, and the references by path.

        `lookup` gets the whole reference, braces included, and gives its value; Kong takes the
        empty text for one it cannot resolve. The paths are those of `references`.
        """
        refs = self.references(config)

        def swap(field: Field, path: str, value: str) -> str:
            return lookup(value) if path in refs else value

        return _walk(self._config, config, "", swap), refs

    def redact(self, config: Mapping[str, Any], refs: Mapping[str, str]) -> dict[str, Any]:
        """The configuration for people to read.

        What came from a vault is shown as its reference (`refs`, as `resolve` returned them),
        the other encrypted values as `REDACTED`.
        """

        def hide(field: Field, path: str, value: str) -> str:
            if path in refs:
                return refs[path]
            return REDACTED if field.get("encrypted") and not is_reference(value) else value

        return dict(_walk(self._config, config, "", hide))


def _walk(field: Field, value: Any, path: str, visit: Callable[[Field, str, str], str]) -> Any:
    """A copy of `value` in which `visit` has replaced every string the schema describes."""
    prefix = f"{path}." if path else ""
    kind = field["type"]
    if kind == "record" and isinstance(value, Mapping):
        fields = field["fields"]
        return {
            name: _walk(fields[name], item, prefix + name, visit) if name in fields else item
            for name, item in value.items()
        }
    if kind in ("array", "set") and isinstance(value, list):
        part = field["elements"]
        return [_walk(part, item, f"{prefix}{n}", visit) for n, item in enumerate(value)]
    if kind == "map" and isinstance(value, Mapping):
        part = field["values"]
        return {key: _walk(part, item, f"{prefix}{key}", visit) for key, item in value.items()}
    return visit(field, path, value) if isinstance(value, str) else value
