"""With PostgreSQL: the plugin through the Admin API, entity by entity."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from testcontainers.core.container import DockerContainer

from tests.decks import config
from tests.gateways import ABSENT, GatewayFactory, Kong, Plan, wait_until
from tests.recorder import Recorder

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
_ACCOUNT = {"POSTGRES_USER": "kong", "POSTGRES_PASSWORD": "kong", "POSTGRES_DB": "kong"}


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """kong.conf's entries for an empty database."""
    kind = request.node.callspec.params["kong"]
    if kind in (ABSENT, "installed"):
        pytest.skip("PostgreSQL runs in a container, beside a Kong in one: --gateway 3.9")
    container = DockerContainer("postgres:16-alpine").with_envs(**_ACCOUNT)
    with container.with_exposed_ports(5432):
        ready = ["pg_isready", "-h", "127.0.0.1", "-U", "kong"]
        wait_until(lambda: container.exec(ready)[0] == 0, "PostgreSQL", 40)
        yield {
            "database": "postgres",
            "pg_host": "127.0.0.1",
            "pg_port": str(container.get_exposed_port(5432)),
            "pg_user": "kong",
            "pg_password": "kong",
            "pg_database": "kong",
            "worker_state_update_frequency": "1",
        }


@pytest.fixture
async def running(postgres: Mapping[str, str], kong: GatewayFactory) -> Kong:
    """A Kong with one Service, which has one Route and no plugin."""
    running = await kong.kong(Plan(kong.kind, changes=postgres))
    service = {"name": "ai", "url": "http://ai.invalid", "retries": 0}
    async with httpx.AsyncClient(base_url=running.admin_url, timeout=30) as admin:
        (await admin.post("/services", json=service)).raise_for_status()
        answer = await admin.post("/services/ai/routes", json={"name": "chat", "paths": ["/chat"]})
        answer.raise_for_status()
    return running


async def chat_until(running: Kong, status: int) -> None:
    """Ask until the answer has this status: Kong's workers learn of a change a little later."""
    deadline = time.monotonic() + 20
    async with httpx.AsyncClient(timeout=30) as http:
        while (answer := await http.post(f"{running.url}/chat", json=CHAT)).status_code != status:
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.1)


async def test_the_plugin_is_added_changed_and_taken_away(
    running: Kong, provider: Recorder
) -> None:
    async with httpx.AsyncClient(base_url=running.admin_url, timeout=30) as admin:
        plugin = {"name": "ai-proxy", "config": config(provider.url("/one"))}
        added = await admin.post("/services/ai/plugins", json=plugin)
        assert added.status_code == 201, added.text
        await chat_until(running, 200)
        assert provider.last.target == "/one"

        path = f"/plugins/{added.json()['id']}"
        change = {"config": {"model": {"options": {"upstream_url": provider.url("/two")}}}}
        assert (await admin.patch(path, json=change)).status_code == 200
        deadline = time.monotonic() + 20
        while provider.last.target != "/two":
            assert time.monotonic() < deadline
            await chat_until(running, 200)

        assert (await admin.delete(path)).status_code == 204
        await chat_until(running, 503)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"route_type": "llm/v2/chat"}, "route_type"),
        ({"model": {"provider": "nobody"}}, "model"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_a_wrong_field_is_named(running: Kong, change: dict[str, Any], field: str) -> None:
    plugin = {"name": "ai-proxy", "config": {**config("http://127.0.0.1:9/x"), **change}}
    async with httpx.AsyncClient(base_url=running.admin_url, timeout=30) as admin:
        answer = await admin.post("/services/ai/plugins", json=plugin)
    assert answer.status_code == 400
    assert field in answer.json()["fields"]["config"]
