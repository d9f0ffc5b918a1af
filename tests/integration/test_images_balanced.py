"""Images with several targets, in the log, and many at once: through a relay in this process, with
the providers' stand-ins."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from openai.types import ImagesResponse

from kong_ai_proxy.providers import flow
from tests import providers, relays
from tests.integration.text_world import ACCESS_KEY, BEARER, OPERATORS_KEY
from tests.providers import Turn, Upstream, Usage
from tests.providers.bedrock_images_api import mask_pixels
from tests.providers.dashscope_images_api import DashscopeImages
from tests.providers.gemini_images_api import GeminiImages
from tests.providers.pictures import JPEG, MASK, PNG

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]
GENERATIONS, EDITS = "image/v1/images/generations", "image/v1/images/edits"
NOVA, FLASH, QWEN = "amazon.nova-canvas-v1:0", "gemini-2.5-flash-image", "qwen-image-2.0"
CRITERIA = ["error", "timeout", "http_429", "http_500", "http_502", "http_503", "non_idempotent"]


@dataclass
class World:
    """Three providers, in the order in which they are asked."""

    bedrock: Upstream
    gemini: GeminiImages
    dashscope: DashscopeImages

    @property
    def all(self) -> tuple[Upstream, ...]:
        return self.bedrock, self.gemini, self.dashscope

    def asked(self) -> list[int]:
        """How many calls each got."""
        return [len(upstream.requests) for upstream in self.all]

    def config(self, route_type: str, **changes: Any) -> Json:
        aws = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
        google = {"header_name": "x-goog-api-key", "header_value": OPERATORS_KEY}
        region = {"bedrock": {"aws_region": "eu-central-1"}}
        rows = (
            (3, "bedrock", NOVA, aws, {"upstream_url": self.bedrock.url, **region}),
            (2, "gemini", FLASH, google, {"upstream_url": self.gemini.url}),
            (1, "dashscope", QWEN, BEARER, {"upstream_url": self.dashscope.url}),
        )
        targets = [
            {
                "route_type": route_type,
                "weight": weight,
                "auth": auth,
                "logging": {"log_statistics": True},
                "model": {"provider": name, "name": model, "options": options},
            }
            for weight, name, model, auth, options in rows
        ]
        balancer = {"algorithm": "priority", "retries": 2, "failover_criteria": CRITERIA}
        category = {"genai_category": "image/generation"}
        return {"balancer": balancer, "targets": targets, **category, **changes}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        bedrock = providers.bedrock(ACCESS_KEY, OPERATORS_KEY, region="eu-central-1")
        yield World(
            await stack.enter_async_context(bedrock),
            await stack.enter_async_context(GeminiImages()),
            await stack.enter_async_context(DashscopeImages()),
        )


@pytest_asyncio.fixture(loop_scope="module")
async def world(made_world: World) -> AsyncIterator[World]:
    """Nothing is scripted or recorded."""
    for upstream in made_world.all:
        upstream.requests.clear()
        upstream.failures.clear()
        upstream.script(Turn())
    yield made_world
    assert [upstream.failures for upstream in made_world.all] == [[], [], []]


@dataclass
class Answered:
    """What a client got, and what the log gets."""

    status: int
    model: str
    body: Json
    log: Json

    @property
    def images(self) -> int:
        return len(ImagesResponse.model_validate(self.body, strict=True).data or [])


async def post(relay: relays.RunningRelay, path: str, **body: Any) -> Answered:
    async with relay.request("POST", path, marker=True, **body) as answer:
        told, _, frame = (await answer.read()).partition(b"\x1e")
        log = orjson.loads(frame[frame.index(b"{") :]) if frame else {}
        model = answer.headers.get("x-kong-llm-model", "")
        return Answered(answer.status, model, orjson.loads(told), log)


async def generated(world: World, **body: Any) -> Answered:
    async with relays.running(world.config(GENERATIONS), "ai-proxy-advanced") as relay:
        return await post(relay, "/images/generations", json={"prompt": "a river", **body})


def form(*, mask: bytes = b"", image: bytes = PNG) -> aiohttp.FormData:
    data = aiohttp.FormData({"prompt": "a hat", "extra_body[seed]": "7"})
    data.add_field("image[]", image, filename="a.png", content_type="image/png")
    if mask:
        data.add_field("mask", mask, filename="m.png", content_type="image/png")
    return data


async def edited(world: World, data: aiohttp.FormData, **changes: Any) -> Answered:
    config = world.config(EDITS, **{"max_request_body_size": 0, **changes})
    async with relays.running(config, "ai-proxy-advanced") as relay:
        return await post(relay, "/images/edits", data=data)


# ---- several targets


async def test_the_first_target_is_asked(world: World) -> None:
    answer = await generated(world, size="512x320", n=2)
    assert (answer.status, answer.images, world.asked()) == (200, 2, [1, 0, 0])
    assert answer.model == f"bedrock/{NOVA}"


async def test_each_target_gets_the_images_in_its_own_format(world: World) -> None:
    world.bedrock.script(Turn(status=429, message="slow down"))
    world.gemini.script(Turn(status=503, message="overloaded"))
    answer = await generated(world, size="1024x1024", seed=7)
    assert (answer.status, answer.images, world.asked()) == (200, 1, [1, 1, 1])
    assert answer.model == f"dashscope/{QWEN}"
    sent = [upstream.requests[0].json for upstream in world.all]
    assert sent[0]["imageGenerationConfig"]["seed"] == 7
    assert sent[1]["generationConfig"]["imageConfig"] == {"aspectRatio": "1:1"}
    assert sent[2]["parameters"] == {"size": "1024*1024", "seed": 7, "n": 1}


async def test_an_edit_goes_to_the_next_target(world: World) -> None:
    world.bedrock.script(Turn(status=500, message="it broke"))
    answer = await edited(world, form(image=JPEG))
    assert (answer.status, answer.images, world.asked()) == (200, 1, [1, 1, 0])
    image = base64.b64encode(JPEG).decode()
    assert world.bedrock.requests[0].json["imageVariationParams"]["images"] == [image]
    assert world.bedrock.requests[0].json["imageGenerationConfig"]["seed"] == 7
    part = world.gemini.requests[0].json["contents"][0]["parts"][1]
    assert part == {"inlineData": {"mimeType": "image/jpeg", "data": image}}


async def test_a_later_call_that_fails_takes_all_images_to_the_next_target(world: World) -> None:
    world.bedrock.script(Turn(), Turn(cut=20))
    answer = await generated(world, size="320x320", n=7)
    assert (answer.status, answer.images, world.asked()) == (200, 7, [2, 7, 0])


async def test_what_a_filter_stops_is_nobodys_failure(world: World) -> None:
    world.bedrock.script(Turn(finish="content_filter"))
    answer = await generated(world)
    assert (answer.status, world.asked()) == (400, [1, 0, 0])
    assert answer.body["error"]["code"] == "moderation_blocked"


async def test_a_target_that_cannot_take_it_is_passed_over(world: World) -> None:
    answer = await generated(world, size="1000x1000")  # Nova Canvas makes multiples of 16
    assert (answer.status, answer.images, world.asked()) == (200, 1, [0, 1, 0])


async def test_a_mask_that_the_next_target_does_not_take(world: World) -> None:
    world.bedrock.script(Turn(status=503, message="overloaded"))
    answer = await edited(world, form(mask=MASK))
    assert (answer.status, world.asked()) == (503, [1, 0, 0])
    asked = world.bedrock.requests[0].json["inPaintingParams"]
    assert mask_pixels(asked["maskImage"]) == [b"\0\xff", b"\xff\xff"]


async def test_all_fail(world: World) -> None:
    for upstream in world.all:
        upstream.script(Turn(status=503, message=f"{upstream.name} is down"))
    answer = await generated(world)
    assert (answer.status, world.asked()) == (503, [1, 1, 1])
    assert "is down" in answer.body["error"]["message"]


# ---- the log


async def test_the_log_tells_tokens_and_who_was_tried(world: World) -> None:
    world.bedrock.script(Turn(status=429, message="slow down"))
    world.gemini.script(Turn(usage=Usage(input=5, output=1290)))
    log = (await generated(world, n=2)).log
    usage = log["ai.proxy.usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (10, 2580)
    assert usage["output_tokens_details"]["image_tokens"] == 2580
    assert log["ai.proxy.meta"]["request_model"] == FLASH
    assert [each["provider"] for each in log["ai.proxy.tried_targets"]] == ["bedrock", "gemini"]


async def test_the_log_of_who_tells_no_tokens(world: World) -> None:
    usage = (await generated(world)).log["ai.proxy.usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (0, 0)


# ---- tasks


def of_tasks(world: World) -> Json:
    """A configuration of a model whose images are polled for."""
    options = {"upstream_url": world.dashscope.url}
    model = {"provider": "dashscope", "name": "wan2.2-t2i-flash", "options": options}
    return {"route_type": GENERATIONS, "auth": BEARER, "model": model}


@pytest.fixture
def endless(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Tasks that are never done."""
    monkeypatch.setattr(world.dashscope, "polls", 1 << 20)
    return world


async def test_a_task_that_is_never_done_is_a_504(
    endless: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "MAX_WAITED", 0.5)
    async with relays.running(of_tasks(endless)) as relay:
        answer = await post(relay, "/images/generations", json={"prompt": "a river"})
    assert answer.status == 504
    assert answer.body["error"]["message"] == "the image was not done within 0 seconds"


async def test_nobody_asks_for_the_image_of_a_client_that_has_left(endless: World) -> None:
    requests = endless.dashscope.requests
    async with relays.running(of_tasks(endless)) as relay:
        body = {"prompt": "a river"}
        asking = asyncio.create_task(post(relay, "/images/generations", json=body))
        await endless.dashscope.wait_for(lambda: bool(requests) and requests[-1].method == "GET")
        asking.cancel()
        await relay.settled()
    assert [seen.method for seen in requests].count("POST") == 1


# ---- many, and large ones


async def test_clients_at_once_get_their_own_images(world: World) -> None:
    async with relays.running(world.config(GENERATIONS), "ai-proxy-advanced") as relay:
        sizes = [f"{side}x320" for side in range(320, 448, 16)]
        answers = await asyncio.gather(
            *(
                post(relay, "/images/generations", json={"prompt": size, "size": size})
                for size in sizes
            )
        )
    assert [answer.body["size"] for answer in answers] == sizes


async def test_an_edit_over_the_limit_is_a_413(world: World) -> None:
    answer = await edited(world, form(image=PNG + bytes(5000)), max_request_body_size=4096)
    assert (answer.status, world.asked()) == (413, [0, 0, 0])
    assert answer.body["error"]["message"] == "Request body too large"
