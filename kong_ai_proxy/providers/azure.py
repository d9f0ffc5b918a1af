"""Azure OpenAI: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai import completions as openai_completions
from kong_ai_proxy.formats.openai import embeddings as openai_embeddings
from kong_ai_proxy.providers.base import Call, Endpoint, Provider
from kong_ai_proxy.providers.openai import OPENAI
from kong_ai_proxy.providers.openai_messages import without_thoughts

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")

_OPERATIONS: Mapping[str, tuple[str, ProviderCodec]] = {
    openai.CHAT: ("chat/completions", openai_chat.CHAT),
    openai.COMPLETIONS: ("completions", openai_completions.COMPLETIONS),
    openai.EMBEDDINGS: ("embeddings", openai_embeddings.EMBEDDINGS),
}

# The first version whose requests have `stream_options`; older ones answer it with a 400:
# https://github.com/Azure/azure-rest-api-specs/tree/main/specification/cognitiveservices/data-plane/AzureOpenAI/inference
_STREAM_OPTIONS = "2024-09-01"
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")


def _base_url(options: ModelOptions) -> str:
    """Raises FormatError for an instance that would name another host: it may be a client's."""
    instance = options.azure_instance
    if not instance:
        return ""
    if not _LABEL.fullmatch(instance):
        raise FormatError("azure_instance: expected letters, digits and '-'")
    return f"https://{instance}.openai.azure.com"


def _endpoint(call: Call) -> Endpoint:
    """`upstream_path` is a path below the deployment, or a whole one from /openai/ on."""
    path, codec = _OPERATIONS[call.route_type]
    version = f"api-version={quote(call.options.azure_api_version, safe='')}"
    if call.options.upstream_path:
        path, _, query = call.options.upstream_path.lstrip("/").partition("?")
        version = f"{query}&{version}" if query else version
    if not path.startswith("openai/"):
        path = f"openai/deployments/{_deployment(call.options)}/{path}"
    change = _change if call.route_type == openai.CHAT else None
    return Endpoint(f"/{path}", codec, version, change=change)


def _change(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """As OpenAI, Azure knows no members of messages but its own."""
    return {} if call.options.upstream_url else without_thoughts(body, call)


def _deployment(options: ModelOptions) -> str:
    deployment = options.azure_deployment_id or ""
    # Not encoded either: who decodes a slash before routing would climb out of the deployments.
    if deployment in ("", ".") or ".." in deployment:
        raise FormatError("azure_deployment_id: expected the name of a deployment")
    return quote(deployment, safe="")


def _variant(options: ModelOptions) -> Provider:
    version = options.azure_api_version
    is_old = _DATED.match(version) is not None and version < _STREAM_OPTIONS
    return _OLD if is_old else _NEW


_NEW = Provider(
    name="azure",
    base_url=_base_url,
    has_upstream_path=True,
    endpoint=_endpoint,
    endpoints=frozenset(_OPERATIONS),
    # The models are OpenAI's, and so is what they take.
    refused=OPENAI.refused,
    completion_tokens_models=OPENAI.completion_tokens_models,
)
_OLD = replace(_NEW, usage_on_request=False)

AZURE = replace(_NEW, variant=_variant)
