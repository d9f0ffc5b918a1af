"""The decK file that `kong-ai-proxy dev` runs, pointed at another upstream in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

PLUGINS: Final = ("ai-proxy", "ai-proxy-advanced")

# Where OpenAI's API has each route type, below the base URL that clients take. Of collections, the
# collection: what follows it is the client's.
_OPERATIONS: Final = {
    "llm/v1/chat": "/chat/completions",
    "llm/v1/completions": "/completions",
    "llm/v1/embeddings": "/embeddings",
    "llm/v1/responses": "/responses",
    "llm/v1/files": "/files",
    "llm/v1/batches": "/batches",
    "llm/v1/assistants": "/assistants",
    "audio/v1/audio/speech": "/audio/speech",
    "audio/v1/audio/transcriptions": "/audio/transcriptions",
    "audio/v1/audio/translations": "/audio/translations",
    "image/v1/images/generations": "/images/generations",
    "image/v1/images/edits": "/images/edits",
    "video/v1/videos/generations": "/videos",
    "realtime/v1/realtime": "/realtime",
}

_VARIABLE: Final = re.compile(r"""\$\{\{\s*env\s+["']?(DECK_\w+)""")


def base_url(url: str) -> str:
    """The base URL of an OpenAI-compatible server: `http://host:port` means `.../v1`.

    Raises ValueError unless it is an http or https URL with a host and without query.
    """
    parts = urlsplit(url)
    try:
        port_is_valid = parts.port != 0
    except ValueError:
        port_is_valid = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
        raise ValueError(f"{url!r} is not an http or https URL such as http://127.0.0.1:11434/v1")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r}: a base URL has no query and no fragment")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def pointed_at(deck: str, url: str) -> str:
    """The decK file with every AI plugin's upstream_url below the base URL `url`.

    Route types without an operation there keep what they have.
    """
    document = yaml.safe_load(deck)
    for target in _targets(document):
        operation = _OPERATIONS.get(str(target.get("route_type")))
        if operation is not None:
            target["model"].setdefault("options", {})["upstream_url"] = url + operation
    return dumped(document)


class _Dumper(yaml.SafeDumper):
    """Quotes decK's variables: one that holds JSON would otherwise become an object."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if "${{" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dumped(document: object) -> str:
    """A decK file that says this."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False)


def variables(deck: str) -> list[str]:
    """The variables of the environment that a decK file wants, each once, in their order."""
    lines = [line for line in deck.splitlines() if not line.lstrip().startswith("#")]
    return list(dict.fromkeys(_VARIABLE.findall("\n".join(lines))))


def _targets(node: Any) -> Iterator[dict[str, Any]]:
    """The targets of every AI plugin in a decK document, wherever it stands."""
    if isinstance(node, list):
        for item in node:
            yield from _targets(item)
    elif isinstance(node, Mapping):
        for plugin in node.get("plugins") or []:
            if plugin.get("name") in PLUGINS:
                config = plugin["config"]
                yield from config.get("targets", [config])
        for name, value in node.items():
            if name != "plugins":
                yield from _targets(value)
