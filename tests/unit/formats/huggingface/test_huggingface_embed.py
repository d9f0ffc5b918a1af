"""Hugging Face's feature extraction, read and written."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import orjson
import pytest
from huggingface_hub import FeatureExtractionInput

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.huggingface import EMBED

FIXTURE = orjson.loads((Path(__file__).parent / "fixtures" / "embed.json").read_bytes())


def test_the_documented_request_is_read_and_made_again() -> None:
    body = FIXTURE["request"]["body"]
    request = EMBED.parse_request(body, model="intfloat/multilingual-e5-large")
    assert request.inputs == ("Today is a sunny day", "and I will get some ice cream.")
    assert request.model == "intfloat/multilingual-e5-large"
    rendered = EMBED.render_request(request)
    assert rendered.dropped == ()
    assert rendered.body == body
    assert rendered.body.keys() <= {field.name for field in fields(FeatureExtractionInput)}


def test_one_text_goes_up_as_an_array() -> None:
    request = EMBED.parse_request({"inputs": "a"})
    assert not request.is_array
    assert EMBED.render_request(request).body == {"inputs": ["a"]}


def test_the_length_of_the_vectors_is_asked_for() -> None:
    request = EmbeddingsRequest(inputs=("a",), dimensions=64)
    assert EMBED.render_request(request).body == {"inputs": ["a"], "dimensions": 64}
    assert EMBED.parse_request({"inputs": ["a"], "dimensions": 64}) == request


def test_what_the_server_does_not_know_is_dropped_and_named() -> None:
    request = EmbeddingsRequest(
        inputs=("a",), input_type="search_query", settings={"user": "u", "truncate": True}
    )
    rendered = EMBED.render_request(request)
    assert rendered == ({"inputs": ["a"], "truncate": True}, ("user", "input_type"))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "inputs"),
        ({"inputs": [1]}, "inputs[0]"),
        ({"inputs": "a", "dimensions": "1"}, "dimensions"),
    ],
)
def test_what_is_wrong_in_a_request_is_named(body: dict[str, object], place: str) -> None:
    with pytest.raises(FormatError) as error:
        EMBED.parse_request(body)
    assert str(error.value).startswith(f"{place}: expected")


def test_token_numbers_are_refused() -> None:
    with pytest.raises(FormatError, match="input"):
        EMBED.render_request(EmbeddingsRequest(tokens=((1,),)))


def test_the_documented_answer_is_read() -> None:
    assert EMBED.parse_answer(FIXTURE["answer"]["body"]).vectors == ([0.0, 1.0, 2.0], [0.5, -1, 2])


def test_a_vector_without_its_array_is_one() -> None:
    assert EMBED.parse_answer([0.5, 1]).vectors == ([0.5, 1],)


def test_vectors_for_each_token_are_refused() -> None:
    with pytest.raises(FormatError, match="for each token"):
        EMBED.parse_answer([[[0.5, 1], [1, 2]]])


@pytest.mark.parametrize("value", [None, {}, "a", [[]], [["a"]], [{}], [None], [[None]]])
def test_something_else_is_no_answer(value: object) -> None:
    with pytest.raises(FormatError, match="answer"):
        EMBED.parse_answer(value)


def test_an_error_in_place_of_an_answer_is_told() -> None:
    with pytest.raises(FormatError, match="is currently loading"):
        EMBED.parse_answer({"error": "Model a/b is currently loading", "estimated_time": 20})


def test_an_answer_is_written_as_an_array_of_vectors() -> None:
    answer = EmbeddingsAnswer(vectors=([0.5], [1]))
    request = EmbeddingsRequest(inputs=("a", "b"))
    assert EMBED.render_answer(answer, request, Context()) == [[0.5], [1]]


def test_errors_are_those_of_its_servers() -> None:
    error = EMBED.parse_error(422, b'{"error":"too long","error_type":"Validation"}')
    assert error == ProviderError("too long", "Validation", 422)
    assert EMBED.render_error(error) == {"error": "too long", "error_type": "validation"}
