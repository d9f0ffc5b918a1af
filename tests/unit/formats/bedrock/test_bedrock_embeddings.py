"""Embeddings by InvokeModel."""

from __future__ import annotations

import pytest

from kong_ai_proxy.formats.bedrock import COHERE_EMBED, NOVA_EMBED, TITAN_EMBED
from kong_ai_proxy.formats.codec import Context, EmbeddingsProvider
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError, ProviderError
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.bedrock.support import fixture

V2 = "amazon.titan-embed-text-v2:0"
ANSWERS = fixture("embeddings")
USED = Usage(prompt_tokens=5, total_tokens=5)


@pytest.mark.parametrize(
    ("model", "body", "dropped"),
    [
        (V2, {"inputText": "Hi", "dimensions": 256, "normalize": True}, ("user",)),
        (
            "amazon.titan-embed-text-v1",
            {"inputText": "Hi"},
            ("dimensions", "normalize", "user"),
        ),
        (
            "amazon.titan-embed-image-v1",
            {"inputText": "Hi", "embeddingConfig": {"outputEmbeddingLength": 256}},
            ("normalize", "user"),
        ),
    ],
)
def test_requests_to_titan(model: str, body: object, dropped: tuple[str, ...]) -> None:
    request = EmbeddingsRequest(
        inputs=("Hi",), model=model, dimensions=256, settings={"normalize": True, "user": "u"}
    )
    assert TITAN_EMBED.render_request(request) == (body, dropped)


@pytest.mark.parametrize(
    ("input_type", "purpose"),
    [("", "GENERIC_INDEX"), ("search_query", "GENERIC_RETRIEVAL"), ("clustering", "CLUSTERING")],
)
def test_requests_to_nova(input_type: str, purpose: str) -> None:
    request = EmbeddingsRequest(inputs=("Hi",), dimensions=256, input_type=input_type)
    assert NOVA_EMBED.render_request(request).body == {
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": {
            "embeddingPurpose": purpose,
            "embeddingDimension": 256,
            "text": {"truncationMode": "NONE", "value": "Hi"},
        },
    }


def test_requests_to_cohere_take_many_texts_and_no_model() -> None:
    request = EmbeddingsRequest(
        inputs=("a", "b"), model="cohere.embed-v4:0", dimensions=256, input_type="clustering"
    )
    assert COHERE_EMBED.render_request(request).body == {
        "texts": ["a", "b"],
        "input_type": "clustering",
        "embedding_types": ["float"],
        "output_dimension": 256,
    }


@pytest.mark.parametrize("codec", [TITAN_EMBED, NOVA_EMBED])
@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (EmbeddingsRequest(inputs=("a", "b")), "input: expected one text"),
        (EmbeddingsRequest(), "input: expected one text"),
        (EmbeddingsRequest(tokens=((1, 2),)), "takes no token numbers"),
    ],
)
def test_models_that_embed_one_text_refuse_others(
    codec: EmbeddingsProvider, request_: EmbeddingsRequest, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason):
        codec.render_request(request_)


def test_answers_are_read() -> None:
    assert TITAN_EMBED.parse_answer(ANSWERS["titan"]) == EmbeddingsAnswer(
        vectors=([0.25, -1, 0.5],), usage=USED
    )
    assert NOVA_EMBED.parse_answer(ANSWERS["nova"]).vectors == ([0.25, -1, 0.5],)
    for name in ("cohere", "cohere_by_type"):
        found = COHERE_EMBED.parse_answer(ANSWERS[name])
        assert (found.vectors, found.id) == (([0.25, -1], [0.5, 0]), "e1")


@pytest.mark.parametrize("codec", [TITAN_EMBED, NOVA_EMBED, COHERE_EMBED])
@pytest.mark.parametrize("body", [None, {}, {"embedding": 1}, {"embeddings": 1}, {"message": "No"}])
def test_what_is_no_answer_is_refused(codec: EmbeddingsProvider, body: object) -> None:
    with pytest.raises(FormatError):
        codec.parse_answer(body)


def test_clients_of_titan_reach_others() -> None:
    body = {"inputText": "Hi", "dimensions": 256, "normalize": True, "embeddingTypes": ["float"]}
    request = TITAN_EMBED.parse_request(body, model=V2)
    assert request == EmbeddingsRequest(
        inputs=("Hi",), is_array=False, model=V2, dimensions=256, settings={"normalize": True}
    )
    answer = EmbeddingsAnswer(vectors=([0.25, -1, 0.5],), usage=USED)
    assert TITAN_EMBED.render_answer(answer, request, Context()) == ANSWERS["titan"]


def test_clients_of_titans_model_for_images_reach_others_with_texts() -> None:
    body = {"inputText": "Hi", "embeddingConfig": {"outputEmbeddingLength": 384}}
    assert TITAN_EMBED.parse_request(body).dimensions == 384


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "inputText"),
        ({"inputText": "a", "inputImage": "AAAA"}, "inputImage"),
        ({"inputText": "a", "embeddingTypes": ["binary"]}, "embeddingTypes"),
        ({"inputText": "a", "dimensions": "256"}, "dimensions"),
    ],
)
def test_a_request_of_titans_that_is_none_is_refused(body: dict[str, object], place: str) -> None:
    with pytest.raises(FormatError, match=place):
        TITAN_EMBED.parse_request(body)


def test_errors_are_bedrocks() -> None:
    error = ProviderError("Bad", "ValidationException", 400)
    assert TITAN_EMBED.parse_error(400, b'{"message":"Bad"}') == error
    assert TITAN_EMBED.render_error(error) == {"__type": "ValidationException", "message": "Bad"}
