"""The stand-in for message batches: the anthropic client is content with it, and it refuses what
is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.providers import Turn
from tests.providers.anthropic_batches_api import AnthropicBatches

MODEL = "claude-sonnet-4-6"
HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}


def request(custom_id: str = "a", **params: Any) -> Any:
    messages = [{"role": "user", "content": "2 + 2?"}]
    body = {"model": MODEL, "max_tokens": 9, "messages": messages, **params}
    return {"custom_id": custom_id, "params": body}


@pytest.fixture
async def upstream() -> AsyncIterator[AnthropicBatches]:
    async with AnthropicBatches() as upstream:
        yield upstream


async def test_the_client_makes_a_batch_and_reads_its_results(upstream: AnthropicBatches) -> None:
    async with anthropic.AsyncAnthropic(api_key="k", base_url=upstream.url) as client:
        made = await client.messages.batches.create(requests=[request("a"), request("b")])
        assert made.processing_status == "in_progress"
        upstream.finish(made.id, {"a": Turn(text="Four."), "b": "expired"})
        ended = await client.messages.batches.retrieve(made.id)
        assert ended.request_counts.expired == 1
        assert [each.id async for each in client.messages.batches.list()] == [made.id]
        lines = (await client.messages.batches.with_raw_response.retrieve(made.id)).headers
        assert lines["content-type"] == "application/json"
        await client.messages.batches.delete(made.id)
    assert upstream.failures == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"requests": []}, "at least 1"),
        ({"requests": [request("a b")]}, "custom_id"),
        ({"requests": [request("a"), request("a")]}, "unique"),
        ({"requests": [request("a", max_tokens="9")]}, "max_tokens"),
        ({"requests": [request()], "model": MODEL}, "model"),
    ],
)
async def test_it_refuses_what_is_wrong(
    upstream: AnthropicBatches, body: dict[str, Any], why: str
) -> None:
    async with httpx.AsyncClient(base_url=upstream.url, headers=HEADERS) as client:
        answer = await client.post("/v1/messages/batches", json=body)
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]
