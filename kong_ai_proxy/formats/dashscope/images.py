"""Images of Qwen and Wan: https://www.alibabacloud.com/help/en/model-studio/text-to-image,
https://www.alibabacloud.com/help/en/model-studio/qwen-image-edit,
https://www.alibabacloud.com/help/en/model-studio/wan-image-edit.

There are two protocols: the newer one takes a message and may be called for the answer itself
(multimodal-generation); the older one takes a prompt and makes a task, which is polled for
(text2image, image2image). Which one a model speaks is said by `way`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from kong_ai_proxy.formats import dashscope
from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.fields import object_of, objects_of, text_of
from kong_ai_proxy.formats.images import (
    BLOCKED,
    BLOCKED_TYPE,
    Image,
    ImagesAnswer,
    ImagesRequest,
    Picture,
)
from kong_ai_proxy.formats.sizes import Limits, Size, nearest, within
from kong_ai_proxy.formats.usage import MAX_COUNT, Usage

_Object = Mapping[str, object]


class Way(Enum):
    """How a model is called."""

    MESSAGE = "multimodal-generation/generation"
    """For the answer itself."""
    TEXT_TASK = "text2image/image-synthesis"
    IMAGE_TASK = "image2image/image-synthesis"


def way(model: str, *, is_edit: bool) -> Way:
    """How a model is called. Tasks are for Wan up to 2.5 and for the models of others
    (https://docs.qwencloud.com/api-reference/image-generation/wan-text-to-image-v2/create-task has
    a table); Qwen and what came later, and what is not known here, take messages."""
    if not _OLDER.match(model):
        return Way.MESSAGE
    return Way.IMAGE_TASK if is_edit else Way.TEXT_TASK


_OLDER = re.compile(r"wanx|wan2\.[0-5](?!\d)|flux|stable-diffusion")


class _Makes(NamedTuple):
    """What a model makes."""

    most: int
    """Images by one call."""
    sizes: tuple[Size, ...] | Limits | None
    """None: it chooses the size itself."""
    alone: Limits | None = None
    """Of an image that is made from a text and for itself, where that may be larger."""


# The pages above, and of qwen-image-edit https://docs.qwencloud.com/api-reference/
# image-generation/qwen-image-editing. An area of 768*768 to 1280*1280: https://www.alibabacloud.com
# /help/en/model-studio/wan2-5-image-edit-api-reference.
_QWEN_SIZES = ((1664, 928), (1472, 1104), (1328, 1328), (1104, 1472), (928, 1664))
_UP_TO_2K = Limits(512 * 512, 2048 * 2048)
_SIDES_TO_2K = _UP_TO_2K._replace(shortest=512, longest=2048)
_SIDES_TO_1440 = Limits(512 * 512, 1440 * 1440, shortest=512, longest=1440)
_WAN = Limits(768 * 768, 2048 * 2048, widest=8)
_MODELS = (
    (re.compile(r"qwen-image-edit(?!-plus|-max)"), _Makes(1, None)),
    (re.compile(r"qwen-image-edit"), _Makes(6, _SIDES_TO_2K)),
    (re.compile(r"qwen-image(?:$|-plus|-max)"), _Makes(1, _QWEN_SIZES)),
    (re.compile(r"qwen-image"), _Makes(6, _UP_TO_2K)),
    (re.compile(r"z-image"), _Makes(1, _UP_TO_2K)),
    (
        re.compile(r"wan2\.5-i2i|wan2\.6-image"),
        _Makes(4, Limits(768 * 768, 1280 * 1280, widest=4)),
    ),
    (re.compile(r"wan2\.[56]-"), _Makes(4, Limits(1280 * 1280, 1440 * 1440, widest=4))),
    (re.compile(r"wanx2\.1-imageedit"), _Makes(4, None)),
    (re.compile(r"wanx|wan2\.[0-4]"), _Makes(4, _SIDES_TO_1440)),
    (re.compile(r"wan2\.7-image-pro"), _Makes(4, _WAN, _WAN._replace(most_area=4096 * 4096))),
    (re.compile(r"wan"), _Makes(4, _WAN)),
)
_UNKNOWN = _Makes(1, Limits(1, 1 << 32))


def _makes(model: str) -> _Makes:
    return next((makes for pattern, makes in _MODELS if pattern.match(model)), _UNKNOWN)


def takes_mask(model: str) -> bool:
    """Whether a model takes a mask beside the image."""
    return "imageedit" in model


def most(model: str) -> int:
    """How many images a model makes by one call."""
    return _makes(model).most


# ---- requests

# Members of `parameters`: the pages above,
# https://www.alibabacloud.com/help/en/model-studio/wanx-image-edit and, for what came with Wan 2.7,
# https://docs.qwencloud.com/api-reference/image-generation/wan27-image-gen-edit/create-task.
_PARAMETERS = frozenset(
    {
        "bbox_list",
        "bottom_scale",
        "color_palette",
        "enable_interleave",
        "enable_sequential",
        "is_sketch",
        "left_scale",
        "max_images",
        "negative_prompt",
        "prompt_extend",
        "ref_mode",
        "ref_strength",
        "right_scale",
        "seed",
        "strength",
        "style",
        "thinking_mode",
        "top_scale",
        "upscale_factor",
        "watermark",
    }
)
# Of `input`, where that has a prompt and no message.
_INPUTS = frozenset({"function", "negative_prompt", "ref_img", "sketch_image_url"})
_OPENAI_STYLES = frozenset({"natural", "vivid"})


def request(wanted: ImagesRequest, count: int, by: Way) -> Rendered:
    """The request for `count` images, at most `most` of them. The size is the one of the model's
    that comes nearest to what was asked for; what the client says in `parameters` itself wins. The
    mask is white where to edit. Raises FormatError."""
    dropped = list(_without_meaning(wanted))
    asked = _message(wanted) if by is Way.MESSAGE else _prompt(wanted, by)
    parameters = _sized(wanted, dropped)
    inputs = frozenset() if by is Way.MESSAGE else _INPUTS
    for name, value in _said(wanted):
        if name in inputs:
            asked[name] = value
        elif name in _PARAMETERS and not (name == "style" and value in _OPENAI_STYLES):
            parameters[name] = value
        else:
            dropped.append(name)
    parameters |= _own_size(wanted)
    parameters["n"] = count
    body: dict[str, object] = {"model": wanted.model, "input": asked, "parameters": parameters}
    return Rendered(body, tuple(dropped))


def _said(wanted: ImagesRequest) -> Iterator[tuple[str, object]]:
    """What the client says besides, at the top or where Dashscope has it."""
    for name, value in wanted.settings.items():
        if name == "parameters" and isinstance(value, dict):
            yield from ((own, each) for own, each in value.items() if own not in ("n", "size"))
        else:
            yield name, value


def _without_meaning(wanted: ImagesRequest) -> Iterator[str]:
    """They make PNG and nothing else."""
    if wanted.quality is not None:
        yield "quality"
    if wanted.background == "transparent":
        yield "background"
    if wanted.output_format not in (None, "png"):
        yield "output_format"


def _sized(wanted: ImagesRequest, dropped: list[str]) -> dict[str, object]:
    sizes = _sizes(wanted)
    if wanted.size is None:
        return {}
    if sizes is None:
        dropped.append("size")
        return {}
    fits = within(wanted.size, sizes) if isinstance(sizes, Limits) else nearest(wanted.size, sizes)
    return {"size": f"{fits[0]}*{fits[1]}"}


def _sizes(wanted: ImagesRequest) -> tuple[Size, ...] | Limits | None:
    makes = _makes(wanted.model)
    is_alone = not wanted.images and not dict(_said(wanted)).get("enable_sequential")
    return makes.alone or makes.sizes if is_alone else makes.sizes


def _own_size(wanted: ImagesRequest) -> dict[str, object]:
    """In Dashscope's words, such as 1280*1280 or 2K."""
    size = object_of(wanted.settings, "parameters").get("size")
    return {} if size is None else {"size": size}


def _message(wanted: ImagesRequest) -> dict[str, object]:
    _check_no_mask(wanted)
    content: list[_Object] = [{"image": _data_url(image)} for image in wanted.images]
    return {"messages": [{"role": "user", "content": [*content, {"text": wanted.prompt}]}]}


def _prompt(wanted: ImagesRequest, by: Way) -> dict[str, object]:
    if by is Way.TEXT_TASK:
        return {"prompt": wanted.prompt}
    if takes_mask(wanted.model):
        return _base_and_mask(wanted)
    _check_no_mask(wanted)
    return {"prompt": wanted.prompt, "images": [_data_url(image) for image in wanted.images]}


def _base_and_mask(wanted: ImagesRequest) -> dict[str, object]:
    """https://www.alibabacloud.com/help/en/model-studio/wanx-image-edit: white is what changes."""
    if len(wanted.images) != 1:
        raise FormatError(f"image: {wanted.model} edits one image")
    asked: dict[str, object] = {
        "function": "description_edit",
        "prompt": wanted.prompt,
        "base_image_url": _data_url(wanted.images[0]),
    }
    if wanted.mask is not None:
        asked["function"] = "description_edit_with_mask"
        asked["mask_image_url"] = _data_url(wanted.mask)
    return asked


def _check_no_mask(wanted: ImagesRequest) -> None:
    if wanted.mask is not None:
        raise FormatError(
            f"mask: {wanted.model} takes none: say in the prompt what is to change, or use "
            "wanx2.1-imageedit"
        )


def _data_url(image: Picture) -> str:
    return f"data:{image.media_type};base64,{b64encode(image.content).decode()}"


# ---- answers

# https://www.alibabacloud.com/help/en/model-studio/error-code: what of a prompt or of an image its
# filter stops.
_FILTERED = frozenset({"DataInspectionFailed", "IPInfringementSuspect"})


def parse_error(status: int, body: bytes) -> ProviderError:
    """A provider's error of any content."""
    return _as_openais(dashscope.parse_error(status, body))


def told(value: object) -> ProviderError | None:
    """The error that an answer is, or the `output` of a task; None where it is none."""
    error = dashscope.told(value)
    return _as_openais(error) if error else None


def _as_openais(error: ProviderError) -> ProviderError:
    """What the filter has stopped has the kind and code that OpenAI has for it."""
    if (error.code or "").partition(".")[0] not in _FILTERED:
        return error
    return error._replace(type=BLOCKED_TYPE, code=BLOCKED)


def task_id(value: _Object) -> str:
    """The task that was made; "" where the answer names none."""
    return text_of(object_of(value, "output"), "task_id")


def is_over(value: _Object) -> bool:
    """Whether nothing more will become of a task: PENDING and RUNNING are others."""
    return text_of(object_of(value, "output"), "task_status") not in ("PENDING", "RUNNING")


def answer(value: _Object) -> ImagesAnswer | ProviderError:
    """The images of an answer or of a task that is over, parsed JSON; an error where there is
    none, which tells why. Of several, some may have failed: the others are the answer."""
    output = object_of(value, "output")
    images = (*_chosen(output), *_results(output))
    if images:
        return ImagesAnswer(images=images, usage=_usage(object_of(value, "usage")))
    faults = (told(each) for each in (value, output, *objects_of(output, "results")))
    found = next((fault for fault in faults if fault), None)
    status = text_of(output, "task_status")
    said = "".join(_texts(output))[:2000]
    if found is not None:
        return found
    if said:
        message = f"the model made no image: {said}"
        return ProviderError(message, type=BLOCKED_TYPE, status=400, code=BLOCKED)
    if status in ("", "SUCCEEDED"):
        return _bad_gateway("the provider's answer is not usable: it has no image")
    return _bad_gateway(f"the task ended without images: {status}")


def _bad_gateway(text: str) -> ProviderError:
    return ProviderError(text, status=502)


def _chosen(output: _Object) -> Iterator[Image]:
    for part in _parts(output):
        if text_of(part, "image"):
            yield Image(url=text_of(part, "image"))


def _texts(output: _Object) -> Iterator[str]:
    """What some models write in place of an image, or beside it."""
    for part in _parts(output):
        yield text_of(part, "text")


def _parts(output: _Object) -> Iterator[_Object]:
    for choice in objects_of(output, "choices"):
        yield from objects_of(object_of(choice, "message"), "content")


def _results(output: _Object) -> Iterator[Image]:
    for result in objects_of(output, "results"):
        if text_of(result, "url"):
            prompt = text_of(result, "actual_prompt") or None
            yield Image(url=text_of(result, "url"), revised_prompt=prompt)


def _usage(value: _Object) -> Usage | None:
    """Tokens, which only some of the models tell."""
    prompt, completion = _count(value, "input_tokens"), _count(value, "output_tokens")
    if not prompt and not completion:
        return None
    total = _count(value, "total_tokens") or prompt + completion
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)


def _count(value: _Object, name: str) -> int:
    found = value.get(name)
    return found if type(found) is int and 0 <= found <= MAX_COUNT else 0
