"""What is read of Cohere's rerank: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.formats.cohere import RERANK
from kong_ai_proxy.formats.embeddings import EmbeddingsRequest
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.usage import Usage

ANSWER: dict[str, Any] = {
    "results": [
        {"index": 3, "relevance_score": 0.999071},
        {"index": 4, "relevance_score": 0.7867867},
    ],
    "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
    "meta": {"api_version": {"version": "2", "is_experimental": False}},
}
"""The page's own answer, but for `billed_units`."""


def usage(**meta: Any) -> Usage | None:
    return RERANK.parse_answer({**ANSWER, "meta": {**ANSWER["meta"], **meta}}).usage


@pytest.mark.parametrize("told", [2, 2.0])
def test_searches_are_counted(told: float) -> None:
    assert usage(billed_units={"search_units": told}) == Usage(prompt_details={"search_units": 2})


def test_tokens_are_counted_where_they_are_told() -> None:
    found = usage(billed_units={"search_units": 1}, tokens={"input_tokens": 12.0})
    details = {"search_units": 1}
    assert found == Usage(prompt_tokens=12, total_tokens=12, prompt_details=details)


@pytest.mark.parametrize(
    "meta", [{}, {"billed_units": None}, {"billed_units": {"search_units": "1"}}, {"tokens": []}]
)
def test_an_answer_that_tells_nothing_has_no_usage(meta: dict[str, Any]) -> None:
    assert usage(**meta) is None
    assert RERANK.parse_answer({"results": []}).usage is None


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_is_no_answer(value: object) -> None:
    with pytest.raises(FormatError):
        RERANK.parse_answer(value)


def test_nothing_becomes_a_request_to_rerank() -> None:
    with pytest.raises(FormatError, match="texts to be ranked"):
        RERANK.render_request(EmbeddingsRequest(inputs=("a",)))


def test_errors_are_coheres() -> None:
    assert RERANK.parse_error(429, b'{"message":"Slow down."}').message == "Slow down."
