"""The Bedrock stand-in: boto3 is content with it, and it refuses what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import boto3  # type: ignore[import-untyped, unused-ignore]
import botocore.exceptions  # type: ignore[import-untyped, unused-ignore]
import pytest
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

from tests import providers
from tests.providers import ToolCall, Turn
from tests.providers.bedrock_api import Bedrock

Json = dict[str, Any]

CLAUDE = "us.anthropic.claude-sonnet-4-6-20260101-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
TOOLS: Json = {
    "tools": [
        {"toolSpec": {"name": "add", "inputSchema": {"json": {"type": "object"}}}},
    ]
}
ASKED: list[Json] = [{"role": "user", "content": [{"text": "1 + 1?"}]}]
BODY: Json = {
    "modelId": CLAUDE,
    "messages": [
        *ASKED,
        {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "t1", "name": "add", "input": {"a": 1}}}],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "t1", "content": [{"text": "2"}]}},
                {"cachePoint": {"type": "default"}},
                {"image": {"format": "png", "source": {"bytes": b"png"}}},
            ],
        },
    ],
    "toolConfig": TOOLS,
    "inferenceConfig": {"maxTokens": 100, "temperature": 0.5},
}


@pytest.fixture
async def upstream() -> AsyncIterator[Bedrock]:
    async with providers.bedrock() as running:
        yield running


def _client(url: str, secret: str = "stand-in-secret", **options: Any) -> Any:
    """A client that checks nothing itself, so that the stand-in has to."""
    config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="AKIASTANDIN",
        aws_secret_access_key=secret,
        config=config,
        **options,
    )


async def _call(client: Any, operation: str, **params: Any) -> Any:
    def call() -> Any:
        answer = getattr(client, operation)(**params)
        for name in answer.keys() & {"stream", "body"}:
            with contextlib.closing(answer[name]) as body:  # else its socket is left open
                answer[name] = body.read() if hasattr(body, "read") else list(body)
        return answer

    try:
        return await asyncio.to_thread(call)
    finally:
        client.close()


async def test_converse_with_parallel_tool_calls(upstream: Bedrock) -> None:
    calls = [ToolCall("add", {"a": 1}), ToolCall("add", {"a": 2})]
    upstream.script(thinking="Hm.", text="Let me see.", tool_calls=calls)
    answer = await _call(_client(upstream.url), "converse", **BODY)
    content = answer["output"]["message"]["content"]
    kinds = [next(iter(block)) for block in content]
    assert kinds == ["reasoningContent", "text", "toolUse", "toolUse"]
    assert answer["stopReason"] == "tool_use"
    assert upstream.failures == []


@pytest.mark.parametrize("model", [CLAUDE, ARN])
async def test_converse_streamed_in_small_pieces(upstream: Bedrock, model: str) -> None:
    upstream.script(tool_calls=[ToolCall("add", {"a": 1})], piece=7)
    params = {**BODY, "modelId": model}
    answer = await _call(_client(upstream.url), "converse_stream", **params)
    deltas = [each["contentBlockDelta"] for each in answer["stream"] if "contentBlockDelta" in each]
    assert "".join(each["delta"]["toolUse"]["input"] for each in deltas) == '{"a":1}'
    assert upstream.failures == []


async def test_an_exception_inside_a_stream(upstream: Bedrock) -> None:
    upstream.script(stream_error="it broke", error_after=2)
    with pytest.raises(botocore.exceptions.EventStreamError, match="it broke"):
        await _call(_client(upstream.url), "converse_stream", **BODY)


async def test_a_scripted_status(upstream: Bedrock) -> None:
    upstream.script(status=429, message="slow down")
    with pytest.raises(botocore.exceptions.ClientError, match=r"ThrottlingException.*slow down"):
        await _call(_client(upstream.url), "converse", **BODY)


async def test_claude_invoked(upstream: Bedrock) -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": []}
    body["messages"] = [{"role": "user", "content": "Hi"}]
    client = _client(upstream.url)
    answer = await _call(client, "invoke_model", modelId=CLAUDE, body=json.dumps(body))
    assert json.loads(answer["body"])["type"] == "message"
    streamed = "invoke_model_with_response_stream"
    answer = await _call(_client(upstream.url), streamed, modelId=CLAUDE, body=json.dumps(body))
    events = [json.loads(each["chunk"]["bytes"]) for each in answer["body"]]
    assert events[0]["type"] == "message_start"
    assert "amazon-bedrock-invocationMetrics" in events[-1]
    assert upstream.failures == []


async def test_a_claude_body_with_model_is_refused(upstream: Bedrock) -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "model": CLAUDE}
    with pytest.raises(botocore.exceptions.ClientError, match="model: Extra inputs"):
        await _call(_client(upstream.url), "invoke_model", modelId=CLAUDE, body=json.dumps(body))


@pytest.mark.parametrize(
    ("model", "body", "member"),
    [
        ("amazon.titan-embed-text-v2:0", {"inputText": "a", "dimensions": 256}, "embedding"),
        ("cohere.embed-english-v3", {"texts": ["a"], "input_type": "search_query"}, "embeddings"),
        ("amazon.titan-text-express-v1", {"inputText": "a"}, "results"),
        ("meta.llama3-8b-instruct-v1:0", {"prompt": "a"}, "generation"),
    ],
)
async def test_other_models_invoked(upstream: Bedrock, model: str, body: Json, member: str) -> None:
    client = _client(upstream.url)
    answer = await _call(client, "invoke_model", modelId=model, body=json.dumps(body))
    assert member in json.loads(answer["body"])
    wrong = json.dumps({**body, "extra": 1})
    with pytest.raises(botocore.exceptions.ClientError, match="extra: Extra inputs"):
        await _call(_client(upstream.url), "invoke_model", modelId=model, body=wrong)


async def test_a_wrong_secret_is_refused(upstream: Bedrock) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="signature we calculated"):
        await _call(_client(upstream.url, secret="another"), "converse", **BODY)


async def test_a_session_token_is_required_where_there_is_one() -> None:
    async with providers.bedrock(token="session") as upstream:
        with pytest.raises(botocore.exceptions.ClientError, match="security token"):
            await _call(_client(upstream.url), "converse", **BODY)
        client = _client(upstream.url, aws_session_token="session")
        await _call(client, "converse", **BODY)


WRONG: dict[str, tuple[Callable[[Json], object], str]] = {
    "unknown image format": (
        lambda body: body["messages"][2]["content"][2]["image"].update(format="bmp"),
        "bmp",
    ),
    "no tool result": (lambda body: body["messages"][2]["content"].pop(0), "Expected toolResult"),
    "result of nothing": (lambda body: body["messages"].pop(1), "must alternate"),
    "assistant first": (lambda body: body["messages"].pop(0), "start with a user message"),
    "no tools": (lambda body: body.pop("toolConfig"), "toolConfig field must be defined"),
    "blank": (lambda body: body["messages"][0]["content"][0].update(text=" "), "is blank"),
    "temperature": (lambda body: body["inferenceConfig"].update(temperature=2.0), "temperature"),
    "newer Claude": (lambda body: body.update(modelId="anthropic.claude-opus-4-7"), "deprecated"),
    "system for Titan": (
        lambda body: body.update(modelId="amazon.titan-text-lite-v1", system=[{"text": "x"}]),
        "system",
    ),
    "empty description": (
        lambda body: body["toolConfig"]["tools"][0]["toolSpec"].update(description=""),
        "description",
    ),
    "tool name": (
        lambda body: body["toolConfig"]["tools"][0]["toolSpec"].update(name="a b"),
        "does not match",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_request_is_refused(upstream: Bedrock, name: str) -> None:
    change, expected = WRONG[name]
    body = copy.deepcopy(BODY)
    change(body)
    with pytest.raises(botocore.exceptions.ClientError, match="ValidationException"):
        await _call(_client(upstream.url), "converse", **body)
    assert expected in upstream.failures[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "x"}, "model"),
        ({"messages": [{"role": "user", "content": [{"text": "Hi", "type": "text"}]}]}, "type"),
    ],
)
async def test_members_that_the_model_does_not_name_are_refused(
    upstream: Bedrock, change: Json, expected: str
) -> None:
    """botocore's serializer would leave them out, so they are sent by hand with a bearer key."""
    url = f"{upstream.url}/model/{CLAUDE}/converse"
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as session:
        async with session.post(url, json={"messages": ASKED}) as response:
            assert response.status == 200
        async with session.post(url, json={"messages": ASKED, **change}) as response:
            assert response.status == 400
            assert response.headers["x-amzn-ErrorType"].startswith("ValidationException")
    assert expected in upstream.failures[0]


async def test_a_tool_loop_runs_through_its_turns(upstream: Bedrock) -> None:
    upstream.script(Turn(tool_calls=[ToolCall("add", {"a": 1})]), Turn(text="Two."))
    params = {"modelId": CLAUDE, "messages": ASKED, "toolConfig": TOOLS}
    first = await _call(_client(upstream.url), "converse", **params)
    message = first["output"]["message"]
    name = message["content"][0]["toolUse"]["toolUseId"]
    result = {"toolResult": {"toolUseId": name, "content": [{"json": {"sum": 2}}]}}
    params["messages"] = [*ASKED, message, {"role": "user", "content": [result]}]
    second = await _call(_client(upstream.url), "converse", **params)
    assert second["output"]["message"]["content"] == [{"text": "Two."}]
