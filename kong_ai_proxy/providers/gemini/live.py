"""Gemini Live, of the Gemini API (https://ai.google.dev/api/live) and of Vertex AI
(https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/multimodal-live)."""

from __future__ import annotations

import re
from urllib.parse import unquote

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import live
from kong_ai_proxy.providers.base import Endpoint, Native
from kong_ai_proxy.providers.gemini import paths

_PUBLIC = re.compile(
    r"/ws/google\.ai\.generativelanguage\.(?P<version>v\d\w*)\.GenerativeService\."
    r"(?P<method>\w+)/?\Z",
    re.ASCII,
)
_VERTEX = re.compile(
    r"/ws/google\.cloud\.aiplatform\.(?P<version>v\d\w*)\.LlmBidiService/(?P<method>\w+)/?\Z",
    re.ASCII,
)
# The second brings a token of the client's own that binds the session
# (https://ai.google.dev/gemini-api/docs/ephemeral-tokens), the third makes music
# (https://ai.google.dev/api/live_music).
_METHODS = (live.OPERATION, f"{live.OPERATION}Constrained", "BidiGenerateMusic")
# A parameter by which a client of several targets chooses one; it is nothing to Google.
_OWN_QUERY = {"model": None}


def public(native: Native) -> Endpoint:
    """Of the Gemini API. The client's path says the version and the method. Raises FormatError for
    a method that Google's reference does not have."""
    found = _PUBLIC.search(unquote(native.path))
    version, method = found.groups() if found else ("v1beta", live.OPERATION)
    if method not in _METHODS:
        raise FormatError(f"{method}: expected a session of {' or '.join(_METHODS)}")
    path = f"/ws/google.ai.generativelanguage.{version}.GenerativeService.{method}"
    return Endpoint(path, own_query=_OWN_QUERY, session_model=_public_model)


def vertex(native: Native, options: ModelOptions) -> Endpoint:
    """Of Vertex AI. Where its models are is the operator's to say, whose credential it is. Raises
    FormatError for another method than BidiGenerateContent."""
    path = unquote(native.path)
    found = _VERTEX.search(path)
    other = found or _PUBLIC.search(path)
    if other and other["method"] != live.OPERATION:
        raise FormatError(f"{other['method']}: expected a session of {live.OPERATION}")
    version = found["version"] if found else "v1beta1"
    return Endpoint(
        f"/ws/google.cloud.aiplatform.{version}.LlmBidiService/{live.OPERATION}",
        own_query=_OWN_QUERY,
        session_model=lambda model: _vertex_model(options, model),
    )


def _public_model(model: str) -> str:
    if model.startswith("tunedModels/"):
        return f"tunedModels/{_name(model.removeprefix('tunedModels/'))}"
    return f"models/{_name(live.plain(model))}"


def _vertex_model(options: ModelOptions, model: str) -> str:
    where = paths.located(options).removeprefix("/v1/")
    deployed = options.gemini.endpoint_id or paths.deployed(model)
    if deployed:
        return f"{where}/endpoints/{_name(deployed)}"
    publisher, name = paths.publisher(model)
    return f"{where}/publishers/{_name(publisher)}/models/{_name(name)}"


def _name(text: str) -> str:
    paths.segment(text, "setup.model")
    if re.search(r"[/\\?#%]", text):
        raise FormatError("setup.model: expected a model's name")
    return text
