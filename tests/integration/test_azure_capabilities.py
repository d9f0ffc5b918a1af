"""The official client uses all of Azure's capabilities through Kong, as AzureOpenAI and as OpenAI:
carried by Kong alone, and carried by the relay."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import openai
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from openai import AsyncAzureOpenAI, AsyncOpenAI

from kong_ai_proxy.gateway.provider import Seen
from tests import decks, relays
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.test_openai_capabilities import CHAT_LINE, sound
from tests.providers.azure_api import Azure

Json = dict[str, Any]
gateway = text_world.gateway
pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMED = {"model": "any"}
CLIENTS_OWN = "the-clients-own"
DEPLOYMENT = "deployed"
CONFIGURED = "2024-10-21"
THEIRS = "2025-04-01-preview"
LOGGED = {"log_statistics": True, "log_payloads": True}

# Where clients have each route type below /openai, or below a deployment there.
DEPLOYED = {
    "llm/v1/chat": "chat/completions",
    "llm/v1/completions": "completions",
    "llm/v1/embeddings": "embeddings",
    "audio/v1/audio/speech": "audio/speech",
    "audio/v1/audio/transcriptions": "audio/transcriptions",
    "audio/v1/audio/translations": "audio/translations",
    "image/v1/images/generations": "images/generations",
    "image/v1/images/edits": "images/edits",
}
BESIDE = {
    "llm/v1/files": ("files",),
    "llm/v1/batches": ("batches",),
    "llm/v1/assistants": ("assistants", "threads"),
    "llm/v1/responses": ("responses",),
    "video/v1/videos/generations": ("videos",),
    "realtime/v1/realtime": ("realtime",),
}


def configuration(url: str, route_type: str, deployment: str, logging: Json) -> Json:
    """The plugin's configuration for Azure at `url`; the client names the model."""
    options = {
        "azure_instance": "acme",
        "azure_deployment_id": deployment,
        "azure_api_version": CONFIGURED,
        "upstream_url": url,
    }
    return {
        "route_type": route_type,
        "auth": {"header_name": "api-key", "header_value": "azure-key"},
        "model": {"provider": "azure", "options": options},
        "logging": logging,
    }


def deck(url: str) -> str:
    """Each way with OpenAI's paths below /{way}/openai/v1 and Azure's own below /{way}/azure."""
    routes = []
    for way, logging in {"kong": {}, "relay": LOGGED}.items():
        for route_type, path in DEPLOYED.items():
            captured = f"~/{way}/azure/openai/deployments/(?<deployment>[^/]+)/{path}$"
            at_path = configuration(url, route_type, "$(uri_captures.deployment)", logging)
            fixed = configuration(url, route_type, DEPLOYMENT, logging)
            routes += [(captured, at_path), (f"/{way}/openai/v1/{path}", fixed)]
        for route_type, paths in BESIDE.items():
            fixed = configuration(url, route_type, DEPLOYMENT, logging)
            for path in paths:
                routes.append((f"/{way}/azure/openai/{path}", fixed))
                routes.append((f"/{way}/openai/v1/{path}", fixed))
    return decks.deck(*(decks.route(p, c, response_buffering=False) for p, c in routes))


@dataclass
class World:
    """A gateway and Azure behind it."""

    running: RunningGateway
    azure: Azure


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with Azure([DEPLOYMENT]) as azure:
        yield World(await gateway(deck(azure.url)), azure)


@dataclass
class Place:
    """Azure as one kind of client reaches it, carried one way."""

    client: AsyncOpenAI
    azure: Azure
    kind: str
    is_relayed: bool

    @property
    def last(self) -> Seen:
        """The last request that Azure got."""
        return self.azure.requests[-1]

    @property
    def version(self) -> str:
        """The api-version in the client's requests to Azure, or the configured one."""
        return THEIRS if self.kind == "azure" else CONFIGURED


@pytest.fixture(params=["kong", "relay"])
def way(request: pytest.FixtureRequest) -> str:
    """Who carries the requests."""
    return str(request.param)


@pytest_asyncio.fixture(params=["azure", "openai"], loop_scope="module")
async def place(request: pytest.FixtureRequest, world: World, way: str) -> AsyncIterator[Place]:
    """Each client, each way; afterwards it is checked who carried and what Azure saw."""
    kind, url = request.param, world.running.url
    headers = {"cookie": "session=1", "x-api-key": CLIENTS_OWN}
    sockets = url.replace("http://", "ws://")
    client: AsyncOpenAI
    if kind == "azure":
        client = AsyncAzureOpenAI(
            azure_endpoint=f"{url}/{way}/azure",
            websocket_base_url=f"{sockets}/{way}/azure/openai",
            api_key=CLIENTS_OWN,
            api_version=THEIRS,
            max_retries=0,
            timeout=30,
            default_headers=headers,
        )
    else:
        client = AsyncOpenAI(
            base_url=f"{url}/{way}/openai/v1",
            websocket_base_url=f"{sockets}/{way}/openai/v1",
            api_key=CLIENTS_OWN,
            max_retries=0,
            timeout=30,
            default_headers=headers,
        )
    world.azure.requests.clear()
    world.azure.failures.clear()
    before = len(world.running.log())
    async with client:
        place = Place(client, world.azure, kind, way == "relay")
        yield place
    assert world.azure.failures == []
    assert ("carrying " in world.running.log()[before:]) == place.is_relayed
    for seen in world.azure.requests:
        assert CLIENTS_OWN not in f"{seen.path} {dict(seen.headers)}"
        assert seen.headers["api-key"] == "azure-key"
        assert "authorization" not in seen.headers
        assert not [n for n in seen.headers if n.lower().startswith("x-kong-ai-proxy")]
        assert "cookie" not in seen.headers


@pytest.fixture
def client(place: Place) -> AsyncOpenAI:
    return place.client


def below(path: str, version: str) -> str:
    return f"/openai/deployments/{DEPLOYMENT}/{path}?api-version={version}"


async def test_chat(place: Place) -> None:
    answer = await place.client.chat.completions.create(
        model=DEPLOYMENT, messages=[{"role": "user", "content": "Say something about rivers."}]
    )
    assert answer.choices[0].message.content
    assert place.last.path == below("chat/completions", place.version)


async def test_chat_streamed(place: Place) -> None:
    stream = await place.client.chat.completions.create(
        model=DEPLOYMENT, messages=[{"role": "user", "content": "Rivers?"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 3
    assert not any(chunk.usage for chunk in chunks)


async def test_function_calling(client: AsyncOpenAI) -> None:
    parameters: Json = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    answer = await client.chat.completions.create(
        model=DEPLOYMENT,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}],
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert "city" in json.loads(call.function.arguments)


async def test_completions(place: Place) -> None:
    answer = await place.client.completions.create(model=DEPLOYMENT, prompt="Once upon")
    assert answer.choices[0].text
    assert place.last.path == below("completions", place.version)


async def test_embeddings(place: Place) -> None:
    answer = await place.client.embeddings.create(model=DEPLOYMENT, input=["a", "b"])
    assert len(answer.data) == 2
    assert place.last.path == below("embeddings", place.version)


async def test_files(place: Place) -> None:
    files = place.client.files
    content = json.dumps(CHAT_LINE).encode() + b"\n"
    made = await files.create(file=("in.jsonl", content), purpose="batch")
    assert place.last.path == f"/openai/files?api-version={place.version}"
    assert (await files.retrieve(made.id)).filename == "in.jsonl"
    assert made.id in [file.id async for file in files.list()]
    assert (await files.content(made.id)).content == content
    path = f"/openai/files/{made.id}/content?api-version={place.version}"
    assert place.last.path == path
    assert (await files.delete(made.id)).deleted


async def test_batches(place: Place) -> None:
    client = place.client
    line = json.dumps(CHAT_LINE).encode()
    file = await client.files.create(file=("in.jsonl", line), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert place.last.path == f"/openai/batches?api-version={place.version}"
    for _ in range(10):
        batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    output = await client.files.content(batch.output_file_id or "")
    assert json.loads(output.text)["custom_id"] == "1"
    other = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert (await client.batches.cancel(other.id)).status in ("cancelling", "cancelled")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of Assistants
async def test_assistants(place: Place) -> None:
    beta = place.client.beta
    assistant = await beta.assistants.create(model="gpt-4o", name="helper")
    assert assistant.model == DEPLOYMENT
    assert place.last.path == f"/openai/assistants?api-version={place.version}"
    thread = await beta.threads.create()
    await beta.threads.messages.create(thread.id, role="user", content="hello")
    run = await beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, model="gpt-4o", poll_interval_ms=1
    )
    assert (run.status, run.model) == ("completed", DEPLOYMENT)
    messages = await beta.threads.messages.list(thread.id)
    assert {message.role for message in messages.data} == {"user", "assistant"}
    async with beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
        assert "".join([text async for text in stream.text_deltas])
    assert (await beta.assistants.delete(assistant.id)).deleted


async def test_responses(place: Place) -> None:
    responses = place.client.responses
    answer = await responses.create(model="gpt-4o", input="Say something about rivers.")
    assert answer.output_text
    assert answer.model == DEPLOYMENT
    dated = f"/openai/responses?api-version={THEIRS}"
    of_v1 = "/openai/v1/responses?api-version=preview"
    assert place.last.path == (dated if place.kind == "azure" else of_v1)
    assert (await responses.retrieve(answer.id)).output_text == answer.output_text
    assert (await responses.input_items.list(answer.id)).data
    await responses.delete(answer.id)


async def test_responses_streamed(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model="gpt-4o", input="Rivers?", stream=True)
    kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


async def test_speech(place: Place) -> None:
    answer = await place.client.audio.speech.create(
        model=DEPLOYMENT, voice="alloy", input="Hello", response_format="wav"
    )
    assert answer.content.startswith(b"RIFF")
    assert place.last.path == below("audio/speech", place.version)


async def test_transcriptions(place: Place) -> None:
    answer = await place.client.audio.transcriptions.create(
        model=DEPLOYMENT, file=("talk.wav", sound()), response_format="verbose_json"
    )
    assert answer.duration == pytest.approx(1, abs=0.1)
    assert place.last.path == below("audio/transcriptions", place.version)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of translations
async def test_translations(place: Place) -> None:
    answer = await place.client.audio.translations.create(model=DEPLOYMENT, file=("a.wav", sound()))
    assert answer.text
    assert place.last.path == below("audio/translations", place.version)


async def test_images(place: Place) -> None:
    images = place.client.images
    made = await images.generate(model=DEPLOYMENT, prompt="a river", size="1024x1024")
    assert place.last.path == below("images/generations", place.version)
    assert made.data
    picture = base64.b64decode(made.data[0].b64_json or "")
    answer = await images.edit(
        model=DEPLOYMENT, image=("river.png", picture, "image/png"), prompt="a bridge"
    )
    assert answer.data
    assert place.last.path == below("images/edits", place.version)


async def test_images_streamed(place: Place) -> None:
    stream = await place.client.images.generate(
        model=DEPLOYMENT, prompt="a river", stream=True, partial_images=1
    )
    kinds = [event.type async for event in stream]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]
    assert place.last.path == below("images/generations", place.version)


async def test_transcriptions_streamed(place: Place) -> None:
    stream = await place.client.audio.transcriptions.create(
        model=DEPLOYMENT, file=("talk.wav", sound()), stream=True
    )
    kinds = [event.type async for event in stream]
    assert kinds[-1] == "transcript.text.done"
    assert place.last.path == below("audio/transcriptions", place.version)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of videos
async def test_videos(place: Place) -> None:
    client, place.is_relayed = place.client, True  # a form has to name the deployment
    if isinstance(client, AsyncAzureOpenAI):  # they are in no version with a date
        client = client.copy(api_version="preview", http_client=client._client)
    video = await client.videos.create(model="sora-2", prompt="a river", seconds="4")
    assert video.model == DEPLOYMENT
    assert place.last.path == "/openai/v1/videos?api-version=preview"
    for _ in range(10):
        video = await client.videos.retrieve(video.id)
    assert video.status == "completed"
    content = await client.videos.download_content(video.id)
    assert content.content[4:8] == b"ftyp"
    assert (await client.videos.delete(video.id)).deleted


async def test_realtime(place: Place) -> None:
    async with place.client.realtime.connect(model="gpt-realtime") as connection:
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            }
        )
        await connection.response.create()
        kinds = []
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.done":
                break
    assert kinds[0] == "session.created"
    path, _, query = place.last.path.partition("?")
    if place.kind == "azure":
        assert path == "/openai/realtime"
        assert sorted(query.split("&")) == [f"api-version={THEIRS}", f"deployment={DEPLOYMENT}"]
    else:
        assert (path, query) == ("/openai/v1/realtime", f"model={DEPLOYMENT}")


async def test_a_session_that_transcribes_names_no_deployment(place: Place) -> None:
    asked: Json = {"extra_query": {"intent": "transcription"}}
    if place.kind == "azure":  # whose client always names one
        asked["model"] = "gpt-4o-transcribe"
    async with place.client.realtime.connect(**asked) as connection:
        assert (await connection.recv()).type == "session.created"
    path, _, query = place.last.path.partition("?")
    if place.kind == "azure":
        assert path == "/openai/realtime"
        assert sorted(query.split("&")) == [f"api-version={THEIRS}", "intent=transcription"]
    else:
        assert (path, query) == ("/openai/v1/realtime", "intent=transcription")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of the beta
async def test_realtimes_beta(place: Place) -> None:
    async with place.client.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection:
        event = await connection.recv()
    assert event.type == "session.created"
    path, _, query = place.last.path.partition("?")
    assert path == "/openai/realtime"
    expected = [f"api-version={place.version}", f"deployment={DEPLOYMENT}"]
    assert sorted(query.split("&")) == expected
    assert place.last.headers["openai-beta"] == "realtime=v1"


# ---- failures


async def test_a_deployment_that_is_not_there(world: World, way: str) -> None:
    async with AsyncAzureOpenAI(
        azure_endpoint=f"{world.running.url}/{way}/azure",
        api_key=CLIENTS_OWN,
        api_version=THEIRS,
        max_retries=0,
    ) as client:
        with pytest.raises(openai.NotFoundError, match="deployment for this resource"):
            await client.audio.speech.create(model="other", voice="alloy", input="Hello")


# ---- a managed identity, which only the relay can use


@dataclass
class Tokens:
    """The endpoint of an identity in App Service:
    https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity."""

    asked: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["X-IDENTITY-HEADER"] == "identity-header"
        assert request.query["resource"] == "https://cognitiveservices.azure.com"
        self.asked += 1
        token = {"access_token": "entra-token", "expires_on": "4102444800", "token_type": "Bearer"}
        return web.json_response(token)


@pytest_asyncio.fixture(loop_scope="module")
async def tokens(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tokens]:
    tokens = Tokens()
    app = web.Application()
    app.router.add_get("/token", tokens.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://{host}:{port}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "identity-header")
    yield tokens
    await runner.cleanup()


@pytest.mark.parametrize(
    ("route_type", "method", "path", "body"),
    [
        ("llm/v1/responses", "POST", "/responses", {"input": "hi"}),
        ("llm/v1/files", "GET", "/files", None),
        ("llm/v1/batches", "GET", "/batches", None),
        (
            "audio/v1/audio/speech",
            "POST",
            "/speech",
            {"model": "m", "voice": "alloy", "input": "a"},
        ),
        ("image/v1/images/generations", "POST", "/images", {"prompt": "a river"}),
        ("video/v1/videos/generations", "POST", "/videos", {"prompt": "a river"}),
    ],
)
async def test_a_managed_identity(
    tokens: Tokens, route_type: str, method: str, path: str, body: Json | None
) -> None:
    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(Azure([DEPLOYMENT]))
        settings = configuration(azure.url, route_type, DEPLOYMENT, {})
        settings["auth"] = {"azure_use_managed_identity": True}
        relay = await stack.enter_async_context(relays.running(settings))
        options: Json = {"headers": {"authorization": f"Bearer {CLIENTS_OWN}"}}
        if body is not None:
            options["data"] = orjson.dumps(body)
            options["headers"]["content-type"] = "application/json"
        answer = await stack.enter_async_context(relay.request(method, path, **options))
        assert answer.status == 200, await answer.read()
        await answer.read()
        assert azure.failures == []
        assert azure.requests[0].headers["authorization"] == "Bearer entra-token"
        assert tokens.asked == 1
