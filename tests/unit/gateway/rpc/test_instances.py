"""Instances and connections: who starts what when, and what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kong_ai_proxy.gateway.context import PluginEntity
from kong_ai_proxy.gateway.plugins import ExternalPlugins, Limits, ServerInfo
from kong_ai_proxy.gateway.rpc.connection import Pool
from tests.unit.gateway.rpc.servers import Conn, external, plugin, request, serving

PROTOCOLS = ["ProtoBuf:1", "MsgPack:1"]


class Recorder:
    """A server that writes down what it is asked and answers everything at once."""

    def __init__(self, protocol: str) -> None:
        self._serve = self._protobuf if protocol == "ProtoBuf:1" else self._msgpack
        self.started: list[dict[str, Any]] = []
        self.closed: list[int] = []
        self.events: list[int] = []
        self.connections = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.open: list[Conn] = []

    async def __call__(self, conn: Conn) -> None:
        self.connections += 1
        self.open.append(conn)
        await self._serve(conn)

    async def _protobuf(self, conn: Conn) -> None:
        while True:
            call = await conn.read_call()
            if call.HasField("cmd_start_instance"):
                self.started.append(json.loads(call.cmd_start_instance.config))
                await self.gate.wait()
                conn.started(call, len(self.started))
            elif call.HasField("cmd_close_instance"):
                self.closed.append(call.cmd_close_instance.instance_id)
                conn.returned(call)
            else:
                self.events.append(call.cmd_handle_event.instance_id)
                conn.end(call)

    async def _msgpack(self, conn: Conn) -> None:
        while True:
            message = await conn.read_message()
            kind, argument = message[2], message[3][0]
            if kind == "plugin.StartInstance":
                self.started.append(json.loads(argument["Config"]))
                await self.gate.wait()
                conn.answer(message, {"Id": len(self.started)})
            elif kind == "plugin.CloseInstance":
                self.closed.append(argument)
                conn.answer(message, None)
            else:
                self.events.append(argument["InstanceId"])
                conn.answer(message, {"EventId": 1, "Data": "ret"})


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_concurrent_requests_start_one_instance(protocol: str, tmp_path: Path) -> None:
    server = Recorder(protocol)
    server.gate.clear()
    limits = Limits(poll=0.01)
    async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol, limits) as p:
        contexts = [request() for _ in range(20)]
        tasks = [asyncio.create_task(p.run(plugin(), "access", ctx)) for ctx in contexts]
        await until(lambda: server.started)
        assert not server.events
        server.gate.set()
        await asyncio.gather(*tasks)
    assert len(server.started) == 1
    assert server.events == [1] * 20
    assert all(ctx.exit is None for ctx in contexts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_new_seq_starts_again_and_closes_the_old_one(protocol: str, tmp_path: Path) -> None:
    server = Recorder(protocol)
    async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol) as plugins:
        for seq in (1, 1, 2, 2):
            await plugins.run(plugin(seq), "access", request())
    assert [config["__seq__"] for config in server.started] == [1, 2]
    assert (server.events, server.closed) == ([1, 1, 2, 2], [1])


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_plugins_have_instances_of_their_own(protocol: str, tmp_path: Path) -> None:
    server = Recorder(protocol)
    async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol) as plugins:
        for number in (1, 2, 1, 2):
            await plugins.run(plugin(number=number), "access", request())
    assert server.events == [1, 2, 1, 2]
    assert not server.closed


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_cancelled_start_leaves_no_claim(protocol: str, tmp_path: Path) -> None:
    server = Recorder(protocol)
    server.gate.clear()
    async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol) as plugins:
        task = asyncio.create_task(plugins.run(plugin(), "access", request()))
        await until(lambda: server.started)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        server.gate.set()
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is None
    assert len(server.started) == 2


async def test_server_pid_that_changes_forgets_the_instances(tmp_path: Path) -> None:
    pids = [10, 10, 11, 11, 11]
    started = 0

    async def server(conn: Conn) -> None:
        nonlocal started
        while True:
            message = await conn.read_message()
            if message[2] == "plugin.StartInstance":
                started += 1
                conn.answer(message, {"Id": started})
            else:
                conn.send(b"\x93\x02\xa9serverPid" + bytes([pids.pop(0)]))
                conn.answer(message, {"Data": "ret"})

    async with (
        serving(tmp_path / "s", server),
        external(tmp_path / "s", "MsgPack:1") as plugins,
    ):
        counts = []
        while pids:
            await plugins.run(plugin(), "access", request())
            counts.append(started)
    assert counts == [1, 1, 1, 2, 2]


# --- the configuration


async def configs(path: Path, *entities: PluginEntity) -> list[dict[str, Any]]:
    server = Recorder("ProtoBuf:1")
    async with serving(path, server), external(path, "ProtoBuf:1") as plugins:
        for entity in entities:
            await plugins.run(entity, "access", request())
    return server.started


async def test_configuration_has_kongs_keys_and_no_nulls(tmp_path: Path) -> None:
    config: dict[str, object] = {
        "unset": None,
        "one": 1.0,
        "path": "/a",
        "list": [],
        "map": {"x": None, "y": 0.1},
    }
    entity = PluginEntity("p", "id-1", config, "key-1", 7, "ws-1", route_id="r", service_id="s")
    assert await configs(tmp_path / "s", entity) == [
        {
            "one": 1,
            "path": "/a",
            "list": [],
            "map": {"y": 0.1},
            "__seq__": 7,
            "__key__": "key-1",
            "__ws_id": "ws-1",
            "__plugin_id": "id-1",
            "route_id": "r",
            "service_id": "s",
        }
    ]


async def test_references_are_named_in_the_record_that_has_them(tmp_path: Path) -> None:
    config: dict[str, object] = {
        "a": "x",
        "auth": {"key": "x"},
        "targets": [{"auth": {"key": "x"}}, {"auth": {"key": "y"}}],
    }
    refs = {
        "a": "{vault://env/a}",
        "auth.key": "{vault://env/b}",
        "targets[0].auth.key": "{vault://env/c}",
    }
    entity = PluginEntity("p", "id", config, "key", 1, "ws", refs=refs)
    found = (await configs(tmp_path / "s", entity))[0]
    assert found["$refs"] == {"a": "{vault://env/a}"}
    assert found["auth"] == {"key": "x", "$refs": {"key": "{vault://env/b}"}}
    assert found["targets"] == [
        {"auth": {"key": "x", "$refs": {"key": "{vault://env/c}"}}},
        {"auth": {"key": "y"}},
    ]
    assert config["auth"] == {"key": "x"}


async def test_order_of_keys_differs_between_starts_and_repeats_between_runs(
    tmp_path: Path,
) -> None:
    entities = [plugin(seq, **dict.fromkeys("abcdefgh", 1)) for seq in (1, 2)]
    first = await configs(tmp_path / "1", *entities)
    second = await configs(tmp_path / "2", *entities)
    assert [list(config) for config in first] == [list(config) for config in second]
    assert list(first[0]) != list(first[1])


# --- connections


async def test_connections_are_reused_last_in_first_out(tmp_path: Path) -> None:
    pool = Pool()
    server = Recorder("ProtoBuf:1")
    async with serving(tmp_path / "s", server):
        one = await pool.take(tmp_path / "s")
        two = await pool.take(tmp_path / "s")
        await until(lambda: server.connections == 2)
        pool.give_back(one)
        pool.give_back(two)
        assert await pool.take(tmp_path / "s") is two
        assert await pool.take(tmp_path / "s") is one
        pool.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_events_in_a_row_share_one_connection(protocol: str, tmp_path: Path) -> None:
    server = Recorder(protocol)
    async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol) as plugins:
        for _ in range(3):
            await plugins.run(plugin(), "access", request())
    assert server.connections == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_idle_connection_is_closed_after_its_time(protocol: str, tmp_path: Path) -> None:
    server = Recorder(protocol)
    limits = Limits(idle=0.02)
    async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol, limits) as p:
        await p.run(plugin(), "access", request())
        await until(server.open[0].reader.at_eof)
        await p.run(plugin(), "access", request())
    assert server.connections == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_idle_connection_that_speaks_is_closed(protocol: str, tmp_path: Path) -> None:
    server = Recorder(protocol)
    async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol) as plugins:
        await plugins.run(plugin(), "access", request())
        server.open[0].send(b"\x00")
        await until(server.open[0].reader.at_eof)
        ctx = request()
        await plugins.run(plugin(), "access", ctx)
    assert ctx.exit is None
    assert server.connections == 2


async def test_sequences_count_for_each_plugin(tmp_path: Path) -> None:
    """Kong's first is 2, and a connection that failed costs one."""
    seen: list[tuple[str, int]] = []

    async def server(conn: Conn) -> None:
        while True:
            call = await conn.read_call()
            if call.HasField("cmd_start_instance"):
                seen.append((call.cmd_start_instance.name.decode(), call.sequence))
                conn.started(call, 1)
            else:
                seen.append(("event", call.sequence))
                conn.end(call)

    infos = {name: ServerInfo(name, tmp_path / "s", "ProtoBuf:1") for name in ("p", "q")}
    plugins = ExternalPlugins(infos)
    await plugins.run(plugin(), "access", request())
    async with serving(tmp_path / "s", server):
        await plugins.run(plugin(), "access", request())
        other = PluginEntity("q", "plugin-q", {}, "key-q", 1, "ws")
        await plugins.run(other, "access", request())
        await plugins.close()
    assert seen == [("p", 3), ("event", 4), ("q", 2), ("event", 3)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_works_on_uvloop(protocol: str, tmp_path: Path) -> None:
    async def events() -> list[int]:
        server = Recorder(protocol)
        async with serving(tmp_path / "s", server), external(tmp_path / "s", protocol) as plugins:
            await asyncio.gather(*(plugins.run(plugin(), "access", request()) for _ in range(3)))
        return server.events

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(events()) == [1, 1, 1]


def test_unknown_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown protocol 'JSON:1'"):
        ExternalPlugins({"p": ServerInfo("p", tmp_path, "JSON:1")})
