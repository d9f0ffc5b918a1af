"""Images of Dashscope: in one call, or as tasks that are polled for.

What comes are addresses that live for 24 hours; clients that ask for base64 get the images
themselves.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.dashscope import images as dashscope_images
from kong_ai_proxy.formats.dashscope.images import Way
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.images import PNG, ImagesAnswer, ImagesRequest, Picture, seeded
from kong_ai_proxy.providers import images
from kong_ai_proxy.providers.flow import (
    FIRST_ERROR,
    Patience,
    ProviderFailed,
    Send,
    Step,
    Wanted,
    asked,
    parsed,
    segment,
    sent,
    unusable,
)

_SERVICES = "/api/v1/services/aigc"
_TASKS = "/api/v1/tasks"
_LATER = {"x-dashscope-async": "enable"}

# Alibaba's storage, buckets of Dashscope's: what answers of the API reference show, such as
# dashscope-result-sh.oss-cn-shanghai.aliyuncs.com and dashscope-463f.oss-accelerate.aliyuncs.com.
_HOSTS = re.compile(r"dashscope[a-z0-9-]*\.oss-[a-z0-9-]+\.aliyuncs\.com", re.IGNORECASE)

# Questions for one task that fail one after the other until that is the answer.
_MOST_FAILED = 5
_TOO_MANY, _SERVER_ERROR = 429, 500

_Answer = Generator[Step, Any, ImagesAnswer]


def _make(request: ImagesRequest, wanted: Wanted) -> Generator[Step, Any, images.Made]:
    """As many images as were asked for, by as many calls as the model needs for them."""
    if not wanted.model:
        raise FormatError("model: expected a name")
    if request.mask is not None and dashscope_images.takes_mask(wanted.model):
        mask = yield from images.black_and_white(request.mask, white=True)
        request = replace(request, mask=Picture(mask, PNG))
    way = dashscope_images.way(wanted.model, is_edit=bool(request.images))
    rendered = list(_rendered(request, way))
    if way is Way.MESSAGE:
        answer = yield from images.gathered(_at_once(each, way) for each in rendered)
    else:
        answer = yield from _as_tasks(rendered, way, wanted)
    own = wanted.options.upstream_url
    answer = yield from images.downloaded(
        answer, request, _HOSTS, dashscope_images.parse_error, own
    )
    return images.Made(answer, rendered[0].dropped)


def _rendered(request: ImagesRequest, way: Way) -> Iterator[Rendered]:
    most = dashscope_images.most(request.model)
    for done in range(0, request.n, most):
        each = dashscope_images.request(request, min(most, request.n - done), way)
        yield each._replace(body=seeded(each.body, "parameters", done))


def _at_once(rendered: Rendered, way: Way) -> _Answer:
    send = Send("POST", f"{_SERVICES}/{way.value}", body=images.dumped(rendered.body))
    reply = yield from sent(send, dashscope_images.parse_error)
    return images.unless_told(dashscope_images.answer(parsed(reply)))


def _as_tasks(rendered: list[Rendered], way: Way, wanted: Wanted) -> _Answer:
    """All tasks are made first, so that they run beside each other."""
    tasks = []
    for each in rendered:
        body = images.dumped(each.body)
        send = Send("POST", f"{_SERVICES}/{way.value}", headers=_LATER, body=body)
        made = parsed((yield from sent(send, dashscope_images.parse_error)))
        tasks.append(_task(made))
    patience = Patience(wanted, "the image", 1.0)
    return (yield from images.gathered(_awaited(task, patience) for task in tasks))


def _task(made: Any) -> str:
    name = dashscope_images.task_id(made)
    if not name:
        raise ProviderFailed(dashscope_images.told(made) or unusable("it has no task_id").error)
    try:
        return f"{_TASKS}/{segment(name, 'task_id')}"
    except FormatError as error:
        raise unusable(str(error)) from None


def _awaited(path: str, patience: Patience) -> _Answer:
    """What becomes of a task. A question that fails now and then does not end the waiting: the
    task goes on, and is paid for."""
    failed = 0
    while True:
        yield from patience.pause()
        reply = yield from asked(Send("GET", path))
        failed = failed + 1 if _passes(reply.status) else 0
        if 0 < failed < _MOST_FAILED:
            continue
        if reply.status >= FIRST_ERROR:
            raise ProviderFailed(dashscope_images.parse_error(reply.status, reply.body))
        value = parsed(reply)
        if dashscope_images.is_over(value):
            return images.unless_told(dashscope_images.answer(value))


def _passes(status: int) -> bool:
    """Whether a question may be answered next time."""
    return status == _TOO_MANY or status >= _SERVER_ERROR


GENERATE = images.generation(_make)
EDIT = images.edit(_make)
