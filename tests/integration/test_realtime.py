"""Realtime sessions through the whole gateway, with the vendors' own clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from google import genai
from google.genai import errors, live, types
from openai import AsyncOpenAI

from kong_ai_proxy.gateway.provider import Provider
from tests import decks
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration.text_world import GOOGLE_TOKEN, service_account, token_endpoint
from tests.providers.gemini_live_api import KEY, MODEL, SOUND, GeminiLive

CLIENTS_OWN = "the-clients-own-key"
REALTIME = "realtime/v1/realtime"
LOGGED = {"log_statistics": True, "log_payloads": True}
VERTEX = {
    "api_endpoint": "us-central1-aiplatform.googleapis.com",
    "project_id": "acme",
    "location_id": "us-central1",
}


@pytest.fixture(autouse=True)
def without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's client only speaks TLS, which these gateways do not."""
    connect: Any = vars(live)["ws_connect"]

    def plain(uri: str, **options: Any) -> Any:
        options.pop("ssl", None)
        return connect(uri.replace("wss://", "ws://"), **options)

    monkeypatch.setattr(live, "ws_connect", plain)


@pytest.fixture
async def google() -> AsyncIterator[GeminiLive]:
    async with GeminiLive() as found:
        yield found
    for session in found.sessions:
        assert CLIENTS_OWN not in f"{session.query} {dict(session.headers)}"
        assert not [name for name in session.headers if name.lower().startswith("x-kong-ai")]


def gemini(url: str, name: str | None = None, **changes: Any) -> decks.Json:
    auth = {"header_name": "x-goog-api-key", "header_value": KEY}
    found = decks.config(url, REALTIME, name, llm_format="gemini", auth=auth, **changes)
    found["model"]["provider"] = "gemini"
    return found


def client(running: RunningGateway, path: str) -> genai.Client:
    options = types.HttpOptions(base_url=running.url + path)
    return genai.Client(api_key=CLIENTS_OWN, http_options=options)


async def talk(session: live.AsyncSession) -> None:
    """A turn of text and one of sound."""
    await session.send_client_content(turns=types.Content(parts=[types.Part(text="hi")]))
    texts = [message.text or "" async for message in session.receive()]
    assert "".join(texts) == "Hello there."
    sound = types.Blob(data=SOUND, mime_type="audio/pcm;rate=16000")
    await session.send_realtime_input(audio=sound)
    await session.send_realtime_input(audio_stream_end=True)
    assert b"".join([message.data or b"" async for message in session.receive()]) == SOUND


async def test_googles_client_is_carried_by_kong_where_nothing_has_to_be_looked_at(
    gateway: GatewayFactory, google: GeminiLive
) -> None:
    running = await gateway(decks.deck(decks.route("/google", gemini(google.url))))
    async with client(running, "/google").aio.live.connect(model=MODEL) as session:
        await talk(session)
    assert google.failures == []
    assert google.session.headers["x-goog-api-key"] == KEY
    assert "carrying " not in running.log()


async def test_googles_client_through_the_relay(
    gateway: GatewayFactory, google: GeminiLive
) -> None:
    config = gemini(google.url, MODEL, logging=LOGGED)
    config["model"]["model_alias"] = "voice"
    running = await gateway(decks.deck(decks.route("/google", config)))
    async with client(running, "/google").aio.live.connect(model="voice") as session:
        await talk(session)
    with pytest.raises(errors.APIError, match=f"must be: {MODEL}"):
        async with client(running, "/google").aio.live.connect(model="another"):
            pass
    assert google.failures == []
    assert [each.setup is not None for each in google.sessions] == [True, False]
    assert "carrying " in running.log()


async def test_googles_client_on_vertex_ai(gateway: GatewayFactory) -> None:
    async with AsyncExitStack() as stack:
        google = await stack.enter_async_context(GeminiLive(vertex=True))
        account = service_account(await token_endpoint(stack))
        config = gemini(google.url, MODEL)
        config["model"]["options"]["gemini"] = VERTEX
        config["auth"] = {"gcp_use_service_account": True, "gcp_service_account_json": account}
        running = await gateway(decks.deck(decks.route("/vertex", config)))
        options = types.HttpOptions(base_url=f"{running.url}/vertex".replace("http", "ws"))
        own = genai.Client(vertexai=True, http_options=options)
        async with own.aio.live.connect(model=MODEL) as session:
            await talk(session)
        assert google.failures == []
        assert google.session.headers["authorization"] == f"Bearer {GOOGLE_TOKEN}"


@pytest.mark.parametrize("way", ["kong", "relay"])
@pytest.mark.parametrize("beta", [False, True])
async def test_openais_client(gateway: GatewayFactory, way: str, beta: bool) -> None:
    provider = await Provider.start(api_key=decks.KEY)
    logging = {"logging": LOGGED} if way == "relay" else {}
    url = f"{provider.url.removesuffix('/v1')}/v1/realtime"
    config = decks.config(url, REALTIME, "gpt-realtime", **logging)
    running = await gateway(decks.deck(decks.route("/v1/realtime", config)))
    own = AsyncOpenAI(
        base_url=f"{running.url}/v1",
        websocket_base_url=f"ws{running.url.removeprefix('http')}/v1",
        api_key=CLIENTS_OWN,
    )
    item: Any = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hello"}],
    }
    api: Any = own.beta.realtime if beta else own.realtime
    async with api.connect(model="gpt-realtime") as connection:
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        kinds = []
        while "response.done" not in kinds:
            kinds.append((await connection.recv()).type)
    await provider.stop()
    assert kinds[0] == "session.created"
    assert ("conversation.item.created" in kinds) == beta
    seen = provider.seen[-1]
    assert CLIENTS_OWN not in f"{seen.path} {dict(seen.headers)}"
    assert ("carrying " in running.log()) == (way == "relay")
