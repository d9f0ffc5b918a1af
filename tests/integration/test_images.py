"""The official `openai` client has images made and edited by Bedrock's models, and by OpenAI
through the relay."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import httpx
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types import ImagesResponse

from kong_ai_proxy.formats import png
from kong_ai_proxy.gateway.provider import Provider
from kong_ai_proxy.gateway.provider.png import picture
from tests import decks, providers
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import ACCESS_KEY, CLIENTS_OWN, OPERATORS_KEY
from tests.providers import Turn, Upstream
from tests.providers.bedrock_images_api import mask_pixels

pytestmark = pytest.mark.asyncio(loop_scope="module")

gateway = text_world.gateway
Json = dict[str, Any]

NOVA = "us.amazon.nova-canvas-v1:0"
TITAN = "amazon.titan-image-generator-v2:0"
SD3, CORE = "stability.sd3-5-large-v1:0", "stability.stable-image-core-v1:1"
INPAINT = "us.stability.stable-image-inpaint-v1:0"
PATHS = {
    "image/v1/images/generations": "/v1/images/generations",
    "image/v1/images/edits": "/v1/images/edits",
}
IMAGE = picture(64, 64, "a cat")
MASK = picture(64, 64, "a disc", transparent=True)
"""Transparent but for a disc."""


TEXT_IMAGE = {"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "a river"}}


def config(provider: Json, route_type: str, **changes: Any) -> Json:
    return {"route_type": route_type, "max_request_body_size": 0, **provider, **changes}


@dataclass
class World:
    running: RunningGateway
    bedrock: Upstream
    openai: Provider

    def client(self, name: str) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{self.running.url}/{name}/v1", api_key=CLIENTS_OWN, max_retries=0, timeout=30
        )


def deck(bedrock_url: str, openai_url: str) -> str:
    """Bedrock with the client's model and with a configured one, and OpenAI with statistics."""
    aws = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
    options = {"upstream_url": bedrock_url, "bedrock": {"aws_region": "eu-central-1"}}
    model = {"provider": "bedrock", "options": options}
    statistics = {"log_statistics": True}
    routes = []
    for kind, path in PATHS.items():
        of_openai = decks.config(openai_url + path, kind, None, logging=statistics)
        configured = {"auth": aws, "model": {**model, "name": NOVA}, "logging": statistics}
        for name, provider in {
            "bedrock": {"auth": aws, "model": model},
            "configured": configured,
            "openai": of_openai,
        }.items():
            routes.append(
                decks.route(f"/{name}{path}", config(provider, kind), response_buffering=False)
            )
    native = {"auth": aws, "model": model, "llm_format": "bedrock", "logging": statistics}
    return decks.deck(*routes, decks.route("/native", config(native, "llm/v1/chat")))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        bedrock = providers.bedrock(ACCESS_KEY, OPERATORS_KEY, region="eu-central-1")
        await stack.enter_async_context(bedrock)
        of_openai = await Provider.start(api_key=decks.KEY)
        stack.push_async_callback(of_openai.stop)
        base = of_openai.url.removesuffix("/v1")
        yield World(await gateway(deck(bedrock.url, base)), bedrock, of_openai)


@pytest_asyncio.fixture(loop_scope="module")
async def world(made_world: World) -> AsyncIterator[World]:
    """Nothing is scripted or recorded; afterwards it is checked what the providers saw."""
    made_world.bedrock.requests.clear()
    made_world.bedrock.failures.clear()
    made_world.bedrock.script(Turn())
    yield made_world
    assert made_world.bedrock.failures == []
    for seen in made_world.bedrock.requests:
        everything = f"{seen.path}?{seen.query} {dict(seen.headers)}"
        assert CLIENTS_OWN not in everything
        assert "x-kong-ai" not in everything.lower()


@pytest_asyncio.fixture(loop_scope="module")
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with world.client("bedrock") as client:
        yield client


def pixels(answer: ImagesResponse) -> list[tuple[int, int] | None]:
    """The sizes of an answer's images, which are PNG files."""
    return [png.size_of(base64.b64decode(each.b64_json or "")) for each in answer.data or []]


# ---- generations


@pytest.mark.parametrize(
    ("model", "size", "made"),
    [
        (NOVA, "512x320", (512, 320)),
        (TITAN, "768x1280", (768, 1280)),
        (CORE, "1536x1024", (192, 128)),
        (SD3, "auto", (64, 64)),
    ],
)
async def test_images_are_made(
    client: AsyncOpenAI, world: World, model: str, size: str, made: tuple[int, int]
) -> None:
    answer = await client.images.generate(model=model, prompt="a river", size=size, n=2)
    assert pixels(answer) == [made] * 2
    assert answer.size == f"{made[0]}x{made[1]}"
    assert answer.output_format == "png"
    assert answer.created > 1_700_000_000


async def test_an_url_is_a_data_url(client: AsyncOpenAI) -> None:
    answer = await client.images.generate(model=NOVA, prompt="a river", response_format="url")
    assert answer.data
    assert (answer.data[0].url or "").startswith("data:image/png;base64,iVBOR")


async def test_members_of_the_providers_own(client: AsyncOpenAI, world: World) -> None:
    await client.images.generate(
        model=NOVA,
        prompt="a river",
        quality="high",
        extra_body={
            "seed": 7,
            "negative_prompt": "boats",
            "imageGenerationConfig": {"cfgScale": 3.5},
        },
    )
    assert world.bedrock.requests[-1].json == {
        "taskType": "TEXT_IMAGE",
        "textToImageParams": {"text": "a river", "negativeText": "boats"},
        "imageGenerationConfig": {
            "quality": "premium",
            "seed": 7,
            "numberOfImages": 1,
            "cfgScale": 3.5,
        },
    }


async def test_what_the_model_has_not_is_named(client: AsyncOpenAI) -> None:
    answer = await client.images.with_raw_response.generate(
        model=NOVA, prompt="a river", user="u-1", background="opaque"
    )
    dropped = answer.headers["x-kong-ai-dropped-params"].replace(" ", "").split(",")
    assert sorted(dropped) == ["background", "user"]
    assert answer.headers["x-kong-llm-model"] == f"bedrock/{NOVA}"


async def test_many_images_are_several_calls(client: AsyncOpenAI, world: World) -> None:
    answer = await client.images.generate(model=TITAN, prompt="a river", n=7, size="512x512")
    assert len(pixels(answer)) == 7
    assert len(world.bedrock.requests) == 2


async def test_the_configured_model_is_used(world: World) -> None:
    async with world.client("configured") as client:
        answer = await client.images.generate(prompt="a river")
        assert len(pixels(answer)) == 1
        edited = await client.images.edit(prompt="a bridge", image=("a.png", IMAGE))
        assert len(pixels(edited)) == 1
        with pytest.raises(openai.BadRequestError, match="cannot use own model"):
            await client.images.generate(model=TITAN, prompt="a river")
        with pytest.raises(openai.BadRequestError, match="cannot use own model"):
            await client.images.edit(model=TITAN, prompt="a bridge", image=("a.png", IMAGE))
    assert [seen.path for seen in world.bedrock.requests] == [
        f"/model/{NOVA.replace(':', '%3A')}/invoke"
    ] * 2


# ---- edits


@pytest.mark.parametrize(("model", "edited"), [(NOVA, b"\0"), (INPAINT, b"\xff")])
async def test_an_edit_with_a_mask(
    client: AsyncOpenAI, world: World, model: str, edited: bytes
) -> None:
    answer = await client.images.edit(
        model=model,
        image=("cat.png", IMAGE, "image/png"),
        mask=("mask.png", MASK, "image/png"),
        prompt="a hat",
    )
    assert len(pixels(answer)) == 1
    sent = world.bedrock.requests[-1].json
    rows = mask_pixels(sent.get("mask") or sent["inPaintingParams"]["maskImage"])
    assert rows[0] == edited * 64
    assert rows[32][32:33] != edited


async def test_an_edit_of_several_images(client: AsyncOpenAI, world: World) -> None:
    answer = await client.images.edit(
        model=TITAN,
        image=[("a.png", IMAGE), ("b.png", picture(96, 96, "a dog"))],
        prompt="both",
        n=3,
        size="512x512",
        extra_body={"imageVariationParams": {"similarityStrength": 0.5}, "seed": 5},
    )
    assert pixels(answer) == [(512, 512)] * 3
    sent = world.bedrock.requests[-1].json
    assert len(sent["imageVariationParams"]["images"]) == 2
    assert sent["imageVariationParams"]["similarityStrength"] == 0.5
    assert sent["imageGenerationConfig"]["seed"] == 5


async def test_an_edit_as_json(world: World) -> None:
    url = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.post(
            f"{world.running.url}/bedrock/v1/images/edits",
            json={"model": SD3, "prompt": "in winter", "images": [{"image_url": url}]},
        )
    assert answer.status_code == 200
    ImagesResponse.model_validate(answer.json())
    assert world.bedrock.requests[-1].json["mode"] == "image-to-image"


async def test_a_large_image(client: AsyncOpenAI, world: World) -> None:
    padded = IMAGE + bytes(6 << 20)
    answer = await client.images.edit(model=SD3, image=("a.png", padded), prompt="in winter")
    assert len(pixels(answer)) == 1
    assert len(world.bedrock.requests[-1].body) > 8 << 20


# ---- what goes wrong


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"size": "1000x1000"}, "size: expected auto, or sides of 320 to 4096"),
        ({"n": 11}, "n: expected a whole number from 1 to 10"),
        ({"prompt": ""}, "prompt: expected a text that is not empty"),
        ({"response_format": "jpg"}, "response_format: expected url or b64_json"),
        ({"output_format": "webp"}, "output_format: expected png"),
        ({"stream": True}, "stream: expected false"),
        ({"model": "amazon.nova-lite-v1:0"}, "model: expected the id of a model"),
        ({"model": "../../x"}, "model: expected the id of a model"),
    ],
)
async def test_wrong_generations_are_a_400(world: World, body: Json, text: str) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        url = f"{world.running.url}/bedrock/v1/images/generations"
        answer = await http.post(url, json={"model": NOVA, "prompt": "a river", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(text)
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert world.bedrock.requests == []


FORM = {"content-type": "multipart/form-data; boundary=b"}
OTHER_FORM = {"content-type": "multipart/form-data; boundary=c"}
PROMPT = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na hat\r\n'
MODEL = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{NOVA}\r\n'.encode()
HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        (FORM, MODEL + PROMPT + b"--b--\r\n", "image: expected a PNG, JPEG or WebP file to edit"),
        (FORM, MODEL + HEAD + IMAGE + b"\r\n--b--\r\n", "prompt: expected a text"),
        (FORM, MODEL + PROMPT + HEAD + b"\r\n--b--\r\n", "image: expected a PNG, JPEG or WebP"),
        (FORM, MODEL + PROMPT + HEAD + b"GIF89a\r\n--b--\r\n", "image: expected a PNG, JPEG or"),
        (FORM, MODEL + PROMPT + HEAD + IMAGE, "cut short"),
        (OTHER_FORM, MODEL + PROMPT + b"--b--\r\n", "boundary"),
        ({"content-type": "multipart/form-data"}, PROMPT + b"--b--\r\n", "boundary"),
        ({"content-type": "application/json"}, b'{"prompt": "a hat"}', "images: expected a PNG"),
    ],
)
async def test_wrong_edits_are_a_400(
    world: World, headers: dict[str, str], body: bytes, text: str
) -> None:
    if headers["content-type"] == "application/json":
        body = body.replace(b"}", f', "model": "{NOVA}"}}'.encode())
    async with httpx.AsyncClient(timeout=30) as http:
        url = f"{world.running.url}/bedrock/v1/images/edits"
        answer = await http.post(url, content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert text in answer.json()["error"]["message"]
    assert world.bedrock.requests == []


async def test_a_filter_is_a_400(client: AsyncOpenAI, world: World) -> None:
    world.bedrock.script(finish="content_filter")
    with pytest.raises(openai.BadRequestError, match="blocked by our content filters") as caught:
        await client.images.generate(model=NOVA, prompt="a river")
    assert caught.value.code == "moderation_blocked"
    with pytest.raises(openai.BadRequestError, match="Filter reason: prompt"):
        await client.images.generate(model=CORE, prompt="a river")


@pytest.mark.parametrize(
    ("turn", "status", "text"),
    [
        (Turn(status=429, message="slow down"), 429, "slow down"),
        (Turn(status=403, message="no access"), 403, "no access"),
        (Turn(status=500, message="it broke"), 500, "it broke"),
        (Turn(body=b"<html>"), 502, "not usable"),
        (Turn(body=b""), 502, "not usable"),
        (Turn(body=b'{"images":[]}'), 502, "it has no image"),
        (Turn(cut=20), 502, "broke off"),
    ],
)
async def test_errors_of_the_provider(
    client: AsyncOpenAI, world: World, turn: Turn, status: int, text: str
) -> None:
    world.bedrock.script(turn)
    with pytest.raises(openai.APIStatusError, match=text) as caught:
        await client.images.generate(model=NOVA, prompt="a river", size="320x320")
    assert caught.value.status_code == status


async def test_answers_may_be_compressed(client: AsyncOpenAI, world: World) -> None:
    world.bedrock.script(encoding="gzip")
    assert len(pixels(await client.images.generate(model=NOVA, prompt="a river"))) == 1


async def test_a_client_that_leaves_ends_the_call(client: AsyncOpenAI, world: World) -> None:
    hold = asyncio.Event()
    world.bedrock.script(hold=hold, hold_after=0)
    left = world.bedrock.disconnects
    asking = asyncio.create_task(client.images.generate(model=CORE, prompt="a river", n=3))
    await world.bedrock.wait_for(lambda: bool(world.bedrock.requests))
    asking.cancel()
    await world.bedrock.wait_for(lambda: world.bedrock.disconnects > left)
    hold.set()
    assert len(world.bedrock.requests) == 1


# ---- AWS' own client


@pytest.mark.parametrize(
    ("model", "body"), [(NOVA, TEXT_IMAGE), (INPAINT, {"prompt": "a hat", "image": IMAGE})]
)
async def test_boto3_has_images_made(world: World, model: str, body: Json) -> None:
    """InvokeModel goes up as it is, for any model."""
    if "image" in body:
        body = {**body, "image": base64.b64encode(IMAGE).decode()}

    def invoke() -> Json:
        keys = {"aws_access_key_id": CLIENTS_OWN, "aws_secret_access_key": CLIENTS_OWN}
        url = f"{world.running.url}/native"
        client = boto3.client("bedrock-runtime", "us-east-1", endpoint_url=url, **keys)
        with contextlib.closing(client):
            answer = client.invoke_model(modelId=model, body=json.dumps(body))
            told: Json = json.loads(answer["body"].read())
        return told

    answer = await asyncio.to_thread(invoke)
    assert png.size_of(base64.b64decode(answer["images"][0]))
    assert world.bedrock.requests[0].json == body
    assert world.bedrock.requests[0].path == f"/model/{model.replace(':', '%3A')}/invoke"


# ---- OpenAI itself


async def test_openai_makes_and_edits(world: World) -> None:
    async with world.client("openai") as client:
        answer = await client.images.generate(
            model="gpt-image-1.5", prompt="a river", size="1024x1024"
        )
        assert pixels(answer) == [(1024, 1024)]
        assert answer.usage
        edited = await client.images.edit(
            model="gpt-image-1.5",
            image=[("a.png", IMAGE, "image/png"), ("b.png", IMAGE, "image/png")],
            mask=("m.png", MASK, "image/png"),
            prompt="a bridge",
        )
        assert len(edited.data or []) == 1
        assert edited.usage


async def test_openai_streams_images(world: World) -> None:
    async with world.client("openai") as client:
        stream = await client.images.generate(
            model="gpt-image-1.5", prompt="a river", stream=True, partial_images=1
        )
        kinds = [event.type async for event in stream]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]
