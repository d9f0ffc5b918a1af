"""Where the requests of each route type go, and what may stand in them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from kong_ai_proxy import config
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.plan import Body, Plan
from kong_ai_proxy.formats import openai
from tests.unit.exchange.exchanges import ai_proxy, model, request, send, sent_body

Json = dict[str, Any]

ANY_MODEL: Json = {"model": {"provider": "openai"}}
FORM: Json = {"headers": {"content-type": "multipart/form-data; boundary=b"}}
HANDSHAKE: Json = {"headers": {"connection": "Upgrade", "upgrade": "websocket"}}
BETA: Json = {"headers": {"openai-beta": "assistants=v2"}}


def of_type(route_type: str, **changes: Any) -> Json:
    return ai_proxy(route_type=route_type, **{**ANY_MODEL, **changes})


def plain(method: str, path: str, **fields: Any) -> ClientRequest:
    """A request without a body."""
    headers = {name: (value,) for name, value in fields.pop("headers", {}).items()}
    return ClientRequest(method=method, path=path, headers=headers, **fields)


def start(configuration: Json, client: ClientRequest, body: bytes | None = None) -> Any:
    plan = Plan(config.parse("ai-proxy", configuration))
    plan.check_available()
    plan.check_head(client)
    return plan.attempt(client, body).start()


def refusal(configuration: Json, client: ClientRequest, body: bytes | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        start(configuration, client, body)
    return refused.value


@pytest.mark.parametrize(
    ("route_type", "path"),
    [
        (openai.SPEECH, "/v1/audio/speech"),
        (openai.IMAGE_GENERATIONS, "/v1/images/generations"),
        (openai.RESPONSES, "/v1/responses"),
        (openai.VIDEOS, "/v1/videos"),
        (openai.BATCHES, "/v1/batches"),
        (openai.IMAGE_EDITS, "/v1/images/edits"),
    ],
)
def test_json_goes_to_the_path_of_its_route_type(route_type: str, path: str) -> None:
    upstream = send(of_type(route_type), {"model": "m", "input": "x"}, path="/anything")
    assert (upstream.method, upstream.address.path) == ("POST", path)
    assert upstream.body is None


@pytest.mark.parametrize(
    ("route_type", "path"),
    [
        (openai.TRANSCRIPTIONS, "/v1/audio/transcriptions"),
        (openai.TRANSLATIONS, "/v1/audio/translations"),
        (openai.IMAGE_EDITS, "/v1/images/edits"),
        (openai.FILES, "/v1/files"),
        (openai.VIDEOS, "/v1/videos"),
    ],
)
def test_a_form_that_no_rule_concerns_passes_unread(route_type: str, path: str) -> None:
    plan = Plan(config.parse("ai-proxy", of_type(route_type)))
    client = request(**FORM)
    plan.check_head(client)
    assert plan.body(client) is Body.PASS
    assert not plan.needs_relay(client)
    assert plan.attempt(client, None).start().address.path == path


@pytest.mark.parametrize(
    ("route_type", "method", "path", "upstream"),
    [
        (openai.FILES, "GET", "/v1/files/file-1/content", "/v1/files/file-1/content"),
        (openai.FILES, "DELETE", "/llm/files/file-1", "/v1/files/file-1"),
        (openai.FILES, "GET", "/v1/files", "/v1/files"),
        (openai.FILES, "GET", "/v1/files/", "/v1/files"),
        (openai.FILES, "GET", "/files/v1/files/file-1", "/v1/files/file-1"),
        (openai.BATCHES, "POST", "/batches/batch_1/cancel", "/v1/batches/batch_1/cancel"),
        (openai.RESPONSES, "GET", "/x/responses/resp_1", "/v1/responses/resp_1"),
        (openai.VIDEOS, "GET", "/videos/video_1/content", "/v1/videos/video_1/content"),
    ],
)
def test_what_follows_the_collection_goes_on_with_its_method(
    route_type: str, method: str, path: str, upstream: str
) -> None:
    sent = start(of_type(route_type), plain(method, path))
    assert (sent.method, sent.address.path) == (method, upstream)


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("/v1/assistants/asst_1", "/v1/assistants/asst_1"),
        ("/v1/threads/thread_1/runs", "/v1/threads/thread_1/runs"),
        ("/ai/threads", "/v1/threads"),
        ("/v1/vector_stores/vs_1", "/v1/vector_stores/vs_1"),
    ],
)
def test_threads_lie_beside_the_assistants(path: str, upstream: str) -> None:
    sent = start(of_type(openai.ASSISTANTS), plain("GET", path, **BETA))
    assert sent.address.path == upstream


def test_threads_lie_beside_the_assistants_of_another_server_too() -> None:
    configured = model(None, upstream_url="http://llm/api/assistants")
    client = plain("GET", "/v1/threads/t", **BETA)
    assert start(of_type(openai.ASSISTANTS, model=configured), client).address.path == (
        "/api/threads/t"
    )


def test_a_path_without_the_collection_is_taken_after_the_routes_own() -> None:
    client = plain("GET", "/uploads/file-1", route_path="/uploads")
    assert start(of_type(openai.FILES), client).address.path == "/v1/files/file-1"


@pytest.mark.parametrize(
    "rest",
    [
        "..",
        "../models",
        "%2e%2e/models",
        "x/..%2fmodels",
        "a%2fb",
        "a%5Cb",
        "..;x/y",
        "a//b",
        "%00",
    ],
)
def test_ids_cannot_leave_the_collection(rest: str) -> None:
    error = refusal(of_type(openai.FILES), plain("GET", f"/v1/files/{rest}"))
    assert error.status == 400
    assert "the path after the collection" in error.message


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE"])
def test_other_methods_than_a_collections_are_refused(method: str) -> None:
    error = refusal(of_type(openai.FILES), plain(method, "/v1/files/x"))
    assert (error.status, error.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")


@pytest.mark.parametrize("sent", [{}, {"openai-beta": "assistants=v1"}, {"openai-beta": ""}])
def test_assistants_need_their_beta_header(sent: Json) -> None:
    error = refusal(of_type(openai.ASSISTANTS), plain("GET", "/v1/assistants", headers=sent))
    assert (error.status, error.message) == (400, "expected the header OpenAI-Beta: assistants=v2")


def test_the_beta_header_may_list_more() -> None:
    headers = {"openai-beta": "other=v1, assistants=v2"}
    assert start(of_type(openai.ASSISTANTS), plain("GET", "/v1/assistants", headers=headers))


# ---- the model


def test_a_new_response_gets_the_configured_model_and_defaults() -> None:
    configured = of_type(openai.RESPONSES, model=model("gpt-4o", max_tokens=9, temperature=0.5))
    body = sent_body(send(configured, {"input": "hi"}, path="/v1/responses"))
    assert body == {
        "input": "hi",
        "model": "gpt-4o",
        "max_output_tokens": 9,
        "temperature": 0.5,
    }


def test_nothing_is_filled_into_what_creates_nothing() -> None:
    configured = of_type(openai.ASSISTANTS, model=model("gpt-4o"))
    client = request(path="/v1/threads/t/messages", **BETA)
    assert start(configured, client, b'{"role": "user", "content": "hi"}').body is None


def test_a_foreign_model_is_refused_wherever_it_stands() -> None:
    configured = of_type(openai.ASSISTANTS, model=model("gpt-4o"))
    client = request(path="/v1/threads/t/runs", **BETA)
    error = refusal(configured, client, b'{"assistant_id": "a", "model": "gpt-3"}')
    assert error.message == "cannot use own model - must be: gpt-4o"


def test_files_and_batches_have_no_model() -> None:
    batches = of_type(openai.BATCHES, model=model("gpt-4o"))
    assert send(batches, {"endpoint": "/v1/x"}, path="/v1/batches").body is None
    plan = Plan(config.parse("ai-proxy", of_type(openai.FILES, model=model("gpt-4o"))))
    assert plan.body(request(**FORM)) is Body.PASS


def test_a_model_rule_makes_the_relay_watch_a_form() -> None:
    plan = Plan(config.parse("ai-proxy", of_type(openai.TRANSCRIPTIONS, model=model("whisper-1"))))
    client = request(**FORM)
    plan.check_head(client)
    assert plan.needs_relay(client)
    assert plan.body(client) is Body.WATCH


def through(configuration: Json, form: httpx.Request) -> bytes:
    """What a watched form becomes, passed on in one piece."""
    headers = {"content-type": form.headers["content-type"]}
    upstream = start(configuration, request(headers=headers))
    raw = form.read()
    passed: bytes = upstream.body.feed(raw) + upstream.body.end()
    return passed


def form(**fields: str) -> httpx.Request:
    files = {"file": ("a.wav", b"RIFF")}
    return httpx.Request("POST", "http://x/", data=fields, files=files)


def test_the_configured_model_is_put_into_a_form_without_one() -> None:
    configured = of_type(openai.TRANSCRIPTIONS, model=model("whisper-1"))
    passed = through(configured, form(language="en"))
    assert b'name="model"\r\n\r\nwhisper-1\r\n' in passed


def test_the_configured_model_stands_in_for_its_alias_in_a_form() -> None:
    configured = of_type(openai.TRANSCRIPTIONS, model=model("whisper-1", "hear"))
    passed = through(configured, form(model="hear"))
    assert b"whisper-1" in passed
    assert b"hear" not in passed


def test_a_form_that_names_the_configured_model_passes_byte_for_byte() -> None:
    sent = form(model="whisper-1")
    configured = of_type(openai.TRANSCRIPTIONS, model=model("whisper-1"))
    assert through(configured, sent) == sent.read()


def test_a_foreign_model_in_a_form_is_refused() -> None:
    configured = of_type(openai.TRANSCRIPTIONS, model=model("whisper-1"))
    with pytest.raises(Refused, match="cannot use own model - must be: whisper-1"):
        through(configured, form(model="gpt-4o-transcribe"))


@pytest.mark.parametrize("value", ["true", "1", "yes", "on", "T"])
def test_a_form_cannot_ask_for_a_stream_that_is_not_allowed(value: str) -> None:
    configured = of_type(openai.TRANSCRIPTIONS, response_streaming="deny")
    with pytest.raises(Refused, match="response streaming is not enabled"):
        through(configured, form(model="m", stream=value))


@pytest.mark.parametrize("name", ["model[]", "model[0]", "model.x", "'model'", "MODEL"])
def test_a_form_cannot_name_the_model_in_another_spelling(name: str) -> None:
    configured = of_type(openai.TRANSCRIPTIONS, model=model("whisper-1"))
    with pytest.raises(Refused, match="did you mean 'model'"):
        through(configured, form(**{"model": "whisper-1", name: "evil"}))


# ---- WebSockets


def test_realtime_keeps_its_handshake() -> None:
    client = plain("GET", "/v1/realtime", query="model=gpt-realtime", **HANDSHAKE)
    sent = start(of_type(openai.REALTIME), client)
    assert (sent.method, sent.address.path, sent.address.query) == (
        "GET",
        "/v1/realtime",
        "model=gpt-realtime",
    )
    assert sent.response_headers["x-kong-llm-model"] == "openai/gpt-realtime"


def test_realtimes_model_is_the_configured_one() -> None:
    configured = of_type(openai.REALTIME, model=model("gpt-realtime", "talk"))
    for query in ("", "model=talk"):
        client = plain("GET", "/v1/realtime", query=query, **HANDSHAKE)
        assert start(configured, client).address.query == "model=gpt-realtime"
    error = refusal(configured, plain("GET", "/", query="model=other", **HANDSHAKE))
    assert error.status == 400


@pytest.mark.parametrize(
    "query",
    ["model=evil&model=talk", "model=talk&MODEL=evil", "model=talk&model[]=evil", "a;model=evil"],
)
def test_realtimes_model_cannot_be_named_past_the_rule(query: str) -> None:
    configured = of_type(openai.REALTIME, model=model("gpt-realtime", "talk"))
    client = plain("GET", "/v1/realtime", query=query, **HANDSHAKE)
    try:
        sent = start(configured, client).address.query
    except Refused:
        return
    assert sent == "model=gpt-realtime"


@pytest.mark.parametrize("query", ["stream=1", "stream=yes", "STREAM=true", "stream[]=true"])
def test_a_stream_that_is_not_allowed_cannot_be_asked_for_in_the_query(query: str) -> None:
    configured = of_type(openai.RESPONSES, response_streaming="deny")
    error = refusal(configured, plain("GET", "/v1/responses/resp_1", query=query))
    assert error.message == "response streaming is not enabled for this LLM"


def test_a_realtime_transcription_names_no_model_in_its_query() -> None:
    configured = of_type(openai.REALTIME, model=model("gpt-realtime"))
    client = plain("GET", "/v1/realtime", query="intent=transcription", **HANDSHAKE)
    assert start(configured, client).address.query == "intent=transcription"


def test_realtime_takes_websockets_only() -> None:
    error = refusal(of_type(openai.REALTIME), plain("GET", "/v1/realtime"))
    assert (error.status, error.headers["upgrade"]) == (426, "websocket")
    error = refusal(of_type(openai.REALTIME), plain("POST", "/v1/realtime", **HANDSHAKE))
    assert (error.status, error.headers["allow"]) == (405, "GET")


# ---- which way


@pytest.mark.parametrize("name", ["log_statistics", "log_payloads"])
@pytest.mark.parametrize("route_type", [*openai.OPERATIONS])
def test_logging_needs_the_relay(route_type: str, name: str) -> None:
    plan = Plan(config.parse("ai-proxy", of_type(route_type, logging={name: True})))
    assert plan.needs_response


@pytest.mark.parametrize("route_type", [*openai.OPERATIONS])
def test_without_it_kong_carries(route_type: str) -> None:
    plan = Plan(config.parse("ai-proxy", of_type(route_type)))
    assert not plan.prefers_relay
    assert not plan.needs_relay(request())


def test_a_key_in_the_query_stays_out_of_nginxs_error_log() -> None:
    auth = {"param_name": "key", "param_value": "sk", "param_location": "query"}
    plan = Plan(config.parse("ai-proxy", of_type(openai.CHAT, auth=auth)))
    assert plan.prefers_relay
    assert not plan.needs_response


def test_the_relay_asks_for_the_usage_of_a_stream() -> None:
    configured = ai_proxy(logging={"log_statistics": True})
    raw = b'{"messages": [{"role": "user", "content": "x"}], "model": "gpt-4o", "stream": true}'
    plan = Plan(config.parse("ai-proxy", configured))
    sent = plan.attempt(request(raw), raw, relayed=True).start()
    assert sent_body(sent)["stream_options"] == {"include_usage": True}


def test_an_answer_is_only_asked_for_as_the_relay_can_read_it() -> None:
    plan = Plan(config.parse("ai-proxy", ai_proxy(logging={"log_statistics": True})))
    raw = b'{"messages": [{"role": "user", "content": "x"}], "model": "gpt-4o"}'
    for accepted, asked in (("br, gzip", "gzip, identity"), ("br", "identity")):
        client = request(raw, headers={"accept-encoding": accepted})
        sent = plan.attempt(client, raw, relayed=True).start()
        assert sent.set_headers["accept-encoding"] == asked
