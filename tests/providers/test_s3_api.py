"""The stand-ins of S3 and of Bedrock's batches, driven by AWS's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import boto3  # type: ignore[import-untyped, unused-ignore]
import httpx
import orjson
import pytest
from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]
from botocore.exceptions import ClientError  # type: ignore[import-untyped, unused-ignore]

from tests.providers.bedrock_batches_api import BedrockBatches
from tests.providers.upstream import Turn

PART = 5 << 20


@pytest.fixture
async def upstream() -> AsyncIterator[BedrockBatches]:
    async with BedrockBatches() as running:
        yield running


def client(upstream: BedrockBatches, service: str = "s3", secret: str = "stand-in-secret") -> Any:
    config = Config(
        retries={"max_attempts": 0},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path", "payload_signing_enabled": True},
    )
    return boto3.client(
        service,
        endpoint_url=upstream.url,
        region_name="us-east-1",
        aws_access_key_id="AKIASTANDIN",
        aws_secret_access_key=secret,
        config=config,
    )


async def call(operation: Any, **params: Any) -> Any:
    return await asyncio.to_thread(operation, **params)


async def test_objects_are_put_read_copied_listed_and_deleted(upstream: BedrockBatches) -> None:
    s3 = client(upstream)
    where = {"Bucket": "my-bucket", "Key": "a/b c!'(é).txt"}
    await call(s3.put_object, **where, Body=b"hello", Metadata={"model": "m"})
    head = await call(s3.head_object, **where)
    assert (head["ContentLength"], head["Metadata"]) == (5, {"model": "m"})
    got = await call(s3.get_object, **where)
    assert await asyncio.to_thread(got["Body"].read) == b"hello"
    await call(s3.copy_object, Bucket="my-bucket", Key="a/copy", CopySource=where)
    upstream.page = 1
    first = await call(s3.list_objects_v2, Bucket="my-bucket", Prefix="a/")
    second = await call(
        s3.list_objects_v2,
        Bucket="my-bucket",
        Prefix="a/",
        ContinuationToken=first["NextContinuationToken"],
    )
    keys = [each["Key"] for page in (first, second) for each in page["Contents"]]
    assert keys == ["a/b c!'(é).txt", "a/copy"]
    await call(s3.delete_object, **where)
    with pytest.raises(ClientError, match="404"):
        await call(s3.head_object, **where)
    assert upstream.failures == ["HEAD /my-bucket/a/b%20c%21%27%28%C3%A9%29.txt: " + MISSING]


MISSING = "The specified key does not exist."


async def test_parts_become_an_object(upstream: BedrockBatches) -> None:
    s3 = client(upstream)
    where = {"Bucket": "my-bucket", "Key": "big"}
    begun = await call(s3.create_multipart_upload, **where)
    named = {**where, "UploadId": begun["UploadId"]}
    tags = [
        (await call(s3.upload_part, **named, PartNumber=number, Body=body))["ETag"]
        for number, body in ((1, b"a" * PART), (2, b"b"))
    ]
    parts = [{"ETag": tag, "PartNumber": number} for number, tag in enumerate(tags, 1)]
    await call(s3.complete_multipart_upload, **named, MultipartUpload={"Parts": parts})
    assert upstream.objects["big"].content == b"a" * PART + b"b"
    assert upstream.failures == []


async def test_parts_that_are_too_small_or_wrong_are_refused(upstream: BedrockBatches) -> None:
    s3 = client(upstream)
    where = {"Bucket": "my-bucket", "Key": "big"}
    begun = await call(s3.create_multipart_upload, **where)
    named = {**where, "UploadId": begun["UploadId"]}
    tag = (await call(s3.upload_part, **named, PartNumber=1, Body=b"a"))["ETag"]
    await call(s3.upload_part, **named, PartNumber=2, Body=b"a")
    for parts, code in (
        ([(1, tag), (2, tag)], "EntityTooSmall"),
        ([(2, tag), (1, tag)], "InvalidPartOrder"),
        ([(1, '"x"')], "InvalidPart"),
    ):
        given = [{"ETag": each, "PartNumber": number} for number, each in parts]
        with pytest.raises(ClientError, match=code):
            await call(s3.complete_multipart_upload, **named, MultipartUpload={"Parts": given})
    await call(s3.abort_multipart_upload, **named)
    assert upstream.uploads == {}
    with pytest.raises(ClientError, match="NoSuchUpload"):
        await call(s3.abort_multipart_upload, **named)


async def test_a_wrong_signature_or_bucket_is_refused(upstream: BedrockBatches) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        await call(client(upstream, secret="other").list_objects_v2, Bucket="my-bucket")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        await call(client(upstream).list_objects_v2, Bucket="other-bucket")
    async with httpx.AsyncClient() as plain:
        answer = await plain.get(f"{upstream.url}/my-bucket/a")
    assert answer.status_code == 400
    assert b"x-amz-content-sha256" in answer.content


async def test_jobs_are_made_found_listed_stopped_and_done(upstream: BedrockBatches) -> None:
    body = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    lines = [{"recordId": name, "modelInput": body} for name in ("a1", "b2")]
    data = b"\n".join(map(orjson.dumps, lines))
    await call(client(upstream).put_object, Bucket="my-bucket", Key="in/x.jsonl", Body=data)
    bedrock = client(upstream, "bedrock")
    asked: dict[str, Any] = {
        "jobName": "one",
        "roleArn": "arn:aws:iam::123456789012:role/Batch",
        "modelId": "amazon.nova-lite-v1:0",
        "modelInvocationType": "Converse",
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://my-bucket/in/x.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://my-bucket/out/"}},
    }
    made = await call(bedrock.create_model_invocation_job, **asked)
    arn = made["jobArn"]
    assert (await call(bedrock.get_model_invocation_job, jobIdentifier=arn))[
        "status"
    ] == "Submitted"
    await call(bedrock.create_model_invocation_job, **{**asked, "jobName": "two"})
    upstream.job_page = 1
    page = await call(bedrock.list_model_invocation_jobs, maxResults=5)
    assert [each["jobName"] for each in page["invocationJobSummaries"]] == ["two"]
    await call(bedrock.stop_model_invocation_job, jobIdentifier="job000000002")
    job = arn.rpartition("/")[2]
    upstream.finish(job, Turn(text="Hello"))
    done = await call(bedrock.get_model_invocation_job, jobIdentifier=arn)
    assert (done["status"], done["successRecordCount"]) == ("Completed", 2)
    output = upstream.objects[f"out/{job}/x.jsonl.out"].content.splitlines()
    assert [orjson.loads(each)["recordId"] for each in output] == ["b2", "a1"]
    assert upstream.failures == []


@pytest.mark.parametrize(
    "line",
    [
        {"recordId": "a-1", "modelInput": {}},
        {"recordId": "a1", "modelInput": {"messages": 5}},
        {"recordId": "a1", "modelInput": {"messages": [], "model": "x"}},
        {"custom_id": "a1", "recordId": "a1", "modelInput": {}},
    ],
)
async def test_jobs_with_bad_lines_are_refused(upstream: BedrockBatches, line: Any) -> None:
    data = orjson.dumps(line)
    await call(client(upstream).put_object, Bucket="my-bucket", Key="x.jsonl", Body=data)
    with pytest.raises(ClientError, match="ValidationException"):
        await call(
            client(upstream, "bedrock").create_model_invocation_job,
            jobName="one",
            roleArn="arn:aws:iam::123456789012:role/Batch",
            modelId="amazon.nova-lite-v1:0",
            modelInvocationType="Converse",
            inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://my-bucket/x.jsonl"}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://my-bucket/out/"}},
        )
