"""Images of Dashscope, Alibaba's Model Studio: in one call, and as tasks.

There are no types of the vendor's to check with; the models here are what the API reference has:
https://www.alibabacloud.com/help/en/model-studio/qwen-image-api,
https://docs.qwencloud.com/api-reference/image-generation/qwen-image-editing,
https://docs.qwencloud.com/api-reference/image-generation/wan-text-to-image-v2/create-task,
https://docs.qwencloud.com/api-reference/image-generation/wan25-general-image-editing/create-task,
https://www.alibabacloud.com/help/en/model-studio/wan-image-generation-and-editing-api-reference,
https://www.alibabacloud.com/help/en/model-studio/wanx-image-edit. `wan3.0-image` is made up, for a
model that comes later.

A Turn's `finish="content_filter"` is a refusal; that of the call that makes a task says how the
task ends. Images lie at addresses of the stand-in's own, which want no credentials.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from tests.providers import pictures
from tests.providers.strict import parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Turn,
    Upstream,
    json_reply,
    require_bearer,
    route,
)

_INSPECTED: Final = "Output data may contain inappropriate content."
_DATA_URL: Final = re.compile(r"data:image/(?:png|jpeg|webp);base64,(.+)")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Part(_Model):
    text: str | None = None
    image: str | None = None


class _Message(_Model):
    role: Literal["user"]
    content: list[_Part]


class _Messages(_Model):
    messages: list[_Message] = Field(min_length=1, max_length=1)


class _Prompt(_Model):
    prompt: str
    negative_prompt: str | None = None


class _Images(_Prompt):
    images: list[str] = Field(min_length=1, max_length=3)


class _ImageEdit(_Model):
    prompt: str
    function: str
    base_image_url: str
    mask_image_url: str | None = None


class _Parameters(_Model):
    n: int = 1
    size: str | None = Field(None, pattern=r"^\d+\*\d+$")
    seed: int | None = Field(None, ge=0, le=2147483647)
    watermark: bool | None = None


class _Extended(_Parameters):
    prompt_extend: bool | None = None


class _Messaged(_Extended):
    negative_prompt: str | None = None


class _Sequential(_Messaged):
    enable_sequential: bool | None = None
    thinking_mode: bool | None = None


class _Edited(_Parameters):
    strength: float | None = Field(None, ge=0, le=1)


class _Rules(_Model):
    """Of a model: where it is, what it takes."""

    path: str
    input: type[_Model]
    parameters: type[_Model]
    most: int
    sizes: str = ""
    """A pattern of those it makes."""
    area: tuple[int, int] | None = None
    side: tuple[int, int] | None = None
    widest: int = 0
    """How many times one side may have the other; 0: nobody says."""
    larger: tuple[int, int] | None = None
    """The area of what is made from a text alone, where it may be another."""
    images: tuple[int, int] = (0, 0)


_MESSAGE, _TEXT, _IMAGE = (
    "multimodal-generation/generation",
    "text2image/image-synthesis",
    "image2image/image-synthesis",
)
_QWEN = r"1664\*928|1472\*1104|1328\*1328|1104\*1472|928\*1664"
_TO_2K = (512 * 512, 2048 * 2048)
_WAN = (1280 * 1280, 1440 * 1440)
_WAN_2K, _WAN_4K = (768 * 768, 2048 * 2048), (768 * 768, 4096 * 4096)


def _rules(
    path: str, kind: type[_Model], parameters: type[_Model], most: int, **more: Any
) -> _Rules:
    return _Rules(path=path, input=kind, parameters=parameters, most=most, **more)


_MODELS: Final = {
    "qwen-image": _rules(_MESSAGE, _Messages, _Messaged, 1, sizes=_QWEN),
    "qwen-image-plus": _rules(_MESSAGE, _Messages, _Messaged, 1, sizes=_QWEN),
    "qwen-image-2.0": _rules(_MESSAGE, _Messages, _Messaged, 6, area=_TO_2K, images=(0, 3)),
    "qwen-image-edit": _rules(_MESSAGE, _Messages, _Messaged, 1, sizes="-", images=(1, 3)),
    "qwen-image-3.0": _rules(_MESSAGE, _Messages, _Messaged, 6, area=_TO_2K, images=(0, 3)),
    "qwen-image-edit-plus": _rules(
        _MESSAGE, _Messages, _Messaged, 6, side=(512, 2048), images=(1, 3)
    ),
    "wan2.7-image": _rules(
        _MESSAGE, _Messages, _Sequential, 4, area=_WAN_2K, widest=8, images=(0, 9)
    ),
    "wan2.7-image-pro": _rules(
        _MESSAGE, _Messages, _Sequential, 4, area=_WAN_2K, widest=8, images=(0, 9), larger=_WAN_4K
    ),
    "wan3.0-image": _rules(
        _MESSAGE, _Messages, _Sequential, 4, area=_WAN_2K, widest=8, images=(0, 9)
    ),
    "wan2.6-t2i": _rules(_MESSAGE, _Messages, _Messaged, 4, area=_WAN, widest=4),
    "wan2.5-t2i-preview": _rules(_TEXT, _Prompt, _Extended, 4, area=_WAN, widest=4),
    "wan2.2-t2i-flash": _rules(_TEXT, _Prompt, _Extended, 4, side=(512, 1440)),
    "wan2.5-i2i-preview": _rules(_IMAGE, _Images, _Extended, 4, area=(768 * 768, 1280 * 1280)),
    "wanx2.1-imageedit": _rules(_IMAGE, _ImageEdit, _Edited, 4, sizes="-"),
}


class DashscopeImages(Upstream):
    """dashscope-intl.aliyuncs.com and the storage its results lie in."""

    name = "dashscope"
    ROUTES = (
        (route("POST", f"/api/v1/services/aigc/{_MESSAGE}"), "generate"),
        (route("POST", "/api/v1/services/aigc/{kind}/image-synthesis"), "begin"),
        (route("GET", "/api/v1/tasks/{task}"), "poll"),
        (route("GET", "/results/{number}.png"), "download"),
    )

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, tuple[Turn, int]] = {}
        self.polls = 1
        """After how many questions a task is over."""

    @override
    def authorize(self, request: Recorded) -> None:
        """https://www.alibabacloud.com/help/en/model-studio/error-code#apikey-error"""
        if not request.path.startswith("/results/"):
            require_bearer(request, "No API-key provided.")
        elif "Authorization" in request.headers:
            raise RefusedError("the address is signed itself: InvalidArgument", 400)

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        code = {401: "InvalidApiKey", 429: "Throttling.RateQuota"}.get(status, "InvalidParameter")
        code = "InternalError" if status >= 500 else code
        return json_reply({"code": code, "message": message, "request_id": "r-1"}, status)

    def generate(self, request: Recorded, turn: Turn) -> Reply:
        """A message for the answer itself."""
        count = check(parsed(request.body), _MESSAGE)
        if turn.reason == "content_filter":
            return self._refused()
        choices = [
            {
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": [{"image": self._address(number)} for number in range(count)],
                },
            }
        ]
        usage = {"image_count": count, "width": 1328, "height": 1328}
        return json_reply({"output": {"choices": choices}, "usage": usage, "request_id": "r-1"})

    def begin(self, request: Recorded, turn: Turn, kind: str) -> Reply:
        """A task is made."""
        if request.headers.get("x-dashscope-async") != "enable":
            raise RefusedError("current user api does not support synchronous calls", 403)
        count = check(parsed(request.body), f"{kind}/image-synthesis")
        name = f"task-{len(self._tasks) + 1}"
        self._tasks[name] = (turn, count)
        output = {"task_status": "PENDING", "task_id": name}
        return json_reply({"output": output, "request_id": "r-1"})

    def poll(self, request: Recorded, turn: Turn, task: str) -> Reply:
        """How a task is."""
        made, count = self._tasks[task]
        asked = sum(seen.path == request.path for seen in self.requests)
        output: Json = {"task_id": task, "task_status": "RUNNING"}
        if asked < self.polls:
            return json_reply({"output": output, "request_id": "r-1"})
        if made.reason == "content_filter":
            failed = {"task_status": "FAILED", "code": "DataInspectionFailed"}
            output |= {**failed, "message": _INSPECTED}
            return json_reply({"output": output, "request_id": "r-1"})
        prompts = {"orig_prompt": "A", "actual_prompt": "A, in detail"}
        results = [{**prompts, "url": self._address(number)} for number in range(count)]
        output |= {"task_status": "SUCCEEDED", "results": results}
        usage = {"image_count": count}
        return json_reply({"output": output, "usage": usage, "request_id": "r-1"})

    def download(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """An image that was made."""
        if request.params.get("Expires") != "1":
            raise RefusedError("AccessDenied", 403)
        return Reply(pictures.PNG, content_type="image/png")

    def _address(self, number: int) -> str:
        return f"{self.url}/results/{number}.png?Expires=1&Signature=a%2Fb"

    def _refused(self) -> Reply:
        value = {"code": "DataInspectionFailed", "message": _INSPECTED, "request_id": "r-1"}
        return json_reply(value, 400)


def check(body: Json, path: str) -> int:
    """A request for images at the path below `aigc/`; how many. Raises RefusedError."""
    rules = _MODELS.get(str(body.get("model")))
    if rules is None or set(body) != {"model", "input", "parameters"}:
        raise RefusedError("Model not exist." if rules is None else f"unknown members {set(body)}")
    if rules.path != path:
        raise RefusedError(f"url error: {body['model']} is called at {rules.path}")
    try:
        asked: Any = rules.input.model_validate(body["input"])
        parameters: Any = rules.parameters.model_validate(body["parameters"])
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise RefusedError("; ".join(lines)) from None
    if not 1 <= parameters.n <= rules.most:
        raise RefusedError(f"num_images_per_prompt must be 1 to {rules.most}")
    is_alone = not getattr(parameters, "enable_sequential", None)
    if isinstance(asked, _Messages):
        _check_content(asked.messages[0].content, rules)
        is_alone &= not any(part.image for part in asked.messages[0].content)
    _check_size(parameters.size, rules, rules.larger if is_alone else None)
    _check_images(asked)
    return int(parameters.n)


def _check_size(size: str | None, rules: _Rules, larger: tuple[int, int] | None) -> None:
    if size is None:
        return
    width, height = map(int, size.split("*"))
    if rules.sizes and not re.fullmatch(rules.sizes, size):
        raise RefusedError(f"size {size} must match {rules.sizes}")
    area = larger or rules.area
    if area and not area[0] <= width * height <= area[1]:
        raise RefusedError(f"size {size}: total pixels must be in {area}")
    if rules.widest and max(width, height) > rules.widest * min(width, height):
        raise RefusedError(f"size {size}: the ratio must be within 1:{rules.widest}")
    if (
        rules.side
        and not rules.side[0] <= min(width, height) <= max(width, height) <= rules.side[1]
    ):
        raise RefusedError(f"size {size}: sides must be in {rules.side}")


def _check_content(content: list[_Part], rules: _Rules) -> None:
    images = [part.image for part in content if part.image is not None]
    texts = [part.text for part in content if part.text is not None]
    if len(texts) != 1 or len(texts) + len(images) != len(content):
        raise RefusedError("content must have exactly one text")
    if not rules.images[0] <= len(images) <= rules.images[1]:
        raise RefusedError(f"content must have {rules.images} images")
    for image in images:
        _picture(image)


def _check_images(asked: Any) -> None:
    if isinstance(asked, _Images):
        for image in asked.images:
            _picture(image)
    if isinstance(asked, _ImageEdit):
        _picture(asked.base_image_url)
        if (asked.function == "description_edit_with_mask") != bool(asked.mask_image_url):
            raise RefusedError("mask_image_url is for description_edit_with_mask")
        if asked.mask_image_url and not set(_pixels(asked.mask_image_url)) <= {0, 255}:
            raise RefusedError("the mask must be black and white")


def _picture(url: str) -> bytes:
    found = _DATA_URL.fullmatch(url)
    if not found:
        raise RefusedError(f"not an image: {url[:40]}")
    return pictures.decoded(found[1])


def _pixels(url: str) -> bytes:
    return pictures.pixels(_picture(url))
