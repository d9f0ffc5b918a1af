"""What `kong-ai-proxy dev` prints: commands to copy."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kong_ai_proxy.gateway.dev_deck import PLUGINS

_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
_JSON: Final = "-H 'Content-Type: application/json'"
# The handshake of RFC 6455 section 4.1, with the key of its example.
_UPGRADE: Final = (
    "-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' "
    "-H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='"
)
_IMAGE: Final = 'grep -o \'"b64_json": *"[^"]*\' | sed \'s/.*"//\' | base64 -d > house.png'


Entity = Mapping[str, Any]

# Bodies of JSON, or options of curl, by route type.
_BODIES: Final[Mapping[str, dict[str, Any]]] = {
    "llm/v1/chat": {"messages": [{"role": "user", "content": "Hello"}]},
    "llm/v1/completions": {"prompt": "Once upon a time"},
    "llm/v1/embeddings": {"input": "Hello"},
    "llm/v1/responses": {"input": "Hello"},
    "audio/v1/audio/speech": {"voice": "alloy", "input": "Hello"},
    "image/v1/images/generations": {"prompt": "A red house"},
    "video/v1/videos/generations": {"prompt": "A red house"},
}
_OPTIONS: Final[Mapping[str, str]] = {
    "llm/v1/files": "",
    "llm/v1/batches": "",
    "llm/v1/assistants": "-H 'OpenAI-Beta: assistants=v2'",
    "audio/v1/audio/transcriptions": "-F file=@speech.wav",
    "audio/v1/audio/translations": "-F file=@speech.wav",
    "image/v1/images/edits": "-F prompt='A blue house' -F image=@house.png",
    "realtime/v1/realtime": f"-sNm 3 {_UPGRADE}",
}
_REGEX: Final = re.compile(r"[][(){}|*+?\\^$<>]")


@dataclass(frozen=True)
class Models:
    """Model names that the upstream knows.

    `all_of_openai`: whether it also has what other servers seldom have, from files to realtime.
    """

    chat: str = "gpt-4o-mini"
    completions: str = "gpt-3.5-turbo-instruct"
    embeddings: str = "text-embedding-3-small"
    all_of_openai: bool = True

    @classmethod
    def among(cls, names: list[str]) -> Models:
        """Names for an upstream that lists `names`; the defaults where it lists none."""
        if not names:
            return cls(all_of_openai=False)
        embedders = [name for name in names if "embed" in name]
        talkers = [name for name in names if name not in embedders] or names
        chat = cls.chat if cls.chat in names else talkers[0]
        completions = cls.completions if cls.completions in names else chat
        embeddings = cls.embeddings if cls.embeddings in names else (embedders or names)[0]
        return cls(chat, completions, embeddings, all_of_openai=False)


def commands(url: str, models: Models) -> list[tuple[str, str]]:
    """What each command shows, and the command, for a gateway at `url` that runs openai.yaml."""

    def said(text: str) -> dict[str, Any]:
        return {"model": models.chat, "messages": [{"role": "user", "content": text}]}

    streamed = {**said("Count to five"), "stream": True}
    tools = {**said("What is the weather in Paris?"), "tools": [_TOOL]}
    prompt = {"model": models.completions, "prompt": "Once upon a time", "max_tokens": 32}
    embedded = {"model": models.embeddings, "input": "Hello"}
    return [
        ("chat", _curl(f"{url}/v1/chat/completions", said("Hello"))),
        ("chat, streamed", _curl(f"{url}/v1/chat/completions", streamed, "-N")),
        ("tools", _curl(f"{url}/v1/chat/completions", tools)),
        ("completions", _curl(f"{url}/v1/completions", prompt)),
        ("embeddings", _curl(f"{url}/v1/embeddings", embedded)),
    ]


def more_commands(url: str, models: Models) -> list[tuple[str, str]]:
    """The same for OpenAI's other capabilities, a line each; none where the upstream lacks them."""
    if not models.all_of_openai:
        return []
    v1 = f"{url}/v1"
    asked = {"model": models.chat, "input": "Hello"}
    assistant = {"model": models.chat, "instructions": "Help"}
    spoken = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hello"}
    drawn = {"model": "gpt-image-2", "prompt": "A red house"}
    speech = _curl(f"{v1}/audio/speech", {**spoken, "response_format": "wav"}, "-o speech.wav")
    heard = "-F model=whisper-1 -F file=@speech.wav"
    file = "-F purpose=user_data -F 'file=@-;filename=hello.txt'"
    edit = "-F model=gpt-image-2 -F prompt='A blue house' -F image=@house.png"
    return [
        ("responses", _curl(f"{v1}/responses", asked)),
        ("files", f"echo Hello | curl {v1}/files {file}"),
        ("batches", f"curl {v1}/batches"),
        ("assistants", _curl(f"{v1}/assistants", assistant, "-H 'OpenAI-Beta: assistants=v2'")),
        ("speech", speech),
        ("transcriptions", f"curl {v1}/audio/transcriptions {heard}"),
        ("translations", f"curl {v1}/audio/translations {heard}"),
        ("image generations", f"{_curl(f'{v1}/images/generations', drawn)} | {_IMAGE}"),
        ("image edits", f"curl {v1}/images/edits {edit} | head -c 200"),
        ("videos", f"curl {v1}/videos -F model=sora-2 -F prompt='A red house'"),
        ("realtime", f"curl -sNm 3 {_UPGRADE} '{v1}/realtime?model=gpt-realtime'"),
    ]


def _curl(url: str, body: dict[str, Any], *options: str) -> str:
    words = ["curl", *options, url, _JSON]
    return f"{' '.join(words)} -d '{json.dumps(body)}'"


def python_client(url: str, models: Models) -> str:
    """The same with OpenAI's own client."""
    return (
        f'{shlex.quote(sys.executable)} -c "from openai import OpenAI; '
        f"client = OpenAI(base_url='{url}/v1', api_key='unused'); "
        f"print(client.chat.completions.create(model='{models.chat}', "
        "messages=[{'role': 'user', 'content': 'Hello'}]).choices[0].message.content)\""
    )


def of_routes(
    url: str, routes: Iterable[Entity], plugins: Iterable[Entity]
) -> list[tuple[str, str]]:
    """The same for routes of a file that is not known: what each is, and a command, or "" where
    none can be made up."""
    configs: dict[str, Entity] = {}
    guards: dict[str, dict[str, Entity]] = {}  # authentication plugins by place and name
    for plugin in plugins:
        place = (plugin.get("route") or plugin.get("service") or {"id": ""})["id"]
        if plugin["name"] in PLUGINS:
            configs[place] = plugin["config"]
        elif "auth" in plugin["name"]:
            guards.setdefault(place, {})[plugin["name"]] = plugin.get("config") or {}
    found = []
    for route in routes:
        places = (route["id"], (route.get("service") or {}).get("id") or "", "")
        config = next((configs[each] for each in places if each in configs), None)
        shown: dict[str, Entity] = {}
        for each in reversed(places):  # the Route's own plugin wins over one of the same name
            shown |= guards.get(each, {})
        command = _shown(_tried(url, route, config), shown) if config else ""
        found.append((_introduced(url, route, config or {}), command))
    return found


def _shown(command: str, guards: Mapping[str, Entity]) -> str:
    """With a place for the client's key; none where another kind of authentication is wanted."""
    if not guards or not command:
        return command
    if set(guards) != {"key-auth"}:
        return ""
    name = (guards["key-auth"].get("key_names") or ["apikey"])[0]
    key = shlex.quote(f"{name}: YOUR-KEY")
    return f"curl -H {key} {command.removeprefix('curl ')}"


def _introduced(url: str, route: Entity, config: Entity) -> str:
    """Its name and where it is, and whom it is for."""
    methods = "|".join(route.get("methods") or ["any method"])
    paths = [each.removeprefix("~").removesuffix("$") for each in route.get("paths") or ["/"]]
    where = f"{route.get('name') or route['id']}: {methods} {' '.join(paths)}"
    spoken = config.get("llm_format", "openai")
    if spoken == "openai":
        return where
    if _target(config)["route_type"].startswith("realtime/"):
        return f"{where}, a WebSocket in {spoken}'s format"
    return f"{where}, for clients of {spoken}'s format with the base URL {url}{paths[0]}"


def _target(config: Entity) -> Entity:
    """The first."""
    found: Entity = (config.get("targets") or [config])[0]
    return found


def _tried(url: str, route: Entity, config: Entity) -> str:
    """A command that asks for the least the route can do."""
    path = (route.get("paths") or [""])[0].removeprefix("~").removesuffix("$")
    if config.get("llm_format", "openai") != "openai" or _REGEX.search(path):
        return ""
    kind, model = _target(config)["route_type"], _target(config)["model"]
    name = model.get("model_alias") or (None if model.get("name") else "MODEL")
    if "$(" in str(model.get("name")) or kind not in {*_BODIES, *_OPTIONS}:
        return ""
    if kind in _BODIES:
        return _curl(url + path, {**({"model": name} if name else {}), **_BODIES[kind]})
    options = _OPTIONS[kind]
    if name and " -F " in f" {options}":
        options = f"-F model={name} {options}"
    query = f"?model={name}" if name and kind.startswith("realtime/") else ""
    return " ".join(filter(None, ["curl", options, shlex.quote(url + path + query)]))
