"""The decK file that `dev` runs, and the commands it prints."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
import yaml

from kong_ai_proxy import resources
from kong_ai_proxy.gateway.dev_deck import base_url, pointed_at
from kong_ai_proxy.gateway.dev_help import Models, commands, more_commands

_CATEGORIES = {
    "llm/v1/chat": None,  # text/generation is the default
    "llm/v1/completions": None,
    "llm/v1/embeddings": "text/embeddings",
    "llm/v1/responses": None,
    "llm/v1/files": None,
    "llm/v1/batches": None,
    "llm/v1/assistants": None,
    "audio/v1/audio/speech": "audio/speech",
    "audio/v1/audio/transcriptions": "audio/transcription",
    "audio/v1/audio/translations": "audio/transcription",
    "image/v1/images/generations": "image/generation",
    "image/v1/images/edits": "image/generation",
    "video/v1/videos/generations": "video/generation",
    "realtime/v1/realtime": "realtime/generation",
}
_UPLOADS = ("files", "transcriptions", "translations", "image-edits", "videos")


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://127.0.0.1:1234", "http://127.0.0.1:1234/v1"),
        ("http://127.0.0.1:1234/", "http://127.0.0.1:1234/v1"),
        ("http://127.0.0.1:1234/v1", "http://127.0.0.1:1234/v1"),
        ("http://127.0.0.1:1234/v1/", "http://127.0.0.1:1234/v1"),
        ("https://api.example.com/openai/v1", "https://api.example.com/openai/v1"),
        ("http://[::1]:80", "http://[::1]:80/v1"),
    ],
)
def test_a_base_url_is_what_clients_take(given: str, base: str) -> None:
    assert base_url(given) == base


@pytest.mark.parametrize(
    "given",
    ["", "127.0.0.1:1234", "ftp://x", "http://", "http://x:99999", "http://x?a=1", "http://x#f"],
)
def test_other_urls_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        base_url(given)


def test_every_capability_of_openai_is_pointed_at_the_upstream() -> None:
    deck = resources.path("examples", "openai.yaml").read_text()
    routes = yaml.safe_load(pointed_at(deck, "http://u/v1"))["services"][0]["routes"]
    configs = {route["name"]: route["plugins"][0]["config"] for route in routes}
    urls = {
        name.removeprefix("openai-"): target["model"]["options"]["upstream_url"]
        for name, config in configs.items()
        for target in config.get("targets", [config])
    }
    assert urls == {
        "chat": "http://u/v1/chat/completions",
        "completions": "http://u/v1/completions",
        "embeddings": "http://u/v1/embeddings",
        "responses": "http://u/v1/responses",
        "files": "http://u/v1/files",
        "batches": "http://u/v1/batches",
        "assistants": "http://u/v1/assistants",
        "speech": "http://u/v1/audio/speech",
        "transcriptions": "http://u/v1/audio/transcriptions",
        "translations": "http://u/v1/audio/translations",
        "image-generations": "http://u/v1/images/generations",
        "image-edits": "http://u/v1/images/edits",
        "videos": "http://u/v1/videos",
        "realtime": "http://u/v1/realtime",
    }


def test_each_capability_of_openai_has_one_route_with_its_own_category() -> None:
    document = yaml.safe_load(resources.path("examples", "openai.yaml").read_text())
    (service,) = document["services"]
    categories: dict[str, str | None] = {}
    for route in service["routes"]:
        config = route["plugins"][0]["config"]
        (target,) = config.get("targets", [config])
        assert target["route_type"] not in categories
        categories[target["route_type"]] = config.get("genai_category")
        uploads = route["name"].removeprefix("openai-") in _UPLOADS
        assert route.get("request_buffering", True) is not uploads
        assert route["response_buffering"] is False
    assert categories == _CATEGORIES


def test_each_capability_has_a_command_to_try() -> None:
    listed = [
        what for what, _ in [*commands("http://g", Models()), *more_commands("http://g", Models())]
    ]
    assert len(set(listed)) == len(listed) == len(_CATEGORIES) + 2  # chat is there three times


def test_a_server_that_is_not_openai_is_asked_for_what_most_have() -> None:
    assert more_commands("http://g", Models.among(["llama3.2"])) == []


def test_targets_are_pointed_at_the_upstream_and_keep_their_options() -> None:
    deck = resources.path("examples", "ai-proxy-advanced.yaml").read_text()
    route = yaml.safe_load(pointed_at(deck, "http://u/v1"))["services"][0]["routes"][0]
    options = [t["model"].get("options") for t in route["plugins"][0]["config"]["targets"]]
    url = "http://u/v1/chat/completions"
    assert options == [{"upstream_url": url}, {"max_tokens": 512, "upstream_url": url}]


def test_the_rest_of_the_file_stays() -> None:
    deck = resources.path("examples", "key-auth.yaml").read_text()
    before, after = yaml.safe_load(deck), yaml.safe_load(pointed_at(deck, "http://u/v1"))
    del after["services"][0]["routes"][0]["plugins"][0]["config"]["model"]["options"]
    assert after == before


@pytest.mark.parametrize(
    ("listed", "models"),
    [
        ([], Models()),
        (["gpt-4o-mini", "text-embedding-3-small"], Models(completions="gpt-4o-mini")),
        (["llama3.2", "nomic-embed-text"], Models("llama3.2", "llama3.2", "nomic-embed-text")),
        (["only"], Models("only", "only", "only")),
    ],
)
def test_commands_name_models_that_the_upstream_has(listed: list[str], models: Models) -> None:
    assert Models.among(listed) == replace(models, all_of_openai=False)


def test_a_command_is_a_line_of_shell_with_json_in_it() -> None:
    for _, command in commands("http://g", Models("it's")):
        words = shlex.split(command.replace("it's", "its"))
        assert words[0] == "curl"
        assert json.loads(words[-1])["model"]
