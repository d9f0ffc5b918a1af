"""Ids that mean a configuration, and what becomes of configurations that cannot be taken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from kong_ai_proxy.pluginserver import instances
from kong_ai_proxy.pluginserver.instances import MemoryStore, instance_id, own_config
from kong_ai_proxy.pluginserver.server import PluginServer
from kong_ai_proxy.pluginserver.wire.methods import Protocol
from tests.contract.kong_side import EXAMPLES, PROTOCOLS, SIDES, plugin, server

both = pytest.mark.parametrize("protocol", PROTOCOLS)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
CONFIGS = st.dictionaries(st.text(max_size=8), JSON, max_size=6)


@EXAMPLES
@given(CONFIGS)
def test_ids_are_positive_int32(config: dict[str, Any]) -> None:
    assert 1 <= instance_id("p", config) <= 2**31 - 1


@EXAMPLES
@given(CONFIGS)
def test_the_order_of_keys_does_not_matter(config: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return value

    assert instance_id("p", config) == instance_id("p", turned(config))


@EXAMPLES
@given(CONFIGS, st.sampled_from(["__seq__", "__key__", "__ws_id"]), JSON)
def test_kongs_bookkeeping_does_not_matter(config: dict[str, Any], key: str, value: Any) -> None:
    assert instance_id("p", {**config, key: value}) == instance_id("p", config)


@EXAMPLES
@given(CONFIGS, st.text(max_size=5), st.text(max_size=5))
def test_the_id_of_kongs_plugin_matters(config: dict[str, Any], one: str, other: str) -> None:
    same = instance_id("p", {**config, "__plugin_id": one}) == instance_id(
        "p", {**config, "__plugin_id": other}
    )
    assert same == (one == other)


def test_the_plugins_name_matters() -> None:
    assert instance_id("ai-proxy", {}) != instance_id("ai-proxy-advanced", {})


def test_the_id_of_a_configuration_never_changes() -> None:
    """Kong keeps ids over a restart of the plugin server: new code must give the old id."""
    config = {"model": {"name": "gpt-4o", "options": {"temperature": 0.5}}, "__plugin_id": "a-1"}
    assert instance_id("ai-proxy", config) == 1_781_347_853


def test_own_config_is_without_what_kong_adds() -> None:
    config = {"model": 1, "__seq__": 2, "$refs": {}, "route_id": "r", "__plugin_id": "p"}
    assert own_config(config) == {"model": 1}


@both
async def test_a_reload_without_a_change_keeps_the_plugin_object(protocol: Protocol) -> None:
    made: list[Any] = []
    under_test = server(protocol, _counting(made))
    kong = SIDES[protocol](under_test)
    first = await kong.start("p", b'{"a":1,"b":2,"__seq__":1}')
    again = await kong.start("p", b'{"b":2,"__seq__":2,"a":1}')
    other = await kong.start("p", b'{"a":2,"b":2,"__seq__":3}')
    assert first == again != other
    assert len(made) == 2


def _counting(made: list[Any]) -> type:
    class Plugin:
        def __init__(self, config: dict[str, Any]) -> None:
            made.append(config)

        def access(self, kong: Any) -> None:
            pass

    return Plugin


@both
async def test_another_process_finds_an_instance_in_the_store(protocol: Protocol) -> None:
    store, made = MemoryStore(), list[Any]()
    one = server(protocol, _counting([]), store=store)
    other = server(protocol, _counting(made), store=store)
    number = await SIDES[protocol](one).start("p", b'{"a":1}')
    assert (await SIDES[protocol](other).event(number)).how == "end"
    assert made == [{"a": 1}]


@both
async def test_an_unknown_instance_is_said_so_that_kong_starts_it(protocol: Protocol) -> None:
    kong = SIDES[protocol](server(protocol, plugin(lambda kong: None)))
    assert (await kong.event(4711)).how == "no plugin instance 4711"
    assert not kong.wire.closed


@both
async def test_the_least_used_instance_is_dropped_and_loaded_again(
    protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "MAX_LIVE", 2)
    made: list[Any] = []
    under_test = server(protocol, _counting(made))
    kong = SIDES[protocol](under_test)
    numbers = [await kong.start("p", b'{"n":%d}' % n) for n in range(3)]
    assert len(under_test._instances) == 2
    assert (await kong.event(numbers[0])).how == "end"
    assert [config["n"] for config in made] == [0, 1, 2, 0]


async def test_a_memory_store_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "MAX_STORED", 2)
    store = MemoryStore()
    for number in (1, 2):
        await store.put(number, "p", b"")
    await store.get(1)
    await store.put(3, "p", b"")
    assert [await store.get(number) is not None for number in (1, 2, 3)] == [True, False, True]


@both
@pytest.mark.parametrize("config", [b"", b"{", b"[]", b"null", b'{"a":', b"[" * 100_000])
async def test_a_configuration_that_is_no_json_object_answers_500(
    protocol: Protocol, config: bytes
) -> None:
    kong = SIDES[protocol](server(protocol, plugin(lambda kong: None)))
    result = await kong.event(await kong.start("p", config))
    assert result.status == 500
    assert result.message == "p: the configuration that Kong sent is no JSON object"


@both
async def test_a_plugin_that_cannot_take_its_configuration_answers_500(
    protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    class Plugin:
        def __init__(self, config: dict[str, Any]) -> None:
            raise ValueError(config["key"])

    kong = SIDES[protocol](server(protocol, Plugin))
    number = await kong.start("p", b'{"key":"sk-secret"}')
    result = await kong.event(number)
    assert (result.status, result.message) == (500, "p: the configuration could not be loaded")
    assert "sk-secret" not in caplog.text
    in_log = await SIDES[protocol](kong.server).event(number, "log")
    assert in_log.how == "end"


async def test_text_that_is_not_utf8_reaches_the_plugin() -> None:
    made: list[Any] = []
    kong = SIDES["protobuf"](server("protobuf", _counting(made)))
    await kong.start("p", b'{"a":"caf\xe9"}')
    assert made == [{"a": "caf\udce9"}]


async def test_an_unknown_plugin_ends_the_connection_over_protobuf() -> None:
    kong = SIDES["protobuf"](server("protobuf", plugin(lambda kong: None)))
    kong.send(cmd_start_instance={"name": b"other", "config": b"{}"})
    assert await kong.read() is None


async def test_an_unknown_plugin_is_an_error_over_msgpack() -> None:
    kong = SIDES["msgpack"](server("msgpack", plugin(lambda kong: None)))
    kong.send("plugin.StartInstance", {"Name": "closed", "Config": "{}"})
    message = await kong.read()
    assert message[2] == "no plugin named '(...)' here; this server has p"


class _FailingStore(MemoryStore):
    @override
    async def put(self, number: int, plugin: str, config: bytes) -> None:
        raise ConnectionError("supervisor")

    @override
    async def get(self, number: int) -> tuple[str, bytes] | None:
        raise ConnectionError("supervisor")


@both
async def test_without_its_store_a_process_still_serves_what_it_started(
    protocol: Protocol,
) -> None:
    kong = SIDES[protocol](server(protocol, plugin(lambda kong: None), store=_FailingStore()))
    assert (await kong.event(await kong.start("p"))).how == "end"


@both
async def test_a_store_that_fails_is_answered_with_500(protocol: Protocol) -> None:
    kong = SIDES[protocol](server(protocol, plugin(lambda kong: None), store=_FailingStore()))
    assert (await kong.event(4711)).status == 500


@both
async def test_two_configurations_never_share_an_id(
    protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "_IDS", 2)
    first = instance_id("p", {"n": 1})
    same = next(n for n in range(2, 50) if instance_id("p", {"n": n}) == first)
    made: list[Any] = []
    kong = SIDES[protocol](server(protocol, _counting(made)))
    one = await kong.start("p", b'{"n":1}')
    other = await kong.start("p", b'{"n":%d}' % same)
    assert (one, {one, other}) == (first, {1, 2})
    assert await kong.start("p", b'{"n":1}') == one
    assert len(made) == 2


async def test_closing_an_instance_is_advisory_over_protobuf() -> None:
    kong = SIDES["protobuf"](server("protobuf", plugin(lambda kong: None)))
    number = await kong.start("p")
    kong.send(cmd_close_instance={"instance_id": number})
    assert not (await kong.returned()).HasField("instance_status")
    assert (await kong.event(number)).how == "end"


async def test_closing_an_instance_is_advisory_over_msgpack() -> None:
    kong = SIDES["msgpack"](server("msgpack", plugin(lambda kong: None)))
    number = await kong.start("p")
    kong.send("plugin.CloseInstance", number)
    assert await kong.returned() == {}
    assert (await kong.event(number)).how == "end"


def _two_plugins(protocol: Protocol) -> PluginServer:
    one = plugin(lambda kong: None, version="1.2", priority=770)
    plugins = {"b": plugin(lambda kong: None), "a": one}
    return PluginServer(plugins, MemoryStore(), protocol=protocol)


async def test_kong_may_ask_about_plugins_and_instances_over_protobuf() -> None:
    kong = SIDES["protobuf"](_two_plugins("protobuf"))
    kong.send(cmd_get_plugin_names={})
    assert list((await kong.returned()).plugin_names.names) == [b"a", b"b"]
    kong.send(cmd_get_plugin_info={"name": b"a"})
    info = (await kong.returned()).plugin_info
    assert (info.name, info.version, info.priority) == (b"a", b"1.2", 770)
    assert list(info.phases) == [b"access"]
    number = await kong.start("a", b'{"key":"sk"}')
    kong.send(cmd_get_instance_status={"instance_id": number})
    status = (await kong.returned()).instance_status
    assert (status.name, status.instance_id) == (b"a", number)
    assert status.started_at > 0
    assert not status.HasField("config")


async def test_kong_may_ask_about_plugins_and_instances_over_msgpack() -> None:
    kong = SIDES["msgpack"](_two_plugins("msgpack"))
    kong.send("plugin.GetPluginNames")
    assert await kong.returned() == ["a", "b"]
    kong.send("plugin.GetPluginInfo", "a")
    info = {"Name": "a", "Phases": ["access"], "Version": "1.2", "Priority": 770}
    assert await kong.returned() == info
    number = await kong.start("a", b'{"key":"sk"}')
    kong.send("plugin.InstanceStatus", number)
    status = await kong.returned()
    assert (status["Name"], status["Id"], status["Config"]) == ("a", number, {})


async def test_what_nobody_knows_gets_an_empty_answer_over_protobuf() -> None:
    kong = SIDES["protobuf"](_two_plugins("protobuf"))
    for command in (
        {"cmd_get_plugin_info": {"name": b"c"}},
        {"cmd_get_instance_status": {"instance_id": 4711}},
        {},
    ):
        kong.send(**command)
        assert len((await kong.returned()).ListFields()) == 1  # the sequence


@pytest.mark.parametrize(
    "message",
    [
        ["plugin.Nonsense"],
        ["plugin.GetPluginInfo", "c"],
        ["plugin.GetPluginInfo"],
        ["plugin.InstanceStatus", 4711],
        ["plugin.InstanceStatus", "x"],
        ["plugin.StartInstance", {"Name": "a"}],
        ["plugin.StartInstance", 3],
    ],
)
async def test_a_request_that_makes_no_sense_gets_an_error_over_msgpack(
    message: list[Any],
) -> None:
    kong = SIDES["msgpack"](_two_plugins("msgpack"))
    kong.send(*message)
    assert isinstance((await kong.read())[2], str)


@pytest.mark.parametrize(
    "message",
    [
        ["plugin.HandleEvent", {"InstanceId": "x", "EventName": "access"}],
        ["plugin.HandleEvent"],
        ["plugin.Step", {"EventId": 1}],
        ["plugin.Step", []],
    ],
)
async def test_an_event_that_makes_no_sense_is_answered_with_500(message: list[Any]) -> None:
    kong = SIDES["msgpack"](_two_plugins("msgpack"))
    kong.send(*message)
    assert (await kong.finish()).status == 500


async def test_messages_behind_a_slow_command_wait_for_it() -> None:
    gate = asyncio.Event()

    class SlowStore(MemoryStore):
        @override
        async def get(self, number: int) -> tuple[str, bytes] | None:
            await gate.wait()
            return "p", json.dumps({"n": number}).encode()

    kong = SIDES["protobuf"](server("protobuf", plugin(lambda kong: None), store=SlowStore()))
    kong.begin(7)
    kong.send(cmd_get_plugin_names={})
    await asyncio.sleep(0)
    assert not kong.wire.written
    gate.set()
    kong.sequence -= 1
    assert (await kong.finish()).how == "end"
    kong.sequence += 1
    assert list((await kong.returned()).plugin_names.names) == [b"p"]
