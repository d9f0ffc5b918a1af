"""What the stand-in of Azure refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.providers.azure_api import Azure

Json = dict[str, Any]

CHAT: Json = {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}
KEY = {"api-key": "azure-key"}
DATED = "api-version=2025-04-01-preview"


@pytest.fixture
async def azure() -> AsyncIterator[Azure]:
    async with Azure(["mine"]) as azure:
        yield azure


async def status(
    azure: Azure, path: str, body: Json | None = None, headers: Json | None = None
) -> int:
    """Of a POST, or of a GET where there is no body."""
    async with aiohttp.ClientSession() as session:
        given = KEY if headers is None else headers
        method = "GET" if body is None else "POST"
        async with session.request(method, azure.url + path, json=body, headers=given) as answer:
            await answer.read()
            return answer.status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/openai/deployments/mine/chat/completions?{DATED}", CHAT),
        (f"/openai/files?{DATED}", None),
        (f"/openai/responses?{DATED}", {"model": "mine", "input": "hi"}),
        ("/openai/v1/responses", {"model": "mine", "input": "hi"}),
        ("/openai/v1/videos?api-version=preview", {"model": "mine", "prompt": "a river"}),
    ],
)
async def test_what_is_right(azure: Azure, path: str, body: Json | None) -> None:
    assert await status(azure, path, body) == 200
    assert await status(azure, path, body, {"authorization": "Bearer entra-token"}) == 200
    assert azure.failures == []


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (f"/v1/chat/completions?{DATED}", CHAT, 404),
        ("/openai/deployments/mine/chat/completions", CHAT, 404),
        ("/openai/deployments/mine/chat/completions?api-version=preview", CHAT, 404),
        (f"/openai/deployments/mine/chat/completions?{DATED}&{DATED}", CHAT, 404),
        (f"/openai/deployments/other/chat/completions?{DATED}", CHAT, 404),
        (f"/openai/deployments/mine/chat/completions?{DATED}", {**CHAT, "odd": 1}, 400),
        ("/openai/files", None, 404),
        (f"/openai/v1/files?{DATED}", None, 400),
        ("/openai/responses?api-version=2024-10-21", {"model": "mine", "input": "hi"}, 400),
        ("/openai/v1/responses", {"model": "other", "input": "hi"}, 404),
        ("/openai/v1/responses", {"input": "hi"}, 404),
        ("/openai/v1/videos", {"model": "sora-2", "prompt": "a river"}, 404),
        ("/openai/v1/realtime?model=mine&api-version=preview", None, 401),
        ("/openai/v1/realtime?deployment=mine", None, 400),
        (f"/openai/realtime?{DATED}&model=mine", None, 400),
        ("/openai/realtime?deployment=mine", None, 404),
        ("/openai/v1/realtime?intent=transcription&model=mine", None, 400),
        (f"/openai/realtime?{DATED}&call_id=rtc_1&deployment=mine", None, 400),
    ],
)
async def test_what_is_wrong(azure: Azure, path: str, body: Json | None, expected: int) -> None:
    assert await status(azure, path, body) == expected
    assert len(azure.failures) == 1


@pytest.mark.parametrize(
    "headers", [{}, {"api-key": "other"}, {"authorization": "Bearer azure-key"}]
)
async def test_who_is_not_known(azure: Azure, headers: Json) -> None:
    assert await status(azure, f"/openai/files?{DATED}", None, headers) == 401
