"""How the relay finds what an instance does, and an instance learns who it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kong_ai_proxy.exchange.plan import Plan
from kong_ai_proxy.pluginserver import plugins
from kong_ai_proxy.pluginserver.instances import Instances, MemoryStore
from kong_ai_proxy.pluginserver.server import PluginServer
from kong_ai_proxy.relay.once import Once
from kong_ai_proxy.relay.ticket import Issuer
from tests.decks import config

CONFIGURATION = config("http://provider.example/v1/chat/completions")


class Known(MemoryStore):
    """A store that other workers have too."""

    async def start(self, configuration: Mapping[str, Any]) -> tuple[int, bytes]:
        """Start an instance of ai-proxy at another worker. Its id and digest."""
        instances = Instances(plugins.load(), self)
        started = await instances.start("ai-proxy", json.dumps(configuration).encode())
        return started.id, started.config_digest


def server(store: MemoryStore) -> PluginServer:
    return PluginServer(plugins.load(), store)


async def test_an_instance_that_another_worker_started_is_found() -> None:
    store = Known()
    number, digest = await store.start(CONFIGURATION)
    here = server(store)
    plan = await here.find_plan(number, digest)
    assert isinstance(plan, Plan)
    assert await here.find_plan(number, digest) is plan


async def test_another_digest_finds_nothing() -> None:
    store = Known()
    number, digest = await store.start(CONFIGURATION)
    assert await server(store).find_plan(number, digest[::-1]) is None


async def test_an_instance_that_was_never_started_is_not_found() -> None:
    assert await server(Known()).find_plan(1, bytes(32)) is None


async def test_a_configuration_that_is_refused_has_no_plan() -> None:
    store = Known()
    assert await server(store).find_plan(*await store.start({"model": {}})) is None


class Bare:
    """A plugin in kong-pdk's shape."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config


class Taking:
    """One that takes the relay and wants to know who it is."""

    def __init__(self, config: Mapping[str, Any], relay: Issuer | None = None) -> None:
        self.relay = relay
        self.identity = (0, b"")

    def started(self, number: int, digest: bytes) -> None:
        self.identity = (number, digest)


class Failing(Bare):
    """One that fails when it is told."""

    def started(self, number: int, digest: bytes) -> None:
        raise ValueError(number)


async def test_who_takes_the_relay_gets_it_and_its_identity() -> None:
    once = Once.create(1)
    issuer = Issuer(once.secret, once.numbers(0), 1)
    instances = Instances({"bare": Bare, "taking": Taking}, MemoryStore(), issuer)
    bare = await instances.start("bare", b"{}")
    taking = await instances.start("taking", b"{}")
    once.close()
    assert bare.error is None
    assert taking.plugin.relay is issuer
    assert taking.plugin.identity == (taking.id, taking.config_digest)


async def test_without_a_relay_there_is_none() -> None:
    instances = Instances({"taking": Taking}, MemoryStore())
    assert (await instances.start("taking", b"{}")).plugin.relay is None


async def test_who_fails_when_told_has_no_plugin() -> None:
    instances = Instances({"failing": Failing}, MemoryStore())
    started = await instances.start("failing", b"{}")
    assert started.plugin is None
    assert started.error == "failing: the configuration could not be loaded"
