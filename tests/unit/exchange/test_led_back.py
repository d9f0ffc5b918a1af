"""Answers in a native format that would lead the client past the gateway."""

from __future__ import annotations

import pytest

from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.led_back import LedBack, is_upload, own_address, with_own_upload
from kong_ai_proxy.exchange.messages import (
    Address,
    ClientRequest,
    Commit,
    Data,
    Emit,
    End,
    Fail,
    Finish,
    Lost,
    ResponseHead,
)

NATIVE = "/upload/v1beta/files"
GOOGLE = Address("https", "generativelanguage.googleapis.com", 443, NATIVE)
OWN = "https://ai.example/gemini"


@pytest.mark.parametrize("path", [f"/gemini{NATIVE}", f"/gemini{NATIVE}/"])
def test_the_own_address_is_what_the_client_wrote(path: str) -> None:
    asked = ClientRequest("POST", path, origin="https://ai.example")
    assert own_address(asked, NATIVE) == OWN


def test_the_own_address_may_have_no_prefix() -> None:
    asked = ClientRequest("POST", NATIVE, origin="http://localhost:1")
    assert own_address(asked, NATIVE) == "http://localhost:1"


def test_an_upload_goes_on_at_the_gateway_and_without_a_key() -> None:
    url = f"https://{GOOGLE.host}{NATIVE}?upload_id=A-b&key=AIza&upload_protocol=resumable"
    head = ResponseHead(200, (("x-goog-upload-url", url), ("x-goog-upload-status", "active")))
    assert with_own_upload(head, GOOGLE, OWN, NATIVE).headers == (
        ("x-goog-upload-url", f"{OWN}{NATIVE}?upload_id=A-b&upload_protocol=resumable"),
        ("x-goog-upload-status", "active"),
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/upload/v1beta/files?upload_id=1",
        "https://generativelanguage.googleapis.com:8443/upload/v1beta/files",
        "https://generativelanguage.googleapis.com/v1beta/files",
        "/upload/v1beta/files",
        "nonsense",
    ],
)
def test_an_upload_that_goes_on_elsewhere_is_refused(url: str) -> None:
    head = ResponseHead(200, (("x-goog-upload-url", url),))
    with pytest.raises(Refused, match="somebody else's") as refused:
        with_own_upload(head, GOOGLE, OWN, NATIVE)
    assert refused.value.status == 502


BATCH = (
    b'{"id":"msgbatch_1","results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1'
    b'/results","text":"\\"results_url\\":\\"https://x/v1/messages/batches/1/results\\""}'
)


def led_back(body: list[bytes], own: str = "https://ai.example/claude") -> list[object]:
    head = ResponseHead(200, (("content-type", "application/json"), ("content-length", "9")))
    found = LedBack(head, own, None, {"x-added": "1"})
    actions: list[object] = [*found.commit()]
    for chunk in body:
        actions += found.feed(Data(chunk))
    return [*actions, *found.feed(End())]


@pytest.mark.parametrize("cut", range(0, len(BATCH), 7))
def test_results_are_fetched_from_the_gateway(cut: int) -> None:
    expected = BATCH.replace(b'"https://api.anthropic.com/', b'"https://ai.example/claude/', 1)
    head = (("content-type", "application/json"), ("x-added", "1"))
    assert led_back([BATCH[:cut], BATCH[cut:]]) == [
        Commit(ResponseHead(200, head), len(expected)),
        Emit(expected),
        Finish(),
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (rb"https:\/\/api.anthropic.com\/v1\/messages\/batches\/m1\/results", "gw.example"),
        (b"https://proxy.example/anthropic/v1/messages/batches/m1/results", "gw.example"),
        (b"https://api.anthropic.com/v1/messages/batches/m1/results", r"gw\g<0>\qx"),
    ],
)
def test_results_may_be_written_in_other_ways(url: bytes, expected: str) -> None:
    (_, emitted, _) = led_back([b'{"results_url":"' + url + b'"}'], f"https://{expected}")
    told = f'{{"results_url":"https://{expected}/v1/messages/batches/m1/results"}}'
    assert emitted == Emit(told.encode())


@pytest.mark.parametrize("url", [b"https://evil.example/x", b"file:///etc/passwd", b""])
def test_results_that_lie_elsewhere_are_a_502(url: bytes) -> None:
    (failed,) = led_back([b'{"results_url":"' + url + b'"}'])
    assert isinstance(failed, Fail)
    assert failed.answer.status == 502


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/n/upload/v1beta/files", True),
        ("/upload/v1/files/", True),
        ("/n/upload/v1beta/models/gemini:batchGenerateContent", False),
        ("/n/upload/v1/projects/p/locations/l/batchPredictionJobs", False),
        ("/n/v1beta/files", False),
        ("/n/upload/v1beta/files/x", False),
    ],
)
def test_only_files_are_uploaded(path: str, expected: bool) -> None:
    headers = {"x-goog-upload-command": ("upload, finalize",)}
    asked = ClientRequest("POST", path, headers=headers)
    assert is_upload("gemini", asked) is expected
    assert not is_upload("anthropic", asked)


def test_a_batch_that_is_not_done_stays_as_it_is() -> None:
    body = b'{"id": "msgbatch_1", "results_url": null}'
    assert led_back([body])[1] == Emit(body)


def test_a_batch_that_breaks_off_is_a_502() -> None:
    found = LedBack(ResponseHead(200), "http://x", None, {})
    assert list(found.feed(Data(b"{"))) == []
    (failed,) = found.feed(Lost("error", "reset"))
    assert isinstance(failed, Fail)
    assert failed.answer.status == 502
