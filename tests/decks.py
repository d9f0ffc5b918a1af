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


OPENAI_PATHS = {
    "llm/v1/chat": ("/v1/chat/completions",),
    "llm/v1/completions": ("/v1/completions",),
    "llm/v1/embeddings": ("/v1/embeddings",),
    "llm/v1/files": ("/v1/files",),
    "llm/v1/batches": ("/v1/batches",),
    "llm/v1/assistants": ("/v1/assistants", "/v1/threads"),
    "llm/v1/responses": ("/v1/responses",),
    "audio/v1/audio/speech": ("/v1/audio/speech",),
    "audio/v1/audio/transcriptions": ("/v1/audio/transcriptions",),
    "audio/v1/audio/translations": ("/v1/audio/translations",),
    "image/v1/images/generations": ("/v1/images/generations",),
    "image/v1/images/edits": ("/v1/images/edits",),
    "video/v1/videos/generations": ("/v1/videos",),
    "realtime/v1/realtime": ("/v1/realtime",),
}
"""Where OpenAI has each route type; the first path is the one that upstream_url names."""


def capabilities_deck(base: str, **changes: Any) -> str:
    """Every capability of OpenAI at its own path, the provider at `base`; the client names the
    model. `changes` are made to each configuration."""
    return deck(
        *(
            route(path, config(base + paths[0], kind, None, **changes), response_buffering=False)
            for kind, paths in OPENAI_PATHS.items()
            for path in paths
        )
    )
