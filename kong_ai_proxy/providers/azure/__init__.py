"""Azure OpenAI: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference.

Its API has three parts. What one deployment answers lies below that deployment; what the resource
keeps (files, batches, assistants) has no deployment in its path; both take a dated `api-version`.
The API of "v1" has no dated versions
(https://learn.microsoft.com/en-us/azure/foundry/openai/api-version-lifecycle), and responses,
videos and realtime are new there. Where no path names the deployment, the request's model does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote, unquote, urlsplit

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.formats.openai import completions as openai_completions
from kong_ai_proxy.formats.openai import embeddings as openai_embeddings
from kong_ai_proxy.providers.azure.videos import SORA
from kong_ai_proxy.providers.base import Call, Change, Endpoint, Provider
from kong_ai_proxy.providers.openai import OPENAI
from kong_ai_proxy.providers.openai_messages import without_thoughts

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")

_DEPLOYED: Mapping[str, str] = {
    openai.CHAT: "chat/completions",
    openai.COMPLETIONS: "completions",
    openai.EMBEDDINGS: "embeddings",
    openai.SPEECH: "audio/speech",
    openai.TRANSCRIPTIONS: "audio/transcriptions",
    openai.TRANSLATIONS: "audio/translations",
    openai.IMAGE_GENERATIONS: "images/generations",
    openai.IMAGE_EDITS: "images/edits",
}
"""Below a deployment."""

_KEPT: Mapping[str, str] = {
    openai.FILES: "files",
    openai.BATCHES: "batches",
    openai.ASSISTANTS: "assistants",
}
"""Below /openai."""

_V1: Mapping[str, str] = {openai.RESPONSES: "responses", openai.VIDEOS: "videos"}
"""Below /openai/v1."""

_CODECS: Mapping[str, ProviderCodec] = {
    openai.CHAT: openai_chat.CHAT,
    openai.COMPLETIONS: openai_completions.COMPLETIONS,
    openai.EMBEDDINGS: openai_embeddings.EMBEDDINGS,
}

_NAMES_MODEL = frozenset({openai.ASSISTANTS, openai.RESPONSES, openai.VIDEOS})
_MODELLESS = frozenset({openai.FILES, openai.BATCHES})

_V1_VERSION = "preview"
"""Of the versions of v1 the one that has everything; Kong's reference asks for it, and Microsoft's
for videos (https://learn.microsoft.com/en-us/azure/foundry/openai/concepts/video-generation)."""

_REALTIME_BETA = "realtime=v1"
_SORA_1 = frozenset({"sora", "sora-1", "sora-2025-05-02"})

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
    """`upstream_path` is a path below the route type's own place (the deployment, /openai or
    /openai/v1), or a whole one from /openai/ on."""
    deployment = _deployment(call.options)
    if call.route_type == openai.REALTIME:
        return _realtime(call)
    if call.route_type == openai.VIDEOS and _is_sora_1(call):
        return Endpoint("", flow=SORA)
    path, query = _whole_path(call.options, *_own_path(call, deployment))
    return Endpoint(
        path,
        _CODECS.get(call.route_type),
        _with_version(query, call.options, is_v1=_is_v1(path, call.options)),
        change=_change_of(call.route_type, path),
        usage_on_request=not any(map(_is_old, _versions_asked(call))),
    )


def _own_path(call: Call, deployment: str) -> tuple[str, str]:
    """Where a route type lives and its path there."""
    if call.route_type in _DEPLOYED:
        return f"openai/deployments/{deployment}", _DEPLOYED[call.route_type]
    if call.route_type in _KEPT:
        return "openai", _KEPT[call.route_type]
    if call.route_type == openai.RESPONSES and _asks_dated(call):
        return "openai", "responses"
    return "openai/v1", _V1[call.route_type]


def _whole_path(options: ModelOptions, below: str, path: str) -> tuple[str, str]:
    """The path and query; the operator's before the provider's own. Raises FormatError."""
    own, _, query = (options.upstream_path or "").lstrip("/").partition("?")
    segments = re.split(r"[/\\]", unquote(own, errors="surrogateescape"))
    if any(segment.partition(";")[0] in (".", "..") for segment in segments):
        raise FormatError("upstream_path: expected a path without '.' and '..' segments")
    path = own or path
    return (f"/{path}" if path.startswith("openai/") else f"/{below}/{path}"), query


def _realtime(call: Call) -> Endpoint:
    """The beta and what came of it differ in their events, so the client's own words say which it
    speaks: https://learn.microsoft.com/en-us/azure/foundry/openai/how-to/realtime-audio-websockets.

    A session that only transcribes and a call that is joined name their models elsewhere.
    """
    is_beta = _REALTIME_BETA in call.betas or _asks_dated(call)
    path, query = _whole_path(call.options, "openai" if is_beta else "openai/v1", "realtime")
    has_none = openai.session_without_model(call.query)
    name = None if has_none else call.options.azure_deployment_id
    if _is_v1(path, call.options):
        # "The `api-version` query parameter is no longer supported" there (.../how-to/
        # realtime-audio-preview-api-migration-guide).
        own = {"model": name, "deployment": None, "api-version": None}
    else:
        query = _with_version(query, call.options, is_v1=False)
        own = {"deployment": name, "model": None}
    return Endpoint(path, query=query, own_query=own)


def _is_sora_1(call: Call) -> bool:
    """The first Sora has an API of Azure's own; an operator names it or its deployment so. What a
    client names decides nothing: to look at a video it names no model."""
    name = call.named or call.options.azure_deployment_id or ""
    return name.lower() in _SORA_1


def _is_v1(path: str, options: ModelOptions) -> bool:
    """Whether a path, or that of `upstream_url` where it has one, is of the API without dated
    versions."""
    if options.upstream_url:
        try:
            path = urlsplit(options.upstream_url).path or path
        except ValueError:  # it is refused where it is used
            return False
    return "/openai/v1/" in path


def _with_version(query: str, options: ModelOptions, *, is_v1: bool) -> str:
    """The query with the api-version for a client that brings none."""
    version = options.azure_api_version
    if is_v1 and _is_dated(version):
        version = _V1_VERSION
    parameter = f"api-version={quote(version, safe='')}"
    return f"{query}&{parameter}" if query else parameter


def _asks_dated(call: Call) -> bool:
    return any(map(_is_dated, _versions_asked(call)))


def _versions_asked(call: Call) -> list[str]:
    """What the client calls the version: the case of a parameter's name is nothing to Azure."""
    return [value for name, value in call.query.items() if name.casefold() == "api-version"]


def _is_dated(version: str) -> bool:
    return _DATED.match(version) is not None


def _change_of(route_type: str, path: str) -> Change | None:
    """The last touches on the body: a path without the deployment leaves it to the model."""
    if not path.startswith("/openai/deployments/") and route_type not in _MODELLESS:
        return _change_named
    return _change_chat if route_type == openai.CHAT else None


def _change_chat(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """As OpenAI, Azure knows no members of messages but its own."""
    return {} if call.options.upstream_url else without_thoughts(body, call)


def _change_named(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """With the deployment as the model, where there has to be one."""
    changes = _change_chat(body, call) if call.route_type == openai.CHAT else {}
    if call.creates or body.get("model"):
        return {**changes, "model": call.options.azure_deployment_id}
    return changes


def _deployment(options: ModelOptions) -> str:
    deployment = options.azure_deployment_id or ""
    # Not encoded either: who decodes a slash before routing would climb out of the deployments.
    if deployment in ("", ".") or ".." in deployment:
        raise FormatError("azure_deployment_id: expected the name of a deployment")
    return quote(deployment, safe="")


def _variant(options: ModelOptions) -> Provider:
    return _OLD if _is_old(options.azure_api_version) else _NEW


def _is_old(version: str) -> bool:
    """Whether its streams cannot be asked for their usage."""
    return _is_dated(version) and version < _STREAM_OPTIONS


_NEW = Provider(
    name="azure",
    base_url=_base_url,
    has_upstream_path=True,
    endpoint=_endpoint,
    endpoints=frozenset({*_DEPLOYED, *_KEPT, *_V1, openai.REALTIME}),
    names_model=_NAMES_MODEL,
    # The models are OpenAI's, and so is what they take. Its reference has no header OpenAI-Beta for
    # assistants: the api-version says which they are.
    refused=OPENAI.refused,
    completion_tokens_models=OPENAI.completion_tokens_models,
)
_OLD = replace(_NEW, usage_on_request=False)

AZURE = replace(_NEW, variant=_variant)
