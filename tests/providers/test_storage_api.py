"""The stand-ins for Cloud Storage and Vertex AI's batches refuse what is wrong. Google's client for
the jobs is content with them: tests/integration/test_files_batches_more.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.providers.storage_api import Storage, VertexBatches

UPLOAD = "/upload/storage/v1/b/b1/o"
TOKEN = {"authorization": "Bearer t"}
JOBS = "/v1/projects/acme/locations/us-central1/batchPredictionJobs"


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with Storage("b1") as storage:
        yield storage


@pytest.fixture
async def client(storage: Storage) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=storage.url, headers=TOKEN) as client:
        yield client


async def session(client: httpx.AsyncClient) -> str:
    headers = {"x-upload-content-type": "text/plain"}
    body = {"name": "a/b", "contentType": "text/plain"}
    query = {"uploadType": "resumable", "name": "a/b"}
    started = await client.post(UPLOAD, params=query, json=body, headers=headers)
    return started.headers["location"]


async def test_an_object_is_uploaded_in_pieces_and_read(
    storage: Storage, client: httpx.AsyncClient
) -> None:
    url, size = await session(client), 256 << 10
    first = await client.put(
        url, content=bytes(size), headers={"content-range": "bytes 0-262143/*"}
    )
    assert (first.status_code, first.headers["range"]) == (308, "bytes=0-262143")
    last = {"content-range": "bytes 262144-262144/262145"}
    told = (await client.put(url, content=b"x", headers=last)).json()
    assert told["size"] == str(size + 1)
    path = "/storage/v1/b/b1/o/a%2Fb"
    assert (await client.get(path)).json() == told
    assert (await client.get(path, params={"alt": "media"})).content == bytes(size) + b"x"
    assert storage.failures == []


@pytest.mark.parametrize(
    ("told", "content"),
    [
        ("bytes 0-0/*", b"x"),
        ("bytes 1-1/2", b"x"),
        ("bytes 0-1/2", b"x"),
        ("bytes 0-0/2", b"x"),
        ("", b"x"),
    ],
)
async def test_a_piece_that_does_not_fit_is_refused(
    client: httpx.AsyncClient, told: str, content: bytes
) -> None:
    answer = await client.put(
        await session(client), content=content, headers={"content-range": told}
    )
    assert answer.status_code == 400


async def test_a_bucket_or_an_object_that_is_not_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/storage/v1/b/b2/o")).status_code == 404
    assert (await client.get("/storage/v1/b/b1/o/x")).json()["error"]["code"] == 404
    gone = await client.get("/storage/v1/b/b1/o/x", params={"alt": "media"})
    assert gone.text == "No such object: b1/x"


async def test_nobody_gets_in_without_a_token(storage: Storage) -> None:
    async with httpx.AsyncClient(base_url=storage.url) as client:
        assert (await client.get("/storage/v1/b/b1/o")).status_code == 401


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"contents": []}', "request"),
        ('{"request": {"contents": [{"role": "user", "parts": []}]}}', "parts"),
        (
            '{"request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}],'
            ' "labels": {"custom-id": "A"}}}',
            "labels",
        ),
    ],
)
async def test_a_job_with_a_wrong_line_is_refused(storage: Storage, line: str, why: str) -> None:
    storage.put("gs://b1/in.jsonl", line.encode())
    body = {
        "displayName": "x",
        "model": "publishers/google/models/gemini-2.5-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b1/in.jsonl"]}},
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": "gs://b1/out"},
        },
    }
    async with (
        VertexBatches(storage) as jobs,
        httpx.AsyncClient(base_url=jobs.url, headers=TOKEN) as client,
    ):
        answer = await client.post(JOBS, json=body)
    assert answer.status_code == 400
    assert why in answer.text
