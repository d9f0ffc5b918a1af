"""Providers at their own addresses, which no `upstream_url` replaces: official clients through a
whole gateway whose way out is a proxy, behind which each host is a stand-in.

Elsewhere stand-ins have one address for all hosts of a provider; here they answer where the
provider does, and nowhere else.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import cohere
import httpx
import orjson
import pytest
import pytest_asyncio
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from openai import AsyncOpenAI
from typing_extensions import override

from tests import decks, providers
from tests.gateways import GatewayFactory
from tests.integration import text_world
from tests.integration.internet import Internet
from tests.integration.known_parts import OwnServer, own_gateway
from tests.integration.text_world import (
    ACCESS_KEY,
    BEARER,
    CLIENTS_OWN,
    GOOGLE_TOKEN,
    OPERATORS_KEY,
    Json,
)
from tests.providers import Recorded, Turn, Upstream, fal_api
from tests.providers.bedrock_batches_api import BedrockBatches
from tests.providers.bedrock_videos_api import AsyncBedrock
from tests.providers.fal_api import Fal
from tests.providers.ranking_apis import BedrockAgents, DiscoveryEngine
from tests.providers.upstream import RefusedError, Reply
from tests.providers.video_jobs_api import FILM

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the client says so of videos
]

gateway = text_world.gateway

REGION = "eu-central-1"
VIDEOS, BATCHES = "acme-videos", "acme-batches"
RUNTIME = f"bedrock-runtime.{REGION}.amazonaws.com"
AGENTS = f"bedrock-agent-runtime.{REGION}.amazonaws.com"
CONTROL = f"bedrock.{REGION}.amazonaws.com"
RANKER = "cohere.rerank-v3-5:0"
ARN = f"arn:aws:bedrock:{REGION}::foundation-model/{RANKER}"
CHAT: Any = "/v1/chat/completions"


def bucket(name: str) -> str:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html"""
    return f"{name}.s3.{REGION}.amazonaws.com"


class _Hosted(Upstream):
    """A stand-in of Bedrock and of a bucket, which its requests have in the path; here the bucket
    is in the host's name."""

    @override
    def _answer(self, seen: Recorded, turn: Turn) -> Reply:
        is_job = seen.path.startswith(("/async-invoke", "/model-invocation-job"))
        if is_job == bool(_bucket_of(seen)):
            raise RefusedError(f"{seen.headers['Host']} has no {seen.path}", 404)
        return super()._answer(replace(seen, path=_bucket_of(seen) + seen.path), turn)

    @override
    def authorize(self, request: Recorded) -> None:
        """A signature is for the path that was sent."""
        sent = request.path.removeprefix(_bucket_of(request))
        super().authorize(replace(request, path=sent))  # type: ignore[safe-super]


def _bucket_of(request: Recorded) -> str:
    """As the beginning of a path; "" where the host names none."""
    name, found, _ = request.headers["Host"].partition(".s3.")
    return f"/{name}" if found else ""


class Films(_Hosted, AsyncBedrock):
    """bedrock-runtime, and a bucket for its videos."""


class Jobs(_Hosted, BedrockBatches):
    """bedrock, and a bucket for its batches."""


@dataclass
class Behind(OwnServer):
    """A plugin server whose way out is a proxy."""

    options: Sequence[str] = ()

    @override
    def command(self, socket: str) -> str:
        return shlex.join([*shlex.split(super().command(socket)), *self.options])


@dataclass
class World:
    """A gateway, and the providers at their hosts."""

    url: str
    internet: Internet
    upstreams: dict[str, Upstream]
    http: httpx.AsyncClient
    shared: AsyncOpenAI

    def openai(self, path: str) -> AsyncOpenAI:
        """OpenAI's client below a path."""
        return self.shared.with_options(base_url=f"{self.url}{path}/v1")

    @property
    def hosts(self) -> set[str]:
        """Those that were called."""
        return {seen.headers["Host"] for each in self.upstreams.values() for seen in each.requests}


def standins() -> dict[str, Upstream]:
    """By host; some are one for several."""
    films = Films(ACCESS_KEY, OPERATORS_KEY, region=REGION)
    jobs = Jobs(BATCHES, access_key=ACCESS_KEY, secret_key=OPERATORS_KEY, region=REGION)
    fal, google = Fal(), DiscoveryEngine()
    return {
        "api.cohere.com": providers.cohere(),
        AGENTS: BedrockAgents(ACCESS_KEY, OPERATORS_KEY, region=REGION),
        RUNTIME: films,
        bucket(VIDEOS): films,
        CONTROL: jobs,
        bucket(BATCHES): jobs,
        "discoveryengine.googleapis.com": google,
        "eu-discoveryengine.googleapis.com": google,
        fal_api.HUB: fal,
        fal_api.ROUTER: fal,
        fal_api.FILES: fal,
    }


def deck(account: str) -> str:
    """Everything is carried by the relay: what Kong carries leaves without a proxy."""
    aws = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
    google = {"gcp_use_service_account": True, "gcp_service_account_json": account}
    place = {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "us-central1",
    }
    films = {"aws_region": REGION, "video_output_s3_uri": f"s3://{VIDEOS}/made"}
    jobs = {
        "aws_region": REGION,
        "batch_bucket_prefix": f"s3://{BATCHES}/own",
        "batch_role_arn": "arn:aws:iam::123456789012:role/batches",
    }
    chat, video = "llm/v1/chat", "video/v1/videos/generations"
    files, batches = "llm/v1/files", "llm/v1/batches"
    rows: tuple[tuple[str, str, str, str, Json, Json], ...] = (
        ("/cohere", "cohere", "cohere", chat, BEARER, {}),
        ("/agents", "bedrock", "bedrock", chat, aws, {"bedrock": {"aws_region": REGION}}),
        ("/google", "gemini", "gemini", chat, google, {"gemini": place}),
        ("/fal/v1/videos", "openai", "huggingface", video, BEARER, {}),
        ("/aws/v1/videos", "openai", "bedrock", video, aws, {"bedrock": films}),
        ("/aws/v1/files", "openai", "bedrock", files, aws, {"bedrock": jobs}),
        ("/aws/v1/batches", "openai", "bedrock", batches, aws, {"bedrock": jobs}),
    )
    return decks.deck(*(_route(*row) for row in rows))


def _route(
    path: str, llm_format: str, provider: str, route_type: str, auth: Json, options: Json
) -> Json:
    config = {
        "llm_format": llm_format,
        "route_type": route_type,
        "auth": auth,
        "model": {"provider": provider, "options": options},
        "logging": {"log_statistics": True},
        "max_request_body_size": 0,
        "model_name_header": False,
    }
    return decks.route(path, config, response_buffering=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(
    gateway: GatewayFactory, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("internet")
    async with AsyncExitStack() as stack:
        hosts = standins()
        for upstream in set(hosts.values()):
            await stack.enter_async_context(upstream)
        internet = await stack.enter_async_context(Internet(folder, hosts))
        account = text_world.service_account(await text_world.token_endpoint(stack))
        server = Behind(folder, options=internet.options)
        running = await stack.enter_async_context(own_gateway(gateway, server, deck(account)))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        shared = AsyncOpenAI(base_url="", api_key=CLIENTS_OWN, max_retries=0, timeout=20)
        await stack.enter_async_context(shared)
        yield World(running.url, internet, hosts, http, shared)


@pytest.fixture
def world(made_world: World) -> Iterator[World]:
    upstreams = set(made_world.upstreams.values())
    for upstream in upstreams:
        upstream.requests.clear()
        upstream.failures.clear()
        upstream.script(text="Rivers run to the sea.")
    yield made_world
    assert [failure for upstream in upstreams for failure in upstream.failures] == []
    assert {each.removesuffix(":443") for each in made_world.internet.asked} <= {
        *made_world.upstreams
    }
    for upstream in upstreams:
        for seen in upstream.requests:
            assert CLIENTS_OWN not in f"{seen.path}?{seen.query} {dict(seen.headers)}"


# ---- reranking


async def test_cohere_reranks(world: World) -> None:
    client = cohere.AsyncClientV2(
        CLIENTS_OWN, base_url=f"{world.url}/cohere", timeout=20, httpx_client=world.http
    )
    answer = await client.rerank(model="rerank-v3.5", query="rivers", documents=["a", "b"])
    assert len(answer.results) == 2
    assert world.hosts == {"api.cohere.com"}


async def test_bedrock_reranks_and_answers_where_its_agents_are(world: World) -> None:
    text = {"type": "TEXT", "textDocument": {"text": "The Aare"}}
    model = {"modelConfiguration": {"modelArn": ARN}}
    ranking = {
        "type": "BEDROCK_RERANKING_MODEL",
        "bedrockRerankingConfiguration": model,
    }
    base = {"knowledgeBaseId": "KB12345678", "modelArn": ARN}

    def use() -> tuple[Json, list[Json]]:
        client = _boto3(world)
        ranked: Json = client.rerank(
            queries=[{"type": "TEXT", "textQuery": {"text": "rivers"}}],
            sources=[{"type": "INLINE", "inlineDocumentSource": text}],
            rerankingConfiguration=ranking,
        )
        said = client.retrieve_and_generate_stream(
            input={"text": "Where do rivers run?"},
            retrieveAndGenerateConfiguration={
                "type": "KNOWLEDGE_BASE",
                "knowledgeBaseConfiguration": base,
            },
        )
        return ranked, list(said["stream"])

    ranked, said = await asyncio.to_thread(use)
    assert [each["index"] for each in ranked["results"]] == [0]
    assert said == [{"output": {"text": "Rivers run to the sea."}}]
    assert world.hosts == {AGENTS}


def _boto3(world: World) -> Any:
    session = boto3.Session(
        aws_access_key_id=CLIENTS_OWN, aws_secret_access_key=CLIENTS_OWN, region_name="us-east-1"
    )
    config = Config(retries={"total_max_attempts": 1}, read_timeout=20)
    return session.client(
        "bedrock-agent-runtime", endpoint_url=f"{world.url}/agents", config=config
    )


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "discoveryengine.googleapis.com"),
        ("eu", "eu-discoveryengine.googleapis.com"),
    ],
)
async def test_vertex_ranks_at_discovery_engine(world: World, location: str, host: str) -> None:
    """With what Google's client for Python, google-cloud-discoveryengine, sends as REST."""
    ranking = f"projects/theirs/locations/{location}/rankingConfigs/default_ranking_config:rank"
    answer = await world.http.post(
        f"{world.url}/google/v1/{ranking}?$alt=json;enum-encoding=int",
        json={"query": "rivers", "records": [{"id": "1", "content": "The Aare"}]},
        headers={"authorization": f"Bearer {CLIENTS_OWN}", "x-goog-user-project": "theirs"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["records"][0]["score"] == 0.9
    (seen,) = world.upstreams[host].requests
    assert (seen.headers["Host"], seen.path) == (host, f"/v1/{ranking.replace('theirs', 'acme')}")
    assert seen.query == "$alt=json;enum-encoding=int"
    assert seen.headers["Authorization"] == f"Bearer {GOOGLE_TOKEN}"
    assert "x-goog-user-project" not in seen.headers


# ---- what takes more than one host


async def _makes_a_film(client: AsyncOpenAI, model: str) -> None:
    made = await client.videos.create_and_poll(model=model, prompt="a river", poll_interval_ms=5)
    assert made.status == "completed"
    assert (await client.videos.download_content(made.id)).content == FILM


async def test_hugging_faces_videos(world: World) -> None:
    """The Hub knows the model's name at the partner, the router asks the partner's queue, and the
    film is among the partner's files."""
    await _makes_a_film(world.openai("/fal"), fal_api.MODEL)
    assert world.hosts == {fal_api.HUB, fal_api.ROUTER, fal_api.FILES}


async def test_bedrocks_videos(world: World) -> None:
    await _makes_a_film(world.openai("/aws"), "amazon.nova-reel-v1:1")
    assert world.hosts == {RUNTIME, bucket(VIDEOS)}


async def test_bedrocks_files_and_batches(world: World) -> None:
    jobs = world.upstreams[CONTROL]
    assert isinstance(jobs, Jobs)
    client = world.openai("/aws")
    body = {"model": "amazon.nova-lite-v1:0", "messages": [{"role": "user", "content": "Hello"}]}
    line = {"custom_id": "one", "method": "POST", "url": CHAT, "body": body}
    file = await client.files.create(file=("in.jsonl", orjson.dumps(line)), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h"
    )
    jobs.finish(next(iter(jobs.jobs)), Turn(text="Hello from afar."))
    done = await client.batches.retrieve(batch.id)
    output = await client.files.content(done.output_file_id or "")
    assert "Hello from afar." in output.text
    assert (await client.files.delete(file.id)).deleted
    assert world.hosts == {CONTROL, bucket(BATCHES)}
