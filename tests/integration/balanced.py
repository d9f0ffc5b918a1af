"""The examples of balancing behind a gateway, with a stand-in of its own for each target.

async with balanced.world(gateway, "failover.yaml") as world:
    place = world["failover-chat"]
    await place.targets[0].become(Status(503))
    answer = await place.ask(model="chat")
    assert said(answer) == "1"  # every target says its own index
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from typing_extensions import override

from kong_ai_proxy.gateway.dev_deck import dumped
from tests.faults import AtRequest, Faulty, Good
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import examples
from tests.integration.examples import ENV, Json
from tests.recorder import Received
from tests.unit.relay.upstreams import Connection, answer
from tests.vendors import vendor_of

MESSAGES = [{"role": "user", "content": "Hello"}]
AT_ONCE = 8


@dataclass(frozen=True)
class Says(AtRequest):
    """An answer of `text` that used `tokens` of the prompt, after `delay` seconds, or when `gate`
    opens."""

    text: str
    tokens: int = 10
    delay: float = 0.0
    gate: asyncio.Event | None = None

    @override
    async def answer(self, connection: Connection, asked: Received) -> bool:
        await asyncio.sleep(self.delay)
        if self.gate:
            await self.gate.wait()
        told = vendor_of(asked).whole(self.text)
        told["usage"] = {
            "prompt_tokens": self.tokens,
            "completion_tokens": 1,
            "total_tokens": self.tokens + 1,
        }
        await connection.send(answer(orjson.dumps(told)))
        return True


class Place:
    """A Route of an example, with its targets' stand-ins."""

    def __init__(self, http: httpx.AsyncClient, path: str, targets: list[Faulty]) -> None:
        self.http = http
        self.path = path
        self.targets = targets

    async def ask(self, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """The answer to a chat request."""
        json = {"messages": MESSAGES, **body}
        return await self.http.post(self.path, json=json, headers=headers)

    async def shares(self, requests: int, **more: Any) -> Counter[str]:
        """Which targets answered so many requests, some at once."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one() -> str:
            async with turns:
                return said(await self.ask(**more))

        return Counter(await asyncio.gather(*(one() for _ in range(requests))))

    @property
    def asked(self) -> list[int]:
        """How many requests each target has had."""
        return [len(target.received) for target in self.targets]


def said(answer: httpx.Response) -> str:
    """What a good answer says."""
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


@dataclass(frozen=True)
class World:
    """An example behind a gateway."""

    running: RunningGateway
    places: dict[str, Place]
    deck: str
    """As it was loaded."""

    def __getitem__(self, name: str) -> Place:
        return self.places[name]


Change = Callable[[Json], None]
"""Of a configuration of the plugin, before it is loaded."""


def plugin(route: Json) -> Json:
    """The one of ours on a Route."""
    (found,) = (each for each in route["plugins"] if each["name"].startswith("ai-proxy"))
    return dict(found)


@contextlib.asynccontextmanager
async def world(
    gateway: GatewayFactory,
    name: str,
    *routes: str,
    change: Change = lambda config: None,
    plugins: Sequence[Json] = (),
) -> AsyncIterator[World]:
    """The file, or only these Routes of it, each with `plugins` beside its own. Target i says "i"
    until it is told to be another."""
    deck = examples.deck(name)
    async with contextlib.AsyncExitStack() as stack:
        targets: dict[str, list[Faulty]] = {}
        for service in deck["services"]:
            service["routes"] = [r for r in service["routes"] if r["name"] in (routes or r["name"])]
            for route in service["routes"]:
                config = plugin(route)["config"]
                change(config)
                route["plugins"] += plugins
                found = targets[route["name"]] = []
                for index, target in enumerate(config["targets"]):
                    script = Good(str(index), keeps=True)
                    found.append(await stack.enter_async_context(Faulty(script)))
                    examples.point(target, found[-1].origin)
        loaded = dumped(deck)
        running = await gateway(loaded, env=ENV)
        http = httpx.AsyncClient(base_url=running.url, timeout=20)
        await stack.enter_async_context(http)
        paths = {route["name"]: examples.path(route) for route in examples.routes(deck)}
        places = {n: Place(http, paths[n], found) for n, found in targets.items()}
        yield World(running, places, loaded)
