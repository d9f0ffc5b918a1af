"""Where a request goes, which credentials it carries, and what of the client's stays behind."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import Address
from tests.unit.exchange.exchanges import CHAT, ai_proxy, model, send, sent_body

Json = dict[str, Any]
NAMED: Json = {**CHAT, "model": "gpt-4o"}
QUERY_KEY = {"param_name": "key", "param_value": "s&1", "param_location": "query"}


@pytest.mark.parametrize(
    ("route_type", "body", "path"),
    [
        ("llm/v1/chat", CHAT, "/v1/chat/completions"),
        ("llm/v1/completions", {"prompt": "hi"}, "/v1/completions"),
        ("llm/v1/embeddings", {"input": "hi"}, "/v1/embeddings"),
    ],
)
def test_each_route_type_has_openais_path(route_type: str, body: Json, path: str) -> None:
    upstream = send(ai_proxy(route_type=route_type), body)
    assert upstream.address == Address("https", "api.openai.com", 443, path)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://vllm:8000/v1/chat", Address("http", "vllm", 8000, "/v1/chat")),
        ("http://vllm/v1/chat", Address("http", "vllm", 80, "/v1/chat")),
        ("https://vllm/v1?a=b%20c", Address("https", "vllm", 443, "/v1", "a=b%20c")),
        ("https://vllm", Address("https", "vllm", 443, "/v1/chat/completions")),
        ("https://vllm/", Address("https", "vllm", 443, "/")),
        ("http://[::1]:9/x", Address("http", "[::1]", 9, "/x")),
    ],
)
def test_upstream_url_replaces_everything_it_names(url: str, address: Address) -> None:
    assert send(ai_proxy(model=model(upstream_url=url)), NAMED).address == address


def test_upstream_path_replaces_the_path() -> None:
    assert send(ai_proxy(model=model(upstream_path="x/y"))).address.path == "/x/y"


def test_a_template_takes_several_values() -> None:
    configuration = ai_proxy(
        model=model(
            "$(headers.X-Model)-$(query_params.size)",
            upstream_url="https://$(uri_captures.region).example.com/$(uri_captures.region)/chat",
        )
    )
    upstream = send(
        configuration,
        headers={"x-model": "gpt"},
        query="size=mini",
        captures={"region": "eu-1"},
    )
    assert sent_body(upstream)["model"] == "gpt-mini"
    assert upstream.address[1:4] == ("eu-1.example.com", 443, "/eu-1/chat")


def test_what_a_template_needs_must_be_there() -> None:
    with pytest.raises(Refused) as refused:
        send(ai_proxy(model=model("$(headers.x-model)")))
    assert (refused.value.status, refused.value.message) == (
        400,
        "headers key x-model was not provided",
    )


def test_a_templated_name_must_match_the_body() -> None:
    configuration = ai_proxy(model=model("$(headers.x-model)"))
    with pytest.raises(Refused, match="cannot use own model - must be: gpt-x"):
        send(configuration, NAMED, headers={"x-model": "gpt-x"})


HOSTILE = ["evil.com/", "evil.com#", "evil.com?", "a@evil.com", "a:1", "..", "%2e", "", "é", "a b"]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_template_cannot_name_another_host(value: str) -> None:
    configuration = ai_proxy(model=model(upstream_url="https://$(headers.x).example.com/v1"))
    with pytest.raises(Refused) as refused:
        send(configuration, headers={"x": value})
    assert refused.value.status == 400


@pytest.mark.parametrize("value", ["..", "../x", "a/../b", "%2e%2e", "a%2f..%2fb", "..\\x", "."])
def test_a_template_cannot_climb_out_of_the_path(value: str) -> None:
    configuration = ai_proxy(model=model(upstream_url="https://example.com/v1/$(headers.x)/chat"))
    with pytest.raises(Refused) as refused:
        send(configuration, headers={"x": value})
    assert refused.value.status == 400


@given(st.text(min_size=1))
def test_a_template_fills_one_segment_and_nothing_more(value: str) -> None:
    assume(not {".", ".."}.intersection(re.split(r"[/\\]", unquote(value))))
    configuration = ai_proxy(model=model(upstream_url="https://example.com/v1/$(headers.x)/chat"))
    address = send(configuration, headers={"x": value}).address
    assert address.host == "example.com"
    assert [unquote(segment) for segment in address.path.split("/")] == ["", "v1", value, "chat"]
    assert address.query == ""


def test_the_configured_key_replaces_the_clients_credentials() -> None:
    upstream = send(
        ai_proxy(),
        headers={
            "authorization": "Bearer client",
            "x-api-key": "client",
            "apikey": "client",
            "cookie": "a=b",
            "x-consumer-username": "mallory",
            "x-kong-request-id": "1",
            "openai-organization": "org-1",
        },
    )
    assert upstream.set_headers == {"authorization": "Bearer sk-config"}
    assert upstream.drop_headers == {
        "x-api-key",
        "apikey",
        "cookie",
        "x-consumer-username",
        "x-kong-request-id",
    }


def test_allow_override_lets_the_client_bring_that_credential_only() -> None:
    configuration = ai_proxy()
    configuration["auth"]["allow_override"] = True
    upstream = send(configuration, headers={"authorization": "Bearer client", "apikey": "k"})
    assert upstream.set_headers == {}
    assert upstream.drop_headers == {"apikey"}


def test_without_auth_the_clients_own_passes() -> None:
    upstream = send(ai_proxy(auth={}), headers={"authorization": "Bearer client"})
    assert upstream.set_headers == {}
    assert upstream.drop_headers == set()


def test_a_key_from_a_file_may_end_in_a_newline() -> None:
    auth = {"header_name": "X-Key", "header_value": "s3cret\n"}
    upstream = send(ai_proxy(auth=auth))
    assert upstream.set_headers == {"x-key": "s3cret"}
    assert upstream.secret_headers == {"x-key"}


def test_a_key_over_two_lines_is_never_sent_nor_shown() -> None:
    auth = {"header_name": "X-Key", "header_value": "s3cret\r\nhost: evil"}
    with pytest.raises(Refused) as refused:
        send(ai_proxy(auth=auth))
    assert refused.value.status == 500
    assert "s3cret" not in refused.value.message


def test_a_key_in_the_query_joins_the_clients_query() -> None:
    upstream = send(ai_proxy(auth=QUERY_KEY), query="a=%20b&key=client&apikey=client&c")
    assert upstream.address.query == "key=s%261&a=%20b&c"
    assert upstream.secret_query == {"key"}


def test_a_key_in_the_query_can_be_the_clients() -> None:
    upstream = send(ai_proxy(auth={**QUERY_KEY, "allow_override": True}), query="key=client")
    assert upstream.address.query == "key=client"


def test_a_key_in_the_body_replaces_the_clients() -> None:
    auth = {"param_name": "token", "param_value": "s", "param_location": "body"}
    assert sent_body(send(ai_proxy(auth=auth), {**NAMED, "token": "client"}))["token"] == "s"
    override = {**auth, "allow_override": True}
    assert send(ai_proxy(auth=override), {**NAMED, "token": "client"}).body is None


def test_the_clients_query_goes_on_but_for_what_the_operator_set() -> None:
    configuration = ai_proxy(model=model(upstream_url="https://x/y?beta=1"))
    assert send(configuration, NAMED, query="beta=2&z=%E9").address.query == "beta=1&z=%E9"


def test_preserve_leaves_path_method_and_body() -> None:
    configuration = ai_proxy(route_type="preserve", model=model(None))
    upstream = send(configuration, b"\x00\xff", method="PUT", path="/any/th%2Fing", query="q=1")
    assert upstream.method == "PUT"
    assert upstream.body is None
    assert upstream.address == Address("https", "api.openai.com", 443, "/any/th%2Fing", "q=1")
    assert upstream.response_headers == {}


def test_preserve_still_refuses_a_foreign_model() -> None:
    configuration = ai_proxy(route_type="preserve")
    with pytest.raises(Refused, match="cannot use own model"):
        send(configuration, {"model": "other"})


@pytest.mark.parametrize("path", ["/a/../b", "/%2e%2e/b", "/a%2f..%2fb", "/a/./b", "/a\\..\\b"])
def test_preserve_does_not_pass_on_a_path_that_climbs(path: str) -> None:
    with pytest.raises(Refused) as refused:
        send(ai_proxy(route_type="preserve", model=model(None)), path=path)
    assert refused.value.status == 400


def test_preserve_cannot_have_its_key_in_the_body() -> None:
    auth = {"param_name": "token", "param_value": "s", "param_location": "body"}
    with pytest.raises(Refused) as refused:
        send(ai_proxy(route_type="preserve", model=model(None), auth=auth))
    assert refused.value.status == 500
    assert "param_location" in refused.value.message
