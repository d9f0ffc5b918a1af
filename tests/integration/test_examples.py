"""The decK files below examples/: valid, and each does what its comments say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from kong_ai_proxy import resources
from kong_ai_proxy.config import validate
from kong_ai_proxy.gateway.dev_deck import pointed_at
from kong_ai_proxy.gateway.provider import Provider
from tests.gateways import GatewayFactory, RunningGateway

_ENV = {"DECK_OPENAI_API_KEY": "sk-example", "DECK_ALICE_KEY": "key-of-alice"}
_MESSAGES = [{"role": "user", "content": "Hello"}]
_FILES = sorted(path.name for path in resources.path("examples").glob("*.yaml"))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    running = await Provider.start()
    yield running
    await running.stop()


def _deck(name: str, provider: Provider) -> str:
    return pointed_at(resources.path("examples", name).read_text(encoding="utf-8"), provider.url)


async def _post(
    running: RunningGateway, path: str, body: dict[str, Any], **headers: str
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=20, verify=False) as http:
        return await http.post(path, json=body, headers=headers)


def _sent(provider: Provider) -> Any:
    return orjson.loads(provider.seen[-1].body)


def test_they_are_all_here() -> None:
    assert _FILES == [
        "ai-proxy-advanced.yaml",
        "key-auth.yaml",
        "openai.yaml",
        "self-hosted.yaml",
        "templating.yaml",
    ]


@pytest.mark.parametrize("name", _FILES)
def test_validate_finds_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in _ENV.items():
        monkeypatch.setenv(variable, value)
    assert validate.main([str(resources.path("examples", name))]) == 0


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
