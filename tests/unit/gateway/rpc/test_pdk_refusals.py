"""What Kong's PDK refuses with a Lua error, and with which words (checked on Kong 3.9 and 3.10)."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.gateway.pdk import Call, LuaError, invoke
from tests.unit.gateway.rpc.servers import plugin, request

REQUEST = "kong.service.request"
ARRAY = "invalid header value in array"
REFUSED: list[tuple[str, list[Any], str]] = [
    ("kong.service.set_target", [5, 80], "host must be a string"),
    ("kong.service.set_target", ["h", "80"], "port must be an integer"),
    ("kong.service.set_target", ["h", 1.5], "port must be an integer"),
    ("kong.service.set_target", ["h"], "port must be an integer"),
    ("kong.service.set_target", ["h", True], "port must be an integer"),
    ("kong.service.set_target", ["h", -1], "between 0 and 65535: given -1"),
    ("kong.service.set_target", ["h", 65536], "between 0 and 65535: given 65536"),
    ("kong.service.set_upstream", [5], "host must be a string"),
    ("kong.service.set_retries", ["1"], "retries must be an integer"),
    ("kong.service.set_retries", [32768], "between 0 and 32767: given 32768"),
    ("kong.service.set_timeouts", [0, 1, 1], "connect_timeout must be an integer between 1"),
    ("kong.service.set_timeouts", [1, 1], "read_timeout must be an integer"),
    ("kong.service.set_tls_verify", ["x"], "argument must be a boolean"),
    ("kong.service.set_tls_verify_depth", ["x"], "argument must be a number"),
    ("kong.service.set_tls_verify_store", ["x"], "argument must be"),
    ("kong.service.set_tls_cert_key", ["a", "b"], "chain must be"),
    (f"{REQUEST}.set_scheme", ["ftp"], "invalid scheme: ftp"),
    (f"{REQUEST}.set_scheme", [1], "scheme must be a string"),
    (f"{REQUEST}.set_path", ["nope"], "path must start with /"),
    (f"{REQUEST}.set_path", [""], "path must start with /"),
    (f"{REQUEST}.set_path", [5], "path must be a string"),
    (f"{REQUEST}.set_raw_query", [5], "query must be a string"),
    (f"{REQUEST}.set_query", ["x"], "args must be a table"),
    (f"{REQUEST}.set_query", [["a"]], "arg keys must be strings"),
    (f"{REQUEST}.clear_query_arg", [5], "query argument name must be a string"),
    (f"{REQUEST}.set_method", ["FOO"], "invalid method: FOO"),
    (f"{REQUEST}.set_method", ["CONNECT"], "invalid method: CONNECT"),
    (f"{REQUEST}.set_method", ["get"], "invalid method: get"),
    (f"{REQUEST}.set_method", [1], "method must be a string"),
    (f"{REQUEST}.set_header", [5, "x"], "invalid header name"),
    (f"{REQUEST}.set_header", ["x"], 'invalid header value for "x": got nil'),
    (f"{REQUEST}.set_header", ["x", [1]], f'{ARRAY} "x": got number, expected string'),
    (f"{REQUEST}.add_header", ["x", None], 'invalid header value for "x": got nil'),
    (f"{REQUEST}.clear_header", [5], "header must be a string"),
    (f"{REQUEST}.set_headers", ["x"], "headers must be a table"),
    (f"{REQUEST}.set_headers", [["a"]], 'invalid header name "1": got number'),
    (f"{REQUEST}.set_headers", [{"x": [5]}], f'{ARRAY} "x"'),
    (f"{REQUEST}.set_raw_body", [5], "body must be a string"),
    (f"{REQUEST}.set_raw_body", [], "body must be a string"),
    (f"{REQUEST}.set_body", ["x"], "args must be a table"),
    (f"{REQUEST}.set_body", [{}, 5], "mime must be a string"),
    (f"{REQUEST}.set_body", [{}, "text/plain"], "unsupported content type text/plain"),
    ("kong.request.get_headers", [0], "max_headers must be >= 1"),
    ("kong.request.get_headers", [1001], "max_headers must be <= 1000"),
    ("kong.request.get_headers", ["a"], "max_headers must be a number"),
    ("kong.request.get_header", [5], "header name must be a string"),
    ("kong.request.get_query", [0], "max_args must be >= 1"),
    ("kong.request.get_query", [1001], "max_args must be <= 1000"),
    ("kong.request.get_query_arg", [], "query argument name must be a string"),
    ("kong.response.exit", ["404"], "code must be a number"),
    ("kong.response.exit", [99], "code must be a number between 100 and 599"),
    ("kong.response.exit", [600], "code must be a number between 100 and 599"),
    ("kong.response.exit", [404, 5], "body must be a nil, string or table"),
    ("kong.response.exit", [404, "", "x"], "headers must be a nil or table"),
    ("kong.response.exit", [404, "", {"x": [5]}], ARRAY),
    ("kong.response.error", [399], "code must be a number between 400 and 599"),
    ("kong.response.set_status", [99], "code must be a number between 100 and 599"),
    ("kong.response.set_header", ["x", None], "invalid header value"),
    ("kong.response.set_headers", ["x"], "headers must be a table"),
    ("kong.response.clear_header", [5], "header name must be a string"),
    ("kong.client.load_consumer", [5], "consumer_id must be a string"),
    ("kong.client.load_consumer", ["bob"], "with an id that is not a uuid"),
    ("kong.client.authenticate", [5], "consumer must be a table or nil"),
    ("kong.client.authenticate", [], "either credential or consumer must be provided"),
    ("kong.log.set_serialize_value", [5, 1], "key must be a string"),
    ("kong.log.set_serialize_value", ["k", 1, {"mode": "x"}], "mode must be"),
    ("kong.log.err", [], "index out of range"),
    ("kong.ctx.shared.set", [None, 1], "table index is nil"),
    ("kong.nginx.get_var", [5], "bad variable name"),
]
WRONG_PHASE = [
    ("access", "kong.response.get_status"),
    ("access", "kong.response.get_headers"),
    ("access", "kong.response.get_source"),
    ("access", "kong.response.get_raw_body"),
    ("access", "kong.service.response.get_status"),
    ("access", "kong.log.serialize"),
    ("rewrite", "kong.client.get_consumer"),
    ("rewrite", "kong.router.get_route"),
    ("rewrite", "kong.service.set_upstream"),
    ("log", "kong.service.request.set_path"),
    ("log", "kong.response.exit"),
    ("log", "kong.request.get_raw_body"),
]


@pytest.mark.parametrize(("method", "args", "text"), REFUSED)
def test_bad_arguments_are_a_lua_error(method: str, args: list[Any], text: str) -> None:
    ctx = request()
    before = repr(ctx.upstream)
    with pytest.raises(LuaError) as caught:
        invoke(Call(ctx, plugin(), "access", "node"), method, args)
    assert text in str(caught.value)
    assert repr(ctx.upstream) == before


@pytest.mark.parametrize(("phase", "method"), WRONG_PHASE)
def test_wrong_phase_is_a_lua_error(phase: str, method: str) -> None:
    with pytest.raises(LuaError, match=f"function cannot be called in {phase} phase"):
        invoke(Call(request(), plugin(), phase, "node"), method, [])


@pytest.mark.parametrize("method", ["kong.request.get_path", "kong.nginx.get_var"])
def test_request_is_gone_in_the_log_phase(method: str) -> None:
    with pytest.raises(LuaError, match="API disabled"):
        invoke(Call(request(), plugin(), "log", "node"), method, ["x"])
