"""The decK files below examples/: valid, and each does what its comments say."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import httpx
import orjson
import pytest

from kong_ai_proxy import resources
from kong_ai_proxy.config import validate
from kong_ai_proxy.config.matrix import SUPPORTED
from kong_ai_proxy.gateway.dev_deck import dumped, pointed_at
from kong_ai_proxy.gateway.provider import Provider
from tests import providers
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import examples
from tests.integration.examples import BALANCED, ENV, FILES, OTHERS

Json = dict[str, Any]

_MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    running = await Provider.start()
    yield running
    await running.stop()


def _deck(name: str, provider: Provider) -> str:
    return pointed_at(examples.text(name), provider.url)


async def _post(
    running: RunningGateway, path: str, body: dict[str, Any], **headers: str
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=20, verify=False) as http:
        return await http.post(path, json=body, headers=headers)


def _sent(provider: Provider) -> Any:
    return orjson.loads(provider.seen[-1].body)


def _all_plugins() -> list[Json]:
    return [plugin for name in FILES for plugin in examples.plugins(examples.deck(name))]


def test_every_format_of_clients_has_one() -> None:
    formats = {plugin["config"].get("llm_format", "openai") for plugin in _all_plugins()}
    assert formats == {"anthropic", "bedrock", "cohere", "gemini", "huggingface", "openai"}


def test_every_capability_of_every_provider_has_one() -> None:
    found = {
        (target["model"]["provider"], target["route_type"])
        for plugin in _all_plugins()
        for target in examples.targets(plugin)
    }
    assert found == {(name, kind) for name, kinds in SUPPORTED.items() for kind in kinds}


def test_names_and_paths_differ_so_that_one_kong_takes_all_that_are_for_a_provider() -> None:
    files = (*OTHERS, *BALANCED)
    routes = [route for name in files for route in examples.routes(examples.deck(name))]
    assert len({route["name"] for route in routes}) == len(routes)
    assert len({route["paths"][0] for route in routes}) == len(routes)


@pytest.mark.parametrize("name", FILES)
def test_validate_finds_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ENV.items():
        monkeypatch.setenv(variable, value)
    assert validate.main([str(resources.path("examples", name))]) == 0


@pytest.mark.parametrize("name", [*OTHERS, *BALANCED])
def test_validate_only_speaks_of_certificates(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in ENV.items():
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
    "llm/v1/responses": {"input": "Hello"},
}
_OWN_RESPONSES = ("azure", "xai")
"""Providers whose responses are not made of a chat."""


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


def _asked(config: Json, route: Json) -> tuple[_Request, _Request | None]:
    """A request to the route, and one for a stream."""
    path, spoken = examples.path(route), examples.llm_format(route)
    if spoken == "openai":
        body = _BODIES[config["route_type"]]
        streamed = _Request(path, {**body, "stream": True})
        is_embeddings = config["route_type"] == "llm/v1/embeddings"
        return _Request(path, body), None if is_embeddings else streamed
    one, streamed = _NATIVE[spoken]
    model = config["model"].get("name", "claude-sonnet-4-6")
    named = {"model": model} if spoken == "anthropic" else {}
    return (
        _Request(path + one.path, {**one.body, **named}),
        _Request(path + streamed.path, {**streamed.body, **named}),
    )


class _Route(NamedTuple):
    """A route with a stand-in behind it."""

    config: Json
    route: Json
    upstream: providers.Upstream


def _is_text(target: Json) -> bool:
    """The others are driven in test_examples_beyond_text.py."""
    own = target["route_type"] == "llm/v1/responses"
    return target["route_type"] in _BODIES and not (
        own and target["model"]["provider"] in _OWN_RESPONSES
    )


@contextlib.asynccontextmanager
async def _behind(deck: Json) -> AsyncIterator[list[_Route]]:
    """The deck's routes for text, each with a stand-in of its own in place of the provider."""
    found: list[_Route] = []
    async with contextlib.AsyncExitStack() as stack:
        for route in examples.routes(deck):
            config = examples.target(route)
            if _is_text(config):
                upstream = await stack.enter_async_context(_upstream(config["model"]))
                upstream.script(text=_SAID)
                examples.point(config, upstream.url)
                found.append(_Route(config, route, upstream))
        yield found


def _told(answer: httpx.Response) -> str:
    """All texts of a stream or of an answer in one piece, one after the other."""
    texts = re.findall(rb'"(?:generated_text|text|content)":\s*("(?:[^"\\]|\\.)*")', answer.content)
    return "".join(orjson.loads(text) for text in texts)


@pytest.mark.parametrize("name", OTHERS)
async def test_each_route_reaches_its_provider(gateway: GatewayFactory, name: str) -> None:
    deck = examples.deck(name)
    async with _behind(deck) as routes:
        running = await gateway(dumped(deck), env=ENV)
        for config, route, upstream in routes:
            one, streamed = _asked(config, route)
            is_response = config["route_type"] == "llm/v1/responses"
            for asked in filter(None, (one, streamed)):
                own = {} if "auth" in config else {"Authorization": "Bearer own"}
                answer = await _post(running, asked.path, asked.body, **own)
                assert upstream.failures == []
                assert answer.status_code == 200, (asked.path, answer.text)
                if config["route_type"] == "llm/v1/embeddings":
                    assert answer.json()["data"][0]["embedding"]
                else:
                    assert _SAID in _told(answer), (asked.path, answer.text)
                if asked is streamed and examples.llm_format(route) == "openai":
                    assert answer.text.endswith("data: [DONE]\n\n") != is_response
                    assert ("event: response.completed" in answer.text) == is_response
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
    running = await gateway(_deck("openai.yaml", provider), env=ENV)
    answer = await _post(running, path, {"model": "m", **body}, Authorization="Bearer any")
    assert answer.status_code == 200
    assert answer.json()["model"] == "m"
    assert provider.seen[-1].path == path
    assert provider.seen[-1].headers["Authorization"] == "Bearer sk-example"


async def test_advanced_chooses_by_alias(gateway: GatewayFactory, provider: Provider) -> None:
    running = await gateway(_deck("ai-proxy-advanced.yaml", provider), env=ENV)
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
    running = await gateway(_deck("self-hosted.yaml", provider), env=ENV)
    assert (await _post(running, "/v1/chat/completions", {"messages": _MESSAGES})).is_success
    assert _sent(provider)["model"] == "llama3.2"
    assert (await _post(running, "/v1/embeddings", {"input": "Hello"})).is_success
    assert _sent(provider)["model"] == "nomic-embed-text"


async def test_templating_takes_the_model_from_path_and_header(
    gateway: GatewayFactory, provider: Provider
) -> None:
    running = await gateway(_deck("templating.yaml", provider), env=ENV)
    asked = {"messages": _MESSAGES}
    assert (await _post(running, "/models/gpt-4.1/chat", asked)).is_success
    assert _sent(provider)["model"] == "gpt-4.1"
    assert (await _post(running, "/chat", asked, **{"X-Model": "o3"})).is_success
    assert _sent(provider)["model"] == "o3"
    assert (await _post(running, "/chat", asked)).status_code == 400
    assert len(provider.seen) == 2


async def test_key_auth_lets_only_alice_in(gateway: GatewayFactory, provider: Provider) -> None:
    running = await gateway(_deck("key-auth.yaml", provider), env=ENV)
    asked = {"model": "m", "messages": _MESSAGES}
    assert (await _post(running, "/v1/chat/completions", asked)).status_code == 401
    wrong = await _post(running, "/v1/chat/completions", asked, apikey="wrong")
    assert wrong.status_code == 401
    assert not provider.seen
    assert (await _post(running, "/v1/chat/completions", asked, apikey="key-of-alice")).is_success
    assert "apikey" not in provider.seen[-1].headers
    assert provider.seen[-1].headers["Authorization"] == "Bearer sk-example"
