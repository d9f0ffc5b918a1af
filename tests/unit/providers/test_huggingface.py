"""Hugging Face's row: its router, and servers of one's own behind `upstream_url`."""

from __future__ import annotations

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import huggingface, openai
from kong_ai_proxy.formats.codec import ProviderCodec
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.providers.base import Call, Endpoint, Native
from kong_ai_proxy.providers.huggingface import HUGGINGFACE

TGI = "http://tgi.example:8080"


def call(model: str, **options: object) -> Call:
    return Call(openai.EMBEDDINGS, model, ModelOptions.model_validate(options))


def embeddings(model: str) -> Endpoint:
    assert HUGGINGFACE.endpoint is not None
    return HUGGINGFACE.endpoint(call(model))


def native(operation: str, **options: object) -> Endpoint | None:
    assert HUGGINGFACE.native is not None
    return HUGGINGFACE.native(Native("huggingface", operation), call("owner/name", **options))


def test_chat_speaks_openais_format_at_the_router() -> None:
    assert HUGGINGFACE.base(ModelOptions()) == "https://router.huggingface.co:443"
    assert HUGGINGFACE.paths[openai.CHAT] == "/v1/chat/completions"
    assert HUGGINGFACE.codecs == {}
    assert HUGGINGFACE.route_types == {openai.CHAT, openai.EMBEDDINGS, openai.VIDEOS}


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("intfloat/multilingual-e5-large", "intfloat/multilingual-e5-large"),
        ("gpt2", "gpt2"),
        ("a b/c?d#e", "a%20b/c%3Fd%23e"),
        ("a%2F..", "a%252F.."),
    ],
)
def test_the_model_is_a_part_of_the_embeddings_path(model: str, part: str) -> None:
    endpoint = embeddings(model)
    assert endpoint.path == f"/hf-inference/models/{part}/pipeline/feature-extraction"
    assert endpoint.codec is huggingface.EMBED


@pytest.mark.parametrize("model", ["", "a/b/c", "../x", "a/..", "./a", "/a", "a/", "a//b"])
def test_a_name_that_would_leave_the_path_is_refused(model: str) -> None:
    with pytest.raises(FormatError, match="model"):
        embeddings(model)


def test_embeddings_have_the_configured_length_unless_the_request_says_it() -> None:
    change = embeddings("a").change
    assert change is not None
    assert change({}, call("a")) == {}
    assert change({}, call("a", embeddings_dimensions=64)) == {"dimensions": 64}
    assert change({"dimensions": 32}, call("a", embeddings_dimensions=64)) == {}


@pytest.mark.parametrize(
    ("operation", "path", "codec"),
    [
        ("", "/", huggingface.GENERATE_ARRAY),
        ("generate", "/generate", huggingface.GENERATE),
        ("generate_stream", "/generate_stream", huggingface.GENERATE),
        ("v1/chat/completions", "/v1/chat/completions", openai_chat.CHAT),
    ],
)
def test_a_server_of_ones_own_has_native_operations(
    operation: str, path: str, codec: ProviderCodec
) -> None:
    endpoint = native(operation, upstream_url=TGI)
    assert endpoint is not None
    assert (endpoint.path, endpoint.codec) == (path, codec)


@pytest.mark.parametrize("url", [None, f"{TGI}/v1/chat/completions"])
@pytest.mark.parametrize("operation", ["", "generate", "generate_stream", "v1/chat/completions"])
def test_where_only_chat_is_spoken_a_prompt_is_a_message(operation: str, url: str | None) -> None:
    endpoint = native(operation, upstream_url=url)
    assert endpoint is not None
    assert (endpoint.path, endpoint.codec) == ("/v1/chat/completions", openai_chat.CHAT)


def test_other_operations_are_not_known() -> None:
    assert native("info", upstream_url=TGI) is None


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({}, {}),
        ({"use_cache": False}, {"x-use-cache": "false"}),
        (
            {"use_cache": True, "wait_for_model": True},
            {"x-use-cache": "true", "x-wait-for-model": "true"},
        ),
    ],
)
def test_cache_and_waiting_are_headers(options: object, headers: dict[str, str]) -> None:
    assert HUGGINGFACE.headers(ModelOptions.model_validate({"huggingface": options})) == headers
