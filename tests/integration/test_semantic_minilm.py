"""Semantic balancing with a real embedding model and real databases, through the relay."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from kong_ai_proxy import config
from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.config import AiProxyAdvanced
from kong_ai_proxy.config.plugins import CATCHALL
from kong_ai_proxy.relay.semantic import semantic
from kong_ai_proxy.relay.settings import RelaySettings
from kong_ai_proxy.relay.upstream import Upstream
from tests import minilm, postgres_servers, providers, relays
from tests.postgres_servers import PASSWORD, PostgresServer
from tests.redis_servers import redis_server

postgres = postgres_servers.postgres

Json = dict[str, Any]

DESCRIPTIONS = {
    "code": "Python code, programming a function, loops, unit tests",
    "support": "My laptop, printer, password or network connection does not work",
    "kitchen": "Cooking recipes: boil, bake and fry food such as eggs, rice and bread",
    "rest": CATCHALL,
}
PROMPTS = {
    "Write a Python function that removes duplicates from a list": "code",
    "Why does this loop never terminate? while (i < 10) { print(i); }": "code",
    "Add unit tests for the class that parses dates": "code",
    "My laptop cannot connect to the VPN": "support",
    "The office printer shows a paper jam but there is none": "support",
    "I forgot my Windows password": "support",
    "How long do I boil an egg?": "kitchen",
    "What can I make with leftover rice and carrots?": "kitchen",
    "Give me a recipe for sourdough bread": "kitchen",
    "Who was the first emperor of Rome?": "rest",
    "Write a sad poem about autumn": "rest",
    "Is it going to rain tomorrow?": "rest",
}
COSINE = 0.8
THRESHOLDS = {"cosine": COSINE, "euclidean": math.sqrt(2 * COSINE) / 2}  # the same angle


# ---- the model itself


def similarity(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(minilm.embed(one), minilm.embed(other), strict=True))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("That is a happy dog", 0.6945773),
        ("That is a very happy person", 0.9429151),
        ("Today is a sunny day", 0.2568761),
    ],
)
def test_the_model_gives_the_published_similarities(other: str, expected: float) -> None:
    """Those of the example in the documentation of Hugging Face's sentence similarity task, which
    ran this model (https://huggingface.co/docs/api-inference, 2021 to 2024)."""
    assert similarity("That is a happy person", other) == pytest.approx(expected, abs=1e-5)


def test_its_tokens_are_those_of_the_tokenizer_it_came_with() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(minilm._folder() / "tokenizer.json"))
    theirs.no_padding()
    texts = [
        "Ünïcödé, naïve café!",
        "antidisestablishmentarianism",
        "你好 world",
        "$5 + `x`^2\tend",
    ]
    assert [minilm.tokens(text) for text in texts] == [theirs.encode(text).ids for text in texts]


# ---- databases


@pytest.fixture(scope="module")
def redis() -> Iterator[Json]:
    with redis_server() as server:
        yield {"strategy": "redis", "redis": {"host": "127.0.0.1", "port": server.port}}


@pytest_asyncio.fixture
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Json]:
    """The fields of `vectordb` that name the database."""
    if request.param == "redis":
        yield request.getfixturevalue("redis")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    async with server.database() as name:
        own = {"port": server.port, "password": PASSWORD, "database": name}
        yield {"strategy": "pgvector", "pgvector": own}


on_both = pytest.mark.parametrize("database", ["redis", "pgvector"], indirect=True)


@pytest_asyncio.fixture
async def model() -> AsyncIterator[minilm.Server]:
    async with minilm.serve() as server:
        yield server


def configuration(model: minilm.Server, database: Json, metric: str, chat: str) -> Json:
    bearer = {"header_name": "Authorization", "header_value": "Bearer key"}
    embedder = {
        "provider": "openai",
        "name": "all-MiniLM-L6-v2",
        "options": {"upstream_url": model.url},
    }
    targets = [
        {
            "route_type": "llm/v1/chat",
            "auth": bearer,
            "description": description,
            "model": {
                "provider": "openai",
                "name": name,
                "options": {"upstream_url": f"{chat}/v1/chat/completions"},
            },
        }
        for name, description in DESCRIPTIONS.items()
    ]
    vectordb = {
        "dimensions": minilm.DIMENSIONS,
        "distance_metric": metric,
        "threshold": THRESHOLDS[metric],
        **database,
    }
    return {
        "balancer": {"algorithm": "semantic"},
        "embeddings": {"auth": bearer, "model": embedder},
        "vectordb": vectordb,
        "targets": targets,
    }


# ---- all together


@on_both
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
async def test_prompts_go_to_the_model_that_is_meant_for_them(
    model: minilm.Server, database: Json, metric: str
) -> None:
    async with providers.openai() as chat:
        own = configuration(model, database, metric, chat.url)
        async with relays.running(own, "ai-proxy-advanced") as relay:
            for prompt in PROMPTS:
                body = {"messages": [{"role": "user", "content": prompt}]}
                async with relay.request("POST", "/chat", json=body) as response:
                    assert response.status == 200
        went = {each.json["messages"][0]["content"]: each.json["model"] for each in chat.requests}
    assert went == PROMPTS
    assert sorted(model.asked[:3]) == sorted(set(DESCRIPTIONS.values()) - {CATCHALL})
    assert model.asked[3:] == list(PROMPTS)


@on_both
async def test_workers_that_start_together_embed_the_descriptions_once(
    model: minilm.Server, database: Json
) -> None:
    """Each has connections of its own, as in a process of its own."""
    own = config.parse("ai-proxy-advanced", configuration(model, database, "cosine", "http://x"))
    assert isinstance(own, AiProxyAdvanced)
    upstream, tokens = Upstream(RelaySettings()), Tokens({})
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(upstream.close)
        workers = [semantic(own, upstream, tokens, {}) for _ in range(6)]
        for worker in workers:
            stack.push_async_callback(worker.close)
        found = await asyncio.gather(
            *(worker.tiers("How long do I boil an egg?", range(4)) for worker in workers)
        )
    assert found == [[[2], [3]]] * 6
    assert len([text for text in model.asked if text in DESCRIPTIONS.values()]) == 3


async def asked(own: Json, prompt: str) -> tuple[int, Json]:
    """What a client of this configuration gets."""
    body = {"messages": [{"role": "user", "content": prompt}]}
    async with (
        relays.running(own, "ai-proxy-advanced") as relay,
        relay.request("POST", "/chat", json=body) as response,
    ):
        return response.status, await response.json(content_type=None)


async def test_vectors_of_another_length_are_an_error_that_names_the_field(
    model: minilm.Server, redis: Json
) -> None:
    own = configuration(model, redis, "cosine", "http://127.0.0.1:1")
    own["vectordb"]["dimensions"] = 1536
    own["targets"].pop()  # the one for all other prompts
    status, answer = await asked(own, "How long do I boil an egg?")
    assert status == 500
    assert answer["error"]["message"] == (
        "semantic balancing: config.vectordb.dimensions is 1536, but openai's model "
        "all-MiniLM-L6-v2 makes vectors of 384 numbers: set it to what the model gives"
    )


@pytest.mark.parametrize("down", ["redis", "pgvector", "model"])
async def test_what_is_down_at_the_start_leaves_the_catchall(
    model: minilm.Server, redis: Json, down: str
) -> None:
    nowhere = {"host": "127.0.0.1", "port": 1}
    database = redis if down == "model" else {"strategy": down, down: nowhere}
    if down == "model":
        model.url = "http://127.0.0.1:1/v1/embeddings"
    async with providers.openai() as chat:
        own = configuration(model, database, "cosine", chat.url)
        status, _ = await asked(own, "How long do I boil an egg?")
        assert status == 200
        assert chat.requests[-1].json["model"] == "rest"
        own["targets"].pop()
        status, answer = await asked(own, "How long do I boil an egg?")
    assert status == 500
    assert answer["error"]["message"].startswith("semantic balancing: ")
