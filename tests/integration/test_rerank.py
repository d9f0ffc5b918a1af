"""Reranking, in the words of those who have it: the official clients of Cohere and AWS, and
Google's REST, through Kong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import cohere
import httpx
import pytest
import pytest_asyncio
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from botocore.exceptions import ClientError  # type: ignore[import-untyped, unused-ignore]

from tests import decks, providers
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import ACCESS_KEY, BEARER, CLIENTS_OWN, OPERATORS_KEY, Json
from tests.providers import Turn, Upstream
from tests.providers.ranking_apis import BedrockAgents, DiscoveryEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

gateway = text_world.gateway

COHERES, AMAZONS, GOOGLES = "rerank-v3.5", "cohere.rerank-v3-5:0", "semantic-ranker-default@latest"
ARN = f"arn:aws:bedrock:eu-central-1::foundation-model/{AMAZONS}"
OTHER = "arn:aws:bedrock:eu-central-1::foundation-model/amazon.rerank-v1:0"
RANKING = "/v1/projects/theirs/locations/global/rankingConfigs/default_ranking_config:rank"


@dataclass
class World:
    """Who reranks, behind one gateway: with any model below /any, with one below /held,
    with one of another name below /aliased."""

    gateway: RunningGateway
    cohere: Upstream
    amazon: Upstream
    google: Upstream
    http: httpx.AsyncClient


def target(llm_format: str, upstream: Upstream, auth: Json, weight: int, **model: Any) -> Json:
    options = {"upstream_url": upstream.url, **model.pop("options", {})}
    return {
        "route_type": "llm/v1/chat",
        "weight": weight,
        "auth": auth,
        "model": {"provider": llm_format, "options": options, **model},
    }


def several(world: tuple[Upstream, Upstream, Upstream], aws: Json) -> Json:
    """Bedrock, which knows no reranking of Cohere's format, and two models of Cohere's."""
    region = {"bedrock": {"aws_region": "eu-central-1"}}
    return {
        "llm_format": "cohere",
        "balancer": {
            "algorithm": "priority",
            "retries": 3,
            "failover_criteria": ["error", "http_503", "non_idempotent"],
        },
        "targets": [
            target("bedrock", world[1], aws, 3, name=AMAZONS, options=region),
            target("cohere", world[0], BEARER, 2, name=COHERES),
            target("cohere", world[0], BEARER, 1, name="rerank-v4.0-pro"),
        ],
    }


def deck(world: tuple[Upstream, Upstream, Upstream]) -> str:
    aws = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
    place = {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "us-central1",
    }
    rows: tuple[tuple[str, str, Json, Json], ...] = (
        ("cohere", COHERES, BEARER, {}),
        ("bedrock", AMAZONS, aws, {"bedrock": {"aws_region": "eu-central-1"}}),
        ("gemini", GOOGLES, BEARER, {"gemini": place}),
    )
    routes = []
    for (name, model, auth, options), upstream in zip(rows, world, strict=True):
        held = {"name": model}
        aliased = {**held, "model_alias": "ranker"}
        for path, named in (("/any", {}), ("/held", held), ("/aliased", aliased)):
            config = {
                "llm_format": name,
                "route_type": "llm/v1/chat",
                "auth": auth,
                "model": {
                    "provider": name,
                    "options": {"upstream_url": upstream.url, **options},
                    **named,
                },
                "logging": {"log_statistics": bool(named)},
            }
            routes.append(decks.route(f"{path}/{name}", config, response_buffering=False))
    routes.append(decks.route("/several/cohere", several(world, aws), "ai-proxy-advanced"))
    return decks.deck(*routes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        upstreams = (
            providers.cohere(),
            BedrockAgents(ACCESS_KEY, OPERATORS_KEY, region="eu-central-1"),
            DiscoveryEngine(),
        )
        for upstream in upstreams:
            await stack.enter_async_context(upstream)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        yield World(await gateway(deck(upstreams)), *upstreams, http)


@pytest.fixture
def world(made_world: World) -> Iterator[World]:
    upstreams = (made_world.cohere, made_world.amazon, made_world.google)
    for upstream in upstreams:
        upstream.requests.clear()
        upstream.failures.clear()
        upstream.script(text="Rivers run to the sea.")
    yield made_world
    for upstream in upstreams:
        assert upstream.failures == []
        for seen in upstream.requests:
            assert CLIENTS_OWN not in f"{seen.path}?{seen.query} {dict(seen.headers)}"


# ---- Cohere


def of_cohere(world: World, path: str) -> cohere.AsyncClientV2:
    url = f"{world.gateway.url}{path}/cohere"
    return cohere.AsyncClientV2(
        CLIENTS_OWN, base_url=url, timeout=20, max_retries=0, httpx_client=world.http
    )


@pytest.mark.parametrize("path", ["/any", "/held"])
async def test_cohere_reranks(world: World, path: str) -> None:
    answer = await of_cohere(world, path).rerank(
        model=COHERES, query="rivers", documents=["a", "b", "c"], top_n=2
    )
    assert [(each.index, each.relevance_score > 0) for each in answer.results] == [
        *((0, True), (1, True)),
    ]
    assert answer.meta
    assert answer.meta.billed_units
    assert answer.meta.billed_units.search_units == 1
    (seen,) = world.cohere.requests
    assert (seen.path, seen.json["model"]) == ("/v2/rerank", COHERES)
    assert seen.headers["Authorization"] == f"Bearer {OPERATORS_KEY}"


async def test_cohere_reranks_in_its_first_version(world: World) -> None:
    client = cohere.AsyncClient(
        CLIENTS_OWN,
        base_url=f"{world.gateway.url}/held/cohere",
        timeout=20,
        httpx_client=world.http,
    )
    answer = await client.rerank(query="rivers", documents=["a", "b"])
    assert [each.index for each in answer.results] == [0, 1]
    (seen,) = world.cohere.requests
    assert (seen.path, seen.json["model"]) == ("/v1/rerank", COHERES)


async def test_cohere_gets_the_model_for_the_alias(world: World) -> None:
    await of_cohere(world, "/aliased").rerank(model="ranker", query="rivers", documents=["a"])
    assert world.cohere.requests[-1].json["model"] == COHERES


async def test_cohere_is_held_to_the_configured_model(world: World) -> None:
    with pytest.raises(cohere.BadRequestError, match="model"):
        await of_cohere(world, "/held").rerank(model="other", query="rivers", documents=["a"])
    assert world.cohere.requests == []


async def test_another_target_reranks_with_its_own_model(world: World) -> None:
    """Whoever has no reranking is passed over; the next one starts from what the client sent."""
    world.cohere.script(Turn(status=503), Turn())
    url = f"{world.gateway.url}/several/cohere/v2/rerank"
    body = {"query": "rivers", "documents": ["a", "b"], "top_n": 1}
    answer = await world.http.post(url, json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == 1
    assert [seen.json for seen in world.cohere.requests] == [
        {**body, "model": COHERES},
        {**body, "model": "rerank-v4.0-pro"},
    ]
    assert world.amazon.requests == []


async def test_coheres_errors_stay_as_they_are(world: World) -> None:
    world.cohere.script(status=429, message="Slow down.")
    with pytest.raises(cohere.TooManyRequestsError, match=r"Slow down\."):
        await of_cohere(world, "/held").rerank(model=COHERES, query="rivers", documents=["a"])


# ---- Bedrock


@contextlib.contextmanager
def of_amazon(world: World, path: str) -> Iterator[Any]:
    session = boto3.Session(
        aws_access_key_id=CLIENTS_OWN, aws_secret_access_key=CLIENTS_OWN, region_name="us-east-1"
    )
    client = session.client(
        "bedrock-agent-runtime",
        endpoint_url=f"{world.gateway.url}{path}/bedrock",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )
    yield client
    client.close()


async def in_thread(work: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        return await asyncio.to_thread(work)


def reranking(model: str = ARN) -> Json:
    text = {"type": "TEXT", "textDocument": {"text": "a"}}
    source = {
        "type": "INLINE",
        "inlineDocumentSource": text,
    }
    return {
        "queries": [{"type": "TEXT", "textQuery": {"text": "rivers"}}],
        "sources": [source, source],
        "rerankingConfiguration": {
            "type": "BEDROCK_RERANKING_MODEL",
            "bedrockRerankingConfiguration": {
                "numberOfResults": 1,
                "modelConfiguration": {"modelArn": model},
            },
        },
    }


@pytest.mark.parametrize("path", ["/any", "/held"])
async def test_bedrock_reranks(world: World, path: str) -> None:
    with of_amazon(world, path) as client:
        answer = await in_thread(lambda: client.rerank(**reranking()))
    assert [(each["index"], each["relevanceScore"]) for each in answer["results"]] == [(0, 0.9)]
    (seen,) = world.amazon.requests
    assert (seen.path, seen.json) == ("/rerank", reranking())
    assert f"Credential={ACCESS_KEY}/" in seen.headers["Authorization"]


async def test_bedrock_reranks_below_a_model_as_kong_has_it(world: World) -> None:
    url = f"{world.gateway.url}/held/bedrock/model/{AMAZONS}/rerank"
    answer = await world.http.post(url, json=reranking())
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == 1
    assert world.amazon.requests[-1].path == "/rerank"


async def test_bedrock_is_held_to_the_configured_model(world: World) -> None:
    with of_amazon(world, "/held") as client, pytest.raises(ClientError) as refused:
        await in_thread(lambda: client.rerank(**reranking(OTHER)))
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert f"cannot use own model - must be: {AMAZONS}" in str(refused.value)
    assert world.amazon.requests == []


def asking(model: str) -> Json:
    base = {"knowledgeBaseId": "KB12345678", "modelArn": model}
    return {
        "input": {"text": "Where do rivers run?"},
        "retrieveAndGenerateConfiguration": {
            "type": "KNOWLEDGE_BASE",
            "knowledgeBaseConfiguration": base,
        },
    }


async def test_knowledge_bases_answer(world: World) -> None:
    with of_amazon(world, "/any") as client:
        answer = await in_thread(lambda: client.retrieve_and_generate(**asking(ARN)))
        streamed = await in_thread(
            lambda: list(client.retrieve_and_generate_stream(**asking(ARN))["stream"])
        )
    assert answer["output"]["text"] == "Rivers run to the sea."
    assert streamed == [{"output": {"text": "Rivers run to the sea."}}]


async def test_knowledge_bases_are_held_to_the_configured_model(world: World) -> None:
    with of_amazon(world, "/held") as client:
        answer = await in_thread(lambda: client.retrieve_and_generate(**asking(ARN)))
        assert answer["output"]["text"] == "Rivers run to the sea."
        with pytest.raises(ClientError, match="cannot use own model"):
            await in_thread(lambda: client.retrieve_and_generate_stream(**asking(OTHER)))
    assert [seen.path for seen in world.amazon.requests] == ["/retrieveAndGenerate"]


# ---- Vertex AI


async def rank(world: World, path: str, **more: Any) -> httpx.Response:
    records = [{"id": "1", "title": "Seine", "content": "a river"}, {"id": "2", "content": "b"}]
    return await world.http.post(
        f"{world.gateway.url}{path}/gemini{RANKING}",
        json={"query": "rivers", "records": records, **more},
        headers={"authorization": f"Bearer {CLIENTS_OWN}", "x-goog-user-project": "theirs"},
    )


@pytest.mark.parametrize("path", ["/any", "/held"])
async def test_vertex_ranks(world: World, path: str) -> None:
    answer = await rank(world, path, model=GOOGLES, topN=1)
    assert answer.status_code == 200, answer.text
    (record,) = answer.json()["records"]
    assert (record["id"], record["title"], record["score"]) == ("1", "Seine", 0.9)
    (seen,) = world.google.requests
    assert seen.path == RANKING.replace("theirs", "acme")
    assert seen.headers["Authorization"] == f"Bearer {OPERATORS_KEY}"


@pytest.mark.parametrize(
    ("path", "named"), [("/held", {}), ("/aliased", {"model": "ranker"})], ids=["none", "alias"]
)
async def test_vertex_gets_the_configured_model(world: World, path: str, named: Json) -> None:
    answer = await rank(world, path, **named)
    assert answer.status_code == 200, answer.text
    assert world.google.requests[-1].json["model"] == GOOGLES


async def test_without_a_configured_one_vertex_has_its_own(world: World) -> None:
    answer = await rank(world, "/any")
    assert answer.status_code == 200, answer.text
    assert "model" not in world.google.requests[-1].json


async def test_vertex_is_held_to_the_configured_model(world: World) -> None:
    answer = await rank(world, "/held", model="semantic-ranker-512-003")
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert f"must be: {GOOGLES}" in answer.json()["error"]["message"]
    assert world.google.requests == []


# ---- whoever does not


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/held/gemini/v1/projects/p/locations/global/rankingConfigs/../x:rank", {"query": "q"}),
        ("/held/bedrock/rerank/../x", reranking()),
    ],
)
async def test_paths_that_lead_elsewhere_are_refused(world: World, path: str, body: Json) -> None:
    url = httpx.URL(world.gateway.url).copy_with(raw_path=path.encode())
    answer = await world.http.post(url, json=body)
    assert answer.status_code in (400, 404)
    for upstream in (world.cohere, world.amazon, world.google):
        assert upstream.requests == []
