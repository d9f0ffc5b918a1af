"""What flows of images have in common: from OpenAI's request to its answer, masks in black and
white, and images that lie at an address of the provider's."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import orjson

from kong_ai_proxy.formats import png
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.images import (
    BLOCKED,
    Image,
    ImagesAnswer,
    ImagesRequest,
    Picture,
    media_type_of,
    media_type_of_base64,
)
from kong_ai_proxy.formats.openai.images import parse_edit, parse_generation, render_answer
from kong_ai_proxy.providers.flow import (
    BAD_GATEWAY,
    MAX_MEDIA,
    Flow,
    ParseError,
    ProviderFailed,
    Result,
    Send,
    Step,
    Steps,
    Wanted,
    sent,
    unusable,
    waited,
)

MAX_HELD = 64 << 20
"""Bytes of base64 that the images of one request may have together: they are kept until all of them
are there."""

_URL = re.compile(r"[!-~]{1,8192}")
_PUBLIC = frozenset({("https", None), ("https", 443), ("http", None), ("http", 80)})


class Made(NamedTuple):
    """What a provider made of a request."""

    answer: ImagesAnswer
    dropped: tuple[str, ...] = ()
    """Names of the client's parameters that the provider has not."""


Make = Callable[[ImagesRequest, Wanted], Generator[Step, Any, Made]]
"""Has images made. `request.model` is the real model. Raises FormatError and ProviderFailed."""


def generation(make: Make) -> Flow:
    """The flow of openai.IMAGE_GENERATIONS."""
    return Flow(run(lambda wanted: parse_generation(wanted.body), make))


def edit(make: Make) -> Flow:
    """The flow of openai.IMAGE_EDITS."""
    return Flow(run(lambda wanted: parse_edit(wanted.body, wanted.parts), make))


def run(parse: Callable[[Wanted], ImagesRequest], make: Make) -> Callable[[Wanted], Steps]:
    """A flow from OpenAI's request to its answer."""

    def steps(wanted: Wanted) -> Steps:
        request = replace(parse(wanted), model=wanted.model)
        made = yield from make(request, wanted)
        if not made.answer.images:
            raise unusable("it has no image")
        body = render_answer(made.answer, request, int(wanted.now))
        return Result(body, usage=made.answer.usage, dropped=_dropped(made, request))

    return steps


def _dropped(made: Made, request: ImagesRequest) -> tuple[str, ...]:
    """What was dropped. Whether the format of the files was, their first bytes tell, where they
    are here: some providers choose it themselves."""
    kinds = {media_type_of_base64(image.base64) for image in made.answer.images}
    if request.output_format is None or "" in kinds:
        return made.dropped
    others = tuple(name for name in made.dropped if name != "output_format")
    fits = kinds == {f"image/{request.output_format}"}
    return others if fits else (*others, "output_format")


def dumped(body: Mapping[str, object]) -> bytes:
    """A request's JSON. Raises FormatError for members of the client's that are nested deeper than
    can be written."""
    try:
        return orjson.dumps(body)
    except TypeError:
        raise FormatError("the request is nested too deeply") from None


def check_held(made: Iterable[Image]) -> None:
    """To be called after each call that has brought images. Raises FormatError: a status of the
    provider's fault would have clients try again, and pay again."""
    if sum(len(image.base64) for image in made) > MAX_HELD:
        raise FormatError(
            f"n: the images are more than {MAX_HELD} bytes of base64 together; ask for fewer at "
            "once, or for smaller ones"
        )


def gathered(
    calls: Iterable[Generator[Step, Any, ImagesAnswer]],
) -> Generator[Step, Any, ImagesAnswer]:
    """The images of several calls, one after the other, and what they used together. Those that
    the provider's filter stops are left out; where it stops all of them, that is the error."""
    answers: list[ImagesAnswer] = []
    refused: ProviderFailed | None = None
    for call in calls:
        try:
            answers.append((yield from call))
        except ProviderFailed as failed:
            if failed.error.code != BLOCKED:
                raise
            refused = failed
        check_held(image for answer in answers for image in answer.images)
    if refused and not answers:
        raise refused
    usages = [answer.usage for answer in answers if answer.usage]
    return ImagesAnswer(
        images=tuple(image for answer in answers for image in answer.images),
        usage=sum(usages[1:], usages[0]) if usages else None,
    )


def unless_told(answer: ImagesAnswer | ProviderError) -> ImagesAnswer:
    """The answer. Raises ProviderFailed for an error that it tells."""
    if isinstance(answer, ProviderError):
        raise ProviderFailed(answer)
    return answer


def downloaded(
    answer: ImagesAnswer,
    request: ImagesRequest,
    hosts: re.Pattern[str],
    errors: ParseError,
    own: str | None = None,
) -> Generator[Step, Any, ImagesAnswer]:
    """The answer of a provider that tells addresses, with the images themselves where the client
    asked for base64. The rest: see `fetched`."""
    if request.as_url is not False:
        return answer
    images = []
    for image in answer.images:
        if not image.base64:
            image = (yield from fetched(image.url, hosts, errors, own))._replace(
                revised_prompt=image.revised_prompt
            )
        images.append(image)
        check_held(images)
    return replace(answer, images=tuple(images))


def fetched(
    url: str, hosts: re.Pattern[str], errors: ParseError, own: str | None = None
) -> Generator[Step, Any, Image]:
    """The image at an address that the provider told, fetched without credentials.

    Only by https at port 443 from hosts that `hosts` matches as a whole, also where the address
    says http, or from the very scheme, host and port of `own` (the option `upstream_url`): an
    answer must not send the gateway anywhere else. Raises ProviderFailed.
    """
    base_url, path, query = _taken_apart(url, hosts, own)
    headers = {"accept": "image/*"}
    send = Send("GET", path, query, headers, base_url=base_url, most=MAX_MEDIA, is_own=False)
    reply = yield from sent(send, errors)
    media_type = media_type_of(reply.body)
    if not media_type:
        raise unusable("there is no PNG, JPEG or WebP image at the address that it tells")
    return Image(base64=b64encode(reply.body).decode(), media_type=media_type)


def black_and_white(mask: Picture, *, white: bool) -> Generator[Step, Any, bytes]:
    """The mask as a PNG file without transparency, white or else black where the image is to be
    edited. Raises FormatError; see formats.png."""
    steps = png.black_and_white(mask.content, white=white)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(bytes, end.value)
        yield from waited(0.0)


def _taken_apart(url: str, hosts: re.Pattern[str], own: str | None) -> tuple[str, str, str]:
    """Where an image lies: scheme with host and port, path, query."""
    try:
        parts = urlsplit(url) if _URL.fullmatch(url) else urlsplit("")
        port = parts.port
    except ValueError:
        raise _elsewhere() from None
    base_url = f"{parts.scheme}://{parts.netloc}"
    host = parts.hostname or ""
    public = (parts.scheme, port) in _PUBLIC and "@" not in parts.netloc
    if public and hosts.fullmatch(host):
        base_url = f"https://{host}"
    elif base_url != _origin(own):
        raise _elsewhere()
    return base_url, parts.path or "/", parts.query


def _origin(url: str | None) -> str:
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _elsewhere() -> ProviderFailed:
    text = "the provider's answer names an image at an address that is not the provider's own"
    return ProviderFailed(ProviderError(text, status=BAD_GATEWAY))
