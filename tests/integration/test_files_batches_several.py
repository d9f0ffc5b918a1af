"""Files and batches on a Route with several targets: each target knows only what it has made, and
the client need not know which one that was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from kong_ai_proxy.gateway.provider import Provider
from tests import decks
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import ACCESS_KEY, OPERATORS_KEY
from tests.providers import Turn, Upstream
from tests.providers.bedrock_batches_api import BedrockBatches
from tests.providers.gemini_files_api import GeminiFiles

pytestmark = pytest.mark.asyncio(loop_scope="module")

gateway = text_world.gateway
Json = dict[str, Any]

CHAT: Any = "/v1/chat/completions"
PATHS = {"llm/v1/files": "/v1/files", "llm/v1/batches": "/v1/batches"}
ROUTES = ("openai-bedrock", "bedrock-gemini", "gemini-gemini")
MODELS = {"openai-bedrock": "amazon.nova-lite-v1:0", "bedrock-gemini": "amazon.nova-lite-v1:0"}


@dataclass
class World:
    running: RunningGateway
    upstreams: list[Upstream]

    def client(self, name: str) -> AsyncOpenAI:
        url = f"{self.running.url}/{name}/v1"
        return AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=30)


def content(name: str) -> bytes:
    body = {
        "model": MODELS.get(name, "gemini-2.5-flash"),
        "messages": [{"role": "user", "content": "Hello"}],
    }
    value = {"custom_id": "a", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(value).encode() + b"\n"


def bedrock(url: str, _: str) -> Json:
    own = {"aws_region": "us-east-1", "batch_bucket_prefix": "s3://my-bucket/llm"}
    own["batch_role_arn"] = "arn:aws:iam::123456789012:role/Batch"
    auth = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
    return {
        "auth": auth,
        "model": {"provider": "bedrock", "options": {"upstream_url": url, "bedrock": own}},
    }


def gemini(url: str, _: str) -> Json:
    return {
        "auth": {"header_name": "x-goog-api-key", "header_value": OPERATORS_KEY},
        "model": {"provider": "gemini", "options": {"upstream_url": url}},
    }


def of_openai(url: str, path: str) -> Json:
    options = {"upstream_url": url.removesuffix("/v1") + path}
    return {"auth": decks.AUTH, "model": {"provider": "openai", "options": options}}


def deck(urls: dict[str, list[str]]) -> str:
    makes = {"openai": of_openai, "bedrock": bedrock, "gemini": gemini}
    routes = []
    for name in ROUTES:
        for kind, path in PATHS.items():
            left = {each: list(found) for each, found in urls.items()}
            targets = [
                {"route_type": kind, **makes[each](left[each].pop(0), path)}
                for each in name.split("-")
            ]
            config = {"targets": targets, "balancer": {"failover_criteria": ["error", "http_503"]}}
            routes.append(decks.route(f"/{name}{path}", config, plugin="ai-proxy-advanced"))
    return decks.deck(*routes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        keys = {"access_key": ACCESS_KEY, "secret_key": OPERATORS_KEY}
        aws = await stack.enter_async_context(BedrockBatches(**keys))
        google = [await stack.enter_async_context(GeminiFiles(name)) for name in ("one", "other")]
        one = await Provider.start(api_key=decks.KEY)
        stack.push_async_callback(one.stop)
        urls = {
            "openai": [one.url],
            "bedrock": [aws.url],
            "gemini": [each.url for each in google],
        }
        yield World(await gateway(deck(urls)), [aws, *google])


@pytest.mark.parametrize("name", ["openai-bedrock", "bedrock-gemini", "gemini-gemini"])
async def test_a_file_and_its_batch_are_found_wherever_they_were_made(
    world: World, name: str
) -> None:
    async with world.client(name) as client:
        for _ in range(2):  # at one target, then at the other
            file = await client.files.create(file=("in.jsonl", content(name)), purpose="batch")
            for _ in range(2):
                assert (await client.files.retrieve(file.id)).id == file.id
                batch = await client.batches.create(
                    input_file_id=file.id, endpoint=CHAT, completion_window="24h"
                )
                for _ in range(2):
                    assert (await client.batches.retrieve(batch.id)).input_file_id == file.id
                with contextlib.suppress(openai.ConflictError):  # OpenAI's stand-in was faster
                    assert (await client.batches.cancel(batch.id)).id == batch.id
            assert (await client.files.delete(file.id)).deleted
            with pytest.raises(openai.NotFoundError):
                await client.files.retrieve(file.id)


async def test_a_target_that_cannot_say_is_no_reason_for_a_404(world: World) -> None:
    """The file may be there."""
    first, second = world.upstreams[1:]
    async with world.client("gemini-gemini") as client:
        for _ in range(2):
            file = await client.files.create(file=("a.txt", b"x"), purpose="user_data")
            for down in (first, second):
                down.script(status=503, message="down")
                for _ in range(2):
                    with contextlib.suppress(openai.InternalServerError):
                        assert (await client.files.retrieve(file.id)).id == file.id
                down.script(Turn())
