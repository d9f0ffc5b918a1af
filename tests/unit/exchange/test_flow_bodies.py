"""Requests that take several calls: bodies that are taken apart, downloads, clients that leave."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Generator
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.form import FormReader
from kong_ai_proxy.providers.flow import (
    Flow,
    Passed,
    Patience,
    ProviderFailed,
    Result,
    Send,
    Step,
    Steps,
    Wanted,
    asked,
    not_there,
    received,
    sent,
    waited,
)
from tests import flows, relays
from tests.unit.exchange.flowing_world import configuration, errors, post, twice

# ---- bodies that are taken apart


def measured(wanted: Wanted) -> Steps:
    """The lengths of a form's parts, by name; what comes is not kept."""
    reader = FormReader(wanted.content_type)
    lengths: dict[str, int] = {}
    name = ""
    while chunk := (yield from received()):
        for found in reader.feed(chunk):
            if isinstance(found, bytes):
                lengths[name] += len(found)
            else:
                name = found.name
                lengths[name] = 0
    reader.end()
    yield from asked(Send("PUT", "/done"))
    return Result(lengths)


async def test_a_form_is_taken_piece_by_piece_whatever_its_size(
    upstream: Any, as_flow: Any
) -> None:
    as_flow(measured, openai.FILES, takes_body=True)
    _, url = upstream
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", io.BytesIO(b"x" * 3_000_000), filename="a.jsonl")
    config = configuration(url, openai.FILES, max_request_body_size=1000)
    async with (
        relays.running(config) as relay,
        relay.request("POST", "/files", data=form) as response,
    ):
        assert response.status == 200
        assert orjson.loads(await response.read()) == {"purpose": 5, "file": 3_000_000}


async def test_a_form_that_is_read_whole_has_the_bodys_limit(upstream: Any, as_flow: Any) -> None:
    as_flow(twice, openai.VIDEOS)
    found, url = upstream
    form = aiohttp.FormData({"prompt": "x" * 2000}, default_to_multipart=True)
    config = configuration(url, openai.VIDEOS, max_request_body_size=1000)
    async with (
        relays.running(config) as relay,
        relay.request("POST", "/videos", data=form) as response,
    ):
        assert response.status == 413
    assert found.requests == []


async def test_a_compressed_form_is_refused(upstream: Any, as_flow: Any) -> None:
    as_flow(measured, openai.FILES, takes_body=True)
    _, url = upstream
    headers = {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"}
    async with (
        relays.running(configuration(url, openai.FILES)) as relay,
        relay.request("POST", "/files", data=b"x", headers=headers) as response,
    ):
        assert response.status == 415


# ---- downloads


class _Upper:
    def feed(self, chunk: bytes) -> bytes:
        if b"!" in chunk:
            raise ProviderFailed(ProviderError("no more"))
        return chunk.upper()

    def end(self) -> bytes:
        return b"."


def downloading(**more: Any) -> Callable[[Wanted], Steps]:
    def run(wanted: Wanted) -> Steps:
        yield from waited(0)
        return Passed(Send("GET", "/big"), errors, **more)

    return run


async def get(url: str, path: str = "/files/a/content", method: str = "GET") -> Any:
    async with (
        relays.running(configuration(url, openai.FILES)) as relay,
        relay.request(method, path) as response,
    ):
        return response.status, await response.read(), response.headers


async def test_a_download_passes_as_it_comes(upstream: Any, as_flow: Any) -> None:
    as_flow(downloading(), openai.FILES)
    found, url = upstream

    async def big(request: web.Request) -> web.Response:
        headers = {"content-type": "video/mp4", "x-amz-id": "secret"}
        return web.Response(body=b"v" * 1_000_000, headers=headers)

    found.answer = big
    status, body, headers = await get(url)
    assert (status, body, headers["content-type"]) == (200, b"v" * 1_000_000, "video/mp4")
    assert headers["content-length"] == "1000000"
    assert "x-amz-id" not in headers


async def test_a_download_may_be_changed_while_it_passes(upstream: Any, as_flow: Any) -> None:
    as_flow(downloading(filter=_Upper(), media_type="text/plain"), openai.FILES)
    found, url = upstream

    async def text(request: web.Request) -> web.Response:
        return web.Response(body=b"abc")

    found.answer = text
    status, body, headers = await get(url)
    assert (status, body, headers["content-type"]) == (200, b"ABC.", "text/plain")


async def test_a_download_that_cannot_be_changed_breaks_off(upstream: Any, as_flow: Any) -> None:
    as_flow(downloading(filter=_Upper()), openai.FILES)
    found, url = upstream

    async def text(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"abc")
        await asyncio.sleep(0.05)
        await response.write(b"!")
        return response

    found.answer = text
    with pytest.raises(aiohttp.ClientPayloadError):
        await get(url)


async def test_a_refused_download_is_the_providers_error(upstream: Any, as_flow: Any) -> None:
    as_flow(downloading(), openai.FILES)
    found, url = upstream

    async def gone(request: web.Request) -> web.Response:
        return web.Response(status=404, text="gone")

    found.answer = gone
    status, body, _ = await get(url)
    assert (status, orjson.loads(body)["error"]["message"]) == (404, "gone")


async def test_head_is_no_method_of_a_flow(upstream: Any, as_flow: Any) -> None:
    as_flow(downloading(), openai.FILES)
    status, _, headers = await get(upstream[1], method="HEAD")
    assert (status, headers["allow"]) == (405, "DELETE, GET, POST")


async def test_a_form_that_a_flow_does_not_take_is_told_what_to_do(
    upstream: Any, as_flow: Any
) -> None:
    as_flow(twice, openai.BATCHES, no_form="there are no files here: send the member 'requests'")
    form = aiohttp.FormData({"purpose": "batch"}, default_to_multipart=True)
    async with (
        relays.running(configuration(upstream[1], openai.BATCHES)) as relay,
        relay.request("POST", "/v1/batches", data=form) as response,
    ):
        assert response.status == 415
        message = (await response.json())["error"]["message"]
    expected = "expected an uncompressed body in UTF-8 with content-type: application/json; "
    assert message == f"{expected}there are no files here: send the member 'requests'"


async def test_an_operation_that_is_not_there_is_a_404(upstream: Any, as_flow: Any) -> None:
    def nothing(wanted: Wanted) -> Steps:
        assert wanted.rest == ("a b", "content")
        raise not_there(wanted, "GET /files")
        yield

    as_flow(nothing, openai.FILES)
    status, body, _ = await get(upstream[1], "/v1/files/a%20b/content")
    message = orjson.loads(body)["error"]["message"]
    assert (status, message) == (
        404,
        "GET /files/a b/content: openai has no such operation; it has GET /files",
    )


@pytest.mark.parametrize(
    "path",
    [
        "/files/..%2f..%2fetc",
        "/files/%2e%2e/x",
        "/files/a//b",
        "/files/a%00b",
        "/files/%ff",
        "/files/a?after=%ff",
        "/files/a?%ff=1",
        "/files/a?after=%ed%a0%80",
    ],
)
async def test_odd_ids_reach_no_flow(upstream: Any, as_flow: Any, path: str) -> None:
    as_flow(downloading(), openai.FILES)
    found, url = upstream
    status, _, _ = await get(url, path)
    assert (status, found.requests) == (400, [])


# ---- time


async def test_a_client_that_leaves_ends_the_flow(upstream: Any, as_flow: Any) -> None:
    ended = asyncio.Event()
    started = asyncio.Event()

    def endless(wanted: Wanted) -> Steps:
        try:
            while True:
                started.set()
                yield from waited(60)
        finally:
            ended.set()

    as_flow(endless)
    async with relays.running(configuration(upstream[1])) as relay:
        asking = asyncio.create_task(_ask(relay))
        await asyncio.wait_for(started.wait(), 5)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_flow_puts_its_things_in_order_when_the_client_has_left(
    upstream: Any, as_flow: Any
) -> None:
    found, url = upstream

    def uploading(wanted: Wanted) -> Steps:
        yield from sent(Send("POST", "/begin"), errors)
        try:
            while (yield from received()):
                pass
        except FormatError:
            yield from asked(Send("DELETE", "/begun"))
            raise
        return Result({})

    as_flow(uploading, openai.FILES, takes_body=True)
    async with relays.running(configuration(url, openai.FILES)) as relay:
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        head = {
            **relay.headers("POST", "/files"),
            "host": "relay",
            "content-type": "multipart/form-data; boundary=b",
            "content-length": "1000",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"POST /files HTTP/1.1\r\n{lines}\r\n--b".encode())
        async with asyncio.timeout(5):
            while len(found.requests) < 1:
                await asyncio.sleep(0.01)
            writer.close()
            while len(found.requests) < 2:
                await asyncio.sleep(0.01)
    assert [(each.method, each.path) for each in found.requests] == [
        ("POST", "/begin"),
        ("DELETE", "/begun"),
    ]


async def test_a_flow_puts_its_things_in_order_when_the_provider_is_lost(
    upstream: Any, as_flow: Any
) -> None:
    found, url = upstream

    def uploading(wanted: Wanted) -> Steps:
        try:
            yield from sent(Send("PUT", "/part"), errors)
        except ProviderFailed:
            yield from asked(Send("DELETE", "/begun"))
            raise
        return Result({})

    async def reset(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({})

    as_flow(uploading)
    found.answer = reset
    status, body, _ = await post(url)
    assert (status, body) == (502, b'{"error":{"message":"the provider cannot be reached"}}')
    assert [each.method for each in found.requests] == ["PUT", "DELETE"]


@pytest.mark.parametrize("status", [429, 503])
async def test_when_to_come_back_is_passed_on(upstream: Any, as_flow: Any, status: int) -> None:
    as_flow(twice)
    found, url = upstream

    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=status, text="busy", headers={"retry-after": "7"})

    found.answer = busy
    answered, _, headers = await post(url)
    assert (answered, headers["retry-after"]) == (status, "7")


async def test_when_to_come_again_outlasts_what_puts_things_in_order(
    upstream: Any, as_flow: Any
) -> None:
    def run(_: Wanted) -> Steps:
        try:
            yield from sent(Send("PUT", "/part"), errors)
        except ProviderFailed:
            yield from asked(Send("DELETE", "/upload"))
            raise
        raise AssertionError

    as_flow(run)
    found, url = upstream

    async def busy(request: web.Request) -> web.Response:
        if request.method == "DELETE":
            return web.Response(status=204)
        return web.Response(status=503, text="busy", headers={"retry-after": "7"})

    found.answer = busy
    answered, _, headers = await post(url)
    assert (answered, headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize("path", ["/files/%ff", "/files/a?after=%ff"])
async def test_what_is_no_utf8_is_the_clients_error(upstream: Any, as_flow: Any, path: str) -> None:
    as_flow(downloading(), openai.FILES)
    status, _, _ = await get(upstream[1], path)
    assert status == 400


async def _ask(relay: relays.RunningRelay) -> None:
    async with relay.request("POST", "/images", json={"prompt": "a cat"}) as response:
        await response.read()


def test_a_poll_that_never_ends_is_a_504_after_nine_minutes() -> None:
    def endless(wanted: Wanted) -> Generator[Step, Any, Result]:
        patience = Patience(wanted, "the image")
        while True:
            yield from patience.pause()

    driven = flows.Driven()
    with pytest.raises(ProviderFailed, match="the image was not done within 540 seconds") as failed:
        flows.run(Flow(endless), flows.wanted(), driven=driven)
    assert failed.value.error.status == 504
    assert driven.waited == 540


async def test_members_that_are_nested_too_deeply_are_the_clients_error(
    upstream: Any, as_flow: Any
) -> None:
    def echo(wanted: Wanted) -> Steps:
        yield from asked(Send("POST", "/", body=orjson.dumps(dict(wanted.body))))
        return Result({})

    as_flow(echo)
    found, url = upstream
    body = b'{"prompt":"a cat","deep":' + b"[" * 300 + b"]" * 300 + b"}"
    headers = {"content-type": "application/json"}
    status, text, _ = await post(url, data=body, headers=headers)
    assert (status, found.requests) == (400, [])
    assert orjson.loads(text)["error"]["message"] == "the request body is nested too deeply"


async def test_a_number_that_json_has_not_is_a_502(upstream: Any, as_flow: Any) -> None:
    def huge(wanted: Wanted) -> Steps:
        yield from asked(Send("GET", "/"))
        return Result({"created": int(1.5e300)})

    as_flow(huge)
    status, text, _ = await post(upstream[1])
    assert (status, b"cannot be written as JSON" in text) == (502, True)


async def test_a_placeholder_for_a_key_is_no_secret(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream

    async def fail(request: web.Request) -> web.Response:
        return web.Response(status=400, text="an apple a day")

    found.answer = fail
    config = configuration(url, auth={"header_name": "x-api-key", "header_value": "a"})
    async with (
        relays.running(config) as relay,
        relay.request("POST", "/images", json={"prompt": "a cat"}) as response,
    ):
        assert orjson.loads(await response.read())["error"]["message"] == "an apple a day"
        assert response.headers["content-type"] == "application/json"


async def test_an_error_without_end_is_answered_all_the_same(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"no" * 50_000)

    found.answer = endless
    status, body, _ = await post(url)
    assert status == 500
    assert len(body) < 5_000


async def test_an_answer_that_is_too_long_to_be_looked_at_is_a_502(
    upstream: Any, as_flow: Any
) -> None:
    as_flow(twice)
    found, url = upstream

    async def long(request: web.Request) -> web.Response:
        return web.Response(body=b"{" + b" " * (5 << 20) + b"}")

    found.answer = long
    status, body, _ = await post(url)
    assert (status, b"longer than 4194304 bytes" in body) == (502, True)


async def test_a_path_that_only_begins_like_the_routes_is_none(upstream: Any, as_flow: Any) -> None:
    as_flow(downloading(), openai.FILES)
    found, url = upstream
    async with (
        relays.running(configuration(url, openai.FILES)) as relay,
        relay.request("GET", "/ai/filesx", claims={"route_path": "/ai/files"}) as response,
    ):
        assert response.status == 404
    assert found.requests == []
