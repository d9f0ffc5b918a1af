"""Stand-ins for providers that make videos in other ways than OpenAI: Veo in the Gemini API and on
Vertex AI, Nova Reel and Luma Ray on Bedrock with the bucket that they write to, the first Sora on
Azure.

Every poll moves a job on: the first `polls` find it under way. `refusal` makes jobs fail as the
vendor's filters do. Their videos are `FILM`.
"""

from __future__ import annotations

import base64
import email
import email.policy
import re
from typing import Annotated, ClassVar, Final, Literal, Required
from urllib.parse import unquote

import orjson
from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]
from google.genai import Client, interactions, models, types
from pydantic import Field, ValidationError
from typing_extensions import TypedDict, override

from tests.providers import aws
from tests.providers.gemini_api import Gemini
from tests.providers.strict import Validator, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    Upstream,
    json_reply,
    require_bearer,
    route,
)

FILM: Final = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 1500
MP4: Final = "video/mp4"
FILTERED: Final = "Veo could not generate 1 videos. Support codes: 42237218"


def film(request: Recorded, content_type: str) -> Reply:
    """The film, or the part of it that is asked for."""
    given = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", request.headers.get("range", ""))
    if not given:
        return Reply(FILM, content_type=content_type)
    start, end = int(given[1]), min(int(given[2] or len(FILM)), len(FILM) - 1)
    if start > end:
        raise RefusedError("The requested range is not satisfiable", 416)
    told = {"Content-Range": f"bytes {start}-{end}/{len(FILM)}", "Accept-Ranges": "bytes"}
    return Reply(FILM[start : end + 1], content_type=content_type, status=206, headers=told)


class Jobs:
    """The jobs of a stand-in, and how many polls each has had."""

    polls: int
    refusal: str
    kept: dict[str, Json]

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """No jobs, and none that fail."""
        self.polls = 1
        self.refusal = ""
        self.kept = {}
        self._polled: dict[str, int] = {}

    def add(self, name: str, job: Json) -> None:
        """A new job."""
        self.kept[name] = job
        self._polled[name] = 0

    def poll(self, name: str) -> bool:
        """Whether it is done by now. Raises RefusedError for no job."""
        if name not in self.kept:
            raise RefusedError(f"Operation {name} is not found.", 404)
        self._polled[name] += 1
        return self._polled[name] > self.polls


# ---- Google

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


# ---- Bedrock


class _Source(TypedDict, total=False):
    bytes: str
    s3Location: dict[str, str]


class _NovaImage(TypedDict):
    format: Literal["png", "jpeg"]
    source: _Source


class _TextToVideo(TypedDict, total=False):
    text: Required[Annotated[str, Field(min_length=1, max_length=512)]]
    images: Annotated[list[_NovaImage], Field(max_length=1)]


class _MultiShot(TypedDict):
    text: Annotated[str, Field(min_length=1, max_length=4000)]


class _OneConfig(TypedDict, total=False):
    durationSeconds: Required[Literal[6]]
    fps: Required[Literal[24]]
    dimension: Required[Literal["1280x720"]]
    seed: Annotated[int, Field(ge=0, le=2147483646)]


class _ManyConfig(TypedDict, total=False):
    durationSeconds: Required[Annotated[int, Field(ge=12, le=120, multiple_of=6)]]
    fps: Required[Literal[24]]
    dimension: Required[Literal["1280x720"]]
    seed: Annotated[int, Field(ge=0, le=2147483646)]


class _NovaReel(TypedDict):
    """https://docs.aws.amazon.com/nova/latest/userguide/video-gen-access.html"""

    taskType: Literal["TEXT_VIDEO"]
    textToVideoParams: _TextToVideo
    videoGenerationConfig: _OneConfig


class _NovaReelShots(TypedDict):
    """The same page."""

    taskType: Literal["MULTI_SHOT_AUTOMATED"]
    multiShotAutomatedParams: _MultiShot
    videoGenerationConfig: _ManyConfig


class _Shot(TypedDict, total=False):
    text: Required[Annotated[str, Field(min_length=1, max_length=512)]]
    image: _NovaImage


class _Shots(TypedDict):
    shots: Annotated[list[_Shot], Field(min_length=2, max_length=20)]


class _ManualConfig(TypedDict, total=False):
    fps: Required[Literal[24]]
    dimension: Required[Literal["1280x720"]]
    seed: Annotated[int, Field(ge=0, le=2147483646)]


class _NovaReelManual(TypedDict):
    """https://docs.aws.amazon.com/nova/latest/userguide/video-gen-code-examples2.html"""

    taskType: Literal["MULTI_SHOT_MANUAL"]
    multiShotManualParams: _Shots
    videoGenerationConfig: _ManualConfig


class _LumaSource(TypedDict):
    type: Literal["base64"]
    media_type: Literal["image/png", "image/jpeg", "image/webp"]
    data: str


class _LumaFrame(TypedDict):
    type: Literal["image"]
    source: _LumaSource


class _LumaFrames(TypedDict, total=False):
    frame0: _LumaFrame
    frame1: _LumaFrame


class _Luma(TypedDict, total=False):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-luma.html"""

    prompt: Required[Annotated[str, Field(min_length=1, max_length=5000)]]
    aspect_ratio: Literal["1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21"]
    loop: bool
    duration: Literal["5s", "9s"]
    resolution: Literal["540p", "720p"]
    keyframes: _LumaFrames


_INPUTS: Final = {
    "TEXT_VIDEO": Validator(_NovaReel),
    "MULTI_SHOT_AUTOMATED": Validator(_NovaReelShots),
    "MULTI_SHOT_MANUAL": Validator(_NovaReelManual),
    None: Validator(_Luma),
}
_ACCOUNT: Final = "123456789012"
_NO_KEY: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
    "<Message>The specified key does not exist.</Message><Key>k</Key></Error>"
)


class AsyncBedrock(Upstream):
    """bedrock-runtime's asynchronous invocations, and S3 with the bucket in the path."""

    name = "bedrock"
    ROUTES: ClassVar[Routes] = (
        (("POST", re.compile(r"/async-invoke\Z")), "start"),
        (("GET", re.compile(r"/async-invoke/(?P<invocationArn>[^/]+)\Z")), "find"),
        (("GET", re.compile(r"/(?P<bucket>[a-z0-9.-]+)/(?P<key>.+)\Z")), "stored"),
    )

    def __init__(self, access_key: str, secret_key: str, region: str = "us-east-1") -> None:
        super().__init__()
        self.jobs = Jobs()
        self.region = region
        self.written = True
        self._credentials = Credentials(access_key, secret_key)
        self._model = aws.service("bedrock-runtime")

    @override
    def _answer(self, seen: Recorded, turn: Turn) -> Reply:
        if (seen.method, seen.path) == ("GET", "/async-invoke"):  # beside the POST
            self.authorize(seen)
            return self.listed(seen, turn)
        return super()._answer(seen, turn)

    @override
    def authorize(self, request: Recorded) -> None:
        service = "bedrock" if request.path.startswith("/async-invoke") else "s3"
        aws.check_signature(request, self._credentials, self.region, service)
        if service == "s3" and "x-amz-content-sha256" not in request.headers:
            raise RefusedError("Missing required header: x-amz-content-sha256")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        if not request.path.startswith("/async-invoke"):
            return Reply(_NO_KEY.encode(), content_type="application/xml", status=status)
        kinds = {403: "AccessDeniedException", 404: "ResourceNotFoundException"}
        kind = kinds.get(
            status, "ValidationException" if status < 500 else "InternalServerException"
        )
        reply = json_reply({"message": message}, status)
        return Reply(reply.body, status=status, headers={"x-amzn-ErrorType": kind})

    def start(self, request: Recorded, turn: Turn) -> Reply:
        """StartAsyncInvoke"""
        operation = self._model.operation_model("StartAsyncInvoke")
        params = aws.request_params(operation, request, {})
        wanted = params["modelInput"]
        _INPUTS[wanted.get("taskType")].check(wanted)
        number = len(self.jobs.kept)
        arn = f"arn:aws:bedrock:{self.region}:{_ACCOUNT}:async-invoke/abcdef00000{number}"
        self.jobs.add(arn, {**params, "number": number})
        return Reply(aws.answer(operation, {"invocationArn": arn}))

    def find(self, request: Recorded, turn: Turn, **path: str) -> Reply:
        """GetAsyncInvoke"""
        operation = self._model.operation_model("GetAsyncInvoke")
        arn = unquote(path["invocationArn"])
        aws.check_shape(operation.input_shape, {"invocationArn": arn})
        done = self.jobs.poll(arn)
        return json_reply(self._shown(arn, done=done))

    def listed(self, request: Recorded, turn: Turn) -> Reply:
        """ListAsyncInvokes, pages and all."""
        query = request.params
        shape = self._model.operation_model("ListAsyncInvokes").input_shape
        known = (
            {**query, "maxResults": int(query["maxResults"])} if "maxResults" in query else query
        )
        times = {name: query[name] for name in query if name.startswith("submitTime")}
        aws.check_shape(shape, {name: each for name, each in known.items() if name not in times})
        shown = [self._shown(arn, done=False) for arn in self.jobs.kept]
        if query.get("sortOrder") == "Descending":
            shown.reverse()
        if "submitTimeBefore" in times:
            shown = [each for each in shown if each["submitTime"] < times["submitTimeBefore"]]
        start = int(query.get("nextToken", 0))
        end = start + int(query.get("maxResults", 10))
        more = {"nextToken": str(end)} if end < len(shown) else {}
        return json_reply({"asyncInvokeSummaries": shown[start:end], **more})

    def _shown(self, arn: str, *, done: bool) -> Json:
        job = self.jobs.kept[arn]
        place = job["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].rstrip("/")
        uri = f"{place}/{arn.rpartition('/')[2]}"
        value = {
            "invocationArn": arn,
            "modelArn": f"arn:aws:bedrock:{self.region}::foundation-model/{job['modelId']}",
            "clientRequestToken": job["clientRequestToken"],
            "status": "InProgress",
            "submitTime": f"2025-01-31T12:00:0{job['number']}.123000Z",
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": uri}},
        }
        if done:
            value["status"] = "Failed" if self.jobs.refusal else "Completed"
            value["endTime"] = "2025-01-31T12:01:30Z"
            if self.jobs.refusal:
                value["failureMessage"] = self.jobs.refusal
        return value

    def stored(self, request: Recorded, turn: Turn, bucket: str, key: str) -> Reply:
        """GetObject"""
        for arn in self.jobs.kept:
            shown = self._shown(arn, done=True)
            uri = shown["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
            if self.written and f"s3://{bucket}/{key}" == f"{uri}/output.mp4":
                return film(request, "binary/octet-stream")
        raise RefusedError("NoSuchKey", 404)


# ---- Azure


class _Frame(TypedDict, total=False):
    frame_index: Required[int]
    type: Required[Literal["image", "video"]]
    file_name: Required[str]
    crop_bounds: dict[str, float]


class _SoraJob(TypedDict, total=False):
    """https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference-preview-latest"""

    prompt: Required[str]
    model: Required[str]
    width: Required[Literal[480, 720, 854, 1080, 1280, 1920]]
    height: Required[Literal[480, 720, 854, 1080, 1280, 1920]]
    n_seconds: Annotated[int, Field(ge=1, le=20)]
    n_variants: Annotated[int, Field(ge=1, le=5)]
    inpaint_items: list[_Frame]


_SORA_JOB: Final = Validator(_SoraJob)
_NUMBERS: Final = ("width", "height", "n_seconds", "n_variants")


class SoraJobs(Upstream):
    """{resource}.openai.azure.com/openai/v1/video/generations"""

    name = "azure"
    _JOBS = "/openai/v1/video/generations/jobs"
    ROUTES: ClassVar[Routes] = (
        (("POST", re.compile(_JOBS + r"\Z")), "start"),
        (("GET", re.compile(_JOBS + r"/(?P<job>[^/]+)\Z")), "find"),
        (
            (
                "GET",
                re.compile(
                    r"/openai/v1/video/generations/(?P<made>[^/]+)/content/(?P<kind>video|thumbnail)\Z"
                ),
            ),
            "content",
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()

    @override
    def _answer(self, seen: Recorded, turn: Turn) -> Reply:
        self.authorize(seen)
        if seen.params.get("api-version") != "preview":
            raise RefusedError("API version not supported", 404)
        if (seen.method, seen.path) == ("GET", self._JOBS):
            return self.listed(seen)
        if seen.method == "DELETE" and seen.path.startswith(f"{self._JOBS}/"):
            return self.delete(seen)
        return super()._answer(seen, turn)

    @override
    def authorize(self, request: Recorded) -> None:
        if not request.headers.get("api-key"):
            raise RefusedError("Access denied due to missing subscription key", 401)

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        return json_reply({"error": {"code": str(status), "message": message}}, status)

    def start(self, request: Recorded, turn: Turn) -> Reply:
        """Create"""
        is_form = request.headers["Content-Type"].startswith("multipart/form-data")
        body = _form(request) if is_form else parsed(request.body)
        _SORA_JOB.check(body)
        name = f"task_01jwcet0eje35tc5jy54yjax5{len(self.jobs.kept)}"
        self.jobs.add(name, body)
        return json_reply(self._shown(name, "queued"))

    def find(self, request: Recorded, turn: Turn, job: str) -> Reply:
        """Get"""
        return json_reply(self._shown(job, self._status(job)))

    def _status(self, job: str) -> str:
        if not self.jobs.poll(job):
            return "running"
        return "failed" if self.jobs.refusal else "succeeded"

    def listed(self, request: Recorded) -> Reply:
        """List"""
        if "limit" not in request.params:
            raise RefusedError("limit: field required")
        names = list(reversed(self.jobs.kept))
        after = request.params.get("after")
        rest = names[names.index(after) + 1 :] if after else names
        data = [self._shown(name, "running") for name in rest[: int(request.params["limit"])]]
        has_more = len(rest) > len(data)
        return json_reply({"object": "list", "data": data, "has_more": has_more})

    def delete(self, request: Recorded) -> Reply:
        """Delete"""
        name = request.path.rpartition("/")[2]
        if self.jobs.kept.pop(name, None) is None:
            raise RefusedError("Job not found", 404)
        return Reply(status=204)

    def content(self, request: Recorded, turn: Turn, made: str, kind: str) -> Reply:
        """Retrieve video content, or thumbnail"""
        if made.replace("gen_", "task_") not in self.jobs.kept:
            raise RefusedError("Generation not found", 404)
        return film(request, MP4 if kind == "video" else "image/jpg")

    def _shown(self, name: str, status: str) -> Json:
        job = self.jobs.kept[name]
        generations = []
        if status == "succeeded":
            own = {key: job[key] for key in ("prompt", "width", "height", "n_seconds")}
            made = name.replace("task_", "gen_")
            generations = [
                {
                    "object": "video.generation",
                    "id": made,
                    "job_id": name,
                    "created_at": 1748469890,
                    **own,
                }
            ]
        over = status in ("succeeded", "failed")
        shown = {key: value for key, value in job.items() if key not in ("files", "inpaint_items")}
        return {
            "object": "video.generation.job",
            "id": name,
            "status": status,
            "created_at": 1748469875,
            "finished_at": 1748469895 if over else None,
            "expires_at": 1748556295 if over else None,
            "generations": generations,
            **shown,
            "failure_reason": self.jobs.refusal if status == "failed" else None,
        }


def _form(request: Recorded) -> Json:
    """A form's fields as JSON has them. Raises RefusedError where the file is not one of them."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    fields: Json = {}
    files = []
    for part in message.iter_parts():  # type: ignore[attr-defined, unused-ignore]
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            if name != "files" or not content:
                raise RefusedError("files: expected a file")
            files.append(part.get_filename())
        else:
            is_json = name in _NUMBERS or name == "inpaint_items"
            fields[name] = orjson.loads(content) if is_json else content.decode()
    if files != [item["file_name"] for item in fields.get("inpaint_items", [])]:
        raise RefusedError("inpaint_items: expected the names of the files")
    return fields


Standin = VeoPublic | VeoVertex | AsyncBedrock | SoraJobs
