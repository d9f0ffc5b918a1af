"""Omni's videos: interactions in the Gemini API and on Vertex AI."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google.genai.interactions import CreateModelInteraction

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.openai.videos import video_id
from kong_ai_proxy.providers.flow import Passed, Result
from kong_ai_proxy.providers.gemini.videos import PUBLIC, VERTEX
from tests.flows import NOW, Driven, reply
from tests.video_jobs import PNG, ask, checked, create, failed, payload

MODEL = "gemini-omni-1.1-flash"
REVISION = {"api-revision": "2026-05-20"}
INTERACTION = "v1_ChdXS0l4YVdTTTBnLTBfYVBDZw=="
GIVEN = video_id(f"{MODEL}/{INTERACTION}/{int(NOW)}/8/720x1280")
OPTIONS = {
    "gemini": {
        "api_endpoint": "aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "global",
    }
}


def public(**body: Any) -> Driven:
    return create(PUBLIC, body.pop("model", MODEL), payload("omni_started"), **body)


def vertex(**body: Any) -> Driven:
    model = body.pop("model", MODEL)
    return create(VERTEX, model, payload("omni_started"), options=OPTIONS, **body)


def asked(*rest: str, replies: Any, flow: Any = PUBLIC, **fields: Any) -> Driven:
    return ask(flow, "GET", *rest, replies=replies, **fields)


def interaction(**changes: Any) -> Any:
    return payload("omni_done", **changes)


def made(*contents: Any) -> Any:
    return interaction(steps=[{"type": "model_output", "content": list(contents)}])


def test_a_job_is_started() -> None:
    driven = public(seconds="8", size="720x1280", seed="7", negative_prompt="people")
    (send,) = driven.sends
    assert (send.method, send.path) == ("POST", "/v1beta/interactions")
    assert send.headers == REVISION
    assert driven.sent() == {
        "model": MODEL,
        "input": "a river",
        "background": True,
        "generation_config": {"seed": 7},
        "response_format": {
            "type": "video",
            "duration": "8s",
            "resolution": "720p",
            "aspect_ratio": "9:16",
            "delivery": "uri",
        },
    }
    video = checked(driven)
    assert (video.id, video.status, video.model, video.prompt) == (
        GIVEN,
        "queued",
        MODEL,
        "a river",
    )
    assert (video.seconds, video.size) == ("8", "720x1280")
    assert driven.result
    assert driven.result.dropped == ("negative_prompt",)  # type: ignore[union-attr]


def test_what_the_client_leaves_out_is_the_models_choice() -> None:
    driven = public()
    assert driven.sent()["response_format"] == {"type": "video", "delivery": "uri"}
    assert "generation_config" not in driven.sent()
    assert (checked(driven).seconds, checked(driven).size) == ("", "1280x720")


def test_a_model_may_be_a_resource() -> None:
    driven = public(model=f"models/{MODEL}")
    assert driven.sent()["model"] == checked(driven).model == MODEL


def test_an_image_is_what_the_video_begins_with() -> None:
    driven = public(parts=(Part("input_reference", "a.png", "", PNG),), seed=1)
    data = base64.b64encode(PNG).decode()
    assert driven.sent()["input"] == [
        {"type": "image", "data": data, "mime_type": "image/png"},
        {"type": "text", "text": "a river"},
    ]
    config = driven.sent()["generation_config"]
    assert config == {"seed": 1, "video_config": {"task": "image_to_video"}}
    other = public(parts=(Part("input_reference", "a.png", "", PNG),), task="reference_to_video")
    assert other.sent()["generation_config"]["video_config"] == {"task": "reference_to_video"}


@pytest.mark.parametrize(
    "said",
    [
        {"aspect_ratio": "9:16", "resolution": "4k", "durationSeconds": "3"},
        {"aspectRatio": "9:16", "resolution": "4k", "duration": "3s"},
    ],
)
def test_parameters_under_googles_names(said: dict[str, str]) -> None:
    driven = public(**said)
    shown = driven.sent()["response_format"]
    assert (shown["aspect_ratio"], shown["resolution"], shown["duration"]) == ("9:16", "4k", "3s")
    assert (checked(driven).seconds, checked(driven).size) == ("3", "2160x3840")


@pytest.mark.parametrize("start", [public, vertex])
def test_requests_are_what_googles_own_client_sends(start: Any) -> None:
    parts = (Part("input_reference", "a.png", "", PNG),)
    sent = start(parts=parts, seed=1, seconds="4", size="1920x1080").sent()
    read = CreateModelInteraction.model_validate(sent, strict=True)
    assert read.model_dump(exclude_none=True, by_alias=True) == sent


@pytest.mark.parametrize(
    ("model", "said", "text"),
    [
        (MODEL, {"seconds": "11"}, "seconds: expected 3, .* or 10 for the model gemini-omni-1.1"),
        ("gemini-omni-flash-preview", {"seconds": "2"}, "seconds: expected 3, "),
        ("gemini-omni-1.2-flash", {"seconds": "16"}, "seconds: expected 3, .* or 15 for"),
        (MODEL, {"size": "1024x1792"}, "size: expected 640x360, "),
        (MODEL, {"seed": "x"}, "seed: expected a whole number"),
        ("gemini-omni?x", {}, "model: expected a name"),
        ("gemini-omni-../..", {}, "model: expected a name"),
    ],
)
def test_what_the_model_has_not_is_refused(model: str, said: dict[str, str], text: str) -> None:
    for flow in (PUBLIC, VERTEX):
        with pytest.raises(FormatError, match=text):
            create(flow, model, options=OPTIONS, **said)


def test_models_to_come_are_asked_for_any_length() -> None:
    for model in ("gemini-omni-2-flash", "gemini-4-video"):
        assert public(model=model, seconds="60").sent()["response_format"]["duration"] == "60s"


@pytest.mark.parametrize("answer", [{}, {"id": ""}, {"id": "../files/x"}, {"id": 5}])
def test_an_answer_without_an_interaction_is_no_answer(answer: Any) -> None:
    error = failed(PUBLIC, "POST", model=MODEL, body={"prompt": "x"}, replies=[answer])
    assert (error.status, "no id of an interaction" in error.message) == (502, True)


@pytest.mark.parametrize("status", ["queued", "in_progress", "rendering"])
def test_a_job_under_way(status: str) -> None:
    driven = asked(GIVEN, replies=[interaction(status=status)])
    (send,) = driven.sends
    assert (send.method, send.headers) == ("GET", REVISION)
    assert send.path == "/v1beta/interactions/v1_ChdXS0l4YVdTTTBnLTBfYVBDZw%3D%3D"
    video = checked(driven)
    assert (video.status, video.id, video.seconds, video.size) == (
        "in_progress",
        GIVEN,
        "8",
        "720x1280",
    )


def test_a_job_that_is_done() -> None:
    video = checked(asked(GIVEN, replies=[payload("omni_done")]))
    assert (video.status, video.progress, video.error) == ("completed", 100, None)


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (interaction(status="failed", error={"message": "Broken."}), "failed", "Broken."),
        (interaction(status="failed", errors=[{"message": "Worse."}]), "failed", "Worse."),
        (interaction(status="cancelled"), "cancelled", "the provider says: cancelled"),
        (interaction(status="incomplete", error=5), "incomplete", "the provider says: incomplete"),
        (payload("omni_refused"), "moderation_blocked", "I can't generate that video."),
        (interaction(steps=[]), "unknown", "the provider made no video and told no reason"),
        (made({"type": "video"}), "unknown", "the provider made no video and told no reason"),
        (interaction(steps="x"), "unknown", "the provider made no video and told no reason"),
    ],
)
def test_a_job_that_failed(answer: Any, code: str, message: str) -> None:
    video = checked(asked(GIVEN, replies=[answer]))
    assert video.status == "failed"
    assert video.error
    assert (video.error.code, video.error.message) == (code, message)
    error = failed(PUBLIC, "GET", GIVEN, "content", replies=[answer])
    assert (error.status, error.code) == (404, code)


def test_what_the_client_showed_is_not_what_was_made() -> None:
    shown = {"type": "user_input", "content": [{"type": "video", "uri": "https://x/files/a"}]}
    assert checked(asked(GIVEN, replies=[interaction(steps=[shown])])).status == "failed"


def test_the_video_passes_from_the_configured_host() -> None:
    result = asked(GIVEN, "content", replies=[payload("omni_done")]).result
    assert isinstance(result, Passed)
    assert result.send.path == "/download/v1beta/files/3dqz2tnpfjrm:download"
    assert (result.send.query, result.send.base_url) == ("alt=media", "")


@pytest.mark.parametrize("flow", [PUBLIC, VERTEX])
def test_the_video_may_be_in_the_answer(flow: Any) -> None:
    data = base64.b64encode(b"film").decode()
    shown = made({"type": "video", "data": data, "mime_type": "video/webm"})
    result = asked(GIVEN, "content", replies=[shown], flow=flow, options=OPTIONS).result
    assert result == Result(b"film", media_type="video/webm")
    bad = made({"type": "video", "data": "@@@"})
    error = failed(flow, "GET", GIVEN, "content", replies=[bad], options=OPTIONS)
    assert (error.status, "not in base64" in error.message) == (502, True)


def test_vertex_has_interactions_below_the_configured_project() -> None:
    driven = vertex(model=f"publishers/google/models/{MODEL}", labels={"team": "a"})
    (send,) = driven.sends
    assert send.path == "/v1beta1/projects/acme/locations/global/interactions"
    assert driven.sent()["response_format"] == {"type": "video"}
    assert driven.sent()["labels"] == {"team": "a"}
    assert checked(driven).model == MODEL
    polled = asked(GIVEN, replies=[interaction(status="queued")], flow=VERTEX, options=OPTIONS)
    assert polled.sends[0].path.startswith(f"{send.path}/v1_ChdX")


def test_vertex_puts_videos_into_the_clients_bucket() -> None:
    for name in ("storageUri", "gcs_uri"):
        driven = vertex(**{name: "gs://acme-films/out/"})
        shown = {"type": "video", "gcs_uri": "gs://acme-films/out/", "delivery": "uri"}
        assert driven.sent()["response_format"] == shown
    video = made({"type": "video", "uri": "gs://acme-films/out/1.mp4", "mime_type": "video/mp4"})
    result = asked(GIVEN, "content", replies=[video], flow=VERTEX, options=OPTIONS).result
    assert isinstance(result, Passed)
    assert result.send.path == "/storage/v1/b/acme-films/o/out%2F1.mp4"
    assert public(storageUri="gs://a/b").result.dropped == ("storageUri",)  # type: ignore[union-attr]


def test_an_interaction_that_google_does_not_know() -> None:
    """Another target may."""
    answer = {"error": {"code": "invalid_request", "message": "Invalid interaction name: v1_x"}}
    error = failed(PUBLIC, "GET", GIVEN, replies=[reply(answer, 400)])
    assert (error.status, "not found" in error.message) == (404, True)
    other = {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}
    assert failed(PUBLIC, "GET", GIVEN, replies=[reply(other, 400)]).status == 400


def test_errors_of_the_provider_at_each_call() -> None:
    limit = reply({"error": {"code": 429, "message": "slow down", "status": "X"}}, 429)
    for rest in ((GIVEN,), (GIVEN, "content")):
        assert failed(PUBLIC, "GET", *rest, replies=[limit]).status == 429
    error = failed(PUBLIC, "POST", model=MODEL, body={"prompt": "x"}, replies=[limit])
    assert (error.status, error.message) == (429, "slow down")
