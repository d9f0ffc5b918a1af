"""Where Google's models live: https://ai.google.dev/api and, for Vertex AI,
https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats.errors import FormatError

_MAX_MODEL = 512  # characters

_RESOURCE = re.compile(r"publishers/(?P<publisher>[^/]+)/models/(?P<name>[^/]+)\Z")
_DEPLOYED = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?endpoints/(?P<id>[^/]+)\Z")
_PUBLISHERS = (
    (re.compile("claude-"), "anthropic"),
    (re.compile("(?:code|min|pix)stral|mixtral|mistral"), "mistralai"),
    (re.compile("jamba-"), "ai21"),
)


def segment(text: str, what: str) -> str:
    """`text` as one segment of a path. Raises FormatError where it is none."""
    odd = not text.isprintable() or text == "." or climbs(text)
    if not text or len(text) > _MAX_MODEL or odd:
        raise FormatError(f"{what}: expected a name")
    try:
        return quote(text, safe="@")
    except UnicodeEncodeError:
        raise FormatError(f"{what}: expected a name in Unicode") from None


def climbs(path: str) -> bool:
    """Whether it has "..", encoded or not."""
    return re.search(r"(?:\.|%2e){2}", path, re.IGNORECASE) is not None


def public_model(model: str) -> str:
    """The path of a model of the Gemini API. Raises FormatError."""
    collection, slash, name = model.partition("/")
    if slash and collection in ("models", "tunedModels"):
        return f"/v1beta/{collection}/{segment(name, 'model')}"
    return f"/v1beta/models/{segment(model, 'model')}"


def located(options: ModelOptions, location: str = "") -> str:
    """The operator's project and location: what a client's path says of them does not count, for
    the credentials are the operator's. Raises FormatError."""
    project = segment(options.gemini.project_id or "", "project_id")
    place = segment(location or options.gemini.location_id or "", "location_id")
    return f"/v1/projects/{project}/locations/{place}"


def publisher(model: str) -> tuple[str, str]:
    """Whose model of Vertex AI's it is, and its name without that."""
    found = _RESOURCE.search(model)
    if found:
        return found["publisher"], found["name"]
    name = model.removeprefix("models/")
    for pattern, owner in _PUBLISHERS:
        if pattern.match(name.removeprefix(f"{owner}/")):
            return owner, name.removeprefix(f"{owner}/")
    return "google", name.removeprefix("google/")


def vertex_model(options: ModelOptions, model: str) -> str:
    """The path of a publisher's model of Vertex AI. Raises FormatError."""
    owner, name = publisher(model)
    whose = f"{located(options)}/publishers/{segment(owner, 'model')}"
    return f"{whose}/models/{segment(name, 'model')}"


def deployed(model: str) -> str:
    """The id of the endpoint that the operator deployed a model to, where a model's name is that
    of an endpoint; else ""."""
    found = _DEPLOYED.match(model)
    return found["id"] if found else ""
