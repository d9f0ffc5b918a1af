"""Videos of Bedrock's models, by asynchronous invocations whose results Bedrock writes into the
bucket of the option `video_output_s3_uri`:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html.

An invocation cannot be deleted, and the bucket is the operator's to tidy.
Members under a model's own names may refer to images in S3 (`s3Location`), of which Bedrock reads
what the operator's credentials may read.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any
from urllib.parse import quote, urlencode

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import bedrock
from kong_ai_proxy.formats.bedrock import s3_errors
from kong_ai_proxy.formats.bedrock.videos import (
    Invocation,
    parse_invocation,
    parse_refusal,
    render_input,
    token,
)
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import objects_of, text_of
from kong_ai_proxy.formats.videos import MP4, Listed, Page, Video, VideoRequest
from kong_ai_proxy.providers.bedrock import output as bedrock_output
from kong_ai_proxy.providers.bedrock.output import Place, place
from kong_ai_proxy.providers.flow import (
    Passed,
    ProviderFailed,
    Send,
    Step,
    Wanted,
    parsed,
    sent,
    unusable,
)
from kong_ai_proxy.providers.images import dumped
from kong_ai_proxy.providers.videos import NOT_FOUND, Found, Service, Started, flow, ranged, unknown

_ARN = re.compile(
    r"arn:aws(?:-[a-z-]{1,20})?:bedrock:([a-z0-9-]{1,20}):[0-9]{12}:async-invoke/([a-z0-9]{12})"
)
_MODEL = re.compile(r"[a-zA-Z_.\-/0-9:]{1,256}")  # AsyncInvokeIdentifier
_OPTION = "model.options.bedrock.video_output_s3_uri"
_RESULT = "output.mp4"
_MOST_CALLS = 10  # for one page of a list

_parse_error = bedrock.CONVERSE.parse_error


def _output(options: ModelOptions) -> Place:
    """Where videos are written. Raises ProviderFailed."""
    found = place(options.bedrock.video_output_s3_uri or "")
    if found is None:
        text = f"{_OPTION}: expected an address in S3 such as s3://bucket/folder, where Bedrock"
        raise ProviderFailed(ProviderError(f"{text} writes videos; set it", status=500))
    return found


def _start(request: VideoRequest, wanted: Wanted) -> Generator[Step, Any, Started]:
    output = _output(wanted.options)
    if not _MODEL.fullmatch(request.model):
        raise FormatError(f"model: expected the id of a Bedrock model, got {request.model[:100]!r}")
    order = render_input(request)
    body = {
        "clientRequestToken": token(wanted.id, order),
        "modelId": request.model,
        "modelInput": order.body,
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": output.uri}},
    }
    send = Send("POST", "/async-invoke", body=dumped(body))
    arn = text_of(parsed((yield from sent(send, parse_refusal))), "invocationArn")
    if not _ARN.fullmatch(arn):
        raise unusable("it has no invocationArn")
    video = Video(
        name=arn,
        status="queued",
        created_at=int(wanted.now),
        model=request.model,
        prompt=request.prompt,
        seconds=order.seconds,
        size=order.size,
    )
    return Started(video, order.dropped)


def _find(name: str, wanted: Wanted) -> Generator[Step, Any, Found]:
    invocation = yield from _invocation(name, wanted)
    return Found(_video(invocation), invocation.place)


def _invocation(name: str, wanted: Wanted) -> Generator[Step, Any, Invocation]:
    """Of the configured region alone; whose it is, the signature says."""
    found = _ARN.fullmatch(name)
    region = wanted.options.bedrock.aws_region
    if not found or region not in (None, found[1]):
        raise unknown(name)
    send = Send("GET", f"/async-invoke/{quote(name, safe='')}")
    return _parsed(parsed((yield from sent(send, _parse_error))))


def _parsed(value: Any) -> Invocation:
    try:
        return parse_invocation(value)
    except FormatError as error:
        raise unusable(str(error)) from None


def _video(invocation: Invocation) -> Video:
    return Video(
        name=invocation.arn,
        status=invocation.status,
        created_at=invocation.submitted_at,
        model=invocation.model,
        seconds=invocation.seconds,
        size=invocation.size,
        completed_at=invocation.ended_at,
        error=invocation.error,
    )


def _content(found: Found, variant: str, wanted: Wanted) -> Passed:
    """The object in the folder that Bedrock made for the invocation, below the configured place
    and nowhere else."""
    output = _output(wanted.options)
    bedrock_output.check_signs(wanted)
    folder = place(found.asset)
    if folder is None or not output.holds(folder):
        text = f"the video is not below {_OPTION}, which is {output.uri}"
        raise ProviderFailed(ProviderError(text, status=NOT_FOUND))
    parts = [folder.key] if folder.key else []
    invocation = found.video.name.rpartition("/")[2]
    if folder.key.rpartition("/")[2] != invocation:
        parts.append(invocation)
    key = "/".join([*parts, _RESULT])
    send = Send(
        "GET",
        bedrock_output.path(Place(folder.bucket, key), wanted.options),
        headers=ranged(wanted),
        base_url=bedrock_output.base_url(folder.bucket, wanted.options),
        service=bedrock_output.SERVICE,
    )
    return Passed(send, s3_errors.parse_error, MP4)


# ---- lists


def _listed(page: Page, wanted: Wanted) -> Generator[Step, Any, Listed]:
    """Invocations that write below the configured place; the account may have others. A list goes
    on after an invocation by the time when that one began."""
    query = {"sortBy": "SubmissionTime", "sortOrder": "Descending", "maxResults": str(page.limit)}
    if page.ascending:
        query["sortOrder"] = "Ascending"
    if page.after:
        after = yield from _invocation(page.after, wanted)
        query["submitTimeAfter" if page.ascending else "submitTimeBefore"] = after.submitted
    output = _output(wanted.options)
    videos: list[Video] = []
    for _ in range(_MOST_CALLS):
        send = Send("GET", "/async-invoke", urlencode(query))
        value = parsed((yield from sent(send, _parse_error)))
        found = [_parsed(each) for each in objects_of(value, "asyncInvokeSummaries")]
        videos += [_video(each) for each in found if _is_listed(each, page, output)]
        following = text_of(value, "nextToken")
        if len(videos) >= page.limit or not following:
            break
        query["nextToken"] = following
    return Listed(videos[: page.limit], bool(following) or len(videos) > page.limit)


def _is_listed(invocation: Invocation, page: Page, output: Place) -> bool:
    folder = place(invocation.place)
    return folder is not None and output.holds(folder) and invocation.arn != page.after


VIDEOS = flow(Service(_start, _find, _content, listed=_listed))
"""openai.VIDEOS on Bedrock."""
