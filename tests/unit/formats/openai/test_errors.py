"""Errors of OpenAI's format and of the servers compatible with it."""

from __future__ import annotations

import orjson
import pytest

from kong_ai_proxy.formats.errors import ProviderError
from kong_ai_proxy.formats.openai.chat import CHAT


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # https://platform.openai.com/docs/guides/error-codes
        (
            {"error": {"message": "m", "type": "invalid_request_error", "param": "n", "code": "c"}},
            ProviderError("m", "invalid_request_error", 418, "c", "n"),
        ),
        ({"error": {"message": "m", "code": 40001}}, ProviderError("m", "", 418, "40001")),
        ({"error": "text"}, ProviderError("text", "", 418)),
        ({"error": "Unauthorized", "message": "m"}, ProviderError("m", "", 418)),
        ({"message": "m", "type": "t", "code": 400}, ProviderError("m", "t", 418, "400")),
        # https://docs.databricks.com/api/workspace/introduction
        ({"error_code": "BAD_REQUEST", "message": "m"}, ProviderError("m", "", 418, "BAD_REQUEST")),
        ({"detail": "Not found"}, ProviderError("Not found", "", 418)),
        (
            {"detail": [{"loc": ["body"], "msg": "a", "type": "x"}, {"msg": "b"}]},
            ProviderError("a; b", "", 418),
        ),
        # https://docs.mistral.ai/api: HTTPValidationError
        ({"message": {"detail": [{"msg": "a"}]}}, ProviderError("a", "", 418)),
        # https://ai.google.dev/gemini-api/docs/openai
        ([{"error": {"code": 400, "message": "m"}}], ProviderError("m", "", 418, "400")),
        ({"error": {"type": "overloaded_error"}}, ProviderError("overloaded_error",
                                                                "overloaded_error", 418)),
        ({"error": {}}, ProviderError("unknown error", "", 418)),
    ],
)  # fmt: skip
def test_an_error_is_found_in_each_shape(body: object, expected: ProviderError) -> None:
    assert CHAT.parse_error(418, orjson.dumps(body)) == expected


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"{}", b"[]", b"null", b"\xff"])
def test_an_error_of_any_content_has_a_message(body: bytes) -> None:
    error = CHAT.parse_error(502, body)
    assert error.message
    assert error.status == 502


def test_a_text_is_its_own_message() -> None:
    assert CHAT.parse_error(503, b"no healthy upstream").message == "no healthy upstream"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (529, "server_error"),
        (0, "api_error"),
    ],
)
def test_an_error_without_a_type_has_that_of_its_status(status: int, kind: str) -> None:
    assert CHAT.render_error(ProviderError("m", status=status)) == {
        "error": {"message": "m", "type": kind, "param": None, "code": None}
    }


def test_a_providers_own_type_stands() -> None:
    error = ProviderError("m", "overloaded_error", 529, "c", "p")
    assert CHAT.render_error(error) == {
        "error": {"message": "m", "type": "overloaded_error", "param": "p", "code": "c"}
    }
