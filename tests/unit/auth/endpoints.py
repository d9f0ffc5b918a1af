"""Token endpoints that do what a test says, and a clock that goes on when it says."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.test_utils import TestServer


class Seen(NamedTuple):
    """A request that arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2]))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


Answering = Callable[[Seen], web.Response | Awaitable[web.Response]]


class Endpoint:
    """A server on loopback. `answers` says by method and path what is answered; else 404."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: dict[str, Answering] = {}
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._server = TestServer(application, host="127.0.0.1")

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return str(self._server.make_url("")).rstrip("/")

    def json(self, route: str, data: Any, status: int = 200) -> None:
        """Answer a route, such as "GET /token", with JSON."""
        self.answers[route] = lambda _: web.json_response(data, status=status)

    def text(self, route: str, text: str, status: int = 200) -> None:
        """Answer a route with text."""
        self.answers[route] = lambda _: web.Response(text=text, status=status)

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.method, request.raw_path, headers, await request.read())
        self.seen.append(seen)
        answering = self.answers.get(f"{seen.method} {seen.path}")
        if answering is None:
            return web.Response(status=404, text="nothing here")
        answer = answering(seen)
        return answer if isinstance(answer, web.Response) else await answer


class Clock:
    """Starts now and stands still."""

    def __init__(self) -> None:
        self.time = time.time()

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds
