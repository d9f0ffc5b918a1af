"""What flows of videos have in common: OpenAI's operations on jobs, of those a provider has."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.openai import videos as openai_videos
from kong_ai_proxy.formats.videos import Listed, Page, Video, VideoRequest
from kong_ai_proxy.providers.flow import (
    Flow,
    Passed,
    ProviderFailed,
    Result,
    Step,
    Steps,
    Wanted,
    not_there,
)

NOT_FOUND = 404


class Started(NamedTuple):
    """A job that has just begun."""

    video: Video
    dropped: tuple[str, ...] = ()
    """Names of the client's parameters that the provider has not."""


class Found(NamedTuple):
    """A job, and where its video is."""

    video: Video
    asset: str = ""
    """What `Service.content` needs: an address, the id of a file, or the video itself in base64;
    "" where there is none yet."""
    media_type: str = ""
    """"" where nobody told."""


class Service(NamedTuple):
    """What a provider can do about videos. All raise FormatError and ProviderFailed."""

    start: Callable[[VideoRequest, Wanted], Generator[Step, Any, Started]]
    """`request.model` is the real model."""
    find: Callable[[str, Wanted], Generator[Step, Any, Found]]
    """The job of a name that a client brings: it has to be looked at closely."""
    content: Callable[[Found, str, Wanted], Result | Passed]
    """The video of a job that is completed, or another one of `variants`."""
    variants: tuple[str, ...] = ("video",)
    delete: Callable[[str, Wanted], Generator[Step, Any, None]] | None = None
    listed: Callable[[Page, Wanted], Generator[Step, Any, Listed]] | None = None


def flow(service: Service) -> Flow:
    """The flow of openai.VIDEOS. What the provider has not is answered with 404."""

    def steps(wanted: Wanted) -> Steps:
        match wanted.method, wanted.rest:
            case "POST", ():
                return (yield from _create(service, wanted))
            case "GET", () if service.listed:
                page = openai_videos.parse_page(wanted.query)
                listed = yield from service.listed(page, wanted)
                return Result(openai_videos.render_list(listed), dropped=listed.dropped)
            case "GET", (given,):
                found = yield from service.find(_name(given), wanted)
                return Result(openai_videos.render_video(found.video))
            case "GET", (given, "content"):
                return (yield from _content(service, given, wanted))
            case "DELETE", (given,) if service.delete:
                yield from service.delete(_name(given), wanted)
                return Result(openai_videos.render_deleted(given))
        raise not_there(wanted, *_operations(service))

    return Flow(steps)


def _operations(service: Service) -> Iterator[str]:
    yield "POST /videos"
    if service.listed:
        yield "GET /videos"
    yield from ("GET /videos/{id}", "GET /videos/{id}/content")
    if service.delete:
        yield "DELETE /videos/{id}"


def _create(service: Service, wanted: Wanted) -> Steps:
    request = openai_videos.parse_request(wanted.body, wanted.parts)
    started = yield from service.start(replace(request, model=wanted.model), wanted)
    return Result(openai_videos.render_video(started.video), dropped=started.dropped)


def _content(service: Service, given: str, wanted: Wanted) -> Steps:
    variant = openai_videos.parse_variant(wanted.query)
    if variant not in service.variants:
        known = " or ".join(service.variants)
        raise FormatError(f"variant: expected {known}; this provider makes no {variant}")
    found = yield from service.find(_name(given), wanted)
    if found.video.error:
        text = f"Video generation failed: {found.video.error.message}"
        raise ProviderFailed(ProviderError(text, status=NOT_FOUND, code=found.video.error.code))
    if found.video.status != "completed":
        text = "Video is not ready yet, use GET /v1/videos/{video_id} to check status."
        raise ProviderFailed(ProviderError(text, status=NOT_FOUND))
    return service.content(found, variant, wanted)


def ranged(wanted: Wanted) -> Mapping[str, str]:
    """The headers of a request for the part of a video that the client wants. What answers with the
    whole may do so (RFC 9110 section 14.2)."""
    return {"range": wanted.range} if wanted.range else {}


def _name(given: str) -> str:
    name = openai_videos.name_of(given)
    if name is None:
        raise unknown(given)
    return name


def unknown(given: str) -> ProviderFailed:
    """For an id, or the name in one, that is no job's."""
    return ProviderFailed(
        ProviderError(f"Video with id {given[:100]!r} not found.", status=NOT_FOUND)
    )
