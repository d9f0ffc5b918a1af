"""A stand-in for Bedrock's videos: Nova Reel and Luma Ray, with the bucket that they write to."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal, Required
from urllib.parse import unquote

from botocore.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]
from pydantic import Field
from typing_extensions import TypedDict, override

from tests.providers import aws
from tests.providers.strict import Validator
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    Upstream,
    json_reply,
)
from tests.providers.video_jobs_api import Jobs, film


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
