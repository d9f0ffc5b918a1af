"""Videos of Bedrock's models, which are made by asynchronous invocations and lie in S3.

Invocations: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html.
Nova Reel: https://docs.aws.amazon.com/nova/latest/userguide/video-gen-access.html. Luma Ray:
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-luma.html. What AWS's filters
stop: https://docs.aws.amazon.com/nova/latest/userguide/video-gen-errors.html.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from kong_ai_proxy.formats import fields
from kong_ai_proxy.formats.bedrock import errors as bedrock_errors
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, wrong
from kong_ai_proxy.formats.images import BLOCKED, JPEG, PNG
from kong_ai_proxy.formats.videos import (
    Order,
    Reading,
    Size,
    Status,
    VideoError,
    VideoRequest,
    an_object_or_its_text,
    chosen_seconds,
    chosen_size,
    flag,
    size_text,
    whole_number,
)

_NOVA = re.compile(r"(?:^|[./])nova-(?:[0-9]+-)?reel-")
_LUMA = re.compile(r"(?:^|[./])luma\.ray-")


def render_input(request: VideoRequest) -> Order:
    """The `modelInput` of an invocation. Raises FormatError, for a model that makes no videos
    too."""
    render = next((each for name, each in _MODELS if name.search(request.model)), None)
    if render is None:
        wrong("model", f"a video model (Nova Reel, Luma Ray), got {request.model[:100]!r}")
    return render(request)


def _settings(
    request: VideoRequest, known: Mapping[str, Reading]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The client's parameters that the model knows, and the names of the others."""
    given = request.settings.items()
    settings = {name: known[name](value, name) for name, value in given if name in known}
    return settings, tuple(name for name, _ in given if name not in known)


# ---- Nova Reel

_NOVA_SIZE = (1280, 720)
_SHOT = 6  # seconds
_SHOTS = tuple(range(2 * _SHOT, 121, _SHOT))
_ONE_SHOT, _AUTOMATED, _MANUAL = "TEXT_VIDEO", "MULTI_SHOT_AUTOMATED", "MULTI_SHOT_MANUAL"
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_KNOWN_NOVA = re.compile(r"nova-reel-v1:([01])(?![0-9])")
_CONFIG_NUMBERS = ("durationSeconds", "fps", "seed")


def _config(value: object, where: str) -> Mapping[str, object]:
    """See Reading; of a form it is made of texts."""
    found = dict(an_object_or_its_text(value, where))
    for name in _CONFIG_NUMBERS:
        if name in found:
            found[name] = whole_number(found[name], f"{where}.{name}")
    return found


_NOVA_KNOWN: Mapping[str, Reading] = {
    "fps": whole_number,
    "multiShotManualParams": an_object_or_its_text,
    "multiShotAutomatedParams": an_object_or_its_text,
    "seed": whole_number,
    "taskType": a_text,
    "textToVideoParams": an_object_or_its_text,
    "videoGenerationConfig": _config,
}


def _nova(request: VideoRequest) -> Order:
    """One shot of six seconds, or several: those that the client describes, or as many as make the
    length. Models to come get the same request, of any length and size."""
    settings, dropped = _settings(request, _NOVA_KNOWN)
    config = _nova_config(request, settings)
    shots = settings.pop("multiShotManualParams", None)
    if shots is not None or settings.get("taskType") == _MANUAL:
        task, made = _manual(request, shots, config)
        dropped = (*dropped, "prompt")
    else:
        made = config["durationSeconds"]
        is_long = settings.get("taskType", _ONE_SHOT) != _ONE_SHOT or made != _SHOT
        task = _multi_shot(request) if is_long else _one_shot(request)
    for name, value in settings.items():
        task[name] = _joined(task[name], value) if isinstance(task.get(name), dict) else value
    told = _SIZE.fullmatch(str(config["dimension"]))
    size = (int(told[1]), int(told[2])) if told else None
    body = {**task, "videoGenerationConfig": config}
    return Order(body, made if isinstance(made, int) else None, size, dropped)


def _nova_config(request: VideoRequest, settings: dict[str, object]) -> dict[str, object]:
    """What is taken out of the settings for `videoGenerationConfig`, and the rest of it."""
    known = _KNOWN_NOVA.search(request.model)
    seconds, size = request.seconds or _SHOT, request.size or _NOVA_SIZE
    if known:  # the first version makes single shots
        lengths = (_SHOT, *(_SHOTS if known[1] == "1" else ()))
        seconds = chosen_seconds(request, lengths, _SHOT)
        size = chosen_size(request, (_NOVA_SIZE,)) or _NOVA_SIZE
    config: dict[str, object] = {
        "durationSeconds": seconds,
        "fps": settings.pop("fps", 24),
        "dimension": size_text(size),
        **({"seed": settings.pop("seed")} if "seed" in settings else {}),
    }
    return _joined(config, settings.pop("videoGenerationConfig", {}))


def _manual(
    request: VideoRequest, params: object, config: dict[str, object]
) -> tuple[dict[str, object], object]:
    """The client's own shots, each of six seconds and with a text and an image of its own, so that
    there is no length to ask for; and how long they are together."""
    shots = fields.objects_of(params, "shots") if isinstance(params, Mapping) else []
    if not shots:
        wrong("multiShotManualParams", f"shots, where taskType is {_MANUAL}")
    if request.image:
        raise FormatError("input_reference: expected an image in the shot that begins with it")
    seconds = len(shots) * _SHOT
    if request.seconds not in (None, seconds):
        wrong("seconds", f"{seconds}, as there are {len(shots)} shots")
    config.pop("durationSeconds")
    return {"taskType": _MANUAL, "multiShotManualParams": params}, seconds


def _joined(ours: object, own: object) -> dict[str, object]:
    """What the client says under the model's own names wins."""
    assert isinstance(ours, dict)
    assert isinstance(own, dict)
    return {**ours, **own}


def _one_shot(request: VideoRequest) -> dict[str, object]:
    shown: dict[str, object] = {"text": request.prompt}
    image = request.image
    if image:
        if image.media_type not in (PNG, JPEG):
            wrong("input_reference", f"a PNG or JPEG file for the model {request.model}")
        source = {"bytes": base64.b64encode(image.content).decode()}
        shown["images"] = [{"format": image.media_type.removeprefix("image/"), "source": source}]
    return {"taskType": _ONE_SHOT, "textToVideoParams": shown}


def _multi_shot(request: VideoRequest) -> dict[str, object]:
    if request.image:
        raise FormatError(
            f"input_reference: the model {request.model} begins only videos of {_SHOT} seconds "
            "with an image; leave out one of the two"
        )
    return {"taskType": _AUTOMATED, "multiShotAutomatedParams": {"text": request.prompt}}


# ---- Luma Ray

_RATIOS = ((16, 9), (9, 16), (1, 1), (4, 3), (3, 4), (21, 9), (9, 21))
_LUMA_SECONDS = (5, 9)
_KNOWN_LUMA = re.compile(r"luma\.ray-v2:")
_LUMA_KNOWN: Mapping[str, Reading] = {
    "aspect_ratio": a_text,
    "duration": a_text,
    "keyframes": an_object_or_its_text,
    "loop": flag,
    "resolution": a_text,
}


def _luma_sizes(*shorts: int) -> dict[Size, tuple[str, str]]:
    """By size its aspect ratio and resolution, which is the length of the shorter side."""
    sizes = {}
    for short in shorts:
        for width, height in _RATIOS:
            unit = min(width, height)
            size = (width * short // unit, height * short // unit)
            sizes[size] = (f"{width}:{height}", f"{short}p")
    return sizes


_LUMA_SIZES = _luma_sizes(720, 540)
_LATER_LUMA_SIZES = _luma_sizes(720, 360, 540, 1080, 2160)
_LUMA_SIZE_OF = {said: size for size, said in _LATER_LUMA_SIZES.items()}
_SECONDS = re.compile(r"([1-9][0-9]{0,2})s")


def _luma(request: VideoRequest) -> Order:
    """Only what the client has said: the rest is the model's choice, which is 16:9, 720p, 5s.
    Models to come are asked for any length."""
    settings, dropped = _settings(request, _LUMA_KNOWN)
    is_known = _KNOWN_LUMA.search(request.model) is not None
    if request.seconds is not None:
        seconds = chosen_seconds(request, _LUMA_SECONDS, 5) if is_known else request.seconds
        settings["duration"] = f"{seconds}s"
    sizes = _LUMA_SIZES if is_known else _LATER_LUMA_SIZES
    size = chosen_size(request, sizes)
    if size:
        settings["aspect_ratio"], settings["resolution"] = sizes[size]
    if request.image:
        frame = _frame(request.image.media_type, request.image.content)
        settings["keyframes"] = _joined(settings.get("keyframes", {}), {"frame0": frame})
    said = (str(settings.get("aspect_ratio", "16:9")), str(settings.get("resolution", "720p")))
    told = _SECONDS.fullmatch(str(settings.get("duration", "5s")))
    body = {"prompt": request.prompt, **settings}
    return Order(body, int(told[1]) if told else None, _LUMA_SIZE_OF.get(said), dropped)


def _frame(media_type: str, content: bytes) -> dict[str, object]:
    data = base64.b64encode(content).decode()
    source = {"type": "base64", "media_type": media_type, "data": data}
    return {"type": "image", "source": source}


_MODELS: tuple[tuple[re.Pattern[str], Callable[[VideoRequest], Order]], ...] = (
    (_NOVA, _nova),
    (_LUMA, _luma),
)


# ---- invocations

# What is asked for and not told again goes into the token by which AWS knows a request that comes
# twice: it is told with the invocation.
_TOKEN = re.compile(r"[A-Za-z0-9]{1,64}\.([0-9]{1,4})\.([0-9]{1,5})x([0-9]{1,5})")
_FILTERED = re.compile(r"blocked by our content filters")
_STATUSES: Mapping[str, Status] = {
    "InProgress": "in_progress",
    "Completed": "completed",
    "Failed": "failed",
}


class Invocation(NamedTuple):
    """What is told of one invocation."""

    arn: str
    status: Status
    model: str
    """Its id, as far as the model is not one's own."""
    submitted: str
    """As AWS writes it."""
    submitted_at: int
    """Seconds since 1970."""
    ended_at: int | None
    place: str
    """The folder of the result, as an address s3://..."""
    seconds: int | None = None
    size: Size | None = None
    error: VideoError | None = None


def token(id_: str, order: Order) -> str:
    """A `clientRequestToken` that tells what will be made. `id_` is random, letters and digits."""
    return f"{id_}.{order.seconds or 0}.{size_text(order.size or (0, 0))}"


def parse_invocation(value: Mapping[str, object]) -> Invocation:
    """The answer to GetAsyncInvoke, or an entry of ListAsyncInvokes'. Raises FormatError."""
    status = _STATUSES.get(fields.text_of(value, "status"), "in_progress")
    submitted = fields.text_of(value, "submitTime")
    ended = fields.text_of(value, "endTime") or fields.text_of(value, "lastModifiedTime")
    s3 = fields.object_of(fields.object_of(value, "outputDataConfig"), "s3OutputDataConfig")
    seconds, size = _asked(fields.text_of(value, "clientRequestToken"))
    reason = fields.text_of(value, "failureMessage") or "the provider told no reason"
    return Invocation(
        arn=a_text(value.get("invocationArn"), "invocationArn"),
        status=status,
        model=fields.text_of(value, "modelArn").partition("/")[2],
        submitted=submitted,
        submitted_at=_seconds(submitted, "submitTime"),
        ended_at=_seconds(ended, "endTime") if ended and status == "completed" else None,
        place=fields.text_of(s3, "s3Uri"),
        seconds=seconds,
        size=size,
        error=_failure(reason) if status == "failed" else None,
    )


def parse_refusal(status: int, body: bytes) -> ProviderError:
    """Why an invocation was not started."""
    error = bedrock_errors.parse(status, body)
    return error._replace(code=BLOCKED) if _FILTERED.search(error.message) else error


def _failure(reason: str) -> VideoError:
    return VideoError(BLOCKED if _FILTERED.search(reason) else "generation_failed", reason)


def _asked(given: str) -> tuple[int | None, Size | None]:
    """What a token tells, where it is one of ours."""
    found = _TOKEN.fullmatch(given)
    if not found:
        return None, None
    size = (int(found[2]), int(found[3]))
    return int(found[1]) or None, size if all(size) else None


def _seconds(time: str, where: str) -> int:
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        wrong(where, "a time such as 2025-01-31T12:00:00Z")
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
