"""Requests to token endpoints: TLS that is verified, limits of time, one fetch for many."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kong_ai_proxy.auth.identity import GoogleIdentity
from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.auth.tokens import http as https
from kong_ai_proxy.auth.tokens.google import METADATA_PATH
from kong_ai_proxy.auth.tokens.http import Http
from tests.unit.auth.endpoints import Endpoint, Seen
from tests.unit.relay.authorities import make

TOKEN = {"access_token": "token", "expires_in": 3600}


async def secure_server(context: ssl.SSLContext) -> TestServer:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    server = TestServer(application, scheme="https")
    await server.start_server(ssl=context)
    return server


async def test_a_certificate_is_verified_with_the_systems_authorities_and_the_file(
    tmp_path: Path,
) -> None:
    authority = make(tmp_path)
    server = await secure_server(authority.server)
    url = f"https://localhost:{server.port}/"
    doubting, trusting = Http(None, None), Http(authority.ca_file, None)
    with pytest.raises(TokenError, match="not trusted"):
        await doubting.send("GET", url, {})
    assert (await trusting.send("GET", url, {})).data == b"hello"
    for closing in (doubting, trusting, server):
        await closing.close()


def test_a_ca_file_that_is_none_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Tokens({}, ca_file=str(tmp_path / "none"))


async def test_an_endpoint_that_does_not_answer_is_given_up(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = asyncio.Event()

    async def silent(_: Seen) -> web.Response:
        await given_up.wait()
        return web.Response()

    endpoint.answers["GET /"] = silent
    monkeypatch.setattr(https, "TOTAL_SECONDS", 0.05)
    http = Http(None, None)
    with pytest.raises(TokenError, match="no answer in time"):
        await http.send("GET", endpoint.url, {})
    given_up.set()
    await http.close()


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999/", "nothing"])
async def test_an_address_that_is_none_is_an_error(url: str) -> None:
    http = Http(None, None)
    with pytest.raises(TokenError):
        await http.send("GET", url, {})
    await http.close()


async def test_fifty_requests_at_once_fetch_one_token(endpoint: Endpoint) -> None:
    endpoint.json(f"GET {METADATA_PATH}", TOKEN)
    tokens = Tokens({})
    identity = GoogleIdentity(metadata_url=endpoint.url)
    found = await asyncio.gather(*(tokens.get(identity) for _ in range(50)))
    assert {token[0] for token in found} == {"token"}
    assert tokens.ready(identity) == found[0]
    assert len(endpoint.seen) == 1
    await tokens.close()
