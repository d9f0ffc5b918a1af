"""Operations of a provider's own format that neither chat nor rerank: each through a whole gateway,
asked for by the provider's own client, or with the path that Kong's reference has."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import boto3  # type: ignore[import-untyped, unused-ignore]
import httpx
import pytest
import pytest_asyncio
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from botocore.exceptions import ClientError  # type: ignore[import-untyped, unused-ignore]
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials

from tests import decks, providers
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import ACCESS_KEY, BEARER, CLIENTS_OWN, OPERATORS_KEY, Json
from tests.providers import Recorded, Turn, Upstream, Usage, aws
from tests.providers.bedrock_api import Bedrock
from tests.providers.bedrock_videos_api import AsyncBedrock
from tests.providers.ranking_apis import BedrockAgents
from tests.providers.upstream import Reply, Routes, route
from tests.providers.veo_api import VeoPublic
from tests.providers.video_jobs_api import FILM

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # google-genai derives from aiohttp's session.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),
]

gateway = text_world.gateway

REGION = "eu-central-1"
CLAUDE, NOVA, REEL = "anthropic.claude-sonnet-4-6", "amazon.nova-pro-v1:0", "amazon.nova-reel-v1:1"
EMBEDDING, VEO = "gemini-embedding-001", "veo-3.1-generate-preview"
_FILE = re.compile(r"/files/([^:]+):download")
ARN = f"arn:aws:bedrock:{REGION}::foundation-model/{NOVA}"
_RUNTIME = aws.service("bedrock-runtime")
_COUNT = _RUNTIME.operation_model("CountTokens")
_APPLY = _RUNTIME.operation_model("ApplyGuardrail")


class Runtime(Bedrock):
    """bedrock-runtime, with what is no question to a model."""

    ROUTES: ClassVar[Routes] = (
        *Bedrock.ROUTES,
        (route("POST", "/model/{modelId}/count-tokens"), "count"),
        (
            route("POST", "/guardrail/{guardrailIdentifier}/version/{guardrailVersion}/apply"),
            "apply",
        ),
    )

    def count(self, request: Recorded, turn: Turn, **path: str) -> Reply:
        """CountTokens"""
        aws.request_params(_COUNT, request, path)
        return Reply(aws.answer(_COUNT, {"inputTokens": turn.usage.input}))

    def apply(self, request: Recorded, turn: Turn, **path: str) -> Reply:
        """ApplyGuardrail"""
        aws.request_params(_APPLY, request, path)
        used = dict.fromkeys(_APPLY.output_shape.members["usage"].required_members, 0)
        value = {"usage": used, "action": "NONE", "outputs": [], "assessments": []}
        return Reply(aws.answer(_APPLY, value))


@dataclass
class World:
    """Providers behind one gateway: with any model below /any, with one below /held."""

    gateway: RunningGateway
    upstreams: dict[str, Upstream]
    http: httpx.AsyncClient

    def __getitem__(self, name: str) -> Upstream:
        return self.upstreams[name]

    def google(self, name: str, *, vertex: bool = False) -> genai.Client:
        """Google's client, for the Gemini API or Vertex AI."""
        options = types.HttpOptions(base_url=f"{self.gateway.url}/{name}", timeout=20_000)
        if not vertex:
            return genai.Client(api_key=CLIENTS_OWN, http_options=options)
        return genai.Client(
            vertexai=True,
            project="theirs",
            location="elsewhere",
            credentials=Credentials(token=CLIENTS_OWN),  # type: ignore[no-untyped-call, unused-ignore]
            http_options=options,
        )


def deck(upstreams: dict[str, Upstream]) -> str:
    amazons = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
    key = {"header_name": "x-goog-api-key", "header_value": OPERATORS_KEY}
    region = {"bedrock": {"aws_region": REGION}}
    place = {"api_endpoint": "x.googleapis.com", "project_id": "acme", "location_id": "l"}
    rows: dict[str, tuple[str, str, Json, Json]] = {
        "runtime": ("bedrock", NOVA, amazons, region),
        "agents": ("bedrock", NOVA, amazons, region),
        "later": ("bedrock", REEL, amazons, region),
        "gemini": ("gemini", EMBEDDING, key, {}),
        "veo": ("gemini", VEO, key, {}),
        "vertex": ("gemini", EMBEDDING, BEARER, {"gemini": place}),
    }
    routes = []
    for name, (provider, model, auth, options) in rows.items():
        for path, named in ((f"/{name}", {}), (f"/held/{name}", {"name": model})):
            options = {"upstream_url": upstreams[name].url, **options}
            config = {
                "llm_format": provider,
                "route_type": "llm/v1/chat",
                "auth": auth,
                "model": {"provider": provider, "options": options, **named},
                "logging": {"log_statistics": bool(named)},
            }
            routes.append(decks.route(path, config, response_buffering=False))
    return decks.deck(*routes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        upstreams: dict[str, Upstream] = {
            "runtime": Runtime(ACCESS_KEY, OPERATORS_KEY, region=REGION),
            "agents": BedrockAgents(ACCESS_KEY, OPERATORS_KEY, region=REGION),
            "later": AsyncBedrock(ACCESS_KEY, OPERATORS_KEY, region=REGION),
            "gemini": providers.gemini(),
            "veo": VeoPublic(),
            "vertex": providers.vertex(),
        }
        for upstream in upstreams.values():
            await stack.enter_async_context(upstream)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        yield World(await gateway(deck(upstreams)), upstreams, http)


@pytest.fixture
def world(made_world: World) -> Iterator[World]:
    for upstream in made_world.upstreams.values():
        upstream.requests.clear()
        upstream.failures.clear()
        upstream.script(text="Rivers run to the sea.")
    yield made_world
    for upstream in made_world.upstreams.values():
        assert upstream.failures == []
        for seen in upstream.requests:
            assert CLIENTS_OWN not in f"{seen.path}?{seen.query} {dict(seen.headers)}"


# ---- Bedrock


async def of_amazon(world: World, path: str, use: Callable[[Any], Any]) -> Any:
    """What boto3's client of bedrock-runtime gets below a path, in a thread."""

    def work() -> Any:
        session = boto3.Session(CLIENTS_OWN, CLIENTS_OWN, region_name="us-east-1")
        config = Config(retries={"total_max_attempts": 1}, read_timeout=20)
        url = f"{world.gateway.url}{path}"
        client = session.client("bedrock-runtime", endpoint_url=url, config=config)
        try:
            return use(client)
        finally:
            client.close()

    async with asyncio.timeout(30):
        return await asyncio.to_thread(work)


INVOKED: Json = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Where do rivers run?"}],
}


async def test_an_invoked_model_answers_piece_by_piece(world: World) -> None:
    def use(client: Any) -> list[Json]:
        body = json.dumps(INVOKED)
        answer = client.invoke_model_with_response_stream(modelId=CLAUDE, body=body)
        return [json.loads(each["chunk"]["bytes"]) for each in answer["body"]]

    events = await of_amazon(world, "/runtime", use)
    said = [each["delta"].get("text", "") for each in events if "delta" in each]
    assert "".join(said) == "Rivers run to the sea."
    (seen,) = world["runtime"].requests
    assert seen.path == f"/model/{CLAUDE}/invoke-with-response-stream"
    assert seen.json == INVOKED


QUESTION = {"converse": {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}}


@pytest.mark.parametrize("path", ["/runtime", "/held/runtime"])
async def test_bedrock_counts_tokens(world: World, path: str) -> None:
    world["runtime"].script(usage=Usage(input=33))
    counted = await of_amazon(
        world, path, lambda client: client.count_tokens(modelId=NOVA, input=QUESTION)
    )
    assert counted["inputTokens"] == 33
    assert world["runtime"].requests[-1].path == "/model/amazon.nova-pro-v1%3A0/count-tokens"


async def test_tokens_are_counted_for_the_configured_model_only(world: World) -> None:
    with pytest.raises(ClientError, match=f"must be: {NOVA}"):
        await of_amazon(
            world,
            "/held/runtime",
            lambda client: client.count_tokens(modelId=CLAUDE, input=QUESTION),
        )
    assert world["runtime"].requests == []


async def test_a_guardrail_looks_at_a_text(world: World) -> None:
    answer = await of_amazon(
        world,
        "/held/runtime",
        lambda client: client.apply_guardrail(
            guardrailIdentifier="g1",
            guardrailVersion="1",
            source="INPUT",
            content=[{"text": {"text": "Hello"}}],
        ),
    )
    assert answer["action"] == "NONE"
    assert world["runtime"].requests[-1].path == "/guardrail/g1/version/1/apply"


ASKED: Json = {
    "input": {"text": "Where do rivers run?"},
    "retrieveAndGenerateConfiguration": {
        "type": "KNOWLEDGE_BASE",
        "knowledgeBaseConfiguration": {"knowledgeBaseId": "KB12345678", "modelArn": ARN},
    },
}


@pytest.mark.parametrize("operation", ["retrieveAndGenerate", "retrieveAndGenerateStream"])
@pytest.mark.parametrize("path", ["/agents", "/held/agents"])
async def test_knowledge_bases_answer_below_a_model_as_kong_has_it(
    world: World, path: str, operation: str
) -> None:
    url = f"{world.gateway.url}{path}/model/{NOVA}/{operation}"
    answer = await world.http.post(url, json=ASKED)
    assert answer.status_code == 200, answer.text
    assert b"Rivers run to the sea." in answer.content
    assert world["agents"].requests[-1].path == f"/{operation}"


LATER: Json = {
    "modelId": REEL,
    "modelInput": {
        "taskType": "TEXT_VIDEO",
        "textToVideoParams": {"text": "a river"},
        "videoGenerationConfig": {"durationSeconds": 6, "fps": 24, "dimension": "1280x720"},
    },
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://my-bucket/videos"}},
}


@pytest.mark.parametrize("path", ["/later", "/held/later"])
async def test_models_are_invoked_later_below_their_name_as_kong_has_it(
    world: World, path: str
) -> None:
    url = f"{world.gateway.url}{path}/model/{REEL}/async-invoke"
    answer = await world.http.post(url, json=LATER)
    assert answer.status_code == 200, answer.text
    assert answer.json()["invocationArn"].startswith(f"arn:aws:bedrock:{REGION}:")
    assert world["later"].requests[-1].path == "/async-invoke"


async def test_who_names_another_model_than_the_path_is_refused(world: World) -> None:
    url = f"{world.gateway.url}/held/later/model/{REEL}/async-invoke"
    answer = await world.http.post(url, json={**LATER, "modelId": NOVA})
    assert answer.status_code == 400
    assert f"modelId: cannot use own model - must be: {REEL}" in answer.json()["message"]
    assert world["later"].requests == []


# ---- Google


@pytest.mark.parametrize("path", ["gemini", "held/gemini"])
async def test_one_text_is_embedded(world: World, path: str) -> None:
    """As REST has it; Google's client asks for several at once."""
    url = f"{world.gateway.url}/{path}/v1beta/models/{EMBEDDING}:embedContent"
    body = {"model": f"models/{EMBEDDING}", "content": {"parts": [{"text": "a river"}]}}
    answer = await world.http.post(url, json=body, headers={"x-goog-api-key": CLIENTS_OWN})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["embedding"]["values"]) == 8
    (seen,) = world["gemini"].requests
    assert (seen.path, seen.json) == (f"/v1beta/models/{EMBEDDING}:embedContent", body)


@pytest.mark.parametrize(
    ("path", "model", "operation"),
    [
        ("vertex", EMBEDDING, "embedContent"),
        ("held/vertex", EMBEDDING, "embedContent"),
        ("vertex", "text-embedding-005", "predict"),
    ],
)
async def test_googles_client_of_vertex_embeds_a_text(
    world: World, path: str, model: str, operation: str
) -> None:
    with world.google(path, vertex=True) as client:
        answer = await client.aio.models.embed_content(model=model, contents=["a river"])
        await client.aio.aclose()
    assert answer.embeddings
    (embedding,) = answer.embeddings
    assert len(embedding.values or ()) == 8
    (seen,) = world["vertex"].requests
    place = "/projects/acme/locations/l/publishers/google/models/"
    assert seen.path.endswith(f"{place}{model}:{operation}")


@pytest.mark.parametrize("path", ["veo", "held/veo"])
async def test_a_video_is_made_and_fetched_by_rest_and_googles_client(
    world: World, path: str
) -> None:
    """The client makes videos at Vertex AI only, but fetches them here too. The answer names them
    at Google's host, where the client's own key is none."""
    url = f"{world.gateway.url}/{path}/v1beta/"
    headers = {"x-goog-api-key": CLIENTS_OWN}
    order = {"instances": [{"prompt": "a river"}]}
    start = f"{url}models/{VEO}:predictLongRunning"
    told: Json = (await world.http.post(start, json=order, headers=headers)).json()
    while not told.get("done"):
        told = (await world.http.get(url + told["name"], headers=headers)).json()
    (made,) = told["response"]["generateVideoResponse"]["generatedSamples"]
    # The client reads names of Google's kind only.
    (name,) = _FILE.findall(made["video"]["uri"])
    video = types.File(name=f"files/{name}", download_uri=made["video"]["uri"])
    try:
        with world.google(path) as owner:
            content = await owner.aio.files.download(file=video)
            await owner.aio.aclose()
    finally:
        keys = {seen.headers["x-goog-api-key"] for seen in world["veo"].requests}
        world["veo"].requests.clear()
    assert (content, keys) == (FILM, {OPERATORS_KEY})
