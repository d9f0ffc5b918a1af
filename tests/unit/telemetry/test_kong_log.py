"""Outcomes under the names that Kong's own ai-proxy logs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kong_ai_proxy.formats.usage import Usage
from kong_ai_proxy.telemetry.kong_log import MAX_TRIED, fields
from tests.unit.telemetry.outcomes import TARGET, outcome

META, USAGE = "ai.proxy.meta", "ai.proxy.usage"
PAYLOAD, TRIED = "ai.proxy.payload", "ai.proxy.tried_targets"


def logged(member: str, **changes: Any) -> Any:
    return fields(outcome(**changes))[member]


def test_meta() -> None:
    assert logged(META) == {
        "plugin_id": "546c3856-24b3-469a-bd6c-f6083babd2cd",
        "provider_name": "openai",
        "request_model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "llm_latency": 633,
        "request_mode": "stream",
    }


def test_usage_of_text() -> None:
    assert logged(USAGE) == {
        "prompt_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens": 21,
        "completion_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 35,
        "cost": 0.00031,
        "time_per_token": pytest.approx(30.142857142857),
        "time_to_first_token": 131,
    }


def test_usage_of_what_is_no_text_has_the_other_names() -> None:
    usage = Usage(
        prompt_tokens=50,
        completion_tokens=100,
        total_tokens=150,
        prompt_details={"text_tokens": 10, "image_tokens": 30, "audio_tokens": 10},
    )
    found = logged(USAGE, category="image/generation", usage=usage, mode="oneshot")
    assert found == {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 30, "audio_tokens_count": 10},
        "output_tokens": 100,
        "output_tokens_details": {},
        "total_tokens": 150,
        "cost": 0.00031,
        "time_per_token": 6.33,
        "time_to_first_token": 131,
    }


def test_usage_of_realtime_has_the_flat_names_too() -> None:
    usage = Usage(
        completion_details={"reasoning_tokens": 5},
        cached_details={"image_tokens": 6},
        prompt_details={"cached_tokens": 6},
    )
    found = logged(USAGE, category="realtime/generation", mode="realtime", usage=usage)
    assert found["output_tokens_reasoning_tokens_count"] == 5
    assert found["output_tokens_details"] == {"reasoning_tokens": 5}
    assert found["input_tokens_details"] == {
        "cached_tokens": 6,
        "cached_tokens_details": {"image_tokens_count": 6},
    }


@pytest.mark.parametrize(
    ("category", "details"),
    [
        ("text/generation", ("prompt_tokens_details", "completion_tokens_details")),
        ("text/embeddings", ("prompt_tokens_details", "completion_tokens_details")),
        ("audio/speech", ("input_tokens_details", "output_tokens_details")),
        ("video/generation", ("input_tokens_details", "output_tokens_details")),
    ],
)
def test_without_usage_the_counts_are_zero_and_the_details_empty(
    category: str, details: tuple[str, str]
) -> None:
    found = logged(USAGE, category=category, usage=None)
    assert [found[name] for name in details] == [{}, {}]
    assert all(count == 0 for name, count in found.items() if name.endswith("_tokens"))
    assert found["time_per_token"] == 0


def test_what_is_not_known_is_left_out() -> None:
    """Lua would take a null for a value."""
    found = fields(
        outcome(
            plugin_id=None,
            request_model=None,
            response_model=None,
            first_token_ms=None,
            log_payloads=True,
        )
    )
    assert b"null" not in orjson.dumps(found)
    assert found[META] == {"provider_name": "openai", "llm_latency": 633, "request_mode": "stream"}


def test_an_answer_that_names_no_model_had_the_requested_one() -> None:
    assert logged(META, response_model=None)["response_model"] == "gpt-4o"


def test_tried_targets() -> None:
    assert logged(TRIED) == [
        {
            "provider": "openai",
            "model": "gpt-4o",
            "route_type": "llm/v1/chat",
            "upstream_scheme": "https",
            "host": "api.openai.com",
            "port": 443,
            "upstream_uri": "/v1/chat/completions",
        }
    ]


def test_of_many_tried_targets_the_last_are_listed() -> None:
    assert len(logged(TRIED, tried=(TARGET,) * 1000)) == MAX_TRIED


PAYLOADS = {"request_payload": '{"a":1}', "response_payload": '{"b":2}'}


def test_payloads() -> None:
    found = logged(PAYLOAD, log_payloads=True, **PAYLOADS)
    assert found == {"request": '{"a":1}', "response": '{"b":2}'}


@pytest.mark.parametrize(
    ("statistics", "payloads", "names"),
    [
        (True, True, {META, USAGE, TRIED, PAYLOAD}),
        (True, False, {META, USAGE, TRIED}),
        (False, True, {PAYLOAD}),
        (False, False, set()),
    ],
)
def test_only_what_is_configured_is_logged(
    statistics: bool, payloads: bool, names: set[str]
) -> None:
    found = fields(outcome(log_statistics=statistics, log_payloads=payloads, **PAYLOADS))
    assert set(found) == names


def test_names_that_others_choose_are_short() -> None:
    found = logged(META, request_model="x" * 100_000, response_model="\udcff")
    assert len(found["request_model"]) < 2000
    assert found["response_model"] == "\\udcff"
