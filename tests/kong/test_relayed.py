"""What the relay carries, from the client through a real Kong to the provider, and what Kong's own
log and metrics say of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.decks import KEY, config, deck, route
from tests.gateways import GatewayError, GatewayFactory, Plan, RunningGateway
from tests.kong.scripted import MARKER, TICKET, Log, Script, ScriptedUpstream, chunk
from tests.recorder import Received

Json = dict[str, Any]
CHAT: Json = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
PLUGINS = ["ai-proxy", "ai-proxy-advanced"]
SEEN = {"log_statistics": True, "log_payloads": True}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "good day"},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
BODY = json.dumps(ANSWER).encode()


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedUpstream]:
    """Answers with ANSWER and two cookies."""
    async with ScriptedUpstream() as scripted:
        scripted.script = answering("200 OK", BODY)
        yield scripted


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def answering(status: str, body: bytes) -> Script:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        "Set-Cookie: __cf_bm=1; Path=/",
        "Set-Cookie: second=2",
        f"Content-Length: {len(body)}",
    ]

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return script


def event(**delta: Any) -> bytes:
    """One event of a streamed chat."""
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + json.dumps(data).encode() + b"\n\n"


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST_EVENTS = (
    b"data: "
    + json.dumps({**ANSWER, "object": "chat.completion.chunk", "choices": []}).encode()
    + b"\n\ndata: [DONE]\n\n"
)


async def start(
    kong: GatewayFactory, configuration: Json, *plugins: Json, plugin: str = "ai-proxy"
) -> RunningGateway:
    """A Kong on this machine with the route /chat."""
    if kong.kind != "installed":
        pytest.skip("the log file would be inside the container")
    wanted = configuration if plugin == "ai-proxy" else {"targets": [configuration]}
    ai_route = route("/chat", wanted, plugin)
    ai_route["plugins"] += plugins
    return await kong(deck(ai_route))


@pytest.mark.parametrize("plugin", PLUGINS)
async def test_statistics_and_payloads_are_in_kongs_own_log(
    kong: GatewayFactory,
    provider: ScriptedUpstream,
    http: httpx.AsyncClient,
    log: Log,
    plugin: str,
) -> None:
    priced = config(provider.url("/x"), logging=SEEN)
    priced["model"]["options"].update(input_cost=100_000, output_cost=200_000)
    running = await start(kong, priced, log.plugin, plugin=plugin)
    answer = await http.post(f"{running.url}/chat", json=CHAT)
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    record = await log.record()
    ai = record["ai"]["proxy"]
    assert ai["meta"]["provider_name"] == "openai"
    assert ai["meta"]["request_model"] == "gpt-4o"
    assert ai["meta"]["response_model"] == "gpt-4o-2024-08-06"
    assert ai["meta"]["llm_latency"] >= 0
    assert USAGE.items() <= ai["usage"].items()
    assert ai["usage"]["cost"] == pytest.approx((3 * 100_000 + 4 * 200_000) / 1_000_000)
    assert ai["tried_targets"][0]["port"] == provider.port
    assert json.loads(ai["payload"]["request"])["messages"] == CHAT["messages"]
    assert json.loads(ai["payload"]["response"]) == ANSWER
    assert record["tries"][0]["port"] != provider.port


async def test_without_payloads_there_are_none_in_the_log(
    kong: GatewayFactory, provider: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    statistics = config(provider.url("/x"), logging={"log_statistics": True})
    running = await start(kong, statistics, log.plugin)
    await http.post(f"{running.url}/chat", json=CHAT)
    text = await log.text()
    assert "payload" not in json.loads(text)["ai"]["proxy"]
    assert "hello" not in text
    assert "good day" not in text


@pytest.mark.parametrize("plugin", PLUGINS)
async def test_what_kong_carries_has_no_statistics_and_goes_to_the_provider_itself(
    kong: GatewayFactory,
    provider: ScriptedUpstream,
    http: httpx.AsyncClient,
    log: Log,
    plugin: str,
) -> None:
    running = await start(kong, config(provider.url("/x")), log.plugin, plugin=plugin)
    answer = await http.post(f"{running.url}/chat", json=CHAT)
    assert (answer.json(), "set-cookie" in answer.headers) == (ANSWER, False)
    record = await log.record()
    assert "ai" not in record
    assert record["tries"][0]["port"] == provider.port


@pytest.mark.parametrize("logging", [SEEN, {}], ids=["relay", "kong"])
async def test_neither_side_sees_what_is_between_kong_and_the_relay(
    kong: GatewayFactory,
    provider: ScriptedUpstream,
    http: httpx.AsyncClient,
    log: Log,
    logging: Json,
) -> None:
    running = await start(kong, config(provider.url("/x"), logging=logging), log.plugin)
    forged = {TICKET: "forged-by-the-client", MARKER: "0" * 32}
    own = {"x-api-key": "sk-the-clients-own", "cookie": "session=the-clients-own"}
    answer = await http.post(f"{running.url}/chat", json=CHAT, headers={**forged, **own})
    assert answer.json() == ANSWER
    assert provider.last.header("authorization") == f"Bearer {KEY}"
    assert not [name for name in provider.last.names if name.startswith("x-kong-ai-proxy")]
    assert "the-clients-own" not in repr(provider.last)
    assert not [name for name in answer.headers if name.startswith("x-kong-ai-proxy")]
    assert "set-cookie" not in answer.headers
    text = await log.text()
    headers = json.loads(text)["request"]["headers"]
    assert {headers.get(name, "REDACTED") for name in (TICKET, MARKER)} == {"REDACTED"}
    assert "forged-by-the-client" not in text
    assert KEY not in text


async def test_a_streams_events_come_one_by_one_and_its_usage_is_in_the_log(
    kong: GatewayFactory, provider: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    """The provider sends the next only when the client has the one before."""
    arrived: asyncio.Queue[None] = asyncio.Queue()
    events = [event(content=f"word {number} ") for number in range(10)]

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for sent in events:
            writer.write(chunk(sent))
            await writer.drain()
            await arrived.get()
        writer.write(chunk(LAST_EVENTS) + chunk(b""))

    provider.script = script
    running = await start(kong, config(provider.url("/x"), logging=SEEN), log.plugin)
    received = b""
    streamed = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", f"{running.url}/chat", json=streamed) as answer:
        async for data in answer.aiter_raw():
            arrived.put_nowait(None)
            received += data
    assert received == b"".join(events) + LAST_EVENTS
    ai = (await log.record())["ai"]["proxy"]
    assert ai["meta"]["request_mode"] == "stream"
    assert USAGE.items() <= ai["usage"].items()


@pytest.mark.parametrize("status", ["400 Bad Request", "429 Too Many Requests", "503 Busy"])
async def test_a_providers_error_passes_and_is_in_the_log(
    kong: GatewayFactory,
    provider: ScriptedUpstream,
    http: httpx.AsyncClient,
    log: Log,
    status: str,
) -> None:
    body = b'{"error":{"message":"no"}}'
    provider.script = answering(status, body)
    running = await start(kong, config(provider.url("/x"), logging=SEEN), log.plugin)
    answer = await http.post(f"{running.url}/chat", json=CHAT)
    assert (answer.status_code, answer.content) == (int(status[:3]), body)
    assert "x-kong-llm-model" not in answer.headers
    assert (await log.record())["ai"]["proxy"]["meta"]["provider_name"] == "openai"


async def test_a_provider_that_is_silent_is_answered_for_by_the_relay(
    kong: GatewayFactory, provider: ScriptedUpstream, http: httpx.AsyncClient, log: Log
) -> None:
    """Kong, whose own time would be up as soon, waits for the relay's answer."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    provider.script = script
    if kong.kind != "installed":
        pytest.skip("the log file would be inside the container")
    limits = {"connect_timeout": 300, "write_timeout": 300, "read_timeout": 300, "retries": 0}
    advanced = {"targets": [config(provider.url("/x"), logging=SEEN)], "balancer": limits}
    ai_route = route("/chat", advanced, "ai-proxy-advanced")
    ai_route["plugins"].append(log.plugin)
    running = await kong(deck(ai_route))
    answer = await http.post(f"{running.url}/chat", json=CHAT)
    assert answer.status_code == 504
    assert "error" in answer.json()
    record = await log.record()
    assert record["upstream_status"] == "504"
    assert record["ai"]["proxy"]["tried_targets"][0]["port"] == provider.port


async def test_prometheus_counts_what_the_relay_carried(
    kong: GatewayFactory, provider: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    metrics = {"name": "prometheus", "config": {"ai_metrics": True}}
    configuration = config(provider.url("/x"), name="gpt-4o-counted", logging=SEEN)
    try:
        running = await start(kong, configuration, metrics)
    except GatewayError as error:
        if "unknown field" not in str(error):
            raise
        pytest.skip("the prometheus plugin before Kong 3.8 knows no ai_metrics")
    sent = {**CHAT, "model": "gpt-4o-counted"}
    assert (await http.post(f"{running.url}/chat", json=sent)).status_code == 200
    labels = 'ai_provider="openai",ai_model="gpt-4o-counted"'
    wanted = {"prompt_tokens": "3", "completion_tokens": "4", "total_tokens": "7"}
    counted: dict[str, str] = {}
    async with asyncio.timeout(15):  # it counts on a timer
        while counted != wanted:
            await asyncio.sleep(0.1)
            text = (await http.get(f"{running.admin_url}/metrics")).text
            counted = {
                line.partition('token_type="')[2].partition('"')[0]: line.rpartition(" ")[2]
                for line in text.splitlines()
                if line.startswith("kong_ai_llm_tokens_total{") and labels in line
            }
    assert f"kong_ai_llm_requests_total{{{labels}" in text


async def test_a_live_stream_survives_a_reload_of_kong_and_the_end_of_its_plugin_server(
    kong: GatewayFactory, provider: ScriptedUpstream, http: httpx.AsyncClient
) -> None:
    """Kong ends the plugin server that the old worker had started, by SIGKILL if need be."""
    if kong.kind != "installed":
        pytest.skip("containers number their processes on their own")
    running = await kong.kong(Plan(kong.kind))
    more = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if not json.loads(request.body).get("stream"):
            await answering("200 OK", BODY)(request, writer)
            return
        writer.write(STREAM_HEAD + chunk(event(content="before ")))
        await more.wait()
        writer.write(chunk(event(content="after ")) + chunk(LAST_EVENTS) + chunk(b""))

    async def reload() -> None:
        old = launchers(running)
        await asyncio.to_thread(running.command, "reload")
        while not set(launchers(running)) - set(old):
            await asyncio.sleep(0.05)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        assert (await http.post(f"{running.url}/chat", json=CHAT)).status_code == 200

    provider.script = script
    await running.reload(deck(route("/chat", config(provider.url("/x"), logging=SEEN))))
    streamed = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    received = b""
    try:
        async with http.stream("POST", f"{running.url}/chat", json=streamed) as answer:
            assert answer.status_code == 200
            async for data in answer.aiter_raw():
                if not received:
                    async with asyncio.timeout(40):
                        await reload()
                    more.set()
                received += data
    finally:
        more.set()
    assert received == event(content="before ") + event(content="after ") + LAST_EVENTS


def launchers(running: RunningGateway) -> list[int]:
    """Those of the plugin server's processes that Kong itself has started."""
    return [pid for pid in running.plugin_server_pids() if "serve" in psutil.Process(pid).cmdline()]
