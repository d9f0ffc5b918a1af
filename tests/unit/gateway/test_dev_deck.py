"""The decK file that `dev` runs, and the commands it prints."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml

from kong_ai_proxy import resources
from kong_ai_proxy.gateway.dev_deck import base_url, pointed_at
from kong_ai_proxy.gateway.dev_help import Models, commands


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
    urls = {
        route["name"]: route["plugins"][0]["config"]["model"]["options"]["upstream_url"]
        for route in routes
    }
    assert urls == {
        "openai-chat": "http://u/v1/chat/completions",
        "openai-completions": "http://u/v1/completions",
        "openai-embeddings": "http://u/v1/embeddings",
    }


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
    assert Models.among(listed) == models


def test_a_command_is_a_line_of_shell_with_json_in_it() -> None:
    for _, command in commands("http://g", Models("it's")):
        words = shlex.split(command.replace("it's", "its"))
        assert words[0] == "curl"
        assert json.loads(words[-1])["model"]
