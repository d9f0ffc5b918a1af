"""The stand-ins of providers that make videos refuse what these would refuse."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.providers.bedrock_videos_api import AsyncBedrock
from tests.providers.sora_api import SoraJobs
from tests.providers.upstream import Upstream
from tests.providers.veo_api import VeoPublic, VeoVertex

Json = dict[str, Any]
VEO = "/v1beta/models/veo-3:predictLongRunning"
VERTEX = "/v1/projects/acme/locations/us/publishers/google/models/veo-3"
JOBS = "/openai/v1/video/generations/jobs"


async def answered(
    upstream: Upstream, method: str, path: str, headers: Json, body: Json | None = None
) -> httpx.Response:
    async with upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        return await client.request(method, path, headers=headers, json=body)


def veo(instance: Json | None = None, **parameters: Any) -> Json:
    return {"instances": [instance or {"prompt": "x"}], "parameters": parameters}


@pytest.mark.parametrize(
    "body",
    [
        veo(seconds=8),
        veo(durationSeconds="8"),
        veo(storageUri="gs://x"),
        veo({"prompt": "x", "image": {"inlineData": {}}}),
        veo({"text": "x"}),
        {"instances": [{"prompt": "x"}], "parameters": {}},
        {"instances": []},
        {**veo(seed=1), "model": "veo-3"},
    ],
)
async def test_veo(body: Json) -> None:
    answer = await answered(VeoPublic(), "POST", VEO, {"x-goog-api-key": "k"}, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"


async def test_veo_takes_what_the_sdk_sends() -> None:
    body = veo(durationSeconds=8, aspectRatio="9:16", seed=7)
    answer = await answered(VeoPublic(), "POST", VEO, {"x-goog-api-key": "k"}, body)
    assert answer.json()["name"].startswith("models/veo-3/operations/")
    refused = await answered(VeoPublic(), "POST", VEO, {}, body)
    assert refused.status_code == 403


async def test_vertex() -> None:
    bearer = {"authorization": "Bearer t"}
    started = await answered(
        VeoVertex(), "POST", f"{VERTEX}:predictLongRunning", bearer, veo(storageUri="gs://x")
    )
    assert started.json()["name"].startswith("projects/acme/locations/us/publishers/google/")
    for name, status in (("operations/1", 400), (f"{VERTEX[4:]}/operations/1", 404)):
        answer = await answered(
            VeoVertex(),
            "POST",
            f"{VERTEX}:fetchPredictOperation",
            bearer,
            {"operationName": name},
        )
        assert answer.status_code == status


async def test_bedrock_wants_a_signature() -> None:
    for path in ("/async-invoke", "/acme-videos/x/output.mp4"):
        answer = await answered(AsyncBedrock("AKIA", "secret"), "GET", path, {})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("path", "headers", "changes", "status"),
    [
        (f"{JOBS}?api-version=preview", {}, {}, 401),
        (JOBS, {"api-key": "k"}, {}, 404),
        (f"{JOBS}?api-version=preview", {"api-key": "k"}, {"width": "480"}, 400),
        (f"{JOBS}?api-version=preview", {"api-key": "k"}, {"seconds": 4}, 400),
        (f"{JOBS}?api-version=preview", {"api-key": "k"}, {"n_seconds": 21}, 400),
        (f"{JOBS}?api-version=preview", {"api-key": "k"}, {}, 200),
    ],
)
async def test_sora(path: str, headers: Json, changes: Json, status: int) -> None:
    body = {"prompt": "x", "model": "sora", "width": 480, "height": 480, **changes}
    assert (await answered(SoraJobs(), "POST", path, headers, body)).status_code == status
