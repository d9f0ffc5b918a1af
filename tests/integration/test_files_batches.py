"""The official `openai` client keeps files and has batches done, by OpenAI and, as if it were
OpenAI, by Bedrock with S3; AWS's own client has batches of its own through the same gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import httpx
import openai
import pytest
import pytest_asyncio
from botocore import UNSIGNED  # type: ignore[import-untyped, unused-ignore]
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from openai import AsyncOpenAI

from kong_ai_proxy.gateway.provider import Provider
from tests import decks
from tests.gateways import GatewayFactory, RunningGateway
from tests.integration import text_world
from tests.integration.text_world import ACCESS_KEY, CLIENTS_OWN, OPERATORS_KEY
from tests.providers import Turn
from tests.providers.bedrock_batches_api import BedrockBatches
from tests.providers.s3_api import Stored

pytestmark = pytest.mark.asyncio(loop_scope="module")

gateway = text_world.gateway
Json = dict[str, Any]

MODEL = "amazon.nova-lite-v1:0"
ROLE = "arn:aws:iam::123456789012:role/Batch"
PREFIX = "s3://my-bucket/llm"
MISSING = "The specified key does not exist."
KINDS = {"llm/v1/files": "/v1/files", "llm/v1/batches": "/v1/batches"}


def line(name: str, text: str = "Hello", model: str = MODEL) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    value = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(value).encode() + b"\n"


@dataclass
class World:
    running: RunningGateway
    aws: BedrockBatches

    def client(self, name: str) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{self.running.url}/{name}/v1", api_key=CLIENTS_OWN, max_retries=0, timeout=30
        )


def deck(aws_url: str, openai_url: str) -> str:
    """Bedrock with the client's model, with a configured one and without a bucket, and OpenAI."""
    auth = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": OPERATORS_KEY}
    own = {"aws_region": "eu-central-1", "batch_bucket_prefix": PREFIX, "batch_role_arn": ROLE}
    options = {"upstream_url": aws_url, "bedrock": own}
    bare = {"upstream_url": aws_url, "bedrock": {"aws_region": "eu-central-1"}}
    models: dict[str, Json] = {
        "bedrock": {"provider": "bedrock", "options": options},
        "configured": {"provider": "bedrock", "options": options, "name": MODEL},
        "bare": {"provider": "bedrock", "options": bare, "name": MODEL},
    }
    plain: Json = {"response_buffering": False, "request_buffering": False}
    routes = []
    for kind, path in KINDS.items():
        for name, model in models.items():
            config = {"route_type": kind, "auth": auth, "model": model}
            routes.append(decks.route(f"/{name}{path}", config, **plain))
        config = decks.config(openai_url + path, kind, None)
        routes.append(decks.route(f"/openai{path}", config, **plain))
    native = {"route_type": "llm/v1/chat", "llm_format": "bedrock", "auth": auth}
    config = {**native, "model": models["bedrock"]}
    return decks.deck(*routes, decks.route("/native", config))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_world(gateway: GatewayFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        keys = {"access_key": ACCESS_KEY, "secret_key": OPERATORS_KEY}
        aws = await stack.enter_async_context(BedrockBatches(**keys, region="eu-central-1"))
        of_openai = await Provider.start(api_key=decks.KEY)
        stack.push_async_callback(of_openai.stop)
        yield World(await gateway(deck(aws.url, of_openai.url.removesuffix("/v1"))), aws)


@pytest_asyncio.fixture(loop_scope="module")
async def world(made_world: World) -> AsyncIterator[World]:
    """An empty bucket; afterwards it is checked what AWS saw."""
    aws = made_world.aws
    for each in (aws.requests, aws.failures, aws.operations, aws.objects, aws.jobs):
        each.clear()
    aws.script(Turn())
    yield made_world
    assert [each for each in aws.failures if not each.endswith(MISSING)] == []
    assert aws.uploads == {}
    for seen in aws.requests:
        everything = f"{seen.path}?{seen.query} {dict(seen.headers)}"
        assert CLIENTS_OWN not in everything
        assert "x-kong-ai" not in everything.lower()


@pytest_asyncio.fixture(loop_scope="module", params=["openai", "bedrock", "configured"])
async def client(world: World, request: pytest.FixtureRequest) -> AsyncIterator[AsyncOpenAI]:
    async with world.client(request.param) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def bedrock(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with world.client("bedrock") as client:
        yield client


# ---- as OpenAI does it, and Bedrock too


async def test_a_file_is_kept_found_read_and_deleted(client: AsyncOpenAI) -> None:
    content = bytes(range(256)) * 20
    made = await client.files.create(file=("data é.bin", content), purpose="user_data")
    assert (made.filename, made.bytes, made.purpose) == ("data é.bin", 5120, "user_data")
    assert made.id.startswith("file-")
    found = await client.files.retrieve(made.id)
    assert found == made
    assert made.id in [each.id async for each in client.files.list(purpose="user_data")]
    read = await client.files.content(made.id)
    assert read.content == content
    gone = await client.files.delete(made.id)
    assert (gone.id, gone.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.files.content(made.id)


async def test_lists_go_on_over_pages(client: AsyncOpenAI) -> None:
    made = [
        (await client.files.create(file=(f"{n}.txt", b"x"), purpose="vision")).id for n in range(3)
    ]
    listed = [each.id async for each in client.files.list(limit=1, purpose="vision")]
    assert set(made) <= set(listed)
    assert len(listed) == len(set(listed))


async def test_a_batch_is_made_done_and_read(client: AsyncOpenAI, world: World) -> None:
    file = await client.files.create(
        file=("in.jsonl", line("request-1") + line("request-2")), purpose="batch"
    )
    made = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert made.id.startswith("batch_")
    assert (made.input_file_id, made.endpoint) == (file.id, "/v1/chat/completions")
    for job in world.aws.jobs:
        world.aws.finish(job, Turn(text="Done."))
    batch = await client.batches.retrieve(made.id)
    for _ in range(50):
        if batch.status == "completed":
            break
        batch = await client.batches.retrieve(made.id)
    assert batch.status == "completed"
    assert batch.request_counts
    assert (batch.request_counts.total, batch.request_counts.completed) == (2, 2)
    assert batch.output_file_id
    output = await client.files.content(batch.output_file_id)
    answers = {each["custom_id"]: each for each in map(json.loads, output.text.splitlines())}
    assert set(answers) == {"request-1", "request-2"}
    response = answers["request-1"]["response"]
    assert response["status_code"] == 200
    read = openai.types.chat.ChatCompletion.model_validate(response["body"])
    assert read.choices[0].message.content
    assert read.usage
    assert made.id in [each.id async for each in client.batches.list(limit=5)]


async def test_a_batch_is_cancelled(client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", line("a")), purpose="batch")
    made = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    try:
        cancelled = await client.batches.cancel(made.id)
    except openai.ConflictError:  # the stand-in of OpenAI was faster
        return
    assert cancelled.status in ("cancelling", "cancelled")


@pytest.mark.parametrize("told", ["file-abc", "file-Li4vLi4vc2VjcmV0", "..%2F..%2Fx"])
async def test_a_file_that_is_none(client: AsyncOpenAI, told: str) -> None:
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        await client.files.retrieve(told)
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        await client.files.content(told)
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        await client.batches.create(
            input_file_id=told, endpoint="/v1/chat/completions", completion_window="24h"
        )


# ---- Bedrock


async def test_a_large_file_goes_up_in_parts_and_comes_down(
    bedrock: AsyncOpenAI, world: World
) -> None:
    content = bytes(range(251)) * 42_000  # 10.5 MB
    made = await bedrock.files.create(file=("big.bin", content), purpose="user_data")
    assert made.bytes == len(content)
    assert world.aws.operations.count("UploadPart") == 3
    read = await bedrock.files.content(made.id)
    assert read.content == content


async def test_a_large_batch_is_converted_while_it_passes(
    bedrock: AsyncOpenAI, world: World
) -> None:
    content = b"".join(line(f"r{n}", "x" * 20_000) for n in range(300))  # 6 MB
    made = await bedrock.files.create(file=("in.jsonl", content), purpose="batch")
    assert world.aws.operations.count("UploadPart") == 2
    await bedrock.batches.create(
        input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    (job,) = world.aws.jobs
    world.aws.finish(job)
    (batch,) = (await bedrock.batches.list()).data
    output = await bedrock.files.content(batch.output_file_id or "")
    answers = [json.loads(each) for each in output.text.splitlines()]
    assert len(answers) == 300
    assert all(each["response"]["status_code"] == 200 for each in answers)


async def test_the_form_may_have_its_file_first(world: World) -> None:
    body = {"file": ("in.jsonl", line("a"))}
    async with httpx.AsyncClient(timeout=30) as plain:
        boundary = "b0undary"
        data = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"'
            f"\r\n\r\n{body['file'][1].decode()}\r\n--{boundary}\r\n"
            'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f"--{boundary}--\r\n"
        )
        answer = await plain.post(
            f"{world.running.url}/bedrock/v1/files",
            content=data,
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
    assert answer.status_code == 200
    assert answer.json()["purpose"] == "batch"
    (stored,) = world.aws.objects.values()
    assert json.loads(stored.content)["recordId"] == "a"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("bedrock", b"{", "line 1: expected a JSON object"),
        ("bedrock", line("a") + line("a"), "line 2: custom_id: 'a' occurs twice"),
        ("configured", line("a", model="other"), f"cannot use own model - must be: {MODEL}"),
        ("bedrock", b"", "file: expected content; it is empty"),
    ],
)
async def test_a_bad_file_is_a_400(world: World, name: str, content: bytes, text: str) -> None:
    async with world.client(name) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.files.create(file=("in.jsonl", content), purpose="batch")
    assert text in str(refused.value)
    assert world.aws.objects == {}


async def test_a_bad_line_late_in_a_large_file_leaves_nothing_behind(
    bedrock: AsyncOpenAI, world: World
) -> None:
    content = b"".join(line(f"r{n}", "x" * 20_000) for n in range(300)) + b"{"
    with pytest.raises(openai.BadRequestError, match="line 301: expected a JSON object"):
        await bedrock.files.create(file=("in.jsonl", content), purpose="batch")
    assert world.aws.operations[-1] == "AbortMultipartUpload"
    assert world.aws.objects == {}


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b'{"purpose": "batch"}', "application/json"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=y"),
        (b"", "multipart/form-data"),
    ],
)
async def test_what_is_no_form_is_refused(world: World, data: bytes, content_type: str) -> None:
    async with httpx.AsyncClient(timeout=30) as plain:
        answer = await plain.post(
            f"{world.running.url}/bedrock/v1/files",
            content=data,
            headers={"Content-Type": content_type},
        )
    assert answer.status_code in (400, 415)
    assert answer.json()["error"]["message"]


async def test_a_missing_bucket_is_named(world: World) -> None:
    async with world.client("bare") as client:
        with pytest.raises(openai.InternalServerError, match="batch_bucket_prefix"):
            await client.files.list()
        with pytest.raises(openai.InternalServerError, match="batch_bucket_prefix"):
            await client.batches.list()


async def test_what_bedrock_cannot_keep_is_named(bedrock: AsyncOpenAI) -> None:
    file = await bedrock.files.create(file=("in.jsonl", line("a")), purpose="batch")
    raw = await bedrock.batches.with_raw_response.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"team": "a"},
    )
    assert raw.headers["x-kong-ai-dropped-params"] == "metadata"


async def test_the_request_may_name_the_model(bedrock: AsyncOpenAI, world: World) -> None:
    file = await bedrock.files.create(file=("in.jsonl", line("a")), purpose="batch")
    made = await bedrock.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"model": "us.amazon.nova-lite-v1:0"},
    )
    (job,) = world.aws.jobs.values()
    assert made.model == job.asked["modelId"] == "us.amazon.nova-lite-v1:0"


async def test_s3s_errors_reach_the_client(bedrock: AsyncOpenAI, world: World) -> None:
    world.aws.script(status=503, message="Please reduce your request rate.")
    with pytest.raises(openai.InternalServerError, match="Please reduce your request rate"):
        await bedrock.files.create(file=("a", b"x"), purpose="user_data")


# ---- AWS's own client


async def test_boto3_has_jobs_of_its_own(world: World) -> None:
    world.aws.objects["in.jsonl"] = Stored(b'{"recordId": "a", "modelInput": {"inputText": "x"}}')
    native = boto3.client(
        "bedrock",
        endpoint_url=f"{world.running.url}/native",
        region_name="eu-central-1",
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 0}),
    )
    made = await asyncio.to_thread(
        native.create_model_invocation_job,
        jobName="own",
        roleArn=ROLE,
        modelId=MODEL,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://my-bucket/in.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://my-bucket/out/"}},
    )
    arn = made["jobArn"]
    found = await asyncio.to_thread(native.get_model_invocation_job, jobIdentifier=arn)
    assert (found["jobName"], found["status"]) == ("own", "Submitted")
    listed = await asyncio.to_thread(native.list_model_invocation_jobs, maxResults=5)
    assert [each["jobArn"] for each in listed["invocationJobSummaries"]] == [arn]
    await asyncio.to_thread(native.stop_model_invocation_job, jobIdentifier=arn)
    (job,) = world.aws.jobs.values()
    assert job.status == "Stopping"
