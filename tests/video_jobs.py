"""Flows of videos driven by hand, over payloads of the API references in
tests/unit/providers/videos.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types import Video
from openai.types.video_create_error import VideoCreateError

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.openai.videos import name_of, video_id
from kong_ai_proxy.providers.flow import Flow, ProviderFailed, Reply
from tests import flows
from tests.flows import Driven, reply

Json = dict[str, Any]

FIXTURES: dict[str, Json] = json.loads(
    (Path(__file__).parent / "unit/providers/videos.json").read_text()
)
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 20
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 "


def payload(name: str, **changes: Any) -> Json:
    """A provider's answer as its reference shows it."""
    assert FIXTURES[name]["source"].startswith("https://")
    return {**FIXTURES[name]["value"], **changes}


def ask(
    flow: Flow,
    method: str,
    *rest: str,
    replies: Any = (),
    driven: Driven | None = None,
    **fields: Any,
) -> Driven:
    """Drive a flow of videos; replies that are no Reply are JSON of a 200."""
    answers = [each if isinstance(each, Reply) else reply(each) for each in replies]
    asked = flows.wanted(openai.VIDEOS, method=method, rest=rest, collection="videos", **fields)
    return flows.run(flow, asked, answers, driven=driven)


def create(flow: Flow, model: str, *replies: Any, **fields: Any) -> Driven:
    """Start a job; what is left over are members of the request."""
    known = {name: fields.pop(name) for name in ("options", "parts", "query") if name in fields}
    body = {"prompt": "a river", **fields}
    return ask(flow, "POST", replies=replies, model=model, body=body, **known)


def checked(driven: Driven) -> Video:
    """The job that a client gets, which OpenAI's own type takes member by member."""
    value = driven.value
    assert value.keys() == Video.model_fields.keys()
    if value["error"]:
        assert value["error"].keys() <= VideoCreateError.model_fields.keys()
    # The type has OpenAI's own sizes only.
    video = Video.model_validate({**value, "size": "1280x720"}, strict=True)
    assert len(video.id) < 512
    assert video_id(str(name_of(video.id))) == video.id
    return video.model_copy(update={"size": value["size"]})


def failed(flow: Flow, method: str, *rest: str, **fields: Any) -> Any:
    """The error that a client gets."""
    with pytest.raises(ProviderFailed) as caught:
        ask(flow, method, *rest, **fields)
    return caught.value.error


BAD_NAMES = (
    "../secrets",
    "models/veo-3/operations/../../files",
    "veo-3/op/1/8/1280x720/../x",
    "a/b",
    "arn:aws:bedrock:us-east-1:123456789012:async-invoke/../abcdefghij12",
    "arn:aws:s3:us-east-1:123456789012:async-invoke/abcdefghij12",
    "task_1?api-version=x",
    "task_1/../../files",
    "task_1#x",
    "%2e%2e",
    "x" * 375,
)
"""What a client may make an id of, and no provider has."""
