"""Files and batches at Google's and Anthropic's: the official `openai` client uploads requests,
has them answered and reads the answers; Google's and Anthropic's own clients do so natively."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from openai import AsyncOpenAI

from tests import decks
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import CLIENTS_OWN, GOOGLE_TOKEN, OPERATORS_KEY
from tests.providers import Turn, Upstream, Usage
from tests.providers.anthropic_batches_api import AnthropicBatches
from tests.providers.gemini_files_api import GRANULARITY, GeminiFiles
from tests.providers.storage_api import Storage, VertexBatches

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # google-genai derives from aiohttp's session, of which aiohttp warns.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),
    # Nor does it like how google-genai sends the pieces of a file.
    pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes"),
]

gateway = text_world.gateway
Json = dict[str, Any]

CHAT: Any = "/v1/chat/completions"
GEMINI, CLAUDE = "gemini-2.5-flash", "claude-sonnet-4-6"
BUCKET = "the-bucket"
_VERTEX = {
    "api_endpoint": "us-central1-aiplatform.googleapis.com",
    "project_id": "acme",
    "location_id": "us-central1",
}
FOUR = Turn(text="Four.", usage=Usage(input=5, output=2))
BUSY = Turn(status=429, message="too many of them")


@dataclass
class World:
    running: RunningGateway
    gemini: GeminiFiles
    storage: Storage
    vertex: VertexBatches
    anthropic: AnthropicBatches

    @property
    def upstreams(self) -> list[Upstream]:
        return [self.gemini, self.storage, self.vertex, self.anthropic]

    def client(self, name: str) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{self.running.url}/{name}/v1",
            api_key=CLIENTS_OWN,
            max_retries=0,
            timeout=20,
            default_headers={"cookie": "session=1"},
        )

    def check(self, failures: int = 0) -> None:
        """The stand-ins had no complaints, and saw the operator's credentials and no others."""
        found = [each for upstream in self.upstreams for each in upstream.failures]
        assert len(found) == failures, found
        for upstream in self.upstreams:
            for seen in upstream.requests:
                everything = f"{seen.path}?{seen.query} {dict(seen.headers)}"
                assert CLIENTS_OWN not in everything, everything
                assert "x-kong-ai" not in everything.lower(), everything
                assert OPERATORS_KEY in everything or GOOGLE_TOKEN in everything, everything


def deck(world: Mapping[str, str], account: str) -> str:
    """Files and batches of all providers, and their own formats below /native."""
    key = {"header_name": "x-goog-api-key", "header_value": OPERATORS_KEY}
    google = {"gcp_use_service_account": True, "gcp_service_account_json": account}
    claude = {"header_name": "x-api-key", "header_value": OPERATORS_KEY}
    version = {"anthropic_version": "2023-06-01"}
    in_query = {"param_name": "key", "param_value": OPERATORS_KEY, "param_location": "query"}
    routes: list[tuple[str, str, str, Json, str | None, Json]] = [
        ("/gemini/v1/files", "llm/v1/files", "gemini", key, world["gemini"], {}),
        ("/gemini/v1/batches", "llm/v1/batches", "gemini", key, world["gemini"], {}),
        ("/keyed/v1/files", "llm/v1/files", "gemini", in_query, world["gemini"], {}),
        (
            "/vertex/v1/files",
            "llm/v1/files",
            "gemini",
            google,
            f"{world['storage']}/{BUCKET}/ai",
            {"gemini": _VERTEX},
        ),
        (
            "/vertex/v1/batches",
            "llm/v1/batches",
            "gemini",
            google,
            world["vertex"],
            {"gemini": _VERTEX},
        ),
        ("/homeless/v1/files", "llm/v1/files", "gemini", google, None, {"gemini": _VERTEX}),
        ("/anthropic/v1", "llm/v1/batches", "anthropic", claude, world["anthropic"], version),
    ]
    made = []
    for path, route_type, provider, auth, url, options in routes:
        model: Json = {"provider": provider, "options": {"upstream_url": url, **options}}
        config = {"route_type": route_type, "auth": auth, "model": model}
        made.append(decks.route(path, config, response_buffering=False))
    for name, auth, options in (
        ("gemini", key, {}),
        ("vertex", google, {"gemini": _VERTEX}),
        ("anthropic", claude, version),
    ):
        provider = "anthropic" if name == "anthropic" else "gemini"
        model = {"provider": provider, "options": {"upstream_url": world[name], **options}}
        config = {
            "llm_format": provider,
            "route_type": "llm/v1/chat",
            "auth": auth,
            "model": model,
        }
        made.append(decks.route(f"/native/{name}", config, response_buffering=False))
    return decks.deck(*made)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(Storage(BUCKET))
        vertex = await stack.enter_async_context(VertexBatches(storage))
        gemini = await stack.enter_async_context(GeminiFiles())
        claude = await stack.enter_async_context(AnthropicBatches())
        account = text_world.service_account(await text_world.token_endpoint(stack))
        urls = {
            "gemini": gemini.url,
            "storage": storage.url,
            "vertex": vertex.url,
            "anthropic": claude.url,
        }
        running = await gateway(deck(urls, account))
        yield World(running, gemini, storage, vertex, claude)


@pytest.fixture
def world(made_world: World) -> World:
    for upstream in made_world.upstreams:
        upstream.requests.clear()
        upstream.failures.clear()
        upstream.script(Turn())
    return made_world


def requests(model: str) -> bytes:
    """A batch's input: 2 + 2, and 3 + 3."""
    lines = [
        {
            "custom_id": custom_id,
            "method": "POST",
            "url": CHAT,
            "body": {
                "model": model,
                "max_tokens": 100,
                "messages": [{"role": "user", "content": text}],
            },
        }
        for custom_id, text in (("two", "2 + 2?"), ("three/3", "3 + 3?"))
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


async def answers(client: AsyncOpenAI, file_id: str | None) -> dict[str, Json]:
    assert file_id is not None
    text = (await client.files.content(file_id)).text
    return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


def check_answers(lines: Mapping[str, Json], three: str = "three/3") -> None:
    two = lines["two"]["response"]["body"]
    assert two["choices"][0]["message"]["content"] == "Four."
    assert two["usage"]["total_tokens"] == 7
    assert lines[three]["response"]["status_code"] == 429
    assert lines[three]["response"]["body"]["error"]["message"] == "too many of them"


# ---- OpenAI's client


@pytest.mark.parametrize("name", ["gemini", "vertex"])
async def test_a_batch_is_uploaded_run_and_read(world: World, name: str) -> None:
    async with world.client(name) as client:
        file = await client.files.create(file=("in.jsonl", requests(GEMINI)), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        assert batch.status == "validating"
        number = batch.id.removeprefix("batch_")
        if name == "gemini":
            world.gemini.finish(f"batches/{number}", {"two": FOUR, "three/3": BUSY})
        else:
            world.vertex.finish(number, {"2 + 2?": FOUR, "3 + 3?": BUSY})
        ended = await client.batches.retrieve(batch.id)
        assert ended.status == "completed"
        assert ended.model == GEMINI
        check_answers(await answers(client, ended.output_file_id))
        assert batch.id in [each.id async for each in client.batches.list(limit=1)]
        kept = {each.id async for each in client.files.list()}
        assert file.id in kept
        assert (await client.files.retrieve(file.id)).filename == "in.jsonl"
        assert (await client.batches.cancel(batch.id)).id == batch.id
        assert (await client.files.delete(file.id)).deleted
    world.check()


async def test_anthropic_takes_the_requests_inline(world: World) -> None:
    lines = [json.loads(line) for line in requests(CLAUDE).splitlines()]
    inline = [
        {"custom_id": line["custom_id"].partition("/")[0], "body": line["body"]} for line in lines
    ]
    async with world.client("anthropic") as client:
        batch = await client.batches.create(
            input_file_id="inline",
            endpoint=CHAT,
            completion_window="24h",
            extra_body={"requests": inline},
        )
        assert batch.status == "in_progress"
        number = batch.id.removeprefix("batch_")
        world.anthropic.finish(number, {"two": FOUR, "three": BUSY})
        ended = await client.batches.retrieve(batch.id)
        assert ended.status == "completed"
        check_answers(await answers(client, ended.output_file_id), "three")
        assert ended.id in [each.id async for each in client.batches.list(limit=1)]
    world.check()


async def test_anthropic_takes_them_as_a_data_url(world: World) -> None:
    content = base64.b64encode(requests(CLAUDE).replace(b"three/3", b"three")).decode()
    async with world.client("anthropic") as client:
        batch = await client.batches.create(
            input_file_id=f"data:application/jsonl;base64,{content}",
            endpoint=CHAT,
            completion_window="24h",
        )
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        with pytest.raises(openai.BadRequestError, match="Anthropic keeps no files"):
            await client.batches.create(
                input_file_id="file-abc", endpoint=CHAT, completion_window="24h"
            )
        with pytest.raises(openai.APIStatusError, match="Anthropic keeps no files") as refused:
            await client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
        assert refused.value.status_code == 415
    world.check()


@pytest.mark.parametrize("name", ["gemini", "keyed", "vertex"])
async def test_a_file_of_several_pieces_arrives_whole(world: World, name: str) -> None:
    content = bytes(range(256)) * (3 * GRANULARITY // 256) + b"and more"
    async with world.client(name) as client:
        file = await client.files.create(file=("a.bin", content), purpose="user_data")
        assert file.bytes == len(content)
        if name == "vertex":
            assert content in world.storage.objects.values()
            assert (await client.files.content(file.id)).content == content
        else:
            assert content in world.gemini.contents.values()
        await client.files.delete(file.id)
    world.check()


@pytest.mark.parametrize("name", ["gemini", "vertex"])
async def test_a_wrong_line_is_named(world: World, name: str) -> None:
    content = requests(GEMINI) + b"hello\n"
    async with world.client(name) as client:
        with pytest.raises(openai.BadRequestError, match="line 3: expected a JSON object"):
            await client.files.create(file=("in.jsonl", content), purpose="batch")
    assert not any(upstream.requests for upstream in world.upstreams)


async def test_vertex_without_a_bucket_says_what_to_set(world: World) -> None:
    async with world.client("homeless") as client:
        with pytest.raises(openai.InternalServerError, match="upstream_url"):
            await client.files.list()


@pytest.mark.parametrize("name", ["gemini", "vertex", "anthropic"])
async def test_what_is_not_there_is_not_found(world: World, name: str) -> None:
    async with world.client(name) as client:
        with pytest.raises(openai.NotFoundError, match="No such Batch"):
            await client.batches.retrieve("batch_..")
        with pytest.raises(openai.NotFoundError, match="No such File"):
            await client.files.content("file-abc")
    world.check()


@pytest.mark.parametrize("name", ["gemini", "vertex", "anthropic"])
@pytest.mark.parametrize("status", [403, 429, 500])
async def test_an_error_of_the_providers_keeps_its_status(
    world: World, name: str, status: int
) -> None:
    key = GOOGLE_TOKEN if name == "vertex" else OPERATORS_KEY
    for upstream in world.upstreams:
        upstream.script(status=status, message=f"refused to {key}")
    async with world.client(name) as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await client.batches.list()
        assert failed.value.status_code == status
        assert "refused to" in failed.value.message
        assert key not in failed.value.message


# ---- their own clients


def google_client(world: World, name: str) -> genai.Client:
    url = f"{world.running.url}/native/{name}"
    options = types.HttpOptions(base_url=url, timeout=20_000)
    if name == "gemini":
        return genai.Client(api_key=CLIENTS_OWN, http_options=options)
    return genai.Client(
        vertexai=True,
        project="theirs",
        location="elsewhere",
        credentials=Credentials(token=CLIENTS_OWN),  # type: ignore[no-untyped-call, unused-ignore]
        http_options=options,
    )


async def test_googles_client_uploads_by_the_gateway(world: World) -> None:
    line = {"key": "a", "request": {"contents": [{"parts": [{"text": "2 + 2?"}], "role": "user"}]}}
    with google_client(world, "gemini") as owner:
        client = owner.aio
        content = bytes(2 * GRANULARITY) + b"x"
        big = await client.files.upload(
            file=io.BytesIO(content), config=types.UploadFileConfig(mime_type="text/plain")
        )
        assert big.name is not None
        assert world.gemini.contents[big.name] == content
        file = await client.files.upload(
            file=io.BytesIO(json.dumps(line).encode()),
            config=types.UploadFileConfig(mime_type="jsonl", display_name="in"),
        )
        assert file.name is not None
        assert (await client.files.get(name=file.name)).display_name == "in"
        batch = await client.batches.create(
            model=GEMINI, src=file.name, config=types.CreateBatchJobConfig(display_name="in")
        )
        assert batch.name is not None
        world.gemini.finish(batch.name, {"a": FOUR})
        ended = await client.batches.get(name=batch.name)
        assert ended.done
        assert ended.dest is not None
        assert ended.dest.file_name is not None
        assert b"Four." in await client.files.download(file=ended.dest.file_name)
        assert batch.name in [each.name async for each in await client.batches.list()]
        await client.batches.cancel(name=batch.name)
        await client.batches.delete(name=batch.name)
        await client.files.delete(name=file.name)
        await client.aclose()
    world.check()


async def test_googles_client_has_jobs_at_vertex(world: World) -> None:
    line = {"request": {"contents": [{"parts": [{"text": "2 + 2?"}], "role": "user"}]}}
    world.storage.put(f"gs://{BUCKET}/own.jsonl", json.dumps(line).encode())
    with google_client(world, "vertex") as owner:
        client = owner.aio
        batch = await client.batches.create(
            model=GEMINI,
            src=f"gs://{BUCKET}/own.jsonl",
            config=types.CreateBatchJobConfig(display_name="own", dest=f"gs://{BUCKET}/out"),
        )
        assert batch.name is not None
        world.vertex.finish(batch.name.rpartition("/")[2], {"2 + 2?": FOUR})
        ended = await client.batches.get(name=batch.name)
        assert ended.done
        assert batch.name in [each.name async for each in await client.batches.list()]
        await client.batches.cancel(name=batch.name)
        await client.batches.delete(name=batch.name)
        await client.aclose()
    world.check()


async def test_anthropics_client_has_batches(world: World) -> None:
    params: Any = {
        "model": CLAUDE,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "2 + 2?"}],
    }
    async with anthropic.AsyncAnthropic(
        api_key=CLIENTS_OWN, base_url=f"{world.running.url}/native/anthropic", max_retries=0
    ) as client:
        batches = client.messages.batches
        batch = await batches.create(requests=[{"custom_id": "a", "params": params}])
        world.anthropic.finish(batch.id, {"a": FOUR})
        ended = await batches.retrieve(batch.id)
        assert ended.results_url is not None
        assert ended.results_url.startswith(f"{world.running.url}/native/anthropic/v1/messages/")
        lines = [each async for each in await batches.results(batch.id)]
        assert [each.custom_id for each in lines] == ["a"]
        listed = [each.results_url async for each in batches.list(limit=1)]
        assert ended.results_url in listed
        other = await batches.create(requests=[{"custom_id": "a", "params": params}])
        assert (await batches.cancel(other.id)).processing_status == "canceling"
        await batches.delete(batch.id)
    world.check()


async def test_a_native_path_leads_nowhere_else(world: World) -> None:
    async with httpx.AsyncClient(base_url=f"{world.running.url}/native") as client:
        for path in ("/gemini/v1beta/files/..%2fmodels", "/anthropic/v1/messages/batches/a/b/c"):
            assert (await client.get(path)).status_code in (400, 404)
    assert not any(upstream.requests for upstream in world.upstreams)
