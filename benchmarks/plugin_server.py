"""Access events: this plugin server against kong-pdk's own, with the same handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

import kong_ai_proxy
from benchmarks import replay
from kong_ai_proxy.gateway.context import Body, Client, PluginEntity, RequestContext, Upstream

BODY_SIZES = (200, 20_000, 200_000)
NGINX_BUFFER = 8192  # client_body_buffer_size: above it nginx writes the body to a file
CONCURRENCY = 16
PLUGINS = Path(kong_ai_proxy.__file__).parent / "pluginserver" / "plugins"


@dataclass(frozen=True)
class Server:
    """A plugin server to measure: how to start it with its socket in a folder."""

    name: str
    protocol: str
    command: tuple[str, ...]
    socket: str


def servers() -> tuple[Server, ...]:
    """Ours over both protocols with one worker, and kong-pdk's in its two modes."""
    ours = (sys.executable, "-m", "kong_ai_proxy", "serve", "--workers", "1", "--protocol")
    stock = (
        str(Path(sys.executable).with_name("kong-python-pluginserver")),
        "--no-lua-style",
        "--plugins-directory",
        str(PLUGINS),
        "--socket-name",
        "s.sock",
        "--kong-prefix",
        "{folder}",
    )
    return (
        Server(
            "kong-ai-proxy, ProtoBuf:1",
            "protobuf",
            (*ours, "protobuf", "--socket", "{folder}/s.sock"),
            "s.sock",
        ),
        Server(
            "kong-ai-proxy, MsgPack:1",
            "msgpack",
            (*ours, "msgpack", "--socket", "{folder}/s.sock"),
            "s.sock",
        ),
        Server("kong-pdk, threads", "msgpack", stock, "s.sock"),
        Server("kong-pdk, gevent", "msgpack", (*stock, "--gevent"), "s.sock"),
    )


@dataclass(frozen=True)
class Figures:
    """What one server did with bodies of one size."""

    events: float  # a second
    round_trips: float  # an event: how often the server waited for Kong, the event's start included
    cpu: float  # microseconds of the server's CPU an event


def entity() -> PluginEntity:
    """ai-proxy with a key and a default, so that every body has to be changed."""
    config = {
        "route_type": "llm/v1/chat",
        "auth": {"header_name": "Authorization", "header_value": "Bearer sk-bench"},
        "model": {"provider": "openai", "name": "gpt-4o", "options": {"max_tokens": 256}},
    }
    return PluginEntity("ai-proxy", "11111111-1111-5111-8111-111111111111", config, "key", 1, "ws")


def body(size: int) -> bytes:
    """A chat request of about `size` bytes."""
    message = {"role": "user", "content": "x" * max(1, size - 90)}
    return orjson.dumps({"model": "gpt-4o", "messages": [message], "temperature": 0.5})


def spooled(content: bytes, folder: Path) -> Body:
    """The body where nginx keeps it: in memory, or in a file."""
    if len(content) <= NGINX_BUFFER:
        return Body(content)
    file = folder / f"body-{len(content)}"
    file.write_bytes(content)
    return Body(file=file)


def context(kept: Body, length: int) -> RequestContext:
    """A chat request as Kong has it in the access phase."""
    headers = [
        ("Host", "127.0.0.1:8000"),
        ("User-Agent", "OpenAI/Python 2.0"),
        ("Accept", "application/json"),
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer client"),
        ("Content-Length", str(length)),
    ]
    client = Client("POST", "/v1/chat/completions", "", headers, body=kept)
    upstream = Upstream("http", "ai.invalid", 80, "POST", "/", "", list(headers))
    return RequestContext(client, upstream, "0" * 32)


@contextmanager
def started(server: Server, folder: Path) -> Iterator[psutil.Process]:
    """The server's process, listening."""
    command = [part.format(folder=folder) for part in server.command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while not (folder / server.socket).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.name} did not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and its descendants."""
    family = [process, *process.children(recursive=True)]
    times = [each.cpu_times() for each in family]
    return sum(each.user + each.system for each in times)


async def run(server: Server, folder: Path, size: int, seconds: float) -> Figures:
    """Events of one body size from CONCURRENCY connections for `seconds`."""
    content = body(size)
    kept = spooled(content, folder)
    with started(server, folder) as process:
        replays = [
            await replay.connect(
                server.protocol,
                folder / server.socket,
                entity(),
                lambda: context(kept, len(content)),
            )
            for _ in range(CONCURRENCY)
        ]
        await asyncio.gather(*(each.event() for each in replays))  # warm
        cpu, begin = cpu_seconds(process), time.perf_counter()
        deadline = begin + seconds
        counts = await asyncio.gather(*(_events(each, deadline) for each in replays))
        elapsed = time.perf_counter() - begin
        events = sum(count for count, _ in counts)
        waits = sum(waited for _, waited in counts)
        used = cpu_seconds(process) - cpu
        for each in replays:
            each.close()
    return Figures(events / elapsed, waits / events, used / events * 1e6)


async def _events(each: replay.Replay, deadline: float) -> tuple[int, int]:
    count = waits = 0
    while time.perf_counter() < deadline:
        waits += await each.event()
        count += 1
    return count, waits


def measure(seconds: float) -> list[tuple[str, int, Figures]]:
    """Every server with every body size."""
    results = []
    for size in BODY_SIZES:
        for server in servers():
            with tempfile.TemporaryDirectory(prefix="kap-bench-") as folder:
                results.append(
                    (server.name, size, asyncio.run(run(server, Path(folder), size, seconds)))
                )
    return results


def table(results: list[tuple[str, int, Figures]]) -> str:
    """Markdown: a row each server and size, with the ratio to kong-pdk's threads."""
    lines = [
        f"Access events, {CONCURRENCY} at a time, one process a server, each body changed:",
        "",
        "| body | plugin server | events/s | x kong-pdk threads | round trips | CPU µs/event |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    base = {size: f.events for name, size, f in results if name == "kong-pdk, threads"}
    for name, size, f in results:
        ratio = f.events / base[size]
        lines.append(
            f"| {size:,} B | {name} | {f.events:,.0f} | {ratio:.1f} "
            f"| {f.round_trips:.0f} | {f.cpu:,.0f} |"
        )
    return "\n".join(lines)
