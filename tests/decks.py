"""decK files in short form."""

from __future__ import annotations

import json
import re
from typing import Any

Json = dict[str, Any]

KEY = "sk-provider-secret"
AUTH = {"header_name": "Authorization", "header_value": f"Bearer {KEY}"}


def config(
    url: str, route_type: str = "llm/v1/chat", name: str | None = "gpt-4o", **changes: Any
) -> Json:
    """A configuration of ai-proxy whose provider is at `url`."""
    model: Json = {"provider": "openai", "options": {"upstream_url": url}}
    if name is not None:
        model["name"] = name
    return {"route_type": route_type, "auth": AUTH, "model": model, **changes}


def route(path: str, configuration: Json, plugin: str = "ai-proxy", **changes: Any) -> Json:
    """A route with the plugin on it."""
    plugins = [{"name": plugin, "config": configuration}]
    name = "-".join(re.findall(r"\w+", path)) or "root"
    return {"name": name, "paths": [path], "plugins": plugins, **changes}


def deck(*routes: Json, service: Json | None = None, **top: Any) -> str:
    """A decK file with one Service as the documentation wants it."""
    entity = {
        "name": "ai",
        "url": "http://ai.invalid",
        "retries": 0,
        "read_timeout": 600000,
        "routes": list(routes),
        **(service or {}),
    }
    return json.dumps({"_format_version": "3.0", "services": [entity], **top})


def openai_deck(base: str) -> str:
    """OpenAI's own paths below /v1, the provider at `base`; the client names the model."""
    paths = {
        "llm/v1/chat": "/v1/chat/completions",
        "llm/v1/completions": "/v1/completions",
        "llm/v1/embeddings": "/v1/embeddings",
    }
    return deck(*(route(path, config(base + path, kind, None)) for kind, path in paths.items()))
