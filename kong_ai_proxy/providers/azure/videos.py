"""Videos of the first Sora on Azure, whose API is one of jobs:
https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference-preview-latest.

Later Soras speak OpenAI's own format there.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import urlencode

from kong_ai_proxy.formats.azure.videos import Job, parse_job, render_form, render_request
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.fields import objects_of
from kong_ai_proxy.formats.openai.errors import parse_error
from kong_ai_proxy.formats.videos import MP4, Listed, Page, VideoRequest
from kong_ai_proxy.providers.flow import Passed, Send, Step, Wanted, parsed, sent, unusable
from kong_ai_proxy.providers.images import dumped
from kong_ai_proxy.providers.videos import Found, Service, Started, flow, ranged, unknown

_PATH = "/openai/v1/video/generations"
_JOBS = f"{_PATH}/jobs"
_VERSION = "preview"
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MEDIA_TYPES = {"video": MP4, "thumbnail": "image/jpeg"}


def _query(wanted: Wanted, **more: str) -> str:
    """With the client's api-version; the configured one is of the API with dates."""
    version = wanted.query.get("api-version") or _VERSION
    return urlencode({"api-version": version, **more})


def _start(request: VideoRequest, wanted: Wanted) -> Generator[Step, Any, Started]:
    deployment = wanted.options.azure_deployment_id or request.model
    order = render_request(request, deployment)
    body, headers = dumped(order.body), {}
    if request.image:
        body = render_form(order, request.image, wanted.id)
        headers = {"content-type": f"multipart/form-data; boundary={wanted.id}"}
    send = Send("POST", _JOBS, _query(wanted), headers, body)
    job = _job(parsed((yield from sent(send, parse_error))))
    return Started(job.video, order.dropped)


def _find(name: str, wanted: Wanted) -> Generator[Step, Any, Found]:
    send = Send("GET", _job_path(name), _query(wanted))
    job = _job(parsed((yield from sent(send, parse_error))))
    return Found(job.video, job.generation)


def _content(found: Found, variant: str, wanted: Wanted) -> Passed:
    path = f"{_PATH}/{found.asset}/content/{variant}"
    return Passed(
        Send("GET", path, _query(wanted), ranged(wanted)), parse_error, _MEDIA_TYPES[variant]
    )


def _delete(name: str, wanted: Wanted) -> Generator[Step, Any, None]:
    yield from sent(Send("DELETE", _job_path(name), _query(wanted)), parse_error)


def _listed(page: Page, wanted: Wanted) -> Generator[Step, Any, Listed]:
    """In Azure's own order, the newest first: it has no other."""
    after = {"after": _checked(page.after)} if page.after else {}
    query = _query(wanted, limit=str(page.limit), **after)
    value = parsed((yield from sent(Send("GET", _JOBS, query), parse_error)))
    videos = [_job(each).video for each in objects_of(value, "data")]
    dropped = ("order",) if page.ascending else ()
    return Listed(videos, value.get("has_more") is True, dropped)


def _job_path(name: str) -> str:
    return f"{_JOBS}/{_checked(name)}"


def _checked(name: str) -> str:
    if not _ID.fullmatch(name):
        raise unknown(name)
    return name


def _job(value: Mapping[str, object]) -> Job:
    try:
        job = parse_job(value)
    except FormatError as error:
        raise unusable(str(error)) from None
    if not _ID.fullmatch(job.video.name) or not _ID.fullmatch(job.generation or "_"):
        raise unusable("expected ids of letters, digits, '_' and '-'")
    return job


SORA = flow(
    Service(_start, _find, _content, ("video", "thumbnail"), delete=_delete, listed=_listed)
)
"""openai.VIDEOS of the first Sora on Azure."""
