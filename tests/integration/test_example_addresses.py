"""Where each route of the examples sends its first request, with nothing put in its place: to the
address in example_addresses.yaml, with the operator's credential and without the client's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kong_ai_proxy.exchange.messages import UpstreamRequest
from tests.golden import exchanges
from tests.golden.fixture import GOOGLE, url
from tests.integration import examples
from tests.integration.examples import ENV, Json
from tests.integration.text_world import CLIENTS_OWN

_HERE = Path(__file__).parent
ADDRESSES: dict[str, str] = yaml.safe_load((_HERE / "example_addresses.yaml").read_text())
ROUTES = {
    route["name"]: route
    for name in ("openai.yaml", *examples.OTHERS)
    for route in examples.routes(examples.deck(name))
}
_FORM = [
    {"name": "prompt", "value": "a bridge"},
    {"name": "image", "filename": "a.png", "type": "image/png", "base64": "iVBORw0KGgo="},
]
_SOUND = [{"name": "file", "filename": "a.wav", "type": "audio/wav", "text": "RIFF"}]
_UPLOAD = [
    {"name": "purpose", "value": "user_data"},
    {"name": "file", "filename": "a.txt", "type": "text/plain", "text": "x"},
]
_MESSAGES = [{"role": "user", "content": "Hello"}]
_UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
# What a client asks: the method, what follows the route's path, and the body.
_ASKED: dict[str, Json] = {
    "llm/v1/chat": {"json": {"messages": _MESSAGES}},
    "llm/v1/completions": {"json": {"prompt": "Hello"}},
    "llm/v1/embeddings": {"json": {"input": "Hello"}},
    "llm/v1/responses": {"json": {"input": "Hello"}},
    "llm/v1/files": {"form": _UPLOAD},
    "llm/v1/batches": {"method": "GET", "query": "limit=2"},
    "llm/v1/assistants": {"json": {}, "headers": {"openai-beta": "assistants=v2"}},
    "audio/v1/audio/speech": {"json": {"voice": "alloy", "input": "Hello"}},
    "audio/v1/audio/transcriptions": {"form": _SOUND},
    "audio/v1/audio/translations": {"form": _SOUND},
    "image/v1/images/generations": {"json": {"prompt": "a river"}},
    "image/v1/images/edits": {"form": _FORM},
    "video/v1/videos/generations": {"json": {"prompt": "a river"}},
    "realtime/v1/realtime": {"method": "GET", "headers": _UPGRADE},
}
# The same of native formats, or of one Route, where it is not a WebSocket.
_NATIVE: dict[str, tuple[str, Json]] = {
    "anthropic": ("/v1/messages", {"json": {"max_tokens": 99, "messages": _MESSAGES}}),
    "bedrock": ("/model-invocation-jobs", {"method": "GET"}),
    "cohere": ("/v2/rerank", {"json": {"model": "m", "query": "q", "documents": ["d"]}}),
    "gemini": ("/v1beta/models/m:countTokens", {"json": {"contents": []}}),
    "huggingface": ("/generate", {"json": {"inputs": "Hello"}}),
    "anthropic-native": ("/v1/messages/batches", {"method": "GET"}),
    "vertex-native": (
        "/v1/rankingConfigs/default_ranking_config:rank",
        {"json": {"query": "q", "records": []}},
    ),
}


def _request(route: Json, target: Json) -> Json:
    kind, spoken = target["route_type"], examples.llm_format(route)
    asked, path = _ASKED[kind], examples.path(route)
    if spoken != "openai" and kind != "realtime/v1/realtime":
        below, asked = _NATIVE.get(route["name"], _NATIVE[spoken])
        path += below
    if "json" in asked and "name" not in target["model"] and spoken in ("openai", "anthropic"):
        asked = {**asked, "json": {"model": "m", **asked["json"]}}
    own = {"authorization": f"Bearer {CLIENTS_OWN}"} if target.get("auth") else {}
    return {**asked, "path": path, "headers": {**own, **asked.get("headers", {})}}


def _first(route: Json) -> UpstreamRequest:
    """The first request to the provider, whose answer is an error."""
    plugin = route["plugins"][0]
    target = examples.target(route)
    golden = exchanges.Exchanges(
        name=route["name"],
        source="",
        cells=(),
        config=_filled(plugin["config"]),
        request=_request(route, target),
        exchanges=[{"answer": {"status": 500, "json": {"message": "no"}}}] * 3,
        client={},
        plugin=plugin["name"],
    )
    return exchanges.play(golden).asked[0][0]


def _filled(value: Any) -> Any:
    """With decK's variables."""
    if isinstance(value, dict):
        return {name: _filled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if not isinstance(value, str):
        return value
    return re.sub(r'\$\{\{ env "(\w+)" \}\}', lambda found: ENV[found[1]], value)


def test_every_route_is_in_the_list() -> None:
    assert set(ADDRESSES) == set(ROUTES)


@pytest.mark.parametrize("name", ROUTES)
def test_the_first_request_goes_to_its_address(name: str) -> None:
    first = _first(ROUTES[name])
    assert f"{first.method} {url(first)}" == ADDRESSES[name]
    everything = f"{first.address} {first.set_headers}"
    assert CLIENTS_OWN not in everything
    keys = [*ENV.values(), GOOGLE.token]
    is_open = not examples.target(ROUTES[name]).get("auth") and name != "bedrock-role-chat"
    assert any(key in everything for key in keys) != is_open


@pytest.mark.parametrize("fixture", ["video", "video-done", "video-content"])
def test_hugging_faces_videos_are_made_at_several_addresses(fixture: str) -> None:
    """Which no stand-in has, so they are replayed with the example's configuration."""
    golden = exchanges.load(f"huggingface/{fixture}")
    config = _filled(ROUTES["huggingface-videos"]["plugins"][0]["config"])
    config["auth"] = golden.config["auth"]
    exchanges.check(replace(golden, config=config))
