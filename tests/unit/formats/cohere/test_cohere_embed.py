"""Cohere's embeddings, read and written."""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson
import pytest
from cohere.types import EmbedByTypeResponse

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.cohere import EMBED
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.cohere import judge

CONTEXT = Context(id="abcdefghijklmnopqrstuvwx")
USAGE = Usage(prompt_tokens=2, total_tokens=2)


def test_the_documented_request_is_read_and_made_again() -> None:
    body = judge.fixture("embed.json", "request")
    request = EMBED.parse_request(body)
    assert request.inputs == ("hello", "goodbye")
    assert (request.dimensions, request.input_type, request.base64) == (
        256,
        "classification",
        False,
    )
    rendered = EMBED.render_request(request)
    judge.check_request(rendered.body, "embed")
    assert rendered == (body, ())


def test_inputs_of_one_text_each_are_texts() -> None:
    inputs = [{"content": [{"type": "text", "text": text}]} for text in ("a", "b")]
    assert EMBED.parse_request({"inputs": inputs}, model="m").inputs == ("a", "b")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "texts"),
        ({"texts": "a"}, "texts"),
        ({"texts": [1]}, "texts"),
        ({"images": ["data:"]}, "images"),
        ({"inputs": [{"content": [{"type": "image_url"}]}]}, "inputs[0].content"),
        ({"texts": ["a"], "embedding_types": ["int8"]}, "embedding_types"),
        ({"texts": ["a"], "output_dimension": "1"}, "output_dimension"),
    ],
)
def test_what_is_wrong_in_a_request_is_named(body: dict[str, object], place: str) -> None:
    with pytest.raises(FormatError) as error:
        EMBED.parse_request(body)
    assert str(error.value).startswith(f"{place}: expected")


def test_at_most_96_texts_are_taken_at_once() -> None:
    EMBED.render_request(EmbeddingsRequest(inputs=("a",) * 96))
    with pytest.raises(FormatError, match="96"):
        EMBED.render_request(EmbeddingsRequest(inputs=("a",) * 97))


def test_token_numbers_are_refused() -> None:
    with pytest.raises(FormatError, match="input"):
        EMBED.render_request(EmbeddingsRequest(tokens=((1, 2),)))


def test_the_input_type_may_be_a_setting() -> None:
    knobs = {"input_type": "search_query", "user": "u", "truncate": "START"}
    rendered = EMBED.render_request(EmbeddingsRequest(inputs=("a",), settings=knobs))
    judge.check_request(rendered.body, "embed")
    assert rendered.body["input_type"] == "search_query"
    assert rendered.body["truncate"] == "START"
    assert rendered.dropped == ("user",)


def test_the_documented_answers_are_read() -> None:
    answer = EMBED.parse_answer(judge.fixture("embed.json", "answer"))
    assert answer.vectors == ([0.016296387, -0.008354187], [0.04663086, -0.023239136])
    assert answer.usage == USAGE
    assert EMBED.parse_answer(judge.fixture("embed.json", "by_floats")).vectors == ([0.5, -1],)


@pytest.mark.parametrize(
    "value", [None, {}, {"embeddings": {"int8": []}}, {"embeddings": [1]}, {"message": "no"}]
)
def test_something_else_is_no_answer(value: object) -> None:
    with pytest.raises(FormatError, match=r"answer|no"):
        EMBED.parse_answer(value)


def test_an_answer_is_written_for_coheres_library() -> None:
    request = EmbeddingsRequest(inputs=("a", "b"))
    answer = EmbeddingsAnswer(vectors=([0.5, 1.0], [2, 3]), usage=USAGE)
    body: Any = EMBED.render_answer(answer, request, CONTEXT)
    judge.check(EmbedByTypeResponse, body)
    client = judge.client(orjson.dumps(body)).v2
    found = client.embed(model="m", input_type="clustering", texts=["a", "b"])
    assert found.embeddings.float_ == [[0.5, 1.0], [2, 3]]
    assert (found.id, found.meta.billed_units.input_tokens) == (CONTEXT.id, 2)


def test_base64_is_what_was_asked_for() -> None:
    request = EMBED.parse_request({"texts": ["a"], "embedding_types": ["base64"]})
    body: Any = EMBED.render_answer(EmbeddingsAnswer(vectors=([0.5, -2],)), request, CONTEXT)
    (text,) = body["embeddings"]["base64"]
    assert struct.unpack("<2f", base64.b64decode(text)) == (0.5, -2.0)


def test_vectors_that_are_none_are_an_error() -> None:
    request = EmbeddingsRequest(inputs=("a",), base64=True)
    with pytest.raises(FormatError, match="numbers"):
        EMBED.render_answer(EmbeddingsAnswer(vectors=(["a"],)), request, CONTEXT)  # type: ignore[list-item]


def test_errors_are_coheres() -> None:
    error = EMBED.parse_error(400, b'{"message":"no"}')
    assert error == ProviderError("no", status=400)
    assert EMBED.render_error(error) == {"message": "no"}
