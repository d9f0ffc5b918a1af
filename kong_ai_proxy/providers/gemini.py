"""Google's models: the Gemini API (https://ai.google.dev/api) and Vertex AI
(https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest), which has those of others
too: https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/use-partner-models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import anthropic, gemini, openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.providers.anthropic import REFUSED_BY_MODEL, vertex_change
from kong_ai_proxy.providers.base import Call, Endpoint, Native, Provider
from kong_ai_proxy.providers.mistral import MISTRAL

_MAX_MODEL = 512  # characters


def _segment(text: str, what: str) -> str:
    """`text` as one segment of a path. Raises FormatError where it is none."""
    odd = not text.isprintable() or text == "." or _climbs(text)
    if not text or len(text) > _MAX_MODEL or odd:
        raise FormatError(f"{what}: expected a name")
    try:
        return quote(text, safe="@")
    except UnicodeEncodeError:
        raise FormatError(f"{what}: expected a name in Unicode") from None


def _generation(call: Call, parent: str) -> Endpoint:
    """generateContent of what `parent` names, or its streaming sister. A client of Gemini's own
    format says itself in which framing it wants a stream."""
    if not call.stream:
        return Endpoint(f"{parent}:generateContent", gemini.GENERATE)
    query = "" if call.client == "gemini" else "alt=sse"
    return Endpoint(f"{parent}:streamGenerateContent", gemini.GENERATE, query)


# --- the Gemini API ---

_PUBLIC_COLLECTION = re.compile(
    r"/(?P<upload>upload/)?(?:v1(?:beta|alpha)?/)?"
    r"(?P<rest>(?:files|batches)(?:/[^/]+)?|models/[^/]+/operations/[^/]+)/?\Z"
)
_PUBLIC_OPERATIONS: Mapping[str, ProviderCodec | None] = {
    "asyncBatchEmbedContent": None,
    "batchEmbedContents": gemini.EMBED,
    "batchGenerateContent": None,
    "countTokens": None,
    "embedContent": gemini.EMBED_ONE,
    "predictLongRunning": None,
}


def _public_model(model: str) -> str:
    collection, slash, name = model.partition("/")
    if slash and collection in ("models", "tunedModels"):
        return f"/v1beta/{collection}/{_segment(name, 'model')}"
    return f"/v1beta/models/{_segment(model, 'model')}"


def _public_endpoint(call: Call) -> Endpoint:
    parent = _public_model(call.model)
    if call.route_type == openai.EMBEDDINGS:
        return Endpoint(f"{parent}:batchEmbedContents", gemini.EMBED)
    return _generation(call, parent)


def _public_native(native: Native, call: Call) -> Endpoint | None:
    model = call.model or native.model
    if native.operation in _PUBLIC_OPERATIONS and model:
        codec = _PUBLIC_OPERATIONS[native.operation]
        return Endpoint(f"{_public_model(model)}:{native.operation}", codec)
    found = _PUBLIC_COLLECTION.search(native.path)
    if found is None or _climbs(native.path):
        return None
    return Endpoint(f"/{found['upload'] or ''}v1beta/{found['rest']}")


def _climbs(path: str) -> bool:
    return re.search(r"(?:\.|%2e){2}", path, re.IGNORECASE) is not None


# --- Vertex AI ---

_RESOURCE = re.compile(r"publishers/(?P<publisher>[^/]+)/models/(?P<name>[^/]+)\Z")
_DEPLOYED = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?endpoints/(?P<id>[^/]+)\Z")
_PUBLISHERS = (
    (re.compile("claude-"), "anthropic"),
    (re.compile("(?:code|min|pix)stral|mixtral|mistral"), "mistralai"),
    (re.compile("jamba-"), "ai21"),
)
_MISTRAL_MODELS = re.compile(r"(?:^|/)(?:(?:code|min|pix)stral|mixtral|mistral)")

_JOBS = re.compile(r"/(?P<rest>batchPredictionJobs(?:/[^/]+)?)/?\Z")
_RANKING = re.compile(
    r"(?:/locations/(?P<location>[\w-]+))?/rankingConfigs/(?P<name>[\w.-]+):rank/?\Z"
)
_VERTEX_OPERATIONS: Mapping[str, ProviderCodec | None] = {
    "batchEmbedContents": gemini.VERTEX_EMBED,
    "countTokens": None,
    "embedContent": gemini.EMBED_ONE,
    "fetchPredictOperation": None,
    "predict": None,
    "predictLongRunning": None,
}


def _located(options: ModelOptions, location: str = "") -> str:
    """The operator's project and location: what a client's path says of them does not count, for
    the credentials are the operator's."""
    project = _segment(options.gemini.project_id or "", "project_id")
    place = _segment(location or options.gemini.location_id or "", "location_id")
    return f"/v1/projects/{project}/locations/{place}"


def _publisher(model: str) -> tuple[str, str]:
    """Whose model it is, and its name without that."""
    found = _RESOURCE.search(model)
    if found:
        return found["publisher"], found["name"]
    name = model.removeprefix("models/")
    for pattern, publisher in _PUBLISHERS:
        if pattern.match(name.removeprefix(f"{publisher}/")):
            return publisher, name.removeprefix(f"{publisher}/")
    return "google", name.removeprefix("google/")


def _vertex_model(call: Call, model: str = "") -> str:
    publisher, name = _publisher(model or call.model)
    owner = _segment(publisher, "model")
    return f"{_located(call.options)}/publishers/{owner}/models/{_segment(name, 'model')}"


def _vertex_endpoint(call: Call) -> Endpoint:
    deployed = call.options.gemini.endpoint_id or _deployed(call.model)
    if deployed:
        return _at_endpoint(call, deployed)
    publisher, name = _publisher(call.model)
    if call.route_type == openai.EMBEDDINGS:
        return _embeddings(_vertex_model(call), name)
    if name.endswith("-maas"):
        # https://cloud.google.com/vertex-ai/generative-ai/docs/maas/call-open-model-apis
        path = f"{_located(call.options)}/endpoints/openapi/chat/completions"
        return Endpoint(path, openai_chat.CHAT)
    if publisher == "google":
        return _generation(call, _vertex_model(call))
    return _raw(call, publisher)


def _deployed(model: str) -> str:
    found = _DEPLOYED.match(model)
    return found["id"] if found else ""


def _at_endpoint(call: Call, endpoint: str) -> Endpoint:
    """A model that the operator deployed: a tuned Gemini speaks Gemini's format, one of the Model
    Garden OpenAI's (https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/
    projects.locations.endpoints.chat/completions)."""
    path = f"{_located(call.options)}/endpoints/{_segment(endpoint, 'endpoint_id')}"
    if call.route_type == openai.EMBEDDINGS:
        return Endpoint(f"{path}:predict", gemini.VERTEX_EMBEDDINGS)
    if _publisher(call.model)[1].startswith("gemini") or _deployed(call.model):
        return _generation(call, path)
    return Endpoint(f"{path}/chat/completions", openai_chat.CHAT)


def _embeddings(parent: str, name: str) -> Endpoint:
    """gemini-embedding-001, of which predict takes one text a request, and what came before it
    know predict; later ones have batchEmbedContents in its place."""
    if name.startswith("gemini") and not name.startswith("gemini-embedding-001"):
        return Endpoint(f"{parent}:batchEmbedContents", gemini.VERTEX_EMBED)
    return Endpoint(f"{parent}:predict", gemini.VERTEX_EMBEDDINGS)


def _raw(call: Call, publisher: str) -> Endpoint:
    """A model of somebody else's in its own format."""
    operation = "streamRawPredict" if call.stream else "rawPredict"
    path = f"{_vertex_model(call)}:{operation}"
    if publisher == "anthropic":
        return Endpoint(path, anthropic.MESSAGES, change=vertex_change)
    return Endpoint(path, openai_chat.CHAT, change=_mistral if publisher == "mistralai" else _plain)


def _plain(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The model's name without the version that the path says; a stream always tells its usage."""
    changes: dict[str, object] = {"model": _publisher(call.model)[1].partition("@")[0]}
    if "stream_options" in body:
        changes["stream_options"] = REMOVED
    return changes


def _mistral(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    assert MISTRAL.endpoint is not None
    own = MISTRAL.endpoint(call._replace(route_type=openai.CHAT)).change
    return {**(own(body, call) if own else {}), **_plain(body, call)}


def _vertex_native(native: Native, call: Call) -> Endpoint | None:
    if native.format == "anthropic":
        return _claude_native(native, call)
    model = call.model or native.model
    if native.operation in _VERTEX_OPERATIONS and model:
        codec = _VERTEX_OPERATIONS[native.operation]
        return Endpoint(f"{_vertex_model(call, model)}:{native.operation}", codec)
    if _climbs(native.path):
        return None
    jobs = _JOBS.search(native.path)
    if jobs:
        return Endpoint(f"{_located(call.options)}/{jobs['rest']}")
    ranking = _RANKING.search(native.path)
    return _rank(call.options, ranking["location"], ranking["name"]) if ranking else None


def _claude_native(native: Native, call: Call) -> Endpoint | None:
    """https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/count-tokens:
    the model that counts is told in the body."""
    if native.operation != "messages/count_tokens" or _publisher(call.model)[0] != "anthropic":
        return None
    return Endpoint(f"{_vertex_model(call, 'publishers/anthropic/models/count-tokens')}:rawPredict")


def _rank(options: ModelOptions, location: str | None, name: str) -> Endpoint:
    """https://cloud.google.com/generative-ai-app-builder/docs/ranking: another service, whose
    locations are global, us and eu, so that here the client's counts."""
    place = location or "global"
    host = f"{place}-discoveryengine" if place in ("us", "eu") else "discoveryengine"
    path = f"{_located(options, place)}/rankingConfigs/{name}:rank"
    return Endpoint(path, base_url=f"https://{host}.googleapis.com")


def _variant(options: ModelOptions) -> Provider:
    where = options.gemini
    return VERTEX if where.api_endpoint and where.project_id and where.location_id else _PUBLIC


_PUBLIC = Provider(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com",
    endpoint=_public_endpoint,
    endpoints=frozenset({openai.CHAT, openai.EMBEDDINGS}),
    native=_public_native,
    natives=frozenset({"gemini"}),
    thought_tags=True,
)

VERTEX = Provider(
    name="gemini",
    base_url=lambda options: f"https://{options.gemini.api_endpoint}",
    endpoint=_vertex_endpoint,
    endpoints=frozenset({openai.CHAT, openai.COMPLETIONS, openai.EMBEDDINGS}),
    native=_vertex_native,
    natives=frozenset({"anthropic", "gemini"}),
    refused_by_model=(
        *REFUSED_BY_MODEL,
        *((_MISTRAL_MODELS, names) for _, names in MISTRAL.refused_by_model),
    ),
    thought_tags=True,
)
"""Where the options say endpoint, project and location. A global endpoint is
aiplatform.googleapis.com with the location `global`."""

GEMINI = replace(_PUBLIC, variant=_variant)
