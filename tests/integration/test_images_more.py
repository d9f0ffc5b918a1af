"""The official `openai` client has images made and edited by Gemini, Vertex AI and Dashscope, and
Google's own client by its own providers."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from openai import AsyncOpenAI
from openai.types import ImagesResponse

from tests import decks
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import BACKENDS, CLIENTS_OWN, GOOGLE_TOKEN, OPERATORS_KEY
from tests.providers import Turn, Upstream, Usage
from tests.providers.dashscope_images_api import DashscopeImages
from tests.providers.gemini_images_api import GeminiImages, VertexImages
from tests.providers.pictures import JPEG, MASK, PNG, pixels

pytestmark = pytest.mark.asyncio(loop_scope="module")

gateway = text_world.gateway
Json = dict[str, Any]

GENERATIONS, EDITS = "image/v1/images/generations", "image/v1/images/edits"
PATHS = {GENERATIONS: "/v1/images/generations", EDITS: "/v1/images/edits"}
NAMES = ("gemini", "vertex", "dashscope")
FLASH, PRO = "gemini-2.5-flash-image", "gemini-3-pro-image-preview"
IMAGEN, CAPABLE = "imagen-4.0-generate-001", "imagen-3.0-capability-001"
QWEN, QWEN_EDIT = "qwen-image-plus", "qwen-image-edit-plus"
TASK, TASK_EDIT = "wan2.2-t2i-flash", "wanx2.1-imageedit"
VERTEX_MODELS = "/v1/projects/acme/locations/us-central1/publishers/google/models/"
B64 = base64.b64encode(PNG).decode()


@dataclass
class World:
    running: RunningGateway
    gemini: GeminiImages
    vertex: VertexImages
    dashscope: DashscopeImages

    @property
    def upstreams(self) -> dict[str, Upstream]:
        return {"gemini": self.gemini, "vertex": self.vertex, "dashscope": self.dashscope}

    def client(self, name: str) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{self.running.url}/{name}/v1", api_key=CLIENTS_OWN, max_retries=0, timeout=30
        )


def deck(urls: dict[str, str], account: str) -> str:
    routes = []
    for name in NAMES:
        for kind, path in PATHS.items():
            config = text_world.configuration(BACKENDS[name], urls[name], kind, "openai", account)
            config["max_request_body_size"] = 0
            routes.append(decks.route(f"/{name}{path}", config, response_buffering=False))
    for name in ("gemini", "vertex"):
        url = urls[name]
        native = text_world.configuration(BACKENDS[name], url, "llm/v1/chat", "gemini", account)
        routes.append(decks.route(f"/native-{name}", native, response_buffering=False))
    return decks.deck(*routes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        gemini = await stack.enter_async_context(GeminiImages())
        vertex = await stack.enter_async_context(VertexImages())
        dashscope = await stack.enter_async_context(DashscopeImages())
        urls = {"gemini": gemini.url, "vertex": vertex.url, "dashscope": dashscope.url}
        account = text_world.service_account(await text_world.token_endpoint(stack))
        yield World(await gateway(deck(urls, account)), gemini, vertex, dashscope)


@pytest_asyncio.fixture(loop_scope="module")
async def world(made_world: World) -> AsyncIterator[World]:
    """Nothing is scripted or recorded; afterwards it is checked what the providers saw."""
    for upstream in made_world.upstreams.values():
        upstream.requests.clear()
        upstream.failures.clear()
        upstream.script(Turn())
    yield made_world
    for name, upstream in made_world.upstreams.items():
        assert upstream.failures == []
        for seen in upstream.requests:
            everything = f"{seen.path}?{seen.query} {dict(seen.headers)}"
            assert CLIENTS_OWN not in everything
            assert "x-kong-ai" not in everything.lower()
            if name == "gemini":
                assert seen.headers["x-goog-api-key"] == OPERATORS_KEY
            elif not seen.path.startswith("/results/"):  # those addresses are signed themselves
                token = GOOGLE_TOKEN if name == "vertex" else OPERATORS_KEY
                assert seen.headers["Authorization"] == f"Bearer {token}"


def contents(answer: ImagesResponse) -> list[bytes]:
    """An answer's images in base64."""
    return [base64.b64decode(each.b64_json or "") for each in answer.data or []]


def paths(upstream: Upstream) -> list[str]:
    return [seen.path for seen in upstream.requests]


# ---- generations


@pytest.mark.parametrize(
    ("name", "model", "path"),
    [
        ("gemini", FLASH, f"/v1beta/models/{FLASH}:generateContent"),
        ("gemini", IMAGEN, f"/v1beta/models/{IMAGEN}:predict"),
        ("vertex", FLASH, f"{VERTEX_MODELS}{FLASH}:generateContent"),
        ("vertex", IMAGEN, f"{VERTEX_MODELS}{IMAGEN}:predict"),
        ("dashscope", QWEN, "/api/v1/services/aigc/multimodal-generation/generation"),
    ],
)
async def test_images_are_made(world: World, name: str, model: str, path: str) -> None:
    async with world.client(name) as client:
        raw = await client.images.with_raw_response.generate(
            model=model, prompt="a river", size="1536x1024", response_format="b64_json", user="u-1"
        )
    answer = raw.parse()
    assert contents(answer) == [PNG]
    assert answer.output_format == "png"
    assert answer.created > 1_700_000_000
    assert raw.headers["x-kong-ai-dropped-params"] == "user"
    provider = "dashscope" if name == "dashscope" else "gemini"
    assert raw.headers["x-kong-llm-model"] == f"{provider}/{model}"
    assert paths(world.upstreams[name])[0] == path


@pytest.mark.parametrize(("name", "model"), [("gemini", PRO), ("vertex", IMAGEN)])
async def test_google_tells_no_addresses(world: World, name: str, model: str) -> None:
    async with world.client(name) as client:
        answer = await client.images.generate(model=model, prompt="a", response_format="url")
    assert [each.url for each in answer.data or []] == [f"data:image/png;base64,{B64}"]


async def test_dashscope_tells_addresses(world: World) -> None:
    async with world.client("dashscope") as client:
        answer = await client.images.generate(model=QWEN, prompt="a river")
    url = f"{world.dashscope.url}/results/0.png?Expires=1&Signature=a%2Fb"
    assert [each.url for each in answer.data or []] == [url]
    assert len(world.dashscope.requests) == 1


async def test_a_task_is_polled_for(world: World) -> None:
    async with world.client("dashscope") as client:
        answer = await client.images.generate(
            model=TASK, prompt="a river", size="1024x1792", response_format="b64_json", n=2
        )
    assert contents(answer) == [PNG, PNG]
    assert answer.data
    assert answer.data[0].revised_prompt == "A, in detail"
    begin, poll, *_ = world.dashscope.requests
    assert begin.json["parameters"] == {"size": "816*1440", "n": 2}
    assert (poll.method, poll.path.rpartition("-")[0]) == ("GET", "/api/v1/tasks/task")


async def test_several_images_and_their_usage(world: World) -> None:
    world.gemini.script(text="Here it is.", usage=Usage(input=5, output=1290))
    async with world.client("gemini") as client:
        answer = await client.images.generate(model=PRO, prompt="a river", n=2, size="2048x2048")
    assert contents(answer) == [PNG, PNG]
    assert answer.usage
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 2580)
    config = world.gemini.requests[1].json["generationConfig"]
    assert config["imageConfig"] == {"aspectRatio": "1:1", "imageSize": "2K"}


async def test_members_of_geminis_own(world: World) -> None:
    """https://developer.konghq.com/how-to/use-gemini-3-image-config"""
    own = {"generationConfig": {"imageConfig": {"aspectRatio": "16:9", "imageSize": "4K"}}}
    async with world.client("gemini") as client:
        await client.images.generate(model=PRO, prompt="a", size="1024x1024", extra_body=own)
    assert world.gemini.requests[0].json["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        **own["generationConfig"],
    }


async def test_members_of_imagens_and_dashscopes_own(world: World) -> None:
    async with world.client("vertex") as client:
        answer = await client.images.generate(
            model=IMAGEN,
            prompt="a",
            output_format="jpeg",
            extra_body={"personGeneration": "ALLOW_ADULT", "enhance_prompt": True},
        )
    assert contents(answer) == [JPEG]
    assert answer.output_format == "jpeg"
    assert answer.data
    assert answer.data[0].revised_prompt == "a, in detail"
    async with world.client("dashscope") as client:
        await client.images.generate(model=QWEN, prompt="a", extra_body={"watermark": False})
    assert world.dashscope.requests[0].json["parameters"] == {"watermark": False, "n": 1}


# ---- edits


@pytest.mark.parametrize(
    ("name", "model"), [("gemini", FLASH), ("vertex", PRO), ("dashscope", QWEN_EDIT)]
)
async def test_images_are_edited(world: World, name: str, model: str) -> None:
    async with world.client(name) as client:
        answer = await client.images.edit(
            model=model,
            image=[("a.png", PNG, "image/png"), ("b.jpg", JPEG, "image/jpeg")],
            prompt="a hat",
            response_format="b64_json",
            extra_body={"generationConfig": {"temperature": 0.5}} if name != "dashscope" else None,
        )
    assert contents(answer) == [PNG]
    sent = world.upstreams[name].requests[0].json
    if name == "dashscope":
        assert len(sent["input"]["messages"][0]["content"]) == 3
    else:
        assert len(sent["contents"][0]["parts"]) == 3
        assert sent["generationConfig"]["temperature"] == 0.5


async def test_an_edit_with_a_mask_by_imagen(world: World) -> None:
    async with world.client("vertex") as client:
        answer = await client.images.edit(
            model=CAPABLE, image=("a.png", PNG), mask=("m.png", MASK), prompt="a hat", n=2
        )
    assert contents(answer) == [PNG, PNG]
    mask = world.vertex.requests[0].json["instances"][0]["referenceImages"][1]
    content = base64.b64decode(mask["referenceImage"]["bytesBase64Encoded"])
    assert pixels(content) == b"\xff\0\0\0"


async def test_an_edit_with_a_mask_by_a_task(world: World) -> None:
    async with world.client("dashscope") as client:
        answer = await client.images.edit(
            model=TASK_EDIT, image=("a.png", PNG), mask=("m.png", MASK), prompt="a hat"
        )
    assert answer.data
    assert (answer.data[0].url or "").startswith(world.dashscope.url)
    sent = world.dashscope.requests[0].json["input"]
    assert pixels(base64.b64decode(sent["mask_image_url"].partition(",")[2])) == b"\xff\0\0\0"


@pytest.mark.parametrize(
    ("name", "model", "text"),
    [
        ("gemini", FLASH, "mask: Gemini's models take none"),
        ("gemini", CAPABLE, "model: Imagen edits images on Vertex AI only"),
        ("dashscope", QWEN_EDIT, f"mask: {QWEN_EDIT} takes none"),
    ],
)
async def test_what_a_model_cannot_edit(world: World, name: str, model: str, text: str) -> None:
    async with world.client(name) as client:
        with pytest.raises(openai.BadRequestError, match=text):
            await client.images.edit(
                model=model, image=("a.png", PNG), mask=("m.png", MASK), prompt="a hat"
            )
    assert world.upstreams[name].requests == []


# ---- what goes wrong


@pytest.mark.parametrize(
    ("name", "model", "turn", "text"),
    [
        ("gemini", FLASH, Turn(finish="content_filter", text=""), "was blocked: SAFETY"),
        ("vertex", PRO, Turn(finish="content_filter", text="No."), "IMAGE_SAFETY: No."),
        ("gemini", FLASH, Turn(finish="length", text="I cannot."), "no image: I cannot."),
        ("vertex", IMAGEN, Turn(finish="content_filter"), "Support codes: 63429089"),
        ("dashscope", QWEN, Turn(finish="content_filter"), "may contain inappropriate content"),
        ("dashscope", TASK, Turn(finish="content_filter"), "may contain inappropriate content"),
    ],
)
async def test_what_is_not_made_is_a_400(
    world: World, name: str, model: str, turn: Turn, text: str
) -> None:
    world.upstreams[name].script(turn)
    async with world.client(name) as client:
        with pytest.raises(openai.BadRequestError, match=text):
            await client.images.generate(model=model, prompt="a river")


@pytest.mark.parametrize(
    ("turn", "status", "text"),
    [
        (Turn(status=429, message="slow down"), 429, "slow down"),
        (Turn(status=500, message="it broke"), 500, "it broke"),
        (Turn(body=b"<html>"), 502, "not usable"),
        (Turn(body=b""), 502, "not usable"),
        (Turn(cut=20), 502, "broke off"),
    ],
)
@pytest.mark.parametrize(
    ("name", "model"), [("gemini", FLASH), ("vertex", IMAGEN), ("dashscope", QWEN)]
)
async def test_errors_of_the_provider(
    world: World, name: str, model: str, turn: Turn, status: int, text: str
) -> None:
    world.upstreams[name].script(turn)
    async with world.client(name) as client:
        with pytest.raises(openai.APIStatusError, match=text) as caught:
            await client.images.generate(model=model, prompt="a river")
    assert caught.value.status_code == status


async def test_a_model_that_is_no_name(world: World) -> None:
    for name in ("gemini", "vertex"):
        async with world.client(name) as client:
            with pytest.raises(openai.BadRequestError, match="model: expected a name"):
                await client.images.generate(model="../../x", prompt="a river")
    assert not world.gemini.requests
    assert not world.vertex.requests


# ---- Google's own client

DEPRECATED = pytest.mark.filterwarnings("ignore:The .* method is deprecated")


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def google(made_world: World, http: httpx.Client) -> AsyncIterator[dict[str, genai.Client]]:
    """Of the Gemini API, and of Vertex AI."""
    async with httpx.AsyncClient() as transport:

        def options(name: str) -> types.HttpOptions:
            return types.HttpOptions(
                base_url=f"{made_world.running.url}/native-{name}",
                api_version="v1beta" if name == "gemini" else "v1",
                timeout=20_000,
                httpx_async_client=transport,
                httpx_client=http,
            )

        yield {
            "gemini": genai.Client(api_key=CLIENTS_OWN, http_options=options("gemini")),
            "vertex": genai.Client(
                vertexai=True,
                project="theirs",
                location="europe-west4",
                credentials=Credentials(token=CLIENTS_OWN),  # type: ignore[no-untyped-call]
                http_options=options("vertex"),
            ),
        }


@pytest.mark.parametrize("name", ["gemini", "vertex"])
async def test_googles_client_gets_images_as_content(
    google: dict[str, genai.Client], world: World, name: str
) -> None:
    config = types.GenerateContentConfig(
        response_modalities=["TEXT", "IMAGE"],
        image_config=types.ImageConfig(aspect_ratio="16:9"),
    )
    world.upstreams[name].script(text="Here it is.")
    answer = await google[name].aio.models.generate_content(
        model=FLASH,
        contents=["a river", types.Part.from_bytes(data=PNG, mime_type="image/png")],
        config=config,
    )
    assert answer.parts
    assert [part.inline_data.data for part in answer.parts if part.inline_data] == [PNG]
    assert answer.text == "Here it is."
    sent = world.upstreams[name].requests[0].json
    assert sent["generationConfig"]["imageConfig"] == {"aspectRatio": "16:9"}


@DEPRECATED
async def test_googles_client_has_imagen_make_images(
    google: dict[str, genai.Client], world: World
) -> None:
    answer = await google["vertex"].aio.models.generate_images(
        model=IMAGEN,
        prompt="a river",
        config=types.GenerateImagesConfig(number_of_images=2, aspect_ratio="16:9"),
    )
    images = [each.image.image_bytes for each in answer.generated_images or [] if each.image]
    assert images == [PNG, PNG]
    assert paths(world.vertex) == [f"{VERTEX_MODELS}{IMAGEN}:predict"]


@DEPRECATED
async def test_googles_client_has_imagen_edit(
    google: dict[str, genai.Client], world: World
) -> None:
    raw = types.RawReferenceImage(
        reference_id=1, reference_image=types.Image(image_bytes=PNG, mime_type="image/png")
    )
    answer = await google["vertex"].aio.models.edit_image(
        model=CAPABLE,
        prompt="a hat",
        reference_images=[raw],
        config=types.EditImageConfig(
            edit_mode=types.EditMode.EDIT_MODE_DEFAULT, number_of_images=1
        ),
    )
    images = [each.image.image_bytes for each in answer.generated_images or [] if each.image]
    assert images == [PNG]
