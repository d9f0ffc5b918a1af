"""Cohere's row: what is spoken where."""

from __future__ import annotations

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import cohere, openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.providers.base import Call, Native
from kong_ai_proxy.providers.cohere import COHERE


def call(route_type: str, **options: object) -> Call:
    return Call(route_type, "embed-v4.0", ModelOptions.model_validate(options))


@pytest.mark.parametrize(
    ("route_type", "path", "codec"),
    [
        (openai.CHAT, "/v2/chat", cohere.CHAT),
        (openai.COMPLETIONS, "/v1/generate", cohere.GENERATE),
        (openai.EMBEDDINGS, "/v2/embed", cohere.EMBED),
    ],
)
def test_each_route_type_has_its_path(route_type: str, path: str, codec: ProviderCodec) -> None:
    assert COHERE.endpoint is not None
    endpoint = COHERE.endpoint(call(route_type))
    assert (endpoint.path, endpoint.codec) == (path, codec)
    assert COHERE.base(ModelOptions()) == "https://api.cohere.com:443"


def test_it_supports_text_and_nothing_else() -> None:
    assert COHERE.route_types == {openai.CHAT, openai.COMPLETIONS, openai.EMBEDDINGS}


@pytest.mark.parametrize(
    ("operation", "path", "codec"),
    [
        ("rerank", "/v2/rerank", cohere.RERANK),
        ("v1/rerank", "/v1/rerank", cohere.RERANK),
        ("v2/rerank", "/v2/rerank", cohere.RERANK),
        ("v1/chat", "/v1/chat", None),
        ("v2/chat", "/v2/chat", cohere.CHAT),
        ("chat", "/v2/chat", cohere.CHAT),
        ("v1/embed", "/v1/embed", None),
        ("v2/embed", "/v2/embed", cohere.EMBED),
        ("generate", "/v1/generate", cohere.GENERATE),
    ],
)
def test_native_operations_have_their_path(
    operation: str, path: str, codec: ProviderCodec | None
) -> None:
    assert COHERE.native is not None
    endpoint = COHERE.native(Native("cohere", operation), call(openai.CHAT))
    assert endpoint is not None
    assert (endpoint.path, endpoint.codec) == (path, codec)


@pytest.mark.parametrize("operation", ["", "v2/generate", "v1/datasets", "../v2/chat"])
def test_other_operations_are_not_known(operation: str) -> None:
    assert COHERE.native is not None
    assert COHERE.native(Native("cohere", operation), call(openai.CHAT)) is None


def test_embeddings_have_the_configured_input_type_unless_the_request_says_it() -> None:
    assert COHERE.endpoint is not None
    change = COHERE.endpoint(call(openai.EMBEDDINGS)).change
    assert change is not None
    options = {"cohere": {"embedding_input_type": "search_query"}, "embeddings_dimensions": 256}
    configured = call(openai.EMBEDDINGS, **options)
    assert change({}, call(openai.EMBEDDINGS)) == {"input_type": "classification"}
    assert change({}, configured) == {"input_type": "search_query", "output_dimension": 256}
    assert change({"input_type": "clustering", "output_dimension": 64}, configured) == {}


@pytest.mark.parametrize("operation", ["v1/chat", "v1/embed", "v1/rerank", "v2/rerank"])
def test_who_names_no_model_gets_the_configured_one(operation: str) -> None:
    """And not the one that Cohere would choose."""
    assert COHERE.native is not None
    asked = call(openai.CHAT)
    endpoint = COHERE.native(Native("cohere", operation), asked)
    assert endpoint is not None
    assert endpoint.change is not None
    for body in ({}, {"model": None}, {"model": ""}):
        assert endpoint.change(body, asked) == {"model": "embed-v4.0"}
    assert endpoint.change({"model": "embed-v4.0"}, asked) == {}
    assert endpoint.change({}, asked._replace(model="")) == {}
