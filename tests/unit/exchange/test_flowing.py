"""Requests that take several calls, through the relay: a provider's row made for the test, and a
real upstream over sockets."""

from __future__ import annotations

import gzip
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.flow import (
    Result,
    Send,
    Steps,
    Wanted,
    asked,
    parsed,
)
from tests import relays
from tests.unit.exchange.flowing_world import KEY, configuration, lost_later, post, twice


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
