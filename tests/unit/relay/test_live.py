"""Sessions of Gemini Live through the relay, with Google's own client and without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType, web
from google import genai
from google.genai import errors, live, live_music, types

from tests.providers.gemini_live_api import KEY, MODEL, PLACE, SOUND, TOKEN, GeminiLive
from tests.relays import RunningRelay, running
from tests.unit.relay.sockets import HANDSHAKE

PUBLIC = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
TODAYS = PUBLIC.replace("v1beta", "v1")  # of Google's client
VERTEX = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
CLIENTS_OWN = "the-clients-own-key"
HELLO = {"clientContent": {"turns": [{"parts": [{"text": "hi"}]}], "turnComplete": True}}
LOGGED: dict[str, Any] = {"logging": {"log_statistics": True, "log_payloads": True}}
ON_VERTEX = {
    "gemini": {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "us-central1",
    }
}
SECRET = {False: ("x-goog-api-key", KEY), True: ("authorization", f"Bearer {TOKEN}")}


def configuration(
    url: str, model: dict[str, Any], *, vertex: bool = False, **more: Any
) -> dict[str, Any]:
    """A route for Gemini's own clients."""
    options = {"upstream_url": url, **(ON_VERTEX if vertex else {})}
    header, value = SECRET[vertex]
    return {
        "llm_format": "gemini",
        "route_type": "realtime/v1/realtime",
        "auth": {"header_name": header, "header_value": value},
        "model": {"provider": "gemini", "options": options, **model},
        **more,
    }


@contextlib.asynccontextmanager
async def relayed(
    model: dict[str, Any] | None = None, *, vertex: bool = False, **more: Any
) -> AsyncIterator[tuple[GeminiLive, RunningRelay]]:
    async with GeminiLive(vertex=vertex) as google:
        config = configuration(google.url, model or {}, vertex=vertex, **more)
        async with running(config) as relay:
            yield google, relay


@contextlib.asynccontextmanager
async def opened(
    relay: RunningRelay, target: str = "/live" + PUBLIC
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session:
        headers = {**relay.headers("GET", target), "x-goog-api-key": CLIENTS_OWN}
        async with session.ws_connect(relay.url + target, headers=headers) as socket:
            yield socket


async def setup(socket: aiohttp.ClientWebSocketResponse, model: str | None) -> Any:
    """What comes in answer to a setup: a message's JSON, or the code and reason of a close."""
    said: dict[str, Any] = {"generationConfig": {"responseModalities": ["AUDIO"]}}
    if model is not None:
        said["model"] = model
    await socket.send_str(json.dumps({"setup": said}))
    return await heard(socket)


async def say(socket: aiohttp.ClientWebSocketResponse, message: str | bytes) -> None:
    if isinstance(message, str):
        await socket.send_str(message)
    else:
        await socket.send_bytes(message)


async def heard(socket: aiohttp.ClientWebSocketResponse) -> Any:
    message = await socket.receive(timeout=10)
    if message.type is WSMsgType.CLOSE:
        return message.data, message.extra
    if message.type in (WSMsgType.CLOSED, WSMsgType.CLOSING):
        return socket.close_code, None
    assert message.type is WSMsgType.BINARY
    return orjson.loads(message.data)


# ---- Google's client


@pytest.fixture
def without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's client only speaks TLS, which the gateway would end."""
    connect: Any = vars(live)["ws_connect"]

    def plain(uri: str, **options: Any) -> Any:
        options.pop("ssl", None)
        return connect(uri.replace("wss://", "ws://"), **options)

    monkeypatch.setattr(live, "ws_connect", plain)
    monkeypatch.setattr(live_music, "connect", plain)


def client(relay: RunningRelay, target: str, *, vertex: bool = False) -> genai.Client:
    """Each of them can open one session: it has one ticket."""
    base = relay.url + "/live" if not vertex else f"ws{relay.url.removeprefix('http')}{target}"
    headers = relay.headers("GET", target)
    options = types.HttpOptions(base_url=base, headers=headers)
    if vertex:
        return genai.Client(vertexai=True, http_options=options)
    return genai.Client(api_key=CLIENTS_OWN, http_options=options)


async def turn(session: live.AsyncSession) -> list[types.LiveServerMessage]:
    return [message async for message in session.receive()]


@pytest.mark.usefixtures("without_tls")
async def test_googles_client_talks_by_text_by_sound_and_by_tools(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tool = {"function_declarations": [{"name": "get_weather"}]}
    config = {
        "response_modalities": ["AUDIO"],
        "tools": [tool],
        "system_instruction": "Be kind.",
        "realtime_input_config": {"automatic_activity_detection": {"disabled": True}},
    }
    with caplog.at_level(logging.INFO, "kong_ai_proxy.outcome"):
        async with (
            relayed({"name": MODEL, "model_alias": "fast"}, **LOGGED) as (google, relay),
            client(relay, "/live" + TODAYS).aio.live.connect(
                model="fast", config=types.LiveConnectConfig.model_validate(config)
            ) as session,
        ):
            content = types.Content(role="user", parts=[types.Part(text="hi")])
            await session.send_client_content(turns=content)
            said = await turn(session)
            assert "".join(each.text or "" for each in said) == "Hello there."
            assert said[-1].usage_metadata
            blob = types.Blob(data=SOUND, mime_type="audio/pcm;rate=16000")
            await session.send_realtime_input(audio=blob)
            await session.send_realtime_input(audio_stream_end=True)
            assert b"".join(each.data or b"" for each in await turn(session)) == SOUND
            await session.send_realtime_input(text="what is the weather?")
            async for message in session.receive():
                if message.tool_call:
                    break
            assert message.tool_call
            assert message.tool_call.function_calls
            called = message.tool_call.function_calls[0]
            answer = types.FunctionResponse(id=called.id, name=called.name, response={"ok": 1})
            await session.send_tool_response(function_responses=answer)
            said = await turn(session)
    assert google.failures == []
    assert google.session.model == f"models/{MODEL}"
    assert google.session.path == TODAYS
    assert CLIENTS_OWN not in f"{google.session.query} {dict(google.session.headers)}"
    assert "x-kong-ai-proxy-ticket" not in google.session.headers
    line = outcome(caplog)
    assert line["ai"]["proxy"]["meta"]["request_mode"] == "realtime"


def outcome(caplog: pytest.LogCaptureFixture) -> Any:
    lines = [r.getMessage() for r in caplog.records if r.name == "kong_ai_proxy.outcome"]
    assert len(lines) == 1, lines
    return json.loads(lines[0])


@pytest.mark.usefixtures("without_tls")
async def test_googles_client_on_vertex() -> None:
    target = "/live"
    async with (
        relayed({"name": MODEL}, vertex=True) as (google, relay),
        client(relay, target, vertex=True).aio.live.connect(model=MODEL) as session,
    ):
        await session.send_client_content(turns=types.Content(parts=[types.Part(text="hi")]))
        said = await turn(session)
    assert said[-1].usage_metadata
    assert said[-1].usage_metadata.response_token_count == 7
    assert google.failures == []
    assert google.session.path == VERTEX
    assert google.session.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.usefixtures("without_tls")
@pytest.mark.filterwarnings("ignore:Realtime music generation is experimental")
async def test_googles_client_makes_music() -> None:
    target = "/live" + PUBLIC.replace("v1beta", "v1alpha").replace("Content", "Music")
    async with relayed({"name": MODEL, "model_alias": "lyria"}) as (google, relay):
        options = types.HttpOptions(
            base_url=relay.url + "/live",
            api_version="v1alpha",
            headers=relay.headers("GET", target),
        )
        own = genai.Client(api_key=CLIENTS_OWN, http_options=options)
        async with own.aio.live.music.connect(model="lyria") as session:
            prompt = types.WeightedPrompt(text="minimal techno", weight=1.0)
            await session.set_weighted_prompts([prompt])
            await session.play()
            message = await anext(session.receive())
        assert google.failures == []
        assert google.session.model == f"models/{MODEL}"
    chunks = message.server_content and message.server_content.audio_chunks
    assert chunks
    assert chunks[0].data == SOUND


@pytest.mark.usefixtures("without_tls")
async def test_googles_client_is_told_that_it_must_not_choose() -> None:
    async with relayed({"name": MODEL}) as (google, relay):
        with pytest.raises(errors.APIError) as raised:
            async with client(relay, "/live" + TODAYS).aio.live.connect(model="gemini-other"):
                pass
        await relay.settled()
    assert raised.value.code == 1008
    assert f"cannot use own model - must be: {MODEL}" in str(raised.value)
    assert (google.session.setup, google.session.messages) == (None, [])


# ---- the model


SPELLINGS = (
    None,
    "",
    MODEL,
    f"models/{MODEL}",
    "fast",
    "models/fast",
    f"publishers/google/models/{MODEL}",
    f"projects/another/locations/mars/publishers/google/models/{MODEL}",
)


@pytest.mark.parametrize("vertex", [False, True])
async def test_the_operators_model_goes_up_however_the_client_writes_it(vertex: bool) -> None:
    where = f"{PLACE}/publishers/google/" if vertex else ""
    async with relayed({"name": MODEL, "model_alias": "fast"}, vertex=vertex) as (google, relay):
        for named in SPELLINGS:
            async with opened(relay) as socket:
                assert await setup(socket, named) == {"setupComplete": {}}, named
                assert google.session.model == f"{where}models/{MODEL}"


@pytest.mark.parametrize("vertex", [False, True])
async def test_a_model_of_the_clients_goes_up_where_none_is_configured(vertex: bool) -> None:
    async with relayed(vertex=vertex, **LOGGED) as (google, relay), opened(relay) as socket:
        theirs = f"projects/another/locations/mars/publishers/google/models/{MODEL}"
        assert await setup(socket, theirs) == {"setupComplete": {}}
        where = f"{PLACE}/publishers/google/" if vertex else ""
        assert google.session.model == f"{where}models/{MODEL}"


OTHERS: tuple[str | bytes, ...] = (
    '{"setup":{"model":"models/other"}}',
    '{"s\\u0065tup":{"m\\u006fdel":"models/other"}}',
    f'{{"setup":{{"model":"{MODEL}"}},"setup":{{"model":"models/other"}}}}',
    b'{"setup":{"model":"models/other"}}',
    b' \n {"clientContent":{},"setup":{"model":"tunedModels/%b"}}' % MODEL.encode(),
)


async def test_another_model_is_refused_before_anything_reaches_the_provider() -> None:
    async with relayed({"name": MODEL}) as (google, relay):
        for message in OTHERS:
            async with opened(relay) as socket:
                await say(socket, message)
                refused = (1008, f"cannot use own model - must be: {MODEL}")
                assert await heard(socket) == refused, message
            await relay.settled()
            assert google.session.closed == 1001
            assert (google.session.setup, google.session.messages) == (None, [])


async def test_a_long_refusal_is_cut_to_what_a_close_can_tell() -> None:
    async with relayed({"name": "é" * 100}) as (_, relay), opened(relay) as socket:
        code, reason = await setup(socket, "another")
    assert (code, reason) == (1008, "cannot use own model - must be: " + "é" * 45)


async def test_a_second_setup_obeys_the_same_rule() -> None:
    async with relayed({"name": MODEL}) as (google, relay), opened(relay) as socket:
        await setup(socket, MODEL)
        for _ in range(3):
            await socket.send_json({"realtimeInput": {"audio": {"data": "AAAA"}}})
        assert await setup(socket, "other") == (1008, f"cannot use own model - must be: {MODEL}")
        await relay.settled()
    assert len(google.session.messages) == 3
    assert google.failures == []


async def test_a_second_setup_with_the_right_model_is_the_providers_to_refuse() -> None:
    async with relayed({"name": MODEL}) as (_google, relay), opened(relay) as socket:
        await setup(socket, MODEL)
        said = await setup(socket, MODEL)
    assert said == (1007, "setup must be sent only in the first message")


@pytest.mark.parametrize("kind", ["str", "bytes"])
async def test_other_messages_pass_as_they_are(kind: str) -> None:
    texts = [
        '{"realtimeInput" :{"text":"a \\"quoted\\" word, 東京"}}',
        '\n\t{"realtimeInput":{"text":"the setup, \\u0073etup"}}',
        '{"realtimeInput":{"audio":{"data":"AAAA","mimeType":"audio/pcm"}}}',
    ]
    got: list[str | bytes] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            got.append(message.data)
        return socket

    async with upstream(serve) as url, running(configuration(url, {"name": MODEL})) as relay:
        async with opened(relay) as socket:
            for text in texts:
                await say(socket, text if kind == "str" else text.encode())
        await relay.settled()
    assert got == (texts if kind == "str" else [text.encode() for text in texts])


@contextlib.asynccontextmanager
async def upstream(serve: Any) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


HIDING: tuple[tuple[str | bytes, str], ...] = (
    ("", "expected a JSON object in UTF-8 in each message"),
    ("[]", "expected a JSON object in UTF-8 in each message"),
    (b"\x0a\x02\x08\x01", "expected a JSON object in UTF-8 in each message"),
    ('{"setup":{}}'.encode("utf-16-le"), "expected a JSON object in UTF-8 in each message"),
    ('{setup:{"model":"x"}}', "expected a JSON object in each message"),
    ("{'setup':{}}", "expected a JSON object in each message"),
    ('{"setup":{"model":"x"}', "expected a JSON object in each message"),
    ('{"setup":[]}', "setup: expected an object"),
    ('{"setup":null}', "setup: expected an object"),
    ('{"setup":{"model":7}}', "setup.model: expected a string"),
    ('{"Setup":{}}', "unknown member 'Setup', did you mean 'setup'?"),
    ('{"setup":{"Model":"x"}}', "unknown member 'Model', did you mean 'model'?"),
    ('{"setup":{"tools":' + "[" * 300 + "]" * 300 + "}}", "setup: nested too deeply"),
)


async def test_what_may_hide_a_setup_does_not_pass() -> None:
    async with relayed({"name": MODEL}) as (google, relay):
        for message, reason in HIDING:
            async with opened(relay) as socket:
                await say(socket, message)
                assert await heard(socket) == (1008, reason), message
            await relay.settled()
            assert (google.session.setup, google.session.messages) == (None, [])


@pytest.mark.parametrize("vertex", [False, True])
async def test_what_is_no_name_does_not_pass(vertex: bool) -> None:
    async with relayed(vertex=vertex, **LOGGED) as (google, relay):
        for named in ("..", "a/b", "a?b", "x" * 600, "models/\n", "%2e%2e"):
            async with opened(relay) as socket:
                code, reason = await setup(socket, named)
            assert (code, reason.partition(":")[0]) == (1008, "setup.model"), named
            await relay.settled()
            assert google.session.setup is None


# ---- the ends of a session


async def test_a_setup_that_the_provider_refuses_ends_with_its_code_and_reason() -> None:
    async with relayed({"name": "gemini-none"}) as (_google, relay), opened(relay) as socket:
        said = await setup(socket, "gemini-none")
    assert said == (1008, "models/gemini-none is not found for API version v1beta")


async def test_going_away_and_resumption_pass_as_they_are() -> None:
    updates: list[dict[str, Any]] = [
        {"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}},
        {"goAway": {"timeLeft": "10s"}},
    ]
    async with relayed({"name": MODEL}, **LOGGED) as (google, relay), opened(relay) as socket:
        await setup(socket, MODEL)
        for update in updates:
            await google.say(update)
            assert await heard(socket) == update


async def test_a_lost_provider_is_1014_for_the_client() -> None:
    async with relayed({"name": MODEL}) as (google, relay), opened(relay) as socket:
        await setup(socket, MODEL)
        google.abort()
        assert (await heard(socket))[0] == 1014
        await relay.settled()


@pytest.mark.parametrize("status", [401, 429])
async def test_a_handshake_that_the_provider_refuses_reaches_the_client(status: int) -> None:
    headers = {"retry-after": "7", "www-authenticate": 'Bearer realm="https://accounts.google.com"'}
    told = {"error": {"code": status, "message": "no", "status": "NO"}}
    refusal = web.json_response(told, status=status, headers=headers)
    async with (
        GeminiLive(refuse=refusal) as google,
        running(configuration(google.url, {"name": MODEL})) as relay,
        relay.request("GET", "/live" + PUBLIC, headers=HANDSHAKE) as response,
    ):
        assert response.status == status
        assert await response.json() == told
        for name, value in headers.items():
            assert response.headers[name] == value


# ---- usage


@pytest.mark.parametrize("vertex", [False, True])
async def test_what_the_turns_have_used_is_added_up(
    vertex: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kong_ai_proxy.outcome"):
        async with relayed({"name": MODEL}, vertex=vertex, **LOGGED) as (_google, relay):
            async with opened(relay) as socket:
                await setup(socket, MODEL)
                for _ in range(2):
                    await socket.send_json(HELLO)
                    while "usageMetadata" not in await heard(socket):
                        pass
            await relay.settled()
    told = outcome(caplog)["ai"]["proxy"]
    usage = told["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (15 + 27, 14)
    assert usage["total_tokens"] == 56
    assert told["meta"]["request_model"] == MODEL
    assert told["meta"]["request_mode"] == "realtime"
    assert "Hello " in told["payload"]["response"]


async def test_the_model_that_a_client_chose_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kong_ai_proxy.outcome"):
        async with relayed(**LOGGED) as (_google, relay):
            async with opened(relay) as socket:
                await setup(socket, f"models/{MODEL}")
            await relay.settled()
    assert outcome(caplog)["ai"]["proxy"]["meta"]["request_model"] == MODEL


async def test_a_session_that_was_refused_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kong_ai_proxy.outcome"):
        async with relayed({"name": MODEL}, **LOGGED) as (_google, relay):
            async with opened(relay) as socket:
                await setup(socket, "other")
            await relay.settled()
    assert "cannot use own model" in json.dumps(outcome(caplog))


async def test_both_sides_talk_at_once() -> None:
    async with relayed({"name": MODEL}) as (google, relay), opened(relay) as socket:
        await setup(socket, MODEL)
        for number in range(50):
            await socket.send_json({"realtimeInput": {"text": str(number)}})
        texts: list[str] = []
        async with asyncio.timeout(10):
            while len(texts) < 50:
                content = (await heard(socket)).get("serverContent", {})
                parts = content.get("modelTurn", {}).get("parts", [])
                texts += [part["text"] for part in parts]
    assert texts == [str(number) for number in range(50)]
    assert google.failures == []
