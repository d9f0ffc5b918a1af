"""Veo's videos: the calls of each of OpenAI's operations, in the Gemini API and on Vertex AI."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from openai.types.video_create_error import VideoCreateError

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.openai.videos import video_id
from kong_ai_proxy.providers.flow import Passed, Result
from kong_ai_proxy.providers.gemini.videos import PUBLIC, VERTEX
from tests.flows import NOW, Driven, reply
from tests.video_jobs import BAD_NAMES, PNG, ask, checked, create, failed, payload

MODEL = "veo-3.1-generate-preview"
OPTIONS = {
    "gemini": {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "us-central1",
    }
}
OPERATION = "projects/acme/locations/us-central1/publishers/google/models/veo-3.0-generate-001"


def public(**body: Any) -> Driven:
    return create(PUBLIC, body.pop("model", MODEL), payload("veo_started"), **body)


def vertex(**body: Any) -> Driven:
    started = payload("vertex_started")
    return create(VERTEX, "veo-3.0-generate-001", started, options=OPTIONS, **body)


# ---- the Gemini API


def test_a_job_is_started() -> None:
    driven = public(seconds="8", size="1080x1920", negative_prompt="people")
    (send,) = driven.sends
    assert (send.method, send.path) == ("POST", f"/v1beta/models/{MODEL}:predictLongRunning")
    assert driven.sent() == {
        "instances": [{"prompt": "a river"}],
        "parameters": {
            "negativePrompt": "people",
            "durationSeconds": 8,
            "aspectRatio": "9:16",
            "resolution": "1080p",
        },
    }
    video = checked(driven)
    assert (video.status, video.progress, video.model) == ("queued", 0, MODEL)
    assert (video.seconds, video.size) == ("8", "1080x1920")
    assert (video.prompt, video.created_at) == ("a river", int(NOW))


def test_what_the_client_leaves_out_is_the_models_choice() -> None:
    driven = public()
    assert driven.sent() == {"instances": [{"prompt": "a river"}]}
    video = checked(driven)
    assert (video.seconds, video.size) == ("8", "1280x720")


def test_parameters_under_googles_names_in_either_spelling_and_of_a_form() -> None:
    driven = public(
        parameters={"personGeneration": "allow_adult", "aspect_ratio": "9:16"},
        seed="7",
        enhance_prompt="true",
        last_frame='{"bytesBase64Encoded": "AAAA", "mimeType": "image/png"}',
        user="me",
    )
    assert driven.sent()["parameters"] == {
        "personGeneration": "allow_adult",
        "aspectRatio": "9:16",
        "seed": 7,
        "enhancePrompt": True,
    }
    assert driven.sent()["instances"][0]["lastFrame"]["mimeType"] == "image/png"
    assert checked(driven).size == "720x1280"
    assert isinstance(driven.result, Result)
    assert driven.result.dropped == ("user",)


def test_a_bucket_is_vertex_ais_only() -> None:
    driven = public(storageUri="gs://acme")
    assert "parameters" not in driven.sent()
    assert isinstance(driven.result, Result)
    assert driven.result.dropped == ("storageUri",)


def test_an_image_goes_inline() -> None:
    driven = public(parts=(Part("input_reference", "a.png", "", PNG),))
    assert driven.sent()["instances"][0]["image"] == {
        "bytesBase64Encoded": base64.b64encode(PNG).decode(),
        "mimeType": "image/png",
    }


def test_a_video_that_goes_on_with_another_one() -> None:
    shown = {"gcsUri": "gs://acme/a.mp4", "mimeType": "video/mp4"}
    driven = vertex(video=shown, mask=json.dumps({"maskMode": "insert"}), labels={"team": "a"})
    assert driven.sent() == {
        "instances": [{"prompt": "a river", "video": shown, "mask": {"maskMode": "insert"}}],
        "parameters": {"sampleCount": 1},
        "labels": {"team": "a"},
    }
    assert checked(driven).seconds == ""
    driven = public(video={"uri": "https://x/files/a"}, labels={"team": "a"})
    assert driven.sent()["instances"][0]["video"] == {"uri": "https://x/files/a"}
    assert driven.result
    assert driven.result.dropped == ("labels",)  # type: ignore[union-attr]


def test_veo_2_has_no_resolution() -> None:
    driven = public(model="veo-2.0-generate-001", size="720x1280", seconds="5")
    assert driven.sent()["parameters"] == {"aspectRatio": "9:16", "durationSeconds": 5}


@pytest.mark.parametrize(
    ("model", "said", "text"),
    [
        (MODEL, {"seconds": "12"}, "seconds: expected 4, 6 or 8 for the model veo-3.1"),
        (MODEL, {"size": "1024x1792"}, "size: expected 1280x720, 720x1280, .* or 2160x3840"),
        ("veo-3.0-generate-001", {"size": "3840x2160"}, "or 1080x1920 for"),
        ("veo-3.1-lite-generate-preview", {"size": "3840x2160"}, "or 1080x1920 for"),
        ("veo-2.0-generate-001", {"seconds": "4"}, "seconds: expected 5, 6, 7 or 8"),
        ("veo-2.0-generate-001", {"size": "1920x1080"}, "size: expected 1280x720 or 720x1280"),
        (MODEL, {"sample_count": 2}, "sampleCount: expected 1"),
        (MODEL, {"seed": "x"}, "seed: expected a whole number"),
        (MODEL, {"generateAudio": 1}, "generateAudio: expected true or false"),
        (MODEL, {"parameters": []}, "parameters: expected an object"),
        (MODEL, {"parameters": "{"}, "parameters: expected JSON"),
    ],
)
def test_what_the_model_has_not_is_refused(model: str, said: dict[str, Any], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        create(PUBLIC, model, **said)


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    with pytest.raises(FormatError, match="nested too deeply"):
        create(PUBLIC, MODEL, lastFrame={"a": deep})


def test_a_model_to_come_takes_what_it_may_have() -> None:
    driven = public(model="veo-5", seconds="20", size="1920x1080")
    assert driven.sent()["parameters"]["durationSeconds"] == 20


@pytest.mark.parametrize("name", ["operations/1", "", 5, None, "models/../operations/1"])
def test_an_answer_without_an_operation_is_no_answer(name: object) -> None:
    error = failed(PUBLIC, "POST", replies=[{"name": name}], model=MODEL, body={"prompt": "x"})
    assert error.status == 502


def started(**body: Any) -> str:
    return str(checked(public(**body)).id)


def test_a_job_under_way() -> None:
    given = started(seconds="6", size="720x1280")
    driven = ask(PUBLIC, "GET", given, replies=[payload("veo_running")])
    (send,) = driven.sends
    assert (send.method, send.path) == ("GET", f"/v1beta/models/{MODEL}/operations/idrk08ltkg0a")
    video = checked(driven)
    assert (video.id, video.status, video.progress) == (given, "in_progress", 0)
    assert (video.seconds, video.size, video.model) == ("6", "720x1280", MODEL)
    assert video.created_at == int(NOW)


def test_a_job_that_is_done() -> None:
    video = checked(ask(PUBLIC, "GET", started(), replies=[payload("veo_done")]))
    assert (video.status, video.progress, video.error) == ("completed", 100, None)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("veo_filtered", "moderation_blocked", "an issue with the audio"),
        ("veo_failed", "resource_exhausted", "Quota exceeded"),
    ],
)
def test_a_job_that_failed(name: str, code: str, message: str) -> None:
    video = checked(ask(PUBLIC, "GET", started(), replies=[payload(name)]))
    assert video.status == "failed"
    assert video.error
    assert video.error.code == code
    assert message in video.error.message
    error = failed(PUBLIC, "GET", started(), "content", replies=[payload(name)])
    assert (error.status, error.code) == (404, code)
    assert message in error.message


def test_a_video_that_the_filters_stop_without_a_word() -> None:
    answer = payload("veo_done", response={"generateVideoResponse": {"raiMediaFilteredCount": 1}})
    video = checked(ask(PUBLIC, "GET", started(), replies=[answer]))
    assert video.error
    assert video.error == VideoCreateError(
        code="moderation_blocked", message="the provider's filters removed the video"
    )


def test_a_prompt_that_the_filters_stop() -> None:
    told = (
        "The prompt could not be submitted. This prompt contains sensitive words that violate "
        "Google's Responsible AI practices. Support codes: 58061214"
    )
    answer = payload("veo_failed", error={"code": 3, "message": told})
    given = video_id("veo-3.1-generate-001/op/1/8")
    video = checked(ask(PUBLIC, "GET", given, replies=[answer]))
    assert video.error
    assert (video.error.code, video.error.message) == ("moderation_blocked", told)


@pytest.mark.parametrize("response", [{}, {"generateVideoResponse": {"generatedSamples": [{}]}}])
def test_a_job_done_without_a_video_has_failed(response: dict[str, Any]) -> None:
    value = {"done": True, "response": response}
    assert checked(ask(PUBLIC, "GET", started(), replies=[value])).status == "failed"


def test_the_video_passes_from_the_configured_host() -> None:
    driven = ask(PUBLIC, "GET", started(), "content", replies=[payload("veo_done")])
    assert isinstance(driven.result, Passed)
    send = driven.result.send
    assert (send.method, send.path) == ("GET", "/download/v1beta/files/3dqz2tnpfjrm:download")
    assert (send.query, send.base_url, send.is_own) == ("alt=media", "", True)
    assert driven.result.media_type == "video/mp4"


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/v1beta/files/3dqz:download?alt=media",
        "https://generativelanguage.googleapis.com.evil.example/v1beta/files/3dqz:download",
        "https://generativelanguage.googleapis.com@evil.example/v1beta/files/3dqz:download",
        "https://generativelanguage.googleapis.com/v1beta/files/../x:download",
        "https://generativelanguage.googleapis.com/v1beta/models/x:download",
        "/v1beta/files/3dqz:download",
        "https://[/v1beta/files/3dqz:download",
        "gs://bucket/object",
    ],
)
def test_an_address_elsewhere_is_not_followed(uri: str) -> None:
    samples = {"generatedSamples": [{"video": {"uri": uri}}]}
    value = {"done": True, "response": {"generateVideoResponse": samples}}
    error = failed(PUBLIC, "GET", started(), "content", replies=[value])
    assert error.status == 502
    assert "not usable" in error.message


def test_content_of_a_job_under_way_is_not_there_yet() -> None:
    error = failed(PUBLIC, "GET", started(), "content", replies=[payload("veo_running")])
    assert error.status == 404
    assert error.message.startswith("Video is not ready yet")


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet", "gif"])
def test_other_files_than_the_video_are_refused(variant: str) -> None:
    with pytest.raises(FormatError, match="variant: expected video"):
        ask(PUBLIC, "GET", started(), "content", query={"variant": variant})


@pytest.mark.parametrize("flow", [PUBLIC, VERTEX])
@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ()),
        ("DELETE", ("video_x",)),
        ("POST", ("video_x", "remix")),
        ("POST", ("edits",)),
        ("GET", ("video_x", "content", "more")),
        ("PATCH", ()),
    ],
)
def test_what_google_has_not_is_named(flow: Any, method: str, rest: tuple[str, ...]) -> None:
    error = failed(flow, method, *rest, provider="gemini")
    assert error.status == 404
    has = "POST /videos, GET /videos/{id}, GET /videos/{id}/content"
    path = "/".join(["videos", *rest])
    assert error.message == f"{method} /{path}: gemini has no such operation; it has {has}"


@pytest.mark.parametrize("flow", [PUBLIC, VERTEX])
@pytest.mark.parametrize("given", [*map(video_id, BAD_NAMES), "video_", "x", "video_\u00e4"])
def test_ids_that_are_no_jobs_reach_no_provider(flow: Any, given: str) -> None:
    driven = Driven()
    error = failed(flow, "GET", given, driven=driven, options=OPTIONS)
    assert (error.status, driven.sends) == (404, [])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (reply({"error": {"code": 429, "message": "slow down"}}, 429), 429),
        (reply({"error": {"code": 404, "message": "no operation"}}, 404), 404),
        (reply(b"<html>", 500), 500),
        (reply(b""), 502),
        (reply(b"[]"), 502),
        (reply(b"{"), 502),
    ],
)
def test_errors_of_the_provider_at_each_call(answer: Any, status: int) -> None:
    body = {"prompt": "x"}
    assert failed(PUBLIC, "POST", replies=[answer], model=MODEL, body=body).status == status
    assert failed(PUBLIC, "GET", started(), replies=[answer]).status == status
    assert failed(PUBLIC, "GET", started(), "content", replies=[answer]).status == status


# ---- Vertex AI


def test_vertex_starts_a_job_of_one_video() -> None:
    driven = vertex(seconds="4", size="1920x1080", storage_uri="gs://acme-videos/out")
    (send,) = driven.sends
    assert (send.method, send.path) == ("POST", f"/v1/{OPERATION}:predictLongRunning")
    assert driven.sent()["parameters"] == {
        "storageUri": "gs://acme-videos/out",
        "durationSeconds": 4,
        "aspectRatio": "16:9",
        "resolution": "1080p",
        "sampleCount": 1,
    }
    assert checked(driven).model == "veo-3.0-generate-001"


def test_vertex_polls_below_the_configured_project() -> None:
    given = checked(vertex()).id
    elsewhere = {"gemini": {**OPTIONS["gemini"], "project_id": "other"}}
    driven = ask(VERTEX, "GET", given, replies=[payload("vertex_done_inline")], options=elsewhere)
    path = OPERATION.replace("acme", "other")
    (send,) = driven.sends
    assert (send.method, send.path) == ("POST", f"/v1/{path}:fetchPredictOperation")
    name = f"{path}/operations/a1b07c8e-7b5a-4aba-bb34-3e1ccb8afcc8"
    assert driven.sent() == {"operationName": name}
    assert checked(driven).status == "completed"


def test_vertex_tells_what_was_filtered() -> None:
    given = checked(vertex()).id
    replies = [payload("vertex_filtered")]
    video = checked(ask(VERTEX, "GET", given, replies=replies, options=OPTIONS))
    assert video.error
    assert "42237218" in video.error.message


def content(name: str, **changes: Any) -> Any:
    given = checked(vertex()).id
    value = payload(name, **changes)
    return ask(VERTEX, "GET", given, "content", replies=[value], options=OPTIONS).result


def test_vertex_has_the_video_in_its_answer() -> None:
    result = content("vertex_done_inline")
    assert (result.body, result.media_type) == (b"film", "video/mp4")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("video/webm", "video/webm"),
        ("video/mp4\r\nX-Evil: 1", "video/mp4"),
        ("video/" + "x" * 70_000, "video/mp4"),
        ("text/html", "video/mp4"),
        ("\0", "video/mp4"),
        ("", "video/mp4"),
    ],
)
@pytest.mark.parametrize(
    "where", [{"bytesBase64Encoded": "ZmlsbQ=="}, {"gcsUri": "gs://acme-videos/out/sample_0.mp4"}]
)
def test_what_is_told_of_the_format_is_one_of_videos(told: str, expected: str, where: Any) -> None:
    result = content("vertex_done_inline", response={"videos": [{**where, "mimeType": told}]})
    assert result.media_type == expected


def test_vertex_has_the_video_in_a_bucket() -> None:
    send = content("vertex_done_stored").send
    assert send.base_url == "https://storage.googleapis.com"
    assert send.path == "/storage/v1/b/acme-videos/o/out%2F1234%205%2Fsample_0.mp4"
    assert send.query == "alt=media"


@pytest.mark.parametrize(
    "video",
    [
        {"gcsUri": "gs://acme/../x"},
        {"gcsUri": "gs://ac me/x"},
        {"gcsUri": "gs://acme"},
        {"bytesBase64Encoded": "?"},
    ],
)
def test_a_video_that_is_nowhere(video: dict[str, str]) -> None:
    given = checked(vertex()).id
    value = {"done": True, "response": {"videos": [video]}}
    error = failed(VERTEX, "GET", given, "content", replies=[value], options=OPTIONS)
    assert error.status == 502


def test_models_of_others_make_no_videos() -> None:
    with pytest.raises(FormatError, match="a video model of Google's"):
        create(VERTEX, "claude-sonnet-4", options=OPTIONS)
