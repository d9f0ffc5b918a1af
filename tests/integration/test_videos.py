"""The official `openai` client has videos made by every provider that makes some; Google's and
AWS's own clients do so natively."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import httpx
import openai
import pytest
import pytest_asyncio
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from openai import AsyncOpenAI
from openai.types import Video

from kong_ai_proxy.gateway.provider import Provider
from tests import decks
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import ACCESS_KEY, CLIENTS_OWN, GOOGLE_TOKEN, OPERATORS_KEY
from tests.providers.bedrock_videos_api import AsyncBedrock
from tests.providers.sora_api import SoraJobs
from tests.providers.upstream import Turn
from tests.providers.veo_api import VeoPublic, VeoVertex
from tests.providers.video_jobs_api import FILM, FILTERED

Standin = VeoPublic | VeoVertex | AsyncBedrock | SoraJobs

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the client says so of videos
]

gateway = text_world.gateway
Json = dict[str, Any]

ROUTE_TYPE = "video/v1/videos/generations"
PATH = "/v1/videos"
VEO, REEL, RAY = "veo-3.1-generate-001", "amazon.nova-reel-v1:1", "luma.ray-v2:0"
OMNI = "gemini-omni-1.1-flash"
BUCKET = "s3://acme-videos/made here"
_VERTEX = {
    "api_endpoint": "us-central1-aiplatform.googleapis.com",
    "project_id": "acme",
    "location_id": "us-central1",
}
_AWS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
_REGION = {"aws_region": "eu-central-1"}


@dataclass
class World:
    running: RunningGateway
    standins: dict[str, Standin]
    shared: AsyncOpenAI

    @asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[AsyncOpenAI]:
        """All have the same connections: making them takes longer than a test."""
        yield self.shared.with_options(base_url=f"{self.running.url}/{name}/v1")


def key(name: str) -> Json:
    return {"header_name": name, "header_value": OPERATORS_KEY}


def deck(standins: dict[str, Standin], openai_url: str, account: str) -> str:
    """All providers with the client's model, one with a configured one, and two natively."""
    google = {"gcp_use_service_account": True, "gcp_service_account_json": account}
    azure = {"azure_instance": "acme", "azure_deployment_id": "sora"}
    routes: dict[str, tuple[str, Json, str, Json, Json]] = {
        "gemini": ("gemini", key("x-goog-api-key"), standins["gemini"].url, {}, {}),
        "vertex": ("gemini", google, standins["vertex"].url, {"gemini": _VERTEX}, {}),
        "bedrock": (
            "bedrock",
            _AWS,
            standins["bedrock"].url,
            {"bedrock": {**_REGION, "video_output_s3_uri": BUCKET}},
            {},
        ),
        "nowhere": ("bedrock", _AWS, standins["bedrock"].url, {"bedrock": _REGION}, {}),
        "sora": ("azure", key("api-key"), standins["sora"].url, azure, {}),
        "configured": (
            "gemini",
            key("x-goog-api-key"),
            standins["gemini"].url,
            {},
            {"logging": {"log_statistics": True}},
        ),
        "openai": ("openai", decks.AUTH, openai_url + PATH, {}, {}),
        "azure": (
            "azure",
            decks.AUTH,
            openai_url + PATH,
            {**azure, "azure_deployment_id": "sora-2"},
            {},
        ),
        "huggingface": ("huggingface", decks.AUTH, openai_url + PATH, {}, {}),
    }
    made = []
    for name, (provider, auth, url, options, changes) in routes.items():
        model: Json = {"provider": provider, "options": {"upstream_url": url, **options}}
        if name in ("configured", "sora"):
            model["name"] = "sora" if name == "sora" else VEO
        config = {"route_type": ROUTE_TYPE, "auth": auth, "model": model, **changes}
        made.append(decks.route(f"/{name}{PATH}", config, response_buffering=False))
        if name in ("vertex", "bedrock"):
            native = {**config, "llm_format": provider, "route_type": "llm/v1/chat"}
            made.append(decks.route(f"/native/{name}", native, response_buffering=False))
    return decks.deck(*made)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        standins: dict[str, Standin] = {
            "gemini": VeoPublic(),
            "vertex": VeoVertex(),
            "bedrock": AsyncBedrock(ACCESS_KEY, OPERATORS_KEY, "eu-central-1"),
            "sora": SoraJobs(),
        }
        for standin in standins.values():
            await stack.enter_async_context(standin)
        of_openai = await Provider.start(api_key=decks.KEY)
        stack.push_async_callback(of_openai.stop)
        token_url = await text_world.token_endpoint(stack)
        account = text_world.service_account(token_url)
        base = of_openai.url.removesuffix("/v1")
        running = await gateway(deck(standins, base, account))
        shared = AsyncOpenAI(
            base_url=running.url,
            api_key=CLIENTS_OWN,
            max_retries=0,
            timeout=20,
            default_headers={"cookie": "session=1"},
        )
        yield World(running, standins, await stack.enter_async_context(shared))


@pytest_asyncio.fixture(loop_scope="module")
async def world(made_world: World) -> AsyncIterator[World]:
    """No jobs yet; afterwards it is checked what the providers saw."""
    for standin in made_world.standins.values():
        standin.jobs.reset()
        standin.requests.clear()
        standin.failures.clear()
        standin.script(Turn())
    yield made_world
    for standin in made_world.standins.values():
        assert standin.failures == []
        for seen in standin.requests:
            everything = f"{seen.path}?{seen.query} {dict(seen.headers)}"
            assert CLIENTS_OWN not in everything
            assert "x-kong-ai" not in everything.lower()
            assert "cookie" not in seen.headers


def picture(width: int = 1280, height: int = 720) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


IMAGE = picture()


@dataclass(frozen=True)
class Case:
    """A provider, and what its model can do."""

    name: str
    model: str
    seconds: Any
    size: Any
    lists: bool = False
    deletes: bool = False


GEMINI = Case("gemini", VEO, "8", "1920x1080")
VERTEX = Case("vertex", VEO, "6", "720x1280")
OMNI_PUBLIC = Case("gemini", OMNI, "8", "1920x1080")
OMNI_VERTEX = Case("vertex", OMNI, "10", "360x640")
NOVA = Case("bedrock", REEL, "6", "1280x720", lists=True)
LUMA = Case("bedrock", RAY, "9", "540x960", lists=True)
SORA = Case("sora", "sora", "10", "1080x1080", lists=True, deletes=True)
CASES = pytest.mark.parametrize(
    "case",
    [GEMINI, VERTEX, OMNI_PUBLIC, OMNI_VERTEX, NOVA, LUMA, SORA],
    ids=["gemini", "vertex", "omni", "omni-vertex", "nova", "luma", "sora"],
)


async def made(client: AsyncOpenAI, case: Case, **more: Any) -> Video:
    """A job, started and waited for."""
    return await client.videos.create_and_poll(
        model=case.model,
        prompt="a river",
        seconds=case.seconds,
        size=case.size,
        poll_interval_ms=5,
        **more,
    )


@CASES
async def test_a_video_from_its_start_to_its_film(world: World, case: Case) -> None:
    async with world.client(case.name) as client:
        video = await made(client, case)
        assert (video.status, video.progress, video.error) == ("completed", 100, None)
        assert (video.model, video.seconds, video.size) == (case.model, case.seconds, case.size)
        assert video.created_at > 1_700_000_000
        content = await client.videos.download_content(video.id)
        assert content.response.headers["content-type"] == "video/mp4"
        assert content.content == FILM
        again = await client.videos.retrieve(video.id)
        assert again.model_dump() == video.model_dump()


@pytest.mark.parametrize(
    "case", [GEMINI, OMNI_PUBLIC, NOVA, SORA], ids=["gemini", "omni", "nova", "sora"]
)
async def test_a_part_of_a_film(world: World, case: Case) -> None:
    """As players and download managers ask for it."""
    async with world.client(case.name) as client:
        video = await made(client, case)
        for asked, status, content in (
            ({"Range": "bytes=4-11"}, 206, FILM[4:12]),
            ({"Range": "bytes=1000-"}, 206, FILM[1000:]),
            ({"Range": "bytes=4-11", "If-Range": '"an-etag"'}, 200, FILM),
            ({"Range": "lines=4-11"}, 200, FILM),
        ):
            raw = await client.videos.with_raw_response.download_content(
                video.id, extra_headers=asked
            )
            assert (raw.status_code, raw.content) == (status, content)
            assert ("content-range" in raw.headers) == (status == 206)
        with pytest.raises(openai.APIStatusError) as caught:
            await client.videos.download_content(
                video.id, extra_headers={"Range": "bytes=9999999-"}
            )
    assert caught.value.status_code == 416
    world.standins[case.name].failures.clear()


@CASES
async def test_a_new_job_is_queued_and_cannot_be_fetched_yet(world: World, case: Case) -> None:
    world.standins[case.name].jobs.polls = 2
    async with world.client(case.name) as client:
        video = await client.videos.create(
            model=case.model, prompt="a river", seconds=case.seconds, size=case.size
        )
        assert (video.status, video.progress, video.prompt) == ("queued", 0, "a river")
        assert (await client.videos.retrieve(video.id)).status == "in_progress"
        with pytest.raises(openai.NotFoundError, match="not ready yet"):
            await client.videos.download_content(video.id)


@CASES
async def test_a_video_that_begins_with_an_image(world: World, case: Case) -> None:
    async with world.client(case.name) as client:
        video = await made(client, case, input_reference=("frame.png", IMAGE))
        assert video.status == "completed"
    (job,) = world.standins[case.name].jobs.kept.values()
    if case is not SORA:  # it sends a file, which its stand-in has looked at
        assert base64.b64encode(IMAGE).decode() in str(job)


@CASES
async def test_a_job_that_the_providers_filters_stop(world: World, case: Case) -> None:
    world.standins[case.name].jobs.refusal = FILTERED
    async with world.client(case.name) as client:
        video = await made(client, case)
        assert video.status == "failed"
        assert video.error
        assert FILTERED in video.error.message
        with pytest.raises(openai.NotFoundError, match="42237218"):
            await client.videos.download_content(video.id)


@CASES
async def test_what_a_provider_has_not_is_said(world: World, case: Case) -> None:
    async with world.client(case.name) as client:
        video = await made(client, case)
        with pytest.raises(openai.NotFoundError, match=r"/remix: [a-z]+ has no such"):
            await client.videos.remix(video.id, prompt="a sea")
        with pytest.raises(openai.BadRequestError, match="variant: expected video"):
            await client.videos.download_content(video.id, variant="spritesheet")
        with pytest.raises(openai.NotFoundError, match="not found"):
            await client.videos.retrieve("video_bm8gam9i")
        if not case.lists:
            with pytest.raises(openai.NotFoundError, match=r"GET /videos: [a-z]+ has no"):
                await client.videos.list()
        if not case.deletes:
            with pytest.raises(openai.NotFoundError, match="DELETE /videos/"):
                await client.videos.delete(video.id)


@CASES
async def test_what_the_model_has_not_is_said_before_it_is_paid_for(
    world: World, case: Case
) -> None:
    async with world.client(case.name) as client:
        for said, text in (
            ({"seconds": "21"}, "seconds: expected "),
            ({"size": "1024x1792"}, "size: expected "),
            ({"prompt": ""}, "prompt: expected "),
            ({"input_reference": ("a.gif", b"GIF89a")}, "input_reference: expected a PNG"),
            ({"input_reference": ("a.png", b"")}, "it is empty"),
        ):
            asked: Json = {"model": case.model, "prompt": "x", **said}
            with pytest.raises(openai.BadRequestError, match=text):
                await client.videos.create(**asked)
    assert world.standins[case.name].requests == []


@pytest.mark.parametrize("case", [NOVA, SORA], ids=["nova", "sora"])
async def test_jobs_are_listed_page_by_page(world: World, case: Case) -> None:
    async with world.client(case.name) as client:
        ids = [(await client.videos.create(model=case.model, prompt="x")).id for _ in range(3)]
        listed = [video.id async for video in client.videos.list(limit=2)]
        assert listed == ids[::-1]
        page = await client.videos.list(limit=1, after=ids[2])
        assert ([video.id for video in page.data], page.has_more) == ([ids[1]], True)


async def test_a_job_is_deleted(world: World) -> None:
    async with world.client("sora") as client:
        video = await made(client, SORA)
        thumbnail = await client.videos.download_content(video.id, variant="thumbnail")
        assert thumbnail.response.headers["content-type"] == "image/jpeg"
        deleted = await client.videos.delete(video.id)
        assert (deleted.id, deleted.deleted) == (video.id, True)
        with pytest.raises(openai.NotFoundError):
            await client.videos.retrieve(video.id)
    world.standins["sora"].failures.clear()


async def test_members_of_the_providers_own(world: World) -> None:
    async with world.client("bedrock") as client:
        raw = await client.videos.with_raw_response.create(
            model=REEL, prompt="x", extra_body={"fps": 24, "seed": 7, "negative_prompt": "boats"}
        )
        assert raw.headers["x-kong-ai-dropped-params"] == "negative_prompt"
        assert raw.headers["x-kong-llm-model"] == f"bedrock/{REEL}"
    (job,) = world.standins["bedrock"].jobs.kept.values()
    assert job["modelInput"]["videoGenerationConfig"]["seed"] == 7


async def test_a_video_of_the_clients_own_shots(world: World) -> None:
    """As JSON text: the client sends a form, in which arrays cannot be told apart."""
    shots = {"shots": [{"text": "a river"}, {"text": "a sea"}]}
    own = {"multiShotManualParams": json.dumps(shots)}
    async with world.client("bedrock") as client:
        raw = await client.videos.with_raw_response.create(model=REEL, prompt="x", extra_body=own)
        assert raw.headers["x-kong-ai-dropped-params"] == "prompt"
        assert raw.parse().seconds == "12"
    (job,) = world.standins["bedrock"].jobs.kept.values()
    assert job["modelInput"]["multiShotManualParams"] == shots


async def test_extra_body_as_kong_documents_it(world: World) -> None:
    body = {"model": REEL, "prompt": "x", "extra_body": {"fps": 24}}
    async with httpx.AsyncClient(base_url=world.running.url) as client:
        answer = await client.post(f"/bedrock{PATH}", json=body)
    assert answer.json()["status"] == "queued"
    (job,) = world.standins["bedrock"].jobs.kept.values()
    assert job["modelInput"]["videoGenerationConfig"]["fps"] == 24


async def test_a_bucket_of_the_clients_choice_on_vertex(world: World) -> None:
    async with world.client("vertex") as client:
        video = await made(client, VERTEX, extra_body={"storageUri": "gs://acme-films/out/"})
        content = await client.videos.download_content(video.id)
        assert content.content == FILM
    assert world.standins["vertex"].requests[-1].path.startswith("/storage/v1/b/acme-films/o/")


async def test_without_a_bucket_bedrock_makes_no_videos(world: World) -> None:
    async with world.client("nowhere") as client:
        with pytest.raises(openai.InternalServerError, match="video_output_s3_uri: expected"):
            await client.videos.create(model=REEL, prompt="x")


async def test_a_film_that_is_no_longer_in_the_bucket(world: World) -> None:
    standin = world.standins["bedrock"]
    assert isinstance(standin, AsyncBedrock)
    async with world.client("bedrock") as client:
        video = await made(client, NOVA)
        standin.written = False
        try:
            with pytest.raises(openai.NotFoundError, match="specified key does not exist"):
                await client.videos.download_content(video.id)
        finally:
            standin.written = True
            standin.failures.clear()


async def test_the_configured_model_is_used(world: World) -> None:
    async with world.client("configured") as client:
        video = await client.videos.create(prompt="a river")
        assert video.model == VEO
        assert (await client.videos.retrieve(video.id)).status == "in_progress"
        with pytest.raises(openai.BadRequestError, match="cannot use own model"):
            await client.videos.create(model="veo-2.0-generate-001", prompt="a river")


@CASES
async def test_errors_of_the_provider_reach_the_client(world: World, case: Case) -> None:
    async with world.client(case.name) as client:
        video = await made(client, case)
        world.standins[case.name].script(Turn(status=429, message="slow down"))
        with pytest.raises(openai.RateLimitError, match="slow down"):
            await client.videos.create(model=case.model, prompt="x")
        with pytest.raises(openai.RateLimitError, match="slow down"):
            await client.videos.download_content(video.id)
        world.standins[case.name].script(Turn(body=b"<html>"))
        with pytest.raises(openai.InternalServerError, match="not usable"):
            await client.videos.retrieve(video.id)


@pytest.mark.parametrize("name", ["openai", "azure", "huggingface"])
async def test_providers_of_openais_own_format(world: World, name: str) -> None:
    async with world.client(name) as client:
        video = await client.videos.create_and_poll(
            model="sora-2",
            prompt="a river",
            seconds="4",
            size="1280x720",
            input_reference=("a.png", IMAGE),
            poll_interval_ms=5,
        )
        assert (video.status, video.model) == ("completed", "sora-2")
        content = await client.videos.download_content(video.id)
        assert content.content[4:8] == b"ftyp"
        assert [each.id async for each in client.videos.list()] == [video.id]
        assert (await client.videos.delete(video.id)).deleted


# ---- natively


async def test_the_client_of_vertex(world: World) -> None:
    async with httpx.AsyncClient() as transport:
        with httpx.Client() as unused:
            client = genai.Client(
                vertexai=True,
                project="the-clients",
                location="europe-west1",
                credentials=Credentials(CLIENTS_OWN),  # type: ignore[no-untyped-call]
                http_options=types.HttpOptions(
                    base_url=f"{world.running.url}/native/vertex",
                    timeout=20_000,
                    httpx_async_client=transport,
                    httpx_client=unused,
                ),
            )
            operation = await client.aio.models.generate_videos(
                model=VEO,
                prompt="a river",
                image=types.Image(image_bytes=IMAGE, mime_type="image/png"),
                config=types.GenerateVideosConfig(number_of_videos=1, duration_seconds=8),
            )
            while not operation.done:
                operation = await client.aio.operations.get(operation)
    assert operation.response
    (found,) = operation.response.generated_videos or []
    assert found.video
    assert found.video.video_bytes == FILM
    for seen in world.standins["vertex"].requests:
        assert seen.headers["authorization"] == f"Bearer {GOOGLE_TOKEN}"


async def test_the_client_of_aws(world: World) -> None:
    def work() -> Json:
        client = boto3.client(
            "bedrock-runtime",
            endpoint_url=f"{world.running.url}/native/bedrock",
            region_name="us-east-1",
            aws_access_key_id=CLIENTS_OWN,
            aws_secret_access_key=CLIENTS_OWN,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
        )
        arn = client.start_async_invoke(
            modelId=REEL,
            modelInput={
                "taskType": "TEXT_VIDEO",
                "textToVideoParams": {"text": "a river"},
                "videoGenerationConfig": {"durationSeconds": 6, "fps": 24, "dimension": "1280x720"},
            },
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://acme-videos"}},
        )["invocationArn"]
        client.get_async_invoke(invocationArn=arn)
        listed = client.list_async_invokes(sortOrder="Descending")["asyncInvokeSummaries"]
        assert [each["invocationArn"] for each in listed] == [arn]
        found: Json = client.get_async_invoke(invocationArn=arn)
        client.close()
        return found

    found = await asyncio.to_thread(work)
    assert found["status"] == "Completed"
    assert found["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].startswith("s3://acme-videos/")
