"""Google's three ways of embeddings."""

from __future__ import annotations

from typing import Any

import pytest
from google.genai import types

from kong_ai_proxy.formats.codec import Context
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini import EMBED, EMBED_ONE, VERTEX_EMBED, VERTEX_EMBEDDINGS
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.gemini.support import fixture

BODIES = fixture("embeddings")
CONTEXT = Context()


def test_one_text_is_read_and_answered_alone() -> None:
    said = EMBED_ONE.parse_request(BODIES["one"])
    assert said == EmbeddingsRequest(
        inputs=("What is the meaning of life?",),
        is_array=False,
        model="text-embedding-004",
        dimensions=256,
        input_type="search_query",
    )
    answer = EmbeddingsAnswer(vectors=([1.0],), usage=Usage(prompt_tokens=3, total_tokens=3))
    assert EMBED_ONE.render_answer(answer, said, CONTEXT) == {
        "embedding": {"values": [1.0]},
        "usageMetadata": {"promptTokenCount": 3},
    }


def test_several_texts_are_read_and_answered_in_their_order() -> None:
    said = EMBED.parse_request(BODIES["batch"], model="gemini-embedding-001")
    assert said == EmbeddingsRequest(
        inputs=("a", "b"),
        model="gemini-embedding-001",
        settings={"taskType": "SEMANTIC_SIMILARITY"},
    )
    value: Any = EMBED.render_answer(EmbeddingsAnswer(vectors=([1], [2])), said, CONTEXT)
    assert value == {"embeddings": [{"values": [1]}, {"values": [2]}]}
    types.EmbedContentResponse.model_validate(value)


def test_the_config_of_newer_models_is_read_too() -> None:
    body = {
        "content": {"parts": {"text": "a"}},
        "embedContentConfig": {"taskType": "clustering", "outputDimensionality": 8},
    }
    said = EMBED_ONE.parse_request(body, model="m")
    assert (said.input_type, said.dimensions, said.settings) == ("clustering", 8, {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "requests: expected at least one"),
        ({"requests": [{"content": {"parts": []}}]}, r"requests\[0\].content: expected at least"),
        (
            {"requests": [{"content": {"parts": [{"inlineData": {}}]}}]},
            r"parts\[0\]: expected text",
        ),
        (
            {
                "requests": [
                    {"content": {"parts": {"text": "a"}}},
                    {"content": {"parts": {"text": "b"}}, "title": "t"},
                ]
            },
            r"requests\[1\]: expected the same settings",
        ),
        (
            {"requests": [{"content": {"parts": {"text": "a"}}, "outputDimensionality": "8"}]},
            "outputDimensionality: expected a whole number",
        ),
    ],
)
def test_what_is_no_request_is_an_error_that_says_where(body: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        EMBED.parse_request(body)


SAID = EmbeddingsRequest(
    inputs=("a", "b"),
    model="gemini-embedding-001",
    dimensions=8,
    input_type="search_document",
    settings={"user": "u", "title": "t"},
    extra={"auto_truncate": False},
)


def test_the_gemini_api_names_the_model_in_each_request() -> None:
    body, dropped = EMBED.render_request(SAID)
    about = {
        "model": "models/gemini-embedding-001",
        "title": "t",
        "taskType": "RETRIEVAL_DOCUMENT",
        "outputDimensionality": 8,
        "autoTruncate": False,
    }
    assert body == {
        "requests": [{"content": {"parts": [{"text": text}]}, **about} for text in ("a", "b")]
    }
    assert dropped == ("user",)


def test_vertex_has_its_settings_in_a_config() -> None:
    body, _ = VERTEX_EMBED.render_request(EmbeddingsRequest(inputs=("a",), dimensions=8, model="m"))
    assert body == {
        "requests": [
            {
                "content": {"parts": [{"text": "a"}]},
                "embedContentConfig": {"outputDimensionality": 8},
            }
        ]
    }


def test_predict_has_instances_and_parameters() -> None:
    said = EmbeddingsRequest(
        inputs=("a", "b"),
        model="text-embedding-005",
        dimensions=8,
        input_type="search_document",
        settings={"title": "t"},
        extra={"parameters": {"autoTruncate": False}},
    )
    assert VERTEX_EMBEDDINGS.render_request(said).body == {
        "instances": [
            {"content": text, "task_type": "RETRIEVAL_DOCUMENT", "title": "t"} for text in "ab"
        ],
        "parameters": {"outputDimensionality": 8, "autoTruncate": False},
    }


def test_gemini_embedding_takes_one_text_at_predict() -> None:
    with pytest.raises(FormatError, match="takes one text a request"):
        VERTEX_EMBEDDINGS.render_request(SAID)


def test_token_numbers_are_refused() -> None:
    with pytest.raises(FormatError, match="do not read token numbers"):
        EMBED.render_request(EmbeddingsRequest(tokens=((1, 2),), model="m"))


def test_embed_content_takes_one_text() -> None:
    with pytest.raises(FormatError, match="one text a request"):
        EMBED_ONE.render_request(SAID)
    one = EmbeddingsRequest(inputs=("a",), model="m", input_type="image")
    assert EMBED_ONE.render_request(one) == (
        {"content": {"parts": [{"text": "a"}]}},
        ("input_type",),
    )


def test_vectors_come_in_order_with_their_tokens() -> None:
    found = VERTEX_EMBEDDINGS.parse_answer(BODIES["predict_answer"])
    assert found.vectors == ([0.5, 0.25], [0.125, 1])
    assert found.usage == Usage(prompt_tokens=10, total_tokens=10)
    assert EMBED.parse_answer(BODIES["batch_answer"]).vectors == ([0.1, 0.2], [0.3, 0.4])
    assert EMBED.parse_answer(BODIES["one_answer"]).vectors == ([-0.02, 0.01],)


@pytest.mark.parametrize("codec", [EMBED, VERTEX_EMBEDDINGS])
@pytest.mark.parametrize(
    "value", [None, [], {}, {"embeddings": [{}]}, {"predictions": [{"embeddings": {}}]}]
)
def test_what_is_no_answer_is_an_error(codec: Any, value: Any) -> None:
    with pytest.raises(FormatError, match="expected"):
        codec.parse_answer(value)


def test_errors_are_googles() -> None:
    body = b'{"error": {"code": 404, "message": "m", "status": "NOT_FOUND"}}'
    for codec in (EMBED, VERTEX_EMBEDDINGS):
        assert codec.parse_error(404, body).type == "NOT_FOUND"
    assert EMBED.render_error(EMBED.parse_error(404, body)) == {
        "error": {"code": 404, "message": "m", "status": "NOT_FOUND"}
    }
