"""The shim's part for the relay under LuaJIT: what it asks for, and how it cuts the frame off."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from tests.unit.lua.stubs import from_lua, handler, runtime

MARKER = "01" * 16
VALUES = {"ai.proxy.usage": {"total_tokens": 7}, "ai.proxy.payload": {"response": "a"}}
BODIES = {
    "none": b"",
    "JSON": b'{"a":1}',
    "events": b"data: 1\n\ndata: [DONE]\n\n",
    "gzip": gzip.compress(b"x" * 50, mtime=0),
    "looks like frames": b"\x1e" + b"02" * 16 + b" \x1e\x1e" + b"01" * 15 + b"\x1e",
}


def frame(text: bytes, length: bytes | None = None) -> bytes:
    """The frame that holds `text`."""
    return b"\x1e%s %s\n%s" % (MARKER.encode(), length or b"%08x" % len(text), text)


FRAME = frame(json.dumps(VALUES).encode())


@pytest.fixture
def lua() -> LuaRuntime:
    return runtime("latin-1")


def access(lua: LuaRuntime, *, conf: str = "{}", ticket: bool = True) -> Any:
    """A request up to the end of access; `ticket`: it goes through the relay."""
    set_ticket = "ngx.req.set_header('x-kong-ai-proxy-ticket', 'a ticket')" if ticket else ""
    lua.globals().handler = handler(lua)
    lua.execute(f"""
      randomness, warnings = 0, {{}}
      answer = function() set_target('127.0.0.1'); {set_ticket} end
      handler:access({conf})
    """)
    return lua.globals()


def answer(lua: LuaRuntime, announced: str | None = "chunked", **conditions: Any) -> Any:
    """The same up to the end of header_filter."""
    lua.execute("new_request()")
    seen = access(lua, **conditions)
    if announced is not None:
        seen.answered["x-kong-ai-proxy-frame"] = announced
    lua.execute("handler:header_filter({})")
    return seen


def passed_on(lua: LuaRuntime, pieces: Iterable[bytes], *, eof: str = "own") -> list[bytes]:
    """What body_filter lets through of each piece. `eof`: in a buffer of its `own`, with the `last`
    piece, or `never`, as when the upstream breaks off."""
    buffers = [(piece, False) for piece in pieces]
    if eof == "own":
        buffers.append((b"", True))
    elif eof == "last":
        buffers[-1] = (buffers[-1][0], True)
    body_filter = lua.eval(
        "function(piece, last) ngx.arg = { piece, last }; handler:body_filter({});"
        " return ngx.arg[1] or '' end"
    )
    return [body_filter(piece.decode("latin-1"), last).encode("latin-1") for piece, last in buffers]


def in_two(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((text[:at], text[at:]) for at in range(len(text) + 1))


def logged(lua: LuaRuntime) -> dict[str, Any]:
    """The log's values that the relay's record brought."""
    values = from_lua(lua.globals().logged)
    return {name: value for name, value in values.items() if name.startswith("ai.")}


# ---- access


def test_a_request_for_the_relay_gets_a_random_marker_which_the_log_does_not_show(
    lua: LuaRuntime,
) -> None:
    seen = answer(lua)
    assert seen.request_headers["x-kong-ai-proxy-marker"] == MARKER
    assert seen.logged["request.headers.x-kong-ai-proxy-marker"] == "REDACTED"


def test_no_other_request_gets_one(lua: LuaRuntime) -> None:
    seen = answer(lua, None, ticket=False)
    assert from_lua(seen.request_headers) == {}
    assert (from_lua(seen.logged), seen.ngx.ctx.ai_proxy_frame) == ({}, None)


def test_without_random_bytes_the_relay_is_asked_for_no_frame(lua: LuaRuntime) -> None:
    lua.execute("no_randomness = true")
    seen = answer(lua, None)
    assert seen.request_headers["x-kong-ai-proxy-marker"] is None
    assert "no random bytes" in seen.warning


@pytest.mark.parametrize("name", ["x-kong-ai-proxy-ticket", "x-kong-ai-proxy-marker"])
def test_a_clients_own_header_is_gone_before_the_plugin_server_looks(
    lua: LuaRuntime, name: str
) -> None:
    lua.execute(f"new_request(); request_headers['{name}'] = 'forged'")
    seen = access(lua, ticket=False)
    assert from_lua(seen.headers_seen) == {}
    assert from_lua(seen.request_headers) == {}


def test_a_name_that_nginx_takes_for_the_tickets_is_none(lua: LuaRuntime) -> None:
    lua.execute("new_request(); request_headers['x_kong_ai_proxy_ticket'] = 'forged'")
    assert access(lua, ticket=False).ngx.ctx.ai_proxy_frame is None


LIMITS = "connect_timeout = 1000, write_timeout = 20000, read_timeout = 300000"


@pytest.mark.parametrize(
    ("balancer", "times"),
    [
        ("retries = 0", (5_000, 30_000, 331_000)),
        ("retries = 2", (5_000, 30_000, 973_000)),
        ("retries = 32767", (5_000, 30_000, 2**31 - 2)),
    ],
)
def test_the_relays_own_504_comes_before_kongs(
    lua: LuaRuntime, balancer: str, times: tuple[int, ...]
) -> None:
    conf = f"{{ balancer = {{ {LIMITS}, {balancer} }} }}"
    data = answer(lua, conf=conf).ngx.ctx.balancer_data
    assert (data.connect_timeout, data.send_timeout, data.read_timeout) == times
    assert data.retries == 0


def test_without_a_balancer_the_time_is_the_services(lua: LuaRuntime) -> None:
    data = answer(lua).ngx.ctx.balancer_data
    assert (data.connect_timeout, data.send_timeout, data.read_timeout) == (1, 2, 3)


def test_what_kong_carries_keeps_the_balancers_times(lua: LuaRuntime) -> None:
    conf = f"{{ balancer = {{ {LIMITS}, retries = 2 }} }}"
    data = answer(lua, None, conf=conf, ticket=False).ngx.ctx.balancer_data
    assert (data.connect_timeout, data.send_timeout, data.read_timeout) == (1000, 20000, 300000)


# What Kong has collected when access runs: two plugins before this one.
_QUEUES = """
new_request()
handler = require("kong.plugins.ai-proxy.handler")
others = { { handler = {} }, { handler = {} } }
function queue()
  return { [0] = 6, others[1], 'conf 1', others[2], 'conf 2', { handler = handler }, 'conf 3' }
end
ngx.ctx.plugins = { header_filter = queue(), body_filter = queue() }
"""


def order(lua: LuaRuntime, phase: str) -> list[str]:
    queue = lua.globals().ngx.ctx.plugins[phase]
    assert queue[0] == 6
    return [queue[place] for place in (2, 4, 6)]


@pytest.mark.parametrize("phase", ["header_filter", "body_filter"])
def test_its_filters_run_before_those_of_other_plugins(lua: LuaRuntime, phase: str) -> None:
    lua.execute(_QUEUES)
    access(lua)
    assert order(lua, phase) == ["conf 3", "conf 1", "conf 2"]
    assert lua.eval(f"ngx.ctx.plugins.{phase}[1].handler == handler")


def test_for_a_request_that_kong_carries_the_order_stays(lua: LuaRuntime) -> None:
    lua.execute(_QUEUES)
    access(lua, ticket=False)
    assert order(lua, "body_filter") == ["conf 1", "conf 2", "conf 3"]


_FOREIGN = "{ [0] = 2, { handler = {} }, 'conf' }"


@pytest.mark.parametrize(
    "queues",
    [
        "nil",
        "{}",
        "{ header_filter = 1 }",
        "{ header_filter = { [0] = 0 } }",
        f"{{ header_filter = {_FOREIGN}, body_filter = {_FOREIGN} }}",
    ],
)
def test_a_kong_that_keeps_its_plugins_otherwise_is_left_alone(
    lua: LuaRuntime, queues: str
) -> None:
    lua.execute(f"new_request(); ngx.ctx.plugins = {queues}")
    assert access(lua).ngx.ctx.ai_proxy_frame.first is False


# ---- header_filter


@pytest.mark.parametrize(("announced", "length"), [("7", "7"), ("0", "0"), ("chunked", None)])
def test_a_known_length_is_the_clients_again(
    lua: LuaRuntime, announced: str, length: str | None
) -> None:
    lua.execute(_QUEUES)
    seen = access(lua)
    seen.answered["x-kong-ai-proxy-frame"] = announced
    lua.execute("handler:header_filter({})")
    assert seen.answered["x-kong-ai-proxy-frame"] is None
    assert seen.answered["content-length"] == length


@pytest.mark.parametrize("announced", ["-1", "7, 7", "", "7 "])
def test_a_length_that_is_no_number_is_none(lua: LuaRuntime, announced: str) -> None:
    lua.execute(_QUEUES)
    seen = access(lua)
    seen.answered["x-kong-ai-proxy-frame"] = announced
    lua.execute("handler:header_filter({})")
    assert (seen.answered["content-length"], seen.ngx.ctx.ai_proxy_frame.expected) == (None, True)


def test_where_another_plugin_may_change_the_body_first_no_length_is_promised(
    lua: LuaRuntime,
) -> None:
    assert answer(lua, "7").answered["content-length"] is None


def test_a_provider_that_announces_a_frame_is_not_believed(lua: LuaRuntime) -> None:
    seen = answer(lua, "7", ticket=False)
    assert seen.answered["x-kong-ai-proxy-frame"] is None
    assert passed_on(lua, [b"body" + FRAME])[0] == b"body" + FRAME
    assert logged(lua) == {}


def test_an_answer_of_kongs_own_before_access_passes(lua: LuaRuntime) -> None:
    lua.execute("new_request()")
    lua.globals().handler = handler(lua)
    lua.globals().answered["content-length"] = "3"
    lua.execute("handler:header_filter({})")
    assert passed_on(lua, [b"no\n"]) == [b"no\n", b""]
    assert lua.globals().answered["content-length"] == "3"


# ---- body_filter


@pytest.mark.parametrize("eof", ["own", "last", "never"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_body_and_frame_cut_at_every_byte(lua: LuaRuntime, body: bytes, eof: str) -> None:
    for pieces in in_two(body + FRAME):
        answer(lua)
        assert b"".join(passed_on(lua, pieces, eof=eof)) == body
        assert logged(lua) == VALUES


@pytest.mark.parametrize("eof", ["own", "last", "never"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_body_and_frame_in_single_bytes(lua: LuaRuntime, body: bytes, eof: str) -> None:
    answer(lua)
    whole = body + FRAME
    pieces = [whole[at : at + 1] for at in range(len(whole))]
    assert b"".join(passed_on(lua, pieces, eof=eof)) == body
    assert logged(lua) == VALUES


@settings(max_examples=200, deadline=None)
@given(
    body=st.lists(st.sampled_from([b"\x1e", b"01", b"0", MARKER.encode(), b" ", b"\n", b"x"])),
    cuts=st.lists(st.integers(0, 300)),
    ended=st.booleans(),
)
def test_any_body_that_is_no_frame_arrives_as_it_was_sent(
    body: list[bytes], cuts: list[int], ended: bool
) -> None:
    text = b"".join(body)
    if FRAME[:34] in text:
        return
    lua = runtime("latin-1")
    answer(lua)
    whole = text + (FRAME if ended else b"")
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(places)]
    assert b"".join(passed_on(lua, pieces)) == text
    assert logged(lua) == (VALUES if ended else {})


def test_nothing_is_held_back_but_what_may_begin_a_frame(lua: LuaRuntime) -> None:
    answer(lua)
    pieces = [b"data: 1\n\n", b"data: \x1e", b"2\n\n", b"x\x1e0", b"1", b"2"]
    assert passed_on(lua, pieces, eof="never") == [
        b"data: 1\n\n",
        b"data: ",
        b"\x1e2\n\n",
        b"x",
        b"",
        b"\x1e012",
    ]


def test_a_possible_beginning_is_body_when_the_answer_ends_with_it(lua: LuaRuntime) -> None:
    answer(lua)
    held = FRAME[:20]
    assert passed_on(lua, [b"body" + held]) == [b"body", held]
    assert from_lua(lua.globals().warnings) == {}


def test_a_buffer_without_frame_is_not_written_again(lua: LuaRuntime) -> None:
    """Nginx would copy it."""
    answer(lua)
    lua.execute("""
      writes = 0
      ngx.arg = setmetatable({}, {
        __index = function(_, place) if place == 1 then return 'body' end return false end,
        __newindex = function() writes = writes + 1 end,
      })
      handler:body_filter({})
    """)
    assert lua.globals().writes == 0


def test_an_absent_buffer_is_an_empty_one(lua: LuaRuntime) -> None:
    answer(lua)
    lua.execute("ngx.arg = { nil, false }; handler:body_filter({})")
    assert passed_on(lua, [b"body" + FRAME])[0] == b"body"


NOT_READABLE = {
    "no JSON": frame(b"{"),
    "an array": frame(b"[1]"),
    "a number": frame(b"7"),
    "a length in words": frame(b"{}", b"thirteen"),
    "over 4 MiB": frame(b"{}", b"00400001"),
    "cut short": FRAME[:-1],
    "no length": FRAME[:36],
}


@pytest.mark.parametrize("sent", NOT_READABLE.values(), ids=NOT_READABLE)
def test_a_frame_that_cannot_be_read_is_dropped_with_one_warning(
    lua: LuaRuntime, sent: bytes
) -> None:
    for pieces in in_two(b"body" + sent):
        answer(lua)
        assert b"".join(passed_on(lua, pieces)) == b"body"
        assert logged(lua) == {}
        warnings = list(from_lua(lua.globals().warnings).values())
        assert len(warnings) == 1
        assert "dropped the relay's record" in warnings[0]


def test_of_a_frame_that_is_too_long_nothing_is_kept(lua: LuaRuntime) -> None:
    answer(lua)
    start = frame(b"", b"ffffffff")
    assert b"".join(passed_on(lua, [start, *[b"x" * 1000] * 20])) == b""
    assert lua.eval("ngx.ctx.ai_proxy_frame.frame == nil")


def test_a_frame_of_4_mib_is_read(lua: LuaRuntime) -> None:
    payload = "x" * (4 * 1024 * 1024 - len('{"ai.p":""}'))
    sent = frame(json.dumps({"ai.p": payload}, separators=(",", ":")).encode())
    answer(lua)
    pieces = [sent[at : at + 65536] for at in range(0, len(sent), 65536)]
    assert b"".join(passed_on(lua, pieces)) == b""
    assert logged(lua) == {"ai.p": payload}


def test_what_follows_a_frame_reaches_nobody(lua: LuaRuntime) -> None:
    answer(lua)
    assert b"".join(passed_on(lua, [b"body" + FRAME + b"more", b"and more"])) == b"body"
    assert logged(lua) == VALUES


def test_members_that_are_null_are_left_out_wherever_they_are(lua: LuaRuntime) -> None:
    """Kong 3.4 would not write a record with one."""
    answer(lua)
    values = {"ai.a": None, "ai.b": {"c": None, "d": [{"e": None, "f": 1}]}}
    passed_on(lua, [frame(json.dumps(values).encode())])
    assert logged(lua) == {"ai.b": {"d": {1: {"f": 1}}}}


@pytest.mark.parametrize(
    ("sent", "cache"),
    [({"ai.proxy.meta": {}}, {}), ({"ai.proxy.meta": {}, "ai.proxy.cache": {"a": 1}}, {"a": 1})],
)
def test_statistics_have_a_cache_too_because_kong_3_8_looks_into_it(
    lua: LuaRuntime, sent: dict[str, Any], cache: dict[str, int]
) -> None:
    answer(lua)
    passed_on(lua, [frame(json.dumps(sent).encode())])
    assert logged(lua) == {**sent, "ai.proxy.cache": cache}


def test_the_decoder_keeps_arrays_and_takes_no_nan(lua: LuaRuntime) -> None:
    answer(lua)
    assert lua.eval("arrays_kept == true and invalid_numbers_taken == false")


def test_the_next_request_has_a_marker_of_its_own(lua: LuaRuntime) -> None:
    answer(lua)
    lua.execute("new_request(); handler:access({})")
    assert lua.globals().request_headers["x-kong-ai-proxy-marker"] == "02" * 16
