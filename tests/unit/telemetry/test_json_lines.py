"""The log line of a request."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from kong_ai_proxy.telemetry.json_lines import MAX_LINE, line, write
from kong_ai_proxy.telemetry.kong_log import fields
from tests.unit.telemetry.outcomes import outcome

NOW = 1_790_000_000.25


def parsed(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(line(outcome(**changes), NOW))
    return found


def test_who_when_and_how_it_ended() -> None:
    found = parsed(status=502, failure="connection refused")
    del found["ai"]
    assert found == {
        "time": "2026-09-21T14:13:20.250Z",
        "request_id": "f00d",
        "consumer": "alice",
        "status": 502,
        "failure": "connection refused",
    }


def test_what_is_not_known_is_left_out() -> None:
    found = parsed(request_id=None, consumer=None, status=None, log_statistics=False)
    assert set(found) == {"time"}


def test_the_fields_are_nested_as_kong_s_log_plugins_do() -> None:
    logged = fields(outcome(log_payloads=True, request_payload="{}"))
    found = parsed(log_payloads=True, request_payload="{}")["ai"]["proxy"]
    assert found == {name.removeprefix("ai.proxy."): value for name, value in logged.items()}


def test_a_long_payload_is_cut() -> None:
    text = line(outcome(log_payloads=True, response_payload="\x00" * 1_000_000), NOW)
    assert MAX_LINE // 2 < len(text.encode()) <= MAX_LINE
    assert "cut, 1000000 characters in all" in text


@pytest.mark.parametrize("text", ["\x00" * 100_000, "\n", "\udcff", "\u20ac" * 100_000])
def test_it_is_one_bounded_line_whatever_the_text(text: str) -> None:
    raw = line(outcome(consumer=text, failure=text, request_id=text, request_model=text), NOW)
    assert "\n" not in raw
    assert len(raw.encode()) <= MAX_LINE
    assert orjson.loads(raw)


def test_it_is_logged_at_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kong_ai_proxy.outcome"):
        write(outcome(), NOW)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("kong_ai_proxy.outcome", logging.INFO)
    assert orjson.loads(record.getMessage())["request_id"] == "f00d"


def test_nothing_is_logged_above_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kong_ai_proxy.outcome"):
        write(outcome(), NOW)
    assert not caplog.records


def test_it_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kong_ai_proxy.outcome"):
        write(outcome(latency_ms=float("nan")), NOW)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
