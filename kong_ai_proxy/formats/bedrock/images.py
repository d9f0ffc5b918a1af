"""Images of models behind Bedrock's InvokeModel, each in its maker's own format.

Amazon's: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-image.html,
https://docs.aws.amazon.com/nova/latest/userguide/image-gen-access.html. Stability's are in
formats/bedrock/stability.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from kong_ai_proxy.formats import png
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import a_text, an_object, text_of, wrong
from kong_ai_proxy.formats.images import BLOCKED, BLOCKED_TYPE, WEBP, Image, ImagesRequest, Picture

Json = Mapping[str, object]


class Order(NamedTuple):
    """What a model is asked for."""

    bodies: tuple[dict[str, object], ...]
    """One for each call."""
    dropped: tuple[str, ...] = ()
    """Names of the client's parameters that the model has not."""


class ImageModel(Protocol):
    """How one kind of model is asked for images."""

    def white_is_edited(self, request: ImagesRequest) -> bool:
        """Whether white in a mask stands for what is to be changed; black does otherwise.
        Raises FormatError."""

    def render(self, request: ImagesRequest, mask: bytes | None) -> Order:
        """The calls to make. `mask` is the request's in black and white. Raises FormatError."""

    def parse(self, value: Json) -> tuple[Image, ...] | ProviderError:
        """The images of an answer, or the error that it tells."""


def encoded(picture: Picture) -> str:
    """In base64."""
    return base64.b64encode(picture.content).decode()


def size_told(image: Image) -> str | None:
    """The size of an image that is a PNG file."""
    try:
        size = png.size_of(base64.b64decode(image.base64[:64]))
    except (binascii.Error, ValueError):
        return None
    return f"{size[0]}x{size[1]}" if size else None


def blocked(message: str) -> ProviderError:
    """What OpenAI calls it when its filters find a prompt or an image unfit."""
    return ProviderError(message, BLOCKED_TYPE, status=400, code=BLOCKED)


# ---- Amazon


class _Task(NamedTuple):
    """One of the things that Amazon's models do."""

    params: str
    images: tuple[str, ...] = ()
    """The members that hold an image each."""
    has_list: bool = False
    """Whether it is one member, with up to five images."""
    needs_image: bool = False
    text: bool = True
    mask: bool = False
    """Whether it needs one, or a text that says where it is."""
    sized: bool = True
    """Else the image is as large as the one sent."""
    configured: bool = True
    options: frozenset[str] = frozenset()
    """Members of `params` that a client may name at the top level."""


_TASKS: Mapping[str, _Task] = {
    "TEXT_IMAGE": _Task(
        "textToImageParams",
        ("conditionImage",),
        options=frozenset({"controlMode", "controlStrength", "style"}),
    ),
    "COLOR_GUIDED_GENERATION": _Task(
        "colorGuidedGenerationParams", ("referenceImage",), options=frozenset({"colors"})
    ),
    "IMAGE_VARIATION": _Task(
        "imageVariationParams",
        ("images",),
        has_list=True,
        needs_image=True,
        options=frozenset({"similarityStrength"}),
    ),
    "INPAINTING": _Task(
        "inPaintingParams",
        ("image",),
        needs_image=True,
        mask=True,
        sized=False,
        options=frozenset({"maskPrompt"}),
    ),
    "OUTPAINTING": _Task(
        "outPaintingParams",
        ("image",),
        needs_image=True,
        mask=True,
        sized=False,
        options=frozenset({"maskPrompt", "outPaintingMode"}),
    ),
    "BACKGROUND_REMOVAL": _Task(
        "backgroundRemovalParams",
        ("image",),
        needs_image=True,
        text=False,
        sized=False,
        configured=False,
    ),
    "VIRTUAL_TRY_ON": _Task(
        "virtualTryOnParams",
        ("sourceImage", "referenceImage"),
        needs_image=True,
        text=False,
        sized=False,
        options=frozenset(
            {"garmentBasedMask", "maskExclusions", "maskType", "mergeStyle", "promptBasedMask"}
        ),
    ),
}
_BY_PARAMS = {task.params: name for name, task in _TASKS.items()}
_OF_NOVA = frozenset({"VIRTUAL_TRY_ON"})
_MOST_AT_ONCE = 5
_SEEDS = 858_993_460
_MOST_VARIED = 5

_CONFIG = "imageGenerationConfig"
_ALIASES = {
    "negative_prompt": "negativeText",
    "cfg_scale": "cfgScale",
    "mask_prompt": "maskPrompt",
}
_STYLES_OF_OPENAI = frozenset({"vivid", "natural"})
_QUALITIES = {
    "low": "standard",
    "medium": "standard",
    "standard": "standard",
    "high": "premium",
    "xhigh": "premium",
    "max": "premium",
    "hd": "premium",
    "premium": "premium",
}

# "The following sizes are permissible" on Titan's page.
_TITAN_SIZES = (
    *((1024, 1024), (768, 768), (512, 512), (768, 1152), (384, 576), (1152, 768), (576, 384)),
    *((768, 1280), (384, 640), (1280, 768), (640, 384), (896, 1152), (448, 576), (1152, 896)),
    *((576, 448), (768, 1408), (384, 704), (1408, 768), (704, 384), (640, 1408), (320, 704)),
    *((1408, 640), (704, 320), (1152, 640), (1173, 640)),
)
# https://docs.aws.amazon.com/nova/latest/userguide/image-gen-access.html#image-gen-resolutions
_NOVA_SIDES = range(320, 4097, 16)
_NOVA_PIXELS = 4_194_304
_NOVA_RATIO = 4


def _check_titan(size: tuple[int, int]) -> None:
    if size not in _TITAN_SIZES:
        known = ", ".join(f"{width}x{height}" for width, height in _TITAN_SIZES)
        wrong("size", f"auto or one of {known}, which Titan makes; got {size[0]}x{size[1]}")


def _check_nova(size: tuple[int, int]) -> None:
    width, height = size
    fits = width in _NOVA_SIDES and height in _NOVA_SIDES and width * height <= _NOVA_PIXELS
    if not fits or max(size) > _NOVA_RATIO * min(size):
        wrong(
            "size",
            f"auto, or sides of 320 to 4096 pixels that are multiples of 16, at most "
            f"{_NOVA_PIXELS} pixels in all and no side more than four times the other, which Nova "
            f"Canvas makes; got {width}x{height}",
        )


class _Amazon:
    """Titan Image Generator and Nova Canvas, which have one format."""

    def __init__(self, name: str, *, nova: bool) -> None:
        self._name = name
        self._nova = nova

    def white_is_edited(self, request: ImagesRequest) -> bool:
        """What is black is inside of the mask: inpainting changes that, outpainting the rest."""
        return self._task(request) == "OUTPAINTING"

    def render(self, request: ImagesRequest, mask: bytes | None) -> Order:
        name = self._task(request)
        task, settings = _TASKS[name], _Settings(request.settings)
        settings.take("taskType")
        params = {
            **self._params(task, request, settings, mask),
            **settings.object(task.params),
        }
        self._check(task, request, params)
        body: dict[str, object] = {"taskType": name, task.params: params}
        if not task.configured and request.n != 1:
            wrong("n", f"1: {name} makes one image")
        bodies = [body]
        if task.configured:
            config = self._config(task, request, settings)
            bodies = [{**body, _CONFIG: each} for each in _counts(config, request.n)]
        return Order(tuple(bodies), (*settings.left(), *self._dropped(task, request)))

    def is_asked_for(self, request: ImagesRequest) -> bool:
        """Whether the request has members that only Amazon's models have."""
        return bool({"taskType", _CONFIG, *_BY_PARAMS} & request.settings.keys())

    def _task(self, request: ImagesRequest) -> str:
        said = request.settings
        by_params = [name for params, name in _BY_PARAMS.items() if said.get(params) is not None]
        if "taskType" in said:
            name = a_text(said["taskType"], "taskType")
        elif by_params:
            name = by_params[0]
        elif request.images:
            masked = request.mask or "maskPrompt" in said or "mask_prompt" in said
            name = "INPAINTING" if masked else "IMAGE_VARIATION"
        else:
            name = "COLOR_GUIDED_GENERATION" if "colors" in said else "TEXT_IMAGE"
        known = [each for each in _TASKS if self._nova or each not in _OF_NOVA]
        if name not in known:
            wrong("taskType", f"one of {', '.join(known)}, which {self._name} does")
        return name

    def _params(
        self, task: _Task, request: ImagesRequest, settings: _Settings, mask: bytes | None
    ) -> dict[str, object]:
        params: dict[str, object] = {}
        if task.text:
            params["text"] = request.prompt
            params |= settings.some(frozenset({"negativeText"}))
        options = task.options
        style = request.settings.get("style")
        if not self._nova or (isinstance(style, str) and style in _STYLES_OF_OPENAI):
            options -= {"style"}
        params |= settings.some(options)
        params |= self._images(task, request)
        return params | (self._mask(task, mask) if mask is not None else {})

    def _mask(self, task: _Task, mask: bytes) -> dict[str, object]:
        image = {"maskImage": base64.b64encode(mask).decode()}
        if task.mask:
            return {**image}
        if task.params == "virtualTryOnParams":
            return {"maskType": "IMAGE", "imageBasedMask": image}
        raise FormatError(
            "mask: expected none for this task; INPAINTING and OUTPAINTING (taskType) take one"
        )

    def _images(self, task: _Task, request: ImagesRequest) -> dict[str, object]:
        for index, image in enumerate(request.images):
            if image.media_type == WEBP:
                wrong(f"image[{index}]", f"a PNG or JPEG file: {self._name} takes no WebP")
        most = _MOST_VARIED if task.has_list else len(task.images)
        if len(request.images) > most:
            wrong("image", f"at most {most} for {task.params}, got {len(request.images)}")
        all_encoded = [encoded(image) for image in request.images]
        if task.has_list:
            return {task.images[0]: all_encoded} if all_encoded else {}
        return dict(zip(task.images, all_encoded, strict=False))

    def _check(self, task: _Task, request: ImagesRequest, params: Json) -> None:
        missing = [name for name in task.images if name not in params]
        if task.needs_image and missing:
            what = "send an edit with it" if not request.images else f"{task.params}.{missing[0]}"
            wrong("image", f"an image to work on; it is missing: {what}")
        if task.mask and not {"maskImage", "maskPrompt"} & params.keys():
            wrong(
                "mask",
                "a PNG file that is transparent where to edit, or `maskPrompt`, a text that says "
                "where; both are missing",
            )
        if request.output_format not in (None, "png"):
            wrong("output_format", f"png: {self._name} makes no other")

    def _config(
        self, task: _Task, request: ImagesRequest, settings: _Settings
    ) -> dict[str, object]:
        config: dict[str, object] = {}
        if request.quality is not None:
            if request.quality not in _QUALITIES:
                wrong("quality", f"auto or one of {', '.join(_QUALITIES)}")
            config["quality"] = _QUALITIES[request.quality]
        if task.sized and request.size is not None:
            (_check_nova if self._nova else _check_titan)(request.size)
            config["width"], config["height"] = request.size
        config |= settings.some(frozenset({"seed", "cfgScale"}))
        return {**config, **settings.object(_CONFIG)}

    def _dropped(self, task: _Task, request: ImagesRequest) -> list[str]:
        """What has a name of its own in the request."""
        unfit = {
            "background": request.background is not None and task.text,
            "prompt": not task.text,
            "quality": request.quality is not None and not task.configured,
            "size": request.size is not None and not task.sized,
        }
        return [name for name, is_unfit in unfit.items() if is_unfit]

    def parse(self, value: Json) -> tuple[Image, ...] | ProviderError:
        """What its filters leave of the images, and why there are fewer, where there are any."""
        found = images_of(value)
        if found:
            return found
        error = text_of(value, "error")
        return blocked(error) if error else ()


class _Settings:
    """The client's other parameters, of which some are taken."""

    def __init__(self, settings: Json) -> None:
        self._left = dict(settings)

    def take(self, name: str) -> object:
        """One, None where there is none."""
        return self._left.pop(name, None)

    def some(self, names: frozenset[str]) -> dict[str, object]:
        """Those of `names`, which are the provider's; also under the names of _ALIASES."""
        found: dict[str, object] = {}
        for said in [*self._left]:
            name = _ALIASES.get(said, said)
            if name in names:
                found[name] = self._left.pop(said)
        return found

    def object(self, name: str) -> Json:
        """One that is an object of the provider's own. Raises FormatError."""
        value = self.take(name)
        return {} if value is None else an_object(value, name)

    def left(self) -> list[str]:
        """The names of the others."""
        return [*self._left]


def _counts(config: dict[str, object], n: int) -> list[dict[str, object]]:
    """The configuration of each call, at most five images a call. Later ones have another seed,
    else they would make the same images."""
    if config.get("numberOfImages") is not None:
        return [config]
    seed = config.get("seed")
    found = []
    for start in range(0, n, _MOST_AT_ONCE):
        each = {**config, "numberOfImages": min(n - start, _MOST_AT_ONCE)}
        if start:
            each["seed"] = ((seed if type(seed) is int else 0) + start) % _SEEDS
        found.append(each)
    return found


def images_of(value: Json) -> tuple[Image, ...]:
    """The images of an answer: Amazon's and Stability's have them under the same name."""
    found = value.get("images")
    texts = found if isinstance(found, list) else []
    return tuple(Image(base64=text) for text in texts if isinstance(text, str) and text)


TITAN = _Amazon("Titan Image Generator", nova=False)
NOVA = _Amazon("Nova Canvas", nova=True)

_TITAN = re.compile(r"(?:^|[./])amazon\.titan-image-generator")
_NOVA = re.compile(r"(?:^|[./])amazon\.[a-z0-9-]*(?:canvas|image)")


def amazon_model(model: str) -> ImageModel | None:
    """How a model of Amazon's is asked whose id stands in `model`, which may be an inference
    profile's or an ARN; None where it is none that makes images. What came later than Nova Canvas
    is asked as that is."""
    if _TITAN.search(model):
        return TITAN
    return NOVA if _NOVA.search(model) else None
