"""Providers quote the key that they refuse: no line of the log may have it."""

from __future__ import annotations

import logging

import orjson
import pytest

from tests.faults import ErrorEvent, Faulty, Good
from tests.relays import running
from tests.unit.relay.clients import JSON, ask
from tests.unit.relay.failover import target

KEY = "sk-the-operators-own-key"


@pytest.mark.parametrize("filler", ["", "x" * 290])
async def test_a_failure_is_told_without_the_key_that_it_quotes(
    caplog: pytest.LogCaptureFixture, filler: str
) -> None:
    refusing = ErrorEvent(500, message=f"{filler} incorrect API key: {KEY}")
    async with Faulty(refusing) as first, Faulty(Good("hello")) as second:
        targets = [
            target("openai", first, "any", KEY, weight=200),
            target("openai", second, "any", "other", weight=100),
        ]
        own = {"algorithm": "priority", "failover_criteria": ["error", "non_idempotent"]}
        configuration = {"targets": targets, "balancer": own}
        body = orjson.dumps(
            {"model": "any", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        )
        with caplog.at_level(logging.DEBUG):
            async with running(configuration, "ai-proxy-advanced") as relay:
                assert b"hello" in (await ask(relay, body=body, headers=JSON)).body
    assert "failed: an error in an answer of status 200" in caplog.text
    assert KEY[:8] not in caplog.text
