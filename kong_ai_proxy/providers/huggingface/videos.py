"""Videos through Hugging Face's router: requests in the queue of its partner fal.

See formats.huggingface.videos. The Hub is asked under which name the partner has the model. A job's
name is when it began, the model and the path of its request in the queue, none of which the queue
tells; a client that makes one up reads another request of the operator's own account at most.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.huggingface import videos
from kong_ai_proxy.formats.videos import Video, VideoRequest
from kong_ai_proxy.providers.flow import (
    FIRST_ERROR,
    Passed,
    ProviderFailed,
    Send,
    Step,
    Wanted,
    asked,
    parsed,
    sent,
    unusable,
)
from kong_ai_proxy.providers.videos import Found, Service, Started, flow, ranged, unknown

_HUB = "https://huggingface.co"
_QUEUE = "_subdomain=queue"
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_NAME = re.compile(rf"(?P<began>[0-9]{{1,12}});(?P<model>{_MODEL.pattern});(?P<path>/.+)")
_HOSTS = re.compile(r"(?:[a-z0-9-]+\.)*fal\.media")
_URL = re.compile(r"[!-~]{1,8192}")

# The queue has forgotten nothing and is not busy: the model itself refused or broke.
_REFUSALS = frozenset({400, 422, 500})


def _start(request: VideoRequest, wanted: Wanted) -> Generator[Step, Any, Started]:
    model, _, partner = request.model.partition(":")
    if not _MODEL.fullmatch(model) or partner not in ("", videos.PARTNER):
        raise FormatError(
            f"model: expected owner/name, alone or with :{videos.PARTNER}, "
            + (f"not {request.model[:100]!r}" if request.model else "it is missing")
        )
    own = yield from _mapped(model, videos.IMAGE if request.image else videos.TEXT)
    weights = f"{_HUB}/{model}/resolve/main/{quote(own.adapter)}" if own.adapter else ""
    order = videos.render_request(request, weights)
    send = Send("POST", f"/{videos.PARTNER}/{own.name}", _QUEUE, body=orjson.dumps(order.body))
    value = parsed((yield from sent(send, videos.parse_error)))
    try:
        path = videos.parse_queued(value)
    except FormatError as error:
        raise unusable(str(error)) from None
    name = f"{int(wanted.now)};{model};{path}"
    video = Video(
        name=name,
        status="queued",
        created_at=int(wanted.now),
        model=model,
        prompt=request.prompt,
    )
    return Started(video, order.dropped)


def _mapped(model: str, task: str) -> Generator[Step, Any, videos.Mapped]:
    send = Send("GET", f"/api/models/{model}", "expand=inferenceProviderMapping", base_url=_HUB)
    value = parsed((yield from sent(send, videos.parse_error)))
    return videos.parse_mapping(value, model, task)


def _find(name: str, wanted: Wanted) -> Generator[Step, Any, Found]:
    told = _NAME.fullmatch(name)
    if told is None or not videos.is_request(told["path"]):
        raise unknown(name)
    path = f"/{videos.PARTNER}{told['path']}"
    send = Send("GET", f"{path}/status", _QUEUE)
    value = parsed((yield from sent(send, videos.parse_error)))
    try:
        status = videos.parse_status(value)
    except FormatError as error:
        raise unusable(str(error)) from None
    video = Video(name=name, status=status, created_at=int(told["began"]), model=told["model"])
    if status != "completed":
        return Found(video)
    return (yield from _result(video, path))


def _result(video: Video, path: str) -> Generator[Step, Any, Found]:
    """A job that is over, in the one way or the other."""
    reply = yield from asked(Send("GET", path, _QUEUE))
    if reply.status in _REFUSALS:
        failure = videos.parse_failure(reply.status, reply.body)
        return Found(replace(video, status="failed", error=failure))
    if reply.status >= FIRST_ERROR:
        raise ProviderFailed(videos.parse_error(reply.status, reply.body))
    try:
        made = videos.parse_result(parsed(reply))
    except FormatError as error:
        raise unusable(str(error)) from None
    return Found(video, made.url, made.media_type)


def _content(found: Found, variant: str, wanted: Wanted) -> Passed:
    """From the partner's own files, which are public: it gets no credentials. An answer must not
    send the gateway anywhere else."""
    try:
        parts = urlsplit(found.asset) if _URL.fullmatch(found.asset) else urlsplit("")
        is_default = parts.port in (None, 443)
    except ValueError:
        raise unusable("the address of the video cannot be read") from None
    if parts.scheme != "https" or not is_default or "@" in parts.netloc:
        raise unusable("the address of the video is not a plain one of https")
    if not _HOSTS.fullmatch(parts.hostname or ""):
        raise unusable("the video lies elsewhere than expected")
    where, headers = f"https://{parts.hostname}", ranged(wanted)
    send = Send("GET", parts.path, parts.query, headers, base_url=where, is_own=False)
    return Passed(send, videos.parse_error, found.media_type)


VIDEOS = flow(Service(_start, _find, _content))
"""openai.VIDEOS at the router."""
