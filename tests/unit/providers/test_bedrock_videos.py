"""Videos of Nova Reel and Luma Ray: the calls of each of OpenAI's operations on Bedrock and S3."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from kong_ai_proxy.formats.bedrock import s3_errors
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.formats.openai.videos import video_id
from kong_ai_proxy.providers.bedrock.output import place
from kong_ai_proxy.providers.bedrock.videos import VIDEOS
from kong_ai_proxy.providers.flow import Passed
from tests.flows import ID, NOW, Driven, reply
from tests.video_jobs import BAD_NAMES, PNG, WEBP, ask, checked, create, failed, payload

NOVA = "amazon.nova-reel-v1:1"
LUMA = "luma.ray-v2:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/abcdefghij12"
GIVEN = video_id(ARN)


def options(uri: str | None = "s3://acme-videos/made", **more: Any) -> dict[str, Any]:
    own = {"aws_region": "us-east-1", "video_output_s3_uri": uri}
    return {"bedrock": {name: value for name, value in own.items() if value}, **more}


def start(model: str = NOVA, **body: Any) -> Driven:
    return create(VIDEOS, model, payload("bedrock_started"), options=options(), **body)


def asked(method: str, *rest: str, **fields: Any) -> Driven:
    return ask(VIDEOS, method, *rest, **{"options": options(), **fields})


# ---- starting


def test_nova_reel_is_started() -> None:
    driven = start(fps=24, seed=7, negative_prompt="x")
    (send,) = driven.sends
    assert (send.method, send.path, send.service) == ("POST", "/async-invoke", "bedrock")
    assert driven.sent() == {
        "clientRequestToken": f"{ID}.6.1280x720",
        "modelId": NOVA,
        "modelInput": {
            "taskType": "TEXT_VIDEO",
            "textToVideoParams": {"text": "a river"},
            "videoGenerationConfig": {
                "durationSeconds": 6,
                "fps": 24,
                "dimension": "1280x720",
                "seed": 7,
            },
        },
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://acme-videos/made"}},
    }
    video = checked(driven)
    assert (video.id, video.status, video.model) == (GIVEN, "queued", NOVA)
    assert (video.seconds, video.size, video.created_at) == ("6", "1280x720", int(NOW))
    assert driven.result
    assert driven.result.dropped == ("negative_prompt",)  # type: ignore[union-attr]


def test_nova_reel_makes_long_videos_of_several_shots() -> None:
    sent = start(seconds="12", fps="24").sent()["modelInput"]
    assert sent["taskType"] == "MULTI_SHOT_AUTOMATED"
    assert sent["multiShotAutomatedParams"] == {"text": "a river"}
    assert sent["videoGenerationConfig"]["durationSeconds"] == 12


def test_nova_reel_begins_with_an_image() -> None:
    sent = start(parts=(Part("input_reference", "a.png", "", PNG),)).sent()["modelInput"]
    data = base64.b64encode(PNG).decode()
    images = [{"format": "png", "source": {"bytes": data}}]
    assert sent["textToVideoParams"] == {"text": "a river", "images": images}


def test_members_under_the_models_own_names_win() -> None:
    sent = start(textToVideoParams={"text": "a sea"}, videoGenerationConfig={"fps": 12}).sent()[
        "modelInput"
    ]
    assert sent["textToVideoParams"] == {"text": "a sea"}
    assert sent["videoGenerationConfig"]["fps"] == 12
    assert sent["videoGenerationConfig"]["durationSeconds"] == 6


def test_members_of_a_form_are_what_the_model_takes() -> None:
    said = {"videoGenerationConfig[seed]": "7", "videoGenerationConfig[durationSeconds]": "12"}
    driven = start(**said)
    assert driven.sent()["modelInput"] == {
        "taskType": "MULTI_SHOT_AUTOMATED",
        "multiShotAutomatedParams": {"text": "a river"},
        "videoGenerationConfig": {
            "durationSeconds": 12,
            "fps": 24,
            "dimension": "1280x720",
            "seed": 7,
        },
    }
    assert checked(driven).seconds == "12"


SHOTS = {"shots": [{"text": "a river"}, {"text": "a sea"}]}


@pytest.mark.parametrize(
    "said",
    [
        {"multiShotManualParams": SHOTS},
        {"multiShotManualParams": SHOTS, "taskType": "MULTI_SHOT_MANUAL", "seconds": "12"},
        {"multiShotManualParams": json.dumps(SHOTS), "videoGenerationConfig": {"fps": 24}},
    ],
)
def test_shots_of_the_clients_own_have_no_other_text_and_no_length(said: dict[str, Any]) -> None:
    driven = start(**said)
    assert driven.sent()["modelInput"] == {
        "taskType": "MULTI_SHOT_MANUAL",
        "multiShotManualParams": SHOTS,
        "videoGenerationConfig": {"fps": 24, "dimension": "1280x720"},
    }
    assert checked(driven).seconds == "12"
    assert driven.result
    assert driven.result.dropped == ("prompt",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"taskType": "MULTI_SHOT_MANUAL"}, "multiShotManualParams: expected shots"),
        ({"multiShotManualParams": {"shots": []}}, "multiShotManualParams: expected shots"),
        ({"multiShotManualParams": SHOTS, "seconds": "18"}, "seconds: expected 12, as there are 2"),
    ],
)
def test_shots_that_are_missing_or_of_another_length(said: dict[str, Any], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        create(VIDEOS, NOVA, options=options(), **said)


def test_shots_have_their_own_images() -> None:
    parts = (Part("input_reference", "a.png", "", PNG),)
    with pytest.raises(FormatError, match="expected an image in the shot"):
        create(VIDEOS, NOVA, options=options(), parts=parts, multiShotManualParams=SHOTS)


def test_a_task_that_the_client_names() -> None:
    sent = start(taskType="MULTI_SHOT_AUTOMATED", videoGenerationConfig={"durationSeconds": 30})
    task = sent.sent()["modelInput"]
    assert task.keys() == {"taskType", "multiShotAutomatedParams", "videoGenerationConfig"}


def test_sizes_under_the_models_own_name_are_told_where_they_are_some() -> None:
    for dimension, told in (("1920x1080", "1920x1080"), ("wide", ""), ("9" * 5000 + "x1", "")):
        driven = start(videoGenerationConfig={"dimension": dimension})
        assert checked(driven).size == told


def test_models_to_come_are_asked_for_what_they_may_have() -> None:
    for model in ("amazon.nova-reel-v1:2", "us.amazon.nova-2-reel-v1:0"):
        driven = start(model, seconds="8", size="1920x1080")
        config = driven.sent()["modelInput"]["videoGenerationConfig"]
        assert (config["durationSeconds"], config["dimension"]) == (8, "1920x1080")
    driven = start("luma.ray-v3:0", seconds="10", size="1920x1080")
    asked_for = {"aspect_ratio": "16:9", "resolution": "1080p", "duration": "10s"}
    assert driven.sent()["modelInput"] == {"prompt": "a river", **asked_for}
    assert checked(driven).seconds == "10"


def test_luma_ray_is_started() -> None:
    driven = start(LUMA, seconds="9", size="540x960", loop="true")
    assert driven.sent()["modelInput"] == {
        "prompt": "a river",
        "aspect_ratio": "9:16",
        "resolution": "540p",
        "duration": "9s",
        "loop": True,
    }
    video = checked(driven)
    assert (video.seconds, video.size) == ("9", "540x960")


def test_luma_ray_chooses_what_the_client_leaves_out() -> None:
    driven = start(LUMA)
    assert driven.sent()["modelInput"] == {"prompt": "a river"}
    video = checked(driven)
    assert (video.seconds, video.size) == ("5", "1280x720")


def test_luma_ray_under_its_own_names() -> None:
    video = checked(start(LUMA, aspect_ratio="21:9", resolution="540p", duration="9s"))
    assert (video.seconds, video.size) == ("9", "1260x540")
    odd = checked(start(LUMA, aspect_ratio="2:1", duration="7s"))
    assert (odd.seconds, odd.size) == ("7", "")
    assert checked(start(LUMA, duration="long")).seconds == ""


def test_luma_ray_begins_with_an_image() -> None:
    sent = start(LUMA, parts=(Part("input_reference", "a.webp", "", WEBP),)).sent()["modelInput"]
    source = sent["keyframes"]["frame0"]["source"]
    assert source["media_type"] == "image/webp"
    assert base64.b64decode(source["data"]) == WEBP


def test_luma_ray_keeps_the_clients_last_frame_beside_the_image() -> None:
    last = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
    parts = (Part("input_reference", "a.png", "", PNG),)
    sent = start(LUMA, parts=parts, keyframes={"frame1": last}).sent()["modelInput"]
    assert sent["keyframes"].keys() == {"frame0", "frame1"}
    assert sent["keyframes"]["frame1"] == last


@pytest.mark.parametrize(
    ("model", "said", "text"),
    [
        (NOVA, {"seconds": "4"}, "seconds: expected 6, 12, .* or 120 for the model amazon"),
        ("amazon.nova-reel-v1:0", {"seconds": "12"}, "seconds: expected 6 for the model"),
        (NOVA, {"size": "720x1280"}, "size: expected 1280x720 for"),
        (NOVA, {"fps": "fast"}, "fps: expected a whole number"),
        (NOVA, {"textToVideoParams": "x"}, "textToVideoParams: expected JSON"),
        (NOVA, {"videoGenerationConfig": 5}, "videoGenerationConfig: expected an object"),
        (LUMA, {"seconds": "8"}, "seconds: expected 5 or 9 for"),
        (LUMA, {"size": "1024x1792"}, "size: expected 1280x720, 720x1280, "),
        ("amazon.nova-pro-v1:0", {}, "model: expected a video model"),
        ("luma.ray-v2:0?x", {}, "model: expected the id of a Bedrock model"),
    ],
)
def test_what_the_model_has_not_is_refused(model: str, said: dict[str, Any], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        create(VIDEOS, model, options=options(), **said)


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    with pytest.raises(FormatError, match="nested too deeply"):
        create(VIDEOS, NOVA, options=options(), textToVideoParams={"a": deep})


def test_images_that_nova_reel_does_not_take() -> None:
    for said, image in (({}, WEBP), ({"seconds": "12"}, PNG)):
        parts = (Part("input_reference", "a", "", image),)
        with pytest.raises(FormatError, match="input_reference: "):
            create(VIDEOS, NOVA, options=options(), parts=parts, **said)


@pytest.mark.parametrize("uri", [None, "acme-videos", "s3://A", "s3://acme/../x", "https://a/b"])
def test_without_a_place_for_videos_nothing_is_started(uri: str | None) -> None:
    for method, rest in (("POST", ()), ("GET", ())):
        body = {"prompt": "x"}
        error = failed(VIDEOS, method, *rest, model=NOVA, body=body, options=options(uri))
        assert error.status == 500
        assert "model.options.bedrock.video_output_s3_uri: expected" in error.message


# ---- asking


def test_a_job_under_way() -> None:
    driven = asked("GET", GIVEN, replies=[payload("bedrock_running")])
    (send,) = driven.sends
    encoded = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aasync-invoke%2Fabcdefghij12"
    assert (send.method, send.path) == ("GET", f"/async-invoke/{encoded}")
    video = checked(driven)
    assert (video.id, video.status, video.model) == (GIVEN, "in_progress", NOVA)
    assert (video.seconds, video.size) == ("6", "1280x720")
    assert (video.created_at, video.completed_at) == (1738324800, None)


def test_a_job_that_is_done() -> None:
    video = checked(asked("GET", GIVEN, replies=[payload("bedrock_done")]))
    assert (video.status, video.progress, video.completed_at) == ("completed", 100, 1738324890)


def test_what_the_filters_stop() -> None:
    told = "The generated video has been blocked by our content filters."
    failure = payload("bedrock_failed", failureMessage=told)
    video = checked(asked("GET", GIVEN, replies=[failure]))
    assert video.error
    assert (video.error.code, video.error.message) == ("moderation_blocked", told)
    refusal = reply({"message": told, "__type": "ValidationException"}, 400)
    error = failed(
        VIDEOS, "POST", model=NOVA, body={"prompt": "x"}, options=options(), replies=[refusal]
    )
    assert (error.status, error.code, error.message) == (400, "moderation_blocked", told)


def test_a_job_of_somebody_else_that_failed() -> None:
    video = checked(asked("GET", GIVEN, replies=[payload("bedrock_failed")]))
    assert (video.status, video.seconds, video.size) == ("failed", "", "")
    assert video.error
    assert "content filters" in video.error.message


@pytest.mark.parametrize(
    "given",
    [*map(video_id, BAD_NAMES), "x", video_id(ARN.replace("us-east-1", "eu-west-1"))],
)
def test_ids_that_are_no_jobs_reach_no_provider(given: str) -> None:
    driven = Driven()
    for rest in ((given,), (given, "content")):
        error = failed(VIDEOS, "GET", *rest, driven=driven, options=options())
        assert (error.status, driven.sends) == (404, [])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (reply({"message": "no", "__type": "AccessDeniedException"}, 403), 403),
        (reply(b"<html>", 500), 500),
        (reply(b""), 502),
        (reply(b"{}"), 502),
        (reply({**payload("bedrock_done"), "submitTime": "today"}), 502),
    ],
)
def test_errors_of_bedrock_at_each_call(answer: Any, status: int) -> None:
    for rest in ((GIVEN,), (GIVEN, "content")):
        error = failed(VIDEOS, "GET", *rest, replies=[answer], options=options())
        assert error.status == status


@pytest.mark.parametrize("answer", [reply(b"{}"), reply({"invocationArn": "arn:x"}), reply(b"")])
def test_an_answer_without_an_invocation_is_no_answer(answer: Any) -> None:
    fields: Any = {"model": NOVA, "body": {"prompt": "x"}, "options": options()}
    assert failed(VIDEOS, "POST", replies=[answer], **fields).status == 502


@pytest.mark.parametrize(
    ("method", "rest"),
    [("DELETE", (GIVEN,)), ("POST", (GIVEN, "remix")), ("POST", ("extensions",))],
)
def test_what_bedrock_has_not_is_named(method: str, rest: tuple[str, ...]) -> None:
    error = failed(VIDEOS, method, *rest, options=options())
    assert error.status == 404
    assert error.message.startswith(f"{method} /{'/'.join(['videos', *rest])}: ")


# ---- the video itself


def content(uri: str = "s3://acme-videos/made", told: str | None = None, **more: Any) -> Any:
    done = payload("bedrock_done")
    if told:
        done["outputDataConfig"] = {"s3OutputDataConfig": {"s3Uri": told}}
    driven = asked("GET", GIVEN, "content", replies=[done], options=options(uri, **more))
    assert isinstance(driven.result, Passed)
    return driven.result


def test_a_part_of_the_video_is_asked_of_the_bucket() -> None:
    done = payload("bedrock_done")
    for given, sent in (("bytes=0-9", {"range": "bytes=0-9"}), ("", {})):
        result = asked("GET", GIVEN, "content", replies=[done], range=given).result
        assert isinstance(result, Passed)
        assert result.send.headers == sent


def test_the_video_passes_from_the_bucket() -> None:
    result = content()
    send = result.send
    assert send.base_url == "https://acme-videos.s3.us-east-1.amazonaws.com:443"
    assert (send.method, send.path) == ("GET", "/made/abcdefghij12/output.mp4")
    assert (send.service, send.is_own, result.media_type) == ("s3", True, "video/mp4")


@pytest.mark.parametrize(
    ("uri", "told", "base_url", "path"),
    [
        ("s3://a.b/", "s3://a.b/x y/", "https://s3.us-east-1.amazonaws.com:443", "/a.b/x%20y"),
        ("s3://acme", "s3://acme", "https://acme.s3.us-east-1.amazonaws.com:443", ""),
    ],
)
def test_buckets_of_all_kinds(uri: str, told: str, base_url: str, path: str) -> None:
    send = content(uri, told).send
    assert send.base_url == base_url
    assert send.path == f"{path}/abcdefghij12/output.mp4"


def test_behind_an_upstream_url_the_bucket_is_in_the_path() -> None:
    send = content(upstream_url="https://aws.example").send
    assert (send.base_url, send.path) == ("", "/acme-videos/made/abcdefghij12/output.mp4")


@pytest.mark.parametrize(
    "told",
    [
        "s3://other/made/abcdefghij12",
        "s3://acme-videos/made2/abcdefghij12",
        "s3://acme-videos/made/../abcdefghij12",
        "s3://acme-videos",
        "https://acme",
    ],
)
def test_a_video_elsewhere_is_not_fetched(told: str) -> None:
    done = payload("bedrock_done", outputDataConfig={"s3OutputDataConfig": {"s3Uri": told}})
    error = failed(VIDEOS, "GET", GIVEN, "content", replies=[done], options=options())
    assert error.status == 404
    assert "not below model.options.bedrock.video_output_s3_uri" in error.message


def test_content_that_is_not_there() -> None:
    for name, text in (("bedrock_running", "not ready yet"), ("bedrock_failed", "filters")):
        replies = [payload(name)]
        error = failed(VIDEOS, "GET", GIVEN, "content", replies=replies, options=options())
        assert error.status == 404
        assert text in error.message


def test_an_api_key_of_bedrocks_opens_no_bucket() -> None:
    replies = [payload("bedrock_done")]
    fields: Any = {"replies": replies, "options": options(), "signs": False}
    error = failed(VIDEOS, "GET", GIVEN, "content", **fields)
    assert (error.status, "opens no bucket in S3" in error.message) == (500, True)
    assert checked(ask(VIDEOS, "GET", GIVEN, **fields)).status == "completed"


def test_errors_of_s3() -> None:
    xml = b"<Error><Code>NoSuchKey</Code><Message>It &amp; is not there.</Message></Error>"
    error = s3_errors.parse_error(404, xml)
    assert (error.message, error.code, error.status) == (
        "S3: It & is not there.",
        "NoSuchKey",
        404,
    )
    assert s3_errors.parse_error(403, b"<Error><Code>A</Code>").message == "S3: A"
    assert s3_errors.parse_error(502, b"").status == 502


def test_places_hold_what_is_below_them() -> None:
    top, folder = place("s3://acme"), place("s3://acme/a/")
    assert top
    assert folder
    assert (top.uri, folder.uri) == ("s3://acme", "s3://acme/a")
    assert top.holds(folder)
    assert not folder.holds(top)


# ---- lists


def listed(*pages: Any, **query: str) -> Driven:
    return asked("GET", replies=pages, query=query)


def summaries(*numbers: int, **more: Any) -> dict[str, Any]:
    found = []
    for number in numbers:
        folder = f"s3://acme-videos/made/abcdefghij{number}"
        arn = ARN.replace("abcdefghij12", f"abcdefghij{number}")
        output = {"s3OutputDataConfig": {"s3Uri": folder}}
        found.append(payload("bedrock_running", invocationArn=arn, outputDataConfig=output))
    return {"asyncInvokeSummaries": found, **more}


def test_a_list_is_the_newest_first() -> None:
    driven = listed(summaries(11, 12), limit="2")
    (send,) = driven.sends
    assert (send.method, send.path) == ("GET", "/async-invoke")
    assert parse_qs(send.query) == {
        "sortBy": ["SubmissionTime"],
        "sortOrder": ["Descending"],
        "maxResults": ["2"],
    }
    assert [job["id"] for job in driven.value["data"]][-1] == GIVEN
    assert driven.value["has_more"] is False


def test_a_list_goes_on_after_a_job() -> None:
    driven = listed(payload("bedrock_running"), summaries(12, 13), after=GIVEN, order="asc")
    query = parse_qs(driven.sends[1].query)
    assert query["submitTimeAfter"] == ["2025-01-31T12:00:00.123Z"]
    assert query["sortOrder"] == ["Ascending"]
    assert [job["id"] for job in driven.value["data"]] == [video_id(ARN.replace("ij12", "ij13"))]


def test_jobs_that_write_elsewhere_are_left_out_and_made_up_for() -> None:
    other = payload("bedrock_done", outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://x"}})
    first = {"asyncInvokeSummaries": [other], "nextToken": "more here"}
    driven = listed(first, summaries(12, nextToken="again"), limit="1")
    assert parse_qs(driven.sends[1].query)["nextToken"] == ["more here"]
    assert (len(driven.value["data"]), driven.value["has_more"]) == (1, True)


def test_a_list_without_end_ends() -> None:
    driven = listed(*[summaries(nextToken="t")] * 10)
    assert driven.value["data"] == []
    assert driven.value["has_more"] is True
