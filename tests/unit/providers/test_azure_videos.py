"""Videos of Azure's first Sora: the calls of each of OpenAI's operations."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part, parts_of
from kong_ai_proxy.formats.openai.videos import video_id
from kong_ai_proxy.providers.azure.videos import SORA
from kong_ai_proxy.providers.flow import Passed
from tests.flows import ID, Driven, reply
from tests.video_jobs import BAD_NAMES, PNG, ask, checked, create, failed, payload

JOB = "task_01jwcet0eje35tc5jy54yjax5q"
GIVEN = video_id(JOB)
PATH = "/openai/v1/video/generations"
OPTIONS = {"azure_instance": "acme", "azure_deployment_id": "my-sora"}


def start(**body: Any) -> Driven:
    return create(SORA, "sora", payload("sora_queued"), options=OPTIONS, **body)


def test_a_job_is_started() -> None:
    driven = start(seconds="10", size="1080x1920", quality="high")
    (send,) = driven.sends
    assert (send.method, send.path, send.query) == ("POST", f"{PATH}/jobs", "api-version=preview")
    assert driven.sent() == {
        "model": "my-sora",
        "prompt": "a river",
        "width": 1080,
        "height": 1920,
        "n_seconds": 10,
        "n_variants": 1,
    }
    video = checked(driven)
    assert (video.id, video.status, video.model) == (GIVEN, "queued", "sora")
    assert (video.seconds, video.size, video.created_at) == ("5", "480x480", 1748469875)
    assert driven.result
    assert driven.result.dropped == ("quality",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "size",
    [
        "480x480",
        "480x854",
        "854x480",
        "720x720",
        "720x1280",
        "1280x720",
        "1080x1080",
        "1080x1920",
        "1920x1080",
    ],
)
def test_a_size_is_a_width_and_a_height(size: str) -> None:
    sent = start(size=size).sent()
    assert f"{sent['width']}x{sent['height']}" == size


def test_what_the_client_leaves_out() -> None:
    sent = start(query={"api-version": "v1&x"}).sends[0]
    assert sent.query == "api-version=v1%26x"
    body = orjson.loads(sent.body or b"")
    assert (body["width"], body["height"], body["n_seconds"]) == (1280, 720, 5)


def test_an_image_makes_it_a_form() -> None:
    (send,) = start(parts=(Part("input_reference", "x.jpg", "", PNG),)).sends
    assert send.headers["content-type"] == f"multipart/form-data; boundary={ID}"
    parts = {part.name: part for part in parts_of(send.headers["content-type"], send.body or b"")}
    assert parts["files"] == Part("files", "image.png", "image/png", PNG)
    assert (parts["prompt"].content, parts["width"].content) == (b"a river", b"1280")
    frame = {"frame_index": 0, "type": "image", "file_name": "image.png"}
    assert orjson.loads(parts["inpaint_items"].content) == [frame]


def test_items_of_the_clients_own() -> None:
    """With an image they are not its: what it is called here no client knows."""
    items = [{"frame_index": 3, "type": "video", "file_name": "a.mp4"}]
    alone = start(inpaint_items=items)
    assert (alone.sent()["inpaint_items"], alone.result.dropped) == (items, ())  # type: ignore[union-attr]
    beside = start(inpaint_items=items, parts=(Part("input_reference", "x.png", "", PNG),))
    assert beside.result.dropped == ("inpaint_items",)  # type: ignore[union-attr]
    assert b"a.mp4" not in (beside.sends[0].body or b"")


def test_a_client_cannot_write_parts_of_its_own() -> None:
    parts = (Part("input_reference", "x.png", "", PNG + f"\r\n--{ID}\r\n".encode()),)
    with pytest.raises(FormatError, match="boundary"):
        create(SORA, "sora", options=OPTIONS, parts=parts)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"seconds": "21"}, "seconds: expected a whole number from 1 to 20"),
        ({"size": "1024x1792"}, "size: expected 480x480, .* or 1920x1080"),
        ({"n_variants": 2}, "n_variants: expected 1"),
        ({"n_variants": "x"}, "n_variants: expected a whole number"),
    ],
)
def test_what_sora_has_not_is_refused(said: dict[str, Any], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        create(SORA, "sora", options=OPTIONS, **said)


@pytest.mark.parametrize("status", ["preprocessing", "running", "processing", "new"])
def test_a_job_under_way(status: str) -> None:
    driven = ask(SORA, "GET", GIVEN, replies=[payload("sora_queued", status=status)])
    assert (driven.sends[0].method, driven.sends[0].path) == ("GET", f"{PATH}/jobs/{JOB}")
    assert checked(driven).status == "in_progress"


def test_a_job_that_is_done() -> None:
    video = checked(ask(SORA, "GET", GIVEN, replies=[payload("sora_done")]))
    assert (video.status, video.progress) == ("completed", 100)
    assert (video.completed_at, video.expires_at) == (1748469900, 1748556300)
    assert (video.prompt, video.seconds) == ("A cat playing piano in a jazz bar.", "5")


@pytest.mark.parametrize("told", [1.5e300, -1, 1 << 62, "x", True])
def test_a_time_that_is_none_is_not_told(told: Any) -> None:
    job = payload("sora_done", expires_at=told, finished_at=told)
    video = checked(ask(SORA, "GET", GIVEN, replies=[job]))
    assert (video.completed_at, video.expires_at) == (None, None)
    error = failed(SORA, "GET", GIVEN, replies=[payload("sora_done", created_at=told)])
    assert (error.status, "not usable" in error.message) == (502, True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": "failed", "failure_reason": "input_moderation"}, "moderation_blocked"),
        ({"status": "failed", "failure_reason": "output_moderation"}, "moderation_blocked"),
        ({"status": "failed", "failure_reason": "internal_error"}, "internal_error"),
        ({"status": "failed"}, "failed"),
        ({"status": "cancelled"}, "cancelled"),
        ({"status": "succeeded", "generations": []}, "no_video"),
    ],
)
def test_a_job_that_failed(changes: dict[str, Any], code: str) -> None:
    job = payload("sora_queued", finished_at=1748469900, **changes)
    video = checked(ask(SORA, "GET", GIVEN, replies=[job]))
    assert (video.status, video.completed_at) == ("failed", None)
    assert video.error
    assert video.error.code == code


@pytest.mark.parametrize(
    ("variant", "media_type"), [("video", "video/mp4"), ("thumbnail", "image/jpeg")]
)
def test_the_video_and_its_thumbnail_pass(variant: str, media_type: str) -> None:
    query = {"variant": variant}
    driven = ask(SORA, "GET", GIVEN, "content", replies=[payload("sora_done")], query=query)
    assert isinstance(driven.result, Passed)
    made = "gen_01jwcet0eje35tc5jy54yjax5q"
    assert driven.result.send.path == f"{PATH}/{made}/content/{variant}"
    assert driven.result.media_type == media_type


def test_what_there_is_no_file_of() -> None:
    with pytest.raises(FormatError, match="variant: expected video or thumbnail"):
        ask(SORA, "GET", GIVEN, "content", query={"variant": "spritesheet"})
    error = failed(SORA, "GET", GIVEN, "content", replies=[payload("sora_queued")])
    assert error.status == 404


def test_a_job_is_deleted() -> None:
    driven = ask(SORA, "DELETE", GIVEN, replies=[reply(b"", 204)])
    assert (driven.sends[0].method, driven.sends[0].path) == ("DELETE", f"{PATH}/jobs/{JOB}")
    assert driven.value == {"id": GIVEN, "object": "video.deleted", "deleted": True}


def test_jobs_are_listed() -> None:
    answer = {"object": "list", "data": [payload("sora_done")], "has_more": True}
    driven = ask(SORA, "GET", replies=[answer], query={"limit": "1", "after": GIVEN})
    assert driven.sends[0].query == f"api-version=preview&limit=1&after={JOB}"
    assert (driven.value["last_id"], driven.value["has_more"]) == (GIVEN, True)
    last = ask(SORA, "GET", replies=[{**answer, "has_more": False}])
    assert last.value["has_more"] is False


@pytest.mark.parametrize("said", [{"seconds": "21"}, {"size": "1024x1792"}])
def test_a_model_that_nobody_has_named_is_not_named(said: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"expected (a whole number from 1 to 20|.*1080)\Z"):
        create(SORA, "", options=OPTIONS, **said)


def test_an_operation_that_is_not_there_names_those_that_are() -> None:
    error = failed(SORA, "POST", GIVEN, "remix", provider="azure")
    assert (error.status, error.message) == (
        404,
        f"POST /videos/{GIVEN}/remix: azure has no such operation; it has POST /videos, "
        "GET /videos, GET /videos/{id}, GET /videos/{id}/content, DELETE /videos/{id}",
    )


def test_an_order_that_azure_has_not_is_named() -> None:
    driven = ask(SORA, "GET", replies=[{"data": []}], query={"order": "asc"})
    assert getattr(driven.result, "dropped", None) == ("order",)


@pytest.mark.parametrize("given", [*map(video_id, BAD_NAMES), "task_1"])
def test_ids_that_are_no_jobs_reach_no_provider(given: str) -> None:
    driven = Driven()
    for method, rest in (("GET", (given,)), ("GET", (given, "content")), ("DELETE", (given,))):
        error = failed(SORA, method, *rest, driven=driven)
        assert (error.status, driven.sends) == (404, [])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (reply({"error": {"code": "429", "message": "slow down"}}, 429), 429),
        (reply({"code": "DeploymentNotFound", "message": "no"}, 404), 404),
        (reply(b"<html>", 500), 500),
        (reply(b""), 502),
        (reply({"object": "list"}), 502),
        (reply(payload("sora_queued", id="../x")), 502),
        (reply(payload("sora_done", generations=[{"id": "../x"}])), 502),
    ],
)
def test_errors_of_azure_at_each_call(answer: Any, status: int) -> None:
    for method, rest in (("POST", ()), ("GET", (GIVEN,)), ("GET", (GIVEN, "content"))):
        fields: Any = {"model": "sora", "body": {"prompt": "x"}, "options": OPTIONS}
        assert failed(SORA, method, *rest, replies=[answer], **fields).status == status
