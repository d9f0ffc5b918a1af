"""Requests that take several calls, through the relay: a provider's row made for the test, and a
real upstream over sockets."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import replace
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
    parsed,
    received,
    sent,
    waited,
)
from kong_ai_proxy.providers.registry import PROVIDERS
from tests import flows, relays

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = "sk-operators-own"


class Upstream:
    """Answers each request as `answer` says, and keeps what it got."""

    def __init__(self) -> None:
        self.answer: Answer = self._tell
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"path": request.path, "number": len(self.requests)})

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.requests.append(request)
        return await self.answer(request)  # type: ignore[arg-type]


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[Upstream, str]]:
    found = Upstream()
    server = web.Server(found.handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield found, f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
def as_flow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a route type of openai's a flow."""

    def use(
        run: Callable[[Wanted], Steps], route_type: str = openai.IMAGE_GENERATIONS, **more: Any
    ) -> None:
        row = replace(PROVIDERS["openai"], flows={route_type: Flow(run, **more)})
        monkeypatch.setitem(PROVIDERS, "openai", row)

    return use


def configuration(url: str, route_type: str = openai.IMAGE_GENERATIONS, **more: Any) -> Any:
    return {
        "route_type": route_type,
        "auth": {"header_name": "Authorization", "header_value": f"Bearer {KEY}"},
        "model": {"provider": "openai", "name": "grok", "options": {"upstream_url": url}},
        **more,
    }


def errors(status: int, body: bytes) -> ProviderError:
    return ProviderError(body.decode() or "no text", status=status)


def twice(wanted: Wanted) -> Steps:
    first = yield from sent(Send("POST", "/first", body=b'{"a":1}'), errors)
    yield from waited(0.01)
    number = parsed(first)["number"]
    second = yield from sent(Send("GET", f"/second/{number}", "x=y"), errors)
    return Result({"first": parsed(first), "second": parsed(second), "model": wanted.model})


def lost_later(_: Wanted) -> Steps:
    yield from sent(Send("POST", "/first"), errors)
    yield from sent(Send("GET", "/nobody", base_url="http://127.0.0.1:1"), errors)
    raise AssertionError


async def post(url: str, run: Any = None, **options: Any) -> tuple[int, Any, Any]:
    async with (
        relays.running(configuration(url)) as relay,
        relay.request("POST", "/images", **(options or {"json": {"prompt": "a cat"}})) as response,
    ):
        return response.status, await response.read(), response.headers


async def test_an_answer_is_made_of_several_calls(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream
    status, body, headers = await post(url)
    assert status == 200
    assert orjson.loads(body) == {
        "first": {"path": "/first", "number": 1},
        "second": {"path": "/second/1", "number": 2},
        "model": "grok",
    }
    assert headers["content-type"] == "application/json"
    assert headers["x-kong-llm-model"] == "openai/grok"
    first, second = found.requests
    assert (first.method, first.path_qs) == ("POST", "/first")
    assert (second.method, second.path_qs) == ("GET", "/second/1?x=y")
    assert found.bodies == [b'{"a":1}', b""]
    assert "content-length" not in second.headers
    assert {each.headers["authorization"] for each in found.requests} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("loses", [False, True])
async def test_the_log_names_the_first_of_several_calls(
    upstream: Any, as_flow: Any, loses: bool
) -> None:
    as_flow(lost_later if loses else twice)
    config = configuration(upstream[1], logging={"log_statistics": True})
    async with (
        relays.running(config) as relay,
        relay.request("POST", "/images", marker=True, json={"prompt": "a cat"}) as response,
    ):
        body = await response.read()
    frame = orjson.loads(body[body.index(b"{", body.index(relays.MARKER.encode())) :])
    (tried,) = frame["ai.proxy.tried_targets"]
    assert tried["upstream_uri"] == "/first"


async def test_the_provider_sees_nothing_of_the_clients_head_but_who_it_is(
    upstream: Any, as_flow: Any
) -> None:
    as_flow(twice)
    found, url = upstream
    mine = {"x-mine": "1", "cookie": "a=b", "user-agent": "me", "openai-beta": "x"}
    await post(url, json={"prompt": "a cat"}, headers=mine)
    for request in found.requests:
        assert request.headers["user-agent"] == "me"
        assert request.headers["accept-encoding"] == "identity"
        assert not {"x-mine", "cookie", "openai-beta"} & {n.lower() for n in request.headers}


async def test_a_request_to_another_address_brings_no_key(upstream: Any, as_flow: Any) -> None:
    found, url = upstream

    def elsewhere(wanted: Wanted) -> Steps:
        reply = yield from asked(Send("GET", "/signed", "sig=1", base_url=url, is_own=False))
        return Result(parsed(reply))

    as_flow(elsewhere)
    status, _, _ = await post("http://127.0.0.1:9")
    assert status == 200
    assert "authorization" not in found.requests[0].headers


async def test_the_path_of_upstream_url_is_a_prefix(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream
    await post(url + "/prefix/?tenant=1")
    paths = [request.path_qs for request in found.requests]
    assert paths == ["/prefix/first?tenant=1", "/prefix/second/1?tenant=1&x=y"]


async def test_a_compressed_answer_is_unpacked(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream

    async def packed(request: web.Request) -> web.Response:
        return web.Response(
            body=gzip.compress(b'{"number": 7}'), headers={"content-encoding": "gzip"}
        )

    found.answer = packed
    status, body, _ = await post(url)
    assert (status, orjson.loads(body)["first"]) == (200, {"number": 7})


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_error_of_the_provider_has_its_status_and_openais_shape(
    upstream: Any, as_flow: Any, status: int
) -> None:
    as_flow(twice)
    found, url = upstream

    async def fail(request: web.Request) -> web.Response:
        return web.Response(status=status, text=f"no, {KEY} is bad")

    found.answer = fail
    answered, body, headers = await post(url)
    assert answered == status
    assert orjson.loads(body)["error"]["message"] == "no, [redacted] is bad"
    assert "x-kong-llm-model" not in headers


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b"\xff"])
async def test_an_answer_that_makes_no_sense_is_a_502(
    upstream: Any, as_flow: Any, body: bytes
) -> None:
    as_flow(twice)
    found, url = upstream

    async def odd(request: web.Request) -> web.Response:
        return web.Response(body=body)

    found.answer = odd
    status, text, _ = await post(url)
    assert status == 502
    message = orjson.loads(text)["error"]["message"]
    assert message == "the provider's answer is not usable: expected a JSON object"


async def test_a_redirect_is_not_followed(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": f"{url}/elsewhere"})

    found.answer = redirect
    status, _, headers = await post(url)
    assert (status, len(found.requests), "location" in headers) == (502, 1, False)


async def test_a_provider_that_is_lost_at_any_call_is_a_502(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream

    async def reset(request: web.Request) -> web.StreamResponse:
        if len(found.requests) == 2:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"number": 1})

    found.answer = reset
    status, body, _ = await post(url)
    assert status == 502
    assert orjson.loads(body) == {"error": {"message": "the provider cannot be reached"}}


async def test_an_answer_that_breaks_off_is_a_502(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b'{"number"')
        assert request.transport is not None
        request.transport.close()
        return response

    found.answer = half
    status, body, _ = await post(url)
    assert status == 502
    assert orjson.loads(body) == {"error": {"message": "the provider's answer broke off"}}


async def test_what_the_flow_cannot_say_is_the_clients_error(upstream: Any, as_flow: Any) -> None:
    def picky(wanted: Wanted) -> Steps:
        raise FormatError("size: expected 1024x1024, got 3x3")
        yield

    as_flow(picky)
    status, body, _ = await post(upstream[1])
    assert status == 400
    error = orjson.loads(body)["error"]
    assert error["message"] == "size: expected 1024x1024, got 3x3"
    assert (error["param"], error["type"]) == ("size", "invalid_request_error")


async def test_the_models_of_others_are_refused(upstream: Any, as_flow: Any) -> None:
    as_flow(twice)
    found, url = upstream
    status, body, _ = await post(url, json={"prompt": "a cat", "model": "other"})
    assert (status, found.requests) == (400, [])
    assert b"cannot use own model - must be: grok" in body


async def test_the_models_of_others_are_refused_in_forms(upstream: Any, as_flow: Any) -> None:
    as_flow(twice, openai.VIDEOS)
    found, url = upstream
    form = aiohttp.FormData({"model": "other", "prompt": "a cat"}, default_to_multipart=True)
    async with (
        relays.running(configuration(url, openai.VIDEOS)) as relay,
        relay.request("POST", "/videos", data=form) as response,
    ):
        assert response.status == 400
        assert b"cannot use own model" in await response.read()
    assert found.requests == []


async def test_dropped_parameters_are_told(upstream: Any, as_flow: Any) -> None:
    def dropping(wanted: Wanted) -> Steps:
        yield from asked(Send("GET", "/"))
        return Result({}, dropped=("quality", "user"))

    as_flow(dropping)
    _, _, headers = await post(upstream[1])
    assert headers["x-kong-ai-dropped-params"] == "quality, user"


async def test_extra_body_members_are_members_but_for_ours(upstream: Any, as_flow: Any) -> None:
    def echo(wanted: Wanted) -> Steps:
        yield from asked(Send("GET", "/"))
        return Result(dict(wanted.body))

    as_flow(echo)
    extra = {"seed": 7, "model": "other", "prompt": "a dog"}
    _, body, _ = await post(upstream[1], json={"prompt": "a cat", "extra_body": extra})
    assert orjson.loads(body) == {"seed": 7, "prompt": "a cat"}


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
