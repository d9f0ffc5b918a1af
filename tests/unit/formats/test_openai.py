"""Which OpenAI operation a body asks for."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.openai import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    check_shape,
    requested_model,
)

Json = dict[str, Any]

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("body", "route_type"),
    [
        ({"messages": MESSAGES}, CHAT),
        ({"prompt": "hi"}, COMPLETIONS),
        ({"prompt": ["a", "b"]}, COMPLETIONS),
        ({"prompt": [1, 2, 3]}, COMPLETIONS),
        ({"input": "hi"}, EMBEDDINGS),
        ({"input": ["a", "b"]}, EMBEDDINGS),
        ({"input": [[1, 2], [3]]}, EMBEDDINGS),
    ],
)
def test_a_body_of_the_route_type_passes(body: Json, route_type: str) -> None:
    check_shape(body, route_type)


@pytest.mark.parametrize("route_type", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize(
    "body", [{}, {"messages": []}, {"messages": "hi"}, {"prompt": ""}, {"input": None}]
)
def test_a_body_without_a_prompt_says_what_was_expected(body: Json, route_type: str) -> None:
    with pytest.raises(
        FormatError, match=r"doesn't contain valid prompts: expected .*" + route_type
    ):
        check_shape(body, route_type)


def test_a_body_with_messages_and_prompt_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^request matches multiple LLM request formats$"):
        check_shape({"messages": MESSAGES, "prompt": "hi"}, CHAT)


@pytest.mark.parametrize(
    ("body", "shape", "route_type"),
    [
        ({"messages": MESSAGES}, CHAT, COMPLETIONS),
        ({"prompt": "hi"}, COMPLETIONS, CHAT),
        ({"messages": MESSAGES}, CHAT, EMBEDDINGS),
        ({"input": "hi"}, EMBEDDINGS, CHAT),
    ],
)
def test_a_body_of_another_route_type_is_refused(body: Json, shape: str, route_type: str) -> None:
    with pytest.raises(FormatError) as refused:
        check_shape(body, route_type)
    assert str(refused.value) == (
        f"[{shape}] message format is not compatible with [{route_type}] route type"
    )


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
def test_no_model_null_and_empty_are_alike(body: Json) -> None:
    assert requested_model(body) is None


@pytest.mark.parametrize("model", [7, True, ["gpt-4o"], {"name": "gpt-4o"}])
def test_a_model_that_is_not_text_is_refused(model: object) -> None:
    with pytest.raises(FormatError, match="expected 'model' to be a string"):
        requested_model({"model": model})
