"""The shim under LuaJIT, with stand-ins for nginx's and Kong's Lua modules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lupa.luajit21 import LuaError, LuaRuntime

from tests.unit.lua.stubs import from_lua, handler, runtime


@pytest.fixture
def lua() -> LuaRuntime:
    return runtime()


def access(lua: LuaRuntime, conf: str = "{ __seq__ = 7 }", answer: str = "set_target('up')") -> Any:
    """One request: what the plugin server does is `answer`. Gives Lua's globals."""
    lua.execute(f"new_request(); conf = conf or {conf}; answer = function(conf) {answer} end")
    lua.globals().handler = handler(lua)
    lua.execute("handler:access(conf)")
    return lua.globals()


@pytest.mark.parametrize("name", ["ai-proxy", "ai-proxy-advanced"])
def test_it_takes_priority_version_and_schema_from_the_plugin_server(
    lua: LuaRuntime, name: str
) -> None:
    assert handler(lua, name).PRIORITY == 770
    assert handler(lua, name).VERSION == "1.2.3"
    schema = lua.eval(f'require("kong.plugins.{name}.schema")')
    assert schema.name == "ai-proxy"


@pytest.mark.parametrize("module", ["handler", "schema"])
def test_a_plugin_that_no_server_offers_is_an_error_that_says_what_to_add(
    lua: LuaRuntime, module: str
) -> None:
    lua.execute('offered["ai-proxy"] = nil')
    with pytest.raises(LuaError, match="add it to pluginserver_names") as failure:
        lua.eval(f'require("kong.plugins.ai-proxy.{module}")')
    # Kong reads this phrase as "not installed", and would fall back to its own plugin.
    assert f"module 'kong.plugins.ai-proxy.{module}' not found" not in str(failure.value)


def test_the_plugin_server_gets_its_own_table_and_the_configuration(lua: LuaRuntime) -> None:
    access(lua)
    assert lua.eval("self_seen == server and conf_seen == conf")


def test_a_service_with_an_ip_address_becomes_a_name_before_the_target_is_set(
    lua: LuaRuntime,
) -> None:
    assert access(lua).type_seen == "name"


def test_the_target_that_the_plugin_server_set_stays(lua: LuaRuntime) -> None:
    balancer = access(lua).ngx.ctx.balancer_data
    assert (balancer.host, balancer.port) == ("up", 443)


def test_without_a_target_the_request_ends_with_500_and_goes_nowhere(lua: LuaRuntime) -> None:
    seen = access(lua, answer="")
    assert (seen.exit_status, seen.exit_message) == (500, "ai-proxy failed before proxying")
    assert seen.ngx.ctx.balancer_data.host == "ai-proxy.invalid"
    assert list(seen.trace.values()) == ["server"]


@pytest.mark.parametrize("first", ["ai-proxy", "ai-proxy-advanced"])
def test_the_second_of_both_plugins_on_one_request_is_refused_unasked(
    lua: LuaRuntime, first: str
) -> None:
    second = {"ai-proxy": "ai-proxy-advanced", "ai-proxy-advanced": "ai-proxy"}[first]
    seen = lua.globals()
    seen.first, seen.second = handler(lua, first), handler(lua, second)
    lua.execute("new_request(); answer = function() set_target('up') end")
    lua.execute("first:access({ __seq__ = 7 })")
    assert seen.exit_status is None
    before = list(seen.trace.values())
    lua.execute("second:access({ __seq__ = 8 })")
    assert seen.exit_status == 500
    message = "ai-proxy and ai-proxy-advanced both apply to this request: remove one"
    assert seen.exit_message == message
    assert list(seen.trace.values()) == before


def test_an_error_on_the_way_to_the_plugin_server_goes_up_and_the_request_nowhere(
    lua: LuaRuntime,
) -> None:
    with pytest.raises(LuaError, match="connection refused"):
        access(lua, answer="error('connection refused')")
    assert lua.globals().ngx.ctx.balancer_data.host == "ai-proxy.invalid"
    assert list(lua.globals().trace.values()) == ["server", "server"]


def test_a_first_error_is_followed_by_one_more_attempt(lua: LuaRuntime) -> None:
    """The target that the first may have set does not count."""
    lua.execute("tries = 0")
    answer = """
      tries = tries + 1
      if tries == 1 then set_target('half-way'); error('broken pipe') end
      set_target('up')
    """
    seen = access(lua, answer=answer)
    assert seen.host_seen == "ai-proxy.invalid"
    assert seen.ngx.ctx.balancer_data.host == "up"
    assert "broken pipe" in seen.warning
    assert seen.slept == 0.01


def test_one_that_let_a_minute_pass_is_not_asked_again(lua: LuaRuntime) -> None:
    lua.execute("tries = 0")
    with pytest.raises(LuaError, match="timeout"):
        access(lua, answer="tries = tries + 1; error('receive timeout')")
    assert lua.globals().tries == 1


def test_a_plugin_server_without_access_is_an_error(lua: LuaRuntime) -> None:
    lua.execute("server.access = nil")
    with pytest.raises(LuaError):
        access(lua)
    assert lua.globals().ngx.ctx.balancer_data.host == "ai-proxy.invalid"


def test_kong_retries_nothing(lua: LuaRuntime) -> None:
    assert access(lua).ngx.ctx.balancer_data.retries == 0


def test_timeouts_are_the_balancers_where_the_configuration_has_them(lua: LuaRuntime) -> None:
    limits = "{ connect_timeout = 10, write_timeout = 20, read_timeout = 30 }"
    data = access(lua, f"{{ __seq__ = 7, balancer = {limits} }}").ngx.ctx.balancer_data
    assert (data.connect_timeout, data.send_timeout, data.read_timeout) == (10, 20, 30)


def test_timeouts_are_the_services_otherwise(lua: LuaRuntime) -> None:
    data = access(lua).ngx.ctx.balancer_data
    assert (data.connect_timeout, data.send_timeout, data.read_timeout) == (1, 2, 3)


def test_forwarded_headers_are_emptied_after_the_plugin_server_could_read_them(
    lua: LuaRuntime,
) -> None:
    seen = access(lua)
    parts = ("for", "proto", "host", "port", "path", "prefix")
    assert list(seen.trace.values()) == ["server", *(f"upstream_x_forwarded_{p}" for p in parts)]
    assert set(seen.variables.values()) == {""}


@pytest.mark.parametrize(
    ("status", "kept"), [(200, True), (201, False), (400, False), (503, False)]
)
def test_the_model_header_is_kept_on_200_only(lua: LuaRuntime, status: int, kept: bool) -> None:
    lua.globals().status = status
    lua.globals().handler = handler(lua)
    lua.execute("handler:header_filter({})")
    assert ("X-Kong-LLM-Model" not in dict(lua.globals().cleared)) is kept


def header_filter(lua: LuaRuntime, cookies: str) -> object:
    """The Set-Cookie headers that are left of `cookies`, a Lua value."""
    lua.execute(f"new_request(); answered['set-cookie'] = {cookies}")
    lua.globals().handler = handler(lua)
    lua.execute("handler:header_filter({})")
    return from_lua(lua.globals().answered["set-cookie"])


@pytest.mark.parametrize(
    ("cookies", "kept"),
    [
        ("'theirs=1; Path=/'", {}),
        ("{ 'theirs=1', 'Second =2; Secure' }", {}),
        ("{ 'theirs=1', 'own=2; Path=/', 'Second=3' }", {1: "own=2; Path=/"}),
        ("'own=theirs=1'", {1: "own=theirs=1"}),
        ("{ 'nameless', 'own=1', ';own=2' }", {1: "own=1"}),
    ],
)
def test_the_providers_cookies_are_removed_and_those_of_kongs_plugins_stay(
    lua: LuaRuntime, cookies: str, kept: dict[int, str]
) -> None:
    lua.execute("variables.upstream_cookie_theirs, variables.upstream_cookie_Second = '1', ''")
    assert header_filter(lua, cookies) == kept


def test_so_it_is_where_kong_has_buffered_the_answer_and_nginx_knows_no_cookies(
    lua: LuaRuntime,
) -> None:
    lua.execute("""
      kong.service = { response = { get_headers = function()
        return { ["set-cookie"] = { "theirs=1", "second=2" } }
      end } }
      new_request()
      ngx.ctx.buffered_headers = {}
      answered["set-cookie"] = { "theirs=1", "own=1", "second=2" }
    """)
    lua.globals().handler = handler(lua)
    lua.execute("handler:header_filter({})")
    assert from_lua(lua.globals().answered["set-cookie"]) == {1: "own=1"}


def test_an_answer_without_cookies_gets_no_header_for_them(lua: LuaRuntime) -> None:
    assert header_filter(lua, "nil") is None


def test_a_configuration_without_vault_references_keeps_its_sequence(lua: LuaRuntime) -> None:
    seen = access(lua, "{ __seq__ = 7, auth = { header_value = 'a' } }")
    seen.conf.auth.header_value = "b"
    assert access(lua).conf["__seq__"] == 7


# How Kong marks what came from a vault: `$refs` beside the values, by field; in it a text for a
# single value, a table for those of an array or a map.
_REFERENCES = {
    "a field": (
        "{ __seq__ = 7, auth = { header_value = 'a', ['$refs'] = { header_value = '{vault:}' } } }",
        "conf.auth.header_value",
    ),
    "a field at the top": (
        "{ __seq__ = 7, key = 'a', ['$refs'] = { key = '{vault:}' } }",
        "conf.key",
    ),
    "one of an array": (
        "{ __seq__ = 7, keys = { 'x', 'a' }, ['$refs'] = { keys = { [2] = '{vault:}' } } }",
        "conf.keys[2]",
    ),
    "one of a map": (
        "{ __seq__ = 7, map = { k = 'a' }, ['$refs'] = { map = { k = '{vault:}' } } }",
        "conf.map.k",
    ),
    "a target's": (
        "{ __seq__ = 7, targets = { { auth = { key = 'a', ['$refs'] = { key = '{vault:}' } } } } }",
        "conf.targets[1].auth.key",
    ),
}


@pytest.mark.parametrize(("conf", "place"), _REFERENCES.values(), ids=_REFERENCES)
def test_a_rotated_secret_gives_a_new_sequence_once(lua: LuaRuntime, conf: str, place: str) -> None:
    sequences = [access(lua, conf).conf["__seq__"], access(lua).conf["__seq__"]]
    for value in ("'b'", "'c'", "nil"):  # Kong drops a value that its vault no longer has
        lua.execute(f"{place} = {value}")
        sequences += [access(lua).conf["__seq__"], access(lua).conf["__seq__"]]
    assert sequences == [7, 7, "7.1", "7.1", "7.2", "7.2", "7.3", "7.3"]


def test_the_new_sequence_is_there_before_the_plugin_server_is_asked(lua: LuaRuntime) -> None:
    access(lua, _REFERENCES["a field"][0])
    lua.execute("conf.auth.header_value = 'b'")
    assert access(lua, answer="seq_seen = conf.__seq__; set_target('up')").seq_seen == "7.1"


def test_two_configurations_are_watched_apart(lua: LuaRuntime) -> None:
    text = _REFERENCES["a field"][0]
    access(lua, text)
    lua.execute(f"first = conf; conf = {text}; conf.auth.header_value = 'other'")
    assert access(lua).conf["__seq__"] == 7


def test_a_configuration_that_kong_has_replaced_is_not_kept_alive(lua: LuaRuntime) -> None:
    access(lua, _REFERENCES["a field at the top"][0])
    lua.execute("gone = setmetatable({ conf }, { __mode = 'v' }); conf, conf_seen = nil, nil")
    lua.execute("answer = nil; collectgarbage(); collectgarbage()")
    assert lua.eval("gone[1] == nil")


def test_what_kong_adds_to_a_server_is_found_there_but_not_listed(lua: LuaRuntime) -> None:
    """Kong 3.9 adds the handle of the process, which its Admin API cannot print."""
    handler(lua, "ai-proxy")
    lua.execute("first = kong.configuration.pluginservers[1]; first.proc = 'handle'")
    handler(lua, "ai-proxy-advanced")
    assert lua.eval("first.proc == 'handle' and first.name == 'a'")
    assert list(lua.globals().first) == ["name"]
    assert lua.eval("kong.configuration.pluginservers[2].proc == nil")


def test_a_kong_without_that_list_is_as_well(lua: LuaRuntime) -> None:
    lua.execute("kong.configuration = {}")
    assert handler(lua).PRIORITY == 770


def test_kong_is_to_try_a_server_that_it_did_not_start(lua: LuaRuntime) -> None:
    """Kong 3.4 skips the plugin otherwise."""
    handler(lua, "ai-proxy-advanced")
    assert lua.eval("server.server_def.ready")


RULES = "{ acls = { deny = { { match = {} } } } }"
TWO = "{ { id = 'g1', name = 'gold', tags = {} }, { id = 'g2', name = 'silver' } }"


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (TWO, [{"id": "g1", "name": "gold"}, {"id": "g2", "name": "silver"}]),
        ("{}", {}),
        ("nil", {}),
    ],
)
def test_the_plugin_server_is_told_the_consumers_groups(
    lua: LuaRuntime, groups: str, told: object
) -> None:
    lua.execute(f"kong.client.get_consumer_groups = function() return {groups} end")
    seen = access(lua, RULES, "told = kong.ctx.shared.ai_proxy_consumer_groups; set_target('up')")
    assert json.loads(seen.told) == told


@pytest.mark.parametrize("conf", ["{}", "{ acls = {} }"])
def test_groups_are_not_looked_up_where_no_rule_is(lua: LuaRuntime, conf: str) -> None:
    lua.execute("kong.client.get_consumer_groups = function() asked = true end")
    seen = access(lua, conf)
    assert seen.asked is None
    assert seen.kong.ctx.shared.ai_proxy_consumer_groups is None


def test_a_kong_without_consumer_groups_tells_nothing_of_them(lua: LuaRuntime) -> None:
    seen = access(lua, RULES)
    assert seen.kong.ctx.shared.ai_proxy_consumer_groups is None
    assert seen.ngx.ctx.balancer_data.host == "up"
