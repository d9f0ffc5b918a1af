"""What PDK calls do to the request; the expected values were seen on Kong 3.9 and 3.10."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kong_ai_proxy.gateway.context import RequestContext, Response
from kong_ai_proxy.gateway.pdk import METHODS, Call, ExitedError, invoke
from kong_ai_proxy.gateway.rpc.protobuf import SERVICE
from tests.unit.gateway.rpc.servers import GET, plugin, request

REQUEST = "kong.service.request"
CONSUMER = {"id": "7d7cd1d6-09b6-4a4e-9d1b-5d5d0f5b0b11", "username": "bob"}


def call(ctx: RequestContext, method: str, *args: object, phase: str = "access") -> Any:
    return invoke(Call(ctx, plugin(), phase, "node-1"), method, args)


def asked(target: str = "/cap/x?a=1", *headers: str, body: str = "") -> RequestContext:
    lines = "".join(f"{line}\r\n" for line in headers)
    return request(f"POST {target} HTTP/1.1\r\nHost: capture.example\r\n{lines}\r\n{body}")


def leave(ctx: RequestContext, *args: object) -> tuple[int, bytes, dict[str, str]]:
    with pytest.raises(ExitedError):
        call(ctx, "kong.response.exit", *args)
    assert ctx.exit is not None
    return ctx.exit.status, ctx.exit.body, {k.lower(): v for k, v in ctx.exit.headers}


def test_every_method_of_the_protobuf_service_is_there() -> None:
    assert len(SERVICE) == 74
    assert {method.name for method in SERVICE.values()} <= set(METHODS)


# --- where it goes


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/x?y=1", "/v1/x?y=1"),
        ("/a b", "/a%20b"),
        ("/%2f%zz", "/%2f%zz"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/é/..//x#[]", "/%C3%A9/..//x#[]"),
        ("/\udce9", "/%E9"),
        ("/a\r\nb", "/a%0D%0Ab"),
    ],
)
def test_set_path_encodes_what_is_not_safe(path: str, sent: str) -> None:
    ctx = asked()
    call(ctx, f"{REQUEST}.set_path", path)
    assert ctx.upstream.path == sent
    assert call(ctx, "kong.nginx.get_var", "upstream_uri") == sent
    assert call(ctx, "kong.request.get_path") == "/cap/x"


def test_set_target_sets_the_host_header_without_the_port() -> None:
    ctx = asked()
    call(ctx, "kong.service.set_target", "api.example", 8443.0)
    upstream = ctx.upstream
    assert (upstream.host, upstream.port, upstream.host_header) == (
        "api.example",
        8443,
        "api.example",
    )
    assert upstream.target_set


def test_host_header_set_later_wins_over_the_target() -> None:
    ctx = asked()
    call(ctx, "kong.service.set_target", "api.example", 443)
    call(ctx, f"{REQUEST}.set_header", "Host", "other.example:9")
    assert ctx.upstream.host_header == "other.example:9"
    call(ctx, "kong.service.set_target", "api.example", 443)
    assert ctx.upstream.host_header == "api.example"


def test_set_upstream_finds_no_upstream() -> None:
    assert call(asked(), "kong.service.set_upstream", "name") is None


def test_timeouts_retries_and_tls_are_kept_for_the_proxy() -> None:
    ctx = asked()
    call(ctx, "kong.service.set_timeouts", 1000, 2000, 3000)
    call(ctx, "kong.service.set_retries", 0)
    call(ctx, "kong.service.set_tls_verify", False)
    assert (ctx.upstream.timeouts, ctx.upstream.retries, ctx.upstream.tls_verify) == (
        (1000, 2000, 3000),
        0,
        False,
    )


# --- the query


def test_changed_query_shows_in_the_getters_but_not_in_request_uri() -> None:
    ctx = asked()
    call(ctx, f"{REQUEST}.set_raw_query", "b=2 3\n")
    assert ctx.upstream.query == "b=2%203%0A"
    assert call(ctx, "kong.request.get_raw_query") == "b=2%203%0A"
    assert call(ctx, "kong.request.get_query") == {"b": "2 3\n"}
    assert call(ctx, "kong.request.get_path_with_query") == "/cap/x?a=1"


@pytest.mark.parametrize(
    ("args", "query"),
    [
        ({}, ""),
        ([], ""),
        ({"b": [1, 2, True], "a": "x y&=+~!*()'"}, "a=x%20y%26%3D%2B~!*()'&b=1&b=2&b"),
        ({"c": True, "d": False, "f": 1.5}, "&c&f=1.5"),
        ({"a": ""}, "a="),
    ],
)
def test_set_query_sorts_and_encodes(args: object, query: str) -> None:
    ctx = asked()
    call(ctx, f"{REQUEST}.set_query", args)
    assert ctx.upstream.query == query


def test_clear_query_arg_writes_the_others_again() -> None:
    ctx = asked("/cap/x?a=1&b=x+y&a=2&&c")
    call(ctx, f"{REQUEST}.clear_query_arg", "a")
    assert ctx.upstream.query == "b=x%20y&c="


@pytest.mark.parametrize(
    ("query", "limit", "found"),
    [
        ("a&b=1&c=", None, {"a": True, "b": "1", "c": ""}),
        ("a&a=2&a", None, {"a": [True, "2", True]}),
        ("x=%41&y=a+b%2", None, {"x": "A", "y": "a b%2"}),
        ("&&a&=1&b=1&c", 2, {"a": True, "b": "1"}),
        ("", 5, {}),
    ],
)
def test_get_query(query: str, limit: int | None, found: object) -> None:
    assert call(asked(f"/cap/x?{query}"), "kong.request.get_query", limit) == found


# --- the path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/cap/a%20b/%2e%2E/c%2fd//e/./f", "/cap/c%2Fd/e/f"),
        ("/cap//a/../b/./c/..", "/cap/b/"),
        ("/cap/a/.", "/cap/a/"),
        ("/cap/%7e%41%3a", "/cap/~A%3A"),
        ("/cap/%C3%A9", "/cap/é"),
        ("/../..", "/"),
        ("/", "/"),
    ],
)
def test_get_path_is_normalized_and_get_raw_path_is_not(path: str, found: str) -> None:
    ctx = asked(path)
    assert call(ctx, "kong.request.get_path") == found
    assert call(ctx, "kong.request.get_raw_path") == path


# --- headers


def test_header_is_replaced_in_its_place_and_spelling() -> None:
    ctx = asked("/cap", "X-A: 1", "X-B: 2", "x-a: 3")
    call(ctx, f"{REQUEST}.set_header", "x-a", ["n", "o"])
    assert ctx.upstream.headers == [("X-A", "n"), ("X-B", "2"), ("x-a", "o")]
    assert call(ctx, "kong.request.get_headers")["x-a"] == ["n", "o"]
    assert ctx.client.headers[1] == ("X-A", "1")


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("", [" "]),
        (["", "b"], [" ", "b"]),
        ([], []),
        (True, ["true"]),
        (1.5, ["1.5"]),
        (3, ["3"]),
        (1e20, ["1e+20"]),
        ("1\r\nx-b: 2\x00\t", ["1%0D%0Ax-b: 2%00\t"]),
        (b"caf\xe9", ["caf\udce9"]),
    ],
)
def test_header_values(value: object, lines: list[str]) -> None:
    ctx = asked("/cap", "x-a: old")
    call(ctx, f"{REQUEST}.set_header", "x-a", value)
    assert ctx.upstream.headers == [("x-a", line) for line in lines]


def test_header_name_is_made_safe() -> None:
    ctx = asked()
    call(ctx, f"{REQUEST}.set_header", "x a:b", "1")
    assert ctx.upstream.headers == [("x%20a%3Ab", "1")]


def test_add_header_takes_underscores_for_dashes_only_to_look() -> None:
    ctx = asked("/cap", "X-M: 1")
    call(ctx, f"{REQUEST}.add_header", "x_m", "n")
    assert ctx.upstream.headers == [("X-M", "1"), ("x_m", "1"), ("x_m", "n")]


def test_clear_header_takes_all_lines_of_that_spelling() -> None:
    ctx = asked("/cap", "X-U: 1", "x-u: 2", "x_u: 3")
    call(ctx, f"{REQUEST}.clear_header", "X-u")
    assert ctx.upstream.headers == [("x_u", "3")]


@pytest.mark.parametrize(
    ("headers", "name", "found"),
    [
        (["X-M: a", "X-M: b"], "x-m", "a"),
        (["X-M: a, b"], "x_m", "a, b"),
        (["X_M: a"], "X-M", "a"),
        (["X_M: a", "X-M: c"], "X-M", "c"),
        (["X-M: "], "x-m", ""),
        ([], "x-m", None),
    ],
)
def test_get_header(headers: list[str], name: str, found: str | None) -> None:
    assert call(asked("/cap", *headers), "kong.request.get_header", name) == found


def test_get_headers_stops_at_the_limit() -> None:
    ctx = asked("/cap", *(f"x-{i}: 1" for i in range(150)))
    assert len(call(ctx, "kong.request.get_headers")) == 100
    assert len(call(ctx, "kong.request.get_headers", 1000)) == 151
    assert list(call(ctx, "kong.request.get_headers", 1)) == ["host"]


# --- the body


def test_set_raw_body_replaces_the_body_and_its_length() -> None:
    ctx = asked("/cap", "Content-Length: 3", body="abc")
    assert call(ctx, "kong.request.get_raw_body") == b"abc"
    call(ctx, f"{REQUEST}.set_raw_body", "hello")
    assert call(ctx, "kong.request.get_raw_body") == b"hello"
    assert ctx.upstream.headers == [("Content-Length", "5")]


def test_set_method_shows_in_get_method() -> None:
    ctx = asked()
    call(ctx, f"{REQUEST}.set_method", "PATCH")
    assert (ctx.upstream.method, call(ctx, "kong.request.get_method")) == ("PATCH", "PATCH")


@pytest.mark.parametrize(
    ("mime", "body"),
    [
        ("application/json", b'{"a":1,"c":"/"}'),
        ("application/x-www-form-urlencoded", b"a=1&c=%2F"),
        (
            "multipart/form-data; boundary=q",
            b'--q\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
            b'--q\r\nContent-Disposition: form-data; name="c"\r\n\r\n/\r\n--q--\r\n',
        ),
    ],
)
def test_set_body_and_get_body(mime: str, body: bytes) -> None:
    ctx = asked()
    assert call(ctx, f"{REQUEST}.set_body", {"a": 1, "c": "/"}, mime) is True
    assert ctx.upstream.body == body
    assert call(ctx, "kong.request.get_header", "content-type") == mime
    found = call(ctx, "kong.request.get_body")
    assert {key: str(value) for key, value in found.items()} == {"a": "1", "c": "/"}


@pytest.mark.parametrize("body", ["{", "5", "null"])
def test_get_body_that_is_no_table_is_nil(body: str) -> None:
    ctx = asked("/cap", "Content-Type: application/json", body=body)
    assert call(ctx, "kong.request.get_body") is None


# --- answers


@pytest.mark.parametrize(
    ("args", "status", "body", "content_type"),
    [
        ((200, "hi"), 200, b"hi", None),
        ((404, ""), 404, b"", None),
        ((404, b"\xff\x00"), 404, b"\xff\x00", None),
        ((404, {"message": "a/b", "d": [], "l": [1, None, 2]}), 404, None, "json"),
        ((200,), 200, b"", None),
        ((403, "x", {"content-type": "text/x"}), 403, b"x", "text/x"),
        ((200.5, "x"), 200, b"x", None),
    ],
)
def test_exit(
    args: tuple[Any, ...], status: int, body: bytes | None, content_type: str | None
) -> None:
    found, content, headers = leave(asked(), *args)
    assert found == status
    if body is None:
        assert json.loads(content) == {"message": "a/b", "d": {}, "l": [1, None, 2]}
    else:
        assert content == body
    expected = "application/json; charset=utf-8" if content_type == "json" else content_type
    assert headers.get("content-type") == expected
    assert headers["content-length"] == str(len(content))


def test_exit_without_body_is_an_error_page() -> None:
    status, body, headers = leave(asked(), 404)
    assert (status, json.loads(body)["message"]) == (404, "Not found")
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert leave(asked(), 401)[2]["content-type"] == "text/html; charset=UTF-8"


def test_exit_204_without_body_has_no_length() -> None:
    assert leave(asked(), 204) == (204, b"", {})
    assert leave(asked(), 204, "")[2] == {"content-length": "0"}


def test_exit_keeps_a_content_length_that_was_given() -> None:
    assert leave(asked(), 200, "hi", {"Content-Length": "2"})[2] == {"content-length": "2"}


def test_exit_ignores_transfer_encoding_with_a_warning() -> None:
    ctx = asked()
    assert leave(ctx, 200, "hi", {"transfer_encoding": "chunked"})[2] == {"content-length": "2"}
    assert ctx.log == ["[warn] [p] manually setting Transfer-Encoding. Ignored."]


def test_response_headers_set_before_an_exit_go_out_with_it() -> None:
    ctx = asked()
    call(ctx, "kong.response.set_header", "x_a", "1")
    call(ctx, "kong.response.add_header", "X-A", ["2", "3"])
    call(ctx, "kong.response.set_headers", {"x-b": "1", "x-c": 5})
    call(ctx, "kong.response.clear_header", "X-C")
    assert ctx.response_headers == [("x-a", "1"), ("X-A", "2"), ("X-A", "3"), ("x-b", "1")]
    leave(ctx, 200, "hi", {"x-b": "2"})
    assert ctx.exit is not None
    assert ctx.exit.headers[-2:] == [("x-b", "2"), ("Content-Length", "2")]
    assert ctx.response_headers == []


def test_error_answers_in_the_format_the_client_accepts() -> None:
    ctx = asked("/cap", "Accept: text/plain")
    with pytest.raises(ExitedError):
        call(ctx, "kong.response.error", 502)
    assert ctx.exit is not None
    assert ctx.exit.body.startswith(b"An invalid response was received")


def test_error_answers_in_the_format_of_a_content_type_that_was_given() -> None:
    ctx = asked("/cap", "Accept: application/json")
    with pytest.raises(ExitedError):
        call(ctx, "kong.response.error", 500, "boom", {"Content-Type": "text/plain", "x-a": "1"})
    assert ctx.exit is not None
    assert ctx.exit.body.startswith(b"boom\nrequest_id")
    assert ("x-a", "1") in ctx.exit.headers


# --- log, context, node


def test_log_lines_name_level_and_plugin_and_leave_out_what_is_below_notice() -> None:
    ctx = asked()
    call(ctx, "kong.log.err", "a", 1, 1.5, None, True)
    call(ctx, "kong.log.notice", "b")
    call(ctx, "kong.log.debug", "c")
    assert ctx.log == ["[error] [p] a11.5niltrue", "[notice] [p] b"]


def test_serialize_has_dotted_keys_and_redacts_authorization() -> None:
    ctx = asked("/cap/x?q=1", "Authorization: Bearer s", "X-Api-Key: k")
    call(ctx, "kong.log.set_serialize_value", "request.headers.x-api-key", "REDACTED")
    call(ctx, "kong.log.set_serialize_value", "ai.proxy\\.x.n", 3)
    call(ctx, "kong.log.set_serialize_value", "no.such", 3, {"mode": "replace"})
    ctx.response = Response(200, [("X-Y", "1")])
    found = json.loads(call(ctx, "kong.log.serialize", phase="log"))
    assert found["request"]["headers"]["authorization"] == "REDACTED"
    assert found["request"]["headers"]["x-api-key"] == "REDACTED"
    assert found["ai"] == {"proxy.x": {"n": 3}}
    assert "no" not in found
    assert (found["response"]["status"], found["source"]) == (200, "upstream")


def test_shared_context_and_ngx_ctx() -> None:
    ctx = asked()
    call(ctx, "kong.ctx.shared.set", "k", {"a": 1})
    call(ctx, "kong.ctx.shared.set", "gone", 1)
    call(ctx, "kong.ctx.shared.set", "gone", None)
    call(ctx, "kong.nginx.set_ctx", "k", 5)
    assert ctx.shared == {"k": {"a": 1}}
    assert call(ctx, "kong.ctx.shared.get", "k") == {"a": 1}
    assert call(ctx, "kong.nginx.get_ctx", "k") == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("args", "A=5&b=1"),
        ("is_args", "?"),
        ("request_uri", "/cap/x?A=5&b=1"),
        ("request_method", "POST"),
        ("server_protocol", "HTTP/1.1"),
        ("http_x_m", "1, 2"),
        ("http_nope", None),
        ("arg_a", "5"),
        ("cookie_j", "w"),
        ("upstream_host", ""),
        ("remote_addr", "127.0.0.1"),
        ("nope", None),
    ],
)
def test_nginx_variables(name: str, value: str | None) -> None:
    ctx = asked("/cap/x?A=5&b=1", "X-M: 1", "X-M: 2", "Cookie: k=v; j=w")
    assert call(ctx, "kong.nginx.get_var", name) == value


def test_request_id_of_nginx_is_stable_and_not_that_of_kong() -> None:
    ctx = asked()
    found = call(ctx, "kong.nginx.get_var", "request_id")
    assert found == call(ctx, "kong.nginx.get_var", "request_id")
    assert found != ctx.request_id
    assert call(ctx, "kong.nginx.get_var", "kong_request_id") == ctx.request_id


def test_authenticate_and_load_consumer() -> None:
    ctx = asked()
    ctx.consumers = (CONSUMER,)
    assert call(ctx, "kong.client.load_consumer", CONSUMER["id"]) == CONSUMER
    assert call(ctx, "kong.client.load_consumer", "bob", True) == CONSUMER
    call(ctx, "kong.client.authenticate", None, {"id": "c"})
    assert call(ctx, "kong.client.get_credential") == {"id": "c"}
    assert call(ctx, "kong.client.get_consumer") is None


def test_ids_of_node_and_plugin() -> None:
    ctx = request(GET)
    assert call(ctx, "kong.node.get_id") == "node-1"
    assert call(ctx, "kong.plugin.get_id") == "plugin-1"
    assert call(ctx, "kong.ip.is_trusted", "127.0.0.1") is False
