"""Which targets a prompt is for: with vectors that are written down, and a database in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from typing_extensions import override

from kong_ai_proxy import config
from kong_ai_proxy.config import AiProxyAdvanced
from kong_ai_proxy.config.plugins import CATCHALL
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.relay import semantic as module
from kong_ai_proxy.relay.embedding import EmbeddingError
from kong_ai_proxy.relay.semantic import MAX_PROMPT, Semantic
from kong_ai_proxy.vectors.store import (
    Match,
    MissingSpaceError,
    Space,
    Store,
    StoreError,
    unit,
)

CODE, FOOD, HELP = "writing code", "cooking food", "computer help"
TEXTS = {
    CODE: [1.0, 0.0, 0.0],
    FOOD: [0.0, 1.0, 0.0],
    HELP: [0.8, 0.0, 0.6],
    "sort a list": [0.9, 0.1, 0.1],
    "boil an egg": [0.1, 0.9, 0.0],
    "my screen is black": [0.6, 0.0, 0.8],
    "who was Kant": [-0.5, -0.5, -0.7],
}


class Embedder:
    """Knows the vectors of TEXTS."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure = ""
        self.hold: asyncio.Event | None = None
        self.under_way = self.most = 0

    async def embed(self, text: str) -> list[float]:
        self.asked.append(text)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            if self.hold is not None:
                await self.hold.wait()
            if self.failure:
                raise EmbeddingError(self.failure, "in detail")
            return TEXTS.get(text, [0.5, 0.5, 0.5])
        finally:
            self.under_way -= 1


class Memory(Store):
    """A database that several may share."""

    def __init__(self) -> None:
        self.spaces: dict[Space, dict[str, list[float]]] = {}
        self.locks: dict[Space, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.failure = ""
        self.asked: list[int] = []
        self.closed = 0

    @override
    async def has(self, space: Space) -> bool:
        await self._step()
        return space in self.spaces

    @override
    @contextlib.asynccontextmanager
    async def locked(self, space: Space) -> AsyncIterator[None]:
        async with self.locks[space]:
            yield

    @override
    async def put(self, space: Space, vectors: Mapping[str, Sequence[float]]) -> None:
        await self._step()
        self.spaces[space] = {name: unit(space, vector) for name, vector in vectors.items()}

    @override
    async def nearest(self, space: Space, vector: Sequence[float], most: int) -> list[Match]:
        await self._step()
        self.asked.append(most)
        if space not in self.spaces:
            raise MissingSpaceError("not there")
        sought = unit(space, vector)
        found = [
            Match(name, 1 - sum(a * b for a, b in zip(sought, each, strict=True)))
            for name, each in self.spaces[space].items()
        ]
        return sorted(found, key=lambda match: match.distance)[:most]

    @override
    async def close(self) -> None:
        self.closed += 1

    async def _step(self) -> None:
        await asyncio.sleep(0)
        if self.failure:
            raise StoreError(self.failure)


def parsed(*descriptions: str, threshold: float | None = None, **changes: Any) -> AiProxyAdvanced:
    """A configuration with a target of each description."""
    targets = [
        {
            "model": {"provider": "openai", "name": f"model-{index}"},
            "route_type": "llm/v1/chat",
            "description": description,
        }
        for index, description in enumerate(descriptions)
    ]
    vectordb = {"strategy": "redis", "dimensions": 3, "distance_metric": "cosine"}
    value = {
        "balancer": {"algorithm": "semantic"},
        "embeddings": {"model": {"provider": "openai", "name": "text-embedding-3-small"}},
        "vectordb": {**vectordb, **({} if threshold is None else {"threshold": threshold})},
        "targets": targets,
        **changes,
    }
    found = config.parse("ai-proxy-advanced", value)
    assert isinstance(found, AiProxyAdvanced)
    return found


class World:
    """A database and an embedding model, for any number of workers."""

    def __init__(self) -> None:
        self.store = Memory()
        self.embedder = Embedder()

    def worker(self, *descriptions: str, **options: Any) -> Semantic:
        own = parsed(*descriptions, **options)
        return Semantic(own, self.embedder, lambda: self.store)

    async def tiers(self, prompt: str, *descriptions: str, **options: Any) -> list[list[int]]:
        worker = self.worker(*descriptions, **options)
        return await worker.tiers(prompt, range(len(descriptions)))


@pytest.fixture
def world() -> World:
    return World()


# ---- which targets


@pytest.mark.parametrize(
    ("prompt", "expected"), [("sort a list", 0), ("boil an egg", 1), ("my screen is black", 2)]
)
async def test_the_nearest_description_wins(world: World, prompt: str, expected: int) -> None:
    assert await world.tiers(prompt, CODE, FOOD, HELP) == [[expected]]


async def test_targets_of_one_description_are_a_group(world: World) -> None:
    assert await world.tiers("sort a list", CODE, FOOD, CODE) == [[0, 2]]
    assert world.embedder.asked.count(CODE) == 1


async def test_the_catchall_comes_last(world: World) -> None:
    assert await world.tiers("boil an egg", CATCHALL, FOOD, CODE, CATCHALL) == [[1], [0, 3]]


async def test_the_catchall_is_never_embedded(world: World) -> None:
    assert await world.tiers("boil an egg", CATCHALL, CATCHALL) == [[0, 1]]
    assert world.embedder.asked == []
    await world.tiers("boil an egg", CATCHALL, FOOD, CODE)
    assert CATCHALL not in world.embedder.asked


async def test_only_the_exact_word_is_the_catchall(world: World) -> None:
    await world.tiers("boil an egg", "catchall", FOOD)
    assert "catchall" in world.embedder.asked


async def test_beyond_the_threshold_only_the_catchall_is_left(world: World) -> None:
    assert await world.tiers("who was Kant", CODE, FOOD, CATCHALL, threshold=0.5) == [[2]]


async def test_beyond_the_threshold_without_a_catchall_is_an_error(world: World) -> None:
    with pytest.raises(Refused, match=r"no target can be found under threshold 0\.5") as refused:
        await world.tiers("who was Kant", CODE, FOOD, threshold=0.5)
    assert refused.value.status == 500


async def test_the_threshold_itself_still_matches(world: World) -> None:
    found = await world.tiers(FOOD, CODE, threshold=1.0)  # at a right angle
    assert found == [[0]]


async def test_without_a_threshold_everything_matches(world: World) -> None:
    assert await world.tiers("who was Kant", CODE, FOOD, CATCHALL) == [[0], [2]]


async def test_only_candidates_are_found(world: World) -> None:
    worker = world.worker(CODE, HELP, CODE, FOOD, CATCHALL)
    assert await worker.tiers("sort a list", [2, 3]) == [[2]]
    assert await worker.tiers("sort a list", [1, 3, 4]) == [[1], [4]]
    assert await worker.tiers("sort a list", [4]) == [[4]]


async def test_of_the_database_no_more_is_asked_than_needed(world: World) -> None:
    worker = world.worker(CODE, HELP, FOOD)
    await worker.tiers("sort a list", [0, 1, 2])
    await worker.tiers("sort a list", [1, 2])
    assert world.store.asked == [1, 2]


async def test_where_there_is_no_choice_nothing_is_embedded(world: World) -> None:
    worker = world.worker(CODE, FOOD, CATCHALL)
    assert await worker.tiers("sort a list", [1, 2]) == [[1], [2]]
    assert world.embedder.asked == []


@pytest.mark.parametrize("prompt", ["", " \n"])
async def test_a_request_without_text_goes_to_the_catchall(world: World, prompt: str) -> None:
    assert await world.tiers(prompt, CODE, FOOD, CATCHALL) == [[2]]


async def test_a_request_without_text_and_a_catchall_is_the_clients_error(world: World) -> None:
    with pytest.raises(Refused, match="request body doesn't contain valid prompts") as refused:
        await world.tiers("", CODE, FOOD)
    assert refused.value.status == 400


async def test_of_a_long_prompt_the_end_counts(world: World) -> None:
    await world.tiers("x" * 99_999 + "sort a list", CODE, FOOD)
    assert world.embedder.asked[-1] == ("x" * MAX_PROMPT + "sort a list")[-MAX_PROMPT:]


async def test_a_prompt_that_is_no_unicode_is_embedded_all_the_same(world: World) -> None:
    assert await world.tiers("\ud800 list", CODE, FOOD)
    assert world.embedder.asked[-1] == "? list"


async def test_a_prompt_is_embedded_once_while_it_is_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHED", 2)
    worker = world.worker(CODE, FOOD)
    for prompt in ["a", "b", "a", "c", "a", "b"]:  # c drives b out
        await worker.tiers(prompt, [0, 1])
    assert world.embedder.asked[2:] == ["a", "b", "c", "b"]


# ---- the descriptions


async def test_many_workers_that_start_together_embed_once(world: World) -> None:
    workers = [world.worker(CODE, FOOD, HELP) for _ in range(8)]
    found = await asyncio.gather(
        *(worker.tiers("sort a list", [0, 1, 2]) for worker in workers for _ in range(5))
    )
    assert found == [[[0]]] * 40
    assert sorted(text for text in world.embedder.asked if text != "sort a list") == sorted(
        [CODE, FOOD, HELP]
    )


async def test_requests_of_a_worker_wait_for_the_same_preparation(world: World) -> None:
    world.embedder.hold = asyncio.Event()
    worker = world.worker(CODE, FOOD)
    waiting = [asyncio.create_task(worker.tiers("boil an egg", [0, 1])) for _ in range(3)]
    while len(world.embedder.asked) < 2:
        await asyncio.sleep(0)
    waiting[0].cancel()  # a client that leaves ends nobody else's preparation
    world.embedder.hold.set()
    assert await asyncio.gather(*waiting[1:]) == [[[1]]] * 2
    assert world.embedder.asked.count(CODE) == 1


async def test_few_descriptions_are_embedded_at_a_time(world: World) -> None:
    await world.tiers("sort a list", *map(str, range(20)))
    assert world.embedder.most == module.AT_A_TIME


async def test_a_request_does_not_wait_for_ever(world: World) -> None:
    world.embedder.hold = asyncio.Event()
    worker = world.worker(CODE, FOOD)
    worker._wait = 0.01
    with pytest.raises(Refused, match="no vectors in time"):
        await worker.tiers("boil an egg", [0, 1])
    world.embedder.hold.set()
    worker._wait, worker._silent_until = 5.0, 0.0
    assert await worker.tiers("boil an egg", [0, 1]) == [[1]]
    assert world.embedder.asked.count(CODE) == 1


async def test_who_has_waited_for_nothing_has_waited_for_others_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.0)
    worker = world.worker(CODE, FOOD, CATCHALL)
    everybody = [0, 1, 2]
    assert await worker.tiers("sort a list", everybody) == [[0], [2]]
    world.embedder.hold = asyncio.Event()
    assert await worker.tiers("boil an egg", everybody, 0.01) == [[2]]
    worker._wait = 60.0
    async with asyncio.timeout(20):
        assert await worker.tiers("boil an egg", everybody) == [[2]]
    assert await worker.tiers("sort a list", everybody) == [[0], [2]]  # remembered
    world.embedder.hold.set()
    worker._silent_until = 0.0
    assert await worker.tiers("boil an egg", everybody) == [[1], [2]]


async def test_one_that_has_no_time_speaks_for_nobody_else(world: World) -> None:
    worker = world.worker(CODE, FOOD, CATCHALL)
    world.embedder.hold = asyncio.Event()
    assert await worker.tiers("boil an egg", [0, 1, 2], 0.0) == [[2]]
    world.embedder.hold.set()
    assert await worker.tiers("boil an egg", [0, 1, 2]) == [[1], [2]]


async def test_a_preparation_that_takes_too_long_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PREPARE_SECONDS", 0.01)
    world.embedder.hold = asyncio.Event()
    with pytest.raises(Refused, match="were not embedded in time"):
        await world.tiers("boil an egg", CODE, FOOD)
    assert world.store.spaces == {}


async def test_a_failed_preparation_is_tried_again_but_not_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.worker(CODE, FOOD)
    world.embedder.failure = "down"
    for _ in range(3):
        with pytest.raises(Refused, match="down"):
            await worker.tiers("boil an egg", [0, 1])
    assert len(world.embedder.asked) == 2
    world.embedder.failure = ""
    worker._retry_at = 0.0  # a second later
    assert await worker.tiers("boil an egg", [0, 1]) == [[1]]


async def test_vectors_that_were_lost_are_made_again(world: World) -> None:
    worker = world.worker(CODE, FOOD)
    await worker.tiers("sort a list", [0, 1])
    world.store.spaces.clear()
    assert await worker.tiers("boil an egg", [0, 1]) == [[1]]
    assert world.embedder.asked.count(CODE) == 2


def space(own: AiProxyAdvanced) -> Space:
    return Semantic(own, Embedder(), Memory)._space


def test_a_space_is_named_by_what_decides_about_its_vectors() -> None:
    same = space(parsed(CODE, FOOD))
    model = {"provider": "openai", "name": "text-embedding-3-small"}
    auth = {"header_name": "Authorization", "header_value": "Bearer other"}
    assert same.name.isalnum()
    assert space(parsed(FOOD, CODE, FOOD, CATCHALL, threshold=0.3)) == same
    assert space(parsed(CODE, FOOD, embeddings={"model": model, "auth": auth})) == same
    vectordb = {"strategy": "redis", "distance_metric": "cosine", "dimensions": 3}
    others = [
        parsed(CODE),
        parsed(CODE, HELP),
        parsed(CODE, FOOD, embeddings={"model": {**model, "name": "text-embedding-ada-002"}}),
        parsed(
            CODE,
            FOOD,
            embeddings={"model": {**model, "options": {"upstream_url": "http://a/b"}}},
        ),
        parsed(CODE, FOOD, vectordb={**vectordb, "dimensions": 4}),
        parsed(CODE, FOOD, vectordb={**vectordb, "distance_metric": "euclidean"}),
    ]
    names = {space(other).name for other in others}
    assert len(names) == len(others)
    assert same.name not in names


# ---- failures


@pytest.mark.parametrize("down", ["model", "database", "both"])
async def test_whatever_fails_the_catchall_answers(
    world: World, down: str, caplog: pytest.LogCaptureFixture
) -> None:
    if down != "model":
        world.store.failure = "PostgreSQL at db.internal:5432 is down"
    if down != "database":
        world.embedder.failure = "openai gave no answer"
    worker = world.worker(CODE, FOOD, CATCHALL)
    for _ in range(5):
        assert await worker.tiers("boil an egg", [0, 1, 2]) == [[2]]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "is down" in warnings[0] or "openai gave no answer: in detail" in warnings[0]


async def test_a_prompt_that_cannot_be_embedded_is_an_error_without_a_catchall(
    world: World,
) -> None:
    worker = world.worker(CODE, FOOD)
    await worker.tiers("sort a list", [0, 1])
    world.embedder.failure = "openai answered with status 401"
    with pytest.raises(Refused, match="openai answered with status 401") as refused:
        await worker.tiers("boil an egg", [0, 1])
    assert refused.value.status == 500
    world.embedder.failure = ""
    assert await worker.tiers("boil an egg", [0, 1]) == [[1]]


async def test_a_database_that_is_down_is_an_error_that_tells_clients_nothing_of_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.failure = "PostgreSQL at db.internal:5432 is down"
    with pytest.raises(Refused, match="the vector database cannot be used") as refused:
        await world.tiers("boil an egg", CODE, FOOD)
    assert refused.value.status == 500
    assert "db.internal" not in refused.value.message
    assert "db.internal" in caplog.text


async def test_a_database_that_cannot_be_opened_is_tried_again(world: World) -> None:
    failures = [StoreError("needs asyncpg")]

    def open_() -> Store:
        if failures:
            raise failures.pop()
        return world.store

    worker = Semantic(parsed(CODE, FOOD, CATCHALL), world.embedder, open_)
    assert await worker.tiers("boil an egg", [0, 1, 2]) == [[2]]
    worker._retry_at = 0.0
    assert await worker.tiers("boil an egg", [0, 1, 2]) == [[1], [2]]


async def test_that_nothing_was_found_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(Refused):
        await world.tiers("who was Kant", CODE, FOOD, threshold=0.2)
    assert "no target can be found under threshold 0.2" in caplog.text


async def test_closing_ends_what_is_under_way(world: World) -> None:
    world.embedder.hold = asyncio.Event()
    worker = world.worker(CODE, FOOD, CATCHALL)
    waiting = asyncio.create_task(worker.tiers("boil an egg", [0, 1]))
    while not world.embedder.asked:
        await asyncio.sleep(0)
    await worker.close()
    assert world.store.closed == 1
    with pytest.raises(Refused):
        await waiting
