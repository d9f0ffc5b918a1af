"""A provider whose route type is a flow, made for a test, and a real upstream over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.providers.flow import (
    Flow,
    Result,
    Send,
    Steps,
    Wanted,
    parsed,
    sent,
    waited,
)
from kong_ai_proxy.providers.registry import PROVIDERS
from tests import relays

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
