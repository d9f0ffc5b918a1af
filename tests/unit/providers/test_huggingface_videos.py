"""Videos through Hugging Face's router.

Payloads: https://huggingface.co/docs/inference-providers/register-as-a-provider (the mapping) and
https://docs.fal.ai/model-apis/model-endpoints/queue.
"""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.openai.videos import name_of, video_id
from kong_ai_proxy.providers.base import Call, Endpoint
from kong_ai_proxy.providers.flow import Passed, ProviderFailed
from kong_ai_proxy.providers.huggingface import HUGGINGFACE
from kong_ai_proxy.providers.huggingface.videos import VIDEOS
from tests.flows import NOW, Driven, reply
from tests.video_jobs import BAD_NAMES, PNG, Json, ask, checked, create, failed

MODEL = "Wan-AI/Wan2.2-TI2V-5B"
REQUEST = "/fal-ai/wan/requests/764cabcf-b745-4b3e-ae38-1200304cf45b"
PATH = f"/fal-ai{REQUEST}"
NAME = f"{int(NOW)};{MODEL};{REQUEST}"
GIVEN = video_id(NAME)
QUEUED: Json = {
    "status": "IN_QUEUE",
    "request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b",
    "response_url": f"https://queue.fal.run{REQUEST}",
    "status_url": f"https://queue.fal.run{REQUEST}/status",
    "cancel_url": f"https://queue.fal.run{REQUEST}/cancel",
    "queue_position": 0,
}
DONE: Json = {
    "video": {
        "url": "https://v3.fal.media/files/rabbit/video.mp4?a=b",
        "content_type": "video/mp4",
        "file_name": "video.mp4",
    },
    "seed": 424911732,
}


def mapping(task: str = "text-to-video", **more: Any) -> Json:
    """The Hub's answer about a model."""
    partner = {
        "provider": "fal-ai",
        "providerId": "fal-ai/wan/v2.2-5b/text-to-video",
        "status": "live",
        "task": task,
        **more,
    }
    other = {"provider": "replicate", "providerId": "wan-video/x", "status": "live", "task": task}
    return {"id": MODEL, "inferenceProviderMapping": [other, partner]}


def start(*, hub: Json | None = None, model: str = MODEL, **body: Any) -> Driven:
    return create(VIDEOS, model, mapping() if hub is None else hub, QUEUED, **body)


def test_a_job_is_started() -> None:
    driven = start()
    hub, queue = driven.sends
    assert (hub.method, hub.base_url, hub.path) == (
        "GET",
        "https://huggingface.co",
        f"/api/models/{MODEL}",
    )
    assert hub.query == "expand=inferenceProviderMapping"
    assert (queue.method, queue.base_url) == ("POST", "")
    assert queue.path == "/fal-ai/fal-ai/wan/v2.2-5b/text-to-video"
    assert queue.query == "_subdomain=queue"
    assert driven.sent(1)["prompt"] == "a river"
    video = checked(driven)
    assert (video.id, video.status, video.model, video.prompt) == (
        GIVEN,
        "queued",
        MODEL,
        "a river",
    )
    assert video.created_at == NOW


def test_a_model_that_is_missing_is_said_to_be() -> None:
    with pytest.raises(FormatError, match=r"with :.*, it is missing"):
        start(model="")


def test_parameters_of_the_model_go_through() -> None:
    driven = start(guidance_scale=5, negative_prompt="fog", seed=3)
    expected = {"prompt": "a river", "guidance_scale": 5, "negative_prompt": "fog", "seed": 3}
    assert driven.sent(1) == expected


def test_numbers_of_a_form_are_numbers() -> None:
    driven = start(num_frames="81", guidance_scale="2.5", seed="3", resolution="720p")
    assert driven.sent(1) == {
        "prompt": "a river",
        "num_frames": 81,
        "guidance_scale": 2.5,
        "seed": 3,
        "resolution": "720p",
    }


@pytest.mark.parametrize(
    "said", [{"num_frames": "x"}, {"seed": "1.5"}, {"guidance_scale": "nan"}, {"seed": [1]}]
)
def test_what_is_no_number_is_refused(said: Json) -> None:
    with pytest.raises(FormatError, match=f"{next(iter(said))}: expected a"):
        start(**said)


def test_what_models_name_differently_is_dropped_and_told() -> None:
    driven = start(seconds="4", size="1280x720")
    assert driven.sent(1) == {"prompt": "a river"}
    assert driven.result
    assert driven.result.dropped == ("seconds", "size")  # type: ignore[union-attr]


def test_an_image_is_another_task() -> None:
    parts = (Part("input_reference", "x.png", "", PNG),)
    driven = start(hub=mapping("image-to-video"), parts=parts)
    assert driven.sent(1)["image_url"].startswith("data:image/png;base64,iVBOR")
    with pytest.raises(FormatError, match="not available for image-to-video"):
        start(parts=parts)


def test_an_adapter_is_applied() -> None:
    driven = start(hub=mapping(adapterWeightsPath="a b.safetensors"))
    path = f"https://huggingface.co/{MODEL}/resolve/main/a%20b.safetensors"
    assert driven.sent(1)["loras"] == [{"path": path, "scale": 1}]


def test_the_hubs_older_answer() -> None:
    partner = {"providerId": "fal-ai/wan", "status": "live", "task": "text-to-video"}
    driven = start(hub={"inferenceProviderMapping": {"fal-ai": partner}})
    assert driven.sends[1].path == "/fal-ai/fal-ai/wan"


def test_a_model_may_name_the_partner() -> None:
    assert start(model=f"{MODEL}:fal-ai").sends[0].path == f"/api/models/{MODEL}"


@pytest.mark.parametrize(
    "model", ["", "wan", "a/../b", "../x", "a/b/c", "a/b?c", f"{MODEL}:replicate", "a/b#", "é/x"]
)
def test_a_model_is_an_owner_and_a_name(model: str) -> None:
    with pytest.raises(FormatError, match="model: expected owner/name"):
        start(model=model)


@pytest.mark.parametrize(
    "hub",
    [
        {},
        {"inferenceProviderMapping": []},
        {"inferenceProviderMapping": {}},
        {"inferenceProviderMapping": "x"},
        mapping("text-to-image"),
        mapping(status="error"),
        mapping(providerId="../x"),
        mapping(providerId="a/../../b"),
        mapping(providerId="a/b?c"),
    ],
)
def test_a_model_that_the_partner_has_not(hub: Json) -> None:
    with pytest.raises(FormatError, match="model: "):
        start(hub=hub)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (reply({"error": "Repository not found"}, 404), 404, "Repository not found"),
        (reply({"error": "Invalid credentials in Authorization header"}, 401), 401, "Invalid"),
        (reply(b"", 500), 500, "status 500"),
        (reply(b"<html>", 200), 502, "not usable"),
    ],
)
def test_errors_of_the_hub(answer: Any, status: int, text: str) -> None:
    with pytest.raises(ProviderFailed, match=text) as caught:
        create(VIDEOS, MODEL, answer)
    assert caught.value.error.status == status


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**QUEUED, "response_url": "https://queue.fal.run/../x"},
        {**QUEUED, "response_url": "https://queue.fal.run/fal-ai/../requests/1"},
        reply(b"[]"),
    ],
)
def test_a_queue_that_tells_nothing_usable(answer: Any) -> None:
    with pytest.raises(ProviderFailed, match="not usable"):
        create(VIDEOS, MODEL, mapping(), answer)


@pytest.mark.parametrize(
    ("told", "status"), [("IN_QUEUE", "queued"), ("IN_PROGRESS", "in_progress")]
)
def test_a_job_under_way(told: str, status: str) -> None:
    driven = ask(VIDEOS, "GET", GIVEN, replies=[{"status": told}])
    (send,) = driven.sends
    assert (send.path, send.query) == (f"{PATH}/status", "_subdomain=queue")
    video = checked(driven)
    assert (video.id, video.status, video.model) == (GIVEN, status, MODEL)
    assert video.created_at == NOW


def test_a_job_that_is_done() -> None:
    driven = ask(VIDEOS, "GET", GIVEN, replies=[{"status": "COMPLETED"}, DONE])
    assert (driven.sends[1].path, driven.sends[1].query) == (PATH, "_subdomain=queue")
    assert checked(driven).status == "completed"


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (
            reply({"detail": [{"msg": "not allowed", "type": "content_policy_violation"}]}, 422),
            "moderation_blocked",
            "not allowed",
        ),
        (reply({"detail": "out of memory"}, 500), "generation_failed", "out of memory"),
        (reply({"detail": []}, 422), "generation_failed", "status 422"),
    ],
)
def test_a_job_that_failed(answer: Any, code: str, text: str) -> None:
    replies = [{"status": "COMPLETED"}, answer]
    video = checked(ask(VIDEOS, "GET", GIVEN, replies=replies))
    assert video.status == "failed"
    assert video.error
    assert video.error.code == code
    assert text in video.error.message
    assert failed(VIDEOS, "GET", GIVEN, "content", replies=replies).status == 404


def test_the_video() -> None:
    replies = [{"status": "COMPLETED"}, DONE]
    passed = ask(VIDEOS, "GET", GIVEN, "content", replies=replies).result
    assert isinstance(passed, Passed)
    send = passed.send
    assert (send.base_url, send.path, send.query) == (
        "https://v3.fal.media",
        "/files/rabbit/video.mp4",
        "a=b",
    )
    assert not send.is_own
    assert passed.media_type == "video/mp4"


@pytest.mark.parametrize(
    "url",
    [
        "http://v3.fal.media/x",
        "https://evil.example/x",
        "https://v3.fal.media.evil.example/x",
        "https://evilfal.media/x",
        "https://a@v3.fal.media/x",
        "https://v3.fal.media:8443/x",
        "https://v3.fal.media:x/x",
        "https://169.254.169.254/x",
        "file:///etc/passwd",
        "https://v3.fal.media/a b",
    ],
)
def test_a_video_that_lies_elsewhere(url: str) -> None:
    replies = [{"status": "COMPLETED"}, {"video": {"url": url}}]
    error = failed(VIDEOS, "GET", GIVEN, "content", replies=replies)
    assert error.status == 502


@pytest.mark.parametrize(
    "replies",
    [
        [{"status": "LOST"}],
        [{}],
        [{"status": "COMPLETED"}, {}],
        [{"status": "COMPLETED"}, {"video": {}}],
        [{"status": "COMPLETED"}, reply(b"x")],
    ],
)
def test_answers_that_make_no_sense(replies: Any) -> None:
    assert failed(VIDEOS, "GET", GIVEN, replies=replies).status == 502


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_errors_of_the_router(status: int) -> None:
    answer = reply({"error": "no"}, status)
    assert failed(VIDEOS, "GET", GIVEN, replies=[answer]).status == status
    replies = [{"status": "COMPLETED"}, answer]
    assert failed(VIDEOS, "GET", GIVEN, replies=replies).status == status


@pytest.mark.parametrize(
    "name",
    [
        *BAD_NAMES,
        f"1;{MODEL};/../requests/1",
        f"1;{MODEL};/fal-ai/../x/requests/1",
        f"1;{MODEL};/fal-ai/wan/requests/1/cancel",
        f"1;{MODEL};/fal-ai/wan/requests/..",
        f"1;{MODEL};/fal-ai/wan/requests/1?x=y",
        f"1;{MODEL};//evil.example/requests/1",
        f"1;{MODEL};/requests/1",
        f"x;{MODEL};{REQUEST}",
        f"1;wan;{REQUEST}",
    ],
)
def test_ids_that_are_no_jobs(name: str) -> None:
    given = video_id(name)
    assert name_of(given) == name
    assert failed(VIDEOS, "GET", given).status == 404


@pytest.mark.parametrize(("method", "rest"), [("GET", ()), ("DELETE", (GIVEN,))])
def test_operations_that_the_queue_has_not(method: str, rest: tuple[str, ...]) -> None:
    assert failed(VIDEOS, method, *rest).status == 404


def endpoint(**options: Any) -> Endpoint:
    assert HUGGINGFACE.endpoint is not None
    return HUGGINGFACE.endpoint(Call(openai.VIDEOS, MODEL, ModelOptions.model_validate(options)))


def test_the_router_is_a_flow() -> None:
    assert endpoint().flow is VIDEOS


@pytest.mark.parametrize(
    "options", [{"upstream_url": "http://127.0.0.1:8000"}, {"upstream_path": "/v1/videos"}]
)
def test_a_server_of_ones_own_speaks_openais_format(options: Json) -> None:
    found = endpoint(**options)
    assert (found.path, found.codec, found.flow) == ("/v1/videos", None, None)
