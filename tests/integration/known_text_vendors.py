"""The providers of text that the tests of known failures go through: how each is configured, and
the stand-in that judges what reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests import providers
from tests.providers import Upstream

Json = dict[str, Any]

ACCESS_KEY = "AKIASTANDIN"
SECRET_KEY = "stand-in-secret"

_X_API_KEY = {"header_name": "x-api-key", "header_value": "operators-key"}
_GOOGLE_KEY = {"header_name": "x-goog-api-key", "header_value": "operators-key"}
_BEARER = {"header_name": "Authorization", "header_value": "Bearer operators-key"}
_API_KEY = {"header_name": "api-key", "header_value": "operators-key"}
_AWS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
_REGION = {"bedrock": {"aws_region": "us-east-1"}}
_OWN_SERVER = {"upstream_url": "http://127.0.0.1:1"}
_VERTEX = {
    "gemini": {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "project-1",
        "location_id": "us-central1",
    }
}


@dataclass(frozen=True)
class Vendor:
    """One provider with one model."""

    provider: str
    model: str
    stand_in: Callable[[], Upstream]
    auth: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    translated: bool = True
    """Whether an OpenAI client's request changes its format on the way there."""

    def config(self, url: str | None, **changes: Any) -> Json:
        """A configuration of ai-proxy for chat that leads to `url`, or to the provider's own
        address; `options` and `name` are the model's, other `changes` go to its top level."""
        own = {**self.options, **changes.pop("options", {})}
        own |= {} if url is None else {"upstream_url": url}
        name = changes.pop("name", self.model)
        named = {} if name is None else {"name": name}
        return {
            "route_type": "llm/v1/chat",
            "auth": dict(self.auth),
            "model": {"provider": self.provider, **named, "options": own},
            "max_request_body_size": 0,
            **changes,
        }


def _copy(provider: str, model: str, options: Json | None = None, **known: Any) -> Vendor:
    """A provider that speaks OpenAI's format."""
    return Vendor(
        provider, model, lambda: providers.openai(**known), _BEARER, options or {}, translated=False
    )


VENDORS: Mapping[str, Vendor] = {
    "anthropic": Vendor(
        "anthropic",
        "claude-haiku-4-5",
        providers.anthropic,
        _X_API_KEY,
        {"anthropic_version": "2023-06-01"},
    ),
    "bedrock": Vendor("bedrock", "amazon.nova-lite-v1:0", providers.bedrock, _AWS, _REGION),
    "bedrock-claude": Vendor(
        "bedrock", "us.anthropic.claude-haiku-4-5-v1:0", providers.bedrock, _AWS, _REGION
    ),
    "gemini": Vendor("gemini", "gemini-2.5-flash", providers.gemini, _GOOGLE_KEY),
    "vertex": Vendor("gemini", "gemini-2.5-flash", providers.vertex, _BEARER, _VERTEX),
    "vertex-claude": Vendor(
        "gemini", "claude-haiku-4-5@20251001", providers.vertex, _BEARER, _VERTEX
    ),
    "cohere": Vendor("cohere", "command-a-03-2025", providers.cohere, _BEARER),
    "ollama": Vendor("ollama", "llama3.2:1b", providers.ollama),
    "llama2-ollama": Vendor(
        "llama2", "llama3.2:1b", providers.ollama, {}, {"llama2_format": "ollama", **_OWN_SERVER}
    ),
    "openai": _copy("openai", "gpt-4o"),
    "azure": Vendor(
        "azure",
        "gpt-4o",
        providers.openai,
        _API_KEY,
        {"azure_instance": "one", "azure_deployment_id": "mine", "azure_api_version": "2024-10-21"},
        translated=False,
    ),
    "mistral": Vendor(
        "mistral",
        "mistral-large-latest",
        providers.mistral,
        _BEARER,
        {"mistral_format": "openai"},
        translated=False,
    ),
    "huggingface": Vendor(
        "huggingface", "meta-llama/Llama-3.3", providers.huggingface, _BEARER, translated=False
    ),
    "databricks": _copy(
        "databricks",
        "llama-3-3-70b",
        {"databricks": {"workspace_instance_id": "dbc-1"}},
        refuses=["stream_options"],
    ),
    "deepseek": _copy("deepseek", "deepseek-chat", reasoning="reasoning_content"),
    "dashscope": _copy("dashscope", "qwen-plus"),
    "cerebras": _copy("cerebras", "llama-3.3-70b"),
    "xai": _copy("xai", "grok-4.3"),
    "vllm": _copy("vllm", "qwen-3", _OWN_SERVER),
}

TRANSLATED = tuple(name for name, vendor in VENDORS.items() if vendor.translated)
"""Those whose answers are converted for OpenAI clients."""

FORMATS: Mapping[str, Vendor] = {
    name: VENDORS[name] for name in ("anthropic", "bedrock", "gemini", "cohere", "ollama")
}
"""One for each format that an OpenAI client's answer is converted from."""
