"""The decK files below examples/: valid, and each does what its comments say."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
import yaml

from kong_ai_proxy import resources
from kong_ai_proxy.config import validate
from kong_ai_proxy.config.matrix import SUPPORTED
from kong_ai_proxy.gateway.dev_deck import pointed_at
from kong_ai_proxy.gateway.provider import Provider
from tests import providers
from tests.gateways import GatewayFactory, RunningGateway

Json = dict[str, Any]

_MESSAGES = [{"role": "user", "content": "Hello"}]
_FILES = sorted(path.name for path in resources.path("examples").glob("*.yaml"))
_OPENAI_ONLY = (
    "ai-proxy-advanced.yaml",
    "key-auth.yaml",
    "openai.yaml",
    "self-hosted.yaml",
    "templating.yaml",
)
_DRIVEN = [name for name in _FILES if name not in _OPENAI_ONLY]


def _text(name: str) -> str:
    return resources.path("examples", name).read_text(encoding="utf-8")


_VARIABLES = {name for file in _FILES for name in re.findall(r"DECK_\w+", _text(file))}
_ENV = {
    **{name: f"value-of-{name}" for name in _VARIABLES},
    "DECK_OPENAI_API_KEY": "sk-example",
    "DECK_ALICE_KEY": "key-of-alice",
    "DECK_AWS_ACCESS_KEY_ID": "AKIASTANDIN",
    "DECK_AWS_SECRET_ACCESS_KEY": "stand-in-secret",
    "DECK_GCP_SERVICE_ACCOUNT": json.dumps(
        {
            "type": "service_account",
            "client_email": "kong@my-project.iam.gserviceaccount.com",
            "private_key": "-----BEGIN PRIVATE KEY-----\nMII=\n-----END PRIVATE KEY-----\n",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    ),
}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    running = await Provider.start()
    yield running
    await running.stop()


def _deck(name: str, provider: Provider) -> str:
    return pointed_at(_text(name), provider.url)


async def _post(
    running: RunningGateway, path: str, body: dict[str, Any], **headers: str
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=20, verify=False) as http:
        return await http.post(path, json=body, headers=headers)


def _sent(provider: Provider) -> Any:
    return orjson.loads(provider.seen[-1].body)


def test_every_provider_and_every_format_of_clients_has_one() -> None:
    plugins = [plugin for name in _FILES for plugin in _plugins(yaml.safe_load(_text(name)))]
    found = {target["model"]["provider"] for plugin in plugins for target in _targets(plugin)}
    assert found == set(SUPPORTED)
    formats = {plugin["config"].get("llm_format", "openai") for plugin in plugins}
    assert formats == {"anthropic", "bedrock", "cohere", "gemini", "huggingface", "openai"}


def test_every_text_capability_of_a_provider_has_one() -> None:
    plugins = [plugin for name in _FILES for plugin in _plugins(yaml.safe_load(_text(name)))]
    found = {
        (target["model"]["provider"], target["route_type"])
        for plugin in plugins
        for target in _targets(plugin)
    }
    text = {"llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"}
    wanted = {(name, kind) for name, kinds in SUPPORTED.items() for kind in text & set(kinds)}
    assert wanted <= found


def test_names_and_paths_differ_so_that_one_kong_takes_all_that_are_for_a_provider() -> None:
    decks = [yaml.safe_load(_text(name)) for name in _DRIVEN]
    routes = [
        route for deck in decks for service in deck["services"] for route in service["routes"]
    ]
    assert len({route["name"] for route in routes}) == len(routes)
    assert len({route["paths"][0] for route in routes}) == len(routes)


@pytest.mark.parametrize("name", _FILES)
def test_validate_finds_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in _ENV.items():
        monkeypatch.setenv(variable, value)
    assert validate.main([str(resources.path("examples", name))]) == 0


@pytest.mark.parametrize("name", _DRIVEN)
def test_validate_only_speaks_of_certificates(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in _ENV.items():
        monkeypatch.setenv(variable, value)
    validate.main([str(resources.path("examples", name))])
    *warnings, _ = capsys.readouterr().out.splitlines()
    assert all(": tls_verify: " in line for line in warnings)


# ---- for a provider, or for clients of another format

_SAID = "Hello from afar."
_BODIES: dict[str, Json] = {
    "llm/v1/chat": {"messages": _MESSAGES},
    "llm/v1/completions": {"prompt": "Hello"},
    "llm/v1/embeddings": {"input": "Hello"},
}


class _Request(NamedTuple):
    """What a client asks."""

    path: str
    body: Json


# Below the path of the route; one-shot, streamed.
_NATIVE: dict[str, tuple[_Request, _Request]] = {
    "anthropic": (
        _Request("/v1/messages", {"max_tokens": 99, "messages": _MESSAGES}),
        _Request("/v1/messages", {"max_tokens": 99, "messages": _MESSAGES, "stream": True}),
    ),
    "bedrock": (
        _Request(
            "/model/amazon.nova-lite-v1%3A0/converse",
            {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]},
        ),
        _Request(
            "/model/amazon.nova-lite-v1%3A0/converse-stream",
            {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]},
        ),
    ),
    "cohere": (
        _Request("/v2/chat", {"model": "command-a-03-2025", "messages": _MESSAGES}),
        _Request("/v2/chat", {"model": "command-a-03-2025", "messages": _MESSAGES, "stream": True}),
    ),
    "gemini": (
        _Request(
            "/v1beta/models/gemini-2.5-flash:generateContent",
            {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
        ),
        _Request(
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
        ),
    ),
    "huggingface": (
        _Request("/generate", {"inputs": "Hello"}),
        _Request("/generate_stream", {"inputs": "Hello"}),
    ),
}


def _plugins(deck: Json) -> Iterator[Json]:
    for service in deck["services"]:
        for route in service["routes"]:
            yield from (p for p in route["plugins"] if p["name"].startswith("ai-proxy"))


def _targets(plugin: Json) -> list[Json]:
    config: Json = plugin["config"]
    targets: list[Json] = config.get("targets", [config])
    return targets


def _upstream(model: Json) -> providers.Upstream:
    """The stand-in for the model's provider."""
    options = model.get("options", {})
    made_for: dict[str, Callable[[], providers.Upstream]] = {
        "anthropic": providers.anthropic,
        "bedrock": providers.bedrock,
        "cohere": providers.cohere,
        "databricks": lambda: providers.openai(refuses=["stream_options"]),
        "gemini": providers.vertex if "gemini" in options else providers.gemini,
        "huggingface": providers.huggingface,
        "mistral": providers.mistral,
        "ollama": providers.ollama,
    }
    server = options.get("llama2_format") or options.get("mistral_format")
    if server in ("ollama", "raw"):
        return providers.ollama() if server == "ollama" else providers.huggingface()
    return made_for.get(model["provider"], providers.openai)()


def _point(config: Json, url: str) -> None:
    """At the stand-in, which issues no tokens: where the example lets a cloud's identity sign, it
    gets something ready."""
    auth, options = config.get("auth", {}), config["model"].setdefault("options", {})
    own = options.get("upstream_url", "")
    options["upstream_url"] = url + urlsplit(own).path
    if auth.get("azure_use_managed_identity") or auth.get("gcp_use_service_account"):
        config["auth"] = {"header_name": "Authorization", "header_value": "Bearer token"}
    if options.get("bedrock", {}).pop("aws_assume_role_arn", None):
        del options["bedrock"]["aws_role_session_name"]
        config["auth"] = {
            "aws_access_key_id": _ENV["DECK_AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": _ENV["DECK_AWS_SECRET_ACCESS_KEY"],
        }


def _asked(config: Json, route: Json) -> tuple[_Request, _Request | None]:
    """A request to the route, and one for a stream."""
    path = route["paths"][0].strip("~$")
    if "llm_format" not in config:
        body = _BODIES[config["route_type"]]
        streamed = _Request(path, {**body, "stream": True})
        return _Request(path, body), None if "input" in body else streamed
    one, streamed = _NATIVE[config["llm_format"]]
    named = {"model": config["model"]["name"]} if config["llm_format"] == "anthropic" else {}
    return (
        _Request(path + one.path, {**one.body, **named}),
        _Request(path + streamed.path, {**streamed.body, **named}),
    )


class _Route(NamedTuple):
    """A route with a stand-in behind it."""

    config: Json
    route: Json
    upstream: providers.Upstream


@contextlib.asynccontextmanager
async def _behind(deck: Json) -> AsyncIterator[list[_Route]]:
    """The deck's routes, each with a stand-in of its own in place of the provider."""
    found: list[_Route] = []
    async with contextlib.AsyncExitStack() as stack:
        for service in deck["services"]:
            for route in service["routes"]:
                config = route["plugins"][0]["config"]
                upstream = await stack.enter_async_context(_upstream(config["model"]))
                upstream.script(text=_SAID)
                _point(config, upstream.url)
                found.append(_Route(config, route, upstream))
        yield found


def _told(answer: httpx.Response) -> str:
    """All texts of a stream or of an answer in one piece, one after the other."""
    texts = re.findall(rb'"(?:generated_text|text|content)":\s*("(?:[^"\\]|\\.)*")', answer.content)
    return "".join(orjson.loads(text) for text in texts)


@pytest.mark.parametrize("name", _DRIVEN)
async def test_each_route_reaches_its_provider(gateway: GatewayFactory, name: str) -> None:
    deck = yaml.safe_load(_text(name))
    async with _behind(deck) as routes:
        running = await gateway(yaml.safe_dump(deck), env=_ENV)
        for config, route, upstream in routes:
            one, streamed = _asked(config, route)
            for asked in filter(None, (one, streamed)):
                own = {} if "auth" in config else {"Authorization": "Bearer own"}
                answer = await _post(running, asked.path, asked.body, **own)
                assert upstream.failures == []
                assert answer.status_code == 200, (asked.path, answer.text)
                if config["route_type"] == "llm/v1/embeddings":
                    assert answer.json()["data"][0]["embedding"]
                else:
                    assert _SAID in _told(answer), (asked.path, answer.text)
                if asked is streamed and "llm_format" not in config:
                    assert answer.text.endswith("data: [DONE]\n\n")
            assert len(upstream.requests) == (2 if streamed else 1)


# ---- for OpenAI


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": _MESSAGES}),
        ("/v1/completions", {"prompt": "Hello"}),
        ("/v1/embeddings", {"input": "Hello"}),
    ],
)
async def test_openai_at_its_own_paths(
    gateway: GatewayFactory, provider: Provider, path: str, body: dict[str, Any]
) -> None:
    running = await gateway(_deck("openai.yaml", provider), env=_ENV)
    answer = await _post(running, path, {"model": "m", **body}, Authorization="Bearer any")
    assert answer.status_code == 200
    assert answer.json()["model"] == "m"
    assert provider.seen[-1].path == path
    assert provider.seen[-1].headers["Authorization"] == "Bearer sk-example"


async def test_advanced_chooses_by_alias(gateway: GatewayFactory, provider: Provider) -> None:
    running = await gateway(_deck("ai-proxy-advanced.yaml", provider), env=_ENV)
    asked = {"messages": _MESSAGES}
    assert (await _post(running, "/chat", {**asked, "model": "smart"})).is_success
    assert _sent(provider)["model"] == "gpt-4o"
    assert (await _post(running, "/chat", {**asked, "model": "fast"})).is_success
    assert _sent(provider)["model"] == "gpt-4o-mini"
    assert _sent(provider)["max_tokens"] == 512
    refused = await _post(running, "/chat", {**asked, "model": "other"})
    assert refused.status_code == 400
    assert len(provider.seen) == 2


async def test_self_hosted_gets_its_own_model_name(
    gateway: GatewayFactory, provider: Provider
) -> None:
    running = await gateway(_deck("self-hosted.yaml", provider), env=_ENV)
    assert (await _post(running, "/v1/chat/completions", {"messages": _MESSAGES})).is_success
    assert _sent(provider)["model"] == "llama3.2"
    assert (await _post(running, "/v1/embeddings", {"input": "Hello"})).is_success
    assert _sent(provider)["model"] == "nomic-embed-text"


async def test_templating_takes_the_model_from_path_and_header(
    gateway: GatewayFactory, provider: Provider
) -> None:
    running = await gateway(_deck("templating.yaml", provider), env=_ENV)
    asked = {"messages": _MESSAGES}
    assert (await _post(running, "/models/gpt-4.1/chat", asked)).is_success
    assert _sent(provider)["model"] == "gpt-4.1"
    assert (await _post(running, "/chat", asked, **{"X-Model": "o3"})).is_success
    assert _sent(provider)["model"] == "o3"
    assert (await _post(running, "/chat", asked)).status_code == 400
    assert len(provider.seen) == 2


async def test_key_auth_lets_only_alice_in(gateway: GatewayFactory, provider: Provider) -> None:
    running = await gateway(_deck("key-auth.yaml", provider), env=_ENV)
    asked = {"model": "m", "messages": _MESSAGES}
    assert (await _post(running, "/v1/chat/completions", asked)).status_code == 401
    wrong = await _post(running, "/v1/chat/completions", asked, apikey="wrong")
    assert wrong.status_code == 401
    assert not provider.seen
    assert (await _post(running, "/v1/chat/completions", asked, apikey="key-of-alice")).is_success
    assert "apikey" not in provider.seen[-1].headers
    assert provider.seen[-1].headers["Authorization"] == "Bearer sk-example"
