"""Texts as vectors, from each provider at its own address."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

from kong_ai_proxy.auth.identity import BearerToken, GoogleIdentity, Identity
from kong_ai_proxy.auth.tokens import TokenError, Tokens
from kong_ai_proxy.config.vectors import Embeddings
from kong_ai_proxy.exchange.messages import Address
from kong_ai_proxy.relay import embedding
from kong_ai_proxy.relay.embedding import Embedder, EmbeddingError
from kong_ai_proxy.relay.settings import RelaySettings
from kong_ai_proxy.relay.upstream import Body, Call, Timeouts, Upstream
from tests import providers
from tests.providers.upstream import vector

KEY = "operators-key"
BEARER = {"header_name": "Authorization", "header_value": f"Bearer {KEY}"}
AWS = {"aws_access_key_id": "AKIASTANDIN", "aws_secret_access_key": "stand-in-secret"}
REGION = {"bedrock": {"aws_region": "us-east-1"}}
VERTEX = {
    "gemini": {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "us-central1",
    }
}
AZURE = {"azure": {"instance": "acme", "deployment_id": "deployed", "api_version": "2024-10-21"}}
TEXT = "Wie geht es?"


class Redirected(Upstream):
    """Connections that all end at one stand-in, which is told whom they were for."""

    def __init__(self, url: str) -> None:
        super().__init__(RelaySettings())
        self._to = URL(url)
        self.asked: list[Address] = []

    @override
    async def send(
        self,
        method: str,
        address: Address,
        headers: CIMultiDict[str],
        body: Body,
        timeouts: Timeouts,
    ) -> Call:
        self.asked.append(address)
        headers["host"] = address.host
        assert self._to.host
        assert self._to.port
        there = address._replace(scheme="http", host=self._to.host, port=self._to.port)
        return await super().send(method, there, headers, body, timeouts)


class GoogleTokens:
    """Credentials as Google hands them out."""

    async def get(self, identity: Identity) -> BearerToken:
        assert isinstance(identity, GoogleIdentity)
        return BearerToken("ya29.stand-in")


class NoTokens:
    """No cloud can be reached."""

    async def get(self, identity: Identity) -> BearerToken:
        raise TokenError("the metadata server does not answer")


class World:
    """One provider and the ways to it."""

    def __init__(self, upstream: providers.Upstream) -> None:
        self.upstream = upstream
        self.way = Redirected(upstream.url)

    def embedder(
        self,
        provider: str,
        name: str,
        *,
        dimensions: int = 8,
        auth: Mapping[str, Any] = BEARER,
        options: Mapping[str, Any] | None = None,
        tokens: object = None,
    ) -> Embedder:
        model = {"provider": provider, "name": name, "options": options or {}}
        record = Embeddings.model_validate({"auth": dict(auth), "model": model})
        return Embedder(record, dimensions, self.way, cast(Tokens, tokens or Tokens({})), {})

    @property
    def sent(self) -> Any:
        return self.upstream.requests[-1].json

    @property
    def asked(self) -> str:
        scheme, host, _, path, _ = self.way.asked[-1]
        return f"{scheme}://{host}{path}"


STANDINS: Mapping[str, Callable[[], providers.Upstream]] = {
    "openai": providers.openai,
    "azure": providers.openai,
    "bedrock": providers.bedrock,
    "gemini": providers.gemini,
    "vertex": providers.vertex,
    "huggingface": providers.huggingface,
    "mistral": providers.mistral,
    "ollama": providers.ollama,
}


@functools.cache
def standin(name: str) -> providers.Upstream:
    """One for all tests: the vendor's models take a while to load."""
    return STANDINS[name]()


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with standin(getattr(request, "param", "openai")) as upstream:
        upstream.requests.clear()
        upstream.script(providers.Turn())
        world = World(upstream)
        yield world
        await world.way.close()


def on(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("world", [name], indirect=True)


async def test_openai_is_asked_for_vectors_of_the_configured_length(world: World) -> None:
    found = await world.embedder("openai", "text-embedding-3-small", dimensions=16).embed(TEXT)
    assert found == vector(TEXT, 16)
    assert world.sent == {"model": "text-embedding-3-small", "input": TEXT, "dimensions": 16}
    assert world.asked == "https://api.openai.com/v1/embeddings"
    assert world.upstream.requests[-1].headers["Authorization"] == f"Bearer {KEY}"


async def test_a_model_with_one_length_is_not_asked_for_another(world: World) -> None:
    await world.embedder("openai", "text-embedding-ada-002").embed(TEXT)
    assert "dimensions" not in world.sent


async def test_a_length_that_the_model_has_anyway_is_not_asked_for(world: World) -> None:
    """Older versions of Azure's API do not know how."""
    with pytest.raises(EmbeddingError, match="1536"):  # the stand-in's vectors are shorter
        await world.embedder("openai", "text-embedding-3-small", dimensions=1536).embed(TEXT)
    assert "dimensions" not in world.sent


@on("azure")
async def test_azure_is_called_at_the_deployment(world: World) -> None:
    auth = {"header_name": "api-key", "header_value": KEY}
    embedder = world.embedder(
        "azure", "text-embedding-3-large", dimensions=16, auth=auth, options=AZURE
    )
    assert await embedder.embed(TEXT) == vector(TEXT, 16)
    assert world.asked == "https://acme.openai.azure.com/openai/deployments/deployed/embeddings"
    assert world.way.asked[-1].query == "api-version=2024-10-21"
    assert world.upstream.requests[-1].headers["api-key"] == KEY


@on("azure")
async def test_azure_without_a_deployment_is_an_error_that_says_so(world: World) -> None:
    options = {"azure": {"instance": "acme"}}
    with pytest.raises(EmbeddingError, match="deployment"):
        await world.embedder("azure", "text-embedding-3-large", options=options).embed(TEXT)


@on("bedrock")
@pytest.mark.parametrize(
    ("name", "dimensions", "sent"),
    [
        ("amazon.titan-embed-text-v1", 8, {"inputText": TEXT}),
        (
            "amazon.titan-embed-text-v2:0",
            256,
            {"inputText": TEXT, "dimensions": 256, "normalize": False},
        ),
        (
            "cohere.embed-english-v3",
            8,
            {"texts": [TEXT], "input_type": "classification", "embedding_types": ["float"]},
        ),
    ],
)
async def test_bedrock_is_called_in_each_models_format(
    world: World, name: str, dimensions: int, sent: object
) -> None:
    embedder = world.embedder("bedrock", name, dimensions=dimensions, auth=AWS, options=REGION)
    assert await embedder.embed(TEXT) == vector(TEXT, dimensions)
    assert world.sent == sent
    assert world.asked.startswith("https://bedrock-runtime.us-east-1.amazonaws.com/model/")


@on("gemini")
async def test_the_gemini_api_is_called_with_a_key(world: World) -> None:
    auth = {"header_name": "x-goog-api-key", "header_value": KEY}
    embedder = world.embedder("gemini", "gemini-embedding-001", dimensions=768, auth=auth)
    assert await embedder.embed(TEXT) == vector(TEXT, 768)
    assert world.sent["requests"][0]["outputDimensionality"] == 768


@on("vertex")
async def test_vertex_is_called_as_a_service_account(world: World) -> None:
    embedder = world.embedder(
        "gemini",
        "text-embedding-005",
        dimensions=256,
        auth={"gcp_use_service_account": True},
        options=VERTEX,
        tokens=GoogleTokens(),
    )
    assert await embedder.embed(TEXT) == vector(TEXT, 256)
    assert world.asked.startswith("https://us-central1-aiplatform.googleapis.com/v1/projects/acme/")
    assert world.upstream.requests[-1].headers["Authorization"] == "Bearer ya29.stand-in"


@on("huggingface")
async def test_hugging_face_is_called(world: World) -> None:
    options = {"huggingface": {"wait_for_model": True}}
    embedder = world.embedder("huggingface", "BAAI/bge-small-en-v1.5", options=options)
    assert await embedder.embed(TEXT) == vector(TEXT, 8)
    assert world.upstream.requests[-1].headers["x-wait-for-model"] == "true"


@on("mistral")
async def test_mistral_is_called(world: World) -> None:
    found = await world.embedder("mistral", "mistral-embed").embed(TEXT)
    assert found == vector(TEXT, len(found))
    assert world.asked == "https://api.mistral.ai/v1/embeddings"


@on("ollama")
async def test_ollama_is_called_where_the_operator_says(world: World) -> None:
    options = {"upstream_url": "http://ollama.internal:11434/api/embed"}
    assert await world.embedder("ollama", "all-minilm", options=options).embed(TEXT)
    assert world.asked == "http://ollama.internal/api/embed"


# ---- what goes wrong


@on("ollama")
async def test_vectors_of_another_length_are_an_error_that_names_the_field(world: World) -> None:
    with pytest.raises(EmbeddingError) as error:
        await world.embedder("ollama", "all-minilm", dimensions=384).embed(TEXT)
    assert str(error.value) == (
        "config.vectordb.dimensions is 384, but ollama's model all-minilm makes vectors of 8 "
        "numbers: set it to what the model gives"
    )


async def test_the_providers_error_is_for_the_log_only(world: World) -> None:
    world.upstream.script(status=401, message=f"Incorrect API key provided: {KEY}")
    with pytest.raises(EmbeddingError) as error:
        await world.embedder("openai", "text-embedding-ada-002").embed(TEXT)
    assert str(error.value) == "openai answered with status 401"
    assert "Incorrect API key provided" in error.value.detail
    assert KEY not in error.value.detail


@on("ollama")
async def test_a_converted_error_has_the_providers_status(world: World) -> None:
    world.upstream.script(status=503, message="loading")
    with pytest.raises(EmbeddingError, match="ollama answered with status 503") as error:
        await world.embedder("ollama", "all-minilm").embed(TEXT)
    assert "loading" in error.value.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": []}',
        b'{"data": [{"embedding": "no"}]}',
        b'{"data": [{"embedding": [{}]}]}',
        b'{"data": [{"embedding": [null]}]}',
    ],
)
async def test_an_answer_without_a_vector_is_an_error(world: World, body: bytes) -> None:
    world.upstream.script(body=body)
    with pytest.raises(EmbeddingError, match="openai answered without a vector of numbers"):
        await world.embedder("openai", "text-embedding-ada-002").embed(TEXT)


async def test_an_answer_that_breaks_off_is_an_error(world: World) -> None:
    world.upstream.script(cut=20)
    with pytest.raises(EmbeddingError, match="openai gave no answer"):
        await world.embedder("openai", "text-embedding-ada-002").embed(TEXT)


async def test_an_answer_without_an_end_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "MAX_ANSWER", 1000)
    world.upstream.script(body=b"x" * 2000)
    with pytest.raises(EmbeddingError, match="too many bytes"):
        await world.embedder("openai", "text-embedding-ada-002").embed(TEXT)


async def test_a_provider_that_is_down_is_an_error(world: World) -> None:
    await world.upstream._runner.cleanup()
    with pytest.raises(EmbeddingError, match="openai gave no answer") as error:
        await world.embedder("openai", "text-embedding-ada-002").embed(TEXT)
    assert "cannot connect" in error.value.detail


async def test_a_provider_that_takes_too_long_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "SECONDS", 0.05)
    world.upstream.script(delay=30, piece=1)
    with pytest.raises(EmbeddingError, match="openai did not answer in time"):
        await world.embedder("openai", "text-embedding-ada-002").embed(TEXT)


@on("vertex")
async def test_credentials_that_cannot_be_had_are_an_error(world: World) -> None:
    embedder = world.embedder(
        "gemini",
        "text-embedding-005",
        auth={"gcp_use_service_account": True},
        options=VERTEX,
        tokens=NoTokens(),
    )
    with pytest.raises(EmbeddingError, match="no credentials for gemini") as error:
        await embedder.embed(TEXT)
    assert "metadata server" in error.value.detail


@on("bedrock")
async def test_a_region_that_is_not_known_is_an_error(world: World) -> None:
    with pytest.raises(EmbeddingError, match="aws_region"):
        await world.embedder("bedrock", "amazon.titan-embed-text-v1", auth=AWS).embed(TEXT)


@pytest.mark.parametrize("world", ["openai", "ollama"], indirect=True)
async def test_an_answer_may_come_compressed(world: World) -> None:
    world.upstream.script(encoding="gzip")
    assert await world.embedder(world.upstream.name, "all-minilm").embed(TEXT) == vector(TEXT, 8)
