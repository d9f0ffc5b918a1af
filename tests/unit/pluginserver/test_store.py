"""The Store that the workers of a generation share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.pluginserver.store import SharedStore, Shelf, serve_link


@dataclass
class Generation:
    """A supervisor's side with as many links as are asked for."""

    shelf: Shelf = field(default_factory=Shelf)
    ready: int = 0
    links: list[asyncio.Task[None]] = field(default_factory=list)
    stores: list[SharedStore] = field(default_factory=list)

    async def worker(self, seconds: float = 20.0) -> SharedStore:
        ours, theirs = socket.socketpair()
        self.links.append(asyncio.create_task(serve_link(ours, self.shelf, self._ready)))
        self.stores.append(await SharedStore.open(theirs, seconds))
        return self.stores[-1]

    def _ready(self) -> None:
        self.ready += 1


@pytest.fixture
async def generation() -> AsyncIterator[Generation]:
    generation = Generation()
    yield generation
    for store in generation.stores:
        await store.close()
    for link in generation.links:
        link.cancel()
    await asyncio.gather(*generation.links, return_exceptions=True)


async def test_what_one_worker_puts_another_gets(generation: Generation) -> None:
    first, second = await generation.worker(), await generation.worker()
    await first.put(7, "ai-proxy", b'{"key":"\xff"}')
    assert await second.get(7) == ("ai-proxy", b'{"key":"\xff"}')


async def test_a_worker_that_comes_later_gets_it_too(generation: Generation) -> None:
    await (await generation.worker()).put(7, "ai-proxy", b"{}")
    await generation.stores[0].close()
    assert await (await generation.worker()).get(7) == ("ai-proxy", b"{}")


@pytest.mark.parametrize("number", [5, 0, -1, 2**31, 2**80])
async def test_an_instance_nobody_started_is_none(generation: Generation, number: int) -> None:
    assert await (await generation.worker()).get(number) is None


async def test_an_instance_larger_than_any_buffer_arrives_whole(generation: Generation) -> None:
    store = await generation.worker()
    config = bytes(range(256)) * 40_000
    await store.put(1, "ai-proxy-advanced", config)
    assert await store.get(1) == ("ai-proxy-advanced", config)


async def test_many_requests_at_once_get_their_own_answers(generation: Generation) -> None:
    store = await generation.worker()
    await asyncio.gather(*(store.put(n, "p", str(n).encode()) for n in range(1, 200)))
    found = await asyncio.gather(*(store.get(n) for n in range(1, 200)))
    assert found == [("p", str(n).encode()) for n in range(1, 200)]


async def test_the_supervisor_learns_that_a_worker_serves(generation: Generation) -> None:
    store = await generation.worker()
    store.ready()
    await store.get(1)
    assert generation.ready == 1


async def test_a_lost_supervisor_ends_waiting_requests_without_an_error() -> None:
    ours, theirs = socket.socketpair()
    store = await SharedStore.open(theirs, seconds=20.0)
    waiting = [asyncio.create_task(store.get(1)), asyncio.create_task(store.put(2, "p", b"{}"))]
    await asyncio.sleep(0)
    ours.close()
    assert await asyncio.gather(*waiting) == [None, None]
    assert store.lost.is_set()
    assert await store.get(1) is None
    await store.close()


async def test_a_silent_supervisor_ends_a_request_in_time() -> None:
    ours, theirs = socket.socketpair()
    store = await SharedStore.open(theirs, seconds=0.01)
    assert await store.get(1) is None
    await store.close()
    ours.close()


async def test_half_a_reply_is_no_reply() -> None:
    ours, theirs = socket.socketpair()
    store = await SharedStore.open(theirs, seconds=20.0)
    waiting = asyncio.create_task(store.get(1))
    await asyncio.sleep(0)
    ours.send(b"\x03\x00\x00\x00\x01\x00\x00\x00\x10half")
    ours.close()
    assert await waiting is None
    await store.close()


async def test_a_link_that_closes_ends_the_supervisors_side(generation: Generation) -> None:
    store = await generation.worker()
    await store.close()
    await asyncio.wait_for(generation.links[0], 20)


def test_the_shelf_drops_what_was_used_longest_ago() -> None:
    shelf = Shelf(max_instances=2)
    for number in (1, 2):
        shelf.put(number, "p", b"{}")
    shelf.get(1)
    shelf.put(3, "p", b"{}")
    assert [shelf.get(number) is not None for number in (1, 2, 3)] == [True, False, True]


def test_the_shelf_keeps_the_newest_even_when_it_is_larger_than_the_bound() -> None:
    shelf = Shelf(max_bytes=10)
    shelf.put(1, "p", b"x" * 6)
    shelf.put(2, "p", b"y" * 11)
    assert len(shelf) == 1
    assert shelf.get(2) == ("p", b"y" * 11)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 12)), max_size=40))
def test_the_shelf_is_bounded_whatever_comes(puts: list[tuple[int, int]]) -> None:
    shelf = Shelf(max_instances=3, max_bytes=20)
    for number, size in puts:
        shelf.put(number, "p", b"x" * size)
        kept = [entry for n in range(1, 7) if (entry := shelf.get(n))]
        assert shelf.get(number) == ("p", b"x" * size)
        assert len(kept) <= 3
        assert len(kept) == 1 or sum(len(config) for _, config in kept) <= 20
