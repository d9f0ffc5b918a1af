"""Texts to be embedded, from every format into every other, and their vectors back."""

from __future__ import annotations

from typing import Any, Final, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_ai_proxy.formats import bedrock, cohere, gemini, huggingface, ollama
from kong_ai_proxy.formats.codec import Context, EmbeddingsClient, EmbeddingsCodec
from kong_ai_proxy.formats.codec import EmbeddingsProvider as Provider
from kong_ai_proxy.formats.embeddings import EmbeddingsAnswer, EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import embeddings as openai_embeddings
from kong_ai_proxy.formats.usage import Usage
from tests.unit.formats.pairs_formats import strings

CONTEXT = Context(model="asked-model", id="abcdefghijklmnopqrstuvwx")
_ALL: Final[dict[str, Provider]] = {
    each.name: each
    for each in (
        openai_embeddings.EMBEDDINGS,
        cohere.EMBED,
        gemini.EMBED,
        gemini.EMBED_ONE,
        gemini.VERTEX_EMBED,
        gemini.VERTEX_EMBEDDINGS,
        huggingface.EMBED,
        bedrock.TITAN_EMBED,
        bedrock.NOVA_EMBED,
        bedrock.COHERE_EMBED,
        ollama.EMBED,
    )
}
_CLIENTS: Final = [name for name, each in _ALL.items() if hasattr(each, "parse_request")]
_ONE_TEXT: Final = {"gemini/embed-one", "bedrock/titan-embed", "bedrock/nova-embed"}
"""They embed one text a request."""
_NO_USAGE: Final = {"huggingface/embed"}


def _codec(name: str) -> EmbeddingsCodec:
    return cast(EmbeddingsCodec, _ALL[name])


def _requests(name: str) -> st.SearchStrategy[EmbeddingsRequest]:
    texts = st.text('abc äß\n"', min_size=1, max_size=9)
    return st.builds(
        EmbeddingsRequest,
        inputs=st.lists(texts, min_size=1, max_size=1 if name in _ONE_TEXT else 3).map(tuple),
        model=st.just("some-model"),
        dimensions=st.none() | st.integers(1, 3072),
        input_type=st.sampled_from(["", "search_document", "search_query", "clustering"]),
    )


def _body(value: object) -> Any:
    return orjson.loads(orjson.dumps(value))


@pytest.mark.parametrize("name", _CLIENTS)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_texts_reach_every_other_format(name: str, data: st.DataObject) -> None:
    said = data.draw(_requests(name))
    rendered, dropped = _codec(name).render_request(said)
    asked = _codec(name).parse_request(_body(rendered), model=said.model)
    assert asked.inputs == said.inputs
    assert asked.dimensions == said.dimensions
    assert asked.input_type == said.input_type or "input_type" in dropped or not asked.input_type
    for other in _ALL:
        _check(asked, other)


def _check(asked: EmbeddingsRequest, name: str) -> None:
    if name in _ONE_TEXT and len(asked.inputs) > 1:
        with pytest.raises(FormatError):
            _ALL[name].render_request(asked)
        return
    body, dropped = _ALL[name].render_request(asked)
    found = list(strings(_body(body)))
    assert all(text in found for text in asked.inputs), name
    if name not in _CLIENTS:
        return
    again = cast(EmbeddingsClient, _ALL[name]).parse_request(_body(body), model=asked.model)
    assert again.inputs == asked.inputs, name
    assert again.dimensions == asked.dimensions or "dimensions" in dropped, name
    assert again.input_type == asked.input_type or "input_type" in dropped, name


@pytest.mark.parametrize("name", _CLIENTS)
@given(
    vectors=st.lists(
        st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2), min_size=1, max_size=3
    ),
    tokens=st.integers(1, 9999),
)
@settings(max_examples=20, deadline=None)
def test_vectors_come_back_in_every_other_format(
    name: str, vectors: list[list[float]], tokens: int
) -> None:
    vectors = vectors[:1] if name in _ONE_TEXT else vectors
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
    answer = EmbeddingsAnswer(vectors=tuple(vectors), model="some-model", usage=usage)
    read = _told(name, answer)
    assert [list(each) for each in read.vectors] == vectors
    for other in _CLIENTS:
        expected = vectors[:1] if other in _ONE_TEXT else vectors
        found = _told(other, read)
        assert [list(each) for each in found.vectors] == expected, other
        if not {name, other} & _NO_USAGE:
            assert found.usage is not None
            assert found.usage.prompt_tokens == tokens, other


def _told(name: str, answer: EmbeddingsAnswer) -> EmbeddingsAnswer:
    request = EmbeddingsRequest(inputs=("a",) * len(answer.vectors))
    return _codec(name).parse_answer(_body(_codec(name).render_answer(answer, request, CONTEXT)))
