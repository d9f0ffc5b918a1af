"""The stand-in for Gemini's files and batches: google-genai is content with it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import httpx
import pytest
from google import genai
from google.genai import types

from tests.providers import Turn
from tests.providers.gemini_files_api import GRANULARITY, GeminiFiles

# google-genai derives from aiohttp's session, of which aiohttp warns.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")

MODEL = "gemini-2.5-flash"
LINE = b'{"key": "a", "request": {"contents": [{"parts": [{"text": "2 + 2?"}], "role": "user"}]}}\n'


@pytest.fixture
async def upstream() -> AsyncIterator[GeminiFiles]:
    async with GeminiFiles() as upstream:
        yield upstream


def client_of(upstream: GeminiFiles) -> genai.client.AsyncClient:
    return genai.Client(
        api_key="k", http_options=types.HttpOptions(base_url=upstream.url, api_version="v1beta")
    ).aio


async def test_the_client_uploads_a_batch_and_reads_its_output(upstream: GeminiFiles) -> None:
    client = client_of(upstream)
    sent = await client.files.upload(
        file=io.BytesIO(LINE), config=types.UploadFileConfig(mime_type="jsonl", name="abc")
    )
    assert (sent.name, sent.size_bytes) == ("files/abc", len(LINE))
    made = await client.batches.create(
        model=MODEL, src="files/abc", config=types.CreateBatchJobConfig(display_name="abc")
    )
    assert made.name is not None
    upstream.finish(made.name, {"a": Turn(text="Four.")})
    ended = await client.batches.get(name=made.name)
    assert ended.done
    assert ended.dest is not None
    assert ended.dest.file_name is not None
    read = await client.files.download(file=ended.dest.file_name)
    assert b"Four." in read
    assert [each.name async for each in await client.files.list()] == [
        "files/abc",
        ended.dest.file_name,
    ]
    assert [each.name async for each in await client.batches.list()] == [made.name]
    await client.batches.cancel(name=made.name)
    await client.batches.delete(name=made.name)
    await client.files.delete(name="abc")
    assert upstream.failures == []
    assert "files/abc" not in upstream.files


async def test_it_refuses_pieces_of_another_size(upstream: GeminiFiles) -> None:
    headers = {
        "x-goog-api-key": "k",
        "x-goog-upload-protocol": "resumable",
        "x-goog-upload-command": "start",
        "x-goog-upload-header-content-type": "text/plain",
    }
    async with httpx.AsyncClient(base_url=upstream.url) as client:
        started = await client.post("/upload/v1beta/files", json={"file": {}}, headers=headers)
        url = started.headers["x-goog-upload-url"]
        piece = {"x-goog-upload-command": "upload", "x-goog-upload-offset": "0"}
        short = await client.post(url, content=b"x", headers=piece)
        assert short.status_code == 400
        assert str(GRANULARITY) in short.text
