"""Images of Dashscope: in one call, or as tasks that are polled for."""

from __future__ import annotations

from base64 import b64decode, b64encode
from itertools import chain, repeat
from typing import Any

import pytest

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.form import Part
from kong_ai_proxy.providers.dashscope import DASHSCOPE
from kong_ai_proxy.providers.dashscope.images import EDIT, GENERATE
from kong_ai_proxy.providers.flow import MAX_WAITED, ProviderFailed, Reply, Result, Send
from tests.flows import Driven, field_of, reply, run, wanted
from tests.providers.pictures import MASK, PNG, pixels

MESSAGE = "/api/v1/services/aigc/multimodal-generation/generation"
TEXT_TASK = "/api/v1/services/aigc/text2image/image-synthesis"
IMAGE_TASK = "/api/v1/services/aigc/image2image/image-synthesis"
HOST = "https://dashscope-result-sh.oss-cn-shanghai.aliyuncs.com"
LATER = {"x-dashscope-async": "enable"}
B64 = b64encode(PNG).decode()


def url(number: int) -> str:
    return f"{HOST}/{number}.png?Expires=1&Signature=a%2Fb"


def message(*numbers: int) -> Reply:
    content = [{"image": url(number)} for number in numbers]
    return reply({"output": {"choices": [{"message": {"content": content}}]}})


def task(status: str, name: str = "t-1", **more: Any) -> Reply:
    return reply({"output": {"task_id": name, "task_status": status, **more}})


def done(*numbers: int, name: str = "t-1") -> Reply:
    return task("SUCCEEDED", name, results=[{"url": url(number)} for number in numbers])


def generated(model: str, *replies: Reply, **body: Any) -> Driven:
    asked = wanted(model=model, body={"prompt": "A cat", **body})
    return run(GENERATE, asked, replies)


def edited(model: str, *replies: Reply, mask: bytes = b"", **fields: str) -> Driven:
    texts = {"prompt": "A cat", **fields}
    parts = [field_of(name, text) for name, text in texts.items()]
    parts.append(Part("image[]", "cat.png", "image/png", PNG))
    if mask:
        parts.append(Part("mask", "mask.png", "image/png", mask))
    asked = wanted(openai.IMAGE_EDITS, model=model, body=texts, parts=tuple(parts))
    return run(EDIT, asked, replies)


def test_the_row_has_them() -> None:
    assert DASHSCOPE.flows == {openai.IMAGE_GENERATIONS: GENERATE, openai.IMAGE_EDITS: EDIT}


def test_one_call() -> None:
    driven = generated("qwen-image-plus", message(1), size="1024x1024", user="u")
    assert driven.sends == [Send("POST", MESSAGE, body=driven.sends[0].body)]
    assert driven.sent()["parameters"] == {"size": "1328*1328", "n": 1}
    assert driven.value["data"] == [{"url": url(1)}]
    assert isinstance(driven.result, Result)
    assert (driven.result.dropped, driven.waited) == (("user",), 0.0)


def test_a_task_is_polled_for() -> None:
    replies = [task("PENDING"), task("PENDING"), task("RUNNING"), done(1)]
    driven = generated("wan2.5-t2i-preview", *replies)
    begin, *polls = driven.sends
    assert begin == Send("POST", TEXT_TASK, headers=LATER, body=begin.body)
    assert polls == [Send("GET", "/api/v1/tasks/t-1")] * 3
    assert driven.waited == 3.0
    assert driven.value["data"] == [{"url": url(1)}]


def test_images_themselves_are_fetched_without_credentials() -> None:
    driven = generated("qwen-image", message(1), reply(PNG), response_format="b64_json")
    fetch = driven.sends[1]
    assert (fetch.base_url, fetch.path, fetch.is_own) == (HOST, "/1.png", False)
    assert fetch.query == "Expires=1&Signature=a%2Fb"
    assert driven.value["data"] == [{"b64_json": B64}]
    assert driven.value["output_format"] == "png"


def test_an_address_without_encryption_is_asked_with_it() -> None:
    content = [{"image": url(1).replace("https:", "http:")}]
    answer = reply({"output": {"choices": [{"message": {"content": content}}]}})
    driven = generated("qwen-image", answer, reply(PNG), response_format="b64_json")
    assert driven.sends[1].base_url == HOST
    assert driven.value["data"] == [{"b64_json": B64}]


@pytest.mark.parametrize(
    "address",
    [
        "http://dashscope-result-sh.oss-cn-shanghai.aliyuncs.com:8080/1.png",
        "https://evil.oss-cn-shanghai.aliyuncs.com/1.png",
        "https://dashscope.oss-cn-shanghai.aliyuncs.com.evil.example/1.png",
        "https://dashscope@evil.example/1.png",
        "https://169.254.169.254/latest",
        "file:///etc/passwd",
        "x",
    ],
)
def test_images_elsewhere_are_not_fetched(address: str) -> None:
    content = [{"image": address}]
    answer = reply({"output": {"choices": [{"message": {"content": content}}]}})
    with pytest.raises(ProviderFailed, match="not the provider's own"):
        generated("qwen-image", answer, response_format="b64_json")


def test_images_behind_an_address_of_the_operators() -> None:
    own = {"upstream_url": "http://127.0.0.1:9/api"}
    content = [{"image": "http://127.0.0.1:9/results/1.png"}]
    answer = reply({"output": {"choices": [{"message": {"content": content}}]}})
    body = {"prompt": "A", "response_format": "b64_json"}
    asked = wanted(model="qwen-image", options=own, body=body)
    assert run(GENERATE, asked, [answer, reply(PNG)]).value["data"] == [{"b64_json": B64}]


def test_several_images_of_a_model_that_makes_one() -> None:
    driven = generated("qwen-image", message(1), message(2), message(3), n=3)
    assert [each["url"] for each in driven.value["data"]] == [url(1), url(2), url(3)]


def test_a_seed_counts_up_from_call_to_call() -> None:
    driven = generated("qwen-image", message(1), message(2), message(3), n=3, seed=7)
    assert [driven.sent(call)["parameters"]["seed"] for call in range(3)] == [7, 8, 9]


def test_several_tasks_run_beside_each_other() -> None:
    made = (task("PENDING", "t-1"), task("PENDING", "t-2"))
    ends = (done(1, 2, 3, 4), task("RUNNING", "t-2"), done(5, 6, name="t-2"))
    driven = generated("wan2.2-t2i-flash", *made, *ends, n=6)
    assert [send.method for send in driven.sends] == ["POST", "POST", "GET", "GET", "GET"]
    assert [driven.sent(number)["parameters"]["n"] for number in (0, 1)] == [4, 2]
    assert len(driven.value["data"]) == 6


def test_tokens_are_told() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    output = {"choices": [{"message": {"content": [{"image": url(1)}]}}]}
    driven = generated("wan2.7-image", reply({"output": output, "usage": usage}))
    assert driven.value["usage"]["total_tokens"] == 7


# ---- edits


def test_an_edit_by_a_message() -> None:
    driven = edited("qwen-image-edit-plus", message(1, 2), n="2")
    assert driven.sends[0].path == MESSAGE
    content = driven.sent()["input"]["messages"][0]["content"]
    assert content == [{"image": f"data:image/png;base64,{B64}"}, {"text": "A cat"}]
    assert len(driven.value["data"]) == 2


def test_an_edit_by_a_task_with_a_mask() -> None:
    driven = edited("wanx2.1-imageedit", task("PENDING"), done(1), mask=MASK)
    assert driven.sends[0].path == IMAGE_TASK
    asked = driven.sent()["input"]
    assert asked["function"] == "description_edit_with_mask"
    mask = b64decode(asked["mask_image_url"].partition(",")[2])
    assert pixels(mask) == b"\xff\x00\x00\x00"  # MASK is transparent at the first pixel


def test_a_mask_that_a_model_does_not_take() -> None:
    with pytest.raises(FormatError, match="mask: qwen-image-edit takes none"):
        edited("qwen-image-edit", mask=MASK)


# ---- bad input, on both sides


def test_a_model_is_needed() -> None:
    with pytest.raises(FormatError, match="model: expected a name"):
        generated("")


def test_a_poll_that_never_ends() -> None:
    asked = wanted(model="wan2.2-t2i-flash", body={"prompt": "A"})
    driven = Driven()
    with pytest.raises(ProviderFailed, match="not done within 540 seconds") as failed:
        run(GENERATE, asked, chain(repeat(task("RUNNING"))), driven=driven)
    assert failed.value.error.status == 504
    assert driven.waited == MAX_WAITED


@pytest.mark.parametrize(
    ("status", "more", "told", "answered"),
    [
        ("FAILED", {"code": "DataInspectionFailed", "message": "No."}, "No.", 400),
        ("FAILED", {"code": "Throttling.RateQuota", "message": "Slow"}, "Slow", 429),
        ("FAILED", {"code": "InternalError.Algo", "message": "Oops"}, "Oops", 500),
        ("FAILED", {"code": "Unheard", "message": "Oops"}, "Oops", 0),
        ("FAILED", {}, "ended without images: FAILED", 502),
        ("CANCELED", {}, "ended without images: CANCELED", 502),
        ("UNKNOWN", {}, "ended without images: UNKNOWN", 502),
        ("SUCCEEDED", {"results": []}, "it has no image", 502),
    ],
)
def test_tasks_that_fail(status: str, more: Any, told: str, answered: int) -> None:
    with pytest.raises(ProviderFailed, match=told) as failed:
        generated("wan2.2-t2i-flash", task("PENDING"), task(status, **more))
    assert failed.value.error.status == answered


@pytest.mark.parametrize("code", ["DataInspectionFailed", "IPInfringementSuspect"])
@pytest.mark.parametrize("model", ["qwen-image", "wan2.2-t2i-flash"])
def test_what_a_filter_stops_has_openais_code(model: str, code: str) -> None:
    error = {"code": code, "message": "No."}
    answers = [reply(error, 400)]
    if model != "qwen-image":
        answers = [task("PENDING"), task("FAILED", **error)]
    with pytest.raises(ProviderFailed, match=r"No\.") as failed:
        generated(model, *answers)
    told = failed.value.error
    assert (told.status, told.code, told.type) == (
        400,
        "moderation_blocked",
        "image_generation_user_error",
    )


BAD = [
    (reply({"code": "InvalidApiKey", "message": "Invalid API-key provided."}, 401), 401),
    (reply({"code": "Throttling", "message": "Slow"}, 429), 429),
    (reply(b"<html>", 503), 503),
    (reply(b"", 500), 500),
    (reply(b""), 502),
    (reply(b"<html>"), 502),
    (reply([]), 502),
    (reply({}), 502),
]


@pytest.mark.parametrize(("answer", "status"), BAD)
@pytest.mark.parametrize(
    ("model", "before"),
    [
        ("qwen-image", []),
        ("wan2.2-t2i-flash", []),
        ("wan2.2-t2i-flash", [task("PENDING")]),
        ("qwen-image", [message(1)]),
    ],
)
def test_a_provider_that_fails_at_any_call(
    model: str, before: list[Reply], answer: Reply, status: int
) -> None:
    asked = wanted(model=model, body={"prompt": "A cat", "response_format": "b64_json"})
    with pytest.raises(ProviderFailed) as failed:
        run(GENERATE, asked, chain(before, repeat(answer)))
    assert failed.value.error.status == status


SLOW, DOWN = BAD[1][0], BAD[2][0]


def test_a_question_that_fails_does_not_end_the_waiting() -> None:
    """The task goes on and is paid for."""
    polls = [SLOW, DOWN, DOWN, DOWN, task("RUNNING"), DOWN, SLOW, SLOW, SLOW, done(1)]
    driven = generated("wan2.2-t2i-flash", task("PENDING"), *polls)
    assert driven.value["data"] == [{"url": url(1)}]
    assert driven.waited == len(polls)


@pytest.mark.parametrize(
    ("answer", "times", "status"), [(SLOW, 5, 429), (DOWN, 5, 503), (BAD[0][0], 1, 401)]
)
def test_questions_that_fail_all_the_time_end_it(answer: Reply, times: int, status: int) -> None:
    asked = wanted(model="wan2.2-t2i-flash", body={"prompt": "A cat"})
    driven = Driven()
    with pytest.raises(ProviderFailed) as failed:
        run(GENERATE, asked, chain([task("PENDING")], repeat(answer)), driven=driven)
    assert (failed.value.error.status, driven.waited) == (status, times)


STOPPED = {"code": "DataInspectionFailed", "message": "No."}


def test_what_a_filter_stops_is_left_out() -> None:
    driven = generated("qwen-image", message(1), reply(STOPPED, 400), message(3), n=3)
    assert [each["url"] for each in driven.value["data"]] == [url(1), url(3)]
    made = (task("PENDING", "t-1"), task("PENDING", "t-2"))
    driven = generated(
        "wan2.2-t2i-flash", *made, task("FAILED", **STOPPED), done(5, name="t-2"), n=5
    )
    assert [each["url"] for each in driven.value["data"]] == [url(5)]


@pytest.mark.parametrize("name", ["..", ".", "../../x", "a\\..\\b", "%2E%2e", "a\nb", 7, None])
def test_a_task_whose_id_is_none(name: Any) -> None:
    with pytest.raises(ProviderFailed, match="not usable") as failed:
        generated("wan2.2-t2i-flash", task("PENDING", name))
    assert failed.value.error.status == 502


def test_a_tasks_id_stays_one_segment() -> None:
    driven = generated("wan2.2-t2i-flash", task("PENDING", "a/x?y"), done(1))
    assert driven.sends[1].path == "/api/v1/tasks/a%2Fx%3Fy"
