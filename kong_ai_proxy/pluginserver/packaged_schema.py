"""The generated Kong schemas, as they lie in the package."""

from __future__ import annotations

import json

from kong_ai_proxy import resources


def config_fields(plugin: str) -> list[dict[str, object]]:
    """The fields of `config`: what kong-pdk calls a plugin's `Schema`."""
    document = json.loads(resources.path("schemas", f"{plugin}.kong.json").read_bytes())
    for field in document["fields"]:
        if "config" in field:
            fields: list[dict[str, object]] = field["config"]["fields"]
            return fields
    raise ValueError(f"schemas/{plugin}.kong.json has no config: run `make schemas`")
