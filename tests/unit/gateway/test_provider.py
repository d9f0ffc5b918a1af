"""The stand-in provider as a server: keys, routes, errors; completions, embeddings, models."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import httpx
import openai
import pytest
from openai.types import completion_create_params, embedding_create_params

from kong_ai_proxy.gateway.provider import MAX_BODY_BYTES, Provider, completions, embeddings
from kong_ai_proxy.gateway.provider.embeddings import vector
from kong_ai_proxy.gateway.provider.example import example
from tests.unit.gateway.provider_client import client, plain, said

_CHAT = "/v1/chat/completions"
_HI: dict[str, Any] = {"model": "m", "messages": said("Hi")}


async def test_every_answer_carries_its_name_and_a_request_id() -> None:
    async with plain() as http:
        answers = [
            await http.post(_CHAT, json=_HI),
            await http.post(_CHAT, json={**_HI, "stream": True}),
            await http.post(_CHAT, json={}),
            await http.get("/nowhere"),
        ]
    assert {answer.headers["x-stand-in"] for answer in answers} == {"kong-ai-proxy"}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4


@pytest.mark.parametrize(
    ("method", "path", "status", "said_so"),
    [
        ("POST", "/v1/nowhere", 404, "Invalid URL (POST /v1/nowhere)"),
        ("GET", "/", 404, "Invalid URL (GET /)"),
        ("GET", _CHAT, 405, f"Not allowed to GET on {_CHAT} (HINT: use POST)"),
    ],
)
async def test_unknown_urls_and_methods(method: str, path: str, status: int, said_so: str) -> None:
    async with plain() as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == said_so


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("application/json", b"{", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"", 400),
        ("application/json", b"[1]", 400),
        ("application/json", b'{"n": NaN}', 400),
        ("application/json", b"[" * 5000, 400),
    ],
)
async def test_bodies_that_are_no_json_object(content_type: str, body: bytes, status: int) -> None:
    async with plain() as http:
        answer = await http.post(_CHAT, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_that_is_too_large_gets_413() -> None:
    async with plain() as http:
        answer = await http.post(_CHAT, content=b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("header", "code"),
    [(None, None), ("Basic abc", None), ("Bearer wrong", "invalid_api_key"), ("Bearer", None)],
)
async def test_without_the_key_it_answers_401(header: str | None, code: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    async with plain(api_key="right") as http:
        answer = await http.post(_CHAT, json=_HI, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == code
    assert "right" not in answer.text


async def test_with_the_key_it_answers() -> None:
    async with client(api_key="right", given="right") as official:
        assert (await official.chat.completions.create(**_HI)).choices


@pytest.mark.parametrize(
    ("model", "raised"),
    [
        ("error-401", openai.AuthenticationError),
        ("error-404", openai.NotFoundError),
        ("error-429", openai.RateLimitError),
        ("error-500", openai.InternalServerError),
        ("error-599", openai.InternalServerError),
    ],
)
async def test_a_model_name_asks_for_an_error(model: str, raised: type[Exception]) -> None:
    async with client() as official:
        with pytest.raises(raised):
            await official.chat.completions.create(**{**_HI, "model": model})


@pytest.mark.parametrize("model", ["error-", "error-200", "error-600", "error-4294", "error-x"])
async def test_other_model_names_are_only_names(model: str) -> None:
    async with client() as official:
        assert (await official.chat.completions.create(**{**_HI, "model": model})).model == model


async def test_a_rate_limit_says_when_to_come_back() -> None:
    async with plain() as http:
        answer = await http.post(_CHAT, json={**_HI, "model": "error-429"})
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


async def test_it_remembers_what_reached_it() -> None:
    provider = await Provider.start()
    try:
        async with httpx.AsyncClient(verify=False) as http:
            await http.post(f"{provider.url}/chat/completions?a=%2F", json=_HI)
    finally:
        await provider.stop()
    seen = provider.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions?a=%2F")
    assert seen.headers["content-type"] == "application/json"
    assert b'"Hi"' in seen.body


async def test_a_taken_port_is_an_error() -> None:
    provider = await Provider.start()
    try:
        with pytest.raises(OSError, match="in use"):
            await Provider.start(port=httpx.URL(provider.url).port or 0)
    finally:
        await provider.stop()


async def test_models_are_listed_and_found() -> None:
    async with client() as official:
        listed = [model.id async for model in official.models.list()]
        found = await official.models.retrieve(listed[0])
        with pytest.raises(openai.NotFoundError):
            await official.models.retrieve("nothing")
    assert found.id == listed[0] == "gpt-4o"


# -- completions -----------------------------------------------------------------------------------


def test_completions_know_every_parameter_of_the_official_client() -> None:
    official = completion_create_params.CompletionCreateParamsBase.__annotations__
    assert official.keys() | {"stream"} == completions.RULES.keys()


async def test_a_completion_is_cut_at_sixteen_tokens_by_default() -> None:
    async with client() as official:
        answer = await official.completions.create(model="m", prompt="Once upon a time in the west")
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 16)


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [("one", 1), (["one", "two"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)],
)
async def test_each_prompt_is_answered(prompt: Any, answers: int) -> None:
    async with client() as official:
        answer = await official.completions.create(model="m", prompt=prompt, max_tokens=100, n=2)
    assert [choice.index for choice in answer.choices] == list(range(answers * 2))
    assert len({choice.text for choice in answer.choices}) == answers * 2


async def test_echo_gives_the_prompt_first() -> None:
    async with client() as official:
        answer = await official.completions.create(
            model="m", prompt="Once upon", echo=True, max_tokens=2, logprobs=0
        )
    assert answer.choices[0].text == "Once upon This is"
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.text_offset == [0, 4, 9, 14]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


async def test_a_streamed_completion_is_the_same_text() -> None:
    async with client(strict=False) as official:
        whole = await official.completions.create(model="m", prompt="Once", max_tokens=50)
        stream = await official.completions.create(
            model="m",
            prompt="Once",
            max_tokens=50,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"messages": said("Hi")}, None),
    ],
)
async def test_wrong_completion_requests(change: dict[str, Any], param: str | None) -> None:
    async with plain() as http:
        answer = await http.post("/v1/completions", json={"model": "m", "prompt": "x", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


# -- embeddings ------------------------------------------------------------------------------------


def test_embeddings_know_every_parameter_of_the_official_client() -> None:
    official = embedding_create_params.EmbeddingCreateParams.__annotations__
    assert official.keys() == embeddings.RULES.keys()


def _nearness(left: str, right: str) -> float:
    return sum(a * b for a, b in zip(vector(left, 1536), vector(right, 1536), strict=True))


def test_similar_texts_are_near_each_other() -> None:
    text = "How do I reset my password?"
    assert _nearness(text, text) == pytest.approx(1)
    assert _nearness(text, "How can I reset a password?") > 0.5
    assert abs(_nearness(text, "The rain in Spain stays mainly")) < 0.2


@pytest.mark.parametrize("text", ["a", "zwölf Boxkämpfer", " ", "x" * 10000])
def test_every_vector_has_length_one(text: str) -> None:
    assert math.fsum(number * number for number in vector(text, 256)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("model", "size"),
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("other", 1536)],
)
async def test_the_model_decides_the_dimensions(model: str, size: int) -> None:
    async with client(strict=False) as official:
        answer = await official.embeddings.create(model=model, input="Hello")
    assert len(answer.data[0].embedding) == size
    assert answer.usage.total_tokens == 1


async def test_the_request_can_ask_for_fewer_dimensions() -> None:
    async with client(strict=False) as official:
        answer = await official.embeddings.create(model="m", input=["a", "b"], dimensions=8)
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert [item.index for item in answer.data] == [0, 1]


async def test_base64_holds_the_same_numbers() -> None:
    body = {"model": "m", "input": "Hello", "dimensions": 16}
    async with plain() as http:
        floats = await http.post("/v1/embeddings", json=body)
        packed = await http.post("/v1/embeddings", json={**body, "encoding_format": "base64"})
    numbers = struct.unpack("<16f", base64.b64decode(packed.json()["data"][0]["embedding"]))
    assert numbers == pytest.approx(floats.json()["data"][0]["embedding"])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 2000}, "dimensions"),
        ({"model": "text-embedding-ada-002", "dimensions": 8}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_wrong_embedding_requests(change: dict[str, Any], param: str) -> None:
    async with plain() as http:
        answer = await http.post("/v1/embeddings", json={"model": "m", "input": "x", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


# -- example values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Oslo"),
        ({"type": "string", "format": "date"}, "2025-01-31"),
        ({"type": "string", "minLength": 6}, "Oslo.."),
        ({"type": "string", "maxLength": 2}, "Os"),
        ({"type": ["integer", "null"], "minimum": 3}, 3),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMinimum": 0}, 1),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"const": 5}, 5),
        ({"enum": ["x", "y"]}, "x"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "maxItems": 0}, []),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 1),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}]}, {"a": 1}),
        ({"properties": {"a": {"const": 1}, "b": {}}, "required": ["a"]}, {"a": 1}),
        (True, "value"),
        ({"$ref": "#/nowhere"}, "Oslo"),
        ({"$ref": "other.json#/a"}, "Oslo"),
    ],
)
def test_an_example_fits_its_schema(schema: Any, value: object) -> None:
    assert example(schema, "Tell me about Oslo please") == value


def test_a_schema_that_contains_itself_ends() -> None:
    node = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}
    assert example({**node, "required": ["a", "b"]}, "x", every=True)
