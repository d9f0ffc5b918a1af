"""Google's models: the Gemini API (https://ai.google.dev/api) and Vertex AI
(https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest), which has those of others
too: https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/use-partner-models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import anthropic, gemini, openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.providers.anthropic import REFUSED_BY_MODEL, vertex_change
from kong_ai_proxy.providers.base import Call, Change, Endpoint, Native, Provider
from kong_ai_proxy.providers.gemini import batches as gemini_batches
from kong_ai_proxy.providers.gemini import files as gemini_files
from kong_ai_proxy.providers.gemini import images as gemini_images
from kong_ai_proxy.providers.gemini import live as gemini_live
from kong_ai_proxy.providers.gemini import paths, vertex_batches, vertex_files
from kong_ai_proxy.providers.gemini import videos as gemini_videos
from kong_ai_proxy.providers.mistral import MISTRAL
from kong_ai_proxy.providers.named_models import held


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
# https://ai.google.dev/api/interactions-api
_INTERACTIONS = re.compile(r"/(?P<rest>interactions(?:/[^/]+(?:/cancel)?)?)/?\Z")
_PUBLIC_OPERATIONS: Mapping[str, ProviderCodec | None] = {
    "asyncBatchEmbedContent": None,
    "batchEmbedContents": gemini.EMBED,
    "batchGenerateContent": None,
    "countTokens": None,
    "embedContent": gemini.EMBED_ONE,
    "predict": None,
    "predictLongRunning": None,
}


_BATCH = held("batch.model", "batch.inputConfig.requests.requests.*.request.model")
_NAMED_MODELS: Mapping[str, Change] = {
    "asyncBatchEmbedContent": _BATCH,
    "batchEmbedContents": held("requests.*.model"),
    "batchGenerateContent": _BATCH,
    "countTokens": held("model", "generateContentRequest.model"),
    "embedContent": held("model"),
}
"""What names a model in its body too, beside the path."""


def _public_endpoint(call: Call) -> Endpoint:
    parent = paths.public_model(call.model)
    if call.route_type == openai.EMBEDDINGS:
        return Endpoint(f"{parent}:batchEmbedContents", gemini.EMBED)
    return _generation(call, parent)


def _public_native(native: Native, call: Call) -> Endpoint | None:
    if call.route_type == openai.REALTIME:
        return gemini_live.public(native)
    model = call.model or native.model
    if native.operation in _PUBLIC_OPERATIONS and model:
        codec, change = _PUBLIC_OPERATIONS[native.operation], _NAMED_MODELS.get(native.operation)
        return Endpoint(f"{paths.public_model(model)}:{native.operation}", codec, change=change)
    if paths.climbs(native.path):
        return None
    found = _INTERACTIONS.search(native.path)
    if found:
        return Endpoint(f"/v1beta/{found['rest']}", change=_interaction)
    found = _PUBLIC_COLLECTION.search(native.path)
    if found is None:
        return None
    # A file's own address only redirects to where it is.
    where = "download/" if found["rest"].endswith(":download") else found["upload"] or ""
    return Endpoint(f"/{where}v1beta/{found['rest']}")


# --- Vertex AI ---

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


def _vertex_endpoint(call: Call) -> Endpoint:
    deployed = call.options.gemini.endpoint_id or paths.deployed(call.model)
    if deployed:
        return _at_endpoint(call, deployed)
    publisher, name = paths.publisher(call.model)
    if call.route_type == openai.EMBEDDINGS:
        return _embeddings(paths.vertex_model(call.options, call.model), name)
    if name.endswith("-maas"):
        # https://cloud.google.com/vertex-ai/generative-ai/docs/maas/call-open-model-apis
        path = f"{paths.located(call.options)}/endpoints/openapi/chat/completions"
        return Endpoint(path, openai_chat.CHAT)
    if publisher == "google":
        return _generation(call, paths.vertex_model(call.options, call.model))
    return _raw(call, publisher)


def _at_endpoint(call: Call, endpoint: str) -> Endpoint:
    """A model that the operator deployed: a tuned Gemini speaks Gemini's format, one of the Model
    Garden OpenAI's (https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/
    projects.locations.endpoints.chat/completions)."""
    path = f"{paths.located(call.options)}/endpoints/{paths.segment(endpoint, 'endpoint_id')}"
    if call.route_type == openai.EMBEDDINGS:
        return Endpoint(f"{path}:predict", gemini.VERTEX_EMBEDDINGS)
    if paths.publisher(call.model)[1].startswith("gemini") or paths.deployed(call.model):
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
    path = f"{paths.vertex_model(call.options, call.model)}:{operation}"
    if publisher == "anthropic":
        return Endpoint(path, anthropic.MESSAGES, change=vertex_change)
    return Endpoint(path, openai_chat.CHAT, change=_mistral if publisher == "mistralai" else _plain)


def _plain(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The model's name without the version that the path says; a stream always tells its usage."""
    changes: dict[str, object] = {"model": paths.publisher(call.model)[1].partition("@")[0]}
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
    if call.route_type == openai.REALTIME:
        return gemini_live.vertex(native, call.options)
    model = call.model or native.model
    if native.operation in _VERTEX_OPERATIONS and model:
        codec, change = _VERTEX_OPERATIONS[native.operation], _NAMED_MODELS.get(native.operation)
        path = f"{paths.vertex_model(call.options, model)}:{native.operation}"
        return Endpoint(path, codec, change=change)
    if paths.climbs(native.path):
        return None
    jobs = _JOBS.search(native.path)
    if jobs:
        return Endpoint(f"{paths.located(call.options)}/{jobs['rest']}", change=_job)
    interactions = _INTERACTIONS.search(native.path)
    if interactions:
        place = paths.located(call.options).removeprefix("/v1")
        return Endpoint(f"/v1beta1{place}/{interactions['rest']}", change=_interaction)
    ranking = _RANKING.search(native.path)
    return _rank(call.options, ranking["location"], ranking["name"]) if ranking else None


def _job(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The model of a batch job, which is a whole resource's name there:
    https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs"""
    _JOBS_MODEL(body, call)
    named = body.get("model") or call.named  # else a container of the client's would run
    if not isinstance(named, str) or not named:
        return {}
    publisher, name = paths.publisher(call.model or named)
    if "/" in name:  # a model of a project's own
        return {}
    return {"model": f"publishers/{publisher}/models/{name}"}


_JOBS_MODEL = held("model")


def _interaction(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The model of an interaction; an agent chooses its own, so that it is one of another name."""
    _JOBS_MODEL(body, call)
    if not call.named:
        return {}
    if body.get("agent") is not None:
        raise FormatError(f"agent: cannot use own model - must be: {call.named}")
    return {} if body.get("model") else {"model": call.named}


def _ranked(body: Mapping[str, object], call: Call) -> Mapping[str, object]:
    """The configured model, where the request names none."""
    return {"model": call.model} if call.model and body.get("model") != call.model else {}


def _claude_native(native: Native, call: Call) -> Endpoint | None:
    """https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/count-tokens:
    the model that counts is told in the body."""
    publisher, _ = paths.publisher(call.model)
    if native.operation != "messages/count_tokens" or publisher != "anthropic":
        return None
    counter = paths.vertex_model(call.options, "publishers/anthropic/models/count-tokens")
    return Endpoint(f"{counter}:rawPredict")


def _rank(options: ModelOptions, location: str | None, name: str) -> Endpoint:
    """https://cloud.google.com/generative-ai-app-builder/docs/ranking: another service, whose
    locations are global, us and eu, so that here the client's counts."""
    place = location or "global"
    host = f"{place}-discoveryengine" if place in ("us", "eu") else "discoveryengine"
    path = f"{paths.located(options, place)}/rankingConfigs/{name}:rank"
    return Endpoint(path, base_url=f"https://{host}.googleapis.com", change=_ranked)


def _variant(options: ModelOptions) -> Provider:
    where = options.gemini
    return VERTEX if where.api_endpoint and where.project_id and where.location_id else _PUBLIC


_PUBLIC = Provider(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com",
    endpoint=_public_endpoint,
    endpoints=frozenset({openai.CHAT, openai.EMBEDDINGS}),
    flows={
        openai.IMAGE_GENERATIONS: gemini_images.GENERATE,
        openai.IMAGE_EDITS: gemini_images.EDIT,
        openai.VIDEOS: gemini_videos.PUBLIC,
        openai.FILES: gemini_files.FILES,
        openai.BATCHES: gemini_batches.BATCHES,
    },
    native=_public_native,
    natives=frozenset({"gemini"}),
    thought_tags=True,
)

VERTEX = Provider(
    name="gemini",
    base_url=lambda options: f"https://{options.gemini.api_endpoint}",
    endpoint=_vertex_endpoint,
    endpoints=frozenset({openai.CHAT, openai.COMPLETIONS, openai.EMBEDDINGS}),
    flows={
        openai.IMAGE_GENERATIONS: gemini_images.VERTEX_GENERATE,
        openai.IMAGE_EDITS: gemini_images.VERTEX_EDIT,
        openai.VIDEOS: gemini_videos.VERTEX,
        openai.FILES: vertex_files.FILES,
        openai.BATCHES: vertex_batches.BATCHES,
    },
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
