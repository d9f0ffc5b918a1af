"""Stand-ins for Google's videos: Veo and Omni, in the Gemini API and on Vertex AI."""

from __future__ import annotations

import base64
from typing import ClassVar, Final
from urllib.parse import unquote

from google.genai import Client, interactions, models, types
from pydantic import ValidationError
from typing_extensions import override

from tests.providers.gemini_api import Gemini
from tests.providers.strict import parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    json_reply,
    require_bearer,
    route,
)
from tests.providers.video_jobs_api import FILM, MP4, Jobs, film

# The SDK's name of each parameter: models._GenerateVideosConfig_to_vertex.
_CONFIG: Final = {
    "aspectRatio": "aspect_ratio",
    "compressionQuality": "compression_quality",
    "durationSeconds": "duration_seconds",
    "enhancePrompt": "enhance_prompt",
    "fps": "fps",
    "generateAudio": "generate_audio",
    "negativePrompt": "negative_prompt",
    "personGeneration": "person_generation",
    "pubsubTopic": "pubsub_topic",
    "resizeMode": "resize_mode",
    "resolution": "resolution",
    "sampleCount": "number_of_videos",
    "seed": "seed",
    "storageUri": "output_gcs_uri",
}
_VERTEX_ONLY: Final = {"pubsubTopic", "storageUri"}
_SDK: Final = Client(api_key="unused")
_PUBLIC_TYPE: Final = (
    "type.googleapis.com/google.ai.generativelanguage.v1beta.PredictLongRunningResponse"
)


def _check_veo(body: Json, *, vertex: bool) -> None:
    """A request is what the SDK would have made of the same parameters. Raises RefusedError."""
    parameters = body.get("parameters", {})
    known = _CONFIG.keys() if vertex else _CONFIG.keys() - _VERTEX_ONLY
    unknown = parameters.keys() - known
    if unknown or body.keys() - {"instances", "parameters"} or len(body.get("instances", [])) != 1:
        raise RefusedError(f"Invalid JSON payload received. Unknown name {sorted(unknown)}")
    instance = body["instances"][0]
    given = {_CONFIG[name]: value for name, value in parameters.items()}
    if "lastFrame" in instance:
        given["last_frame"] = _image(instance["lastFrame"])
    try:
        config = types.GenerateVideosConfig.model_validate(given, strict=True)
        shown = instance.get("image")
        image = None if shown is None else types.Image.model_validate(_image(shown))
    except ValidationError as error:
        raise RefusedError(f"Invalid JSON payload received. {error}") from None
    made = types._GenerateVideosParameters(
        prompt=instance.get("prompt"), image=image, config=config
    )
    sent = models._GenerateVideosParameters_to_vertex(_SDK._api_client, made, None, made)
    sent.pop("config", None)
    if sent != body:
        raise RefusedError(f"Invalid JSON payload received: {body}, not {sent}")


def _image(wire: Json) -> Json:
    names = {"bytesBase64Encoded": "image_bytes", "gcsUri": "gcs_uri", "mimeType": "mime_type"}
    if wire.keys() - names.keys():
        raise RefusedError(f"Invalid JSON payload received. Unknown name in {sorted(wire)}")
    image = {names[name]: value for name, value in wire.items()}
    if "image_bytes" in image:
        image["image_bytes"] = base64.b64decode(image["image_bytes"], validate=True)
    return image


def _checked(operation: Json, *, vertex: bool) -> Json:
    """An operation that the SDK reads, with what it should find in it."""
    read = types.GenerateVideosOperation.from_api_response(operation, is_vertex_ai=vertex)
    assert read.done == operation.get("done")
    if operation.get("response"):
        assert read.response
        videos = read.response.generated_videos
        assert videos or read.response.rai_media_filtered_reasons, operation
    return operation


def _interaction_id(jobs: Jobs) -> str:
    return f"v1_ChdXS0l4YVdT{len(jobs.kept)}="


def _check_interaction(request: Recorded, *, vertex: bool) -> Json:
    """The request's body, which is one that the SDK sends. Raises RefusedError."""
    if request.headers.get("api-revision") != "2026-05-20":
        raise RefusedError("Api-Revision: expected 2026-05-20")
    body = parsed(request.body)
    try:
        read = interactions.CreateModelInteraction.model_validate(body, strict=True)
    except ValidationError as error:
        raise RefusedError(f"Invalid JSON payload received. {error}") from None
    if read.model_dump(exclude_none=True, by_alias=True) != body or not read.background:
        raise RefusedError(f"Invalid JSON payload received: {body}")
    shown = body["response_format"]
    if not vertex and "gcs_uri" in shown:
        raise RefusedError("gcs_uri: only in Vertex AI")
    if vertex and (shown.get("delivery") == "uri") != ("gcs_uri" in shown):
        raise RefusedError("gcs_uri: required for delivery by URI")
    return body


def _interaction(name: str, body: Json, output: Json | None, *, done: bool) -> Json:
    """An interaction, which repeats the request, and that the SDK reads."""
    said = body["input"]
    steps = [
        {
            "type": "user_input",
            "content": [{"type": "text", "text": said}] if isinstance(said, str) else said,
        }
    ]
    if output:
        steps.append({"type": "model_output", "content": [output]})
    status = "completed" if done else "in_progress"
    value = {"id": name, "status": status, "model": body["model"], "steps": steps}
    interactions.Interaction.model_validate(value)
    return {**value, "object": "interaction"}


class VeoPublic(Gemini):
    """https://ai.google.dev/gemini-api/docs/video and https://ai.google.dev/gemini-api/docs/omni"""

    name = "gemini"
    ROUTES: ClassVar[Routes] = (
        (route("POST", "/v1beta/models/{model}:predictLongRunning"), "start"),
        (route("GET", "/v1beta/models/{model}/operations/{operation}"), "operation"),
        (route("POST", "/v1beta/interactions"), "interact"),
        (route("GET", "/v1beta/interactions/{name}"), "interaction"),
        (route("GET", "/v1beta/files/{file}:download"), "redirect"),
        (route("GET", "/download/v1beta/files/{file}:download"), "download"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self.host = "https://generativelanguage.googleapis.com"

    def start(self, request: Recorded, turn: Turn, model: str) -> Reply:
        """:predictLongRunning"""
        body = parsed(request.body)
        _check_veo(body, vertex=False)
        name = f"models/{model}/operations/op{len(self.jobs.kept)}x_Y-z"
        self.jobs.add(name, body)
        return json_reply({"name": name})

    def operation(self, request: Recorded, turn: Turn, model: str, operation: str) -> Reply:
        """https://ai.google.dev/api/models"""
        name = f"models/{model}/operations/{operation}"
        if not self.jobs.poll(name):
            return json_reply(_checked({"name": name}, vertex=False))
        answer: Json = {"generatedSamples": [{"video": {"uri": self._uri(operation)}}]}
        if self.jobs.refusal:
            answer = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [self.jobs.refusal]}
        response = {
            "@type": _PUBLIC_TYPE,
            "generateVideoResponse": answer,
        }
        value = {"name": name, "done": True, "response": response}
        return json_reply(_checked(value, vertex=False))

    def interact(self, request: Recorded, turn: Turn) -> Reply:
        """https://ai.google.dev/api/interactions-api"""
        body = _check_interaction(request, vertex=False)
        name = _interaction_id(self.jobs)
        self.jobs.add(name, body)
        return json_reply(_interaction(name, body, None, done=False))

    def interaction(self, request: Recorded, turn: Turn, name: str) -> Reply:
        """The same page."""
        name = unquote(name)
        done = self.jobs.poll(name)
        output = {"type": "video", "mime_type": MP4, "uri": self._uri(name.strip("="))}
        if self.jobs.refusal:
            output = {"type": "text", "text": self.jobs.refusal}
        return json_reply(
            _interaction(name, self.jobs.kept[name], output if done else None, done=done)
        )

    def _uri(self, operation: str) -> str:
        return f"{self.host}/v1beta/files/file-{operation}:download?alt=media"

    def redirect(self, request: Recorded, turn: Turn, file: str) -> Reply:
        """Where `curl -L` of the documentation goes."""
        location = f"{self.url}/download/v1beta/files/{file}:download?alt=media"
        return Reply(status=302, headers={"Location": location})

    def download(self, request: Recorded, turn: Turn, file: str) -> Reply:
        """The file itself."""
        if request.params.get("alt") != "media":
            raise RefusedError("expected alt=media")
        names = (name.rpartition("/")[2].strip("=") for name in self.jobs.kept)
        if not any(f"file-{name}" == file for name in names):
            raise RefusedError("You do not have permission to access the File", 403)
        return film(request, MP4)


class VeoVertex(Gemini):
    """https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/veo-video-generation,
    and Cloud Storage: https://cloud.google.com/storage/docs/json_api/v1/objects/get."""

    name = "vertex"
    vertex = True
    _MODEL = "/v1(?:beta1)?/{parent}/publishers/google/models/{model}".replace(
        "{parent}", "(?P<parent>projects/[^/]+/locations/[^/]+)"
    )
    _PLACE = "/v1beta1/projects/[^/]+/locations/[^/]+"
    ROUTES: ClassVar[Routes] = (
        (route("POST", _MODEL + ":predictLongRunning"), "start"),
        (route("POST", _MODEL + ":fetchPredictOperation"), "fetch"),
        (route("POST", _PLACE + "/interactions"), "interact"),
        (route("GET", _PLACE + "/interactions/{name}"), "interaction"),
        (route("GET", "/storage/v1/b/{bucket}/o/{name}"), "stored"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()

    @override
    def authorize(self, request: Recorded) -> None:
        require_bearer(request, "Request is missing required authentication credential.")

    def start(self, request: Recorded, turn: Turn, parent: str, model: str) -> Reply:
        """:predictLongRunning"""
        body = parsed(request.body)
        _check_veo(body, vertex=True)
        name = (
            f"{parent}/publishers/google/models/{model}/operations/0c335789-{len(self.jobs.kept)}"
        )
        self.jobs.add(name, body)
        return json_reply({"name": name})

    def fetch(self, request: Recorded, turn: Turn, parent: str, model: str) -> Reply:
        """:fetchPredictOperation"""
        body = parsed(request.body)
        name = body.get("operationName", "")
        if body.keys() != {"operationName"} or not name.startswith(
            f"{parent}/publishers/google/models/{model}/"
        ):
            raise RefusedError("operationName: expected an operation of the model in the path")
        if not self.jobs.poll(name):
            return json_reply(_checked({"name": name}, vertex=True))
        response: Json = {"videos": [self._video(name)], "raiMediaFilteredCount": 0}
        if self.jobs.refusal:
            response = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [self.jobs.refusal]}
        response["@type"] = "type.googleapis.com/cloud.ai.large_models.vision.GenerateVideoResponse"
        return json_reply(_checked({"name": name, "done": True, "response": response}, vertex=True))

    def interact(self, request: Recorded, turn: Turn) -> Reply:
        """https://docs.cloud.google.com/vertex-ai/docs/generative-ai/video/generate-videos"""
        body = _check_interaction(request, vertex=True)
        name = _interaction_id(self.jobs)
        self.jobs.add(name, body)
        return json_reply(_interaction(name, body, None, done=False))

    def interaction(self, request: Recorded, turn: Turn, name: str) -> Reply:
        """The same page."""
        name = unquote(name)
        done = self.jobs.poll(name)
        output = {"type": "video", "mime_type": MP4, "data": base64.b64encode(FILM).decode()}
        if self.jobs.refusal:
            output = {"type": "text", "text": self.jobs.refusal}
        return json_reply(
            _interaction(name, self.jobs.kept[name], output if done else None, done=done)
        )

    def _video(self, name: str) -> Json:
        uri = self.jobs.kept[name]["parameters"].get("storageUri")
        if uri:
            return {"gcsUri": f"{uri.rstrip('/')}/1234/sample_0.mp4", "mimeType": MP4}
        return {"bytesBase64Encoded": base64.b64encode(FILM).decode(), "mimeType": MP4}

    def stored(self, request: Recorded, turn: Turn, bucket: str, name: str) -> Reply:
        """An object."""
        uris = {job["parameters"].get("storageUri") for job in self.jobs.kept.values()}
        if request.params != {"alt": "media"}:
            raise RefusedError("expected alt=media")
        if f"gs://{bucket}/{name}".removesuffix("1234/sample_0.mp4") not in uris:
            raise RefusedError(f"No such object: {bucket}/{name}", 404)
        return film(request, MP4)
