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
        ("wss://vllm/x", Address("https", "vllm", 443, "/x")),
    ],
)
def test_upstream_url_replaces_everything_it_names(url: str, address: Address) -> None:
    assert send(ai_proxy(model=model(upstream_url=url)), NAMED).address == address


def test_upstream_path_replaces_the_path() -> None:
    address = send(ai_proxy(model=model(upstream_path="x/y?api=2")), query="c=3").address
    assert (address.path, address.query) == ("/x/y", "api=2&c=3")


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


@pytest.mark.parametrize("option", ["upstream_url", "upstream_path"])
@pytest.mark.parametrize(
    "value", ["..", "../x", "a/../b", "%2e%2e", "a%2f..%2fb", "..\\x", ".", "..;a"]
)
def test_a_template_cannot_climb_out_of_the_path(option: str, value: str) -> None:
    origin = "https://example.com" if option == "upstream_url" else ""
    configuration = ai_proxy(model=model(**{option: f"{origin}/v1/$(headers.x)/chat"}))
    with pytest.raises(Refused) as refused:
        send(configuration, headers={"x": value})
    assert refused.value.status == 400


def test_a_template_cannot_add_a_query_to_the_path() -> None:
    configuration = ai_proxy(model=model(upstream_path="/v1/$(headers.x)/chat"))
    address = send(configuration, headers={"x": "a?key=evil#"}).address
    assert (address.path, address.query) == ("/v1/a%3Fkey=evil%23/chat", "")


def test_a_port_that_is_none_is_the_clients_mistake_and_shows_no_url() -> None:
    url = "http://127.0.0.1:$(headers.x)/x?code=sk-in-url"
    with pytest.raises(Refused) as refused:
        send(ai_proxy(model=model(upstream_url=url)), headers={"x": "99999"})
    assert refused.value.status == 400
    assert "sk-in-url" not in refused.value.message


def test_a_whole_host_may_come_from_a_template_a_part_may_not_have_dots() -> None:
    whole = ai_proxy(model=model(upstream_url="https://$(uri_captures.host)/v1"))
    assert send(whole, captures={"host": "eu.example.com"}).address.host == "eu.example.com"
    part = ai_proxy(model=model(upstream_url="https://10.0.0.$(uri_captures.host)/v1"))
    with pytest.raises(Refused):
        send(part, captures={"host": "1.evil.com"})


def test_a_capture_that_kong_left_encoded_is_decoded_once() -> None:
    configuration = ai_proxy(
        model=model("$(uri_captures.m)", upstream_url="https://x/d/$(uri_captures.m)/chat")
    )
    upstream = send(configuration, captures={"m": "arn%3Aaws%2Fmodel"})
    assert sent_body(upstream)["model"] == "arn:aws/model"
    assert upstream.address.path == "/d/arn:aws%2Fmodel/chat"


def test_an_empty_value_is_no_value() -> None:
    with pytest.raises(Refused, match="headers key x-model was not provided"):
        send(ai_proxy(model=model("$(headers.x-model)")), headers={"x-model": ""})


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


def test_an_empty_credential_does_not_override() -> None:
    auth = {"header_name": "X-Key", "header_value": "s", "allow_override": True}
    assert send(ai_proxy(auth=auth), headers={"x-key": ""}).set_headers == {"x-key": "s"}
    query = {**QUERY_KEY, "allow_override": True}
    assert send(ai_proxy(auth=query), query="key=").address.query == "key=s%261"


def test_other_spellings_of_a_credential_stay_behind() -> None:
    auth = {"header_name": "X-Prov-Key", "header_value": "s"}
    sent = {"x_prov_key": "c", "x_api_key": "c", "x_consumer_username": "c", "x-other": "c"}
    upstream = send(ai_proxy(auth=auth), headers=sent)
    assert upstream.drop_headers == sent.keys() - {"x-other"}
    query = "Key=c&KEY=c&key[]=c&+key=c&key%00=c&a=1;key=c&jwt=c&kept=1"
    assert send(ai_proxy(auth=QUERY_KEY), query=query).address.query == "key=s%261&kept=1"


def test_a_body_key_in_another_case_is_refused() -> None:
    auth = {"param_name": "token", "param_value": "s", "param_location": "body"}
    with pytest.raises(Refused, match="unknown member 'Token'"):
        send(ai_proxy(auth=auth), {**NAMED, "Token": "client"})


def test_the_clients_own_credential_is_kept_out_of_logs_too() -> None:
    upstream = send(ai_proxy(auth={}), headers={"x-api-key": "client", "accept": "*/*"})
    assert upstream.secret_headers == {"x-api-key"}


def test_the_clients_own_key_in_the_query_is_kept_out_of_logs_too() -> None:
    assert send(ai_proxy(auth={}), query="key=client&page=1").secret_query == {"key"}
    auth = {**QUERY_KEY, "param_name": "Token", "allow_override": True}
    assert send(ai_proxy(auth=auth), query="Token=client&page=1").secret_query == {"Token"}


def test_a_key_in_the_url_is_kept_out_of_logs() -> None:
    upstream = send(ai_proxy(model=model(upstream_url="https://x/y?code=s")))
    assert upstream.secret_query == {"code"}


def test_a_key_among_the_subprotocols_stays_behind() -> None:
    configuration = ai_proxy(route_type="preserve", model=model(None))
    offered = {"sec-websocket-protocol": "realtime, openai-insecure-api-key.sk-client, v1"}
    upstream = send(configuration, headers=offered)
    assert upstream.set_headers["sec-websocket-protocol"] == "realtime, v1"
    only = {"sec-websocket-protocol": "openai-insecure-api-key.sk-client"}
    assert "sec-websocket-protocol" in send(configuration, headers=only).drop_headers


def test_without_auth_the_clients_own_passes() -> None:
    upstream = send(ai_proxy(auth={}), headers={"authorization": "Bearer client"})
    assert upstream.set_headers == {}
    assert upstream.drop_headers == set()


def test_a_key_from_a_file_may_end_in_a_newline() -> None:
    auth = {"header_name": "X-Key", "header_value": "s3cret\n"}
    upstream = send(ai_proxy(auth=auth))
    assert upstream.set_headers == {"x-key": "s3cret"}
    assert upstream.secret_headers == {"x-key"}


def test_a_variable_that_only_deck_fills_in_is_never_sent() -> None:
    auth = {"header_name": "Authorization", "header_value": 'Bearer ${{ env "DECK_KEY" }}'}
    with pytest.raises(Refused, match="holds an unexpanded") as refused:
        send(ai_proxy(auth=auth))
    assert refused.value.status == 500


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


@pytest.mark.parametrize("rule", [{"model": model("gpt-4o")}, {"response_streaming": "deny"}])
def test_preserve_with_a_rule_takes_only_what_it_can_check(rule: Json) -> None:
    configuration = ai_proxy(route_type="preserve", **{"model": model(None), **rule})
    with pytest.raises(Refused) as refused:
        send(configuration, b"model=evil", headers={"content-type": "text/plain"})
    assert refused.value.status == 415
    assert send(configuration, b"", method="GET").method == "GET"


def test_preserve_does_not_know_an_alias() -> None:
    configuration = ai_proxy(route_type="preserve", model=model("gpt-4o", "fast"))
    with pytest.raises(Refused, match="cannot use own model - must be: gpt-4o"):
        send(configuration, {"model": "fast"})


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
