"""The official client uses what xAI and servers behind Hugging Face's row have as OpenAI has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from openai import AsyncOpenAI

from kong_ai_proxy.gateway.provider import Provider
from tests.decks import AUTH, KEY, deck, route
from tests.gateways import GatewayFactory

Json = dict[str, Any]


@pytest.fixture
async def standin() -> AsyncIterator[Provider]:
    """A server with OpenAI's API."""
    provider = await Provider.start(api_key=KEY)
    yield provider
    await provider.stop()


def configuration(provider: str, route_type: str, standin: Provider) -> Json:
    options = {"upstream_url": standin.url.removesuffix("/v1")}
    return {
        "route_type": route_type,
        "auth": AUTH,
        "model": {"provider": provider, "options": options},
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client says so of videos
async def test_videos_of_a_server_behind_hugging_face(
    gateway: GatewayFactory, standin: Provider
) -> None:
    settings = configuration("huggingface", "video/v1/videos/generations", standin)
    running = await gateway(deck(route("/v1/videos", settings)))
    async with AsyncOpenAI(
        base_url=f"{running.url}/v1", api_key="own", max_retries=0, timeout=30
    ) as client:
        video = await client.videos.create(model="sora-2", prompt="a river")
        for _ in range(10):
            video = await client.videos.retrieve(video.id)
        assert video.status == "completed"
        content = await client.videos.download_content(video.id)
        assert content.content[4:8] == b"ftyp"
        assert (await client.videos.delete(video.id)).deleted
    assert {seen.path.partition("/video_")[0] for seen in standin.seen} == {"/v1/videos"}


async def test_images_of_xai(gateway: GatewayFactory, standin: Provider) -> None:
    settings = configuration("xai", "image/v1/images/generations", standin)
    running = await gateway(deck(route("/v1/images/generations", settings)))
    async with AsyncOpenAI(
        base_url=f"{running.url}/v1", api_key="own", max_retries=0, timeout=30
    ) as client:
        answer = await client.images.with_raw_response.generate(
            model="gpt-image-1-mini", prompt="a river", size="1024x1024", quality="high"
        )
    assert answer.headers["x-kong-ai-dropped-params"] == "size"
    image = answer.parse()
    assert image.data
    assert image.data[0].b64_json
    sent = orjson.loads(standin.seen[-1].body)
    assert sent == {"model": "gpt-image-1-mini", "prompt": "a river", "quality": "high"}
