"""The examples of semantic routing, with a real embedding model and real databases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import httpx
import orjson
import pytest

from tests import minilm, postgres_servers
from tests.faults import Faulty, Hang, Status
from tests.gateways import GatewayFactory
from tests.integration import examples
from tests.integration.balanced import Change, Place, said, world
from tests.integration.examples import Json
from tests.postgres_servers import PASSWORD, PostgresServer
from tests.redis_servers import RedisServer, redis_server

postgres = postgres_servers.postgres

CODE, SUPPORT, ANYTHING = "0", "1", "2"
PROMPTS = {
    "Debug my program code": CODE,
    "Complete the code of this program": CODE,
    "I forgot my laptop password and my account is locked": SUPPORT,
    "How many moons does Jupiter have?": ANYTHING,
}


@pytest.fixture
async def model() -> AsyncIterator[minilm.Server]:
    async with minilm.serve() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def _with(model: minilm.Server, **vectordb: Json) -> Change:
    """The examples' model has longer vectors."""

    def change(config: Json) -> None:
        config["embeddings"]["model"]["options"] = {"upstream_url": model.url}
        config["vectordb"]["dimensions"] = minilm.DIMENSIONS
        for strategy, place in vectordb.items():
            config["vectordb"][strategy].update(place)

    return change


def _at(server: RedisServer) -> Json:
    return {"host": "127.0.0.1", "port": server.port}


async def _asked(place: Place, prompt: str) -> httpx.Response:
    return await place.ask(messages=[{"role": "user", "content": prompt}])


async def _check(place: Place) -> None:
    assert {prompt: said(await _asked(place, prompt)) for prompt in PROMPTS} == PROMPTS


async def test_prompts_go_where_they_belong(
    gateway: GatewayFactory, model: minilm.Server, redis: RedisServer
) -> None:
    async with world(
        gateway, "semantic-redis.yaml", change=_with(model, redis=_at(redis))
    ) as found:
        await _check(found["semantic-redis"])
        texts = _descriptions()
        assert sorted(text for text in model.asked if text in texts) == sorted(texts)  # once
        await _check(found["semantic-valkey"])
        # The same descriptions are the same vectors, whoever asks.
        assert sorted(text for text in model.asked if text in texts) == sorted(texts)
        earlier = "How many moons does Jupiter have?"
        body: Json = orjson.loads(found["semantic-redis"].targets[0].received[-1].body)
        assert body["model"] == "gpt-4.1"
        talk = [
            {"role": "user", "content": earlier},
            {"role": "assistant", "content": "Many."},
            {"role": "user", "content": "Debug my program code"},
        ]
        assert said(await found["semantic-redis"].ask(messages=talk)) == CODE


def _descriptions() -> list[str]:
    """Those of the first Route."""
    route = next(examples.routes(examples.deck("semantic-redis.yaml")))
    texts = [target["description"] for target in examples.targets(route["plugins"][0])]
    return [text for text in texts if text != "CATCHALL"]


async def test_equal_descriptions_are_a_group(
    gateway: GatewayFactory, model: minilm.Server, redis: RedisServer
) -> None:
    change = _with(model, redis=_at(redis))
    async with world(gateway, "semantic-redis.yaml", "semantic-groups", change=change) as found:
        place = found["semantic-groups"]
        problem = [{"role": "user", "content": "Debug my program code"}]
        shares = await place.shares(24, messages=problem)
        assert set(shares) == {"1", "2"}
        assert shares["1"] == pytest.approx(18, abs=4)
        await place.targets[1].become(Status(503))
        assert await place.shares(4, messages=problem) == {"2": 4}
        assert said(await _asked(place, "How many moons does Jupiter have?")) == "3"


async def test_without_the_database_everything_goes_to_catchall(
    gateway: GatewayFactory, model: minilm.Server
) -> None:
    with redis_server() as own:
        change = _with(model, redis=_at(own))
        async with world(gateway, "semantic-redis.yaml", "semantic-redis", change=change) as found:
            place = found["semantic-redis"]
            own.kill()
            assert said(await _asked(place, "Debug my program code")) == ANYTHING
            own.start()
            async with asyncio.timeout(20):
                while said(await _asked(place, "Debug my program code")) != CODE:
                    await asyncio.sleep(0.05)


async def test_a_model_that_hangs_costs_what_a_target_may_cost(
    gateway: GatewayFactory, redis: RedisServer
) -> None:
    async with Faulty(Hang()) as silent:
        own = _with(minilm.Server(silent.origin), redis=_at(redis))

        def change(config: Json) -> None:
            own(config)
            names = ("connect_timeout", "write_timeout", "read_timeout")
            config["balancer"].update(dict.fromkeys(names, 300), retries=0)

        async with world(gateway, "semantic-redis.yaml", "semantic-redis", change=change) as found:
            assert said(await _asked(found["semantic-redis"], "Debug my program code")) == ANYTHING


async def test_vectors_may_be_in_postgresql(
    gateway: GatewayFactory, model: minilm.Server, postgres: PostgresServer
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres.database())
        own = {
            "host": "127.0.0.1",
            "port": postgres.port,
            "database": database,
            "user": "postgres",
            "password": PASSWORD,
            "ssl": False,
            "ssl_required": False,
        }
        change = _with(model, pgvector=own)
        found = await stack.enter_async_context(
            world(gateway, "semantic-pgvector.yaml", change=change)
        )
        await _check(found["semantic-pgvector"])
        await found.running.reload("_format_version: '3.0'")  # its connections end
