"""The examples' Routes that are not for text alone, each used by an official client against the
strict stand-in of its provider."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, Protocol

import anthropic
import boto3  # type: ignore[import-untyped, unused-ignore]
import cohere
import httpx
import pytest
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from google import genai
from google.genai import live, types
from openai import AsyncOpenAI

from kong_ai_proxy.gateway.dev_deck import dumped
from kong_ai_proxy.gateway.provider import Provider
from kong_ai_proxy.gateway.provider.png import picture
from tests import providers
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import examples
from tests.integration.examples import ENV, TOKEN, Json
from tests.integration.text_world import CLIENTS_OWN
from tests.providers import gemini_live_api
from tests.providers.anthropic_batches_api import AnthropicBatches
from tests.providers.azure_api import Azure
from tests.providers.bedrock_batches_api import BedrockBatches
from tests.providers.bedrock_videos_api import AsyncBedrock
from tests.providers.dashscope_images_api import DashscopeImages
from tests.providers.gemini_files_api import GeminiFiles
from tests.providers.gemini_images_api import GeminiImages, VertexImages
from tests.providers.gemini_live_api import GeminiLive
from tests.providers.ranking_apis import BedrockAgents, DiscoveryEngine
from tests.providers.s3_api import Stored
from tests.providers.storage_api import Storage, VertexBatches
from tests.providers.veo_api import VeoPublic, VeoVertex
from tests.providers.video_jobs_api import FILM

pytestmark = [
    # The clients say so of videos, assistants and translations.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # google-genai derives from aiohttp's session and sends pieces of files as they are.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),
    pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes"),
]

IMAGES, EDITS = "image/v1/images/generations", "image/v1/images/edits"
VIDEOS, REALTIME = "video/v1/videos/generations", "realtime/v1/realtime"
FILES, BATCHES, RESPONSES = "llm/v1/files", "llm/v1/batches", "llm/v1/responses"
CHAT_URL: Any = "/v1/chat/completions"
PICTURE = picture(1280, 720, "a river")
AWS_KEYS = (ENV["DECK_AWS_ACCESS_KEY_ID"], ENV["DECK_AWS_SECRET_ACCESS_KEY"])


class Upstream(Protocol):
    """What all stand-ins have."""

    url: str
    failures: list[str]


class OpenAI:
    """The stand-in of OpenAI's API, with the members of the others."""

    failures: list[str]

    def __init__(self, api_key: str) -> None:
        self.failures = []
        self._key = api_key

    async def __aenter__(self) -> OpenAI:
        self._provider = await Provider.start(api_key=self._key)
        self.url = self._provider.url.removesuffix("/v1")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._provider.stop()


# ---- the routes


def _azure() -> Azure:
    deployments = [
        examples.target(route)["model"]["options"]["azure_deployment_id"]
        for route in examples.routes(examples.deck("azure.yaml"))
    ]
    return Azure(deployments, api_key=ENV["DECK_AZURE_API_KEY"], token=TOKEN)


# By the file, and the route types that have one stand-in together.
_STANDINS: dict[str, dict[tuple[str, ...], Callable[[], Any]]] = {
    "openai.yaml": {(): lambda: OpenAI(ENV["DECK_OPENAI_API_KEY"])},
    "azure.yaml": {(): _azure},
    "xai.yaml": {(): lambda: OpenAI(ENV["DECK_XAI_API_KEY"])},
    "bedrock.yaml": {
        (IMAGES, EDITS): providers.bedrock,
        (VIDEOS,): lambda: AsyncBedrock(*AWS_KEYS),
        (FILES, BATCHES): BedrockBatches,
    },
    "gemini.yaml": {
        (IMAGES, EDITS): GeminiImages,
        (VIDEOS,): VeoPublic,
        (FILES, BATCHES): GeminiFiles,
    },
    "vertex.yaml": {(IMAGES, EDITS): VertexImages, (VIDEOS,): VeoVertex},
    "anthropic.yaml": {(BATCHES,): AnthropicBatches},
    "dashscope.yaml": {(IMAGES, EDITS): DashscopeImages},
}
_TEXT = ("llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings")
_OWN_RESPONSES = ("azure", "openai", "xai")


class World(NamedTuple):
    """A file behind a gateway, pointed at stand-ins."""

    running: RunningGateway
    client: AsyncOpenAI
    upstream: Any
    """Of the route that is asked about."""
    model: str


def _routes() -> list[tuple[str, str]]:
    """Those for OpenAI's clients that have more than text, but for two whose stand-ins are of more
    than one address: they have tests of their own."""
    found = []
    for name in _STANDINS:
        for route in examples.routes(examples.deck(name)):
            target = examples.target(route)
            kind, provider = target["route_type"], target["model"]["provider"]
            elsewhere = name == "vertex.yaml" and kind in (FILES, BATCHES)
            text = kind in _TEXT or (kind == RESPONSES and provider not in _OWN_RESPONSES)
            if examples.llm_format(route) == "openai" and not text and not elsewhere:
                found.append((name, route["name"]))
    return found


def _factory(name: str, kind: str) -> tuple[tuple[str, ...], Callable[[], Any]]:
    for kinds, factory in _STANDINS[name].items():
        if not kinds or kind in kinds:
            return kinds, factory
    raise AssertionError(kind)


@contextlib.asynccontextmanager
async def _world(gateway: GatewayFactory, name: str, route: Json) -> AsyncIterator[World]:
    """The route's file, with what shares its stand-in pointed there."""
    deck, kind = examples.deck(name), examples.target(route)["route_type"]
    kinds, factory = _factory(name, kind)
    async with factory() as upstream:
        for each in examples.routes(deck):
            target = examples.target(each)
            if not kinds or target["route_type"] in kinds:
                examples.point(target, upstream.url)
        running = await gateway(dumped(deck), env=ENV)
        base = f"{running.url}{examples.path(route).partition('/v1')[0]}/v1"
        async with _openai(base) as client:
            model = examples.target(route)["model"].get("name", "any-model")
            yield World(running, client, upstream, model)
        assert upstream.failures == []
        _check_heads(upstream)


def _openai(base_url: str) -> AsyncOpenAI:
    sockets = base_url.replace("http://", "ws://")
    return AsyncOpenAI(
        base_url=base_url,
        websocket_base_url=sockets,
        api_key=CLIENTS_OWN,
        max_retries=0,
        timeout=20,
    )


def _check_heads(*upstreams: Any) -> None:
    """What a provider saw of the client and of the gateway."""
    for upstream in upstreams:
        for seen in getattr(upstream, "requests", ()):
            head = f"{seen.path} {dict(seen.headers)}"
            assert CLIENTS_OWN not in head
            assert "x-kong-ai" not in head.lower()


# ---- what a client does with each


async def _images(world: World) -> None:
    made = await world.client.images.generate(model=world.model, prompt="a river", n=1)
    assert made.data
    assert made.data[0].b64_json or made.data[0].url


async def _edits(world: World) -> None:
    made = await world.client.images.edit(
        model=world.model, image=("river.png", PICTURE, "image/png"), prompt="a bridge"
    )
    assert made.data
    assert made.data[0].b64_json or made.data[0].url


async def _videos(world: World) -> None:
    videos = world.client.videos
    made = await videos.create_and_poll(
        model=world.model,
        prompt="a river",
        size="1280x720",
        input_reference=("frame.png", PICTURE, "image/png"),
        poll_interval_ms=5,
    )
    assert made.status == "completed"
    content = (await videos.download_content(made.id)).content
    assert content == FILM or content[4:8] == b"ftyp"


async def _files(world: World) -> None:
    files = world.client.files
    made = await files.create(file=("notes.txt", b"Hello"), purpose="user_data")
    assert (await files.retrieve(made.id)).filename == "notes.txt"
    assert made.id in [each.id async for each in files.list()]
    if not isinstance(world.upstream, GeminiFiles):  # lets nothing be downloaded but its own
        assert (await files.content(made.id)).content == b"Hello"
    assert (await files.delete(made.id)).deleted


def _line(model: str) -> bytes:
    message = {"role": "user", "content": "Hello"}
    body = {"model": model, "max_tokens": 99, "messages": [message]}
    line = {"custom_id": "one", "method": "POST", "url": CHAT_URL, "body": body}
    return json.dumps(line).encode() + b"\n"


async def _batches(world: World) -> None:
    client, model = world.client, "gemini-2.5-flash"
    if isinstance(world.upstream, BedrockBatches):
        model = "us.amazon.nova-lite-v1:0"
    if isinstance(world.upstream, AnthropicBatches):
        await _inline_batches(world)
        return
    file = await client.files.create(file=("in.jsonl", _line(model)), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint=CHAT_URL, completion_window="24h"
    )
    assert batch.id in [each.id async for each in client.batches.list()]
    again = await client.batches.retrieve(batch.id)
    assert (again.id, again.input_file_id) == (batch.id, file.id)


async def _inline_batches(world: World) -> None:
    client, line = world.client, json.loads(_line("claude-sonnet-4-6"))
    batch = await client.batches.create(
        input_file_id="inline",
        endpoint=CHAT_URL,
        completion_window="24h",
        extra_body={"requests": [{"custom_id": line["custom_id"], "body": line["body"]}]},
    )
    turn = providers.Turn(text="Hello from afar.")
    world.upstream.finish(batch.id.removeprefix("batch_"), {"one": turn})
    ended = await client.batches.retrieve(batch.id)
    output = await client.files.content(ended.output_file_id or "")
    assert "Hello from afar." in output.text


async def _responses(world: World) -> None:
    responses = world.client.responses
    made = await responses.create(model=world.model, input="Hello")
    assert made.output_text
    assert (await responses.retrieve(made.id)).output_text == made.output_text


async def _assistants(world: World) -> None:
    beta = world.client.beta
    made = await beta.assistants.create(model="gpt-4o")
    thread = await beta.threads.create()
    run = await beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=made.id, poll_interval_ms=1
    )
    assert run.status == "completed"
    assert (await beta.assistants.delete(made.id)).deleted


async def _speech(world: World) -> None:
    made = await world.client.audio.speech.create(
        model=world.model, voice="alloy", input="Hello", response_format="wav"
    )
    assert made.content.startswith(b"RIFF")


def _sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(bytes(3200))
    return file.getvalue()


async def _transcriptions(world: World) -> None:
    made = await world.client.audio.transcriptions.create(
        model=world.model, file=("talk.wav", _sound())
    )
    assert made.text


async def _translations(world: World) -> None:
    made = await world.client.audio.translations.create(
        model=world.model, file=("talk.wav", _sound())
    )
    assert made.text


async def _realtime(world: World) -> None:
    async with world.client.realtime.connect(model=world.model) as connection:
        assert (await connection.recv()).type == "session.created"


_USES: dict[str, Callable[[World], Awaitable[None]]] = {
    IMAGES: _images,
    EDITS: _edits,
    VIDEOS: _videos,
    FILES: _files,
    BATCHES: _batches,
    RESPONSES: _responses,
    REALTIME: _realtime,
    "llm/v1/assistants": _assistants,
    "audio/v1/audio/speech": _speech,
    "audio/v1/audio/transcriptions": _transcriptions,
    "audio/v1/audio/translations": _translations,
}


@pytest.mark.parametrize(("name", "route"), _routes())
async def test_a_route_for_openais_client(gateway: GatewayFactory, name: str, route: str) -> None:
    (found,) = (each for each in examples.routes(examples.deck(name)) if each["name"] == route)
    async with _world(gateway, name, found) as world:
        await _USES[examples.target(found)["route_type"]](world)


async def test_vertex_files_and_batches(gateway: GatewayFactory) -> None:
    deck = examples.deck("vertex.yaml")
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(Storage("my-bucket"))
        jobs = await stack.enter_async_context(VertexBatches(storage))
        for route in examples.routes(deck):
            target = examples.target(route)
            if target["route_type"] in (FILES, BATCHES):
                is_file = target["route_type"] == FILES
                examples.point(target, storage.url if is_file else jobs.url)
        running = await gateway(dumped(deck), env=ENV)
        client = await stack.enter_async_context(_openai(f"{running.url}/vertex/v1"))
        await _files(World(running, client, storage, ""))
        await _batches(World(running, client, jobs, ""))
        assert storage.failures + jobs.failures == []
        _check_heads(storage, jobs)


# ---- native formats


@contextlib.asynccontextmanager
async def _native(
    gateway: GatewayFactory, name: str, route: str, upstream: Any
) -> AsyncIterator[str]:
    """The address of a route whose provider is `upstream`, which is started."""
    deck = examples.deck(name)
    async with upstream:
        (found,) = (each for each in examples.routes(deck) if each["name"] == route)
        examples.point(examples.target(found), upstream.url)
        running = await gateway(dumped(deck), env=ENV)
        yield running.url + examples.path(found)
        assert upstream.failures == []
        _check_heads(upstream)


async def test_google_genai_uploads_files_and_makes_batches(gateway: GatewayFactory) -> None:
    upstream = GeminiFiles()
    async with _native(gateway, "google-genai.yaml", "google-genai", upstream) as url:
        options = types.HttpOptions(base_url=url, timeout=20_000)
        client = genai.Client(api_key=CLIENTS_OWN, http_options=options).aio
        line = {"key": "1", "request": {"contents": [{"parts": [{"text": "Hello"}]}]}}
        config = types.UploadFileConfig(mime_type="jsonl")
        file = await client.files.upload(
            file=io.BytesIO(json.dumps(line).encode() + b"\n"), config=config
        )
        batch = await client.batches.create(
            model="gemini-2.5-flash",
            src=file.name or "",
            config=types.CreateBatchJobConfig(display_name="one"),
        )
        assert (await client.batches.get(name=batch.name or "")).name == batch.name
        await client.files.delete(name=file.name or "")
        await client.aclose()


@pytest.fixture
def my_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in of Gemini Live takes the credentials and the project of the examples, and
    Google's client speaks to a gateway without TLS."""
    monkeypatch.setattr(gemini_live_api, "KEY", ENV["DECK_GEMINI_API_KEY"])
    monkeypatch.setattr(gemini_live_api, "TOKEN", TOKEN)
    monkeypatch.setattr(gemini_live_api, "PLACE", "projects/my-project/locations/us-central1")
    connect: Any = vars(live)["ws_connect"]

    def plain(uri: str, **options: Any) -> Any:
        options.pop("ssl", None)
        return connect(uri.replace("wss://", "ws://"), **options)

    monkeypatch.setattr(live, "ws_connect", plain)


@pytest.mark.usefixtures("my_live")
@pytest.mark.parametrize(
    ("name", "route"), [("google-genai.yaml", "google-genai-live"), ("vertex.yaml", "vertex-live")]
)
async def test_gemini_live(gateway: GatewayFactory, name: str, route: str) -> None:
    is_vertex = name == "vertex.yaml"
    upstream = GeminiLive(vertex=is_vertex)
    async with _native(gateway, name, route, upstream) as url:
        if is_vertex:  # the whole address, as the example says
            options = types.HttpOptions(base_url=url.replace("http", "ws"))
            client = genai.Client(vertexai=True, http_options=options)
        else:
            options = types.HttpOptions(base_url=url.removesuffix("/ws"))
            client = genai.Client(api_key=CLIENTS_OWN, http_options=options)
        async with client.aio.live.connect(model=gemini_live_api.MODEL) as session:
            await session.send_client_content(turns=types.Content(parts=[types.Part(text="hi")]))
            texts = [message.text or "" async for message in session.receive()]
        assert "".join(texts) == "Hello there."


async def test_vertex_ranks(gateway: GatewayFactory) -> None:
    upstream = DiscoveryEngine()
    async with _native(gateway, "vertex.yaml", "vertex-native", upstream) as url:
        body = {"query": "rivers", "records": [{"id": "1", "content": "The Aare"}]}
        path = "/v1/rankingConfigs/default_ranking_config:rank"
        async with _openai(url) as client:
            answer = await client.post(path, body=body, cast_to=object)
        assert answer == {"records": [{"id": "1", "content": "The Aare", "score": 0.9}]}


async def test_anthropics_message_batches(gateway: GatewayFactory) -> None:
    upstream = AnthropicBatches()
    async with (
        _native(gateway, "anthropic.yaml", "anthropic-native", upstream) as url,
        anthropic.AsyncAnthropic(api_key=CLIENTS_OWN, base_url=url, max_retries=0) as client,
    ):
        batches = client.messages.batches
        params: Any = json.loads(_line("claude-sonnet-4-6"))["body"]
        batch = await batches.create(requests=[{"custom_id": "one", "params": params}])
        upstream.finish(batch.id, {"one": providers.Turn(text="Hello from afar.")})
        (answer,) = [each async for each in await batches.results(batch.id)]
        assert answer.custom_id == "one"


async def test_cohere_reranks(gateway: GatewayFactory) -> None:
    upstream = providers.cohere()
    async with (
        _native(gateway, "cohere-client.yaml", "cohere-client", upstream) as url,
        httpx.AsyncClient(timeout=20) as http,
    ):
        client = cohere.AsyncClientV2(CLIENTS_OWN, base_url=url, httpx_client=http)
        answer = await client.rerank(model="rerank-v3.5", query="rivers", documents=["a", "b"])
        assert len(answer.results) == 2


def _aws(service: str, url: str) -> Any:
    return boto3.client(
        service,
        "us-east-1",
        endpoint_url=url,
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        config=Config(retries={"max_attempts": 0}),
    )


def _reranks(url: str) -> None:
    arn = "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"
    model = {"modelConfiguration": {"modelArn": arn}}
    text = {"type": "TEXT", "textDocument": {"text": "The Aare"}}
    answer = _aws("bedrock-agent-runtime", url).rerank(
        queries=[{"type": "TEXT", "textQuery": {"text": "rivers"}}],
        sources=[{"type": "INLINE", "inlineDocumentSource": text}],
        rerankingConfiguration={
            "type": "BEDROCK_RERANKING_MODEL",
            "bedrockRerankingConfiguration": model,
        },
    )
    assert len(answer["results"]) == 1


def _invokes_later(url: str) -> None:
    client = _aws("bedrock-runtime", url)
    began = client.start_async_invoke(
        modelId="amazon.nova-reel-v1:1",
        clientRequestToken="token-1",
        modelInput={
            "taskType": "TEXT_VIDEO",
            "textToVideoParams": {"text": "a river"},
            "videoGenerationConfig": {"durationSeconds": 6, "fps": 24, "dimension": "1280x720"},
        },
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://my-bucket/videos"}},
    )
    shown = client.get_async_invoke(invocationArn=began["invocationArn"])
    assert shown["status"] == "InProgress"


def _has_jobs(url: str) -> None:
    client = _aws("bedrock", url)
    made = client.create_model_invocation_job(
        jobName="job-1",
        roleArn="arn:aws:iam::123456789012:role/bedrock-batch",
        modelId="us.amazon.nova-lite-v1:0",
        modelInvocationType="Converse",
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://my-bucket/in.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://my-bucket/out/"}},
    )
    assert client.get_model_invocation_job(jobIdentifier=made["jobArn"])["jobName"] == "job-1"
    assert len(client.list_model_invocation_jobs()["invocationJobSummaries"]) == 1


def _bucket() -> BedrockBatches:
    """With the input of a job."""
    found = BedrockBatches()
    message = {"role": "user", "content": [{"text": "Hello"}]}
    line = {"recordId": "one", "modelInput": {"messages": [message]}}
    found.objects["in.jsonl"] = Stored(json.dumps(line).encode())
    return found


@pytest.mark.parametrize(
    ("upstream", "use"),
    [
        (BedrockAgents, _reranks),
        (lambda: AsyncBedrock(*AWS_KEYS), _invokes_later),
        (_bucket, _has_jobs),
    ],
    ids=["rerank", "async-invoke", "model-invocation-job"],
)
async def test_boto3(
    gateway: GatewayFactory, upstream: Callable[[], Any], use: Callable[[str], None]
) -> None:
    async with _native(gateway, "boto3.yaml", "boto3", upstream()) as url:
        await asyncio.to_thread(use, url)
