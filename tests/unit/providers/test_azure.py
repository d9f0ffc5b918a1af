"""Azure OpenAI: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai import completions as openai_completions
from kong_ai_proxy.formats.openai import embeddings as openai_embeddings
from kong_ai_proxy.providers.azure import AZURE
from kong_ai_proxy.providers.base import Call, Endpoint


def options(**more: Any) -> ModelOptions:
    given = {"azure_instance": "my-openai", "azure_deployment_id": "my-gpt-4", **more}
    return ModelOptions.model_validate(given)


def endpoint(route_type: str = openai.CHAT, **more: Any) -> Endpoint:
    assert AZURE.endpoint is not None
    return AZURE.endpoint(Call(route_type, "gpt-4", options(**more)))


def test_the_instance_is_a_host() -> None:
    assert AZURE.base(options()) == "https://my-openai.openai.azure.com"


@pytest.mark.parametrize("instance", ["evil.com/", "a.b", "evil.com#", "a@b", "-a", "a:1", "a\n"])
def test_an_instance_that_would_be_another_host_is_refused(instance: str) -> None:
    with pytest.raises(FormatError, match="azure_instance"):
        AZURE.base(options(azure_instance=instance))


@pytest.mark.parametrize(
    ("route_type", "path", "codec"),
    [
        (openai.CHAT, "chat/completions", openai_chat.CHAT),
        (openai.COMPLETIONS, "completions", openai_completions.COMPLETIONS),
        (openai.EMBEDDINGS, "embeddings", openai_embeddings.EMBEDDINGS),
    ],
)
def test_paths_are_the_deployments(route_type: str, path: str, codec: object) -> None:
    assert route_type in AZURE.route_types
    found = endpoint(route_type)
    assert found.path == f"/openai/deployments/my-gpt-4/{path}"
    assert found.codec is codec


def test_the_version_is_in_the_query() -> None:
    assert endpoint().query == "api-version=2023-05-15"
    assert endpoint(azure_api_version="a&b=c").query == "api-version=a%26b%3Dc"


def test_a_deployment_is_one_segment() -> None:
    found = endpoint(azure_deployment_id="a/b?c")
    assert found.path == "/openai/deployments/a%2Fb%3Fc/chat/completions"


@pytest.mark.parametrize("deployment", [None, ".", "..", "a/..", "../../x"])
def test_a_deployment_cannot_climb(deployment: str | None) -> None:
    with pytest.raises(FormatError, match="azure_deployment_id"):
        endpoint(azure_deployment_id=deployment)


def test_upstream_path_is_below_the_deployment() -> None:
    found = endpoint(upstream_path="/extensions/chat/completions?a=b")
    assert found.path == "/openai/deployments/my-gpt-4/extensions/chat/completions"
    assert found.query == "a=b&api-version=2023-05-15"


def test_upstream_path_may_be_whole() -> None:
    found = endpoint(upstream_path="/openai/v1/chat/completions")
    assert found.path == "/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("version", "asks"),
    [
        ("2023-05-15", False),
        ("2024-06-01", False),
        ("2024-09-01-preview", True),
        ("2024-10-21", True),
        ("preview", True),
        ("v1", True),
    ],
)
def test_old_versions_are_not_asked_for_usage(version: str, asks: bool) -> None:
    assert AZURE.find(options(azure_api_version=version)).usage_on_request is asks


def test_models_and_refusals_are_openais() -> None:
    row = AZURE.find(options())
    assert row.completion_tokens_models is not None
    assert row.completion_tokens_models.match("o3-mini")
    assert row.refused_for(Call(openai.CHAT, "gpt-4", options())) == {"top_k"}
