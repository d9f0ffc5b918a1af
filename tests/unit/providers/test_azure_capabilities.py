"""Where each of Azure's route types lives, and what names the deployment there.

Paths: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference and
.../openai/reference-preview; of v1 https://github.com/Azure/azure-rest-api-specs/tree/main/
specification/ai/data-plane/OpenAI.v1; of realtime https://learn.microsoft.com/en-us/azure/foundry/
openai/how-to/realtime-audio-websockets.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from kong_ai_proxy import config
from kong_ai_proxy.auth.identity import BearerToken
from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest, Env, UpstreamRequest
from kong_ai_proxy.exchange.plan import Body, Plan
from kong_ai_proxy.formats import openai
from kong_ai_proxy.providers.azure import AZURE
from kong_ai_proxy.providers.azure.videos import SORA
from kong_ai_proxy.providers.base import Call, Endpoint

Json = dict[str, Any]

DATED = "2024-10-21"
BELOW = "/openai/deployments/mine"
CHAT: Json = {"messages": [{"role": "user", "content": "hello"}]}
FORM_TYPE = "multipart/form-data; boundary=b"
HANDSHAKE: Json = {"connection": "Upgrade", "upgrade": "websocket"}

EVERYWHERE = {
    openai.CHAT: (f"{BELOW}/chat/completions", DATED),
    openai.COMPLETIONS: (f"{BELOW}/completions", DATED),
    openai.EMBEDDINGS: (f"{BELOW}/embeddings", DATED),
    openai.SPEECH: (f"{BELOW}/audio/speech", DATED),
    openai.TRANSCRIPTIONS: (f"{BELOW}/audio/transcriptions", DATED),
    openai.TRANSLATIONS: (f"{BELOW}/audio/translations", DATED),
    openai.IMAGE_GENERATIONS: (f"{BELOW}/images/generations", DATED),
    openai.IMAGE_EDITS: (f"{BELOW}/images/edits", DATED),
    openai.FILES: ("/openai/files", DATED),
    openai.BATCHES: ("/openai/batches", DATED),
    openai.ASSISTANTS: ("/openai/assistants", DATED),
    openai.RESPONSES: ("/openai/v1/responses", "preview"),
    openai.VIDEOS: ("/openai/v1/videos", "preview"),
}
"""All but realtime: path, and api-version where a dated one is configured."""

BODIES: dict[str, Json] = {
    openai.CHAT: {**CHAT, "model": "gpt-4o"},
    openai.COMPLETIONS: {"prompt": "hi", "model": "gpt-4o"},
    openai.EMBEDDINGS: {"input": "hi", "model": "gpt-4o"},
    openai.RESPONSES: {"input": "hi"},
}
FORMS = (openai.TRANSCRIPTIONS, openai.TRANSLATIONS, openai.IMAGE_EDITS, openai.FILES)
KEEP = (openai.FILES, openai.BATCHES, openai.ASSISTANTS, openai.RESPONSES, openai.VIDEOS)


def of_type(route_type: str, name: str | None = None, **options: Any) -> Json:
    given = {
        "azure_instance": "acme",
        "azure_deployment_id": "mine",
        "azure_api_version": DATED,
        **options,
    }
    named = {} if name is None else {"name": name}
    return {
        "route_type": route_type,
        "auth": {"header_name": "api-key", "header_value": "azure-key"},
        "model": {"provider": "azure", "options": given, **named},
    }


def form(**fields: str) -> bytes:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = (
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\nRIFF\r\n"
    )
    return "".join([*parts, file, "--b--\r\n"]).encode()


def send(
    configuration: Json,
    body: Json | bytes | None = None,
    method: str = "POST",
    path: str = "/ai",
    query: str = "",
    **headers: str,
) -> UpstreamRequest:
    """What goes to Azure; a body in bytes is a form."""
    given = {name.replace("_", "-"): (value,) for name, value in headers.items()}
    raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    if raw:
        kind = FORM_TYPE if isinstance(body, bytes) else "application/json"
        given |= {"content-type": (kind,), "content-length": (str(len(raw)),)}
    client = ClientRequest(method=method, path=path, query=query, headers=given, route_path="/ai")
    plan = Plan(config.parse("ai-proxy", configuration))
    plan.check_head(client)
    env = Env(credential=BearerToken("entra-token")) if plan.needs_response else Env()
    return plan.attempt(client, raw if plan.body(client) is Body.READ else None).start(env)


def sent(upstream: UpstreamRequest, body: bytes) -> bytes:
    """The form that goes up for this one."""
    if upstream.body is None:
        return body
    assert not isinstance(upstream.body, bytes)
    return upstream.body.feed(body) + upstream.body.end()


def anything(route_type: str) -> Json | bytes:
    """A body for this route type."""
    if route_type in FORMS:
        return form(purpose="batch")
    return BODIES.get(route_type, {"prompt": "hi"})


def asked(upstream: UpstreamRequest) -> dict[str, str]:
    return dict(parse_qsl(upstream.address.query, strict_parsing=bool(upstream.address.query)))


# ---- where and as whom


@pytest.mark.parametrize("route_type", EVERYWHERE)
def test_url_and_credentials(route_type: str) -> None:
    path, version = EVERYWHERE[route_type]
    upstream = send(of_type(route_type), anything(route_type), api_key="the-clients")
    assert upstream.address.host == "acme.openai.azure.com"
    assert upstream.address.scheme == "https"
    assert upstream.address.path == path
    assert upstream.address.query == f"api-version={version}"
    assert upstream.set_headers["api-key"] == "azure-key"
    assert upstream.method == "POST"


@pytest.mark.parametrize("route_type", EVERYWHERE)
@pytest.mark.parametrize("client_id", [None, "1-2-3"])
def test_a_managed_identity(route_type: str, client_id: str | None) -> None:
    configuration = of_type(route_type)
    configuration["auth"] = {"azure_use_managed_identity": True, "azure_client_id": client_id}
    upstream = send(configuration, anything(route_type), authorization="Bearer the-clients")
    assert upstream.address.path == EVERYWHERE[route_type][0]
    assert upstream.set_headers["authorization"] == "Bearer entra-token"


def test_a_managed_identity_in_realtime() -> None:
    configuration = of_type(openai.REALTIME)
    configuration["auth"] = {"azure_use_managed_identity": True}
    upstream = send(configuration, method="GET", api_key="the-clients", **HANDSHAKE)
    assert upstream.set_headers["authorization"] == "Bearer entra-token"
    assert "api-key" in upstream.drop_headers


@pytest.mark.parametrize("route_type", EVERYWHERE)
@pytest.mark.parametrize("theirs", ["2025-04-01-preview", "preview", "v1"])
def test_the_clients_version_wins(route_type: str, theirs: str) -> None:
    upstream = send(of_type(route_type), anything(route_type), query=f"api-version={theirs}&a=b")
    assert asked(upstream) == {"api-version": theirs, "a": "b"}


@pytest.mark.parametrize("route_type", [openai.RESPONSES, openai.VIDEOS])
@pytest.mark.parametrize("version", ["preview", "v1", "latest"])
def test_an_undated_version_is_the_operators_choice(route_type: str, version: str) -> None:
    upstream = send(of_type(route_type, azure_api_version=version), anything(route_type))
    assert upstream.address.query == f"api-version={version}"


@pytest.mark.parametrize(
    ("theirs", "path"),
    [
        ("2025-04-01-preview", "/openai/responses"),
        ("preview", "/openai/v1/responses"),
        ("v1", "/openai/v1/responses"),
    ],
)
def test_responses_of_clients_with_dated_versions(theirs: str, path: str) -> None:
    query = f"api-version={theirs}"
    upstream = send(of_type(openai.RESPONSES), BODIES[openai.RESPONSES], query=query)
    assert upstream.address.path == path
    read = send(of_type(openai.RESPONSES), method="GET", path="/ai/responses/resp_1", query=query)
    assert read.address.path == f"{path}/resp_1"
    assert read.address.query == query


@pytest.mark.parametrize("name", ["Api-Version", "API-VERSION", "api%2Dversion"])
def test_a_version_is_one_however_its_name_is_written(name: str) -> None:
    query = f"{name}=2025-04-01-preview"
    upstream = send(of_type(openai.RESPONSES), BODIES[openai.RESPONSES], query=query)
    assert (upstream.address.path, upstream.address.query) == ("/openai/responses", query)
    realtime = handshake(query)
    assert realtime.address.path == "/openai/realtime"
    assert realtime.address.query == f"deployment=mine&{query}"


@pytest.mark.parametrize(
    ("route_type", "rest"),
    [
        (openai.FILES, "/file-1/content"),
        (openai.BATCHES, "/batch_1/cancel"),
        (openai.ASSISTANTS, "/asst_1"),
        (openai.RESPONSES, "/resp_1/input_items"),
        (openai.VIDEOS, "/video_1/content"),
    ],
)
def test_objects_live_below(route_type: str, rest: str) -> None:
    path, version = EVERYWHERE[route_type]
    upstream = send(of_type(route_type), method="GET", path=f"/ai{rest}")
    assert (upstream.method, upstream.address.path) == ("GET", f"{path}{rest}")
    assert upstream.address.query == f"api-version={version}"
    assert upstream.body is None


@pytest.mark.parametrize("collection", ["threads", "vector_stores", "assistants"])
def test_what_assistants_work_with(collection: str) -> None:
    upstream = send(of_type(openai.ASSISTANTS), method="GET", path=f"/openai/{collection}/x_1/runs")
    assert upstream.address.path == f"/openai/{collection}/x_1/runs"
    assert upstream.address.query == f"api-version={DATED}"


def test_assistants_need_no_beta() -> None:
    """Azure's reference does not know the header; clients send it."""
    upstream = send(of_type(openai.ASSISTANTS), {"name": "a"}, openai_beta="assistants=v2")
    assert "openai-beta" not in upstream.drop_headers


@pytest.mark.parametrize("route_type", KEEP)
@pytest.mark.parametrize("rest", ["/../../deployments", "/a%2f..%2fb", "/%2e%2e/x", "/a//b", "/."])
def test_ids_cannot_climb(route_type: str, rest: str) -> None:
    with pytest.raises(Refused):
        send(of_type(route_type), method="GET", path=f"/ai{rest}")


@pytest.mark.parametrize("route_type", EVERYWHERE)
@pytest.mark.parametrize("deployment", ["..", "a/../..", "../../x", "."])
def test_deployments_cannot_climb(route_type: str, deployment: str) -> None:
    configuration = of_type(route_type, azure_deployment_id="$(headers.x-deployment)")
    with pytest.raises(Refused) as refused:
        send(configuration, anything(route_type), x_deployment=deployment)
    assert refused.value.status == 400


@pytest.mark.parametrize("route_type", [openai.SPEECH, openai.IMAGE_EDITS])
def test_a_deployment_is_one_segment(route_type: str) -> None:
    upstream = send(of_type(route_type, azure_deployment_id="a/b?c#d"), anything(route_type))
    assert upstream.address.path.startswith("/openai/deployments/a%2Fb%3Fc%23d/")


# ---- what the operator says instead


@pytest.mark.parametrize(
    ("route_type", "given", "path", "version"),
    [
        (openai.SPEECH, "/extensions/speech", f"{BELOW}/extensions/speech", DATED),
        (openai.FILES, "/uploads", "/openai/uploads", DATED),
        (openai.FILES, "/openai/v1/files", "/openai/v1/files", "preview"),
        (openai.RESPONSES, "/replies", "/openai/v1/replies", "preview"),
        (openai.RESPONSES, "/openai/responses", "/openai/responses", DATED),
        (openai.CHAT, "/openai/v1/chat/completions", "/openai/v1/chat/completions", "preview"),
    ],
)
def test_upstream_path(route_type: str, given: str, path: str, version: str) -> None:
    upstream = send(of_type(route_type, upstream_path=f"{given}?a=b"), anything(route_type))
    assert upstream.address.path == path
    assert upstream.address.query == f"a=b&api-version={version}"


CLIMBING = ["../../files", "%2e%2e/x", "a/..;b/c", "a\\..\\b"]


@pytest.mark.parametrize("route_type", [openai.CHAT, openai.FILES])
@pytest.mark.parametrize("given", CLIMBING)
def test_upstream_paths_of_clients_cannot_climb(route_type: str, given: str) -> None:
    configuration = of_type(route_type, upstream_path="/x/$(headers.x-path)")
    with pytest.raises(Refused) as refused:
        send(configuration, anything(route_type), x_path=given)
    assert refused.value.status == 400


@pytest.mark.parametrize("given", CLIMBING)
def test_nor_can_those_of_realtime(given: str) -> None:
    with pytest.raises(Refused) as refused:
        handshake(options={"upstream_path": "/x/$(headers.x-path)"}, x_path=given)
    assert refused.value.status == 400


@pytest.mark.parametrize("route_type", EVERYWHERE)
def test_upstream_url_without_a_path_is_another_host(route_type: str) -> None:
    path, version = EVERYWHERE[route_type]
    configuration = of_type(route_type, upstream_url="http://127.0.0.1:8080")
    address = send(configuration, anything(route_type)).address
    assert (address.host, address.port, address.path) == ("127.0.0.1", 8080, path)
    assert address.query == f"api-version={version}"


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("https://apim.example/openai/v1/responses", "api-version=preview"),
        ("https://apim.example/openai/responses", f"api-version={DATED}"),
        ("https://apim.example/openai/v1/responses?api-version=v1", "api-version=v1"),
    ],
)
def test_upstream_url_replaces_the_path(url: str, query: str) -> None:
    upstream = send(of_type(openai.RESPONSES, upstream_url=url), BODIES[openai.RESPONSES])
    assert upstream.address.query == query
    read = send(of_type(openai.RESPONSES, upstream_url=url), method="GET", path="/ai/resp_1")
    assert (
        read.address.path == url.partition("?")[0].removeprefix("https://apim.example") + "/resp_1"
    )


# ---- the deployment, where no path names it


@pytest.mark.parametrize("route_type", [openai.RESPONSES, openai.VIDEOS, openai.ASSISTANTS])
@pytest.mark.parametrize("name", [None, "gpt-4o"])
def test_a_new_objects_model_is_the_deployment(route_type: str, name: str | None) -> None:
    for given in ({}, {"model": "gpt-4o"}, {"model": None}, {"model": ""}):
        upstream = send(of_type(route_type, name), {"input": "hi", **given})
        assert isinstance(upstream.body, bytes)
        assert orjson.loads(upstream.body) == {"input": "hi", "model": "mine"}


def test_another_model_than_the_configured_one_is_refused() -> None:
    with pytest.raises(Refused, match="cannot use own model - must be: gpt-4o"):
        send(of_type(openai.RESPONSES, "gpt-4o"), {"input": "hi", "model": "other"})


@pytest.mark.parametrize(
    ("route_type", "path"),
    [
        (openai.VIDEOS, "/ai/videos/video_1/remix"),
        (openai.ASSISTANTS, "/ai/threads/thread_1/runs"),
        (openai.ASSISTANTS, "/ai/assistants/asst_1"),
        (openai.RESPONSES, "/ai/responses/input_tokens"),
    ],
)
@pytest.mark.parametrize("name", [None, "gpt-4o"])
def test_of_what_is_there_only_a_model_that_is_named(
    route_type: str, path: str, name: str | None
) -> None:
    assert send(of_type(route_type, name), {"prompt": "hi"}, path=path).body is None
    upstream = send(of_type(route_type, name), {"model": "gpt-4o"}, path=path)
    assert upstream.body == b'{"model":"mine"}'


@pytest.mark.parametrize("name", [None, "sora-2"])
@pytest.mark.parametrize("fields", [{}, {"model": "sora-2"}])
def test_a_form_names_the_deployment(name: str | None, fields: dict[str, str]) -> None:
    body = form(prompt="a river", **fields)
    passed = sent(send(of_type(openai.VIDEOS, name), body), body)
    assert passed.count(b'name="model"') == 1
    assert b'name="model"\r\n\r\nmine\r\n' in passed
    assert b'name="prompt"\r\n\r\na river\r\n' in passed


def test_a_batch_has_no_model() -> None:
    body = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}
    assert send(of_type(openai.BATCHES), body).body is None


def test_the_deployment_in_the_path_leaves_the_model_alone() -> None:
    assert send(of_type(openai.SPEECH), {"model": "tts-1", "input": "hi"}).body is None
    upstream = send(of_type(openai.SPEECH, "tts-1"), {"input": "hi"})
    assert isinstance(upstream.body, bytes)
    assert orjson.loads(upstream.body)["model"] == "tts-1"


def test_chat_at_v1_names_the_deployment() -> None:
    configuration = of_type(openai.CHAT, upstream_path="/openai/v1/chat/completions")
    upstream = send(configuration, {**CHAT, "model": "gpt-4o"})
    assert isinstance(upstream.body, bytes)
    assert orjson.loads(upstream.body) == {**CHAT, "model": "mine"}


def thinking(**options: Any) -> Json:
    """The last message but one that goes up, of a client that brings the thoughts of DeepSeek."""
    said = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}
    body = {"model": "gpt-4o", "messages": [*CHAT["messages"], said, *CHAT["messages"]]}
    upstream = send(of_type(openai.CHAT, "gpt-4o", **options), body)
    assert isinstance(upstream.body, bytes | None)
    sent_up: Json = orjson.loads(upstream.body or orjson.dumps(body))
    message: Json = sent_up["messages"][1]
    return message


@pytest.mark.parametrize("path", [None, "/openai/v1/chat/completions"])
def test_thoughts_stay_behind(path: str | None) -> None:
    assert thinking(upstream_path=path) == {"role": "assistant", "content": "Hello"}


def test_another_server_may_want_them_back() -> None:
    assert thinking(upstream_url="https://foundry.example")["reasoning_content"] == "Hm."


@pytest.mark.parametrize(
    ("query", "asks"),
    [
        ("", True),
        ("api-version=2025-04-01-preview", True),
        ("api-version=2024-06-01", False),
        ("Api-Version=2024-02-01", False),
    ],
)
def test_clients_of_older_versions_are_not_asked_for_usage(query: str, asks: bool) -> None:
    """They get a 400 for `stream_options`, whatever the configured version has."""
    configuration = of_type(openai.CHAT, "gpt-4o")
    configuration["logging"] = {"log_statistics": True}
    raw = orjson.dumps({**CHAT, "model": "gpt-4o", "stream": True})
    given = {"content-type": ("application/json",), "content-length": (str(len(raw)),)}
    client = ClientRequest(method="POST", path="/ai", query=query, headers=given, route_path="/ai")
    plan = Plan(config.parse("ai-proxy", configuration))
    upstream = plan.attempt(client, raw, relayed=True).start(Env())
    sent_up = orjson.loads(upstream.body) if isinstance(upstream.body, bytes) else {}
    assert ("stream_options" in sent_up) is asks


# ---- videos


def video_endpoint(named: str, deployment: str, requested: str = "") -> Endpoint:
    given = {"azure_instance": "acme", "azure_deployment_id": deployment}
    assert AZURE.endpoint is not None
    options = ModelOptions.model_validate(given)
    return AZURE.endpoint(Call(openai.VIDEOS, requested or named, options, named=named))


@pytest.mark.parametrize(
    ("model", "deployment"), [("sora", "mine"), ("", "sora"), ("", "Sora"), ("sora-1", "x")]
)
def test_the_first_sora_has_an_api_of_its_own(model: str, deployment: str) -> None:
    assert video_endpoint(model, deployment).flow is SORA


@pytest.mark.parametrize(
    ("model", "deployment"), [("sora-2", "sora"), ("", "sora-2"), ("", "sora2-test")]
)
def test_sora_2_has_openais(model: str, deployment: str) -> None:
    found = video_endpoint(model, deployment)
    assert (found.path, found.flow) == ("/openai/v1/videos", None)


@pytest.mark.parametrize("theirs", ["sora-2", "sora", ""])
def test_no_client_says_which_sora_it_is(theirs: str) -> None:
    """Its job would be looked for elsewhere than where it was made."""
    assert video_endpoint("", "sora", theirs).flow is SORA
    assert video_endpoint("", "mine", theirs).flow is None
    upstream = send(of_type(openai.VIDEOS), {"prompt": "hi", "model": theirs})
    assert upstream.address.path == "/openai/v1/videos"
    assert upstream.body == b'{"prompt":"hi","model":"mine"}'


# ---- realtime


def handshake(query: str = "", name: str | None = None, **more: Any) -> UpstreamRequest:
    options = more.pop("options", {})
    configuration = of_type(openai.REALTIME, name, **options)
    return send(configuration, method="GET", path="/ai", query=query, **HANDSHAKE, **more)


@pytest.mark.parametrize("name", [None, "gpt-realtime"])
@pytest.mark.parametrize(
    "query",
    [
        "",
        "model=gpt-realtime",
        "deployment=other",
        "api-version=preview&model=gpt-realtime",
        "MODEL=other&Deployment=other",
    ],
)
def test_realtime(name: str | None, query: str) -> None:
    upstream = handshake(query, name)
    assert upstream.address.path == "/openai/v1/realtime"
    assert upstream.address.query == "model=mine"


@pytest.mark.parametrize("name", [None, "gpt-realtime"])
@pytest.mark.parametrize("query", ["", "model=gpt-realtime", "deployment=other"])
@pytest.mark.parametrize("beta", ["realtime=v1", "other=v1, realtime=v1"])
def test_realtimes_beta(name: str | None, query: str, beta: str) -> None:
    upstream = handshake(query, name, openai_beta=beta)
    assert upstream.address.path == "/openai/realtime"
    assert asked(upstream) == {"deployment": "mine", "api-version": DATED}
    assert "openai-beta" not in upstream.drop_headers


def test_a_dated_version_asks_for_realtimes_beta() -> None:
    """As AzureOpenAI clients do, which send no header."""
    upstream = handshake("api-version=2025-04-01-preview&deployment=other")
    assert upstream.address.path == "/openai/realtime"
    assert asked(upstream) == {"deployment": "mine", "api-version": "2025-04-01-preview"}


@pytest.mark.parametrize("query", ["intent=transcription", "intent=Transcription", "call_id=rtc_1"])
def test_sessions_that_name_their_model_elsewhere(query: str) -> None:
    assert handshake(query).address.query == query
    beta = handshake(f"{query}&deployment=other&model=other", openai_beta="realtime=v1")
    assert asked(beta) == {"api-version": DATED, **dict(parse_qsl(query))}


@pytest.mark.parametrize("intent", ["realtime", "other"])
def test_other_intents_take_the_deployment(intent: str) -> None:
    """https://platform.openai.com/docs/api-reference/realtime: `realtime` is one of two."""
    assert handshake(f"intent={intent}").address.query == f"model=mine&intent={intent}"
    beta = handshake(f"intent={intent}&deployment=other", openai_beta="realtime=v1")
    assert asked(beta) == {"deployment": "mine", "api-version": DATED, "intent": intent}


def test_a_realtime_deployment_is_one_value() -> None:
    upstream = handshake(options={"azure_deployment_id": "a&model=b"})
    assert upstream.address.query == "model=a%26model%3Db"


@pytest.mark.parametrize(
    ("options", "path", "query"),
    [
        ({"upstream_url": "ws://127.0.0.1:1"}, "/openai/v1/realtime", "model=mine"),
        ({"upstream_url": "wss://apim/openai/v1/realtime"}, "/openai/v1/realtime", "model=mine"),
        (
            {"upstream_url": "wss://apim/openai/realtime"},
            "/openai/realtime",
            f"deployment=mine&api-version={DATED}",
        ),
        (
            {"upstream_path": "/openai/realtime"},
            "/openai/realtime",
            f"deployment=mine&api-version={DATED}",
        ),
        ({"upstream_path": "/realtime?x=y"}, "/openai/v1/realtime", "model=mine&x=y"),
    ],
)
def test_realtime_elsewhere(options: Json, path: str, query: str) -> None:
    address = handshake(options=options).address
    assert (address.path, address.query) == (path, query)


def test_another_realtime_model_than_the_configured_one_is_refused() -> None:
    with pytest.raises(Refused, match="cannot use own model"):
        handshake("model=other", "gpt-realtime")
