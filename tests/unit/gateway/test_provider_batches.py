"""Batches of the stand-in provider: they move on poll by poll and hold real answers."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch, CreateEmbeddingResponse, batch_create_params
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from kong_ai_proxy.gateway.provider import batches
from tests.unit.gateway.provider_client import client, plain, said

_CHAT: Any = "/v1/chat/completions"
_BODIES: dict[str, dict[str, Any]] = {
    _CHAT: {"model": "m", "messages": said("Hello there")},
    "/v1/completions": {"model": "m", "prompt": "Hello there", "max_tokens": 50},
    "/v1/embeddings": {"model": "m", "input": "Hello there"},
    "/v1/responses": {"model": "m", "input": "Hello there"},
}


def _line(number: int, url: str = _CHAT, **change: Any) -> dict[str, Any]:
    return {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": url,
        "body": _BODIES.get(url, {}),
        **change,
    }


async def _begun(official: AsyncOpenAI, lines: list[Any], endpoint: Any = _CHAT) -> Batch:
    data = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    file = await official.files.create(file=("a.jsonl", data.encode() or b"\n"), purpose="batch")
    return await official.batches.create(
        input_file_id=file.id,
        endpoint=endpoint,
        completion_window="24h",
        metadata={"a": "b"},
    )


async def _polled(official: AsyncOpenAI, batch: Batch, times: int = 2) -> Batch:
    for _ in range(times):
        batch = await official.batches.retrieve(batch.id)
    return batch


async def _results(official: AsyncOpenAI, file_id: str | None) -> list[Any]:
    assert file_id is not None
    content = await official.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]


def test_batches_know_every_parameter_of_the_official_client() -> None:
    official = batch_create_params.BatchCreateParams.__annotations__
    assert official.keys() == batches.RULES.keys()


async def test_a_batch_moves_on_with_each_poll() -> None:
    async with client() as official:
        batch = await _begun(official, [_line(1)])
        polled = [await official.batches.retrieve(batch.id) for _ in range(3)]
    assert batch.id.startswith("batch_")
    assert [batch.status, *(b.status for b in polled)] == [
        "validating",
        "in_progress",
        "completed",
        "completed",
    ]
    assert polled[0].request_counts is not None
    assert polled[0].request_counts.total == 1
    assert polled[1].completed_at is not None
    assert polled[1].metadata == {"a": "b"}


@pytest.mark.parametrize(
    ("endpoint", "model"),
    [
        (_CHAT, ChatCompletion),
        ("/v1/completions", None),
        ("/v1/embeddings", CreateEmbeddingResponse),
        ("/v1/responses", Response),
    ],
)
async def test_the_output_holds_real_answers(endpoint: str, model: Any) -> None:
    async with client() as official:
        batch = await _begun(official, [_line(1, endpoint), _line(2, endpoint)], endpoint)
        done = await _polled(official, batch)
        first, second = await _results(official, done.output_file_id)
        file = await official.files.retrieve(done.output_file_id or "")
    assert [first["custom_id"], second["custom_id"]] == ["r1", "r2"]
    assert first["response"]["status_code"] == 200
    if model is not None:
        model.model_validate(first["response"]["body"])
    assert file.purpose == "batch_output"
    assert done.error_file_id is None
    assert done.usage is not None
    assert done.usage.input_tokens > 0


async def test_what_is_refused_goes_to_the_error_file() -> None:
    wrong = {**_BODIES[_CHAT], "temperature": 9}
    slow = {**_BODIES[_CHAT], "stream": True}
    async with client() as official:
        lines = [_line(1), _line(2, body=wrong), _line(3, body=slow)]
        done = await _polled(official, await _begun(official, lines))
        kept = await _results(official, done.output_file_id)
        refused = await _results(official, done.error_file_id)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 2)
    assert [line["custom_id"] for line in kept] == ["r1"]
    assert [line["custom_id"] for line in refused] == ["r2", "r3"]
    assert refused[0]["response"]["status_code"] == 400
    assert refused[0]["response"]["body"]["error"]["param"] == "temperature"


async def test_a_batch_of_nothing_but_errors_has_no_output() -> None:
    body = {**_BODIES[_CHAT], "model": "error-500"}
    async with client() as official:
        done = await _polled(official, await _begun(official, [_line(1, body=body)]))
    assert done.output_file_id is None
    assert done.error_file_id is not None


@pytest.mark.parametrize(
    ("lines", "code", "at"),
    [
        ([_line(1), "{"], "invalid_json_line", 2),
        (["[1]"], "invalid_json_line", 1),
        ([_line(1), _line(1)], "duplicate_custom_id", 2),
        ([_line(1, "/v1/embeddings")], "mismatched_url", 1),
        ([_line(1, method="GET")], "invalid_method", 1),
        ([_line(1, body={})], "missing_required_parameter", 1),
        ([_line(1, body={"messages": []})], "missing_required_parameter", 1),
        ([_line(1), _line(2, body={**_BODIES[_CHAT], "model": "n"})], "mismatched_model", 2),
        ([" " * 9_000_000], "invalid_json_line", 1),
    ],
)
async def test_a_wrong_line_fails_the_batch(lines: list[Any], code: str, at: int) -> None:
    async with client() as official:
        failed = await _polled(official, await _begun(official, lines))
    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert (failed.errors.data[0].code, failed.errors.data[0].line) == (code, at)


async def test_a_deleted_input_fails_the_batch() -> None:
    async with client() as official:
        batch = await _begun(official, [_line(1)])
        await official.files.delete(batch.input_file_id)
        failed = await _polled(official, batch, 1)
    assert failed.status == "failed"


@pytest.mark.parametrize("polls", [0, 1])
async def test_a_batch_can_be_cancelled(polls: int) -> None:
    async with client() as official:
        batch = await _polled(official, await _begun(official, [_line(1)]), polls)
        cancelling = await official.batches.cancel(batch.id)
        cancelled = await _polled(official, batch, 1)
    assert (cancelling.status, cancelled.status) == ("cancelling", "cancelled")


async def test_a_batch_that_is_done_cannot_be_cancelled() -> None:
    async with client() as official:
        batch = await _polled(official, await _begun(official, [_line(1)]))
        with pytest.raises(openai.ConflictError, match="completed"):
            await official.batches.cancel(batch.id)


async def test_batches_are_listed_newest_first() -> None:
    async with client() as official:
        made = [(await _begun(official, [_line(1)])).id for _ in range(3)]
        listed = [batch.id async for batch in official.batches.list(limit=2)]
    assert listed == made[::-1]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": "file-x"}, "input_file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"endpoint": "/v1/models"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"output_expires_after": {"anchor": "created_at"}}, "output_expires_after.seconds"),
        ({"metadata": "x"}, "metadata"),
    ],
)
async def test_wrong_batches(change: dict[str, Any], param: str) -> None:
    asked = {"input_file_id": "file-x", "endpoint": _CHAT, "completion_window": "24h"}
    async with plain() as http:
        answer = await http.post("/v1/batches", json={**asked, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_an_input_of_another_purpose_is_refused() -> None:
    async with client() as official:
        file = await official.files.create(file=("a.jsonl", b"{}"), purpose="user_data")
        with pytest.raises(openai.BadRequestError, match="purpose 'batch'"):
            await official.batches.create(
                input_file_id=file.id, endpoint=_CHAT, completion_window="24h"
            )


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/batches/x"), ("POST", "/v1/batches/..%2Fx/cancel")]
)
async def test_unknown_batches_are_not_found(method: str, path: str) -> None:
    async with plain() as http:
        assert (await http.request(method, path)).status_code == 404
