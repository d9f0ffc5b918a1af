"""Embeddings: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.conversation import Rendered
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai.embeddings import EMBEDDINGS
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.openai import sdk

CONTEXT = Context(model="asked")


@pytest.mark.parametrize(
    "body",
    [
        {"model": "text-embedding-3-small", "input": "The food was delicious"},
        {"model": "m", "input": ["a"]},
        {"model": "m", "input": ["a", "b"], "dimensions": 256, "user": "ann"},
        {"model": "m", "input": [1, 2]},
    ],
)
def test_a_request_in_the_format_survives(body: dict[str, Any]) -> None:
    found = EMBEDDINGS.render_request(EMBEDDINGS.parse_request(body))
    assert found == Rendered(body)
    sdk.check_embeddings_request(found.body)


def test_texts_as_token_numbers_survive() -> None:
    # OpenAI's type is a union of iterables, which pydantic cannot tell apart.
    body: dict[str, object] = {"model": "m", "input": [[1, 2], [3]]}
    assert EMBEDDINGS.render_request(EMBEDDINGS.parse_request(body)) == Rendered(body)


def test_whatever_else_is_said_is_kept_or_named() -> None:
    said = EMBEDDINGS.parse_request(
        {
            "input": "a",
            "encoding_format": "base64",
            "input_type": "search_query",
            "dimensions": None,
            "truncate": "END",
            "extra_body": {"a": 1},
        },
        model="m",
    )
    assert said == EmbeddingsRequest(
        inputs=("a",),
        is_array=False,
        model="m",
        input_type="search_query",
        base64=True,
        settings={"truncate": "END"},
        extra={"a": 1},
    )
    found = EMBEDDINGS.render_request(said)
    assert found == Rendered({"model": "m", "input": "a", "a": 1}, ("truncate", "input_type"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "input: expected a non-empty string"),
        ({"input": ""}, "input: expected a non-empty string"),
        ({"input": []}, "input: expected a non-empty string"),
        ({"input": ["a", 1]}, "input: expected a string"),
        ({"input": [True]}, "input: expected a non-empty string"),
        ({"input": [[]]}, "input: expected a non-empty string"),
        ({"input": {}}, "input: expected a non-empty string"),
        ({"input": "a", "encoding_format": "x"}, "encoding_format: expected float or base64"),
        ({"input": "a", "dimensions": "1"}, "dimensions: expected a whole number"),
    ],
)
def test_a_bad_request_says_what(body: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError) as raised:
        EMBEDDINGS.parse_request(body)
    assert str(raised.value).startswith(message)


def test_an_answer_is_read_in_the_order_of_the_texts() -> None:
    value = {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [0.5], "index": 1},
            {"object": "embedding", "embedding": [0.25, -1], "index": 0},
        ],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
    assert EMBEDDINGS.parse_answer(value) == EmbeddingsAnswer(
        vectors=([0.25, -1], [0.5]),
        model="text-embedding-3-small",
        usage=Usage(prompt_tokens=8, total_tokens=8),
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "'data' not in llm/v1/embeddings response"),
        ({"error": {}}, "'data' not in llm/v1/embeddings response"),
        ({"data": [1]}, "data[0]: expected an object"),
        ({"data": [{}]}, "data[0].embedding: expected a string"),
        ({"data": [{"embedding": "?"}]}, "data[0].embedding: expected an array of numbers, or"),
        ({"data": [{"embedding": "AAAA"}]}, "data[0].embedding: expected base64 of floats"),
    ],
)
def test_what_is_no_answer_is_refused(value: object, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        EMBEDDINGS.parse_answer(value)
    assert str(raised.value).startswith(message)


def test_an_answer_is_written() -> None:
    answer = EmbeddingsAnswer(vectors=([0.5, 1], [0.25, 2]))
    value = EMBEDDINGS.render_answer(answer, EmbeddingsRequest(inputs=("a", "b")), CONTEXT)
    sdk.check_embeddings_answer(value)
    assert value == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, 1]},
            {"object": "embedding", "index": 1, "embedding": [0.25, 2]},
        ],
        "model": "asked",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False)), min_size=1, max_size=3))
def test_base64_is_little_endian_floats(vectors: list[list[float]]) -> None:
    answer = EmbeddingsAnswer(vectors=tuple(vectors), model="m", usage=Usage(total_tokens=1))
    request = EmbeddingsRequest(inputs=("a",), base64=True)
    value: Any = EMBEDDINGS.render_answer(answer, request, CONTEXT)
    for vector, row in zip(vectors, value["data"], strict=True):
        assert base64.b64decode(row["embedding"]) == b"".join(struct.pack("<f", x) for x in vector)
    again = EMBEDDINGS.parse_answer(value)
    assert [list(vector) for vector in again.vectors] == vectors


def test_errors_are_those_of_the_format() -> None:
    error = EMBEDDINGS.parse_error(400, b'{"error":{"message":"m","type":"t"}}')
    assert EMBEDDINGS.render_error(error) == {
        "error": {"message": "m", "type": "t", "param": None, "code": None}
    }
