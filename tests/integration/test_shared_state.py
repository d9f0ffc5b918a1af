"""The state of targets over processes, and over nodes that share one Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from kong_ai_proxy.balancer.states import States, Table
from kong_ai_proxy.pluginserver import sharing
from kong_ai_proxy.pluginserver.sharing import PREFIX, Sharing
from kong_ai_proxy.relay.shared import SharedTargets
from tests.redis_servers import RedisServer, redis_server
from tests.unit.balancer.tables import advanced, target

MAX_FAILS = 3
CONFIG = advanced(target("a"), target("b"), max_fails=MAX_FAILS, fail_timeout=60000)


# ---- one node, several processes


WORKERS = 4
FORK = multiprocessing.get_context("fork")
"""A worker that is forked has nothing to import, and its locks are its own all the same."""

# pytest-xdist's processes have a second thread, of which the forked ones need nothing.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def targets() -> Iterator[SharedTargets]:
    made = SharedTargets.create(WORKERS)
    yield made
    made.close()


def states_of(targets: SharedTargets, slot: int = 0) -> States:
    return Table(targets.memory, slot).states("p", CONFIG)


def in_workers(targets: SharedTargets, do: Callable[[int, States], object]) -> list[Any]:
    """What `do(slot, states)` returns in each worker. All are processes, and begin together."""
    barrier = FORK.Barrier(WORKERS)
    ends = [FORK.Pipe(duplex=False) for _ in range(WORKERS)]

    def work(slot: int) -> None:
        inherited = SharedTargets(os.dup(targets.fileno()), WORKERS)
        states = states_of(inherited, slot)
        barrier.wait(20)
        ends[slot][1].send(do(slot, states))

    processes = [FORK.Process(target=work, args=(slot,)) for slot in range(WORKERS)]
    for process in processes:
        process.start()
    results = [end.recv() for end, _ in ends]
    for process in processes:
        process.join(20)
    return results


@contextlib.contextmanager
def stuck(targets: SharedTargets, do: Callable[[States], object]) -> Iterator[None]:
    """Another process in slot 0 that has done something, and is killed at the end."""
    theirs, ours = FORK.Pipe(duplex=False)

    def work() -> None:
        do(states_of(targets, 0))
        ours.send("done")
        time.sleep(60)

    process = FORK.Process(target=work)
    process.start()
    assert theirs.recv() == "done"
    yield
    process.kill()
    process.join(20)


def test_failures_over_processes_are_counted_exactly(targets: SharedTargets) -> None:
    def fail(slot: int, states: States) -> None:
        for _ in range(2000):
            states.failed(0, time.monotonic())

    in_workers(targets, fail)
    assert list(targets.memory.fails[:2]) == [WORKERS * 2000, 0]


def test_three_failures_in_different_processes_open_the_breaker(targets: SharedTargets) -> None:
    def fail(slot: int, states: States) -> tuple[bool, bool]:
        if slot < MAX_FAILS:
            states.failed(0, time.monotonic())
        limit = time.monotonic() + 20
        while not states.doubtful and time.monotonic() < limit:
            pass
        return states.is_available(0, time.monotonic()), states.is_available(1, time.monotonic())

    assert in_workers(targets, fail) == [(False, True)] * WORKERS


def test_one_process_gets_the_probe(targets: SharedTargets) -> None:
    states, failed_at = states_of(targets), time.monotonic()
    for _ in range(MAX_FAILS):
        states.failed(0, failed_at)

    def claim(slot: int, states: States) -> int:
        return sum(states.claim(0, failed_at + 60) for _ in range(2000))

    assert sorted(in_workers(targets, claim)) == [0, 0, 0, 1]


def test_processes_that_load_a_configuration_at_the_same_time_agree(
    targets: SharedTargets,
) -> None:
    def load(slot: int, states: States) -> None:
        table = Table(targets.memory, slot)
        for number in range(20):
            table.states(f"plugin {number}", CONFIG).used(0, 1, 0, 0.0)

    in_workers(targets, load)
    keys = targets.memory.used_keys()
    assert len(keys) == len(set(keys)) == 2 * 21
    table = Table(targets.memory, 0)
    for number in range(20):
        states = table.states(f"plugin {number}", CONFIG)
        assert list(states.usage("total-tokens", 1.0)) == [WORKERS, 0]


def test_what_a_dead_worker_had_under_way_is_forgotten_when_its_slot_starts_again(
    targets: SharedTargets,
) -> None:
    other = states_of(targets, 1)
    with stuck(targets, lambda states: states.begin(0)):
        assert list(other.in_flight(1.0)) == [1, 0]
    assert list(states_of(targets, 0).in_flight(1.0)) == [0, 0]


def test_a_worker_that_dies_with_the_lock_gives_it_back(targets: SharedTargets) -> None:
    other = states_of(targets, 1)
    with stuck(targets, lambda _: targets.memory.lock.__enter__()):
        pass
    other.failed(0, time.monotonic())
    assert targets.memory.fails[0] == 1


# ---- several nodes


class Node:
    """One node of one worker."""

    def __init__(self, url: str, ca_file: str | None = None) -> None:
        self.targets = SharedTargets.create(1)
        self.states = states_of(self.targets)
        self.sharing = Sharing(self.targets.memory, url, ca_file)
        self.sharing.start()

    @property
    def total(self) -> float:
        """Tokens of the first target."""
        return self.states.usage("total-tokens", time.monotonic())[0]

    @property
    def is_open(self) -> bool:
        """Whether the first target's breaker is."""
        return not self.states.is_available(0, time.monotonic())

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.states.failed(0, time.monotonic())

    async def close(self) -> None:
        await self.sharing.close()
        self.targets.close()


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "EXCHANGE_SECONDS", 0.02)
    monkeypatch.setattr(sharing, "_MAX_PAUSE", 0.1)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@contextlib.asynccontextmanager
async def nodes(server: RedisServer, count: int = 2) -> AsyncIterator[list[Node]]:
    """Nodes that share the server."""
    running = [Node(server.url, server.ca_file) for _ in range(count)]
    try:
        yield running
    finally:
        for node in running:
            await node.close()


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def exchanges(node: Node, times: int = 2) -> None:
    """Wait for whole exchanges of this node."""
    for _ in range(times):
        before = node.sharing.exchanges
        await until(lambda before=before: node.sharing.exchanges > before)  # type: ignore[misc]


async def test_nodes_agree_on_usage(server: RedisServer) -> None:
    async with nodes(server) as (first, second):
        first.states.used(0, 10, 5, 0.25)
        second.states.used(0, 100, 50, 0.5)
        await until(lambda: first.total == second.total == 165)
        now = time.monotonic()
        assert first.states.usage("cost", now)[0] == pytest.approx(0.75)
        assert second.states.requests(now)[0] == 2
        await exchanges(first)
        assert first.total == 165


async def test_failures_of_several_nodes_open_the_breaker_of_all(server: RedisServer) -> None:
    async with nodes(server, 3) as every:
        for node in every:
            node.fail()
        await until(lambda: all(node.is_open for node in every))
        assert all(node.states.doubtful for node in every)
        assert all(node.states.is_available(1, time.monotonic()) for node in every)


async def test_a_breaker_that_one_node_closes_is_closed_for_all(server: RedisServer) -> None:
    async with nodes(server) as (first, second):
        first.fail(MAX_FAILS)
        await until(lambda: second.is_open)
        later = time.monotonic() + 60
        assert second.states.claim(0, later)
        second.states.succeeded(0, later)
        await until(lambda: not first.is_open and not first.states.doubtful)
        await exchanges(second)
        assert not second.is_open
        first.fail(MAX_FAILS - 1)
        await exchanges(first)
        await exchanges(second)
        assert not second.is_open
        second.fail()
        await until(lambda: first.is_open)


async def test_failures_are_told_with_their_time(server: RedisServer) -> None:
    async with nodes(server) as (first, second):
        first.fail(MAX_FAILS)
        failed_at = first.targets.memory.last_failure[0]
        await until(lambda: second.is_open)
        assert second.targets.memory.last_failure[0] == pytest.approx(failed_at, abs=0.5)


async def test_a_node_that_comes_later_learns_what_is_known(server: RedisServer) -> None:
    async with nodes(server, 1) as (first,):
        first.states.used(0, 10, 5, 0.0)
        first.fail(MAX_FAILS)
        await exchanges(first)
        async with nodes(server, 1) as (late,):
            await until(lambda: late.is_open)
            assert late.total == 15


async def test_what_is_left_is_told_at_the_end(server: RedisServer) -> None:
    async with nodes(server) as (first, second):
        await exchanges(first)
        first.states.used(0, 10, 5, 0.0)
        await first.sharing.close()
        await until(lambda: second.total == 15)


async def test_without_redis_a_node_goes_on_and_tells_later(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with nodes(server) as (first, second):
        first.states.used(0, 10, 0, 0.0)
        await until(lambda: second.total == 10)
        with server.client() as client:
            client.save()
        server.kill()
        await until(lambda: caplog.text.count("goes on by itself") == 2)
        first.states.used(0, 5, 0, 0.0)
        second.states.used(0, 1, 0, 0.0)
        first.fail(MAX_FAILS)
        assert (first.total, second.total) == (15, 11)
        assert first.is_open
        assert not second.is_open
        server.start()
        await until(lambda: first.total == second.total == 16)
        await until(lambda: second.is_open)
    lost = [r for r in caplog.records if "goes on by itself" in r.getMessage()]
    found = [r for r in caplog.records if r.getMessage().startswith("sharing the state")]
    assert (len(lost), len(found)) == (2, 4)


async def test_where_redis_comes_back_empty_all_begin_anew(server: RedisServer) -> None:
    async with nodes(server) as (first, second):
        first.states.used(0, 10, 0, 0.0)
        first.fail(MAX_FAILS)
        await until(lambda: second.is_open and second.total == 10)
        server.kill()
        second.states.used(0, 7, 0, 0.0)
        server.start()
        await until(lambda: first.total == second.total == 7)
        await until(lambda: not first.is_open and not second.is_open)


async def test_a_server_that_is_not_there_at_first_is_found_later(server: RedisServer) -> None:
    server.kill()
    async with nodes(server) as (first, second):
        first.states.used(0, 10, 0, 0.0)
        assert first.total == 10
        server.start()
        await until(lambda: second.total == 10)


async def test_a_server_that_hangs_holds_nobody_up(
    server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_ANSWER_SECONDS", 0.2)
    caplog.set_level(logging.INFO)
    async with nodes(server) as (first, second):
        await exchanges(first)
        server.freeze()
        await until(lambda: caplog.text.count("goes on by itself") == 2)
        first.states.used(0, 10, 0, 0.0)
        await asyncio.wait_for(second.sharing.close(), 5)
        server.thaw()
        await exchanges(first)
        with server.client() as client:
            (name,) = client.keys(PREFIX + "*")
            assert client.hget(name, "prompt") == b"10"


async def test_a_target_that_redis_refuses_keeps_no_other_from_being_shared(
    server: RedisServer,
) -> None:
    async with nodes(server) as (first, second):
        await exchanges(first)
        name = PREFIX + f"{first.targets.memory.keys[0] & (1 << 64) - 1:016x}"
        with server.client() as client:
            client.set(name, "something else")
        first.states.used(0, 1, 0, 0.0)
        first.states.used(1, 5, 0, 0.0)
        await until(lambda: second.states.usage("total-tokens", time.monotonic())[1] == 5)
        assert first.total == 1


async def test_hashes_live_for_a_day(server: RedisServer) -> None:
    async with nodes(server, 1) as (node,):
        node.states.used(0, 1, 0, 0.0)
        await exchanges(node)
    with server.client() as client:
        (name,) = client.keys(PREFIX + "*")
        assert len(name) == len(PREFIX) + 16
        assert 86000 < client.ttl(name) <= 86400


async def test_tls_and_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with redis_server(password="gehe1m", tls=True) as server:
        async with nodes(server) as (first, second):
            first.states.used(0, 10, 0, 0.0)
            await until(lambda: second.total == 10)
        wrong = Node(server.url.replace("gehe1m", "fa1sch"), server.ca_file)
        await until(lambda: "goes on by itself" in caplog.text)
        await wrong.close()
        untrusted = Node(server.url)
        await until(lambda: caplog.text.count("goes on by itself") == 2)
        await untrusted.close()
    assert "gehe1m" not in caplog.text
    assert "fa1sch" not in caplog.text
