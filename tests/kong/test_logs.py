"""Keys stay out of what Kong's own log plugins write."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.decks import config, deck, route
from tests.gateways import GatewayFactory
from tests.recorder import Recorder

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
SECRET = "sk-never-in-a-log"


async def record(
    kong: GatewayFactory, provider: Recorder, folder: Path, auth: dict[str, str]
) -> dict[str, Any]:
    """What file-log writes about one request."""
    file = folder / "log.json"
    ai_route = route("/chat", config(provider.url("/x"), auth=auth))
    ai_route["plugins"].append({"name": "file-log", "config": {"path": str(file)}})
    running = await kong(deck(ai_route))
    if running.kind != "installed":
        pytest.skip("the log file is inside the container")
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(f"{running.url}/chat?page=1", json=CHAT)
    assert answer.status_code == 200
    assert SECRET in repr(provider.last)
    async with asyncio.timeout(10):
        while not file.exists() or not file.read_text().endswith("\n"):
            await asyncio.sleep(0.05)
    assert SECRET not in file.read_text()
    assert SECRET not in running.log()
    line: dict[str, Any] = json.loads(file.read_text())
    return line


async def test_a_key_in_a_header(kong: GatewayFactory, provider: Recorder, tmp_path: Path) -> None:
    auth = {"header_name": "X-Api-Key", "header_value": SECRET}
    line = await record(kong, provider, tmp_path, auth)
    assert line["request"]["headers"]["x-api-key"] == "REDACTED"


async def test_a_key_in_the_query_is_known_to_the_relay_only(
    kong: GatewayFactory, provider: Recorder, tmp_path: Path
) -> None:
    auth = {"param_name": "key", "param_value": SECRET, "param_location": "query"}
    line = await record(kong, provider, tmp_path, auth)
    assert provider.last.target == f"/x?key={SECRET}&page=1"
    assert line["request"]["querystring"] == {"page": "1"}
    assert line["upstream_uri"] == "/chat?page=1"
    assert line["tries"][0]["port"] != provider.port


async def test_the_url_of_an_upload_is_as_good_as_a_key(
    kong: GatewayFactory, provider: Recorder, tmp_path: Path
) -> None:
    """Who has the URL that Gemini answers an upload with goes on with the upload."""
    file = tmp_path / "log.json"
    url = f"{provider.url('/upload/v1beta/files')}?upload_id=upload-capability"
    provider.answer = provider.answer.replace(
        b"Content-Length", f"X-Goog-Upload-URL: {url}\r\nContent-Length".encode()
    )
    model = {"provider": "gemini", "options": {"upstream_url": provider.url()}}
    auth = {"header_name": "x-goog-api-key", "header_value": SECRET}
    native = {"llm_format": "gemini", "route_type": "llm/v1/chat", "auth": auth, "model": model}
    uploads = route("/upload", native)
    uploads["plugins"].append({"name": "file-log", "config": {"path": str(file)}})
    running = await kong(deck(uploads))
    if running.kind != "installed":
        pytest.skip("the log file is inside the container")
    headers = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}
    async with httpx.AsyncClient(timeout=20, base_url=running.url) as client:
        answer = await client.post("/upload/v1beta/files", json={}, headers=headers)
        headers["x-goog-upload-command"] = "upload, finalize"
        await client.post(answer.headers["x-goog-upload-url"], content=b"file", headers=headers)
    assert provider.last.target == "/upload/v1beta/files?upload_id=upload-capability"
    assert answer.headers["x-goog-upload-url"].startswith(f"{running.url}/upload/v1beta/files?")
    async with asyncio.timeout(10):
        while not file.exists() or file.read_text().count("\n") < 2:
            await asyncio.sleep(0.05)
    assert "upload-capability" not in file.read_text()
