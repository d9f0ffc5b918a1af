"""What `kong-ai-proxy dev --config` says of a file's routes."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from kong_ai_proxy.gateway import dev_help
from tests.integration import examples

Json = dict[str, Any]
URL = "http://127.0.0.1:8000"


def told(route: Json, *plugins: Json) -> tuple[str, str]:
    """Of one route, whose plugins belong to it unless they say otherwise."""
    route = {"id": "r", "name": "mine", "methods": ["POST"], "service": {"id": "s"}, **route}
    (found,) = dev_help.of_routes(URL, [route], [{"route": {"id": "r"}, **p} for p in plugins])
    return found


def ours(route_type: str = "llm/v1/chat", **changes: Any) -> Json:
    model = changes.pop("model", {"provider": "openai", "name": "gpt-4o"})
    return {"name": "ai-proxy", "config": {"route_type": route_type, "model": model, **changes}}


@pytest.mark.parametrize("name", ["openai.yaml", *examples.OTHERS])
def test_each_example_has_a_command_for_openais_clients(name: str) -> None:
    for route in examples.routes(examples.deck(name)):
        about, command = told({**route, "methods": route["methods"]}, *route["plugins"])
        assert about.startswith(f"{route['name']}: {'|'.join(route['methods'])} /")
        if examples.llm_format(route) == "openai":
            words = shlex.split(command)
            assert words[0] == "curl"
            assert [each for each in words if each.partition("?")[0] == URL + examples.path(route)]
        else:
            assert not command


def test_a_model_that_the_client_chooses_has_to_be_filled_in() -> None:
    _, command = told({"paths": ["/c"]}, ours(model={"provider": "openai"}))
    assert '"model": "MODEL"' in command
    _, command = told({"paths": ["/c"]}, ours(model={"provider": "openai", "model_alias": "big"}))
    assert '"model": "big"' in command
    _, command = told({"paths": ["/c"]}, ours())
    assert '"model"' not in command


@pytest.mark.parametrize(
    ("path", "plugins"),
    [
        ("~/models/(?<model>[a-z]+)/chat$", [ours()]),
        ("/c", [ours(model={"provider": "openai", "name": "$(headers.x-model)"})]),
        ("/c", [ours("preserve")]),
        ("/c", [ours(), {"name": "jwt-auth", "route": None, "config": {}}]),
        ("/c", [ours(), {"name": "key-auth"}, {"name": "basic-auth", "route": None}]),
        ("/c", []),
    ],
)
def test_where_no_command_can_be_made_up_there_is_none(path: str, plugins: list[Json]) -> None:
    about, command = told({"paths": [path]}, *plugins)
    assert about == f"mine: POST {path.strip('~$')}"
    assert not command


@pytest.mark.parametrize("place", [{"service": {"id": "s"}}, {}])
def test_a_plugin_of_the_service_or_of_all_counts_too(place: Json) -> None:
    plugin = {**ours(), "route": None, **place}
    _, command = told({"paths": ["/c"]}, plugin)
    assert command.startswith(f"curl {URL}/c ")


KEYED: Json = {"name": "key-auth", "config": {}}


@pytest.mark.parametrize("place", [{}, {"route": None, "service": {"id": "s"}}, {"route": None}])
def test_a_key_that_kong_asks_for_has_a_place_in_the_command(place: Json) -> None:
    _, command = told({"paths": ["/c"]}, ours(), {**KEYED, **place})
    assert command.startswith(f"curl -H 'apikey: YOUR-KEY' {URL}/c ")


def test_a_key_has_the_name_that_the_routes_own_plugin_gives_it() -> None:
    own = {"name": "key-auth", "config": {"key_names": ["x-team", "y"]}}
    _, command = told({"paths": ["/c"]}, ours(), own, {**KEYED, "route": None})
    assert "-H 'x-team: YOUR-KEY'" in command


@pytest.mark.parametrize("place", [{"route": {"id": "q"}}, {"route": None, "service": {"id": "t"}}])
def test_authentication_elsewhere_leaves_an_open_route_its_command(place: Json) -> None:
    _, command = told({"paths": ["/c"]}, ours(), {**KEYED, **place})
    assert command.startswith(f"curl {URL}/c ")


def test_what_native_clients_need_is_said() -> None:
    about, _ = told({"paths": ["/boto3"]}, ours(llm_format="bedrock"))
    expected = "for clients of bedrock's format with the base URL http://127.0.0.1:8000/boto3"
    assert about == f"mine: POST /boto3, {expected}"
    about, _ = told({"paths": ["/ws"]}, ours("realtime/v1/realtime", llm_format="gemini"))
    assert about == "mine: POST /ws, a WebSocket in gemini's format"
